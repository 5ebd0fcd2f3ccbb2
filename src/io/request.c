#include "request.h"

void luna_request_clear(luna_request *request)
{
    PQclear(request->result);
    request->result = NULL;
    luna_reply_clear(&request->reply);
    request->refused = false;
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

bool luna_waiter_is_late(const luna_waiter *waiter, double now)
{
    return waiter->term != NULL && !luna_term_allows(waiter->term, waiter->generation, now);
}

bool luna_waiter_is_over(const luna_waiter *waiter, double now)
{
    return waiter->term != NULL && !luna_term_holds(waiter->term, waiter->generation, now);
}

void luna_waiter_end_late(luna_waiter *waiter)
{
    luna_err err;
    luna_err_set(&err, LUNA_ESTALE, "not sent, for the shard map may have changed meanwhile");
    luna_waiter_finish(waiter, LUNA_ESTALE, &err);
}

void luna_request_check_term(luna_request *request, double now)
{
    luna_waiter *waiter = &request->w;
    if (waiter->term == NULL || request->late == LUNA_LATE_KEPT || waiter->err.code != LUNA_OK ||
        luna_term_holds(waiter->term, waiter->generation, now))
        return;
    luna_request_clear(request);
    if (request->late == LUNA_LATE_AGAIN)
        luna_err_set(&waiter->err, LUNA_ESTALE,
                     "the answer came too late: the shard map may have changed meanwhile");
    else
        luna_err_set(
            &waiter->err, LUNA_EUNKNOWN,
            "the answer came too late to be true: the shard map may have changed meanwhile; "
            "what the statement's functions did has happened");
}

void luna_waiter_uncount(luna_waiter *waiter)
{
    if (waiter->term != NULL)
        waiter->term->running--;
    waiter->term = NULL;
}

void luna_waiter_finish(luna_waiter *waiter, luna_status status, const luna_err *err)
{
    luna_timer_stop(waiter->op.loop, &waiter->timer);
    luna_waiter_uncount(waiter);
    if (err != NULL && err != &waiter->err)
        waiter->err = *err;
    waiter->err.code = status;
    if (status != LUNA_OK && waiter->failures != NULL)
        ++*waiter->failures;
    luna_op_post(&waiter->op, status);
}
