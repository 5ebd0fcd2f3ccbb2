#include "bind.h"

#include <stdlib.h>
#include <string.h>

#include "runtime.h"

#define LUA_TCDATA 10 /* LuaJIT's own type; its header does not name it */

void luna_bind_type(lua_State *L, const char *tname, const luaL_Reg *methods, const luaL_Reg *meta)
{
    luaL_newmetatable(L, tname);
    if (meta != NULL)
        luaL_register(L, NULL, meta);
    lua_newtable(L);
    luaL_register(L, NULL, methods);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "locked"); /* scripts must not reach __gc */
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void *luna_bind_check(lua_State *L, int idx, const char *tname)
{
    const char **handle = lua_touserdata(L, idx);
    if (handle == NULL || lua_islightuserdata(L, idx) || lua_objlen(L, idx) < sizeof(*handle) ||
        *handle != tname)
        luaL_typerror(L, idx, tname);
    return handle;
}

void *luna_bind_new(lua_State *L, size_t size, const char *tname)
{
    const char **handle = lua_newuserdata(L, size);
    memset(handle, 0, size);
    *handle = tname;
    luaL_getmetatable(L, tname);
    lua_setmetatable(L, -2);
    return handle;
}

static int is_retryable(luna_status code)
{
    return code == LUNA_EDOWN || code == LUNA_EPOOL || code == LUNA_ETIMEOUT || code == LUNA_ESTALE;
}

void luna_push_err_object(lua_State *L, const luna_err *err)
{
    lua_createtable(L, 0, 6);
    lua_pushstring(L, luna_status_name(err->code));
    lua_setfield(L, -2, "code");
    lua_pushstring(L, err->msg);
    lua_setfield(L, -2, "message");
    lua_pushboolean(L, is_retryable(err->code));
    lua_setfield(L, -2, "retryable");
    if (err->sqlstate[0] != '\0') {
        lua_pushstring(L, err->sqlstate);
        lua_setfield(L, -2, "sqlstate");
    }
    if (luna_rt.err_meta_ref != LUA_NOREF) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, luna_rt.err_meta_ref);
        lua_setmetatable(L, -2);
    }
}

int luna_push_err(lua_State *L, const luna_err *err)
{
    lua_pushnil(L);
    luna_push_err_object(L, err);
    return 2;
}

void luna_push_int64(lua_State *L, int64_t v)
{
    const int64_t exact = INT64_C(1) << 53;
    if (v >= -exact && v <= exact) {
        lua_pushnumber(L, (double)v);
        return;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, luna_rt.int64_ref);
    lua_call(L, 0, 1);
    memcpy((void *)(uintptr_t)lua_topointer(L, -1), &v, sizeof(v));
}

/* The C API does not tell cdata types apart, but their text does: 42LL, 42ULL. */
int luna_to_int64(lua_State *L, int idx, int64_t *v, int *is_unsigned)
{
    if (lua_type(L, idx) != LUA_TCDATA || !luaL_callmeta(L, idx, "__tostring"))
        return 0;
    size_t len;
    const char *s = lua_tolstring(L, -1, &len);
    char *end = NULL;
    int ok = 0;
    if (s != NULL && len > 2 && (s[0] == '-' || (s[0] >= '0' && s[0] <= '9'))) {
        *is_unsigned = len > 3 && strcmp(s + len - 3, "ULL") == 0;
        if (*is_unsigned)
            *v = (int64_t)strtoull(s, &end, 10);
        else
            *v = strtoll(s, &end, 10);
        ok = strcmp(end, *is_unsigned ? "ULL" : "LL") == 0;
    }
    lua_pop(L, 1);
    return ok;
}
