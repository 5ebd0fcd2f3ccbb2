/* mod_watch.c - "lunashard.core.watch": folders whose files change.  Layer: lua. */
/*** Folders whose files change, as `lunashard.watch` uses them.
@module lunashard.core.watch */
#include <string.h>

#include "bind.h"
#include "runtime.h"
#include "watch.h"

#define WATCH_TYPE "lunashard.watch"

static luna_watch *check_watch(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, WATCH_TYPE);
}

/*** Watch the files in a folder and below it, from how they are now. The folder may be missing.
@function open
@string path
@string[opt=""] suffix what the names of files end in that are looked at
@treturn lunashard.watch with `wait`, `take`, `close` */
static int watch_open(lua_State *L)
{
    size_t len;
    const char *path = luaL_checklstring(L, 1, &len), *suffix = luaL_optstring(L, 2, "");
    luaL_argcheck(L, len > 0 && memchr(path, '\0', len) == NULL, 1,
                  "expected the path of a folder");
    luna_watch *watch = lua_newuserdata(L, sizeof(*watch));
    memset(watch, 0, sizeof(*watch));
    luaL_getmetatable(L, WATCH_TYPE);
    lua_setmetatable(L, -2);
    luna_watch_open(watch, &luna_rt.loop, path, suffix);
    return 1;
}

/*** Wait until files have changed since `take`. Yields; called through `lunashard.watch`.
@function watch:wait
@tparam[opt] number deadline on the clock of `lunashard.now`
@treturn lunashard.watch the same
@treturn boolean false when the deadline came first, or `close` */
static int watch_wait(lua_State *L)
{
    luna_watch *watch = check_watch(L, 1);
    double deadline = luaL_optnumber(L, 2, 0);
    if (watch->loop == NULL)
        return luaL_error(L, "wait: the watch is closed");
    if (watch->wait.state != LUNA_OP_IDLE)
        return luaL_error(L, "wait: another task waits for these files");
    luna_task_check(L, "wait");
    lua_settop(L, 1);
    luna_watch_wait_start(watch, deadline, luna_task_wake);
    return luna_task_park(L, &watch->wait);
}

/*** Which files have changed, come or gone since the last time.
@function watch:take
@treturn {string,...} paths that begin with the folder's */
static int watch_take(lua_State *L)
{
    luna_watch *watch = check_watch(L, 1);
    lua_createtable(L, (int)watch->changed.n, 0);
    for (size_t i = 0; i < watch->changed.n; i++) {
        lua_pushstring(L, watch->changed.list[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    luna_watch_forget(watch);
    return 1;
}

/*** Watch no longer. May be called again.
@function watch:close */
static int watch_close(lua_State *L)
{
    luna_watch_close(check_watch(L, 1));
    return 0;
}

static int watch_gc(lua_State *L)
{
    luna_watch *watch = check_watch(L, 1);
    luna_watch_close(watch);
    luna_op_abandon(&watch->wait);
    return 0;
}

int luaopen_lunashard_core_watch(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "wait", watch_wait },
        { "take", watch_take },
        { "close", watch_close },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", watch_gc },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "open", watch_open },
        { NULL, NULL },
    };
    luna_bind_type(L, WATCH_TYPE, methods, meta);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
