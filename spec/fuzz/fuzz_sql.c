/* fuzz_sql.c - lunashard.core.sql under libFuzzer: `make fuzz`.
 *
 * Any text gives a parse tree, or nil and an error; the stack is as it was, and nothing is lost. */
#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

int luaopen_lunashard_core_sql(lua_State *L);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

luna_runtime luna_rt = { .err_meta_ref = LUA_NOREF };

static void must(int condition)
{
    if (!condition)
        abort();
}

static void check_tree(lua_State *L)
{
    size_t len;
    const char *tree = lua_tolstring(L, -1, &len);
    must(len >= 2 && strlen(tree) == len && tree[0] == '{' && tree[len - 1] == '}');
}

static void check_error(lua_State *L, const uint8_t *data, size_t size)
{
    must(lua_istable(L, -1));
    lua_getfield(L, -1, "code");
    lua_getfield(L, -2, "message");
    lua_getfield(L, -3, "position");
    const char *code = lua_tostring(L, -3);
    must(code != NULL && lua_objlen(L, -2) > 0);
    must(strcmp(code, "SQL") == 0 || size > 32768 || memchr(data, '\0', size) != NULL);
    must(lua_isnil(L, -1) || lua_tonumber(L, -1) <= (double)size + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lua_State *L = luaL_newstate();
    must(L != NULL);
    luaopen_lunashard_core_sql(L);
    lua_getfield(L, -1, "parse");
    lua_pushlstring(L, (const char *)data, size);
    must(lua_pcall(L, 1, LUA_MULTRET, 0) == 0);
    if (lua_isstring(L, -1)) {
        must(lua_gettop(L) == 2);
        check_tree(L);
    } else {
        must(lua_gettop(L) == 3 && lua_isnil(L, 2));
        check_error(L, data, size);
    }
    lua_close(L);
    return 0;
}
