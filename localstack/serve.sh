#!/bin/sh
# The main process of the container `api`: deploys the stack, prints the functions' logs, and swaps
# functions whose source changes (`docker compose watch`). The emulator saves its state when it is
# stopped.
set -eu

rm -f /tmp/deployed
trap 'make down; exit 0' INT TERM

make up
touch /tmp/deployed
make logs &
make dev &
# A shell handles signals only while it waits.
wait $!
