#!/bin/sh
# bench.sh BINARY [option]... - run the benchmarks (scripts/dev/bench/main.lua); nothing is left running when they
# are interrupted.
set -u

binary=$1
shift
name="bench-$$"

trap '"$binary" sandbox destroy --name "$name" >/dev/null 2>&1' EXIT
# In the background, for a shell runs no trap while it waits for a program in the foreground.
"$binary" run scripts/dev/bench/main.lua --sandbox "$name" "$@" &
running=$!
trap 'kill -TERM "$running" 2>/dev/null; wait "$running"; exit 130' INT
trap 'kill -TERM "$running" 2>/dev/null; wait "$running"; exit 143' TERM HUP
wait "$running"
