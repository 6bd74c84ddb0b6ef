#!/usr/bin/env bash
# The balancers of deploy/, each in front of two registries on one directory: what is pushed through one comes back, bytes
# pass while they arrive, both registries get requests, no client of nginx and HAProxy notices that they are replaced one
# after the other, and no reader that one of them is killed.
#
#   tests/balancer.sh
#
# A line per step; the first that fails is named and shown with all that its commands said.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

readonly PATIENCE=120 # seconds

work=$(mktemp -d)
data=$work/data current='installing the balancers' steps=0
ports=() replicas=() balancer_pid='' addr=''
exec 3>&1 >>"$work/log" 2>&1
trap finish EXIT
set -x

main() {
  apt_tools curl nginx haproxy caddy
  go_tool "$CRANE"
  head -c 32M /dev/urandom >"$work/layer.bin"
  tar -C "$work" -cf "$work/layer.tar" layer.bin
  local balancer
  for balancer in nginx haproxy caddy; do
    step "$balancer starts with its configuration"
    start_replicas
    addr=127.0.0.1:$(free_port)
    "start_$balancer"
    until curl -fsS "http://$addr/readyz"; do wait_for "$balancer_pid"; done

    step "an image is pushed through $balancer, and the same bytes come back"
    push "$balancer:1"
    crane export "$addr/$balancer:1" - | tar -xO layer.bin | cmp - "$work/layer.bin"

    step "as many tags as a push may set, as long as they may be, go through $balancer"
    push_with_most_tags "$balancer"

    step "$balancer passes requests to both registries, and bodies while they arrive"
    grep '"method":"PATCH"' "$work/replica-0.log" "$work/replica-1.log"
    for replica in 0 1; do (($(grep -c '"path":"/v2/' "$work/replica-$replica.log") > 2)); done
    passes_while_it_arrives

    # Caddy fails what it streams when it is reloaded, and also when the first registry that it asks refuses.
    if [[ $balancer != caddy ]]; then
      step "no client behind $balancer notices that the registries are replaced one after the other"
      replaced_under_load "$balancer"
    fi

    step "no reader behind $balancer notices that a registry is killed, and pushes go on"
    kill -KILL "${replicas[1]}"
    for _ in {1..20}; do curl -fsS -o "$work/manifest" "http://$addr/v2/$balancer/manifests/1"; done
    push "$balancer:2"
    stop_all
  done
}

start_replicas() {
  local replica
  deadline=$((SECONDS + PATIENCE)) ports=() replicas=()
  for replica in 0 1; do
    ports+=("$(free_port)")
    start_registry "${ports[replica]}" "$data" "$work/replica-$replica.log" --log-format json
    replicas+=("$registry_pid")
  done
}

# --- balancers, with the addresses of the test in place of those of the example ----------------------------------------

start_nginx() {
  sed -e "s/10.0.0.1:5000/127.0.0.1:${ports[0]}/; s/10.0.0.2:5000/127.0.0.1:${ports[1]}/" \
    -e "s/listen 5000/listen $addr/" deploy/nginx.conf >"$work/nginx.conf"
  local rest="daemon off; pid $work/nginx.pid;"
  nginx -t -p "$work" -c "$work/nginx.conf" -g "$rest"
  nginx -p "$work" -c "$work/nginx.conf" -g "$rest" &
  balancer_pid=$!
}

start_haproxy() {
  REPLICAS=localhost:5000 haproxy -c -f deploy/haproxy.cfg
  sed -e "s/bind :5000/bind $addr/" -e '/^resolvers/,/^$/d' \
    -e "s/server-template.*/server a 127.0.0.1:${ports[0]}\n  server b 127.0.0.1:${ports[1]}/" \
    deploy/haproxy.cfg >"$work/haproxy.cfg"
  haproxy -db -f "$work/haproxy.cfg" &
  balancer_pid=$!
}

start_caddy() {
  sed -e "s/10.0.0.1:5000/127.0.0.1:${ports[0]}/; s/10.0.0.2:5000/127.0.0.1:${ports[1]}/" \
    -e "s|^:5000|http://$addr|" -e '1i {\nadmin off\n}' deploy/Caddyfile >"$work/Caddyfile"
  HOME=$work caddy run --adapter caddyfile --config "$work/Caddyfile" &
  balancer_pid=$!
}

# --- checks ------------------------------------------------------------------------------------------------------------

push() { crane append --oci-empty-base -f "$work/layer.tar" -t "$addr/$1"; }

