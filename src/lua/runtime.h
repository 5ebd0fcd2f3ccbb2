/* runtime.h - the one runtime: loop, Lua state, tasks.  Layer: lua.
 *
 * The only mutable state below src/app.  Bindings reach it through luna_rt. */
#ifndef LUNA_LUA_RUNTIME_H
#define LUNA_LUA_RUNTIME_H

#include <locale.h>
#include <lua.h>

#include "budget.h"
#include "cancel.h"
#include "loop.h"
#include "memory.h"
#include "resolve.h"
#include "signals.h"
#include "stall.h"
#include "task.h"
#include "terminal.h"

typedef struct luna_runtime {
    luna_loop loop;
    luna_resolver *resolver; /* started with the first pool */
    luna_canceler *canceler;
    luna_memory memory;
    luna_budget budget;       /* of the plug-in call that is under way */
    lua_State *main;          /* the main state; never the one a binding was called with */
    luna_task *current;       /* the task that is running now, or NULL */
    const luna_task *awaited; /* what luna_runtime_run waits for */
    luna_list tasks;          /* every live task, oldest first */
    unsigned failed_tasks;    /* tasks that ended with an error which nobody joined */
    int exit_code;            /* what os.exit asked for, -1 before */
    int err_meta_ref;         /* registry reference of lunashard.errors' metatable, or LUA_NOREF */
    int int64_ref;            /* registry reference of ffi.typeof "int64_t" */
    int say_ref;              /* registry reference of what takes lines for stderr, or LUA_NOREF */
    luna_signals signals;
    luna_stalls stalls;
    luna_terminal terminal; /* raw while a line is edited */
    locale_t utf8; /* held, so that the table of widths (cells.h) is not loaded each time */
} luna_runtime;

extern luna_runtime luna_rt;

/* What park yields, and what a cancelled wait returns.  Compared by address. */
#define LUNA_TOKEN_WAIT ((void *)&luna_rt.loop)
#define LUNA_TOKEN_CANCELED ((void *)&luna_rt.main)

/* Open the Lua state with every binding in package.preload as
 * "lunashard.core.<name>" and run lunashard.prelude.  0, or 1 after printing why. */
LUNA_MUSTCHECK int luna_runtime_open(void);

/* Tell whoever watches over the program: one line on stderr, or wherever a script has it go. */
void luna_runtime_say(const char *line);

/* Cancel every task, newest first. */
void luna_runtime_cancel_tasks(void);

/* Run the loop until `task` has ended. */
void luna_runtime_run(const luna_task *task);

/* Cancel what still runs, give it `grace` seconds to end, drop the rest,
 * close the state (and with it every pool) and the loop. */
void luna_runtime_close(double grace);
#endif
