/* mod_interrupt.c - "lunashard.core.interrupt": a task that computes is stopped.  Layer: lua. */
/*** What SIGINT stops while it computes. For a session, whose lines run in a task each.
@module lunashard.core.interrupt */
#include "interrupt.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>
#include <sys/types.h>

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

void luna_interrupt_compute(int number)
{
    luna_task_stop *stop = stop_of_current();
    if (stop == NULL || !stop->allowed || (number != 0 && stop->number != number))
        return;
    stop->asked = 1;
    lua_sethook(luna_rt.main, NULL, 0, 0); /* Lua does nothing when it believes that it is set */
    lua_sethook(luna_rt.main, on_hook, LUA_MASKCOUNT, 1);
}

void luna_interrupt_end(void)
{
    lua_sethook(luna_rt.main, NULL, 0, 0);
}

static luna_task_stop *check_stop(lua_State *L)
{
    return luna_task_stop_of(luaL_checkudata(L, 1, "lunashard.task"));
}

/*** SIGINT stops this task, when it comes while the task computes.
@function arm
@param task its handle
@tparam[opt] number number with which `send`, in another process, names it; from 1 */
static int interrupt_arm(lua_State *L)
{
    luna_task_stop *stop = check_stop(L);
    *stop = (luna_task_stop){ .allowed = 1, .number = luaL_optint(L, 2, 0) };
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
    lua_pushboolean(L, asked);
    return 1;
}

/*** Stop a task of another process that computes. Where another one runs, nothing happens.
@function send
@tparam number pid
@tparam number number with which the task is armed there
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string */
static int interrupt_send(lua_State *L)
{
    pid_t pid = (pid_t)luaL_checkint(L, 1);
    int number = luaL_checkint(L, 2);
    luaL_argcheck(L, pid > 0, 1, "not a process");
    luaL_argcheck(L, number > 0, 2, "must be positive");
    if (sigqueue(pid, SIGUSR1, (union sigval){ .sival_int = number }) != 0) {
        lua_pushnil(L);
        lua_pushstring(L, strerror(errno));
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

int luaopen_lunashard_core_interrupt(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "arm", interrupt_arm },
        { "disarm", interrupt_disarm },
        { "send", interrupt_send },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
