#include "timer.h"

static void on_timer(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)revents;
    luna_timer *timer = LUNA_CONTAINER(w, luna_timer, ev);
    double left = timer->deadline - luna_loop_clock();
    if (left > 1e-4) { /* what libev took for the time was not quite ours */
        ev_timer_set(w, left, 0.);
        ev_timer_start(ev, w);
        return;
    }
    timer->expired(timer);
}

void luna_timer_start(luna_loop *loop, luna_timer *timer, double deadline,
                      void (*expired)(luna_timer *timer))
{
    luna_timer_stop(loop, timer);
    if (deadline <= 0)
        return;
    timer->deadline = deadline;
    timer->expired = expired;
    double left = deadline - loop->now; /* libev adds it to the same moment */
    ev_timer_init(&timer->ev, on_timer, left > 0 ? left : 0., 0.);
    ev_timer_start(loop->ev, &timer->ev);
}

void luna_timer_stop(luna_loop *loop, luna_timer *timer)
{
    ev_timer_stop(loop->ev, &timer->ev);
}
