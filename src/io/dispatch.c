/* dispatch.c - which connection takes what.  Layer: io.
 *
 * Work waits in three queues: for a connection of its own, for a lane of reads,
 * for a lane of writes.  At the end of each loop turn the queue whose head has
 * waited longest is served first.
 *
 * Lanes are ordinary connections with a few settings; any idle one becomes a lane
 * or an ordinary one again as work demands.  Half of the pool may be lanes.  Work
 * gathers on few of them, for that makes batches large and system calls few, until
 * what there is would take one longer than LANE_WAIT; then it spreads over more, for then the
 * server has more to win by working side by side.  When the pool is full, lanes make way for work
 * that needs a connection of its own, and those of one kind for the other when it has none. */
#include "pool_parts.h"

#include <math.h>

/* Statements and reads' groups that may be under way on a lane. */
#define LANE_DEPTH 64
#define LANE_BATCHES 4
/* Seconds that the work at hand would take one lane: up to this it is not spread.  Lanes at work
 * side by side on a busy machine look slower than they are, so that this must not be near what is
 * usual. */
#define LANE_WAIT 0.005
/* Seconds that work waits for a connection of its own before a lane at work is let drain for it. */
#define PATIENCE 0.05

/* An idle connection untouched for this long is looked at before it is used. */
#define STALE_CHECK_AFTER 0.02

/* A lane that stands still behind a slow statement. */
static bool is_held_up(const luna_conn *conn, double now)
{
    double limit = conn->cfg->slow_statement;
    return conn->lane.groups > 0 && limit > 0 && now - conn->lane.began >= limit;
}

/* May another connection become a lane?  Those that are held up do not count. */
static bool can_add_lane(const luna_pool *pool, double now)
{
    unsigned held_up = 0;
    for (luna_list *it = pool->busy.next; it != &pool->busy; it = it->next)
        held_up += is_held_up(LUNA_CONTAINER(it, luna_conn, link), now);
    return pool->n_lanes - held_up < (pool->cfg.max_size + 1) / 2;
}

static luna_waiter *head_of(const luna_list *queue)
{
    return luna_list_empty(queue) ? NULL : LUNA_CONTAINER(queue->next, luna_waiter, op.link);
}

/* The idle connection of this kind that was used last, if any is good. */
static luna_conn *take_idle(luna_pool *pool, luna_lane_kind kind)
{
    for (luna_list *it = pool->idle.prev, *before = it->prev; it != &pool->idle;
         it = before, before = it->prev) {
        luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        if (conn->lane.kind != kind)
            continue;
        if (pool->loop->now - conn->idle_since < STALE_CHECK_AFTER || !luna_conn_is_stale(conn))
            return conn;
        luna_pool_retire(conn, "the server closed an idle connection");
    }
    return NULL;
}

/* ---- a connection of one's own -------------------------------------------------- */

static void note_wait(luna_pool *pool, double seconds)
{
    unsigned i = 0;
    if (seconds > ldexp(1, LUNA_POOL_WAITS_FIRST)) {
        int exponent;
        if (frexp(seconds, &exponent) == 0.5) /* a power of two belongs to those below it */
            exponent--;
        i = (unsigned)(exponent - LUNA_POOL_WAITS_FIRST + LUNA_POOL_WAITS_STEP - 1) /
            LUNA_POOL_WAITS_STEP;
    }
    pool->stats.wait_time += seconds;
    pool->stats.waits[i < LUNA_POOL_WAITS ? i : LUNA_POOL_WAITS - 1]++;
}

static void give(luna_pool *pool, luna_conn *conn, luna_waiter *waiter)
{
    luna_list_del(&waiter->op.link);
    pool->n_waiters--;
    pool->n_own--;
    double now = luna_loop_clock();
    note_wait(pool, now - waiter->queued);
    if (luna_waiter_is_late(waiter, now)) {
        luna_waiter_end_late(waiter);
        return;
    }
    luna_pool_move(pool, conn, &pool->busy);
    if (waiter->is_lease) {
        conn->lease = waiter;
        waiter->conn = conn;
        luna_term *term = waiter->term; /* it is counted up to its end */
        waiter->term = NULL;
        luna_waiter_finish(waiter, LUNA_OK, NULL);
        waiter->term = term;
        return;
    }
    luna_request *request = LUNA_CONTAINER(waiter, luna_request, w);
    pool->stats.queries++;
    if (!luna_conn_send(conn, request)) {
        if (waiter->op.state == LUNA_OP_PENDING) { /* nothing was sent: it is first in line again */
            luna_list_unshift(&pool->waiters, &waiter->op.link);
            pool->n_waiters++;
            pool->n_own++;
        }
        luna_pool_retire(conn, "connection lost while sending");
    }
}

