#include "budget.h"

#include <lauxlib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime.h"

#define SIGNAL SIGVTALRM

/* Once the limit was met, what errors and their messages may still take. */
#define MEMORY_GRACE ((size_t)4 << 20)

/* Bytes of C's stack. */
#define MAX_STACK ((ptrdiff_t)2 << 20)

/* Some nanoseconds each. */
#define STEPS_IN_TICK ((uint64_t)1000000)
#define STEPS_OUTSIDE (10 * STEPS_IN_TICK)

/* ---- stopping --------------------------------------------------------------------- */

static const char *reason_of(const luna_budget *b)
{
    return b->stopped == LUNA_BUDGET_MEMORY ? "the memory limit of a plug-in"
                                            : "the time limit of a plug-in";
}

/* The innermost place that is not in our own modules. */
static void find_line(lua_State *L, char *text, size_t n)
{
    lua_Debug at;
    for (int level = 0; lua_getstack(L, level, &at); level++)
        if (lua_getinfo(L, "Sl", &at) && at.currentline > 0 &&
            strstr(at.source, "lua/lunashard/") == NULL) {
            snprintf(text, n, "%s:%d", at.short_src, at.currentline);
            return;
        }
}

static void on_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    luna_budget *b = &luna_rt.budget;
    if (b->depth == 0)
        return;
    if (b->where[0] == '\0')
        find_line(L, b->where, sizeof(b->where));
    lua_pushstring(L, reason_of(b));
    lua_error(L);
}

/* Called in a signal as well, as lua_sethook may be.  It may have interrupted Lua while that
 * changed its hooks, and be overwritten: so it is called at each tick until the end of the call,
 * and takes the hook away first, for Lua does nothing when it believes that nothing has changed. */
static void stop(luna_budget *b, luna_budget_stop why)
{
    lua_State *L = luna_rt.main;
    if (b->stopped == LUNA_BUDGET_KEPT)
        b->stopped = (sig_atomic_t)why;
    b->is_hooked = 1;
    lua_sethook(L, NULL, 0, 0);
    lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
}

static void unhook(luna_budget *b)
{
    if (!b->is_hooked)
        return;
    b->is_hooked = 0;
    lua_sethook(luna_rt.main, b->hook, b->hook_mask, b->hook_count);
}

static void on_tick(int signo)
{
    (void)signo;
    luna_budget *b = &luna_rt.budget;
    if (b->depth > 0 && ++b->ticks > b->limits.ticks)
        stop(b, LUNA_BUDGET_TIME);
}

bool luna_budget_start(void)
{
    luna_budget *b = &luna_rt.budget;
    if (b->is_ticking)
        return true;
    struct sigaction sa = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
    sigfillset(&sa.sa_mask);
    struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGNAL };
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (sigaction(SIGNAL, &sa, NULL) != 0 ||
        timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &b->timer) != 0)
        return false;
    b->is_ticking = true;
    struct timespec tick = { .tv_nsec = (long)(LUNA_BUDGET_TICK * 1e9) };
    struct itimerspec every = { .it_interval = tick, .it_value = tick };
    return timer_settime(b->timer, 0, &every, NULL) == 0;
}

void luna_budget_end(void)
{
    if (luna_rt.budget.is_ticking)
        timer_delete(luna_rt.budget.timer);
    luna_rt.budget.is_ticking = false;
}

/* ---- memory ----------------------------------------------------------------------- */

static bool is_too_much(luna_budget *b, size_t more)
{
    size_t limit = b->limits.memory + (b->stopped == LUNA_BUDGET_MEMORY ? MEMORY_GRACE : 0);
    if (b->depth == 0 || more <= limit - (b->used < limit ? b->used : limit))
        return false;
    stop(b, LUNA_BUDGET_MEMORY);
    return true;
}

/* A lua_Alloc.  What was garbage before the call and is freed now earns the plug-in nothing. */
static void *allocate(void *data, void *block, size_t old, size_t n)
{
    luna_budget *b = data;
    if (n > old && is_too_much(b, n - old))
        return NULL;
    void *p = b->allocate(b->data, block, old, n);
    if (n > old)
        b->used += p != NULL ? n - old : 0;
    else
        b->used -= old - n < b->used ? old - n : b->used;
    return p;
}

/* ---- calls ------------------------------------------------------------------------ */

static void begin(luna_budget *b, lua_State *L, const luna_limits *limits)
{
    b->limits = *limits;
    b->used = 0;
    b->stack = __builtin_frame_address(0);
    b->where[0] = '\0';
    b->stopped = LUNA_BUDGET_KEPT;
    b->ticks = 0;
    b->hook = lua_gethook(L);
    b->hook_mask = lua_gethookmask(L);
    b->hook_count = lua_gethookcount(L);
    b->allocate = lua_getallocf(L, &b->data);
    lua_setallocf(L, allocate, b);
    atomic_signal_fence(memory_order_seq_cst);
    b->depth = 1;
}

static void end(luna_budget *b, lua_State *L)
{
    b->depth = 0;
    atomic_signal_fence(memory_order_seq_cst);
    lua_setallocf(L, b->allocate, b->data);
    unhook(b);
}

int luna_budget_call(lua_State *L, const luna_limits *limits, int nargs, int handler,
                     luna_budget_stop *stopped)
{
    luna_budget *b = &luna_rt.budget;
    bool is_outermost = b->depth == 0;
    if (is_outermost)
        begin(b, L, limits);
    else
        b->depth++;
    int rc = lua_pcall(L, nargs, LUA_MULTRET, handler);
    *stopped = (luna_budget_stop)b->stopped;
    if (is_outermost)
        end(b, L);
    else
        b->depth--;
    return rc;
}

int luna_budget_suspend(void)
{
    int depth = luna_rt.budget.depth;
    luna_rt.budget.depth = 0;
    return depth;
}

void luna_budget_go_on(int depth)
{
    luna_rt.budget.depth = depth;
}

void luna_budget_check_stack(lua_State *L)
{
    const luna_budget *b = &luna_rt.budget;
    const char *here = __builtin_frame_address(0);
    if (b->depth > 0 && (b->stack - here > MAX_STACK || here - b->stack > MAX_STACK))
        luaL_error(L, "C stack overflow");
}

uint64_t luna_budget_steps(void)
{
    const luna_budget *b = &luna_rt.budget;
    return b->depth > 0 ? (uint64_t)b->limits.ticks * STEPS_IN_TICK : STEPS_OUTSIDE;
}
