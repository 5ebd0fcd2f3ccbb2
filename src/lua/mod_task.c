/* mod_task.c - lunashard.core.task: spawning, sleeping, events.  Layer: lua. */
/*** Spawning, sleeping, events. Scripts use `lunashard.task`.
@module lunashard.core.task */
#include <string.h>

#include "bind.h"
#include "runtime.h"
#include "wait.h"

#define EVENT_TYPE "lunashard.event"

static double check_deadline(lua_State *L, int idx)
{
    double deadline = luaL_optnumber(L, idx, 0);
    luaL_argcheck(L, deadline == deadline, idx, "deadline is not a number");
    return deadline;
}

/*** Wait without blocking the loop. Yields.
@function sleep
@tparam number seconds */
static int task_sleep(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0, 1, "seconds must not be negative");
    luna_task_check(L, "sleep");
    luna_op *op = luna_wait_start(luna_loop_clock() + seconds);
    lua_pushboolean(L, 1);
    return luna_task_park(L, op);
}

/* ---- events: wake whoever waits ------------------------------------------ */

/*** An event that tasks can wait for.
@function event
@treturn lunashard.event with `wait(deadline)` and `notify()` */
static int task_event(lua_State *L)
{
    luna_list *waiters = lua_newuserdata(L, sizeof(*waiters));
    luna_list_init(waiters);
    luaL_getmetatable(L, EVENT_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

/*** Wait for the next `notify`. Yields; called through `lunashard.task`.
@function event:wait
@tparam[opt] number deadline on the clock of `lunashard.now` */
static int event_wait(lua_State *L)
{
    luna_list *waiters = luaL_checkudata(L, 1, EVENT_TYPE);
    double deadline = check_deadline(L, 2);
    luna_task_check(L, "event:wait");
    lua_settop(L, 1);
    luna_op *op = luna_wait_start(deadline);
    luna_list_push(waiters, &op->link);
    return luna_task_park(L, op);
}

/*** Wake waiting tasks, in the order in which they came.
@function event:notify
@int[opt] n how many at the most; all by default
@treturn int how many were woken */
static int event_notify(lua_State *L)
{
    luna_list *waiters = luaL_checkudata(L, 1, EVENT_TYPE);
    lua_Integer n = luaL_optinteger(L, 2, -1), woken = 0;
    while (!luna_list_empty(waiters) && woken != n) {
        luna_op_post(LUNA_CONTAINER(waiters->next, luna_op, link), LUNA_OK);
        woken++;
    }
    lua_pushinteger(L, woken);
    return 1;
}

/* ---- the runtime --------------------------------------------------------- */

/*** End the program in an orderly way: cancel every task, close everything.
Does not return.
@function exit
@int[opt=0] code */
static int task_exit(lua_State *L)
{
    luna_rt.exit_code = luaL_optint(L, 1, 0) & 0xff;
    luna_task *self = luna_rt.current;
    if (self == NULL)
        return luaL_error(L, "exit: may only be called inside a task");
    luna_runtime_cancel_tasks();
    luna_task_abandon(self);
    if (!lua_isyieldable(L)) { /* within table.sort and the like: unwind as far as the error gets */
        luna_err err;
        luna_err_set(&err, LUNA_ECANCELED, "os.exit");
        luna_push_err_object(L, &err);
        return lua_error(L);
    }
    luna_op *op = luna_wait_start(0);
    lua_pushnil(L);
    return luna_task_park(L, op);
}

/*** Has the program been asked to end by `exit`?
@function is_exiting
@treturn boolean */
static int task_is_exiting(lua_State *L)
{
    lua_pushboolean(L, luna_rt.exit_code >= 0);
    return 1;
}

/*** The running task's wait cannot be relayed outwards: forget it. For `coroutine.resume`.
@function forget_wait */
static int task_forget_wait(lua_State *L)
{
    (void)L;
    if (luna_rt.current != NULL)
        luna_task_forget_wait(luna_rt.current);
    return 0;
}

/*** What is alive, for leak checks and status; what works in the background is not counted.
@function counts
@treturn table `tasks`, `ops` (operations under way), `failed` (tasks that ended with an error
  nobody joined) */
static int task_counts(lua_State *L)
{
    int tasks = 0;
    LUNA_LIST_EACH (&luna_rt.tasks, it)
        tasks += !luna_task_is_daemon((luna_task *)(void *)it); /* the link is its first member */
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, tasks);
    lua_setfield(L, -2, "tasks");
    lua_pushinteger(L, (lua_Integer)luna_rt.loop.live);
    lua_setfield(L, -2, "ops");
    lua_pushinteger(L, (lua_Integer)luna_rt.failed_tasks);
    lua_setfield(L, -2, "failed");
    return 1;
}

/*** Turns of the loop that took longer than 100 ms.
@function stalls
@treturn number how many
@treturn number seconds in all
@treturn number seconds of the longest
@treturn ?string the last one in words */
static int task_stalls(lua_State *L)
{
    const luna_stalls *stalls = &luna_rt.stalls;
    lua_pushnumber(L, (double)stalls->count);
    lua_pushnumber(L, stalls->seconds);
    lua_pushnumber(L, stalls->longest);
    if (stalls->count == 0)
        return 3;
    lua_pushstring(L, stalls->last);
    return 4;
}

/*** Take the lines that the core has for stderr: of stalls, and of tasks that failed.
@function set_say
@tparam ?function fn called with each, which may have several lines; nil restores stderr */
static int task_set_say(lua_State *L)
{
    luaL_argcheck(L, lua_isnoneornil(L, 1) || lua_isfunction(L, 1), 1, "expected a function");
    luaL_unref(L, LUA_REGISTRYINDEX, luna_rt.say_ref);
    luna_rt.say_ref = LUA_NOREF;
    if (lua_isfunction(L, 1)) {
        lua_settop(L, 1);
        luna_rt.say_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    return 0;
}

/*** Tell the core the metatable of error objects.
@function set_error_metatable
@tparam table metatable */
static int task_set_error_metatable(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_unref(L, LUA_REGISTRYINDEX, luna_rt.err_meta_ref);
    lua_settop(L, 1);
    luna_rt.err_meta_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

int luaopen_lunashard_core_task(lua_State *L)
{
    static const luaL_Reg event_methods[] = {
        { "wait", event_wait },
        { "notify", event_notify },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "spawn", luna_task_spawn_binding },
        { "spawn_daemon", luna_task_spawn_daemon },
        { "current", luna_task_current },
        { "sleep", task_sleep },
        { "event", task_event },
        { "exit", task_exit },
        { "is_exiting", task_is_exiting },
        { "forget_wait", task_forget_wait },
        { "counts", task_counts },
        { "stalls", task_stalls },
        { "set_say", task_set_say },
        { "set_error_metatable", task_set_error_metatable },
        { NULL, NULL },
    };
    luna_task_register(L);
    luna_bind_type(L, EVENT_TYPE, event_methods, NULL);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    lua_pushlightuserdata(L, LUNA_TOKEN_WAIT);
    lua_setfield(L, -2, "WAIT");
    lua_pushlightuserdata(L, LUNA_TOKEN_CANCELED);
    lua_setfield(L, -2, "CANCELED");
    return 1;
}
