#include "reply.h"

#include <string.h>

/* Bytes kept for the next answer, at most: there may be many requests. */
#define KEPT ((size_t)4 << 10)

void luna_reply_clear(luna_reply *reply)
{
    luna_columns_unref(reply->columns);
    reply->columns = NULL;
    if (reply->bytes.cap > KEPT)
        luna_buf_deinit(&reply->bytes);
    luna_buf_clear(&reply->bytes);
    reply->n_rows = 0;
    reply->tag[0] = '\0';
    reply->kind = LUNA_REPLY_NONE;
}

void luna_reply_deinit(luna_reply *reply)
{
    luna_reply_clear(reply);
    luna_buf_deinit(&reply->bytes);
}

void luna_reply_complete(luna_reply *reply, const luna_message *message)
{
    size_t n = message->len < sizeof(reply->tag) ? message->len : sizeof(reply->tag) - 1;
    memcpy(reply->tag, message->body, n);
    reply->tag[n] = '\0';
    reply->kind = LUNA_REPLY_ROWS;
}

void luna_reply_fail(luna_reply *reply, const luna_message *message)
{
    luna_reply_clear(reply);
    luna_buf_add(&reply->bytes, message->body, message->len);
    reply->kind = LUNA_REPLY_ERROR;
}
