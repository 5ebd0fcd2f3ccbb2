/* request.h - what a task asks of a pool or a connection.  Layer: io.
 *
 * A waiter is anything that queues for a connection: a request (one exchange
 * with the server) or a lease (a connection of one's own for a while).  The
 * caller owns it and keeps it alive until its op is done. */
#ifndef LUNA_IO_REQUEST_H
#define LUNA_IO_REQUEST_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "many.h"
#include "reply.h"
#include "rows.h"
#include "term.h"
#include "text.h"
#include "timer.h"

typedef struct luna_conn luna_conn;
typedef struct luna_pool luna_pool;

typedef struct luna_waiter {
    luna_op op; /* op.link: in the pool's queue while it waits there */
    luna_timer timer;
    double deadline;    /* luna_loop_clock; 0 is none */
    double queued;      /* when it was handed in; set by the caller */
    luna_pool *pool;    /* while pending */
    luna_conn *conn;    /* the connection it has; NULL while it waits */
    luna_err err;       /* when op.status is not LUNA_OK */
    uint64_t *failures; /* counts failed waiters, while it is set */
    uint64_t
        generation;  /* of the map by which it was routed without a guard; 0: it relies on none */
    luna_term *term; /* while it is counted there */
    bool is_lease;
    unsigned lane; /* a luna_lane_kind: the lanes that it waits for */
} luna_waiter;

typedef enum luna_request_kind {
    LUNA_REQUEST_QUERY,      /* prepared statement with parameters, buffered result */
    LUNA_REQUEST_MANY,       /* the same with many sets of parameters, on a lease */
    LUNA_REQUEST_SIMPLE,     /* simple protocol: several statements, no parameters */
    LUNA_REQUEST_STREAM,     /* start a query whose rows are fetched piece by piece */
    LUNA_REQUEST_FETCH,      /* the next rows of a stream */
    LUNA_REQUEST_COPY_IN,    /* start COPY ... FROM STDIN */
    LUNA_REQUEST_COPY_WRITE, /* send `bytes` */
    LUNA_REQUEST_COPY_END,   /* end it; with `bytes` as the reason, abort it */
    LUNA_REQUEST_COPY_OUT,   /* start COPY ... TO STDOUT */
    LUNA_REQUEST_COPY_READ,  /* read whole rows of it into `received`, some 64 KiB of them */
    LUNA_REQUEST_NOTIFIED,   /* wait until a notification has come; asks the server nothing */
} luna_request_kind;

/* A statement with its parameters.  It owns nothing. */
typedef struct luna_call {
    luna_text *text;
    int n_params;
    const char *const *values; /* as those of a request */
    const int *lengths;
    const int *formats;
} luna_call;

/* An answer that comes after the end of the term. */
typedef enum luna_late_answer {
    LUNA_LATE_KEPT,    /* of a write: it has happened */
    LUNA_LATE_AGAIN,   /* of a read that may be run again */
    LUNA_LATE_UNKNOWN, /* of a read that may have had an effect: neither kept nor run again */
} luna_late_answer;

typedef struct luna_request {
    luna_waiter w;
    luna_request_kind kind;
    const char *sql; /* of QUERY: text->sql */
    luna_text *text; /* QUERY only */
    luna_call guard; /* QUERY in a pool: runs before it in the same transaction; when it fails, the
                        request has failed with its error and has done nothing.  text NULL: none */
    int n_params;
    const char *const *values; /* text or, where formats[i] is 1, binary; NULL is NULL */
    const int *lengths;
    const int *formats;
    luna_many *many;   /* MANY: the caller's */
    const char *bytes; /* COPY data */
    size_t n_bytes;
    size_t max_bytes;      /* of a buffered result */
    bool read_only;        /* losing it midway leaves no doubt about an outcome */
    luna_late_answer late; /* what becomes of the answer when the term has ended meanwhile */
    bool alone;            /* not on a shared connection */
    bool solo;             /* not in a batch */
    bool refused;          /* it was the guard that failed */
    bool resent;           /* a stale prepared statement was replaced once */
    bool expired;          /* the deadline passed; waiting for the server's last word */
    unsigned reruns;       /* for the sake of others on a shared connection */
    unsigned step;         /* where it is on its lane */
    double answered;       /* luna_loop_clock, when the answer was complete */
    PGresult *result;      /* the result, or the server's error; the caller clears it */
    luna_reply reply;      /* the same of a lane */
    luna_rows *rows;       /* STREAM, FETCH: where rows go; the caller's */
    luna_buf *received;    /* COPY_READ: the same */
    bool more;             /* STREAM, FETCH, COPY_READ: those were not the last */
} luna_request;

/* Forget what the request received, but for the storage of `reply`; its inputs belong to the
 * caller. */
void luna_request_clear(luna_request *request);

/* Free everything. */
void luna_request_deinit(luna_request *request);

/* A field of the server's error (PG_DIAG_...); NULL when there is none, or no such error. */
const char *luna_request_error_field(const luna_request *request, int field);

/* It waits to be sent: is the map another by now, or the term over?  Then end it, with LUNA_ESTALE.
 */
bool luna_waiter_is_late(const luna_waiter *waiter, double now);
void luna_waiter_end_late(luna_waiter *waiter);

/* It has its connection, and is about to be sent: is the term over that it relies on? */
bool luna_waiter_is_over(const luna_waiter *waiter, double now);

/* It does not rely on its term any more. */
void luna_waiter_uncount(luna_waiter *waiter);

/* Its answer is complete: when the term has ended meanwhile, it may be dropped. */
void luna_request_check_term(luna_request *request, double now);

/* End a pending waiter: fills `err` unless it is NULL or the waiter's own, posts the op. */
void luna_waiter_finish(luna_waiter *waiter, luna_status status, const luna_err *err);
#endif
