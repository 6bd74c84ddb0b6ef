#!/usr/bin/env bash
# Real clients against a running registry: what one of them pushes, another one pulls, byte for byte.
#
#   tests/clients.sh 127.0.0.1:5000
#
# A line per step; the first that fails is named and shown with all that its commands said.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

readonly ADDR=${1:?usage: tests/clients.sh HOST:PORT}
readonly REPO=$ADDR/clients/$EPOCHSECONDS-$$ # a second run on the same store finds nothing of the first
readonly API=v1.1-referrers-api # oras would silently fall back on the tag scheme
export LC_ALL=C

work=$(mktemp -d)
current='installing the clients' steps=0
exec 3>&1 >>"$work/log" 2>&1
trap finish EXIT
set -x

main() {
  apt_tools skopeo buildah podman runc
  go_tool "$CRANE"
  go_tool "$ORAS"
  cd "$work"

  crane_pushes
  podman_pushes
  skopeo_pushes
  buildah_pushes
  oras_pushes
  referrers
  copies_between_repositories
  listings
  deletions
}

# --- images, each pushed by one client and pulled by the others --------------------------------------------------------

crane_pushes() {
  step 'crane pushes an index of two platforms'
  local arch
  for arch in amd64 arm64; do
    random_file "$arch.bin" 1M
    tar -cf "$arch.tar" "$arch.bin"
    crane append --oci-empty-base -f "$arch.tar" -t "$REPO/crane:$arch"
    crane mutate --set-platform "linux/$arch" -t "$REPO/crane:$arch" "$REPO/crane:$arch"
  done
  crane index append -m "$REPO/crane:amd64" -m "$REPO/crane:arm64" -t "$REPO/crane:multi"

  step 'oras pulls it with both platforms'
  oras copy --from-plain-http --to-oci-layout "$REPO/crane:multi" from-crane:multi
  layout_holds from-crane crane:multi

  step 'podman and skopeo pull one platform of it'
  podman pull -q --tls-verify=false --arch arm64 "$REPO/crane:multi"
  file_in "$REPO/crane:multi" arm64.bin | same_bytes arm64.bin
  skopeo_copy --override-arch arm64 "docker://$REPO/crane:multi" oci:one-platform:arm64
  layout_holds one-platform crane:arm64
}

podman_pushes() {
  step 'podman builds a program into an image and pushes it for two platforms'
  cp "$(command -v crane)" program
  random_file podman.bin 1M
  printf 'FROM scratch\nCOPY program podman.bin /\nENTRYPOINT ["/program"]\n' >Containerfile
  podman build -q --no-cache --platform linux/amd64,linux/arm64 --manifest built .
  podman manifest push --all --tls-verify=false built "docker://$REPO/podman:multi"
  crane manifest --platform linux/arm64 "$REPO/podman:multi"
  forget_images

  step 'skopeo pulls it with both platforms'
  skopeo_copy --all "docker://$REPO/podman:multi" oci:from-podman:multi
  layout_holds from-podman podman:multi

  step 'buildah pulls one platform of it'
  buildah pull -q --tls-verify=false "$REPO/podman:multi"
  file_in "$REPO/podman:multi" podman.bin | same_bytes podman.bin
  forget_images

  step 'podman runs what it pulls'
  podman pull -q --tls-verify=false "$REPO/podman:multi"
  podman run --rm --network=none --ulimit nofile=20000:20000 --ulimit nproc=1000:1000 "$REPO/podman:multi" version |
    same_bytes <(crane version)
}

skopeo_pushes() {
  step 'skopeo pushes an index from a layout, and a docker schema 2 image'
  skopeo_copy --all oci:from-podman:multi "docker://$REPO/skopeo:multi"
  skopeo copy -q --format v2s2 --src-tls-verify=false --dest-tls-verify=false \
    "docker://$REPO/crane:amd64" "docker://$REPO/skopeo:docker"

  step 'crane and buildah pull them'
  same "$(crane digest "$REPO/skopeo:multi")" "$(crane digest "$REPO/podman:multi")"
  crane export --platform linux/arm64 "$REPO/skopeo:multi" - | tar -xO podman.bin | same_bytes podman.bin
  buildah pull -q --tls-verify=false "$REPO/skopeo:docker"
  file_in "$REPO/skopeo:docker" amd64.bin | same_bytes amd64.bin
}

