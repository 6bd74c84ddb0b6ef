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

readonly EXPECTED=1032 # every assertion of the suite at the pinned version
readonly PORT=${PORT:-5000} RUNS=${RUNS:-1} RESULTS=results

scratch=$(mktemp -d)
trap 'kill_registry; rm -rf "$scratch"' EXIT

main() {
  port_is_free "$PORT" || die "port $PORT is taken (set PORT to use another): $(port_holder "$PORT")"
  cargo build --locked
  go_tool "$CONFORMANCE"
  start_registry "$PORT" "${DATA_DIR:-$scratch}" tests/registry.log --allow-missing-references

  set -a
  source tests/.env_vars
  set +a
  export OCI_REGISTRY=127.0.0.1:$PORT OCI_RESULTS_DIR=$RESULTS
  local run
  for ((run = 1; run <= RUNS; run++)); do
    run_suite || die "run $run of $RUNS did not pass: see report.html and tests/registry.log"
    echo "run $run of $RUNS: $EXPECTED Pass, 0 of anything else"
  done

  stop_registry
}

# The suite exits with 0 also after skipped and disabled tests and on a bad configuration, so only what it wrote counts.
run_suite() {
  rm -rf "$RESULTS" report.html junit.xml
  conformance >"$scratch/summary" || true
  cp "$RESULTS/report.html" "$RESULTS/junit.xml" . && all_passed && return
  grep -E '^ +OCI .*: (FAIL|Error|Skip|Disabled)$' "$scratch/summary" | head -n 50 >&2
  sed -n '/^OCI Conformance Result/,/Total/p' "$scratch/summary" >&2
  return 1
}

# junit.xml counts the assertions, and names skipped and disabled ones only where there are any; results.yaml gives a
# verdict per API and kind of data.
all_passed() {
  grep -q "<testsuite [^>]* tests=\"$EXPECTED\" failures=\"0\" errors=\"0\" time=" junit.xml &&
    [[ $(verdicts | sort -u) == Pass ]]
}

verdicts() { sed -n '/^apis:/,$ s/^  .*: //p' "$RESULTS/results.yaml"; }

main
