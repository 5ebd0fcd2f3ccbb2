/* loop.h - the event loop and its queue of finished operations.  Layer: io.
 *
 * One loop for the process, on libev's default loop (child watchers live only
 * there).  Completions never run inside the call that started or finished the
 * operation: they are queued here and run once per loop turn, in order.  What
 * is better done for all of them together waits for the end of the turn.
 *
 * An operation (luna_op) is embedded in whatever it belongs to.  It completes
 * exactly once; cancelling it asks for that completion, with LUNA_ECANCELED
 * unless the real result came first.  The storage must stay valid until
 * `done` is called and may be freed by it. */
#ifndef LUNA_IO_LOOP_H
#define LUNA_IO_LOOP_H

#include <ev.h>
#include <stdbool.h>

#include "err.h"
#include "list.h"

/* A turn that takes longer holds everything up, and is reported. */
#define LUNA_STALL 0.1

typedef struct luna_loop {
    struct ev_loop *ev;
    luna_list ready; /* finished operations whose `done` is still to run */
    luna_list turns; /* luna_turn: to be run when those have */
    unsigned live;   /* operations started and not yet done, those in the background apart */
    double now;      /* monotonic seconds when this turn began, as libev's timers have it */
    double busy;     /* seconds that the turn before it took: nothing was heard meanwhile */
    struct {
        double began; /* this turn, as far as it counts */
        double mark;  /* when the last piece of work ended, by the coarse clock */
        double longest;
        char what[256]; /* the piece that took longest, in words */
        bool told;      /* by whoever did it */
    } work;
    /* the owner's, or NULL: called at the end of a turn that took longer than LUNA_STALL */
    void (*stalled)(struct luna_loop *loop, double seconds);
    ev_prepare prepare;
    ev_check check;
    ev_idle idle; /* active while something above is left: the poll must not sleep */
} luna_loop;

/* A call at the end of the loop's turn, before it waits for events again. */
typedef struct luna_turn {
    luna_list link; /* in loop->turns while asked for */
    void (*run)(struct luna_turn *turn);
} luna_turn;

typedef struct luna_op luna_op;
struct luna_op {
    luna_list link; /* in loop->ready, or free for the owner's queue while pending */
    luna_loop *loop;
    void (*done)(luna_op *op);   /* exactly once; op->status is set */
    void (*cancel)(luna_op *op); /* while pending: must lead to luna_op_post */
    void *user;
    luna_status status;
    enum { LUNA_OP_IDLE, LUNA_OP_PENDING, LUNA_OP_READY } state;
    bool background; /* not one of loop->live */
};

void luna_loop_init(luna_loop *loop);
/* Runs what is ready first. */
void luna_loop_deinit(luna_loop *loop);

/* Ask for `turn` to be run once, at the end of this turn.  Any number of times; luna_list_del
 * on the link takes it back. */
void luna_loop_at_turn_end(luna_loop *loop, luna_turn *turn);

/* A piece of work has ended: is it the longest of this turn?  The caller then puts into work.what
 * what it was.  Next to free: it looks at a clock that only moves every few milliseconds. */
bool luna_loop_is_longest(luna_loop *loop);

/* Monotonic seconds, read afresh. */
double luna_loop_clock(void);

/* Mark `op` pending.  `done` and `user` may be replaced until it completes. */
void luna_op_start(luna_op *op, luna_loop *loop, void (*done)(luna_op *),
                   void (*cancel)(luna_op *));

/* Nobody waits for the end of this pending op: it is not counted as live. */
void luna_op_background(luna_op *op);

/* Finish a pending op; `done` runs in this or the next loop turn, never from inside this call.
 * Does nothing when the op is not pending.  The op leaves whatever queue `link` was in. */
void luna_op_post(luna_op *op, luna_status status);

/* Forget an op whose storage goes away: `done` is not called any more.  For
 * finalizers; whoever still works on it must have been told before. */
void luna_op_abandon(luna_op *op);

/* Ask a pending op to end soon.  Does nothing when it is not pending. */
void luna_op_cancel(luna_op *op);
#endif
