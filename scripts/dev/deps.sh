#!/bin/sh
# Install the packages that building and testing take (deps.sh), and those of the checks (deps.sh dev) or the peers
# of the benchmarks (deps.sh bench), when some are missing. Does next to nothing when all are there. The benchmarks
# do without a peer that cannot be had: that is said, and is no failure.
set -eu

packages="build-essential pkg-config luajit libluajit-5.1-dev libpq-dev libssl-dev libev-dev libc-ares-dev libpg-query-dev
libmicrohttpd-dev lua-cjson lua-argparse lua-inspect lua-busted postgresql openssl"
optional=
case ${1:-} in
dev)
    packages="$packages lua-check lua-ldoc clang-format cppcheck valgrind prometheus chromium zsh fish"
    ;;
bench)
    # PL/Proxy is packaged for each major version of the server.
    major=$(pg_config --version 2>/dev/null | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
    optional="python3-asyncpg python3-uvloop pgbouncer postgresql-${major:-15}-plproxy"
    ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "deps: not a Debian or Ubuntu system; needed are the counterparts of:" $packages >&2
    exit 0
fi

missing_of() { # those of the packages that are not installed
    # One call for all: a package that is not known at all makes it fail and is not listed.
    installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
    for package; do
        case "
$installed
" in
        *"
$package installed
"*) ;;
        *) printf ' %s' "$package" ;;
        esac
    done
}

missing=$(missing_of $packages)
wanted=$(missing_of $optional)
[ -n "$missing$wanted" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=
elif sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    echo "deps: missing packages; install them with" >&2
    echo "  sudo apt-get install -y$missing$wanted" >&2
    [ -z "$missing" ]
    exit
fi
echo "deps: installing$missing$wanted" >&2
export DEBIAN_FRONTEND=noninteractive
if [ -n "$missing" ]; then
    $sudo apt-get update -q >&2
    $sudo apt-get install -q -y --no-install-recommends $missing >&2
elif ! $sudo apt-get update -q >&2; then
    echo "deps: no package lists" >&2
fi
for package in $wanted; do
    $sudo apt-get install -q -y --no-install-recommends "$package" >&2 || echo "deps: could not get $package" >&2
done
