#!/bin/sh
# test_c.sh PROGRAM... - run the C tests, each of which ends with "N passed, N failed" checks, and count the
# programs. RUNNER goes in front of each, such as valgrind.
set -u

passed=0
failed=0
checks=0
for program in "$@"; do
    output=$(${RUNNER:-} "$program" 2>&1)
    code=$?
    good=$(echo "$output" | sed -n '$s/^\([0-9]*\) passed, 0 failed$/\1/p')
    if [ "$code" -eq 0 ] && [ "${good:-0}" -gt 0 ]; then
        passed=$((passed + 1))
        checks=$((checks + good))
    else
        failed=$((failed + 1))
        echo "$(basename "$program") failed, with code $code:"
        echo "$output"
    fi
done
echo "C tests: $passed passed, $failed failed ($checks checks)"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
