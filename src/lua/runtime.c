#include "runtime.h"

#include <lauxlib.h>
#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#include "bind.h"

luna_runtime luna_rt;

static const luaL_Reg bindings[] = {
    { "lunashard.core.task", luaopen_lunashard_core_task },
    { "lunashard.core.pool", luaopen_lunashard_core_pool },
    { "lunashard.core.rows", luaopen_lunashard_core_rows },
    { "lunashard.core.placement", luaopen_lunashard_core_placement },
    { "lunashard.core.decimal", luaopen_lunashard_core_decimal },
    { "lunashard.core.copy", luaopen_lunashard_core_copy },
    { "lunashard.core.process", luaopen_lunashard_core_process },
    { "lunashard.core.sql", luaopen_lunashard_core_sql },
    { "lunashard.core.health", luaopen_lunashard_core_health },
    { "lunashard.core.probe", luaopen_lunashard_core_probe },
    { "lunashard.core.system", luaopen_lunashard_core_system },
    { "lunashard.core.budget", luaopen_lunashard_core_budget },
    { "lunashard.core.pattern", luaopen_lunashard_core_pattern },
    { "lunashard.core.watch", luaopen_lunashard_core_watch },
    { "lunashard.core.http", luaopen_lunashard_core_http },
    { "lunashard.core.signal", luaopen_lunashard_core_signal },
    { "lunashard.core.text", luaopen_lunashard_core_text },
    { "lunashard.core.descriptor", luaopen_lunashard_core_descriptor },
    { "lunashard.core.terminal", luaopen_lunashard_core_terminal },
    { "lunashard.core.history", luaopen_lunashard_core_history },
    { "lunashard.core.interrupt", luaopen_lunashard_core_interrupt },
    { NULL, NULL },
};

static void preload_bindings(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    for (const luaL_Reg *b = bindings; b->name != NULL; b++) {
        lua_pushcfunction(L, b->func);
        lua_setfield(L, -2, b->name);
    }
    lua_pop(L, 2);
}

/* KiB of garbage that may pile up before the collector starts anew, however little is alive: not so
 * little that a small program marks everything again and again, not more than caches hold. */
#define GARBAGE 2048

/* The __gc of a userdata that nobody holds runs once in each cycle of the collector. */
static int on_gc_cycle(lua_State *L)
{
    int alive = lua_gc(L, LUA_GCCOUNT, 0) + 1, pause = 100 + 100 * (GARBAGE / alive);
    lua_gc(L, LUA_GCSETPAUSE, pause < 200 ? 200 : pause > 1000 ? 1000 : pause);
    int depth = luna_budget_suspend(); /* were there no memory for the next, it would be the last */
    lua_newuserdata(L, 0);
    lua_getmetatable(L, 1);
    lua_setmetatable(L, -2);
    luna_budget_go_on(depth);
    return 0;
}

static void tune_collector(lua_State *L)
{
    lua_newuserdata(L, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, on_gc_cycle);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}

int luna_runtime_open(void)
{
    luna_loop_init(&luna_rt.loop);
    luna_rt.loop.stalled = luna_stall_note;
    luna_list_init(&luna_rt.tasks);
    luna_rt.utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    luna_rt.exit_code = -1;
    luna_rt.err_meta_ref = luna_rt.say_ref = LUA_NOREF;
    lua_State *L = luna_rt.main = luaL_newstate();
    if (L == NULL)
        abort();
    luna_memory_open(&luna_rt.memory, L);
    luaL_openlibs(L);
    if (getenv("LUNASHARD_GCSTRESS") != NULL) { /* collect all the time: finds missing anchors */
        lua_gc(L, LUA_GCSETPAUSE, 0);
        luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF); /* traces starve under it */
    } else {
        tune_collector(L);
    }
    preload_bindings(L);

    lua_getglobal(L, "require");
    lua_pushliteral(L, "lunashard.prelude");
    if (lua_pcall(L, 1, 0, 0) != 0 || luaL_dostring(L, "return require('ffi').typeof('int64_t')")) {
        fprintf(stderr, "lunashard: cannot start: %s\n", lua_tostring(L, -1));
        return 1;
    }
    luna_rt.int64_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

void luna_runtime_say(const char *line)
{
    lua_State *L = luna_rt.main;
    int top = lua_gettop(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, luna_rt.say_ref);
    lua_pushstring(L, line);
    if (luna_rt.say_ref == LUA_NOREF || lua_pcall(L, 1, 0, 0) != 0)
        fprintf(stderr, "lunashard: %s\n", line);
    lua_settop(L, top);
}

static luna_task *task_of(luna_list *link)
{
    return (luna_task *)(void *)link; /* the link is a task's first member */
}

void luna_runtime_cancel_tasks(void)
{
    for (luna_list *it = luna_rt.tasks.prev; it != &luna_rt.tasks; it = it->prev)
        luna_task_cancel(task_of(it));
}

void luna_runtime_run(const luna_task *task)
{
    luna_rt.awaited = task;
    while (!luna_task_is_done(task))
        ev_run(luna_rt.loop.ev, EVRUN_ONCE);
}

static void on_look(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)ev;
    (void)w;
    (void)revents;
}

void luna_runtime_close(double grace)
{
    ev_timer timer;
    double end = luna_loop_clock() + grace;
    ev_timer_init(&timer, on_look, 0.01, 0.01); /* look every 10 ms whether all has ended */
    ev_now_update(luna_rt.loop.ev);
    ev_timer_start(luna_rt.loop.ev, &timer);
    luna_runtime_cancel_tasks();
    while (!luna_list_empty(&luna_rt.tasks) && luna_loop_clock() < end)
        ev_run(luna_rt.loop.ev, EVRUN_ONCE);
    ev_timer_stop(luna_rt.loop.ev, &timer);
    LUNA_LIST_EACH (&luna_rt.tasks, it)
        luna_task_drop(task_of(it));

    luna_terminal_restore(&luna_rt.terminal);
    luna_budget_end();
    lua_close(luna_rt.main);
    luna_memory_close(&luna_rt.memory);
    if (luna_rt.canceler != NULL)
        luna_canceler_free(luna_rt.canceler);
    if (luna_rt.resolver != NULL)
        luna_resolver_free(luna_rt.resolver);
    luna_loop_deinit(&luna_rt.loop);
    if (luna_rt.utf8 != (locale_t)0)
        freelocale(luna_rt.utf8);
}
