#!/usr/bin/env bash
# dockerd.sh FOLDER: a Docker daemon to build and try images with, until Ctrl-C, on a machine that
# has none. All that it keeps lies in FOLDER. It makes no network: a container has the machine's
# (`docker build --network host`, `docker run --network host`) or none. Needs root.
set -euo pipefail
[ $# = 1 ] || { echo "usage: infra/dockerd.sh FOLDER" >&2; exit 64; }
command -v dockerd >/dev/null ||
    { echo "infra/dockerd.sh: no dockerd; on Debian and Ubuntu: apt-get install docker.io" >&2; exit 1; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
echo "export DOCKER_HOST=unix://$folder/docker.sock"
exec dockerd --data-root "$folder/root" --exec-root "$folder/exec" --pidfile "$folder/docker.pid" \
    --host "unix://$folder/docker.sock" --iptables=false --ip6tables=false --bridge=none \
    --ip-forward=false >"$folder/log" 2>&1
