/* budget.h - a limit for what one call of a plug-in takes.  Layer: lua.
 *
 * A hook that stops a loop would cost too much were it there all the time.  So a timer of this
 * thread's processor time interrupts every few milliseconds of work, and only when it finds a call
 * that has run for too long it sets the hook, which raises at the next instruction, and at every
 * one after that: no pcall holds it up for long.  Compiled code does not see hooks: functions of a
 * plug-in are kept from the compiler (lunashard.plugin.budget).  Processor time, because a plug-in
 * cannot wait: on a busy machine none is stopped for what others take.
 *
 * Memory is counted where Lua allocates, and only during such a call: what was taken and not given
 * back, garbage included.  Beyond the limit an allocation fails, and the hook is set too.
 *
 * The plug-in is called under lua_pcall, so it can neither yield nor unwind what called it: the one
 * place where C calls a plug-in.  A call within a call lives on the outer one's budget. */
#ifndef LUNA_LUA_BUDGET_H
#define LUNA_LUA_BUDGET_H

#include <lua.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* Seconds of work between two looks: a call is stopped that long after its time was over. */
#define LUNA_BUDGET_TICK 0.01

typedef enum { LUNA_BUDGET_KEPT, LUNA_BUDGET_TIME, LUNA_BUDGET_MEMORY } luna_budget_stop;

typedef struct luna_limits {
    int ticks;
    size_t memory; /* bytes */
} luna_limits;

typedef struct luna_budget {
    luna_limits limits;
    /* What the timer's signal looks at.  It interrupts this same thread. */
    volatile sig_atomic_t depth; /* calls under way, each within the one before */
    volatile sig_atomic_t ticks; /* since the outermost began */
    volatile sig_atomic_t stopped, is_hooked;
    bool is_ticking;
    timer_t timer;
    size_t used;
    lua_Alloc allocate; /* what allocates otherwise */
    void *data;
    lua_Hook hook; /* what was hooked otherwise */
    int hook_mask, hook_count;
    const char *stack; /* where C's stack was */
    char where[128];   /* what was running when it was stopped */
} luna_budget;

/* Start the timer, once.  False, with errno, when the system has none such. */
bool luna_budget_start(void);
void luna_budget_end(void);

/* lua_pcall within limits, all results: `nargs` arguments and the function below them on top of L.
 * Returns as lua_pcall; `stop` is set when the call was stopped, whatever it returned.  The
 * message handler at `handler` is run within the limits. */
int luna_budget_call(lua_State *L, const luna_limits *limits, int nargs, int handler,
                     luna_budget_stop *stop);

/* What is done from here to luna_budget_go_on, which takes what this returned, is nothing of the
 * plug-in's: a finalizer may run within its call and must not fail for want of memory. */
int luna_budget_suspend(void);
void luna_budget_go_on(int depth);

/* Raise when the calls from C into Lua and back have come near the end of C's stack. */
void luna_budget_check_stack(lua_State *L);

/* How many steps of a match the present call may take in one C call. */
uint64_t luna_budget_steps(void);
#endif
