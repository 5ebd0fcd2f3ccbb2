#!/bin/sh
# examples.sh BINARY - run every example on a sandbox of its own. An example says what it must print in comment
# lines `-- prints: TEXT`; each TEXT is an extended regular expression that some line of its output must match.
set -u

binary=$1
name="examples-$$"
output=$(mktemp)
trap 'rm -f "$output"; "$binary" sandbox destroy --name "$name" >/dev/null 2>&1' EXIT
trap 'exit 130' INT TERM

passed=0
failed=0
for example in examples/*.lua; do
    problem=
    cluster=$("$binary" sandbox start --name "$name" 2>/dev/null) || problem="the sandbox does not start"
    if [ -z "$problem" ] && ! "$binary" run --timeout 120 -c "$cluster" "$example" >"$output" 2>&1; then
        problem="it failed"
    fi
    wanted=$(sed -n 's/^-- prints: //p' "$example")
    [ -n "$wanted" ] || problem="${problem:-it does not say what it prints (-- prints: TEXT)}"
    while [ -z "$problem" ] && IFS= read -r text; do
        grep -qE -e "$text" "$output" || problem="it did not print: $text"
    done <<LINES
$wanted
LINES
    "$binary" sandbox destroy --name "$name" >/dev/null 2>&1
    if [ -z "$problem" ]; then
        passed=$((passed + 1))
        echo "ok      $example"
    else
        failed=$((failed + 1))
        echo "FAILED  $example: $problem"
        sed 's/^/        /' "$output"
    fi
done
echo "examples: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
