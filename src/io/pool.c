#include "pool.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Seconds between attempts to connect to a server that fails: doubled from the
 * first to the second, each with jitter, so that clients do not come in step. */
#define BACKOFF_MIN 0.05
#define BACKOFF_MAX 1.0

/* An idle connection untouched for this long is looked at before it is used. */
#define STALE_CHECK_AFTER 0.02

struct luna_pool {
    luna_pool_config cfg;
    luna_loop *loop;
    luna_list connecting, idle, busy; /* of luna_conn.link; idle: least recently used first */
    luna_list waiters;                /* of luna_op.link */
    unsigned n_connecting, n_idle, n_busy, n_waiters;
    luna_timer maintenance, retry;
    double retry_at, backoff; /* not before, after a failed connect */
    uint64_t random;
    bool closing, dispatching;
    luna_pool_stats stats;
};

static const luna_conn_owner pool_as_owner;

/* splitmix64, Steele et al. 2014: good enough to spread timers */
static double pool_random(luna_pool *pool)
{
    uint64_t z = (pool->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static unsigned pool_size(const luna_pool *pool)
{
    return pool->n_connecting + pool->n_idle + pool->n_busy;
}

/* The one place where connections change lists. */
static void conn_move(luna_pool *pool, luna_conn *conn, luna_list *to)
{
    luna_list *lists[] = { &pool->connecting, &pool->idle, &pool->busy };
    unsigned *counts[] = { &pool->n_connecting, &pool->n_idle, &pool->n_busy };
    luna_list *from = conn->owner_list;
    luna_list_del(&conn->link);
    for (int i = 0; i < 3; i++) {
        if (from == lists[i])
            (*counts[i])--;
        if (to == lists[i])
            (*counts[i])++;
    }
    conn->owner_list = to;
    if (to != NULL)
        luna_list_push(to, &conn->link);
}

static void conn_retire(luna_conn *conn, const char *why)
{
    luna_err err;
    luna_err_set(&err, LUNA_ECLOSED, "%s", why);
    luna_conn_close(conn, &err);
}

/* ---- waiters ----------------------------------------------------------------- */

static void waiter_dequeue(luna_pool *pool, luna_waiter *waiter)
{
    luna_list_del(&waiter->op.link);
    pool->n_waiters--;
}

static void waiter_fail(luna_pool *pool, luna_waiter *waiter, const luna_err *err)
{
    waiter_dequeue(pool, waiter);
    luna_waiter_finish(waiter, err->code, err);
}

static void pool_fail_waiters(luna_pool *pool, const luna_err *err)
{
    LUNA_LIST_EACH (&pool->waiters, it)
        waiter_fail(pool, LUNA_CONTAINER(it, luna_waiter, op.link), err);
}

static void waiter_expire(luna_waiter *waiter)
{
    luna_pool *pool = waiter->pool;
    double waited = luna_loop_clock() - waiter->queued;
    if (waiter->conn != NULL) { /* a request that runs */
        luna_err_set(&waiter->err, LUNA_ETIMEOUT, "no answer within %.3gs", waited);
        luna_conn_expire(waiter->conn, LUNA_CONTAINER(waiter, luna_request, w), LUNA_ETIMEOUT);
        return;
    }
    luna_err err;
    if (pool->n_busy + pool->n_idle > 0)
        luna_err_set(
            &err, LUNA_EPOOL,
            "all %u connections of the pool are in use (%u waiting) and none came free within "
            "%.3gs",
            pool_size(pool), pool->n_waiters, waited);
    else if (pool->stats.last_error[0] != '\0')
        luna_err_set(&err, LUNA_EDOWN, "no connection within %.3gs; last error: %s", waited,
                     pool->stats.last_error);
    else
        luna_err_set(&err, LUNA_ETIMEOUT, "no connection within %.3gs", waited);
    waiter_fail(pool, waiter, &err);
}

static void on_waiter_timer(luna_timer *timer)
{
    waiter_expire(LUNA_CONTAINER(timer, luna_waiter, timer));
}

void luna_waiter_cancel(luna_op *op)
{
    luna_waiter *waiter = LUNA_CONTAINER(op, luna_waiter, op);
    luna_err_set(&waiter->err, LUNA_ECANCELED, "cancelled");
    if (waiter->conn != NULL)
        luna_conn_expire(waiter->conn, LUNA_CONTAINER(waiter, luna_request, w), LUNA_ECANCELED);
    else if (waiter->pool != NULL && !luna_list_empty(&op->link))
        waiter_fail(waiter->pool, waiter, &waiter->err);
}

void luna_waiter_abandon(luna_waiter *waiter)
{
    if (waiter->op.state == LUNA_OP_PENDING && waiter->pool != NULL) {
        luna_timer_stop(waiter->op.loop, &waiter->timer);
        if (waiter->conn == NULL)
            waiter->pool->n_waiters--;
        else if (waiter->conn->next == LUNA_CONTAINER(waiter, luna_request, w))
            waiter->conn->next = NULL;
        else
            waiter->conn->request = NULL;
    }
    luna_op_abandon(&waiter->op);
}

static void waiter_start(luna_pool *pool, luna_waiter *waiter)
{
    waiter->pool = pool;
    waiter->conn = NULL;
    waiter->failures = &pool->stats.errors;
    waiter->err = (luna_err){ 0 };
    luna_timer_start(pool->loop, &waiter->timer, waiter->deadline, on_waiter_timer);
}

static void waiter_refuse(luna_waiter *waiter, luna_status code, const char *why)
{
    luna_err err;
    luna_err_set(&err, code, "%s", why);
    luna_waiter_finish(waiter, code, &err);
}

/* ---- dispatch ------------------------------------------------------------------ */

static void pool_open_conn(luna_pool *pool)
{
    luna_conn *conn = luna_conn_open(&pool->cfg.conn, &pool_as_owner, pool);
    conn_move(pool, conn, &pool->connecting);
}

static void on_retry(luna_timer *timer);

/* Open what the queue needs, as far as size and back-off allow. */
static void pool_grow(luna_pool *pool)
{
    if (pool->closing)
        return;
    unsigned wanted = pool->n_waiters;
    unsigned held = pool->n_idle + pool->n_busy;
    if (held + wanted < pool->cfg.min_size)
        wanted = pool->cfg.min_size - held;
    if (wanted <= pool->n_connecting || pool_size(pool) >= pool->cfg.max_size)
        return;
    if (pool->retry_at > 0 && luna_loop_clock() < pool->retry_at) {
        if (pool->n_connecting == 0)
            luna_timer_start(pool->loop, &pool->retry, pool->retry_at, on_retry);
        return;
    }
    while (pool->n_connecting < wanted && pool_size(pool) < pool->cfg.max_size) {
        pool_open_conn(pool);
        if (pool->backoff > 0)
            break; /* a server that has just failed is tried with one */
    }
}

static void on_retry(luna_timer *timer)
{
    pool_grow(LUNA_CONTAINER(timer, luna_pool, retry));
}

/* The connection used last, if any is good. */
static luna_conn *pool_take_idle(luna_pool *pool)
{
    while (!luna_list_empty(&pool->idle)) {
        luna_conn *conn = LUNA_CONTAINER(pool->idle.prev, luna_conn, link);
        if (ev_now(pool->loop->ev) - conn->idle_since < STALE_CHECK_AFTER ||
            !luna_conn_is_stale(conn))
            return conn;
        conn_retire(conn, "the server closed an idle connection");
    }
    return NULL;
}

static void pool_give(luna_pool *pool, luna_conn *conn, luna_waiter *waiter)
{
    pool->stats.wait_time += luna_loop_clock() - waiter->queued;
    conn_move(pool, conn, &pool->busy);
    if (waiter->is_lease) {
        conn->lease = waiter;
        waiter->conn = conn;
        luna_waiter_finish(waiter, LUNA_OK, NULL);
        return;
    }
    luna_request *request = LUNA_CONTAINER(waiter, luna_request, w);
    pool->stats.queries++;
    if (!luna_conn_send(conn, request)) {
        if (waiter->op.state == LUNA_OP_PENDING) { /* nothing was sent: it is first in line again */
            luna_list_unshift(&pool->waiters, &waiter->op.link);
            pool->n_waiters++;
        }
        conn_retire(conn, "connection lost while sending");
    }
}

/* A connection that turns out to be lost here reports back to the pool, which
 * dispatches: that is left to the loop under way. */
static void pool_dispatch(luna_pool *pool)
{
    if (pool->dispatching)
        return;
    pool->dispatching = true;
    luna_conn *conn;
    while (!luna_list_empty(&pool->waiters) && (conn = pool_take_idle(pool)) != NULL) {
        luna_waiter *waiter = LUNA_CONTAINER(pool->waiters.next, luna_waiter, op.link);
        waiter_dequeue(pool, waiter);
        pool_give(pool, conn, waiter);
    }
    pool->dispatching = false;
    pool_grow(pool);
}

static void pool_enqueue(luna_pool *pool, luna_waiter *waiter)
{
    waiter_start(pool, waiter);
    if (pool->closing) {
        waiter_refuse(waiter, LUNA_ECLOSED, "the pool is closed");
        return;
    }
    if (waiter->deadline > 0 && waiter->deadline <= waiter->queued) {
        waiter_refuse(waiter, LUNA_ETIMEOUT, "the deadline had passed before the start");
        return;
    }
    unsigned room = pool->cfg.max_size - pool->n_idle - pool->n_busy; /* may still be opened */
    if (pool->n_waiters >= pool->cfg.max_waiters + room && luna_list_empty(&pool->idle)) {
        luna_err err;
        luna_err_set(&err, LUNA_EPOOL, "%u are waiting for a connection already (max_waiters)",
                     pool->n_waiters);
        luna_waiter_finish(waiter, LUNA_EPOOL, &err);
        return;
    }
    luna_list_push(&pool->waiters, &waiter->op.link);
    pool->n_waiters++;
    pool_dispatch(pool);
}

void luna_pool_submit(luna_pool *pool, luna_request *request)
{
    request->w.queued = luna_loop_clock();
    pool_enqueue(pool, &request->w);
}

void luna_pool_acquire(luna_pool *pool, luna_lease *lease)
{
    lease->w.is_lease = true;
    lease->w.queued = luna_loop_clock();
    lease->lost = (luna_err){ 0 };
    pool_enqueue(pool, &lease->w);
}

void luna_lease_submit(luna_lease *lease, luna_request *request)
{
    luna_conn *conn = lease->w.conn;
    luna_pool *pool = lease->w.pool;
    request->w.queued = luna_loop_clock();
    request->w.pool = pool;
    if (conn == NULL) {
        if (lease->lost.code != LUNA_OK)
            luna_waiter_finish(&request->w, lease->lost.code, &lease->lost);
        else
            waiter_refuse(&request->w, LUNA_ECLOSED, "the connection was given back");
        return;
    }
    const char *obstacle = luna_conn_obstacle(conn, request);
    if (obstacle != NULL) {
        waiter_refuse(&request->w, LUNA_EINVAL, obstacle);
        return;
    }
    waiter_start(pool, &request->w);
    if (request->w.deadline > 0 && request->w.deadline <= request->w.queued) {
        waiter_refuse(&request->w, LUNA_ETIMEOUT, "the deadline had passed before the start");
        return;
    }
    pool->stats.queries++;
    if (!luna_conn_send(conn, request)) {
        luna_err err;
        luna_err_set(&err, LUNA_EDOWN, "connection lost before the statement was sent");
        if (request->w.op.state == LUNA_OP_PENDING)
            luna_waiter_finish(&request->w, err.code, &err);
        luna_conn_close(conn, &err);
    }
}

static luna_conn *lease_end(luna_lease *lease)
{
    luna_conn *conn = lease->w.conn;
    if (conn == NULL)
        return NULL;
    lease->w.conn = NULL;
    conn->lease = NULL;
    conn->state_changed = true; /* functions may have changed the session unseen */
    return conn;
}

static void pool_on_idle(luna_conn *conn);

void luna_lease_release(luna_lease *lease)
{
    luna_conn *conn = lease_end(lease);
    if (conn == NULL)
        return;
    if (conn->state == LUNA_CONN_IDLE && conn->cancel == NULL)
        pool_on_idle(conn);
    else if (conn->state == LUNA_CONN_STREAMING)
        luna_conn_abandon(conn);
    else if (conn->state == LUNA_CONN_COPYING || conn->request != NULL)
        conn_retire(conn, "given back in the middle of an exchange");
    /* otherwise it drains, and is idle later */
}

void luna_lease_discard(luna_lease *lease, const char *why)
{
    luna_conn *conn = lease_end(lease);
    if (conn != NULL)
        conn_retire(conn, why);
}

/* ---- what connections report ------------------------------------------------------ */

static bool is_expired(const luna_conn *conn, double now)
{
    return conn->expires_at > 0 && now >= conn->expires_at;
}

static void pool_on_idle(luna_conn *conn)
{
    luna_pool *pool = conn->owner_data;
    if (conn->lease != NULL)
        return;
    if (conn->state_changed || conn->plans_changed ||
        PQtransactionStatus(conn->pg) != PQTRANS_IDLE) {
        luna_conn_reset(conn);
        return;
    }
    conn->idle_since = ev_now(pool->loop->ev);
    conn_move(pool, conn, &pool->idle);
    if (is_expired(conn, luna_loop_clock()))
        conn_retire(conn, "max_lifetime");
    else
        pool_dispatch(pool);
}

static void pool_on_opened(luna_conn *conn)
{
    luna_pool *pool = conn->owner_data;
    pool->stats.connects++;
    pool->backoff = pool->retry_at = 0;
    pool->stats.last_error[0] = '\0';
    luna_timer_stop(pool->loop, &pool->retry);
    if (pool->cfg.max_lifetime > 0)
        conn->expires_at =
            conn->opened_at + pool->cfg.max_lifetime * (0.9 + 0.2 * pool_random(pool));
    pool_on_idle(conn);
}

static void pool_on_closed(luna_conn *conn, const luna_err *why)
{
    luna_pool *pool = conn->owner_data;
    bool never_opened = conn->owner_list == &pool->connecting;
    conn_move(pool, conn, NULL);
    if (conn->lease != NULL) {
        luna_lease *lease = LUNA_CONTAINER(conn->lease, luna_lease, w);
        lease->w.conn = NULL;
        lease->lost = *why;
    }
    if (pool->closing)
        return;
    if (why->code == LUNA_EDOWN || why->code == LUNA_EAUTH) /* not what our side closed it for */
        snprintf(pool->stats.last_error, sizeof(pool->stats.last_error), "%.255s", why->msg);
    if (never_opened) {
        pool->stats.connect_failures++;
        pool->backoff = pool->backoff > 0 ? fmin(pool->backoff * 2, BACKOFF_MAX) : BACKOFF_MIN;
        pool->retry_at = luna_loop_clock() + pool->backoff * (0.5 + pool_random(pool));
        if (pool->n_idle + pool->n_busy == 0 && pool->n_connecting == 0)
            pool_fail_waiters(pool, why);
    }
    pool_dispatch(pool);
}

static const luna_conn_owner pool_as_owner = {
    .opened = pool_on_opened,
    .idle = pool_on_idle,
    .closed = pool_on_closed,
};

/* ---- upkeep, life and death ---------------------------------------------------------- */

static void on_maintenance(luna_timer *timer);

static void schedule_maintenance(luna_pool *pool)
{
    double every = 30;
    if (pool->cfg.idle_timeout > 0)
        every = fmin(every, pool->cfg.idle_timeout / 4);
    if (pool->cfg.max_lifetime > 0)
        every = fmin(every, pool->cfg.max_lifetime / 4);
    luna_timer_start(pool->loop, &pool->maintenance, luna_loop_clock() + fmax(every, 0.05),
                     on_maintenance);
}

static void on_maintenance(luna_timer *timer)
{
    luna_pool *pool = LUNA_CONTAINER(timer, luna_pool, maintenance);
    double now = luna_loop_clock(), cached = ev_now(pool->loop->ev);
    LUNA_LIST_EACH (&pool->idle, it) {
        luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        if (is_expired(conn, now))
            conn_retire(conn, "max_lifetime");
        else if (pool->cfg.idle_timeout > 0 && pool_size(pool) > pool->cfg.min_size &&
                 cached - conn->idle_since >= pool->cfg.idle_timeout)
            conn_retire(conn, "idle_timeout");
    }
    pool_grow(pool);
    schedule_maintenance(pool);
}

luna_pool *luna_pool_new(const luna_pool_config *cfg)
{
    luna_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        abort();
    pool->cfg = *cfg;
    pool->loop = cfg->conn.loop;
    luna_list_init(&pool->connecting);
    luna_list_init(&pool->idle);
    luna_list_init(&pool->busy);
    luna_list_init(&pool->waiters);
    double seed = luna_loop_clock();
    memcpy(&pool->random, &seed, sizeof(seed));
    pool->random ^= (uint64_t)(uintptr_t)pool;
    schedule_maintenance(pool);
    pool_grow(pool);
    return pool;
}

static void close_list(luna_list *list)
{
    LUNA_LIST_EACH (list, it)
        conn_retire(LUNA_CONTAINER(it, luna_conn, link), "the pool was closed");
}

void luna_pool_free(luna_pool *pool)
{
    luna_err err;
    luna_err_set(&err, LUNA_ECLOSED, "the pool was closed");
    pool->closing = true;
    luna_timer_stop(pool->loop, &pool->maintenance);
    luna_timer_stop(pool->loop, &pool->retry);
    pool_fail_waiters(pool, &err);
    close_list(&pool->busy);
    close_list(&pool->idle);
    close_list(&pool->connecting);
    const luna_pool_config *cfg = &pool->cfg;
    for (int i = 0; cfg->conn.keywords[i] != NULL; i++) {
        char *value = (char *)(uintptr_t)cfg->conn.values[i];
        explicit_bzero(value, strlen(value)); /* one of them is the password */
        free(value);
        free((void *)(uintptr_t)cfg->conn.keywords[i]);
    }
    free((void *)(uintptr_t)cfg->conn.keywords);
    free((void *)(uintptr_t)cfg->conn.values);
    free((void *)(uintptr_t)cfg->conn.host);
    free((void *)(uintptr_t)cfg->conn.endpoint);
    free(pool);
}

void luna_pool_get_stats(const luna_pool *pool, luna_pool_stats *stats)
{
    *stats = pool->stats;
    stats->size = pool_size(pool);
    stats->used = pool->n_busy;
    stats->idle = pool->n_idle;
    stats->connecting = pool->n_connecting;
    stats->waiting = pool->n_waiters;
    stats->max_size = pool->cfg.max_size;
    stats->min_size = pool->cfg.min_size;
}
