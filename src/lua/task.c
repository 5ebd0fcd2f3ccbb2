/* task.c - the only place where C resumes Lua.  Layer: lua.
 *
 * A task is one Lua coroutine owned by the scheduler.  A binding that must wait
 * starts an operation, parks the current task and yields the WAIT token; the
 * operation's completion resumes the task from here.  A user's own coroutine
 * inside the task is relayed outwards by coroutine.resume (lunashard.prelude).
 *
 * The task is a userdata: its environment table holds the coroutine and the function, and the
 * registry holds the userdata from spawn to end.  Afterwards the handle alone
 * keeps the results, which stay on the coroutine's stack for `join`.
 *
 * Invariants
 *   - a completion never runs inside the call that started the operation
 *   - a task waits for at most one operation, which it cancels when cancelled
 *   - a cancelled task that keeps on waiting is abandoned, never looped with */
/*** Tasks and their handles.
@classmod lunashard.core.task.handle */
#include "task.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "bind.h"
#include "interrupt.h"
#include "runtime.h"
#include "wait.h"

#define TASK_TYPE "lunashard.task"

/* How many waits a cancelled task may still attempt before it is abandoned. */
#define WAITS_AFTER_CANCEL 64

struct luna_task {
    luna_list link; /* in luna_rt.tasks while alive */
    lua_State *co;
    luna_op start;     /* queued once; runs the function */
    luna_op *op;       /* what it is parked on */
    luna_list held;    /* luna_held: released at the end */
    luna_list joiners; /* luna_wait.op.link of those in join */
    int ref, nargs;
    unsigned waits_after_cancel;
    luna_task_stop stop;
    bool cancelled, abandoned, watched, daemon;
    enum { TASK_STARTING, TASK_ALIVE, TASK_ENDED, TASK_FAILED, TASK_CANCELED } state;
};

/* The handle may be kept for long: what its function held must not. */
static void forget_function(const luna_task *t)
{
    lua_State *L = luna_rt.main;
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->ref);
    lua_getfenv(L, -1);
    lua_pushnil(L);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 2);
}

static void task_set_ended(luna_task *t, int state)
{
    t->state = state;
    forget_function(t);
    luna_list_del(&t->link);
    while (!luna_list_empty(&t->held)) {
        luna_held *held = LUNA_CONTAINER(t->held.next, luna_held, link);
        luna_list_del(&held->link);
        held->release(held);
    }
    LUNA_LIST_EACH (&t->joiners, it)
        luna_op_post(LUNA_CONTAINER(it, luna_op, link), LUNA_OK);
    if (t == luna_rt.awaited)
        ev_break(luna_rt.loop.ev, EVBREAK_ONE);
    if (t->stop.asked)
        luna_interrupt_end();
    luaL_unref(luna_rt.main, LUA_REGISTRYINDEX, t->ref);
}

static bool is_cancel_error(lua_State *L, int idx)
{
    if (!lua_istable(L, idx))
        return false;
    lua_getfield(L, idx, "code");
    const char *code = lua_tostring(L, -1);
    bool is = code != NULL && code[0] == 'C' && strcmp(code, "CANCELED") == 0;
    lua_pop(L, 1);
    return is;
}

/* Nobody is joining: say what happened now, or nobody ever learns of it. */
static void report_failure(luna_task *t)
{
    lua_State *L = luna_rt.main;
    int top = lua_gettop(L);
    lua_getglobal(L, "tostring");
    lua_pushvalue(t->co, -1);
    lua_xmove(t->co, L, 1);
    const char *msg = "(error object)";
    if (lua_pcall(L, 1, 1, 0) == 0 && lua_isstring(L, -1))
        msg = lua_tostring(L, -1);
    luaL_traceback(L, t->co, msg, 0);
    lua_pushfstring(L, "uncaught error in a task: %s", lua_tostring(L, -1));
    luna_runtime_say(lua_tostring(L, -1));
    lua_settop(L, top);
    luna_rt.failed_tasks++;
}