buildah_pushes() {
  step 'buildah pushes a layer of 200 MiB'
  random_file large.bin 200M
  local container
  container=$(buildah from scratch)
  buildah copy -q "$container" large.bin /large.bin
  buildah commit -q --rm "$container" "$REPO/buildah:large"
  buildah push -q --tls-verify=false --digestfile large.digest "$REPO/buildah:large"
  forget_images

  step 'podman pulls it'
  podman pull -q --tls-verify=false "$REPO/buildah:large"
  file_in "$REPO/buildah:large" large.bin | same_bytes large.bin
  forget_images

  step 'crane pulls it'
  same "$(crane digest "$REPO/buildah:large")" "$(<large.digest)"
  crane export "$REPO/buildah:large" - | tar -xO large.bin | same_bytes large.bin
}

# --- artifacts ---------------------------------------------------------------------------------------------------------

oras_pushes() {
  step 'oras pushes a file of 200 MiB, an artifact with an empty config, and a chart'
  oras push --plain-http "$REPO/oras:large" large.bin:application/octet-stream
  random_file notes.txt 4K
  oras push --plain-http --artifact-type application/vnd.example.notes "$REPO/oras:notes" notes.txt:text/plain
  echo '{"name":"chart","version":"1.0.0","apiVersion":"v2"}' >chart.json
  tar -czf chart-1.0.0.tgz chart.json
  oras push --plain-http --config chart.json:application/vnd.cncf.helm.config.v1+json "$REPO/chart:1.0.0" \
    chart-1.0.0.tgz:application/vnd.cncf.helm.chart.content.v1.tar+gzip

  step 'crane pulls their blobs'
  crane blob "$REPO/oras@sha256:$(sha256 <large.bin)" | same_bytes large.bin
  crane blob "$REPO/oras@sha256:$(printf '{}' | sha256)" | same_bytes <(printf '{}')
  crane config "$REPO/chart:1.0.0" | same_bytes chart.json

  step 'oras and skopeo pull them'
  oras pull --plain-http -o pulled "$REPO/oras:notes"
  oras pull --plain-http -o pulled "$REPO/oras:large"
  same_bytes notes.txt <pulled/notes.txt
  same_bytes large.bin <pulled/large.bin
  skopeo_copy "docker://$REPO/chart:1.0.0" dir:chart-dir
  same_bytes chart-1.0.0.tgz <"chart-dir/$(sha256 <chart-1.0.0.tgz)"
}

referrers() {
  step 'oras attaches two kinds of referrers'
  local kind
  for kind in signature sbom; do
    echo "$kind" >"$kind.txt"
    oras attach --plain-http --distribution-spec "$API" --artifact-type "application/vnd.example.$kind" \
      --annotation "org.example.kind=$kind" "$REPO/crane:multi" "$kind.txt:text/plain"
  done

  step 'oras discovers them, all and by type'
  same "$(referrers_of crane:multi)" 2
  same "$(referrers_of crane:multi --artifact-type application/vnd.example.sbom)" 1
  same "$(referrers_of crane:amd64)" 0
}

# --- repositories ------------------------------------------------------------------------------------------------------

copies_between_repositories() {
  step 'crane copies by mounting'
  crane copy "$REPO/buildah:large" "$REPO/copy/crane:large" 2>&1 | tee copy.log
  grep 'mounted blob' copy.log
  same "$(crane digest "$REPO/copy/crane:large")" "$(<large.digest)"

  step 'skopeo copies'
  skopeo_copy --all "docker://$REPO/podman:multi" "docker://$REPO/copy/skopeo:multi"
  same "$(skopeo_digest copy/skopeo:multi)" "$(crane digest "$REPO/podman:multi")"

  step 'oras copies with referrers'
  oras copy -r --from-plain-http --to-plain-http --from-distribution-spec "$API" \
    --to-distribution-spec "$API" "$REPO/crane:multi" "$REPO/copy/oras:multi"
  same "$(referrers_of copy/oras:multi)" 2
}

