#include "loop.h"

#include <stddef.h>
#include <stdio.h>
#include <time.h>

/* Seconds that the work of one turn may take before sockets and timers are looked at again. */
#define SLICE (LUNA_STALL / 4)

static double coarse_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

bool luna_loop_is_longest(luna_loop *loop)
{
    double now = coarse_clock(), took = now - loop->work.mark;
    loop->work.mark = now;
    loop->work.told = true;
    if (took <= loop->work.longest)
        return false;
    loop->work.longest = took;
    return true;
}

/* The same for work that has no more to say of itself. */
static void account(luna_loop *loop, const char *what)
{
    if (!loop->work.told && luna_loop_is_longest(loop))
        snprintf(loop->work.what, sizeof(loop->work.what), "%s", what);
    loop->work.told = false;
}

static void begin_work(luna_loop *loop, double now)
{
    loop->work.began = now;
    loop->work.mark = coarse_clock();
    loop->work.longest = 0;
    loop->work.told = false;
}

/* Run what is ready now, for SLICE at most; what gets ready meanwhile, or is left, waits for
 * the next turn, so that sockets and timers are never starved by tasks that wake one another. */
static void run_ready(luna_loop *loop)
{
    double end = loop->work.mark + SLICE;
    luna_list last;
    luna_list_push(&loop->ready, &last);
    while (loop->ready.next != &last && loop->work.mark < end) {
        luna_op *op = LUNA_CONTAINER(loop->ready.next, luna_op, link);
        luna_list_del(&op->link);
        op->state = LUNA_OP_IDLE;
        loop->live -= !op->background;
        op->done(op);
        account(loop, "ending an operation");
    }
    luna_list_del(&last);
}

static void on_prepare(struct ev_loop *ev, ev_prepare *w, int revents)
{
    (void)revents;
    luna_loop *loop = w->data;
    luna_list batch;
    if (loop->work.began == 0)
        begin_work(loop, luna_loop_clock());
    account(loop, "reading from sockets, or timers");
    run_ready(loop);
    luna_list_take(&batch, &loop->turns);
    while (!luna_list_empty(&batch)) {
        luna_turn *turn = LUNA_CONTAINER(batch.next, luna_turn, link);
        luna_list_del(&turn->link);
        turn->run(turn);
    }
    account(loop, "handing out work to connections");
    if (luna_list_empty(&loop->ready) && luna_list_empty(&loop->turns))
        ev_idle_stop(ev, &loop->idle);
    else
        ev_idle_start(ev, &loop->idle);
    double now = luna_loop_clock(), took = now - loop->work.began;
    loop->busy = now - loop->now;
    if (took > LUNA_STALL && loop->stalled != NULL)
        loop->stalled(loop, took);
}

static void on_check(struct ev_loop *ev, ev_check *w, int revents)
{
    (void)ev;
    (void)revents;
    luna_loop *loop = w->data;
    loop->now = luna_loop_clock();
    begin_work(loop, loop->now);
}

static void on_idle(struct ev_loop *ev, ev_idle *w, int revents)
{
    (void)ev;
    (void)w;
    (void)revents;
}

void luna_loop_init(luna_loop *loop)
{
    *loop = (luna_loop){ .ev = ev_default_loop(EVFLAG_AUTO), .now = luna_loop_clock() };
    luna_list_init(&loop->ready);
    luna_list_init(&loop->turns);
    ev_prepare_init(&loop->prepare, on_prepare);
    loop->prepare.data = loop;
    ev_prepare_start(loop->ev, &loop->prepare);
    ev_unref(loop->ev);
    ev_check_init(&loop->check, on_check);
    loop->check.data = loop;
    ev_set_priority(&loop->check, EV_MAXPRI); /* before what goes by the clock */
    ev_check_start(loop->ev, &loop->check);
    ev_unref(loop->ev);
    ev_idle_init(&loop->idle, on_idle);
}

void luna_loop_deinit(luna_loop *loop)
{
    loop->stalled = NULL;
    while (!luna_list_empty(&loop->ready))
        on_prepare(loop->ev, &loop->prepare, 0);
    ev_idle_stop(loop->ev, &loop->idle);
    ev_ref(loop->ev);
    ev_prepare_stop(loop->ev, &loop->prepare);
    ev_ref(loop->ev);
    ev_check_stop(loop->ev, &loop->check);
    ev_loop_destroy(loop->ev);
    loop->ev = NULL;
}

void luna_loop_at_turn_end(luna_loop *loop, luna_turn *turn)
{
    luna_list_del(&turn->link);
    luna_list_push(&loop->turns, &turn->link);
}

double luna_loop_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

void luna_op_start(luna_op *op, luna_loop *loop, void (*done)(luna_op *), void (*cancel)(luna_op *))
{
    luna_list_init(&op->link);
    op->loop = loop;
    op->done = done;
    op->cancel = cancel;
    op->status = LUNA_OK;
    op->state = LUNA_OP_PENDING;
    op->background = false;
    loop->live++;
}

void luna_op_background(luna_op *op)
{
    if (op->state == LUNA_OP_IDLE || op->background)
        return;
    op->background = true;
    op->loop->live--;
}

void luna_op_post(luna_op *op, luna_status status)
{
    if (op->state != LUNA_OP_PENDING)
        return;
    luna_loop *loop = op->loop;
    op->status = status;
    op->state = LUNA_OP_READY;
    luna_list_del(&op->link);
    luna_list_push(&loop->ready, &op->link);
    ev_idle_start(loop->ev, &loop->idle);
}

void luna_op_abandon(luna_op *op)
{
    if (op->state == LUNA_OP_IDLE)
        return;
    luna_list_del(&op->link);
    op->state = LUNA_OP_IDLE;
    op->loop->live -= !op->background;
}

void luna_op_cancel(luna_op *op)
{
    if (op->state == LUNA_OP_PENDING)
        op->cancel(op);
}
