/* task.h - tasks: Lua coroutines that wait for operations.  Layer: lua.
 *
 * A binding that must wait does, in this order: check every argument; call
 * luna_task_check; create the operation and start it with luna_task_wake as
 * its `done`; leave one value on top of its stack; return luna_task_park(L, op).
 * The Lua caller receives that value (usually the userdata that holds the op,
 * which parking keeps alive) and whether the op ended with LUNA_OK.  In a
 * cancelled task it receives the CANCELED token instead: bindings that wait are
 * therefore called only through lunashard.task.waits, which raises on it. */
#ifndef LUNA_LUA_TASK_H
#define LUNA_LUA_TASK_H

#include <lua.h>
#include <signal.h>

#include "loop.h"

typedef struct luna_task luna_task;

/* Something a task must not outlive, such as a leased connection. */
typedef struct luna_held {
    luna_list link;
    void (*release)(struct luna_held *held); /* called with `link` already removed */
} luna_held;

/* May a task be stopped while it computes, and is it to be?  See interrupt.h. */
typedef struct luna_task_stop {
    volatile sig_atomic_t allowed, asked;
    volatile sig_atomic_t number; /* of whoever may stop it; 0: nobody in particular */
} luna_task_stop;
luna_task_stop *luna_task_stop_of(luna_task *task);

/* Raise unless called from a task that may wait here: a coroutine can yield
 * neither from a function that C has called nor outside of tasks. */
void luna_task_check(lua_State *L, const char *what);

/* Park the current task until `op` is done; to be returned by the binding. */
int luna_task_park(lua_State *L, luna_op *op);

/* The `done` of an op that a task is parked on. */
void luna_task_wake(luna_op *op);

/* The yield of luna_task_park did not get out of the task: its op ends alone. */
void luna_task_forget_wait(luna_task *task);

/* Give `held` to the current task: released when that task ends, unless it was
 * removed (luna_list_del on the link) or given to another task before. */
void luna_task_hold(luna_held *held);

/* Push a new task that will call the function below the `nargs` arguments on
 * top of L; pops those.  It starts in the next loop turn. */
luna_task *luna_task_spawn(lua_State *L, int nargs);

/* Ask a task to end: its present wait, and every later one, raises CANCELED. */
void luna_task_cancel(luna_task *task);

/* End a cancelled task that goes on all the same: it is never resumed again. */
void luna_task_abandon(luna_task *task);

/* Take a task that has not ended out of the loop, for the end of the runtime:
 * neither its start nor a completion reaches it any more. */
void luna_task_drop(luna_task *task);

/* Will the current task's next wait raise? */
bool luna_task_is_cancelled(void);

bool luna_task_is_done(const luna_task *task);

/* Does it work in the background, so that nobody waits for its end? */
bool luna_task_is_daemon(const luna_task *task);

/* Register the task type and the methods of its handles. */
void luna_task_register(lua_State *L);
int luna_task_spawn_binding(lua_State *L);
int luna_task_spawn_daemon(lua_State *L);
int luna_task_current(lua_State *L);
#endif
