/* cancel.h - server-side cancellation without blocking the loop.  Layer: io.
 *
 * libpq 15 offers only the blocking PQcancel, so a few helper threads make the
 * calls and report back through ev_async. */
#ifndef LUNA_IO_CANCEL_H
#define LUNA_IO_CANCEL_H

#include <libpq-fe.h>

#include "loop.h"

typedef struct luna_canceler luna_canceler;

/* One cancel request; embedded by the caller, alive until `op` is done.  It
 * cannot be cancelled itself: a helper thread may be inside libpq. */
typedef struct luna_cancel {
    luna_op op; /* LUNA_OK: the server took the request; LUNA_EDOWN: it could not be sent */
    PGcancel *handle;
    luna_err err;
    luna_list queue;
} luna_cancel;

/* Threads are started when first needed, at most 4.  NULL when memory is gone. */
luna_canceler *luna_canceler_new(luna_loop *loop);
/* Waits for the requests that are inside libpq (each is bounded by libpq's own
 * connect time); queued ones are dropped and completed with LUNA_ECANCELED. */
void luna_canceler_free(luna_canceler *canceler);

/* Ask the server behind `conn` to cancel what it runs.  Takes a PGcancel copy
 * at once, so `conn` may be closed right after. */
void luna_cancel_start(luna_canceler *canceler, luna_cancel *cancel, PGconn *conn,
                       void (*done)(luna_op *op));
#endif
