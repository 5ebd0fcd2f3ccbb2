#!/bin/sh
# Install the packages that building and testing take (deps.sh), and those of the checks (deps.sh dev), when some
# are missing. Does next to nothing when all are there.
set -eu

packages="build-essential pkg-config luajit libluajit-5.1-dev libpq-dev libev-dev libc-ares-dev
lua-cjson lua-argparse lua-inspect lua-busted postgresql openssl"
if [ "${1:-}" = dev ]; then
    packages="$packages lua-check lua-ldoc clang-format cppcheck valgrind"
fi

if ! command -v dpkg-query >/dev/null; then
    echo "deps: not a Debian or Ubuntu system; needed are the counterparts of:" $packages >&2
    exit 0
fi

missing=
# One call for all: a package that is not known at all makes it fail and is not listed.
installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' $packages 2>/dev/null || true)
for package in $packages; do
    case "
$installed
" in
    *"
$package installed
"*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=
elif sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    echo "deps: missing packages; install them with" >&2
    echo "  sudo apt-get install -y$missing" >&2
    exit 1
fi
echo "deps: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q >&2
$sudo apt-get install -q -y --no-install-recommends $missing >&2
