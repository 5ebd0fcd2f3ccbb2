/* timer.h - a timer with an absolute deadline on the monotonic clock.  Layer: io.
 *
 * libev counts from the time when its loop turn began.  So does this one, but
 * it looks at the clock before it fires: never early. */
#ifndef LUNA_IO_TIMER_H
#define LUNA_IO_TIMER_H

#include "loop.h"

typedef struct luna_timer {
    ev_timer ev;
    double deadline;
    void (*expired)(struct luna_timer *timer);
} luna_timer;

/* Start or move a zero-initialised or stopped timer; deadline 0 is never.
 * `expired` is called once and may free the timer's owner. */
void luna_timer_start(luna_loop *loop, luna_timer *timer, double deadline,
                      void (*expired)(luna_timer *timer));
void luna_timer_stop(luna_loop *loop, luna_timer *timer);
#endif
