#!/bin/sh
# soak_memory.sh BINARY MINUTES - run scripts/dev/soak_memory.lua on a sandbox of its own.
set -eu

name="soak-$$"
trap '"$1" sandbox destroy --name "$name" >/dev/null 2>&1' EXIT
cluster=$("$1" sandbox start --name "$name" 2>/dev/null)
"$1" run -c "$cluster" scripts/dev/soak_memory.lua "$2"
