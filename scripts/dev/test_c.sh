#!/bin/sh
# test_c.sh PROGRAM... - run the C tests, each of which ends with "N passed, N failed", and add up. RUNNER goes in
# front of each, such as valgrind.
set -u

passed=0
failed=0
for program in "$@"; do
    output=$(${RUNNER:-} "$program" 2>&1)
    code=$?
    set -- $(echo "$output" | sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p')
    passed=$((passed + ${1:-0}))
    failed=$((failed + ${2:-0}))
    if [ $# -ne 2 ] || { [ "$code" -ne 0 ] && [ "${2:-0}" -eq 0 ]; }; then
        echo "$(basename "$program"): ended with code $code"
        failed=$((failed + 1))
        code=1
    fi
    if [ "$code" -ne 0 ]; then
        echo "$output"
    fi
done
echo "C tests: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
