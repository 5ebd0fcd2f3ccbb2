#include "pool_parts.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many connections are opened at a time.  To open one costs both sides far more than most
 * statements, so that meanwhile those there are may well get through the queue. */
#define MAX_CONNECTING 3

/* Seconds between attempts to connect to a server that fails: doubled from the
 * first to the second, each with jitter, so that clients do not come in step.  A connection that
 * the server ends before it is this old has failed too. */
#define BACKOFF_MIN 0.05
#define BACKOFF_MAX 1.0
#define BRIEF 1.0
#define TRIAL_EVERY 1.0
#define FORGOTTEN 5.0 /* seconds after which a failure counts for nothing */

static const luna_conn_owner pool_as_owner;

/* splitmix64, Steele et al. 2014: good enough to spread timers */
double luna_pool_random(luna_pool *pool)
{
    uint64_t z = (pool->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

void luna_pool_move(luna_pool *pool, luna_conn *conn, luna_list *to)
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

void luna_pool_retire(luna_conn *conn, const char *why)
{
    luna_err err;
    luna_err_set(&err, LUNA_ECLOSED, "%s", why);
    luna_conn_close(conn, &err);
}

/* ---- waiters ----------------------------------------------------------------- */

/* Does it wait for a connection of its own? */
static bool is_own(const luna_waiter *waiter)
{
    return waiter->lane == LUNA_LANE_NONE;
}

static void waiter_dequeue(luna_pool *pool, luna_waiter *waiter)
{
    luna_list_del(&waiter->op.link);
    pool->n_waiters--;
    pool->n_own -= is_own(waiter);
}

static void waiter_fail(luna_pool *pool, luna_waiter *waiter, const luna_err *err)
{
    waiter_dequeue(pool, waiter);
    luna_waiter_finish(waiter, err->code, err);
}

static void pool_fail_waiters(luna_pool *pool, const luna_err *err)
{
    luna_list *const queues[] = { &pool->waiters, &pool->shareable[LUNA_LANE_READS],
                                  &pool->shareable[LUNA_LANE_WRITES] };
    for (int i = 0; i < 3; i++)
        LUNA_LIST_EACH (queues[i], it)
            waiter_fail(pool, LUNA_CONTAINER(it, luna_waiter, op.link), err);
}

/* How far the connection that is nearest to be opened has come. */
static const char *connecting_phase(const luna_pool *pool)
{
    const char *phase = "waiting to connect again";
    for (const luna_list *it = pool->connecting.next; it != &pool->connecting; it = it->next) {
        if (LUNA_CONTAINER(it, luna_conn, link)->state == LUNA_CONN_CONNECTING)
            return "connecting";
        phase = "resolving the host's name";
    }
    return phase;
}

static void waiter_expire(luna_waiter *waiter)
{
    luna_pool *pool = waiter->pool;
    double waited = luna_loop_clock() - waiter->queued;
    luna_conn *conn = waiter->conn;
    if (conn != NULL) { /* a request that runs */
        luna_request *request = LUNA_CONTAINER(waiter, luna_request, w);
        luna_err_set(&waiter->err, LUNA_ETIMEOUT, "timed out after %.3gs while %s", waited,
                     luna_conn_phase(conn, request));
        luna_conn_expire(conn, request, LUNA_ETIMEOUT);
        return;
    }
    luna_err err;
    if (pool->n_busy + pool->n_idle > 0)
        luna_err_set(&err, LUNA_EPOOL,
                     "timed out after %.3gs while waiting for a connection: %u of at most %u are "
                     "in use, %u statements and leases wait",
                     waited, pool->n_busy, pool->cfg.max_size, pool->n_waiters);
    else if (pool->stats.last_error[0] != '\0')
        luna_err_set(&err, LUNA_EDOWN, "timed out after %.3gs while %s; last error: %s", waited,
                     connecting_phase(pool), pool->stats.last_error);
    else
        luna_err_set(&err, LUNA_ETIMEOUT, "timed out after %.3gs while %s", waited,
                     connecting_phase(pool));
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
            waiter_dequeue(waiter->pool, waiter);
        else if (waiter->conn->state == LUNA_CONN_SHARED)
            luna_lane_abandon(&waiter->conn->lane, LUNA_CONTAINER(waiter, luna_request, w));
        else if (waiter->conn->next == LUNA_CONTAINER(waiter, luna_request, w))
            waiter->conn->next = NULL;
        else
            waiter->conn->request = NULL;
    }
    luna_waiter_uncount(waiter);
    luna_op_abandon(&waiter->op);
}

static void waiter_start(luna_pool *pool, luna_waiter *waiter)
{
    waiter->pool = pool;
    waiter->conn = NULL;
    waiter->failures = &pool->stats.errors;
    waiter->err = (luna_err){ 0 };
    if (waiter->generation != 0 && pool->term != NULL) {
        waiter->term = pool->term;
        waiter->term->running++;
    }
    luna_timer_start(pool->loop, &waiter->timer, waiter->deadline, on_waiter_timer);
}

static void waiter_refuse(luna_waiter *waiter, luna_status code, const char *why)
{
    luna_err err;
    luna_err_set(&err, code, "%s", why);
    luna_waiter_finish(waiter, code, &err);
}

/* ---- growing ------------------------------------------------------------------ */

static void on_retry(luna_timer *timer);

void luna_pool_grow(luna_pool *pool)
{
    if (pool->closing)
        return;
    unsigned wanted = pool->n_own + pool->wants_lane;
    unsigned held = pool->n_idle + pool->n_busy;
    if (held + wanted < pool->cfg.min_size)
        wanted = pool->cfg.min_size - held;
    if (wanted == 0)
        return;
    double now = luna_loop_clock();
    unsigned most = MAX_CONNECTING;
    if (pool->in_doubt) { /* one trial, and another when that is stuck: the server may be back */
        most = pool->n_connecting;
        most += most == 0 || now >= pool->trial_at + TRIAL_EVERY - 1e-3; /* as timers have it */
        wanted = most;
    }
    if (wanted > most)
        wanted = most;
    if (wanted <= pool->n_connecting || luna_pool_size(pool) >= pool->cfg.max_size)
        return;
    if (pool->retry_at > 0 && now < pool->retry_at) {
        if (pool->n_connecting == 0)
            luna_timer_start(pool->loop, &pool->retry, pool->retry_at, on_retry);
        return;
    }
    while (pool->n_connecting < wanted && luna_pool_size(pool) < pool->cfg.max_size) {
        luna_conn *conn = luna_conn_open(&pool->cfg.conn, &pool_as_owner, pool);
        luna_pool_move(pool, conn, &pool->connecting);
        pool->trial_at = now;
        if (pool->in_doubt)
            luna_timer_start(pool->loop, &pool->retry, now + TRIAL_EVERY, on_retry);
    }
}

static void on_retry(luna_timer *timer)
{
    luna_pool_serve_soon(LUNA_CONTAINER(timer, luna_pool, retry));
}

/* ---- work comes in -------------------------------------------------------------- */

static void pool_queue(luna_pool *pool, luna_waiter *waiter, bool first)
{
    luna_list *queue = is_own(waiter) ? &pool->waiters : &pool->shareable[waiter->lane];
    if (first)
        luna_list_unshift(queue, &waiter->op.link);
    else
        luna_list_push(queue, &waiter->op.link);
    pool->n_waiters++;
    pool->n_own += is_own(waiter);
    luna_pool_serve_soon(pool);
}

/* How a request may run.  Counts down what is held against its text. */
static void choose_lane(const luna_pool *pool, luna_request *request)
{
    luna_text *text = request->text;
    request->w.lane = LUNA_LANE_NONE;
    if (request->kind != LUNA_REQUEST_QUERY || request->alone || !pool->cfg.pipeline ||
        text->sharing == LUNA_SHARING_ALONE)
        return;
    if (text->alone_for > 0) {
        text->alone_for--;
        return;
    }
    request->w.lane = text->sharing == LUNA_SHARING_BATCH ? LUNA_LANE_READS : LUNA_LANE_WRITES;
    request->solo |= !pool->cfg.read_batches || text->solo_for > 0;
    if (text->solo_for > 0)
        text->solo_for--;
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
    if (luna_waiter_is_late(waiter, luna_loop_clock())) {
        luna_waiter_end_late(waiter);
        return;
    }
    unsigned held = pool->n_idle + pool->n_busy;
    unsigned room = pool->cfg.max_size > held ? pool->cfg.max_size - held : 0; /* to be opened */
    if (pool->n_waiters >= pool->cfg.max_waiters + room + pool->n_idle) {
        luna_err err;
        luna_err_set(&err, LUNA_EPOOL,
                     "refused at once: %u are waiting for a connection already, max_waiters is %u",
                     pool->n_waiters, pool->cfg.max_waiters);
        pool->stats.refused++;
        luna_waiter_finish(waiter, LUNA_EPOOL, &err);
        return;
    }
    pool_queue(pool, waiter, false);
}

void luna_pool_submit(luna_pool *pool, luna_request *request)
{
    choose_lane(pool, request);
    pool_enqueue(pool, &request->w);
}

void luna_pool_acquire(luna_pool *pool, luna_lease *lease)
{
    lease->w.is_lease = true;
    lease->w.lane = LUNA_LANE_NONE;
    lease->w.queued = luna_loop_clock();
    lease->lost = (luna_err){ 0 };
    pool_enqueue(pool, &lease->w);
}

void luna_lease_submit(luna_lease *lease, luna_request *request)
{
    luna_conn *conn = lease->w.conn;
    luna_pool *pool = lease->w.pool;
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
    if (luna_waiter_is_over(&request->w, luna_loop_clock())) {
        luna_waiter_end_late(&request->w);
        return;
    }
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
    luna_waiter_uncount(&lease->w);
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
        luna_pool_retire(conn, "given back in the middle of an exchange");
    /* otherwise it drains, and is idle later */
}

void luna_lease_discard(luna_lease *lease, const char *why)
{
    luna_conn *conn = lease_end(lease);
    if (conn != NULL)
        luna_pool_retire(conn, why);
}

/* ---- what connections report ------------------------------------------------------ */

static bool is_expired(const luna_conn *conn, double now)
{
    return conn->expires_at > 0 && now >= conn->expires_at;
}

void luna_pool_reset(luna_pool *pool, luna_conn *conn)
{
    pool->n_lanes -= conn->lane.kind != LUNA_LANE_NONE;
    luna_conn_reset(conn);
}

static void pool_on_idle(luna_conn *conn)
{
    luna_pool *pool = conn->owner_data;
    if (conn->lease != NULL)
        return;
    if (conn->state_changed || conn->plans_changed ||
        PQtransactionStatus(conn->pg) != PQTRANS_IDLE) {
        luna_pool_reset(pool, conn);
        return;
    }
    conn->idle_since = pool->loop->now;
    luna_pool_move(pool, conn, &pool->idle);
    if (is_expired(conn, luna_loop_clock()))
        luna_pool_retire(conn, "max_lifetime");
    else if (luna_pool_size(pool) > pool->cfg.max_size) /* which is less than it was */
        luna_pool_retire(conn, "max_size");
    else
        luna_pool_serve_soon(pool);
}

static void pool_on_opened(luna_conn *conn)
{
    luna_pool *pool = conn->owner_data;
    pool->stats.connects++;
    pool->in_doubt = false;
    pool->retry_at = 0;
    pool->trusted_at = conn->opened_at;
    pool->stats.last_error[0] = '\0';
    luna_timer_stop(pool->loop, &pool->retry);
    if (pool->cfg.max_lifetime > 0)
        conn->expires_at =
            conn->opened_at + pool->cfg.max_lifetime * (0.9 + 0.2 * luna_pool_random(pool));
    pool_on_idle(conn);
}

/* The server failed a connection: the next one is a trial, alone, and comes after a pause if this
 * one did not live.  Those that fail together are one failure. */
static void back_off(luna_pool *pool, const luna_conn *conn, bool never_opened)
{
    double now = luna_loop_clock();
    bool lived = !never_opened && now - conn->opened_at >= BRIEF;
    if (lived || now - pool->failed_at >= FORGOTTEN)
        pool->backoff = 0;
    pool->in_doubt = true;
    pool->failed_at = now;
    if (lived || now < pool->retry_at)
        return;
    pool->backoff = pool->backoff > 0 ? fmin(pool->backoff * 2, BACKOFF_MAX) : BACKOFF_MIN;
    pool->retry_at = now + pool->backoff * (0.5 + luna_pool_random(pool));
}

static void pool_on_closed(luna_conn *conn, const luna_err *why)
{
    luna_pool *pool = conn->owner_data;
    bool never_opened = conn->owner_list == &pool->connecting;
    luna_pool_move(pool, conn, NULL);
    pool->n_lanes -= conn->lane.kind != LUNA_LANE_NONE;
    if (conn->lease != NULL) {
        luna_lease *lease = LUNA_CONTAINER(conn->lease, luna_lease, w);
        lease->w.conn = NULL;
        luna_waiter_uncount(&lease->w);
        lease->lost = *why;
    }
    if (pool->closing)
        return;
    bool failed = why->code == LUNA_EDOWN || why->code == LUNA_EAUTH; /* not closed by our side */
    bool overtaken = never_opened && conn->started_at < pool->trusted_at; /* it says nothing new */
    if (failed && !overtaken) {
        snprintf(pool->stats.last_error, sizeof(pool->stats.last_error), "%.255s", why->msg);
        back_off(pool, conn, never_opened);
    }
    if (never_opened) {
        pool->stats.connect_failures++;
        if (pool->n_idle + pool->n_busy == 0 && pool->n_connecting == 0)
            pool_fail_waiters(pool, why);
    }
    luna_pool_serve_soon(pool);
}

static void pool_on_again(luna_conn *conn, luna_request *request)
{
    luna_pool *pool = conn->owner_data;
    pool->stats.reruns++;
    choose_lane(pool, request);
    pool_queue(pool, &request->w, true);
}

static void pool_on_progress(luna_conn *conn)
{
    luna_pool *pool = conn->owner_data;
    conn->lane.closing |= is_expired(conn, pool->loop->now);
    if (pool->n_waiters > 0)
        luna_pool_serve_soon(pool);
}

static const luna_conn_owner pool_as_owner = {
    .opened = pool_on_opened,
    .idle = pool_on_idle,
    .closed = pool_on_closed,
    .again = pool_on_again,
    .progress = pool_on_progress,
};

/* ---- upkeep, life and death ---------------------------------------------------------- */

static void on_maintenance(luna_timer *timer);

void luna_pool_schedule_maintenance(luna_pool *pool)
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
    double now = luna_loop_clock();
    LUNA_LIST_EACH (&pool->idle, it) {
        luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        if (is_expired(conn, now))
            luna_pool_retire(conn, "max_lifetime");
        else if (pool->cfg.idle_timeout > 0 && luna_pool_size(pool) > pool->cfg.min_size &&
                 now - conn->idle_since >= pool->cfg.idle_timeout)
            luna_pool_retire(conn, "idle_timeout");
    }
    luna_pool_grow(pool);
    luna_pool_schedule_maintenance(pool);
}

