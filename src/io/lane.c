/* lane.c - what is sent on a lane, handed back, given up.  Layer: io.
 *
 * The answers are read in lane_answer.c. */
#include "lane.h"

#include <stdlib.h>
#include <string.h>

#include "conn.h"

#define RERUNS_IN_BATCH 2
#define RERUNS_SHARED 8

/* Seconds until a write that is behind others is given up after its deadline, its outcome unknown.
 */
#define LAST_WORD 1.0

static const char *const setup_sql[] = {
    [LUNA_LANE_READS] = "SELECT set_config('default_transaction_read_only', 'on', false),"
                        " set_config('default_transaction_isolation', 'read committed', false),"
                        " set_config('lock_timeout', '50ms', false)",
    [LUNA_LANE_WRITES] = "SELECT set_config('lock_timeout', '50ms', false)",
};

static luna_step *step_push(luna_lane *lane, int kind, luna_statement *statement)
{
    if (lane->end - lane->first == lane->size) {
        unsigned size = lane->size > 0 ? lane->size * 2 : 64;
        luna_step *steps = malloc(size * sizeof(*steps));
        if (steps == NULL)
            abort();
        for (unsigned i = lane->first; i != lane->end; i++)
            steps[i & (size - 1)] = *luna_lane_step(lane, i);
        free(lane->steps);
        lane->steps = steps;
        lane->size = size;
    }
    luna_step *step = luna_lane_step(lane, lane->end++);
    *step = (luna_step){ .statement = statement };
    step->kind = (unsigned)kind;
    if (statement != NULL)
        statement->users++;
    return step;
}

/* ---- sending ------------------------------------------------------------------ */

static void lane_begin(luna_conn *conn, double now)
{
    if (conn->state == LUNA_CONN_SHARED)
        return;
    conn->state = LUNA_CONN_SHARED;
    conn->in_transaction = conn->fatal = false;
    conn->lane.began = now;
    conn->lane.received = 0;
}

void luna_lane_open(luna_conn *conn, luna_lane_kind kind, double now)
{
    luna_lane *lane = &conn->lane;
    luna_buf *out = &conn->channel.out;
    if (lane->kind == kind)
        return;
    lane->kind = kind;
    lane->closing = lane->cancelled = false;
    lane->service = 0;
    lane_begin(conn, now);
    luna_channel_open(&conn->channel, PQsocket(conn->pg),
                      PQsslInUse(conn->pg) ? PQsslStruct(conn->pg, "OpenSSL") : NULL);
    luna_message_parse(out, "", setup_sql[kind]);
    luna_message_execute(out, "", 0, NULL, NULL, NULL, false);
    step_push(lane, LUNA_STEP_SETUP, NULL);
    luna_lane_sync(conn);
}

bool luna_lane_is_slow(const luna_conn *conn, double now)
{
    double limit = conn->cfg->slow_statement;
    return limit > 0 && now - conn->lane.began - conn->cfg->loop->busy >= limit;
}

bool luna_lane_is_open(const luna_conn *conn, double now)
{
    const luna_lane *lane = &conn->lane;
    return lane->kind != LUNA_LANE_NONE && !lane->closing && !conn->state_changed &&
           (lane->groups == 0 || !luna_lane_is_slow(conn, now));
}

/* The prepared statement for `text`, sent for preparation when it is new; NULL when there is no
 * room for it among those in flight. */
static luna_statement *lane_prepare(luna_conn *conn, luna_text *text)
{
    luna_statements *cache = &conn->statements;
    luna_buf *out = &conn->channel.out;
    luna_statement *st = luna_statements_find(cache, text);
    if (st == NULL && luna_statements_are_full(cache)) {
        luna_statement *old = luna_statements_oldest(cache);
        if (old == NULL)
            return NULL;
        luna_message_close(out, old->name);
        step_push(&conn->lane, LUNA_STEP_DEALLOCATE, NULL);
        luna_statements_remove(cache, old);
    }
    if (st == NULL)
        st = luna_statements_add(cache, text);
    if (!st->sent) {
        st->sent = true;
        luna_message_parse(out, st->name, text->sql);
        step_push(&conn->lane, LUNA_STEP_PREPARE, st);
    }
    return st;
}

