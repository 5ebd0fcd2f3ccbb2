/* pool.h - the connections to one endpoint.  Layer: io.
 *
 * Work queues first come, first served; connections are reused last in, first
 * out, so that those not needed grow old and are closed.  Statements that may do
 * so share connections (lane.h).  A pool never waits for another one.  What it
 * says of itself is in luna_pool_stats. */
#ifndef LUNA_IO_POOL_H
#define LUNA_IO_POOL_H

#include "conn.h"

typedef struct luna_pool_config {
    luna_conn_config conn; /* the pool owns keywords, values, host and endpoint */
    unsigned max_size, min_size, max_waiters;
    double idle_timeout, max_lifetime; /* seconds; 0 is for ever */
    bool pipeline, read_batches;       /* share connections; and Syncs, of reads */
} luna_pool_config;

/* Waits of up to 2^-13, 2^-11, ... 2^5 seconds, and longer ones. */
enum { LUNA_POOL_WAITS = 11, LUNA_POOL_WAITS_FIRST = -13, LUNA_POOL_WAITS_STEP = 2 };

typedef struct luna_pool_stats {
    unsigned size, used, idle, connecting, waiting, max_size, min_size;
    unsigned lanes;      /* connections that are shared */
    unsigned cancelling; /* connections whose server was asked to cancel, and has not answered */
    uint64_t queries, errors, connects, connect_failures;
    uint64_t shared, batched, batches; /* statements on lanes, in batches; those */
    uint64_t reruns;                   /* for the sake of others on a shared connection */
    uint64_t refused;                  /* for max_waiters */
    uint64_t cancels;                  /* asked of the server */
    double wait_time;                  /* seconds that work has waited for connections, in all */
    uint64_t waits[LUNA_POOL_WAITS];   /* how often it did, by how long */
    char last_error[256];
} luna_pool_stats;

/* A connection of one's own.  Embedded by the caller; valid from acquire to release. */
typedef struct luna_lease {
    luna_waiter w; /* w.conn: NULL before, after, and when the connection was lost */
    luna_err lost; /* why */
} luna_lease;

/* What has a generation relies on this term from now on; see term.h. */
void luna_pool_rely(luna_pool *pool, luna_term *term);

/* Takes what `cfg` points to.  Never NULL.  Opens min_size connections. */
luna_pool *luna_pool_new(const luna_pool_config *cfg);

/* End everything: what waits or runs completes with LUNA_ECLOSED, leases lose
 * their connection. */
void luna_pool_free(luna_pool *pool);

/* Run a request on any connection.  w.op must have been started (luna_op_start), w.queued
 * set; it completes through the loop; on failure w.err says why. */
void luna_pool_submit(luna_pool *pool, luna_request *request);

/* Wait for a connection; the same op rules.  On LUNA_OK lease->w.conn is set. */
void luna_pool_acquire(luna_pool *pool, luna_lease *lease);

/* Run a request on a lease; the same op rules. */
void luna_lease_submit(luna_lease *lease, luna_request *request);

/* Give it back; an open transaction is rolled back and session state reset.
 * Does nothing when there is no connection. */
void luna_lease_release(luna_lease *lease);

/* Close the connection instead. */
void luna_lease_discard(luna_lease *lease, const char *why);

/* The cancel of w.op for requests and leases. */
void luna_waiter_cancel(luna_op *op);

/* The storage of a waiter goes away: take it out of queue or connection, without completion. */
void luna_waiter_abandon(luna_waiter *waiter);

void luna_pool_get_stats(const luna_pool *pool, luna_pool_stats *stats);

/* Statements and leases that run or wait: how much there is to do. */
unsigned luna_pool_load(const luna_pool *pool);

/* pool_settings.c: other limits, times and parameters from now on, of the same host and endpoint.
 * Takes what `cfg` points to.  Nothing that runs is disturbed: connections beyond max_size are
 * closed when they come free, those made with other parameters are replaced little by little. */
void luna_pool_reconfigure(luna_pool *pool, const luna_pool_config *cfg);

/* What waits for a connection fails with LUNA_EDOWN and this message; what runs goes on. */
void luna_pool_refuse_waiting(luna_pool *pool, const char *why);

/* No new work will come: close connections as soon as they are free.  What still comes is done. */
void luna_pool_drain(luna_pool *pool);
#endif
