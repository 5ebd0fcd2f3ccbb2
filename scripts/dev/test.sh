#!/bin/sh
# test.sh BINARY [FOLDER|busted option]... - run spec folders one after the other on one sandbox, which is
# removed at the end. Folders without specs are passed over.
set -u

binary=$1
shift
folders=
options=
for argument in "$@"; do
    case $argument in
    -*) options="$options $argument" ;;
    *) folders="$folders $argument" ;;
    esac
done

name="test-$$"
trap '"$binary" sandbox destroy --name "$name" >/dev/null 2>&1' EXIT
trap 'exit 130' INT TERM
file=$("$binary" sandbox start --name "$name" 2>/dev/null) || {
    "$binary" sandbox start --name "$name" || exit 1
}
LUNASHARD_TEST_SANDBOX=$(dirname "$file")
export LUNASHARD_TEST_SANDBOX

failed=0
for folder in $folders; do
    if [ -d "$folder" ] && [ -z "$(find "$folder" -name '*_spec.lua')" ]; then
        continue
    fi
    echo "== $folder"
    "$binary" test "$folder" $options || failed=1
done
exit $failed