push_with_most_tags() {
  local digest query tag
  digest=$(crane digest "$addr/$1:1")
  crane manifest "$addr/$1:1" >"$work/manifest"
  query=$(for tag in {10..59}; do printf '&tag=%0128d' "$tag"; done)
  curl -fsS -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary "@$work/manifest" \
    -D "$work/answer" "http://$addr/v2/$1/manifests/$digest?${query#&}"
  (($(grep -ci '^oci-tag:' "$work/answer") == 50))
}

# A body of which nothing more comes after 16 MiB, until these are in the store.
passes_while_it_arrives() {
  local location before sender
  location=$(curl -fsS -X POST -D - -o /dev/null "http://$addr/v2/slow/blobs/uploads/" |
    tr -d '\r' | sed -n 's/^location: //ip')
  before=$(stored)
  mkfifo "$work/body"
  curl -fsS -X PATCH -H 'Content-Type: application/octet-stream' -T - "http://$addr$location" <"$work/body" &
  sender=$!
  exec 4>"$work/body"
  head -c 16M /dev/urandom >&4
  until (($(stored) - before > 8 << 20)); do wait_for "$sender"; done
  exec 4>&-
  wait "$sender"
  rm "$work/body"
}

# Clients that repeat nothing push and pull while each registry in turn is asked to stop, and started again.
replaced_under_load() {
  local client clients=() replica
  rm -f "$work"/{enough,refused}
  for client in {1..4}; do
    client_works "$client" &
    clients+=($!)
  done
  for replica in "${!replicas[@]}"; do
    [[ $1 != nginx ]] || nginx_takes "$replica" down
    kill -TERM "${replicas[replica]}"
    wait "${replicas[replica]}"
    start_registry "${ports[replica]}" "$data" "$work/again-$replica.log" --log-format json
    replicas[replica]=$registry_pid
    [[ $1 != nginx ]] || nginx_takes "$replica"
    until grep -q '"path":"/v2/' "$work/again-$replica.log"; do wait_for "$balancer_pid"; done
  done
  touch "$work/enough"
  wait "${clients[@]}"
  [[ ! -e $work/refused ]]
}

# HAProxy repeats what was refused. nginx does so for reads only, and is told before a registry stops: nginx_takes N [down].
nginx_takes() {
  local worker workers
  sed -Ei "s/(server 127.0.0.1:${ports[$1]})( down)?/\1${2+ $2}/" "$work/nginx.conf"
  workers=$(ps -o pid= --ppid "$balancer_pid")
  kill -HUP "$balancer_pid"
  for worker in $workers; do
    while kill -0 "$worker"; do wait_for "$balancer_pid"; done
  done
}

client_works() {
  local round digest location
  for ((round = 1; ; round++)); do
    head -c 100K /dev/urandom >"$work/blob-$1"
    digest=sha256:$(sha256sum "$work/blob-$1" | cut -d ' ' -f 1)
    {
      location=$(curl -fsS -X POST -D - -o "$work/none-$1" "http://$addr/v2/load/blobs/uploads/" |
        tr -d '\r' | sed -n 's/^location: //ip') &&
        curl -fsS -X PATCH -H 'Content-Type: application/octet-stream' -T "$work/blob-$1" "http://$addr$location" &&
        curl -fsS -X PUT "http://$addr$location?digest=$digest" &&
        curl -fsS "http://$addr/v2/load/blobs/$digest" | cmp - "$work/blob-$1"
    } || touch "$work/refused"
    [[ ! -e $work/enough ]] || return 0
  done
}

# A moment, as long as PID runs and patience lasts.
wait_for() {
  kill -0 "$1"
  ((SECONDS < deadline)) || die "waited in vain: $current"
  sleep 0.1
}

# What goes away while it is counted is nothing that is wrong.
stored() { { du --summarize --bytes "$data" || true; } | cut -f 1; }

# --- steps -------------------------------------------------------------------------------------------------------------

step() {
  step_is_done
  current=$1 deadline=$((SECONDS + PATIENCE))
}

step_is_done() {
  echo "ok  $current" >&3
  steps=$((steps + 1))
}

# Only what was started here, by its own pid.
stop_all() {
  local pid
  registry_pid=''
  for pid in $balancer_pid "${replicas[@]}"; do
    kill -TERM "$pid" || true
    wait "$pid" || true
  done
  balancer_pid='' replicas=()
}

finish() {
  local code=$?
  set +e +x
  stop_all
  if ((code == 0)); then
    step_is_done
    echo "$steps steps through balancers" >&3
  else
    cat "$work/log" >&3
    tail -n 20 "$work"/replica-*.log >&3
    echo "FAILED  $current" >&3
  fi
  rm -rf "$work"
  exit "$code"
}

main
