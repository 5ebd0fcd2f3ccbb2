/* runtime.h - the one runtime: loop, Lua state, tasks.  Layer: lua.
 *
 * The only mutable state outside src/app.  Bindings reach it through luna_rt. */
#ifndef LUNA_LUA_RUNTIME_H
#define LUNA_LUA_RUNTIME_H

#include <lua.h>

#include "loop.h"
#include "task.h"

typedef struct luna_runtime {
    luna_loop loop;
    lua_State *main;    /* the main state; never the one a binding was called with */
    luna_task *current; /* the task that is running now, or NULL */
    luna_list tasks;    /* every live task, oldest first */
    int wait_ref;       /* registry reference of the WAIT token */
    int err_meta_ref;   /* registry reference of lunashard.errors' metatable, or LUA_NOREF */
    int int64_ref;      /* registry reference of ffi.typeof "int64_t" */
} luna_runtime;

extern luna_runtime luna_rt;

/* Open the Lua state with every binding in package.preload as
 * "lunashard.core.<name>".  Aborts only when memory is gone. */
void luna_runtime_open(void);

/* Cancel and end all tasks, close what they held, close the state and the loop. */
void luna_runtime_close(void);
#endif
