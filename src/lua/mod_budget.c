/* mod_budget.c - "lunashard.core.budget": functions that are called within limits.  Layer: lua. */
/*** Functions that are called within limits. Scripts use `lunashard.plugin.budget`.
@module lunashard.core.budget */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "bind.h"
#include "runtime.h"

typedef struct luna_guard {
    luna_limits limits;
    double in_a_row; /* calls that failed since one did not */
    bool is_plain;   /* what it returns is no table, function or the like */
} luna_guard;

/* Upvalues of a limited function. */
enum { GUARD = 1, FUNCTION, FAIL, HANDLER, STRING_META, INDEX, STRINGS, N_UPVALUES = STRINGS };

static bool is_our_error(lua_State *L, int idx)
{
    if (!lua_istable(L, idx) || luna_rt.err_meta_ref == LUA_NOREF || !lua_getmetatable(L, idx))
        return false;
    lua_rawgeti(L, LUA_REGISTRYINDEX, luna_rt.err_meta_ref);
    bool is = lua_rawequal(L, -1, -2) != 0;
    lua_pop(L, 2);
    return is;
}

static void push_text(lua_State *L, int idx)
{
    if (luaL_callmeta(L, idx, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
        return;
    lua_pushvalue(L, idx);
    if (lua_tostring(L, -1) == NULL)
        lua_pushfstring(L, "(a %s)", luaL_typename(L, idx));
}

/* The message handler: { what was raised, where }.  An error of ours stays what it is, anything
 * else becomes a text here, within the limits, for it may have a __tostring. */
static int on_error(lua_State *L)
{
    lua_settop(L, 1);
    if (!is_our_error(L, 1)) {
        push_text(L, 1);
        lua_replace(L, 1);
        lua_settop(L, 1);
    }
    lua_createtable(L, 2, 0);
    lua_insert(L, 1);
    lua_rawseti(L, 1, 1);
    luaL_traceback(L, L, NULL, 1);
    lua_rawseti(L, 1, 2);
    return 1;
}

/* Raise what FAIL makes of a failure: `reason`, the value on top of L, a traceback or nil. */
static int fail(lua_State *L, luna_guard *guard, const char *reason)
{
    int value = lua_gettop(L);
    lua_pushvalue(L, lua_upvalueindex(FAIL));
    lua_pushstring(L, reason);
    if (lua_istable(L, value) && !is_our_error(L, value)) { /* of on_error */
        lua_rawgeti(L, value, 1);
        lua_rawgeti(L, value, 2);
    } else {
        lua_pushvalue(L, value);
        lua_pushnil(L);
    }
    lua_pushnumber(L, ++guard->in_a_row);
    lua_pushstring(L, luna_rt.budget.where);
    lua_call(L, 5, 1);
    return lua_error(L);
}

static bool is_plain(lua_State *L, int idx)
{
    int type = lua_type(L, idx);
    return type != LUA_TTABLE && type != LUA_TFUNCTION && type != LUA_TTHREAD &&
           type != LUA_TUSERDATA && type != LUA_TLIGHTUSERDATA;
}

/* Reasons beside nil and a text or an error of ours become a text, so that none runs code of the
 * plug-in later. */
static void check_reason(lua_State *L, int idx)
{
    if (is_plain(L, idx) || is_our_error(L, idx))
        return;
    lua_pushfstring(L, "(a %s)", luaL_typename(L, idx));
    lua_replace(L, idx);
}

/* Methods of strings are the plug-in's bounded ones during its call.  Leaves the metatable and its
 * __index on L. */
static void swap_strings(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(STRING_META));
    lua_pushvalue(L, lua_upvalueindex(INDEX));
    lua_rawget(L, -2);
    lua_pushvalue(L, lua_upvalueindex(INDEX));
    lua_pushvalue(L, lua_upvalueindex(STRINGS));
    lua_rawset(L, -4);
}

static void restore_strings(lua_State *L, int meta)
{
    lua_pushvalue(L, lua_upvalueindex(INDEX));
    lua_pushvalue(L, meta + 1);
    lua_rawset(L, meta);
}

static int limited(lua_State *L)
{
    static const char *const reasons[] = { "raised", "time", "memory" };
    luna_guard *guard = lua_touserdata(L, lua_upvalueindex(GUARD));
    int nargs = lua_gettop(L), first = nargs + 4;
    bool is_outermost = luna_rt.budget.depth == 0;
    luaL_checkstack(L, nargs + 16, "too many arguments");
    swap_strings(L);
    lua_pushvalue(L, lua_upvalueindex(HANDLER));
    lua_pushvalue(L, lua_upvalueindex(FUNCTION));
    for (int i = 1; i <= nargs; i++)
        lua_pushvalue(L, i);
    luna_budget_stop stop;
    int rc = luna_budget_call(L, &guard->limits, nargs, first - 1, &stop);
    restore_strings(L, nargs + 1);
    if (stop != LUNA_BUDGET_KEPT && !is_outermost)
        return luaL_error(L, "%s", "stopped"); /* the outer one reports it */
    if (rc == LUA_ERRMEM && stop == LUNA_BUDGET_KEPT)
        stop = LUNA_BUDGET_MEMORY; /* more than Lua can have at all */
    if (rc != 0 || stop != LUNA_BUDGET_KEPT)
        return fail(L, guard, reasons[stop]);
    if (guard->is_plain && !is_plain(L, first)) {
        lua_pushstring(L, luaL_typename(L, first));
        return fail(L, guard, "returned");
    }
    guard->in_a_row = 0;
    int n = lua_gettop(L) - first + 1;
    if (n >= 2 && lua_isnil(L, first))
        check_reason(L, first + 1);
    return n;
}

/*** A function that is called within limits. What it raises is what `fail` returns.
@function limit
@tparam function fn
@tparam function fail `fail(reason, value, traceback, in_a_row, where) -> error`, with `reason`
  `raised`, `returned` (a value that is not plain), `time` or `memory`
@tparam table strings what methods of strings are meanwhile
@tparam number time seconds of processor time
@tparam number memory bytes that one call may take, garbage included
@tparam[opt] boolean plain it returns no tables or functions
@treturn function that does not yield */
static int budget_limit(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_checktype(L, 3, LUA_TTABLE);
    double ticks = ceil(luaL_checknumber(L, 4) / LUNA_BUDGET_TICK - 1e-9);
    double memory = luaL_checknumber(L, 5);
    luaL_argcheck(L, ticks >= 1 && ticks < 1e9, 4, "time must be a number of seconds above 0");
    luaL_argcheck(L, memory >= 1 && memory < 1e15, 5, "memory must be a number of bytes");
    lua_settop(L, 6);
    if (!luna_budget_start())
        return luaL_error(L, "limits: no timer of processor time: %s", strerror(errno));
    luna_guard *guard = lua_newuserdata(L, sizeof(*guard));
    *guard =
        (luna_guard){ .limits = { (int)ticks, (size_t)memory }, .is_plain = lua_toboolean(L, 6) };
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_pushcfunction(L, on_error);
    lua_pushliteral(L, "");
    if (!lua_getmetatable(L, -1))
        return luaL_error(L, "limits: strings have no metatable");
    lua_remove(L, -2);
    lua_pushliteral(L, "__index");
    lua_pushvalue(L, 3);
    lua_pushcclosure(L, limited, N_UPVALUES);
    return 1;
}

/*** Raise when calls from C into Lua and back have come near the end of C's stack.
@function check_stack */
static int budget_check_stack(lua_State *L)
{
    luna_budget_check_stack(L);
    return 0;
}

/*** Is a plug-in's call under way that was stopped? What is caught then must be raised again.
@function is_stopped
@treturn boolean */
static int budget_is_stopped(lua_State *L)
{
    lua_pushboolean(L, luna_rt.budget.depth > 0 && luna_rt.budget.stopped != LUNA_BUDGET_KEPT);
    return 1;
}

int luaopen_lunashard_core_budget(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "limit", budget_limit },
        { "check_stack", budget_check_stack },
        { "is_stopped", budget_is_stopped },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
