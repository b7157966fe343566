#!/usr/bin/env bash
# pip.sh [--modules] FOLDER PACKAGE…: unpacks wheels of this platform into FOLDER, all or nothing.
#
# The packages hold libraries and programs, no Python that we run: the wheels are those of one
# fixed Python version, whatever python3 the machine has. With --modules they are modules for that
# python3. pip comes from the machine, or from a virtual environment in .tools/.
set -euo pipefail
cd "$(dirname "$0")/.."
modules=
if [ "$1" = --modules ]; then modules=1; shift; fi
folder=$1; shift

fail() { echo "infra/pip.sh: $*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "no wheels chosen for $(uname -s); install libtorch yourself and set LIBTORCH"
machine=$(uname -m)
case $machine in
    x86_64 | aarch64) ;;
    *) fail "no wheels for $machine" ;;
esac
command -v python3 >/dev/null || fail "python3 is missing; on Debian and Ubuntu: apt-get install python3 python3-venv"

python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    python=.tools/venv/bin/python
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        rm -rf .tools/venv
        python3 -m venv .tools/venv >/dev/null 2>&1 ||
            fail "python3 has neither pip nor venv; on Debian and Ubuntu: apt-get install python3-venv"
    fi
fi

# Told a platform, pip takes no wheel made for an older glibc: each version is named.
platforms=(--platform "manylinux2014_$machine")
for minor in {17..28}; do platforms+=(--platform "manylinux_2_${minor}_$machine"); done
wheels=(--implementation cp --python-version 3.11 --abi cp311 "${platforms[@]}")
if [ "$modules" ]; then wheels=(); fi

# pip moves what it unpacked from TMPDIR into the target: on the same disk that is a rename.
part=$folder.part
rm -rf "$part"
mkdir -p "$part/tmp" "$(dirname "$folder")"
trap 'rm -rf "$part"' EXIT
TMPDIR=$PWD/$part/tmp "$python" -m pip install --quiet --disable-pip-version-check \
    --root-user-action=ignore --target "$part/site" --no-deps --no-compile --only-binary=:all: \
    "${wheels[@]}" "$@" ||
    fail "cannot install $*; run the same command again, or check pip's index settings"
rm -rf "$folder"
mv "$part/site" "$folder"
