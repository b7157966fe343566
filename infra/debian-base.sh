#!/usr/bin/env bash
# debian-base.sh TAG: Debian 12 as an image, by debootstrap, where no registry can be reached: for
# `--build-arg BASE=TAG`. Needs root; $MIRROR names another mirror than debootstrap has. The packed
# system stays in .tools/debian-12.tar.
set -euo pipefail
[ $# = 1 ] || { echo "usage: infra/debian-base.sh TAG" >&2; exit 64; }
cd "$(dirname "$0")/.."
tar=.tools/debian-12.tar
if [ ! -e "$tar" ]; then
    command -v debootstrap >/dev/null || {
        echo "infra/debian-base.sh: no debootstrap; on Debian and Ubuntu: apt-get install debootstrap" >&2
        exit 1
    }
    mkdir -p .tools
    part=$(mktemp -d "$tar.XXXXXX")
    trap 'rm -rf "$part"' EXIT
    echo "making Debian 12 in $tar (150 MB)" >&2
    debootstrap --variant=minbase bookworm "$part/root" ${MIRROR:+"$MIRROR"} \
        >"$part/log" 2>&1 || { tail -n 5 "$part/log" >&2; exit 1; }
    rm -rf "$part"/root/var/cache/apt/*.bin "$part"/root/var/cache/apt/archives/*.deb \
        "$part"/root/var/lib/apt/lists/* "$part"/root/dev/*
    tar -C "$part/root" -cf "$part/tar" .
    mv "$part/tar" "$tar"
fi
"${DOCKER:-docker}" import "$tar" "$1" >/dev/null