static bool is_ours(const lua_Debug *where)
{
    return strstr(where->source, "lua/lunashard/") != NULL;
}

/* Where the function on top of L was written; pops it.  Of one of our own that runs a function of
 * the caller's, as `gather` has them, where that was. */
static void find_function(lua_State *L, lua_Debug *where)
{
    lua_pushvalue(L, -1);
    lua_getinfo(L, ">S", where);
    for (int i = 1; is_ours(where) && lua_getupvalue(L, -1, i) != NULL; i++) {
        lua_Debug inner;
        if (lua_isfunction(L, -1) && !lua_iscfunction(L, -1)) {
            lua_pushvalue(L, -1);
            lua_getinfo(L, ">S", &inner);
            if (!is_ours(&inner))
                *where = inner;
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* The innermost place that is not in our own modules. */
static bool find_line(lua_State *L, lua_Debug *where)
{
    for (int level = 0; lua_getstack(L, level, where); level++)
        if (lua_getinfo(L, "Sl", where) && where->currentline > 0 && !is_ours(where))
            return true;
    return false;
}

/* Which task has just run, and up to where. */
static void describe(const luna_task *t, bool parked, char *text, size_t n)
{
    lua_State *L = luna_rt.main;
    lua_Debug of, at;
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->ref);
    lua_getfenv(L, -1);
    lua_rawgeti(L, -1, 2);
    find_function(L, &of);
    lua_pop(L, 2);
    char name[LUA_IDSIZE + 32] = "the main task"; /* whose function is no file's */
    if (of.source[0] == '@')
        snprintf(name, sizeof(name), "the task of %s:%d", of.short_src, of.linedefined);
    const char *end = parked ? ", up to a wait" : ", to its end";
    if (find_line(t->co, &at))
        snprintf(text, n, "%s%s at %s:%d", name, end, at.short_src, at.currentline);
    else
        snprintf(text, n, "%s%s", name, end);
}

/* Resume `t` with `nargs` values already on t->co.  The one lua_resume. */
static void task_resume(luna_task *t, int nargs)
{
    luna_task *prev = luna_rt.current;
    luna_rt.current = t;
    t->state = TASK_ALIVE;
    int rc = lua_resume(t->co, nargs);
    luna_rt.current = prev;
    if (luna_loop_is_longest(&luna_rt.loop))
        describe(t, rc == LUA_YIELD, luna_rt.loop.work.what, sizeof(luna_rt.loop.work.what));

    if (rc == LUA_YIELD && t->op != NULL)
        return; /* parked: the operation owns the wake-up */
    if (rc == LUA_YIELD) {
        lua_settop(t->co, 0);
        lua_pushliteral(t->co, "coroutine.yield called outside of a coroutine of one's own");
        rc = LUA_ERRRUN;
    }
    if (rc == 0) {
        task_set_ended(t, TASK_ENDED);
    } else if (t->cancelled && is_cancel_error(t->co, -1)) {
        task_set_ended(t, TASK_CANCELED);
    } else {
        if (luna_list_empty(&t->joiners) && !t->watched)
            report_failure(t);
        task_set_ended(t, TASK_FAILED);
    }
}

static void task_on_start(luna_op *op)
{
    luna_task *t = LUNA_CONTAINER(op, luna_task, start);
    if (t->cancelled) {
        lua_settop(t->co, 0);
        task_set_ended(t, TASK_CANCELED);
        return;
    }
    task_resume(t, t->nargs);
}

static void task_cancel_start(luna_op *op)
{
    (void)op; /* it is already queued; task_on_start looks at t->cancelled */
}

void luna_task_wake(luna_op *op)
{
    luna_task *t = op->user;
    if (t == NULL)
        return; /* see luna_task_forget_wait */
    lua_State *co = t->co;
    bool ok = op->status == LUNA_OK;
    t->op = NULL;
    if (t->abandoned) {
        lua_settop(co, 0);
        task_set_ended(t, TASK_CANCELED);
    } else if (t->cancelled) {
        lua_settop(co, 0);
        lua_pushlightuserdata(co, LUNA_TOKEN_CANCELED);
        task_resume(t, 1);
    } else {
        /* co's stack holds what park yielded: the WAIT token and the value */
        lua_remove(co, 1);
        lua_pushboolean(co, ok);
        task_resume(t, 2);
    }
}

void luna_task_check(lua_State *L, const char *what)
{
    if (luna_rt.current == NULL)
        luaL_error(L, "%s: may only be called inside a task", what);
    if (!lua_isyieldable(L))
        luaL_error(L, "%s: cannot wait inside table.sort, gsub, require and the like", what);
}

void luna_task_forget_wait(luna_task *t)
{
    luna_op *op = t->op;
    if (op == NULL)
        return;
    t->op = NULL;
    op->user = NULL;
    luna_op_cancel(op);
}

int luna_task_park(lua_State *L, luna_op *op)
{
    luna_task *t = luna_rt.current;
    op->user = t;
    t->op = op;
    if (t->daemon)
        luna_op_background(op);
    if (t->cancelled) {
        if (++t->waits_after_cancel > WAITS_AFTER_CANCEL)
            t->abandoned = true;
        luna_op_cancel(op);
    }
    lua_pushlightuserdata(L, LUNA_TOKEN_WAIT);
    lua_insert(L, -2);
    return lua_yield(L, 2);
}

void luna_task_hold(luna_held *held)
{
    luna_list_del(&held->link);
    if (luna_rt.current != NULL)
        luna_list_push(&luna_rt.current->held, &held->link);
}

luna_task *luna_task_spawn(lua_State *L, int nargs)
{
    luna_task *t = lua_newuserdata(L, sizeof(*t));
    *t = (luna_task){ .nargs = nargs };
    luna_list_init(&t->link);
    luna_list_init(&t->held);
    luna_list_init(&t->joiners);
    luaL_getmetatable(L, TASK_TYPE);
    lua_setmetatable(L, -2);

    lua_createtable(L, 2, 0);
    t->co = lua_newthread(L);
    lua_rawseti(L, -2, 1);
    lua_pushvalue(L, -nargs - 3); /* the function */
    lua_rawseti(L, -2, 2);
    lua_setfenv(L, -2);

    lua_insert(L, -nargs - 2); /* the handle goes below function and arguments */
    lua_xmove(L, t->co, nargs + 1);
    lua_pushvalue(L, -1);
    t->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    luna_list_push(&luna_rt.tasks, &t->link);
    luna_op_start(&t->start, &luna_rt.loop, task_on_start, task_cancel_start);
    luna_op_post(&t->start, LUNA_OK);
    return t;
}

void luna_task_cancel(luna_task *t)
{
    if (t->cancelled || luna_task_is_done(t))
        return;
    t->cancelled = true;
    if (t->op != NULL)
        luna_op_cancel(t->op);
}

luna_task_stop *luna_task_stop_of(luna_task *t)
{
    return &t->stop;
}

void luna_task_abandon(luna_task *t)
{
    luna_task_cancel(t);
    t->abandoned = true;
}

void luna_task_drop(luna_task *t)
{
    luna_op_abandon(&t->start);
    luna_task_forget_wait(t);
    luna_list_del(&t->link);
}

bool luna_task_is_daemon(const luna_task *t)
{
    return t->daemon;
}

bool luna_task_is_cancelled(void)
{
    return luna_rt.current != NULL && luna_rt.current->cancelled;
}

bool luna_task_is_done(const luna_task *t)
{
    return t->state >= TASK_ENDED;
}

/* ---- the handle ---------------------------------------------------------- */

static luna_task *check_task(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, TASK_TYPE);
}

/*** Start a task.
It runs from the next turn of the loop on. What stops the task that starts it while it computes
stops it too.
@function spawn
@tparam function fn
@param ... its arguments
@treturn lunashard.task handle with `join`, `cancel`, `status` */
int luna_task_spawn_binding(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luna_task *t = luna_task_spawn(L, lua_gettop(L) - 1);
    if (luna_rt.current != NULL) {
        const luna_task_stop *stop = &luna_rt.current->stop;
        t->stop = (luna_task_stop){ .allowed = stop->allowed, .number = stop->number };
    }
    return 1;
}

/*** Start a task that works in the background: it is not counted among those that are alive.
@function spawn_daemon
@tparam function fn
@param ... its arguments
@treturn lunashard.task as from `spawn` */
int luna_task_spawn_daemon(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luna_task *t = luna_task_spawn(L, lua_gettop(L) - 1);
    t->daemon = true;
    luna_op_background(&t->start);
    return 1;
}

/*** The handle of the running task.
@function current
@treturn ?lunashard.task nil outside of tasks */
int luna_task_current(lua_State *L)
{
    if (luna_rt.current == NULL)
        return 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, luna_rt.current->ref);
    return 1;
}