listings() {
  step 'crane tags, and lists tags and repositories'
  crane tag "$REPO/crane:multi" latest
  same "$(crane digest "$REPO/crane:latest")" "$(crane digest "$REPO/crane:multi")"
  same "$(crane ls "$REPO/crane" | xargs)" 'amd64 arm64 latest multi'
  crane catalog "$ADDR" >repositories
  grep -x "${REPO#*/}/copy/oras" repositories
  same "$(sort <repositories)" "$(<repositories)"

  step 'skopeo inspects, and lists tags'
  skopeo inspect --tls-verify=false --override-arch arm64 "docker://$REPO/crane:multi" | grep '"Architecture": "arm64"'
  skopeo list-tags --tls-verify=false "docker://$REPO/crane" | grep '"latest"'

  step 'oras lists tags and repositories'
  same "$(oras repo tags --plain-http "$REPO/crane" | xargs)" 'amd64 arm64 latest multi'
  oras repo ls --plain-http "$ADDR" | grep -x "${REPO#*/}/copy/oras"
}

deletions() {
  step 'crane deletes a tag and leaves the manifest'
  local digest
  digest=$(crane digest "$REPO/crane:multi")
  crane delete "$REPO/crane:latest"
  absent crane:latest
  same "$(crane digest "$REPO/crane:multi")" "$digest"

  step 'crane deletes a manifest with its tags'
  crane delete "$REPO/crane@$digest"
  absent "crane@$digest"
  absent crane:multi
  same "$(crane digest "$REPO/copy/oras:multi")" "$digest"

  step 'skopeo deletes an image'
  skopeo delete --tls-verify=false "docker://$REPO/copy/crane:large"
  absent copy/crane:large
  crane export "$REPO/buildah:large" - | tar -xO large.bin | same_bytes large.bin

  step 'oras deletes an artifact, and can push it again'
  oras manifest delete --plain-http --force "$REPO/oras:notes"
  absent oras:notes
  oras push --plain-http "$REPO/oras:notes" notes.txt:text/plain
  oras pull --plain-http -o again "$REPO/oras:notes"
  same_bytes notes.txt <again/notes.txt
}

# --- steps -------------------------------------------------------------------------------------------------------------

# Ends the step before, and begins one whose output is shown if it fails.
step() {
  step_is_done
  current=$1
  : >"$work/log"
}

step_is_done() {
  echo "ok  $current" >&3
  steps=$((steps + 1))
}

finish() {
  local code=$?
  set +x
  if ((code == 0)); then
    step_is_done
    echo "$steps steps with real clients" >&3
  else
    cat "$work/log" >&3
    echo "FAILED  $current" >&3
  fi
  rm -rf "$work" 2>/dev/null || podman unshare rm -rf "$work"
}

# --- clients -----------------------------------------------------------------------------------------------------------

# Their own storage: no image of this machine is used or touched.
podman() { command podman --root "$work/images" --runroot "$work/run" --storage-driver vfs --runtime runc "$@"; }
buildah() { command buildah --root "$work/images" --runroot "$work/run" --storage-driver vfs "$@"; }

skopeo_copy() { skopeo copy -q --preserve-digests --src-tls-verify=false --dest-tls-verify=false "$@"; }

skopeo_digest() { echo "sha256:$(skopeo inspect --raw --tls-verify=false "docker://$REPO/$1" | sha256)"; }

referrers_of() {
  local reference=$REPO/$1
  shift
  oras discover --plain-http --distribution-spec "$API" \
    --format go-template --template '{{len .referrers}}' "$@" "$reference"
}

# podman and buildah share their storage, so one of them reads what either pulled.
file_in() {
  local container
  container=$(podman create "$1" none)
  podman cp "$container:/$2" - | tar -xO
  podman rm "$container" >&2
}

forget_images() { podman rmi --all --force; }

# --- checks ------------------------------------------------------------------------------------------------------------

random_file() { head -c "$2" /dev/urandom >"$1"; }

sha256() { sha256sum | cut -d ' ' -f 1; }

same() { test -n "$1" && test "$1" = "$2"; }

same_bytes() { cmp - "$1"; }

# The OCI layout DIR holds what REFERENCE names, and every blob in it has the digest that it is named after.
layout_holds() {
  local digest blob
  digest=$(crane digest "$REPO/$2")
  crane manifest "$REPO/$2" | same_bytes "$1/blobs/${digest/://}"
  for blob in "$1"/blobs/sha256/*; do same "$(sha256 <"$blob")" "$(basename "$blob")"; done
}

absent() { { crane manifest "$REPO/$1" || true; } 2>&1 | grep MANIFEST_UNKNOWN; }

main
