#!/bin/sh
# Runs the examples against a sandbox and checks what they print: see check_examples.lua.
#
#   scripts/dev/check_examples.sh BINARY [FILE...]
#
# The sandbox is a throw-away one, unless LUNASHARD_CLUSTER names a cluster file (of three shards to play with).
set -eu

binary=$(realpath "${1:?usage: check_examples.sh BINARY [FILE...]}")
shift
cd "$(dirname "$0")/../.."

if [ -z "${LUNASHARD_CLUSTER:-}" ]; then
    sandbox=examples-$$
    trap '"$binary" sandbox destroy --name "$sandbox" 2>/dev/null || true' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    LUNASHARD_CLUSTER=$("$binary" sandbox start --name "$sandbox" --shards 3)
fi

"$binary" run -c "$LUNASHARD_CLUSTER" scripts/dev/check_examples.lua "$@"
