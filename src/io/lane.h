/* lane.h - a connection that statements of many tasks share.  Layer: io.
 *
 * Statements are sent without waiting for the answers of those before.  They go in
 * groups, each ended by a Sync: a write is a group of its own, so that an error or
 * an abort is its own too; the reads of one loop turn form one group, a batch, for
 * then the server makes one system call for all of them.  We make one for all groups
 * of a turn.
 *
 * A guard goes before its statement, in the same group: what it has found and locked
 * holds until the group's end.
 *
 * A group counts when its Sync is answered.  When one of a batch fails, the
 * server has rolled all of it back and skipped the rest: the others are handed
 * back to the owner (`again`), which runs them again without the culprit.
 *
 * The session of a lane has a short lock_timeout: a statement that waits for a
 * row lock holds up those behind it, one of which the holder of the lock may be
 * waiting for.  One that fails so is run again on a connection of its own.  The
 * session of a batch lane is read-only too, the second line behind the look at
 * the statement's functions.
 *
 * libpq opens the connection and stands by: while it is a lane the protocol is
 * spoken here (channel.h).  libpq would describe the columns of every answer, make
 * an object of each, and a system call for every Sync. */
#ifndef LUNA_IO_LANE_H
#define LUNA_IO_LANE_H

#include "request.h"
#include "statements.h"

typedef enum luna_lane_kind {
    LUNA_LANE_NONE,   /* the connection is not shared */
    LUNA_LANE_READS,  /* batches */
    LUNA_LANE_WRITES, /* a Sync for each */
} luna_lane_kind;

/* One thing sent to the server whose answer is to come. */
typedef struct luna_step {
    luna_request *request;     /* of RUN; NULL when nobody waits for it any more */
    luna_statement *statement; /* of PREPARE, GUARD and RUN */
    enum {
        LUNA_STEP_SETUP,
        LUNA_STEP_DEALLOCATE,
        LUNA_STEP_PREPARE,
        LUNA_STEP_GUARD, /* of the next RUN */
        LUNA_STEP_RUN,
        LUNA_STEP_SYNC
    } kind;
    enum { LUNA_STEP_SENT, LUNA_STEP_DONE, LUNA_STEP_FAILED, LUNA_STEP_SKIPPED } state;
} luna_step;

typedef struct luna_lane {
    luna_lane_kind kind;
    luna_step *steps; /* a ring; the numbers below only grow */
    unsigned size, first, next,
        end;                /* first: of the oldest group; next: to be answered; end: to be sent */
    unsigned depth, groups; /* statements and groups under way */
    double began;           /* when the oldest group began to run, about */
    double service;         /* seconds a statement, a moving average */
    size_t received;        /* bytes since the last answer, roughly */
    luna_buf last_words;    /* the ErrorResponse with which the server ended the session */
    bool closing;           /* drains, and is then no lane any more */
    bool cancelled;         /* we have asked the server to cancel what it runs */
    unsigned cancelled_group; /* its first step */
    luna_timer slow;          /* of reads: those behind a slow group go elsewhere */
    const luna_call *guard;   /* the last one of the group that is being put together */
} luna_lane;

/* A step by its number, from `first` to before `end`. */
static inline luna_step *luna_lane_step(const luna_lane *lane, unsigned i)
{
    return &lane->steps[i & (lane->size - 1)];
}

/* Make a lane of an idle connection. */
void luna_lane_open(luna_conn *conn, luna_lane_kind kind, double now);

/* Does it take statements?  Not while it closes, and not behind a slow one. */
bool luna_lane_is_open(const luna_conn *conn, double now);

/* Add a QUERY request to the present group; luna_lane_sync ends the group, luna_conn_flush sends
 * what there is.  A guard that is the same as the one before it is not sent again: both hold to
 * the end of the group. */
void luna_lane_add(luna_conn *conn, luna_request *request, double now);
void luna_lane_sync(luna_conn *conn);

/* Does the server work on this request, or its group, now?  Otherwise others are before it. */
bool luna_lane_runs(const luna_lane *lane, const luna_request *request);

/* Does the group that runs take longer than it may?  Not counting what we were too busy to hear. */
bool luna_lane_is_slow(const luna_conn *conn, double now);

/* Hand a request back to the owner: the server did nothing of it, or undid it, for another's sake.
 */
void luna_lane_run_again(luna_conn *conn, luna_request *request);

/* lane_answer.c: the socket is readable. */
void luna_lane_read(luna_conn *conn);

/* `what` the connection was lost at, and what the server said last. */
void luna_lane_why_lost(const luna_conn *conn, const char *what, luna_err *err);
void luna_lane_set_sqlstate(luna_err *err, const luna_buf *error);

/* Has the request failed in a way that has to do with the lane, and says nothing of the statement?
 * It is to be run again then.  `runs`: the statements in its group. */
bool luna_lane_is_to_blame(const luna_conn *conn, luna_request *request, unsigned runs);

/* Ask the server to cancel the group that runs; the lane drains. */
void luna_lane_cancel(luna_conn *conn);

/* As luna_conn_expire. */
void luna_lane_expire(luna_conn *conn, luna_request *request, luna_status status);

/* The cancel request has returned. */
void luna_lane_cancel_done(luna_conn *conn);

/* It is no lane any more: nothing is under way on it.  false: something is half received, and
 * libpq could not go on with it. */
LUNA_MUSTCHECK bool luna_lane_leave(luna_conn *conn);

/* The request's storage goes away. */
void luna_lane_abandon(luna_lane *lane, const luna_request *request);

/* The connection was closed: end or hand back all that was under way, and free the lane. */
void luna_lane_fail(luna_conn *conn, const luna_err *why);
#endif
