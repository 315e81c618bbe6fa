#!/usr/bin/env bash
# Compares the copies of the alert rules: the one for Prometheus and the one for the Prometheus operator.
#
#   scripts/check_dashstream_alert_rules_sync.sh              fails when the copies differ
#   scripts/check_dashstream_alert_rules_sync.sh --promtool   besides, has promtool check both and run the unit tests
#   scripts/check_dashstream_alert_rules_sync.sh --write      writes the copy anew from the Prometheus file
set -euo pipefail
cd "$(dirname "$0")/.."

rules=monitoring/alert_rules.yml
copy=deploy/kubernetes/prometheus-rules.yaml
tests=monitoring/alert_rules_test.yml

die() { echo "alert rules: $*" >&2; exit 1; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

# The groups alone: from the line `groups:` on, and in the copy two columns further left.
groups_of_rules() { sed -n '/^groups:/,$p' "$rules"; }
groups_of_copy() { sed -n '/^  groups:/,$p' "$copy" | sed 's/^  //'; }

write_copy() {
  mkdir -p "$(dirname "$copy")"
  {
    cat <<HEAD
# The alerts of $rules, for the Prometheus operator. Written by
# scripts/check_dashstream_alert_rules_sync.sh --write; do not edit by hand.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dashstream
  labels:
    app.kubernetes.io/name: dashstream
spec:
HEAD
    groups_of_rules | sed 's/^\(.\)/  \1/'
  } >"$copy"
}

check_copies() {
  local file
  for file in "$rules" "$copy"; do
    [ -f "$file" ] || die "$file is missing"
  done
  [ -n "$(groups_of_rules)" ] || die "$rules has no line \`groups:\`"
  diff -u --label "$rules" --label "$copy" <(groups_of_rules) <(groups_of_copy) ||
    die "the copies differ; change $rules, then run: $0 --write"
}

check_with_promtool() {
  command -v promtool >/dev/null || die "promtool is missing; on Debian: apt-get install prometheus (scripts/setup does)"
  local folder status=0
  folder=$(mktemp -d)
  groups_of_copy >"$folder/of_copy.yml"
  promtool check rules "$rules" "$folder/of_copy.yml" || status=1
  promtool check config monitoring/prometheus.yml || status=1
  # The longest of them: only of rules that can be read.
  [ $status -ne 0 ] || promtool test rules "$tests" || status=1
  rm -rf "$folder"
  return $status
}

case ${1:-} in
  '') check_copies ;;
  --promtool) check_copies && check_with_promtool || die "promtool found faults, see above" ;;
  --write) write_copy ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
