/* mod_interrupt.c - "lunashard.core.interrupt": a task that computes is stopped.  Layer: lua. */
/*** What SIGINT stops while it computes. For a session, whose lines run in a task each.
@module lunashard.core.interrupt */
#include "interrupt.h"

#include <lauxlib.h>

#include "bind.h"
#include "runtime.h"

static void on_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    if (luna_rt.interrupt.task != NULL && luna_rt.current == luna_rt.interrupt.task)
        luaL_error(L, "interrupted");
}

void luna_interrupt_compute(void)
{
    luna_interrupt *interrupt = &luna_rt.interrupt;
    if (interrupt->task == NULL || luna_rt.current != interrupt->task)
        return;
    interrupt->came = 1;
    lua_sethook(luna_rt.main, NULL, 0, 0); /* Lua does nothing when it believes that it is set */
    lua_sethook(luna_rt.main, on_hook, LUA_MASKCOUNT, 1);
}

/*** SIGINT stops this task, when it comes while the task computes. One task at a time.
@function arm
@param task its handle */
static int interrupt_arm(lua_State *L)
{
    luna_rt.interrupt = (luna_interrupt){ .task = luaL_checkudata(L, 1, "lunashard.task") };
    return 0;
}

/*** No longer: to be called when the task has ended.
@function disarm
@treturn boolean was it stopped? */
static int interrupt_disarm(lua_State *L)
{
    luna_interrupt *interrupt = &luna_rt.interrupt;
    bool came = interrupt->came != 0;
    *interrupt = (luna_interrupt){ .task = NULL };
    if (came)
        lua_sethook(luna_rt.main, NULL, 0, 0);
    lua_pushboolean(L, came);
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
