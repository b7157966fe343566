#!/usr/bin/env bash
# gpu-bench.sh [--quick] [OPTION…]: the engine on a GPU. First its numbers against the CPU's, then
# speed and memory for the shapes of SmolLM2-135M, Qwen2.5-1.5B and Qwen2.5-7B with random weights,
# beside transformers in the same run; a table last, all numbers in gpu-bench.json, in $OUT if that
# is set. At most 5.5 minutes; --quick: under 2, SmolLM2's shape alone. OPTIONs are those of
# benches/engine.py.
#
# Needs the program ($TRIAD, or target/release/triad-torch) and a Python ($PYTHON, or python3) with
# PyTorch 2.11 and, for the other side, transformers. $DEVICE names another device than cuda.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "infra/gpu-bench.sh: $*" >&2; exit 1; }

program=${TRIAD:-target/release/triad-torch}
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
[ -x "$program" ] || fail "no program at $program; build it, or name it by TRIAD"
command -v "$python" >/dev/null || fail "no $python; name a Python by PYTHON"

# The libraries of that Python's PyTorch, and NVIDIA's beside it, found without loading them.
libraries=$("$python" - <<'PYTHON'
import glob, importlib.util, os
found = importlib.util.find_spec("torch")
if found:
    folder = os.path.dirname(found.origin)
    nvidia = glob.glob(os.path.join(os.path.dirname(folder), "nvidia", "*", "lib"))
    print(":".join([os.path.join(folder, "lib"), *sorted(nvidia)]))
PYTHON
) || fail "$python does not run"
if [ -n "$libraries" ]; then
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
elif [ "$device" != cpu ]; then
    fail "$python has no PyTorch; name one that has by PYTHON"
fi
"$program" --version >&2 || fail "$program does not start; ldd says: $(ldd "$program" 2>&1 | grep -i 'not found' || true)"
if [ "$device" != cpu ]; then nvidia-smi -L >&2 || echo "nvidia-smi does not run" >&2; fi

if [ "${1:-}" = --quick ]; then
    shift
    set -- --shapes smollm2 --repeats 2 --new 64 --limit 60 --total 110 "$@"
else
    set -- --shapes smollm2,qwen-1.5b,qwen-7b --new 128 --limit 90 --total 330 "$@"
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$python" benches/engine.py "$program" --device "$device" --parity smollm2 --sequences 16 \
    --sequence 512 --micro-batch 8192 --json "${OUT:-.}/gpu-bench.json" "$@"
