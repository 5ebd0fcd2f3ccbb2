#include "request.h"

void luna_request_clear(luna_request *request)
{
    PQclear(request->result);
    request->result = NULL;
    luna_reply_clear(&request->reply);
}

void luna_request_deinit(luna_request *request)
{
    luna_request_clear(request);
    luna_reply_deinit(&request->reply);
}

const char *luna_request_error_field(const luna_request *request, int field)
{
    const luna_reply *reply = &request->reply;
    if (request->result != NULL)
        return PQresultErrorField(request->result, field);
    if (reply->kind != LUNA_REPLY_ERROR)
        return NULL;
    return luna_message_field(reply->bytes.data, reply->bytes.len, field);
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
