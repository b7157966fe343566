#!/usr/bin/env bash
# images.sh [--given FOLDER] [OPTION…]: the images triad:cpu and triad:torch, from the sources.
# OPTIONs are those of `docker build`, such as `--build-arg LIBTORCH=cpu`. $IMAGE names another
# repository than triad, $TARGETS fewer targets, $DOCKER another program than docker.
#
# --given takes triad, triad-torch and triad-cluster from FOLDER and the CPU's part of libtorch from
# $LIBTORCH or .libtorch/torch, and compiles nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "infra/images.sh: $*" >&2; exit 1; }

docker=${DOCKER:-docker}
command -v "$docker" >/dev/null || fail "no $docker; on Debian and Ubuntu: apt-get install docker.io"
export DOCKER_BUILDKIT=1
context=.
options=()
if [ "${1:-}" = --given ]; then
    [ $# -gt 1 ] || fail "--given names no folder"
    given=$2; shift 2
    libtorch=${LIBTORCH:-.libtorch/torch}
    [ -e "$libtorch/lib/libtorch_cpu.so" ] || fail "no libtorch in $libtorch; \`make libtorch\` installs it"
    context=$(mktemp -d)
    trap 'rm -rf "$context"' EXIT
    mkdir "$context/programs"
    for program in triad triad-torch triad-cluster; do
        [ -x "$given/$program" ] || fail "no program at $given/$program; \`make build\` makes it"
        strip -o "$context/programs/$program" "$given/$program"
    done
    mkdir -p "$context"/libtorch/{torch/lib,nvidia/cu13/lib}
    cp -t "$context/libtorch/torch/lib" "$libtorch"/lib/{libtorch_cpu.so,libc10.so,libgomp.so.1}
    cp -t "$context/libtorch/nvidia/cu13/lib" "$libtorch"/../nvidia/cu13/lib/lib{cudart,cupti}.so.13
    options=(--build-arg PROGRAMS=given --build-arg LIBTORCH=given)
fi

image=${IMAGE:-triad}
version=$(sed -n '/^\[workspace.package\]/,/^version/s/^version = "\(.*\)"/\1/p' Cargo.toml)
commit=${TRIAD_COMMIT:-$(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || true)}
for target in ${TARGETS:-cpu torch}; do
    "$docker" build --file infra/Dockerfile --target "$target" \
        --tag "$image:$target" --tag "$image:$version-$target" \
        --build-arg VERSION="$version" --build-arg COMMIT="$commit" \
        ${options[@]+"${options[@]}"} "$@" "$context"
done