static luna_step *lane_call(luna_conn *conn, int kind, const luna_call *call)
{
    luna_buf *out = &conn->channel.out;
    luna_statement *st = lane_prepare(conn, call->text);
    if (st == NULL)
        luna_message_parse(out, "", call->text->sql);
    luna_message_execute(out, st != NULL ? st->name : "", call->n_params, call->values,
                         call->lengths, call->formats, st == NULL || !st->described);
    return step_push(&conn->lane, kind, st);
}

static bool is_same_call(const luna_call *a, const luna_call *b)
{
    if (a->text != b->text || a->n_params != b->n_params)
        return false;
    for (int i = 0; i < a->n_params; i++)
        if (a->values[i] == NULL || b->values[i] == NULL || a->lengths[i] != b->lengths[i] ||
            a->formats[i] != b->formats[i] ||
            memcmp(a->values[i], b->values[i], (size_t)a->lengths[i]) != 0)
            return false;
    return true;
}

/* What stands in the group already holds to its end. */
static void lane_guard(luna_conn *conn, const luna_call *guard)
{
    luna_lane *lane = &conn->lane;
    if (guard->text == NULL || (lane->guard != NULL && is_same_call(lane->guard, guard)))
        return;
    lane_call(conn, LUNA_STEP_GUARD, guard);
    lane->guard = guard;
}

void luna_lane_add(luna_conn *conn, luna_request *request, double now)
{
    luna_lane *lane = &conn->lane;
    const luna_call call = { request->text, request->n_params, request->values, request->lengths,
                             request->formats };
    lane_begin(conn, now);
    lane_guard(conn, &request->guard);
    luna_step *step = lane_call(conn, LUNA_STEP_RUN, &call);
    step->request = request;
    request->step = lane->end - 1;
    request->w.conn = conn;
    lane->depth++;
}

static void on_slow(luna_timer *timer);

void luna_lane_sync(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    luna_message_sync(&conn->channel.out);
    step_push(lane, LUNA_STEP_SYNC, NULL);
    lane->guard = NULL;
    if (++lane->groups == 2 && lane->kind == LUNA_LANE_READS && conn->cfg->slow_statement > 0 &&
        !ev_is_active(&lane->slow.ev))
        luna_timer_start(conn->cfg->loop, &lane->slow, lane->began + conn->cfg->slow_statement,
                         on_slow);
}

/* ---- handing back --------------------------------------------------------------- */

void luna_lane_run_again(luna_conn *conn, luna_request *request)
{
    luna_request_clear(request);
    request->w.err = (luna_err){ 0 };
    request->w.conn = NULL;
    request->reruns++;
    request->solo |= request->reruns >= RERUNS_IN_BATCH;
    request->alone |= request->reruns >= RERUNS_SHARED;
    conn->owner->again(conn, request);
}

/* Reads behind a slow group need not wait for it: what was sent is run for nothing.  Those for
 * which that might be once too often wait. */
static void on_slow(luna_timer *timer)
{
    luna_conn *conn = LUNA_CONTAINER(timer, luna_conn, lane.slow);
    luna_lane *lane = &conn->lane;
    if (lane->groups < 2)
        return;
    if (!luna_lane_is_slow(conn, luna_loop_clock())) { /* it was another group */
        luna_timer_start(conn->cfg->loop, timer, lane->began + conn->cfg->slow_statement, on_slow);
        return;
    }
    unsigned i = lane->first;
    while (luna_lane_step(lane, i)->kind != LUNA_STEP_SYNC)
        i++;
    for (; i != lane->end; i++) {
        luna_step *step = luna_lane_step(lane, i);
        luna_request *request = step->request;
        if (request == NULL || !request->text->repeatable)
            continue;
        step->request = NULL;
        luna_lane_run_again(conn, request);
    }
}

