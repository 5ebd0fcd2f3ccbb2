#include "wait.h"

#include <stdlib.h>

#include "runtime.h"
#include "timer.h"

typedef struct luna_wait {
    luna_op op;
    luna_timer timer;
} luna_wait;

static void wait_on_timer(luna_timer *timer)
{
    luna_wait *wait = LUNA_CONTAINER(timer, luna_wait, timer);
    luna_op_post(&wait->op, LUNA_ETIMEOUT);
}

static void wait_cancel(luna_op *op)
{
    luna_op_post(op, LUNA_ECANCELED);
}

static void wait_done(luna_op *op)
{
    luna_wait *wait = LUNA_CONTAINER(op, luna_wait, op);
    luna_timer_stop(&luna_rt.loop, &wait->timer);
    luna_op copy = *op; /* the task may run for long, or end: free before it */
    free(wait);
    luna_task_wake(&copy);
}

luna_op *luna_wait_start(double deadline)
{
    luna_wait *wait = calloc(1, sizeof(*wait));
    if (wait == NULL)
        abort();
    luna_op_start(&wait->op, &luna_rt.loop, wait_done, wait_cancel);
    luna_timer_start(&luna_rt.loop, &wait->timer, deadline, wait_on_timer);
    return &wait->op;
}