static void serve_own(luna_pool *pool)
{
    luna_conn *conn;
    while (!luna_list_empty(&pool->waiters) && (conn = take_idle(pool, LUNA_LANE_NONE)) != NULL)
        give(pool, conn, head_of(&pool->waiters));
}

/* ---- lanes ------------------------------------------------------------------------ */

static bool has_room(const luna_conn *conn, bool solo)
{
    return conn->lane.depth < LANE_DEPTH && (solo || conn->lane.groups < LANE_BATCHES);
}

/* Does it get a Sync of its own? */
static bool is_solo(luna_waiter *waiter, luna_lane_kind kind)
{
    return kind == LUNA_LANE_WRITES || LUNA_CONTAINER(waiter, luna_request, w)->solo;
}

/* The lane for the head of a queue: one that is at work and soon done, an idle one, a new one,
 * or the least loaded, in this order.  NULL to wait: one will soon have room, or all are full. */
static luna_conn *choose_lane(luna_pool *pool, luna_lane_kind kind, double now)
{
    bool soon = false, solo = is_solo(head_of(&pool->shareable[kind]), kind);
    luna_conn *least = NULL;
    for (luna_list *it = pool->busy.next; it != &pool->busy; it = it->next) {
        luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        if (conn->lane.kind != kind || !luna_lane_is_open(conn, now))
            continue;
        unsigned backlog = conn->lane.depth + pool->n_waiters - pool->n_own;
        bool quick = backlog * conn->lane.service <= LANE_WAIT, room = has_room(conn, solo);
        if (quick && room)
            return conn;
        soon |= quick;
        if (room && (least == NULL || conn->lane.depth < least->lane.depth))
            least = conn;
    }
    if (soon)
        return NULL;
    luna_conn *idle = take_idle(pool, kind);
    if (idle == NULL && can_add_lane(pool, now)) {
        idle = take_idle(pool, LUNA_LANE_NONE);
        pool->wants_lane |= idle == NULL;
    }
    return idle != NULL ? idle : least;
}

/* Put as much of the queue on a lane as it takes. */
static void fill_lane(luna_pool *pool, luna_conn *conn, luna_lane_kind kind, double now)
{
    luna_list *queue = &pool->shareable[kind];
    unsigned batch = 0;
    if (conn->owner_list == &pool->idle)
        luna_pool_move(pool, conn, &pool->busy);
    if (conn->lane.kind != kind) {
        pool->n_lanes++;
        luna_lane_open(conn, kind, now);
    }
    while (!luna_list_empty(queue)) {
        luna_waiter *waiter = head_of(queue);
        luna_request *request = LUNA_CONTAINER(waiter, luna_request, w);
        bool solo = is_solo(waiter, kind);
        if (!has_room(conn, solo))
            break;
        luna_list_del(&waiter->op.link);
        pool->n_waiters--;
        if (luna_waiter_is_late(waiter, now)) {
            luna_waiter_end_late(waiter);
            continue;
        }
        if (solo && batch > 0)
            luna_lane_sync(conn);
        luna_lane_add(conn, request, now);
        note_wait(pool, now - waiter->queued);
        pool->stats.queries++;
        pool->stats.shared++;
        pool->stats.batched += !solo;
        pool->stats.batches += !solo && batch == 0;
        batch = solo ? 0 : batch + 1;
        if (solo)
            luna_lane_sync(conn);
    }
    if (batch > 0)
        luna_lane_sync(conn);
    (void)luna_conn_flush(conn); /* what gets nowhere is noticed by reading */
}

