#!/bin/sh
# The main process of the container `localstack-deploy`: deploys whenever LocalStack has started,
# which its init hook reports, and prints the functions' logs.
set -eu

deployed=
logs=
trap 'exit 0' INT TERM
while :; do
  started=$(cat /starts/last 2>/dev/null || true)
  if [ "$started" != "$deployed" ]; then
    rm -f /tmp/deployed
    [ -z "$logs" ] || kill "$logs" 2>/dev/null || true
    make up
    make logs &
    logs=$!
    deployed=$started
    touch /tmp/deployed
  fi
  # A shell handles signals only while it waits.
  sleep 1 &
  wait $!
done
