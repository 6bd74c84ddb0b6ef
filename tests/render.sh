#!/usr/bin/env bash
# What deploy/ says, without running it: the compose file against the schema of Compose, the manifests and the chart against
# the schemas of Kubernetes (unknown fields refused, versions with and after the oldest that is supported), values against
# the chart's own, and every MARINA_ variable in them against the program, which refuses those that it does not know.
#
#   tests/render.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/lib.sh

readonly CHART=deploy/helm/marina-distribution KUBERNETES=(1.30 1.37)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

main() {
  go_tool "$COMPOSE"
  go_tool "$KUSTOMIZE"
  go_tool "$HELM"
  kubernetes_validate

  COMPOSE_PROFILES=seaweedfs,single cmd docker-compose.yml >"$work/compose.yaml"
  settings_are_known compose

  kustomize build deploy/kubernetes >"$work/kustomize.yaml"
  is_kubernetes kustomize
  settings_are_known kustomize
  cp -R deploy/kubernetes "$work/with-files"
  sed -i '/uncomment the rest/,$ { /uncomment the rest/!s/^#// }' "$work/with-files/kustomization.yaml"
  printf '[[retention]]\nrepositories = ["ci/**"]\nuntagged_older = "30days"\n' >"$work/with-files/marina.toml"
  echo 'no certificate' >"$work/with-files/ca.pem"
  kustomize build "$work/with-files" >"$work/with-files.yaml"
  is_kubernetes with-files
  settings_are_known with-files
  has_rules with-files

  helm lint --quiet --strict "$CHART" --set store=s3://bucket
  render least --set store=s3://bucket
  render most --values tests/chart-values.yaml
  has_rules most
  refuses 'a chart without a store'
  refuses 'a directory, which pods do not share' --set store=/data
  refuses 'a setting that has a place of its own' --set store=s3://bucket --set settings.listen=x
  refuses 'a value that does not exist' --set store=s3://bucket --set replicas=3
  echo 'compose, kustomize and helm render what they should'
}

render() {
  helm template marina "$CHART" --kube-version "${KUBERNETES[0]}" "${@:2}" >"$work/$1.yaml"
  is_kubernetes "$1"
  settings_are_known "$1"
}

refuses() {
  if helm template marina "$CHART" --kube-version "${KUBERNETES[0]}" "${@:2}" >"$work/refused" 2>&1; then
    die "helm takes $1"
  fi
  grep -q "don't meet the specifications of the schema" "$work/refused" || die "$(<"$work/refused")"
}

is_kubernetes() {
  local version
  for version in "${KUBERNETES[@]}"; do
    kubernetes-validate --strict --kubernetes-version "$version" "$work/$1.yaml"
  done
}

settings_are_known() {
  local settings
  # The configuration file, if there is one.
  sed -n '/^  marina.toml: |/,/^ \{0,2\}[^ ]/s/^    //p' "$work/$1.yaml" >"$work/marina.toml"
  mapfile -t settings < <(sed -nE 's/^ +(MARINA_[A-Z0-9_]+): "?([^"]*)"?$/\1=\2/p' "$work/$1.yaml" | sort -u)
  ((${#settings[@]} >= 1)) || die "$1 has no settings"
  env -i "${settings[@]/MARINA_CONFIG=*\//MARINA_CONFIG=$work/}" "$REGISTRY" config >"$work/config"
  echo "$1: ${#settings[@]} settings"
}

has_rules() {
  grep -q '^untagged_older = ' "$work/config" || die "the rules of retention of $1 do not reach the registry"
  grep -q 'mountPath: /etc/marina-distribution' "$work/$1.yaml" || die "$1 mounts no files"
}

main
