#!/usr/bin/env bash
# s3-dev.sh [PORT]: an S3 server on loopback to try triad with, until Ctrl-C. Data stays in
# .tools/s3-dev/. Uses PORT (18333) and the nine above it.
set -euo pipefail
cd "$(dirname "$0")/.."
infra/tools.sh
port=${1:-18333}
folder=.tools/s3-dev
mkdir -p "$folder"
cat >"$folder/s3.json" <<'JSON'
{"identities": [{"name": "dev", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "triad-dev", "secretKey": "triad-dev-secret"}]}]}
JSON
cat <<EXPORTS
export AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=triad-dev AWS_SECRET_ACCESS_KEY=triad-dev-secret
export TRIAD_STORE=s3://triad/dev
EXPORTS
exec .tools/seaweedfs/bin/weed -logtostderr=true -v=0 mini -dir="$folder" \
    -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -webdav=false -admin.ui=false \
    -s3.config="$folder/s3.json" -bucket=triad -s3.autoCreateBucket=false \
    -s3.port="$port" -s3.port.grpc=$((port + 1)) -s3.port.iceberg=0 -s3.port.lance=0 \
    -master.port=$((port + 2)) -master.port.grpc=$((port + 3)) \
    -volume.port=$((port + 4)) -volume.port.grpc=$((port + 5)) \
    -filer.port=$((port + 6)) -filer.port.grpc=$((port + 7)) \
    -admin.port=$((port + 8)) -admin.port.grpc=$((port + 9)) >"$folder/log" 2>&1
