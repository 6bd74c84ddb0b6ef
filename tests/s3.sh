#!/usr/bin/env bash
# The registry on a real S3 server: tests/s3.sh minio|seaweedfs REPLICAS
#
# Starts the server, that many registries on one bucket and, in front of more than one, a balancer that sends each request
# to the next replica. Runs the official conformance suite through it and, through a balancer, real clients without and
# with redirects to the store, or else asks the doctor, then checks the store and mends a damage. Everything
# listens on loopback and is ended by its own pid.
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
  start_replicas plain
  conformance_passes "$address" "$scratch/results" || {
    grep -h '"status":5' "$scratch"/plain-*.log | head -n 5 >&2
    die "conformance on $SERVER with $REPLICAS replicas did not pass"
  }
  if ((REPLICAS == 1)); then doctor_knows_it; else clients_pull_here_and_there; fi
  "$REGISTRY" check "${store[@]}"
  damage_is_found_and_mended
  echo "$SERVER, replicas: $REPLICAS: $EXPECTED Pass, 0 of anything else"
}

# start_replicas NAME [OPTION…]: as many registries as there are to be, and `address`, under which one reaches all of them.
start_replicas() {
  local name=$1 number port ports=()
  for ((number = 1; number <= REPLICAS; number++)); do
    port=$(free_port)
    ports+=("$port")
    "$REGISTRY" serve --listen "127.0.0.1:$port" --allow-missing-references "${store[@]}" "${@:2}" \
      >"$scratch/$name-$number.log" 2>&1 &
    pids+=($!)
    wait_for "http://127.0.0.1:$port/readyz" "$scratch/$name-$number.log"
  done
  address=127.0.0.1:${ports[0]}
  if ((REPLICAS > 1)); then
    address=127.0.0.1:$(free_port)
    start_balancer "${address##*:}" "${ports[@]}"
  fi
}

# All that real clients do: with every byte through the registry, and with all blobs from the store.
clients_pull_here_and_there() {
  tests/clients.sh "$address"
  [[ $(redirects_of plain) == 0 ]] || die 'a client was redirected, and nobody had said so'
  start_replicas redirecting --redirect 127.0.0.0/8 --redirect-min-size 1B --trusted-proxies 127.0.0.1
  tests/clients.sh "$address"
  local served
  served=$(grep -hE '"method":"GET","path":"[^"]*/blobs/sha256:[0-9a-f]{64}","status":20' "$scratch"/redirecting-*.log) &&
    die "blobs were not redirected: $served"
  echo "$(redirects_of redirecting) redirects"
}

redirects_of() { cat "$scratch/$1"-*.log | grep -c '"status":307' || true; }

# What is not as the contract has it, and what becomes of the rule for abandoned uploads that one may ask for.
readonly MINIO_DIFFERS='adapted conditional delete of an old version: done'
readonly MINIO_RULE='adapted abandoned uploads the store takes no such rule'
readonly SEAWEEDFS_DIFFERS='adapted order of keys by path components'
readonly SEAWEEDFS_RULE='ok abandoned uploads a rule was added: dropped after 7 days'

doctor_knows_it() {
  local differs=${SERVER^^}_DIFFERS rule=${SERVER^^}_RULE
  "$REGISTRY" doctor "${store[@]}" | tee "$scratch/report"
  diff <(grep -E '^(adapted|UNSAFE)' "$scratch/report" | tr -s ' ') \
    <(printf '%s\n' "${!differs}" 'adapted abandoned uploads no rule') || die "the doctor of $SERVER is wrong"
  [[ $(tail -n 1 "$scratch/report") == 'This store is safe for any number of replicas.' ]] || die 'it should be safe'
  "$REGISTRY" doctor "${store[@]}" --install-lifecycle | tr -s ' ' | grep -x "${!rule}" || die 'it did not say so of the rule'
}

# A blob whose bytes are others in the store: put into quarantine, and whole again with the next push.
damage_is_found_and_mended() {
  local digest key url
  head -c 65536 /dev/urandom >"$scratch/blob"
  head -c 65536 /dev/zero >"$scratch/damaged"
  digest=sha256:$(sha256sum <"$scratch/blob" | cut -d ' ' -f 1)
  url=http://$address/v2/damaged/blobs
  curl -fsS --data-binary "@$scratch/blob" "$url/uploads/?digest=$digest"
  key=$({ "$REGISTRY" explain "$digest" "${store[@]}" || true; } | sed -n "s/^blob $digest of .* at //p")
  curl -fsS --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
    -T "$scratch/damaged" "$endpoint/registry/images/$key"
  check_says 1 "${digest#*:}/_ "
  check_says 1 "-> .*${digest#*:}" --repair
  [[ $(curl -sS -o "$scratch/none" -w '%{http_code}' "$url/$digest") == 404 ]] || die 'a damaged blob was served'
  curl -fsS --data-binary "@$scratch/blob" "$url/uploads/?digest=$digest"
  curl -fsSL "$url/$digest" | cmp - "$scratch/blob"
  check_says 0 '^ *0 findings'
}

# check_says CODE PATTERN [OPTION…]: of all bytes.
check_says() {
  local code=0
  "$REGISTRY" check --deep "${store[@]}" "${@:3}" >"$scratch/said" || code=$?
  if ((code != $1)) || ! grep -q -e "$2" "$scratch/said"; then
    cat "$scratch/said" >&2
    die "a check exited with $code and did not say $2"
  fi
}

start_minio() {
  serve_minio "$1" "$scratch/minio" "$scratch/server.log"
  pids+=("$minio_pid")
}

start_seaweedfs() {
  serve_seaweedfs "$1" "$scratch/weed" "$scratch/server.log"
  pids+=("$seaweedfs_pid")
}

# Round robin by request, nothing buffered, nothing repeated.
start_balancer() {
  apt_tools nginx
  local listen=$1 servers home=$scratch/balancer-$1
  mkdir "$home"
  shift
  servers=$(printf 'server 127.0.0.1:%s max_fails=0; ' "$@")
  cat >"$home/nginx.conf" <<EOF
daemon off;
master_process off;
pid $home/nginx.pid;
error_log $home/error.log;
events {}
http {
  access_log off;
  client_body_temp_path $home/body;
  proxy_temp_path $home/proxy;
  fastcgi_temp_path $home/fastcgi;
  uwsgi_temp_path $home/uwsgi;
  scgi_temp_path $home/scgi;
  client_max_body_size 0;
  upstream replicas { $servers }
  server {
    listen 127.0.0.1:$listen;
    location / {
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Host \$http_host;
      proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_next_upstream off;
    }
  }
}
EOF
  nginx -p "$home" -c "$home/nginx.conf" >"$home/nginx.log" 2>&1 &
  pids+=($!)
  wait_for "http://127.0.0.1:$listen/readyz" "$home/nginx.log"
}

main
