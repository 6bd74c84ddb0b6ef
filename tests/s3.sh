#!/usr/bin/env bash
# The registry on a real S3 server: tests/s3.sh minio|seaweedfs REPLICAS
#
# Starts the server, that many registries on one bucket and, in front of more than one, a balancer that sends each request
# to the next replica. Runs the official conformance suite through it, then checks the store. Everything listens on
# loopback and is ended by its own pid.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

readonly SERVER=$1 REPLICAS=${2:-1}
export AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecret

scratch=$(mktemp -d)
pids=()
trap '{ kill -KILL "${pids[@]}"; wait; } 2>/dev/null; rm -rf "$scratch"' EXIT

main() {
  apt_tools curl
  go_tool "$CONFORMANCE"
  endpoint=http://127.0.0.1:$(free_port)
  "start_$SERVER" "${endpoint##*:}"
  store=(--store s3://registry/images --s3-endpoint "$endpoint")
  local number port ports=()
  for ((number = 1; number <= REPLICAS; number++)); do
    port=$(free_port)
    ports+=("$port")
    "$REGISTRY" serve --listen "127.0.0.1:$port" --allow-missing-references "${store[@]}" \
      >"$scratch/registry-$number.log" 2>&1 &
    pids+=($!)
    wait_for "http://127.0.0.1:$port/readyz" "$scratch/registry-$number.log"
  done
  local address=127.0.0.1:${ports[0]}
  if ((REPLICAS > 1)); then
    address=127.0.0.1:$(free_port)
    start_balancer "${address##*:}" "${ports[@]}"
  fi
  conformance_passes "$address" "$scratch/results" || {
    grep -h '"status":5' "$scratch"/registry-*.log | head -n 5 >&2
    die "conformance on $SERVER with $REPLICAS replicas did not pass"
  }
  "$REGISTRY" check "${store[@]}"
  echo "$SERVER, replicas: $REPLICAS: $EXPECTED Pass, 0 of anything else"
}

start_minio() {
  go_tool "$MINIO"
  mkdir -p "$scratch/minio/registry"
  MINIO_ROOT_USER=$AWS_ACCESS_KEY_ID MINIO_ROOT_PASSWORD=$AWS_SECRET_ACCESS_KEY MINIO_BROWSER=off \
    minio server "$scratch/minio" --address "127.0.0.1:$1" >"$scratch/server.log" 2>&1 &
  pids+=($!)
  wait_for "http://127.0.0.1:$1/minio/health/ready" "$scratch/server.log"
}

start_seaweedfs() {
  seaweedfs
  mkdir -p "$scratch/weed"
  weed mini -dir="$scratch/weed" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.port="$(free_port)" \
    -volume.port="$(free_port)" -filer.port="$(free_port)" -s3.port="$1" -webdav=false -admin.ui=false \
    >"$scratch/server.log" 2>&1 &
  pids+=($!)
  # It listens before it can create a bucket.
  local deadline=$((SECONDS + START_SECONDS))
  until curl -fsS -o /dev/null --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
    -X PUT "$endpoint/registry" 2>/dev/null; do
    ((SECONDS < deadline)) || { tail -n 20 "$scratch/server.log" >&2; die 'SeaweedFS made no bucket'; }
    sleep 0.5
  done
}

# Round robin by request, nothing buffered, nothing repeated.
start_balancer() {
  apt_tools nginx
  local listen=$1 servers
  shift
  servers=$(printf 'server 127.0.0.1:%s max_fails=0; ' "$@")
  cat >"$scratch/nginx.conf" <<EOF
daemon off;
master_process off;
pid $scratch/nginx.pid;
error_log $scratch/nginx-error.log;
events {}
http {
  access_log off;
  client_body_temp_path $scratch/nginx-body;
  proxy_temp_path $scratch/nginx-proxy;
  fastcgi_temp_path $scratch/nginx-fastcgi;
  uwsgi_temp_path $scratch/nginx-uwsgi;
  scgi_temp_path $scratch/nginx-scgi;
  client_max_body_size 0;
  upstream replicas { $servers }
  server {
    listen 127.0.0.1:$listen;
    location / {
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Host \$http_host;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_next_upstream off;
    }
  }
}
EOF
  nginx -p "$scratch" -c "$scratch/nginx.conf" >"$scratch/nginx.log" 2>&1 &
  pids+=($!)
  wait_for "http://127.0.0.1:$listen/readyz" "$scratch/nginx.log"
}

wait_for() {
  local url=$1 log=$2 deadline=$((SECONDS + START_SECONDS))
  until curl -fsS -o /dev/null --max-time 2 "$url" 2>/dev/null; do
    ((SECONDS < deadline)) || { tail -n 20 "$log" >&2; die "$url was not ready in $START_SECONDS s"; }
    sleep 0.2
  done
}

main
