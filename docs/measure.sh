#!/usr/bin/env bash
# Counts the system calls on files that a request costs on a local directory, without read and write, which sockets use
# too. Needs strace and curl.
#
#   docs/measure.sh [DIR]     DIR: where the store is put, by default a temporary directory
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

readonly CALLS=openat,fstat,newfstatat,statx,getdents64,pread64,pwrite64,flock,fchmod,mkdirat,linkat,renameat,renameat2,unlinkat,fsync,fdatasync
readonly TYPE=application/vnd.oci.image.manifest.v1+json

work=$(mktemp -d -p "${1:-${TMPDIR:-/tmp}}")
trap 'kill_registry; rm -rf "$work"' EXIT

main() {
  cargo build --locked
  local port
  port=$(free_port)
  url=http://127.0.0.1:$port/v2
  start_registry "$port" "$work/store" "$work/log" --log warn
  strace -f -q -p "$registry_pid" -o "$work/trace" -e trace="$CALLS" 2>"$work/strace" &
  sleep 1

  random 1K one && measure 'the first small blob, in the POST' whole one
  warm
  random 1K two && measure 'a small blob, in the POST' whole two
  random 1K three && measure 'a small blob, POST and PUT' post_put three
  random 64M four && measure '64 MiB, POST and PUT' post_put four
  random 64M five && measure '64 MiB, POST, PATCH and PUT' post_patch_put five
  measure 'a mount' curl_ -X POST "$url/b/blobs/uploads/?mount=$(digest two)&from=a"
  measure 'HEAD of a blob' curl_ -I "$url/a/blobs/$(digest two)"
  measure 'GET of a small blob' curl_ "$url/a/blobs/$(digest two)"
  measure 'the first manifest, with a tag' manifest one t1
  measure 'a manifest, with a new tag' manifest two t2
  measure 'a manifest, with a tag that moves' manifest three t2
  measure 'GET of a manifest by tag' curl_ "$url/a/manifests/t2"
  measure 'HEAD of a manifest by tag' curl_ -I "$url/a/manifests/t2"
}

# NAME COMMAND…: what the registry does meanwhile and, off the path, right after it.
measure() {
  local name=$1 before
  shift
  sleep 0.3
  before=$(wc -l <"$work/trace")
  "$@" >/dev/null
  sleep 0.3
  tail -n "+$((before + 1))" "$work/trace" | count "$name"
}

# A call that another thread interrupts is two lines in the trace, of which the first has its name before the bracket.
count() {
  sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' | sort | uniq -c |
    awk -v name="$1" '
      $2 == "fsync" || $2 == "fdatasync" { syncs[$2] = $1 }
      { all += $1; if (!($2 in syncs)) others = others " " $2 " " $1 }
      END { printf "%-34s | fsync %2d | fdatasync %2d | all %3d |%s\n", name, syncs["fsync"], syncs["fdatasync"], all, others }'
}

# So many blobs that most of the folders of the next one are there.
warm() {
  local n
  for n in {1..300}; do echo "$n $RANDOM" >"$work/warm" && whole warm; done
}

random() { head -c "$1" /dev/urandom >"$work/$2"; }

digest() { echo "sha256:$(sha256sum <"$work/$1" | cut -d ' ' -f 1)"; }

curl_() { curl -fsS -o /dev/null "$@"; }

whole() { curl_ --data-binary "@$work/$1" "$url/a/blobs/uploads/?digest=$(digest "$1")"; }

session() { curl -fsS -X POST -o /dev/null -w '%header{location}' "$url/a/blobs/uploads/"; }

post_put() { curl_ -T "$work/$1" "${url%/v2}$(session)?digest=$(digest "$1")"; }

post_patch_put() {
  local at
  at=${url%/v2}$(session)
  curl_ -X PATCH -T "$work/$1" "$at"
  curl_ -X PUT "$at?digest=$(digest "$1")"
}

# NAME TAG: an image of two small blobs, told from others by its annotation.
manifest() {
  local config layer
  config="{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"$(digest one)\",\"size\":1024}"
  layer="{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"$(digest two)\",\"size\":1024}"
  echo "{\"schemaVersion\":2,\"mediaType\":\"$TYPE\",\"config\":$config,\"layers\":[$layer],\"annotations\":{\"of\":\"$1\"}}" |
    curl_ -X PUT -H "Content-Type: $TYPE" --data-binary @- "$url/a/manifests/$2"
}

main
