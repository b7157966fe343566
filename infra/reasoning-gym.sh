#!/usr/bin/env bash
# reasoning-gym.sh FILE: 10,000 math problems of the package reasoning-gym as JSON lines, for
# jobs/smollm2.yaml. Does nothing if the file is there: it appears only when it is complete.
set -euo pipefail
[ $# = 1 ] || { echo "usage: infra/reasoning-gym.sh FILE" >&2; exit 64; }
[ -e "$1" ] && exit 0
command -v python3 >/dev/null || { echo "infra/reasoning-gym.sh: python3 is missing" >&2; exit 1; }
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" ||
    { echo "infra/reasoning-gym.sh: python3 has no venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
"$work/venv/bin/pip" install --quiet --disable-pip-version-check reasoning-gym==0.1.25
"$work/venv/bin/python" "$(dirname "${BASH_SOURCE[0]}")/reasoning-gym.py" "$work/problems"
mv "$work/problems" "$out"
