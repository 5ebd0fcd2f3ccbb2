/* mod_signal.c - "lunashard.core.signal": signals for scripts.  Layer: lua. */
/*** Signals that a script wants to know of, as `lunashard.serve` uses them.
@module lunashard.core.signal */
#include "signals.h"

#include <errno.h>
#include <unistd.h>

#include "bind.h"
#include "interrupt.h"
#include "runtime.h"

bool luna_signal_take(int signo)
{
    luna_signals *signals = &luna_rt.signals;
    if (signo < 1 || signo >= LUNA_SIGNALS || signals->wanted[signo] == LUNA_SIGNAL_NOT)
        return false;
    signals->caught[signo] = 1;
    if (signo == SIGINT)
        luna_interrupt_compute(0);
    if (signals->wanted[signo] == LUNA_SIGNAL_ONCE) {
        signals->wanted[signo] = LUNA_SIGNAL_NOT;
        alarm((unsigned)signals->alarm);
    }
    ev_async_send(luna_rt.loop.ev, &signals->async);
    return true;
}

/* Of those that src/app does not catch already. */
static void on_signal(int signo, siginfo_t *info, void *context)
{
    int error = errno;
    (void)context;
    if (luna_signal_take(signo) && signo == SIGUSR1 && info->si_code == SI_QUEUE)
        luna_interrupt_compute(info->si_value.sival_int); /* an attached prompt's Ctrl-C */
    errno = error;
}

static void set_handler(int signo, const struct sigaction *sa)
{
    struct sigaction before;
    sigaction(signo, NULL, &before);
    bool is_own = (before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction == on_signal;
    if (is_own || before.sa_handler == SIG_DFL)
        sigaction(signo, sa, NULL);
}

static void on_async(struct ev_loop *ev, ev_async *w, int revents)
{
    (void)ev;
    (void)w;
    (void)revents;
    luna_timer_stop(&luna_rt.loop, &luna_rt.signals.timer);
    luna_op_post(&luna_rt.signals.wait, LUNA_OK);
}

static void on_timer(luna_timer *timer)
{
    (void)timer;
    luna_op_post(&luna_rt.signals.wait, LUNA_ETIMEOUT);
}

static void wait_cancel(luna_op *op)
{
    luna_timer_stop(&luna_rt.loop, &luna_rt.signals.timer);
    luna_op_post(op, LUNA_ECANCELED);
}

/*** Hear of a signal from now on, instead of what it does otherwise.
@function catch
@tparam number signal
@tparam[opt] number alarm hear of it once; so many seconds later, and when it comes again, it ends
  the program as it does otherwise */
static int signal_catch(lua_State *L)
{
    luna_signals *signals = &luna_rt.signals;
    int signo = luaL_checkint(L, 1), seconds = luaL_optint(L, 2, 0);
    luaL_argcheck(L, signo >= 1 && signo < LUNA_SIGNALS, 1, "not a signal");
    luaL_argcheck(L, seconds >= 0, 2, "must not be negative");
    if (!signals->is_open) {
        ev_async_init(&signals->async, on_async);
        ev_async_start(luna_rt.loop.ev, &signals->async);
        signals->is_open = true;
    }
    if (seconds > 0)
        signals->alarm = seconds;
    set_handler(signo, &(struct sigaction){ .sa_sigaction = on_signal,
                                            .sa_flags = SA_SIGINFO | SA_RESTART });
    signals->wanted[signo] = seconds > 0 ? LUNA_SIGNAL_ONCE : LUNA_SIGNAL_EACH;
    return 0;
}

/*** Hear of it no longer.
@function release
@tparam number signal */
static int signal_release(lua_State *L)
{
    int signo = luaL_checkint(L, 1);
    luaL_argcheck(L, signo >= 1 && signo < LUNA_SIGNALS, 1, "not a signal");
    luna_rt.signals.wanted[signo] = LUNA_SIGNAL_NOT;
    set_handler(signo, &(struct sigaction){ .sa_handler = SIG_DFL });
    return 0;
}

static int find_caught(void)
{
    for (int signo = 1; signo < LUNA_SIGNALS; signo++)
        if (luna_rt.signals.caught[signo])
            return signo;
    return 0;
}

/*** The next signal that came. Does not wait.
@function take
@treturn ?number nil when there is none */
static int signal_take(lua_State *L)
{
    int signo = find_caught();
    if (signo == 0)
        return 0;
    luna_rt.signals.caught[signo] = 0;
    lua_pushinteger(L, signo);
    return 1;
}

/*** Wait until a signal has come. Yields; called through `lunashard.task`. One task at a time.
@function wait
@tparam[opt] number deadline on the clock of `lunashard.now`
@treturn boolean true
@treturn boolean false when the deadline came first */
static int signal_wait(lua_State *L)
{
    luna_signals *signals = &luna_rt.signals;
    double deadline = luaL_optnumber(L, 1, 0);
    if (signals->wait.state != LUNA_OP_IDLE)
        return luaL_error(L, "wait: another task waits for signals");
    luna_task_check(L, "wait");
    lua_settop(L, 0);
    lua_pushboolean(L, 1);
    luna_op_start(&signals->wait, &luna_rt.loop, luna_task_wake, wait_cancel);
    if (find_caught() != 0)
        luna_op_post(&signals->wait, LUNA_OK);
    else
        luna_timer_start(&luna_rt.loop, &signals->timer, deadline, on_timer);
    return luna_task_park(L, &signals->wait);
}

int luaopen_lunashard_core_signal(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "catch", signal_catch },
        { "release", signal_release },
        { "take", signal_take },
        { "wait", signal_wait },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
