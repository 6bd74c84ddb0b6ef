#!/usr/bin/env bash
# Runs the official OCI conformance suite against this registry, with every switch on.
#
#   PORT=5000       where the registry listens
#   DATA_DIR=…      a store to use and to leave behind; by default a temporary one
#   RUNS=1          how many times, one after the other on the same store
#
# Leaves report.html and junit.xml here, results.yaml in results/, and the registry's log in tests/registry.log.
set -euo pipefail
cd "$(dirname "$0")"
source .ci/lib.sh

readonly PORT=${PORT:-5000} RUNS=${RUNS:-1} RESULTS=results

scratch=$(mktemp -d)
trap 'kill_registry; rm -rf "$scratch"' EXIT

main() {
  port_is_free "$PORT" || die "port $PORT is taken (set PORT to use another): $(port_holder "$PORT")"
  cargo build --locked
  go_tool "$CONFORMANCE"
  start_registry "$PORT" "${DATA_DIR:-$scratch}" tests/registry.log --allow-missing-references

  local run code=0
  for ((run = 1; run <= RUNS; run++)); do
    rm -f report.html junit.xml
    conformance_passes "127.0.0.1:$PORT" "$RESULTS" || code=$?
    cp "$RESULTS/report.html" "$RESULTS/junit.xml" . || code=$?
    ((code == 0)) || die "run $run of $RUNS did not pass: see report.html and tests/registry.log"
    echo "run $run of $RUNS: $EXPECTED Pass, 0 of anything else"
  done

  stop_registry
}

main
