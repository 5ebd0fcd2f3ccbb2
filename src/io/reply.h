/* reply.h - what the server has answered to a statement on a lane.  Layer: io.
 *
 * The messages themselves, as they came, so that the one pass over a row is that which makes Lua
 * values of it.  Zero-initialised is none; its storage is used again by the next. */
#ifndef LUNA_IO_REPLY_H
#define LUNA_IO_REPLY_H

#include "columns.h"
#include "message.h"

typedef struct luna_reply {
    enum { LUNA_REPLY_NONE, LUNA_REPLY_ROWS, LUNA_REPLY_ERROR } kind;
    luna_columns *columns; /* NULL while they are not known, and of a command that has none */
    luna_buf bytes;        /* the bodies of its DataRows, checked, or of its ErrorResponse */
    size_t n_rows;
    char tag[64]; /* of the command; the server makes none that is longer */
} luna_reply;

void luna_reply_deinit(luna_reply *reply);

/* There is none. */
void luna_reply_clear(luna_reply *reply);

/* Add a row, whose body was checked. */
static inline void luna_reply_add_row(luna_reply *reply, const luna_message *message)
{
    luna_buf_add(&reply->bytes, message->body, message->len);
    reply->n_rows++;
}

/* It has become this. */
void luna_reply_complete(luna_reply *reply, const luna_message *message);
void luna_reply_fail(luna_reply *reply, const luna_message *message);
#endif