luna_pool *luna_pool_new(const luna_pool_config *cfg)
{
    luna_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        abort();
    pool->cfg = *cfg;
    pool->cfg.conn.cancels = &pool->stats.cancels;
    pool->loop = cfg->conn.loop;
    luna_list_init(&pool->connecting);
    luna_list_init(&pool->idle);
    luna_list_init(&pool->busy);
    luna_list_init(&pool->waiters);
    luna_list_init(&pool->shareable[LUNA_LANE_READS]);
    luna_list_init(&pool->shareable[LUNA_LANE_WRITES]);
    luna_list_init(&pool->turn.link);
    pool->turn.run = luna_pool_serve;
    double seed = luna_loop_clock();
    memcpy(&pool->random, &seed, sizeof(seed));
    pool->random ^= (uint64_t)(uintptr_t)pool;
    luna_pool_schedule_maintenance(pool);
    luna_pool_grow(pool);
    return pool;
}

static void close_list(luna_list *list)
{
    LUNA_LIST_EACH (list, it)
        luna_pool_retire(LUNA_CONTAINER(it, luna_conn, link), "the pool was closed");
}

void luna_pool_free(luna_pool *pool)
{
    luna_err err;
    luna_err_set(&err, LUNA_ECLOSED, "the pool was closed");
    pool->closing = true;
    luna_timer_stop(pool->loop, &pool->maintenance);
    luna_timer_stop(pool->loop, &pool->retry);
    luna_timer_stop(pool->loop, &pool->patience);
    pool_fail_waiters(pool, &err);
    close_list(&pool->busy);
    close_list(&pool->idle);
    close_list(&pool->connecting);
    luna_list_del(&pool->turn.link);
    luna_conn_config_deinit(&pool->cfg.conn);
    luna_term_unref(pool->term);
    free(pool);
}

void luna_pool_rely(luna_pool *pool, luna_term *term)
{
    pool->term = luna_term_ref(term);
}

void luna_pool_refuse_waiting(luna_pool *pool, const char *why)
{
    luna_err err;
    luna_err_set(&err, LUNA_EDOWN, "it was waiting for a connection when this happened: %s", why);
    pool_fail_waiters(pool, &err);
}

void luna_pool_get_stats(const luna_pool *pool, luna_pool_stats *stats)
{
    *stats = pool->stats;
    stats->size = luna_pool_size(pool);
    stats->used = pool->n_busy;
    stats->idle = pool->n_idle;
    stats->connecting = pool->n_connecting;
    stats->waiting = pool->n_waiters;
    stats->lanes = pool->n_lanes;
    stats->cancelling = 0;
    for (luna_list *it = pool->busy.next; it != &pool->busy; it = it->next)
        stats->cancelling += luna_conn_is_cancelling(LUNA_CONTAINER(it, luna_conn, link));
    stats->max_size = pool->cfg.max_size;
    stats->min_size = pool->cfg.min_size;
}
