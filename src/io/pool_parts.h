/* pool_parts.h - what pool.c and dispatch.c share of a pool.  Layer: io.
 *
 * pool.c takes work in and hears what connections report; dispatch.c decides, once
 * a loop turn, which connection takes what. */
#ifndef LUNA_IO_POOL_PARTS_H
#define LUNA_IO_POOL_PARTS_H

#include "pool.h"

struct luna_pool {
    luna_pool_config cfg;
    luna_loop *loop;
    luna_term *term;                  /* or NULL */
    luna_list connecting, idle, busy; /* of luna_conn.link; idle: least recently used first */
    unsigned n_connecting, n_idle, n_busy;
    luna_list waiters;                         /* of luna_op.link: for connections of their own */
    luna_list shareable[LUNA_LANE_WRITES + 1]; /* of luna_op.link: for lanes, by kind */
    unsigned n_waiters;                        /* in all of these */
    unsigned n_own;                            /* in `waiters` */
    unsigned n_lanes;                          /* connections that are lanes, idle ones included */
    bool wants_lane;                           /* the lanes there are have more than enough to do */
    luna_turn turn;
    luna_timer maintenance, retry, patience;
    double retry_at, backoff; /* not before, after a failed connect */
    double failed_at;
    double trial_at, trusted_at; /* when a connection was begun, and when one was opened */
    bool in_doubt;               /* the server has failed a connection, and opened none since */
    uint64_t random;
    bool closing;
    luna_pool_stats stats;
};

static inline unsigned luna_pool_size(const luna_pool *pool)
{
    return pool->n_connecting + pool->n_idle + pool->n_busy;
}

/* The one place where connections change lists; NULL: it is gone. */
void luna_pool_move(luna_pool *pool, luna_conn *conn, luna_list *to);

/* Close a connection for a reason of ours. */
void luna_pool_retire(luna_conn *conn, const char *why);

/* Open what the queues need, as far as size and back-off allow. */
void luna_pool_grow(luna_pool *pool);

/* Reset the session; a lane is none any more. */
void luna_pool_reset(luna_pool *pool, luna_conn *conn);

/* Look for connections that are too old, from time to time, as the settings are now. */
void luna_pool_schedule_maintenance(luna_pool *pool);

/* From 0 to below 1. */
double luna_pool_random(luna_pool *pool);

/* Bring work and connections together at the end of this loop turn. */
void luna_pool_serve_soon(luna_pool *pool);
void luna_pool_serve(luna_turn *turn);
void luna_pool_on_patience(luna_timer *timer);
#endif
