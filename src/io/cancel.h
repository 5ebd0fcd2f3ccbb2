/* cancel.h - server-side cancellation without blocking the loop.  Layer: io.
 *
 * libpq 15 offers only the blocking PQcancel, so helper threads make the calls
 * and report back through ev_async.  PQcancel waits without limit for a server
 * that accepts and never answers; the requests here do not, and a few of them
 * to one such server never hold up those to another. */
#ifndef LUNA_IO_CANCEL_H
#define LUNA_IO_CANCEL_H

#include <libpq-fe.h>

#include "loop.h"

typedef struct luna_canceler luna_canceler;

/* One cancel request; embedded by the caller, alive until `op` is done.  It
 * cannot be cancelled itself: a helper thread may be inside libpq.
 *
 * LUNA_OK: the server has passed it on.  LUNA_EDOWN: it could not be sent, or
 * the server did not take it within LUNA_CANCEL_TIMEOUT; it may then still
 * arrive and hit whatever the backend runs by that time, so that the
 * connection must not be used again. */
typedef struct luna_cancel {
    luna_op op;
    luna_err err;
    void *impl;
} luna_cancel;

#define LUNA_CANCEL_TIMEOUT 5. /* seconds, the wait for a thread included */

/* Threads are started when first needed.  NULL when memory is gone. */
luna_canceler *luna_canceler_new(luna_loop *loop);
/* Waits a second at most for the outstanding requests to be sent.  All complete
 * by way of the loop, the unfinished ones with LUNA_ECANCELED.  NULL is allowed. */
void luna_canceler_free(luna_canceler *canceler);

/* Ask the server behind `conn` to cancel what it runs.  Takes a PGcancel copy
 * at once, so `conn` may be closed right after.  The loop stays alive until
 * the request is done. */
void luna_cancel_start(luna_canceler *canceler, luna_cancel *cancel, PGconn *conn,
                       void (*done)(luna_op *op));
#endif
