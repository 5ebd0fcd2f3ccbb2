/* signals.h - signals that a script wants to know of.  Layer: lua.
 *
 * What is not wanted goes the way that src/app has for it: everything is cancelled. */
#ifndef LUNA_LUA_SIGNALS_H
#define LUNA_LUA_SIGNALS_H

#include <signal.h>

#include "loop.h"
#include "timer.h"

#define LUNA_SIGNALS 32

typedef struct luna_signals {
    /* What the handler looks at. */
    volatile sig_atomic_t wanted[LUNA_SIGNALS]; /* LUNA_SIGNAL_... */
    volatile sig_atomic_t caught[LUNA_SIGNALS];
    volatile sig_atomic_t alarm; /* seconds, see luna_signal_take */
    ev_async async;
    bool is_open;
    luna_op wait;
    luna_timer timer;
} luna_signals;

enum { LUNA_SIGNAL_NOT, LUNA_SIGNAL_EACH, LUNA_SIGNAL_ONCE };

/* Does a script want it?  Then it hears of it, and that is all.  To be called by the handler.  One
 * that is wanted once may be an order to end, which a loop that stands still would not hear: an
 * alarm follows it. */
LUNA_MUSTCHECK bool luna_signal_take(int signo);
#endif
