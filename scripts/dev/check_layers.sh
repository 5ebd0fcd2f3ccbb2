#!/bin/sh
# The rules of the layers that a compiler cannot check. Prints what breaks one; silent when all is well.
set -u

failed=0
refuse() { # refuse WHY PATTERN FILE...
    why=$1
    pattern=$2
    shift 2
    if grep -nE "$pattern" "$@"; then
        echo "check_layers: $why" >&2
        failed=1
    fi
}

refuse "base is pure C: no Lua, libpq, libev, c-ares, libpg_query, and no clock" \
    '#include [<"](lua|lauxlib|lualib|libpq|pg_query|ev\.h|ares|microhttpd|time\.h|sys/time\.h|pthread)' src/base/*.[ch]
refuse "io knows nothing about Lua or the SQL parser" '#include [<"](lua|lauxlib|lualib|pg_query|bind\.h|task\.h|runtime\.h)' src/io/*.[ch]
refuse "base includes nothing of the layers above" \
    "#include \"($(ls src/io src/lua | sed -n 's/\.h$/\\.h/p' | paste -sd '|'))\"" src/base/*.[ch]
refuse "a binding must not end the process" '(^|[^_[:alnum:]])(_?exit|quick_exit) ?\(' src/lua/mod_*.c

resumes=$(grep -nE '(^|[^_[:alnum:]])lua_resume ?\(' src/*/*.c | grep -vE ':[0-9]+:( \*|/\*)')
if [ "$(echo "$resumes" | wc -l)" -ne 1 ] || ! echo "$resumes" | grep -q '^src/lua/task\.c:'; then
    echo "$resumes"
    echo "check_layers: there must be exactly one lua_resume, in src/lua/task.c" >&2
    failed=1
fi

# Every function that a luaL_Reg names, metamethods apart, carries LDoc in front: /*** ... */ right above it.
awk '
    /\/\*\*\*/ { documented = 1 }
    /^(static )?int [a-z0-9_]+\(lua_State/ {
        name = $0; sub(/\(.*/, "", name); sub(/.* /, "", name)
        if (documented) has[name] = 1
        documented = 0
    }
    { line = $0
      while (match(line, /\{ "[a-z][a-z0-9_]*", [a-z0-9_]+ \}/)) {
          entry = substr(line, RSTART, RLENGTH); line = substr(line, RSTART + RLENGTH)
          sub(/.*, /, "", entry); sub(/ \}/, "", entry)
          registered[entry] = FILENAME ":" FNR
      } }
    END { for (name in registered) if (!(name in has) && name !~ /^luaopen_/) {
              printf "%s: %s is not documented\n", registered[name], name; bad = 1 }
          exit bad }' src/lua/*.c || failed=1
exit $failed
