/* main.c - the program: one runtime, one main task, signals.  Layer: app. */
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

/* Seconds that what a script left running has for its end, and after which a
 * signal ends a script that computes in compiled code, where no hook runs. */
#define SHUTDOWN_GRACE 3.0
#define SIGNAL_GRACE 4

static volatile sig_atomic_t caught_signal;
static ev_async on_signal_async;

static void on_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    luna_runtime_cancel_tasks();
    luaL_error(L, "interrupted");
}

/* What a script wants to hear of is its own business.  First signal: cancel everything; a task that
 * computes is stopped by a hook, or at last by the alarm.  Second signal: the user means it. */
static void on_signal(int signo)
{
    if (luna_signal_take(signo))
        return;
    if (caught_signal != 0) {
        luna_terminal_restore(&luna_rt.terminal);
        _exit(128 + (signo == SIGALRM ? caught_signal : signo));
    }
    caught_signal = signo;
    alarm(SIGNAL_GRACE);
    lua_sethook(luna_rt.main, on_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
    ev_async_send(luna_rt.loop.ev, &on_signal_async);
}

static void on_signal_in_loop(struct ev_loop *ev, ev_async *w, int revents)
{
    (void)ev;
    (void)w;
    (void)revents;
    lua_sethook(luna_rt.main, NULL, 0, 0);
    luna_runtime_cancel_tasks();
}

/* The shell is to find its terminal as it left it, whatever becomes of us. */
static void on_crash(int signo)
{
    luna_terminal_restore(&luna_rt.terminal);
    raise(signo); /* as SA_RESETHAND has it: the end, with a core where there is to be one */
}

static void on_exit_restore(void)
{
    luna_terminal_restore(&luna_rt.terminal);
}

static void catch_crashes(void)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGQUIT };
    struct sigaction sa = { .sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND }, before;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], NULL, &before);
        if (before.sa_handler == SIG_DFL) /* a sanitizer has its own */
            sigaction(signals[i], &sa, NULL);
    }
    atexit(on_exit_restore);
}

static void catch_signals(void)
{
    struct sigaction sa = { .sa_handler = on_signal };
    ev_async_init(&on_signal_async, on_signal_in_loop);
    ev_async_start(luna_rt.loop.ev, &on_signal_async);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    sigaction(SIGALRM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* `return require("lunashard.cli").main(...)`, as the main task. */
static luna_task *start_main_task(lua_State *L, int argc, char **argv)
{
    if (luaL_loadstring(L, "return require('lunashard.cli').main({...})") != 0)
        return NULL;
    for (int i = 1; i < argc; i++)
        lua_pushstring(L, argv[i]);
    return luna_task_spawn(L, argc - 1);
}

/* Whatever has ended the program, nobody is to wait for leases of its routers; half a second at the
 * most. */
static void give_up_leases(lua_State *L)
{
    static const char chunk[] = "local leases = package.loaded['lunashard.catalog.lease'] "
                                "if leases then pcall(leases.stop_all) end";
    luna_task *task = luaL_loadstring(L, chunk) == 0 ? luna_task_spawn(L, 0) : NULL;
    if (task != NULL)
        luna_runtime_run(task);
}

static int exit_code_of(lua_State *L, int handle)
{
    lua_getfield(L, handle, "outcome");
    lua_pushvalue(L, handle);
    if (lua_pcall(L, 1, 2, 0) != 0 || !lua_toboolean(L, -2) || !lua_isnumber(L, -1))
        return EXIT_FAILURE;
    return (int)lua_tointeger(L, -1);
}

/* A connection that got the number of a closed stdout would be sent our data.  What takes its place
 * refuses to be used, so that using it is an error as before. */
static void keep_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            _exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
    keep_standard_files();
    if (luna_runtime_open() != 0)
        return EXIT_FAILURE;
    catch_crashes();
    catch_signals();
    lua_State *L = luna_rt.main;
    luna_task *task = start_main_task(L, argc, argv);
    if (task == NULL) {
        fprintf(stderr, "lunashard: %s\n", lua_tostring(L, -1));
        return EXIT_FAILURE;
    }
    luna_runtime_run(task);
    int code = exit_code_of(L, lua_gettop(L));
    if (luna_rt.exit_code >= 0)
        code = luna_rt.exit_code;
    give_up_leases(L);
    luna_runtime_close(SHUTDOWN_GRACE);
    if (caught_signal != 0)
        code = 128 + caught_signal;
    return code;
}
