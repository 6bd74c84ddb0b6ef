#!/usr/bin/env bash
# The Dockerfile, built and run by podman: as the README runs it on a folder that belongs to root, and with no rights at
# all. What is built from it here is not what a release is: stand-ins take the names of the images that it starts from,
# with programs of this machine in the one and, in the other, a cargo that hands out the program that is built already.
#
#   tests/image.sh
#
# Needs root. A line per step; the first that fails is named and shown with all that its commands said.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

readonly PROGRAMS=(sh id stat chown install setpriv mkdir cp test)
readonly CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

work=$(mktemp -d)
current='installing podman' steps=0
exec 3>&1 >>"$work/log" 2>&1
trap finish EXIT
set -x

main() {
  apt_tools curl podman runc
  go_tool "$CRANE"
  program=$(realpath "$REGISTRY")
  step 'the image is built'
  stand_ins
  podman build --format docker --isolation chroot --layers=false --pull=never -t marina-distribution .

  step 'it runs as nobody on a folder that belongs to root'
  mkdir "$work/registry-data"
  port=$(free_port)
  start first -p "127.0.0.1:$port:5000" -v "$work/registry-data:/data:Z"
  [[ $(podman top first huser capeff | tail -n 1 | xargs) == '65532 none' ]]

  step 'it is healthy, is pushed to, and stops when asked'
  podman healthcheck run first
  head -c 1M /dev/urandom >"$work/layer.bin"
  tar -C "$work" -cf "$work/layer.tar" layer.bin
  crane append --oci-empty-base -f "$work/layer.tar" -t "127.0.0.1:$port/image:1"
  podman exec --user 65532 first marina-distribution check
  crane ls "127.0.0.1:$port/image" | grep -x 1
  stop first

  step 'another one finds it, with no rights and nothing to write to but its data'
  start second -p "127.0.0.1:$port:5000" -v "$work/registry-data:/data:Z" \
    --user 65532:65532 --read-only --cap-drop all --security-opt no-new-privileges
  crane export "127.0.0.1:$port/image:1" - | tar -xO layer.bin | cmp - "$work/layer.bin"
  stop second

  step 'it takes flags and commands'
  run --rm marina-distribution config --store s3://bucket | grep 's3://bucket'
  run --rm -v "$work/registry-data:/data:Z" marina-distribution check
}

# --- the images it starts from -----------------------------------------------------------------------------------------

stand_ins() {
  local base=$work/base rust=$work/rust file
  mkdir -p "$base/usr/bin" "$base/usr/lib" "$base/usr/local/bin" "$base/etc" "$base/tmp" "$rust/usr/bin"
  # As in Debian: programs and libraries lie under /usr only.
  ln -s usr/bin usr/lib "$base/"
  for file in $(for name in "${PROGRAMS[@]}"; do type -P "$name"; done); do
    cp "$file" "$base/usr/bin/"
  done
  for file in $(ldd "$base"/usr/bin/* "$program" | grep -o '/[^ :]*\.so[^ :]*' | sort -u); do
    mkdir -p "$base$(dirname "$file")"
    cp -L "$file" "$base$file"
  done
  tar -C "$base" -c . | podman import -q - docker.io/library/debian:bookworm-slim

  cp "$program" "$rust/marina-distribution"
  printf '#!/bin/sh\nset -eu\ntest -f Cargo.lock\ntest -f src/main.rs\nmkdir -p target/release\ncp %s target/release/\n' \
    /marina-distribution >"$rust/usr/bin/cargo"
  chmod 755 "$rust/usr/bin/cargo"
  mkdir -p "$rust$(dirname "$CERTIFICATES")"
  cp "$CERTIFICATES" "$rust$CERTIFICATES"
  printf 'FROM docker.io/library/debian:bookworm-slim\nCOPY . /\n' |
    podman build -q --layers=false --pull=never -t docker.io/library/rust:1.95-slim-bookworm -f - "$rust"
}

# --- containers --------------------------------------------------------------------------------------------------------

# Its own storage: no image of this machine is used or touched.
podman() { command podman --root "$work/images" --runroot "$work/run" --storage-driver vfs --runtime runc "$@"; }

run() { podman run --ulimit nofile=20000:20000 --ulimit nproc=1000:1000 "$@"; }

start() {
  local name=$1 deadline=$((SECONDS + START_SECONDS))
  shift
  run --detach --name "$name" "$@" marina-distribution
  until curl -fsS "http://127.0.0.1:$port/readyz"; do
    podman ps --quiet --filter "name=$name" | grep .
    ((SECONDS < deadline))
    sleep 0.1
  done
}

stop() {
  podman stop --time "$STOP_SECONDS" "$1"
  [[ $(podman inspect "$1" --format '{{.State.ExitCode}}') == 0 ]]
  podman rm "$1"
}

# --- steps -------------------------------------------------------------------------------------------------------------

step() {
  step_is_done
  current=$1
}

step_is_done() {
  echo "ok  $current" >&3
  steps=$((steps + 1))
}

finish() {
  local code=$?
  set +e
  if ((code != 0)); then
    for name in first second; do podman logs "$name"; done
  fi
  podman rm --all --force --time 0
  set +x
  if ((code == 0)); then
    step_is_done
    echo "$steps steps with the image" >&3
  else
    cat "$work/log" >&3
    echo "FAILED  $current" >&3
  fi
  rm -rf "$work"
  exit "$code"
}

main