/*** Ask a task to end.
Its present wait and every later one raises an error with code `CANCELED`.
@function task:cancel */
static int task_cancel(lua_State *L)
{
    luna_task_cancel(check_task(L, 1));
    return 0;
}

/*** What a task is doing.
@function task:status
@treturn string `starting`, `running`, `waiting`, `ended`, `failed` or `canceled` */
static int task_status(lua_State *L)
{
    static const char *const names[] = { "starting", "running", "ended", "failed", "canceled" };
    const luna_task *t = check_task(L, 1);
    lua_pushstring(L, t->op != NULL ? "waiting" : names[t->state]);
    return 1;
}

/*** Promise to look at the task's outcome: its failure is then not printed.
@function task:watch
@treturn lunashard.task the task */
static int task_watch(lua_State *L)
{
    check_task(L, 1)->watched = true;
    lua_settop(L, 1);
    return 1;
}

/*** Wait until a task has ended. Yields; called through `lunashard.task`.
@function task:wait_end
@tparam[opt] number deadline on the clock of `lunashard.now` */
static int task_wait_end(lua_State *L)
{
    luna_task *t = check_task(L, 1);
    double deadline = luaL_optnumber(L, 2, 0);
    luna_task_check(L, "join");
    if (t == luna_rt.current)
        return luaL_error(L, "join: a task cannot join itself");
    lua_settop(L, 1);
    luna_op *op = luna_wait_start(deadline);
    if (luna_task_is_done(t))
        luna_op_post(op, LUNA_OK);
    else
        luna_list_push(&t->joiners, &op->link);
    return luna_task_park(L, op);
}

/*** The outcome of an ended task.
@function task:outcome
@treturn[1] boolean true
@return[1] what its function returned
@treturn[2] boolean false
@return[2] the error it raised; nil when it was cancelled and raised none
@treturn[3] nil when it has not ended */
static int task_outcome(lua_State *L)
{
    luna_task *t = check_task(L, 1);
    if (!luna_task_is_done(t))
        return 0;
    int n = lua_gettop(t->co);
    if (t->state != TASK_ENDED && n > 1)
        n = 1;
    lua_pushboolean(L, t->state == TASK_ENDED);
    luaL_checkstack(L, n, "too many results");
    int first = lua_gettop(t->co) - n + 1;
    for (int i = 0; i < n; i++) { /* one by one: its stack may be nearly full */
        lua_pushvalue(t->co, first + i);
        lua_xmove(t->co, L, 1);
    }
    return n + 1;
}

void luna_task_register(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "cancel", task_cancel },     { "status", task_status },   { "watch", task_watch },
        { "wait_end", task_wait_end }, { "outcome", task_outcome }, { NULL, NULL },
    };
    luna_bind_type(L, TASK_TYPE, methods, NULL);
}
