#!/usr/bin/env bash
# reasoning-gym.sh FILE: 10,000 math problems of the package reasoning-gym as JSON lines, for
# jobs/smollm2.yaml. Does nothing if the file is there.
set -euo pipefail
[ $# = 1 ] || { echo "usage: infra/reasoning-gym.sh FILE" >&2; exit 64; }
[ -e "$1" ] && exit 0
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")/.."
[ -d .tools/reasoning-gym ] || infra/pip.sh --modules .tools/reasoning-gym reasoning-gym==0.1.25
PYTHONPATH=.tools/reasoning-gym python3 infra/reasoning-gym.py "$out.part"
mv "$out.part" "$out"
