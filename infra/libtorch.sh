#!/usr/bin/env bash
# libtorch.sh: libtorch 2.11.0 in .libtorch/, unless LIBTORCH names one.
#
# The wheel's CPU library needs two CUDA runtime libraries to load, even without a GPU. The rest
# of CUDA is left out: a machine with a GPU sets LIBTORCH to its own PyTorch.
set -euo pipefail
cd "$(dirname "$0")/.."
version=2.11.0

# Holds for a pip folder, a conda environment and the zip file of libtorch alike.
holds() {
    [ -e "$1/lib/libtorch_cpu.so" ] && [ -d "$1/include/torch" ] &&
        grep -qs "$version" "$1/version.py" "$1/build-version"
}

if [ -n "${LIBTORCH:-}" ]; then
    holds "$LIBTORCH" && exit 0
    echo "infra/libtorch.sh: LIBTORCH=$LIBTORCH holds no libtorch $version; unset it to install one" >&2
    exit 1
fi
holds .libtorch/torch && exit 0
echo "installing libtorch $version into .libtorch/ (1.3 GB)" >&2
infra/pip.sh .libtorch "torch==$version" 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*'