/* ---- giving up -------------------------------------------------------------------------- */

void luna_lane_cancel(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    lane->closing = lane->cancelled = true;
    if (conn->cancel == NULL)
        lane->cancelled_group = lane->first;
    luna_conn_cancel(conn);
}

bool luna_lane_runs(const luna_lane *lane, const luna_request *request)
{
    for (unsigned i = lane->first; i != request->step; i++)
        if (luna_lane_step(lane, i)->kind == LUNA_STEP_SYNC)
            return false;
    return true;
}

static void on_last_word(luna_timer *timer)
{
    luna_waiter *waiter = LUNA_CONTAINER(timer, luna_waiter, timer);
    luna_request *request = LUNA_CONTAINER(waiter, luna_request, w);
    luna_lane_abandon(&waiter->conn->lane, request);
    waiter->conn = NULL;
    luna_err_set(&waiter->err, LUNA_EUNKNOWN,
                 "no answer in time; it waits on the server behind other statements");
    luna_waiter_finish(waiter, LUNA_EUNKNOWN, NULL);
}

void luna_lane_expire(luna_conn *conn, luna_request *request, luna_status status)
{
    luna_lane *lane = &conn->lane;
    bool reads = lane->kind == LUNA_LANE_READS || request->read_only;
    bool running = luna_lane_runs(lane, request);
    if (reads || status == LUNA_ECANCELED) {
        luna_lane_abandon(lane, request);
        request->w.conn = NULL;
        luna_request_clear(request);
        luna_waiter_finish(&request->w, status, NULL);
    } else { /* a write: the server's answer says whether it was done */
        request->expired = true;
        if (!running)
            luna_timer_start(conn->cfg->loop, &request->w.timer, luna_loop_clock() + LAST_WORD,
                             on_last_word);
    }
    if (running) /* one behind others must not be cancelled: it would hit them */
        luna_lane_cancel(conn);
}

void luna_lane_abandon(luna_lane *lane, const luna_request *request)
{
    luna_lane_step(lane, request->step)->request = NULL;
}

bool luna_lane_leave(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    bool clear = luna_channel_is_clear(&conn->channel);
    lane->kind = LUNA_LANE_NONE;
    lane->closing = lane->cancelled = false;
    luna_timer_stop(conn->cfg->loop, &lane->slow);
    luna_channel_close(&conn->channel);
    return clear;
}

void luna_lane_fail(luna_conn *conn, const luna_err *why)
{
    luna_lane *lane = &conn->lane;
    luna_err err = *why;
    if (err.sqlstate[0] == '\0')
        luna_lane_set_sqlstate(&err, &lane->last_words);
    luna_err neighbour;
    luna_err_set(&neighbour, LUNA_EDOWN, "another statement's result was too large");
    luna_timer_stop(conn->cfg->loop, &lane->slow);
    for (unsigned i = lane->first; i != lane->end; i++) {
        luna_step *step = luna_lane_step(lane, i);
        luna_request *request = step->request;
        luna_statement_release(step->statement);
        if (request == NULL)
            continue;
        bool in_batch = lane->kind == LUNA_LANE_READS && !request->solo;
        if (why->code == LUNA_EDOWN && !request->expired &&
            luna_lane_is_to_blame(conn, request, in_batch ? 2 : 1))
            luna_lane_run_again(conn, request); /* it had failed before */
        else if (why->code != LUNA_ETOOLARGE || request->w.err.code == LUNA_ETOOLARGE)
            luna_conn_fail_request(conn, request, &err, true);
        else if (lane->kind == LUNA_LANE_READS)
            luna_lane_run_again(conn, request);
        else
            luna_conn_fail_request(conn, request, &neighbour, true);
    }
    luna_buf_deinit(&lane->last_words);
    free(lane->steps);
    lane->steps = NULL;
    lane->first = lane->next = lane->end = lane->size = lane->depth = lane->groups = 0;
}
