/* mod_interrupt.c - "lunashard.core.interrupt": a task that computes is stopped.  Layer: lua. */
/*** What SIGINT stops while it computes. For a session, whose lines run in a task each.
@module lunashard.core.interrupt */
#include "interrupt.h"

#include <lauxlib.h>

#include "bind.h"
#include "runtime.h"

static luna_task_stop *stop_of_current(void)
{
    return luna_rt.current != NULL ? luna_task_stop_of(luna_rt.current) : NULL;
}

static void on_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    const luna_task_stop *stop = stop_of_current();
    if (stop != NULL && stop->asked)
        luaL_error(L, "interrupted");
}

void luna_interrupt_compute(void)
{
    luna_task_stop *stop = stop_of_current();
    if (stop == NULL || !stop->allowed)
        return;
    stop->asked = 1;
    lua_sethook(luna_rt.main, NULL, 0, 0); /* Lua does nothing when it believes that it is set */
    lua_sethook(luna_rt.main, on_hook, LUA_MASKCOUNT, 1);
}

static luna_task_stop *check_stop(lua_State *L)
{
    return luna_task_stop_of(luaL_checkudata(L, 1, "lunashard.task"));
}

/*** SIGINT stops this task, when it comes while the task computes.
@function arm
@param task its handle */
static int interrupt_arm(lua_State *L)
{
    *check_stop(L) = (luna_task_stop){ .allowed = 1 };
    return 0;
}

/*** No longer: to be called when the task has ended.
@function disarm
@param task its handle
@treturn boolean was it stopped? */
static int interrupt_disarm(lua_State *L)
{
    luna_task_stop *stop = check_stop(L);
    bool asked = stop->asked != 0;
    *stop = (luna_task_stop){ .allowed = 0 };
    if (asked)
        lua_sethook(luna_rt.main, NULL, 0, 0);
    lua_pushboolean(L, asked);
    return 1;
}

int luaopen_lunashard_core_interrupt(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "arm", interrupt_arm },
        { "disarm", interrupt_disarm },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