static void serve_lanes(luna_pool *pool, luna_lane_kind kind, double now)
{
    luna_list *queue = &pool->shareable[kind];
    while (!luna_list_empty(queue)) {
        luna_waiter *waiter = head_of(queue);
        if (luna_waiter_is_late(waiter, now)) { /* a lane is for what is sent */
            luna_list_del(&waiter->op.link);
            pool->n_waiters--;
            luna_waiter_end_late(waiter);
            continue;
        }
        luna_conn *conn = choose_lane(pool, kind, now);
        if (conn == NULL)
            return;
        fill_lane(pool, conn, kind, now);
    }
}

/* ---- making way ---------------------------------------------------------------------- */

static luna_conn *find_lane(const luna_list *list, luna_lane_kind kind, double now)
{
    for (luna_list *it = list->next; it != list; it = it->next) {
        luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        if (conn->lane.kind != LUNA_LANE_NONE && !is_held_up(conn, now) &&
            (conn->lane.kind == kind || kind == LUNA_LANE_NONE))
            return conn;
    }
    return NULL;
}

static bool one_drains(const luna_pool *pool, double now)
{
    for (luna_list *it = pool->busy.next; it != &pool->busy; it = it->next) {
        const luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        if (conn->lane.closing && !is_held_up(conn, now))
            return true;
    }
    return false;
}

/* Let a lane of `kind`, or of any, become an ordinary connection: an idle one, otherwise one at
 * work when it has drained. */
static void make_way(luna_pool *pool, luna_lane_kind kind, bool at_work, double now)
{
    luna_conn *conn = find_lane(&pool->idle, kind, now);
    if (conn != NULL) {
        luna_pool_move(pool, conn, &pool->busy);
        luna_pool_reset(pool, conn);
    } else if (at_work && !one_drains(pool, now) &&
               (conn = find_lane(&pool->busy, kind, now)) != NULL) {
        conn->lane.closing = true;
    }
}

static void see_to_those_without(luna_pool *pool, double now)
{
    /* what waits for a lane that soon has room must not wait for one that turns out to be slow */
    if (pool->n_waiters > pool->n_own && !ev_is_active(&pool->patience.ev))
        luna_timer_start(pool->loop, &pool->patience, now + PATIENCE, luna_pool_on_patience);
    if (pool->n_connecting > 0)
        return;
    const luna_waiter *head = head_of(&pool->waiters);
    if (head != NULL && pool->n_lanes > 0 && luna_pool_size(pool) >= pool->cfg.max_size) {
        double since = head->queued + PATIENCE;
        make_way(pool, LUNA_LANE_NONE, now >= since, now);
        if (now < since)
            luna_timer_start(pool->loop, &pool->patience, since, luna_pool_on_patience);
    }
    for (luna_lane_kind kind = LUNA_LANE_READS; kind <= LUNA_LANE_WRITES; kind++)
        if (!luna_list_empty(&pool->shareable[kind]) && find_lane(&pool->idle, kind, now) == NULL &&
            find_lane(&pool->busy, kind, now) == NULL)
            make_way(pool, kind == LUNA_LANE_READS ? LUNA_LANE_WRITES : LUNA_LANE_READS, true, now);
}

/* ---- the turn's end --------------------------------------------------------------------- */

void luna_pool_serve(luna_turn *turn)
{
    luna_pool *pool = LUNA_CONTAINER(turn, luna_pool, turn);
    luna_list *queues[] = { &pool->waiters, &pool->shareable[LUNA_LANE_READS],
                            &pool->shareable[LUNA_LANE_WRITES] };
    double now = luna_loop_clock();
    pool->wants_lane = false;
    for (unsigned served = 0; served < 7;) {
        unsigned oldest = 3;
        for (unsigned q = 0; q < 3; q++)
            if (!(served & (1u << q)) && !luna_list_empty(queues[q]) &&
                (oldest == 3 || head_of(queues[q])->queued < head_of(queues[oldest])->queued))
                oldest = q;
        if (oldest == 3)
            break;
        served |= 1u << oldest;
        if (oldest == 0)
            serve_own(pool);
        else
            serve_lanes(pool, (luna_lane_kind)oldest, now);
    }
    luna_pool_grow(pool);
    if (pool->n_waiters > 0)
        see_to_those_without(pool, now);
}

void luna_pool_on_patience(luna_timer *timer)
{
    luna_pool_serve_soon(LUNA_CONTAINER(timer, luna_pool, patience));
}

void luna_pool_serve_soon(luna_pool *pool)
{
    luna_loop_at_turn_end(pool->loop, &pool->turn);
}
