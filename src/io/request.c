#include "request.h"

void luna_request_deinit(luna_request *request)
{
    PQclear(request->result);
    request->result = NULL;
}

void luna_waiter_finish(luna_waiter *waiter, luna_status status, const luna_err *err)
{
    luna_timer_stop(waiter->op.loop, &waiter->timer);
    if (err != NULL && err != &waiter->err)
        waiter->err = *err;
    waiter->err.code = status;
    if (status != LUNA_OK && waiter->failures != NULL)
        ++*waiter->failures;
    luna_op_post(&waiter->op, status);
}
