/* task.h - tasks: Lua coroutines that wait for operations.  Layer: lua.
 *
 * A binding that must wait does, in this order: check every argument; call
 * luna_task_check; create the operation and start it with luna_task_wake as
 * its `done`; leave one value on top of its stack; return luna_task_park(L, op).
 * That value (usually the userdata that holds the op, which keeps it alive) is
 * what the Lua caller receives when the op completes.  In a cancelled task the
 * caller receives the CANCELED token instead: bindings that wait are therefore
 * called only through lunashard.task.waits, which turns it into a raised error. */
#ifndef LUNA_LUA_TASK_H
#define LUNA_LUA_TASK_H

#include <lua.h>

#include "loop.h"

typedef struct luna_task luna_task;

/* Raise unless called from a task that may wait here. */
void luna_task_check(lua_State *L, const char *what);

/* Park the current task until `op` is done; to be returned by the binding. */
int luna_task_park(lua_State *L, luna_op *op);

/* The `done` of an op that a task is parked on. */
void luna_task_wake(luna_op *op);
#endif
