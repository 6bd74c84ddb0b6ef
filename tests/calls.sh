#!/usr/bin/env bash
# What each request asks of a real MinIO, by MinIO's own count: calls of class A (PUT, POST, LIST), of class B (GET, HEAD),
# deletes, and the bytes of the bodies that it was sent beside those of the blob.
#
#   tests/calls.sh
#
# It prints a table of them, and demands that it is the one in docs/measurements.md.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

readonly DOCUMENT=docs/measurements.md
readonly MANIFEST='application/vnd.oci.image.manifest.v1+json'
readonly SETTLED=0.3 PATIENCE=20 # seconds, for what is done after an answer, and for that on a slow machine
export AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecret

scratch=$(mktemp -d)
pids=()
trap '{ kill -KILL "${pids[@]}"; wait; } 2>/dev/null; rm -rf "$scratch"' EXIT

main() {
  apt_tools curl
  local endpoint port
  endpoint=http://127.0.0.1:$(free_port)
  metrics=$endpoint/minio/metrics/v3/api/requests
  serve_minio "${endpoint##*:}" "$scratch/minio" "$scratch/minio.log"
  pids+=("$minio_pid")
  port=$(free_port) url=http://127.0.0.1:$port/v2/images/app
  "$REGISTRY" serve --listen "127.0.0.1:$port" --store s3://registry --s3-endpoint "$endpoint" --redirect all \
    >"$scratch/registry.log" 2>&1 &
  pids+=($!)
  wait_for "http://127.0.0.1:$port/readyz" "$scratch/registry.log"
  count_all | tee "$scratch/counted"
  diff <(sed -n '/^## As MinIO counts them$/,/^## / s/^|/|/p' "$DOCUMENT") "$scratch/counted" ||
    die "$DOCUMENT says something else"
  echo 'MinIO counts what the document says'
}

count_all() {
  local small=$scratch/small another=$scratch/another third=$scratch/third large=$scratch/large
  printf 'a config of an image' >"$small"
  printf 'the blob that comes by POST and PUT' >"$another"
  printf 'a blob as clients send them' >"$third"
  head -c 20M /dev/zero >"$large"
  echo '| request | class A | class B | deletes | more bytes to the store than those sent |'
  echo '|---|---|---|---|---|'
  counted 'start an upload' 0 start
  counted 'a small blob, in the POST' "$(size "$small")" in_the_post "$small"
  counted 'a small blob, in a PUT after a POST' "$(size "$another")" post_and_put "$another"
  counted 'a small blob, by HEAD, POST, PATCH and PUT' "$(size "$third")" as_clients_do "$third"
  counted '20 MiB, by HEAD, POST, PATCH and PUT' "$(size "$large")" as_clients_do "$large"
  counted 'mount a blob' 0 mount "$large"
  counted 'HEAD of a blob' 0 ask 200 "$(blob "$small")" --head
  counted 'GET of a blob' 0 ask 200 "$(blob "$small")"
  counted 'GET of a blob that is redirected' 0 ask 307 "$(blob "$large")"
  counted '… with what the client then asks of the store' 0 ask 200 "$(blob "$large")" --location
  image "$small" "$another" "$large" >"$scratch/manifest"
  counted 'PUT of a manifest of three blobs, with a tag' "$(size "$scratch/manifest")" ask 201 "$url/manifests/latest" \
    -H "Content-Type: $MANIFEST" -T "$scratch/manifest"
  counted 'HEAD of a manifest by tag' 0 ask 200 "$url/manifests/latest" --head
  counted 'GET of a manifest by tag' 0 ask 200 "$url/manifests/latest"
  counted 'GET of a manifest by digest' 0 ask 200 "$url/manifests/sha256:$(sha256 "$scratch/manifest")"
  counted 'a page of tags' 0 ask 200 "$url/tags/list"
}

# --- requests ----------------------------------------------------------------------------------------------------------

# ask STATUS URL [OPTION…]
ask() {
  local status
  status=$(curl -sS -o "$scratch/answer" -D "$scratch/head" -w '%{http_code}' "${@:3}" "$2")
  [[ $status == "$1" ]] || die "$2: $status"
}

start() { ask 202 "$url/blobs/uploads/" -X POST; }

in_the_post() { ask 201 "$url/blobs/uploads/?digest=sha256:$(sha256 "$1")" -X POST --data-binary "@$1"; }

post_and_put() {
  start
  ask 201 "$(session)?digest=sha256:$(sha256 "$1")" -T "$1"
}

as_clients_do() {
  ask 404 "$(blob "$1")" --head
  start
  ask 202 "$(session)" -X PATCH -H 'Content-Type: application/octet-stream' -T "$1"
  ask 201 "$(session)?digest=sha256:$(sha256 "$1")" -X PUT
}

mount() { ask 201 "${url%/*}/other/blobs/uploads/?mount=sha256:$(sha256 "$1")&from=images/app" -X POST; }

session() { echo "${url%/v2/*}$(tr -d '\r' <"$scratch/head" | sed -n 's/^location: //ip')"; }

blob() { echo "$url/blobs/sha256:$(sha256 "$1")"; }

sha256() { sha256sum <"$1" | cut -d ' ' -f 1; }

size() { stat -c %s "$1"; }

# image CONFIG LAYER…
image() {
  local layers='' layer
  for layer in "${@:2}"; do layers+=,$(descriptor "$layer"); done
  printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' "$MANIFEST" "$(descriptor "$1")" "${layers#,}"
}

descriptor() {
  printf '{"mediaType":"application/x","digest":"sha256:%s","size":%s}' "$(sha256 "$1")" "$(size "$1")"
}

# --- counting ----------------------------------------------------------------------------------------------------------

# counted NAME BYTES COMMAND…: a line of the table for what MinIO did meanwhile, beside taking these bytes.
counted() {
  local before line deadline=$((SECONDS + PATIENCE))
  before=$(counts)
  "${@:3}"
  until
    sleep "$SETTLED"
    line=$(paste <(echo "$before") <(counts) | awk -v name="$1" -v own="$2" '
      { by[$1] = $4 - $2 }
      END { printf "| %s | %d | %d | %d | %d |\n", name, by["A"], by["B"], by["deletes"], by["bytes"] - own }')
    grep -qxF -e "$line" "$DOCUMENT" || ((SECONDS >= deadline))
  do :; done
  echo "$line"
}

# Four lines: a name and a number.
counts() {
  curl -fsS "$metrics" | awk '
    /^minio_api_requests_total.*type="s3"/ {
      class = /name="(Get|Head)Object"/ ? "B" : /name="(Delete|Abort)/ ? "deletes" : "A"
      sum[class] += $NF
    }
    /^minio_api_requests_traffic_received_bytes.*type="s3"/ { sum["bytes"] += $NF }
    END { printf "A %d\nB %d\ndeletes %d\nbytes %d\n", sum["A"], sum["B"], sum["deletes"], sum["bytes"] }'
}

main
