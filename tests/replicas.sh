#!/usr/bin/env bash
# Three replicas on a real MinIO, which die, race, collect, are torn from it and starved: tests/replicas.sh [ARGUMENT OF THE TEST…]
# COLLECT_ON_SEAWEEDFS=1 has the collector at work on SeaweedFS instead, which honours the condition of a delete: try it
# with the argument while_collectors.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

go_tool "$MINIO"
apt_tools faketime
FAKETIME_LIBRARY=$(find /usr/lib /usr/local/lib -name libfaketimeMT.so.1 -print -quit)
export FAKETIME_LIBRARY
if [[ -n ${COLLECT_ON_SEAWEEDFS:-} ]]; then
  export AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecret
  scratch=$(mktemp -d)
  trap '{ kill -KILL "$seaweedfs_pid"; wait; } 2>/dev/null; rm -rf "$scratch"' EXIT
  port=$(free_port)
  serve_seaweedfs "$port" "$scratch/weed" "$scratch/weed.log"
  export COLLECT_STORE=127.0.0.1:$port
fi
cargo test --locked --test replicas -- --test-threads=2 --nocapture "$@"
