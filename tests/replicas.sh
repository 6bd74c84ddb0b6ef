#!/usr/bin/env bash
# Three replicas on a real MinIO, which die, race, collect, are torn from it and starved: tests/replicas.sh [ARGUMENT OF THE TEST…]
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

go_tool "$MINIO"
apt_tools faketime
FAKETIME_LIBRARY=$(find /usr/lib /usr/local/lib -name libfaketimeMT.so.1 -print -quit)
export FAKETIME_LIBRARY
cargo test --locked --test replicas -- --test-threads=2 --nocapture "$@"
