#include "lane.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "conn.h"

/* How many executions a text is kept off shared connections, or out of batches, for what it did
 * there; then it gets another chance. */
#define PENALTY_SLOW 256
#define PENALTY_FAILED 256
#define PENALTY_SUSPECT 16 /* one of its batch was slow: it is timed by itself */

/* A result that holds up the others and is better fetched apart. */
#define LARGE_RESULT (256u << 10)
/* Bytes in one read may belong to several results. */
#define READ_SLACK (8u << 20)

#define RERUNS_IN_BATCH 2
#define RERUNS_SHARED 8

/* Seconds until a write that is behind others is given up after its deadline, its outcome unknown.
 */
#define LAST_WORD 2.0

static const char out_of_step[] = "out of step with the server";

static const char *const setup_sql[] = {
    [LUNA_LANE_READS] = "SELECT set_config('default_transaction_read_only', 'on', false),"
                        " set_config('default_transaction_isolation', 'read committed', false),"
                        " set_config('lock_timeout', '50ms', false)",
    [LUNA_LANE_WRITES] = "SELECT set_config('lock_timeout', '50ms', false)",
};

static luna_step *step_at(const luna_lane *lane, unsigned i)
{
    return &lane->steps[i & (lane->size - 1)];
}

static luna_step *step_push(luna_lane *lane, int kind, luna_statement *statement)
{
    if (lane->end - lane->first == lane->size) {
        unsigned size = lane->size > 0 ? lane->size * 2 : 64;
        luna_step *steps = malloc(size * sizeof(*steps));
        if (steps == NULL)
            abort();
        for (unsigned i = lane->first; i != lane->end; i++)
            steps[i & (size - 1)] = *step_at(lane, i);
        free(lane->steps);
        lane->steps = steps;
        lane->size = size;
    }
    luna_step *step = step_at(lane, lane->end++);
    *step = (luna_step){ .statement = statement };
    step->kind = (unsigned)kind;
    if (statement != NULL)
        statement->users++;
    return step;
}

/* ---- sending ------------------------------------------------------------------ */

static bool lane_begin(luna_conn *conn, double now)
{
    if (conn->state == LUNA_CONN_SHARED)
        return true;
    if (!PQenterPipelineMode(conn->pg))
        return false;
    conn->state = LUNA_CONN_SHARED;
    conn->in_transaction = conn->fatal = false;
    conn->bursts = 0;
    conn->lane.began = now;
    conn->lane.received = 0;
    return true;
}

bool luna_lane_open(luna_conn *conn, luna_lane_kind kind, double now)
{
    luna_lane *lane = &conn->lane;
    if (lane->kind == kind)
        return true;
    lane->kind = kind;
    lane->closing = lane->cancelled = false;
    lane->service = 0;
    if (!lane_begin(conn, now) ||
        !PQsendQueryParams(conn->pg, setup_sql[kind], 0, NULL, NULL, NULL, NULL, 0))
        return false;
    step_push(lane, LUNA_STEP_SETUP, NULL);
    return luna_lane_sync(conn);
}

/* Does the group that runs take longer than it may?  Not counting what we were too busy to hear. */
static bool is_slow(const luna_conn *conn, double now)
{
    double limit = conn->cfg->slow_statement;
    return limit > 0 && now - conn->lane.began - conn->cfg->loop->busy >= limit;
}

bool luna_lane_is_open(const luna_conn *conn, double now)
{
    const luna_lane *lane = &conn->lane;
    return lane->kind != LUNA_LANE_NONE && !lane->closing && !conn->state_changed &&
           (lane->groups == 0 || !is_slow(conn, now));
}

/* The prepared statement for `text`, sent for preparation when it is new; `*st` is NULL when there
 * is no room for it among those in flight. */
static bool lane_prepare(luna_conn *conn, luna_text *text, luna_statement **st)
{
    luna_statements *cache = &conn->statements;
    *st = luna_statements_find(cache, text);
    if (*st == NULL && luna_statements_are_full(cache)) {
        luna_statement *old = luna_statements_oldest(cache);
        if (old == NULL)
            return true;
        if (!luna_send_deallocate(conn, old))
            return false;
        step_push(&conn->lane, LUNA_STEP_DEALLOCATE, NULL);
        luna_statements_remove(cache, old);
    }
    if (*st == NULL)
        *st = luna_statements_add(cache, text);
    if ((*st)->sent)
        return true;
    (*st)->sent = true;
    if (!PQsendPrepare(conn->pg, (*st)->name, text->sql, 0, NULL))
        return false;
    step_push(&conn->lane, LUNA_STEP_PREPARE, *st);
    return true;
}

bool luna_lane_add(luna_conn *conn, luna_request *request, double now)
{
    luna_lane *lane = &conn->lane;
    luna_statement *st;
    bool sent = lane_begin(conn, now) && lane_prepare(conn, request->text, &st);
    if (sent && st != NULL)
        sent = PQsendQueryPrepared(conn->pg, st->name, request->n_params, request->values,
                                   request->lengths, request->formats, 0);
    else if (sent)
        sent = PQsendQueryParams(conn->pg, request->sql, request->n_params, NULL, request->values,
                                 request->lengths, request->formats, 0);
    if (!sent) {
        if (PQstatus(conn->pg) == CONNECTION_OK) { /* libpq refuses it: the request is at fault */
            luna_err_set(&request->w.err, LUNA_EINVAL, "%s", PQerrorMessage(conn->pg));
            luna_waiter_finish(&request->w, LUNA_EINVAL, NULL);
        }
        return false;
    }
    request->step = lane->end;
    request->w.conn = conn;
    step_push(lane, LUNA_STEP_RUN, st)->request = request;
    lane->depth++;
    return true;
}

static void on_slow(luna_timer *timer);

bool luna_lane_sync(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    if (!PQpipelineSync(conn->pg))
        return false;
    step_push(lane, LUNA_STEP_SYNC, NULL);
    if (++lane->groups == 2 && lane->kind == LUNA_LANE_READS && conn->cfg->slow_statement > 0 &&
        !ev_is_active(&lane->slow.ev))
        luna_timer_start(conn->cfg->loop, &lane->slow, lane->began + conn->cfg->slow_statement,
                         on_slow);
    return luna_conn_flush(conn);
}

/* ---- handing back --------------------------------------------------------------- */

/* The server did nothing of it, or undid it, for another's sake. */
static void run_again(luna_conn *conn, luna_request *request)
{
    PQclear(request->result);
    request->result = NULL;
    request->w.err = (luna_err){ 0 };
    request->w.conn = NULL;
    request->reruns++;
    request->solo |= request->reruns >= RERUNS_IN_BATCH;
    request->alone |= request->reruns >= RERUNS_SHARED;
    conn->owner->again(conn, request);
}

/* Reads behind a slow group need not wait for it: what was sent is run for nothing. */
static void on_slow(luna_timer *timer)
{
    luna_conn *conn = LUNA_CONTAINER(timer, luna_conn, lane.slow);
    luna_lane *lane = &conn->lane;
    if (lane->groups < 2)
        return;
    if (!is_slow(conn, luna_loop_clock())) { /* it was another group */
        luna_timer_start(conn->cfg->loop, timer, lane->began + conn->cfg->slow_statement, on_slow);
        return;
    }
    unsigned i = lane->first;
    while (step_at(lane, i)->kind != LUNA_STEP_SYNC)
        i++;
    for (; i != lane->end; i++) {
        luna_step *step = step_at(lane, i);
        luna_request *request = step->request;
        step->request = NULL;
        if (request != NULL)
            run_again(conn, request);
    }
}

/* ---- the end of a group ------------------------------------------------------------ */

/* What it took tells which texts had better not share a connection. */
static void learn(luna_conn *conn, unsigned end, unsigned runs, double now)
{
    luna_lane *lane = &conn->lane;
    if (runs == 0)
        return;
    double each = (now - lane->began) / runs;
    lane->service += (each - lane->service) / (lane->service > 0 ? 8 : 1);
    if (!is_slow(conn, now))
        return;
    for (unsigned i = lane->first; i != end; i++) {
        const luna_step *step = step_at(lane, i);
        if (step->request == NULL)
            continue;
        luna_text *text = step->request->text;
        if (runs == 1)
            text->alone_for = PENALTY_SLOW;
        else if (text->solo_for < PENALTY_SUSPECT)
            text->solo_for = PENALTY_SUSPECT;
    }
}

/* The statement failed in a way that has to do with the lane, and says nothing of the statement. */
static bool failed_by_lane(const luna_conn *conn, luna_request *request, unsigned runs)
{
    const char *sqlstate = request->w.err.sqlstate;
    if (request->w.err.code != LUNA_ESQL)
        return false;
    if (luna_is_stale_plan(request->result, sqlstate))
        return true; /* tables may change again meanwhile; RERUNS_SHARED is the end of it */
    if (strcmp(sqlstate, "25006") == 0 && conn->lane.kind == LUNA_LANE_READS) {
        request->text->sharing = LUNA_SHARING_ALONE; /* it writes, whatever it looks like */
        return request->alone = true;
    }
    if (strcmp(sqlstate, "55P03") == 0 || (conn->lane.cancelled && strcmp(sqlstate, "57014") == 0))
        return request->alone = true;
    if (runs > 1 && (strcmp(sqlstate, "40001") == 0 || strcmp(sqlstate, "40P01") == 0))
        return request->solo = true;
    return false;
}

static void deliver(luna_conn *conn, const luna_step *step, unsigned runs, bool failed, double now)
{
    luna_request *request = step->request;
    if (request == NULL)
        return;
    bool at_fault = step->state == LUNA_STEP_FAILED;
    if (failed && !request->expired && (!at_fault || failed_by_lane(conn, request, runs))) {
        run_again(conn, request);
        return;
    }
    if (at_fault && runs > 1)
        request->text->solo_for = PENALTY_FAILED;
    if (!failed && request->w.err.code == LUNA_ETIMEOUT)
        request->w.err = (luna_err){ 0 }; /* it was done after all */
    request->w.conn = NULL;
    request->answered = now;
    luna_waiter_finish(&request->w, request->w.err.code, NULL);
}

static void lane_set_idle(luna_conn *conn)
{
    if (!PQexitPipelineMode(conn->pg)) {
        luna_conn_lost(conn, out_of_step);
        return;
    }
    conn->state = LUNA_CONN_IDLE;
    luna_timer_stop(conn->cfg->loop, &conn->lane.slow);
    conn->state_changed |= conn->lane.closing;
    if (conn->cancel != NULL)
        return; /* its return goes on: a late cancel must not hit the next statement */
    luna_timer_stop(conn->cfg->loop, &conn->timer);
    luna_conn_idle_again(conn);
}

static void lane_cancel(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    lane->closing = lane->cancelled = true;
    if (conn->cancel == NULL)
        lane->cancelled_group = lane->first;
    luna_conn_cancel(conn);
}

/* Is the group that runs now one that nobody waits for, or a write that waits for the server's
 * last word? */
static void cancel_if_given_up(luna_conn *conn)
{
    const luna_lane *lane = &conn->lane;
    bool wanted = false;
    for (unsigned i = lane->first; step_at(lane, i)->kind != LUNA_STEP_SYNC; i++) {
        const luna_step *step = step_at(lane, i);
        wanted |=
            step->kind == LUNA_STEP_SETUP || (step->request != NULL && !step->request->expired);
    }
    if (!wanted)
        lane_cancel(conn);
}

void luna_lane_cancel_done(luna_conn *conn)
{
    if (conn->lane.cancelled_group == conn->lane.first)
        return; /* what it was for has yet to end */
    luna_timer_stop(conn->cfg->loop, &conn->timer);
    cancel_if_given_up(conn);
}

/* The Sync is answered.  false when reading must stop. */
static bool group_end(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    unsigned end = lane->next, runs = 0;
    bool failed = false;
    double now = luna_loop_clock();
    for (unsigned i = lane->first; i != end; i++) {
        const luna_step *step = step_at(lane, i);
        runs += step->kind == LUNA_STEP_RUN;
        failed |= step->kind == LUNA_STEP_RUN && step->state != LUNA_STEP_DONE;
        /* somebody cancelled it: what was sent after it is good, but no more */
        lane->closing |= step->kind == LUNA_STEP_SETUP && step->state != LUNA_STEP_DONE;
    }
    learn(conn, end, runs, now);
    for (; lane->first != end; lane->first++) {
        luna_step *step = step_at(lane, lane->first);
        deliver(conn, step, runs, failed, now);
        luna_statement_release(step->statement);
    }
    lane->depth -= runs;
    lane->groups--;
    lane->began = now;
    conn->bursts = 0;
    if (conn->cancel == NULL) /* otherwise its return may still be long in coming */
        luna_timer_stop(conn->cfg->loop, &conn->timer);
    if (lane->first == lane->end) {
        lane_set_idle(conn);
        return false;
    }
    cancel_if_given_up(conn);
    conn->owner->progress(conn);
    return true;
}

/* ---- answers ------------------------------------------------------------------------ */

static void set_error(luna_request *request, PGresult *res, const char *sqlstate)
{
    PQclear(request->result);
    request->result = res;
    if (request->expired && strcmp(sqlstate, "57014") == 0)
        return; /* w.err says TIMEOUT, and now it is certain that nothing was done */
    luna_err_set(&request->w.err, LUNA_ESQL, "%s", PQresultErrorMessage(res));
    memcpy(request->w.err.sqlstate, sqlstate, strlen(sqlstate) < 6 ? strlen(sqlstate) + 1 : 0);
}

/* Which execution does an error at this step belong to?  NULL: to none, or to all of a batch. */
static luna_step *culprit_of(luna_lane *lane, luna_step *step)
{
    if (step->kind == LUNA_STEP_RUN)
        return step;
    if (step->kind == LUNA_STEP_PREPARE)
        return step_at(lane, lane->next + 1);
    luna_step *only = NULL; /* at the Sync: the commit failed */
    for (unsigned i = lane->first; step->kind == LUNA_STEP_SYNC && i != lane->next; i++)
        if (step_at(lane, i)->kind == LUNA_STEP_RUN) {
            step_at(lane, i)->state = LUNA_STEP_SKIPPED;
            only = only == NULL ? step_at(lane, i) : step;
        }
    return only == step ? NULL : only;
}

/* Takes `res`.  false: the session is over, the step is not answered. */
static bool take_error(luna_conn *conn, luna_step *step, PGresult *res)
{
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    if (sqlstate == NULL)
        sqlstate = "";
    if (severity == NULL || strcmp(severity, "ERROR") != 0) {
        memcpy(conn->lane.last_words, sqlstate, strlen(sqlstate) < 6 ? strlen(sqlstate) + 1 : 0);
        PQclear(res);
        return false;
    }
    step->state = LUNA_STEP_FAILED;
    luna_step *culprit = culprit_of(&conn->lane, step);
    if (step->kind == LUNA_STEP_PREPARE) {
        luna_statements_remove(&conn->statements, step->statement);
    } else if (step->statement != NULL && luna_is_stale_plan(res, sqlstate)) {
        if (sqlstate[0] == '2') /* it is gone, and others may be as well */
            luna_statements_clear(&conn->statements);
        else
            luna_statements_remove(&conn->statements, step->statement);
        conn->plans_changed = true; /* the server may have it still, under its old name */
    }
    if (culprit == NULL || culprit->request == NULL) {
        PQclear(res);
    } else {
        culprit->state = LUNA_STEP_FAILED;
        set_error(culprit->request, res, sqlstate);
    }
    return step->kind != LUNA_STEP_SYNC;
}

/* Takes `res`. */
static void take_rows(luna_step *step, PGresult *res)
{
    luna_request *request = step->request;
    step->state = LUNA_STEP_DONE;
    if (request == NULL) {
        PQclear(res);
        return;
    }
    size_t size = PQresultMemorySize(res);
    if (size > LARGE_RESULT)
        request->text->alone_for = PENALTY_SLOW;
    if (request->max_bytes > 0 && size > request->max_bytes) {
        luna_too_large(request, &request->w.err);
        PQclear(res);
        return;
    }
    PQclear(request->result);
    request->result = res;
}

/* false when reading must stop. */
static bool take_answer(luna_conn *conn, PGresult *res)
{
    luna_lane *lane = &conn->lane;
    luna_step *step = step_at(lane, lane->next);
    lane->received = 0;
    switch (PQresultStatus(res)) {
    case PGRES_PIPELINE_SYNC:
        PQclear(res);
        lane->next++;
        return group_end(conn);
    case PGRES_PIPELINE_ABORTED:
        PQclear(res);
        if (step->kind == LUNA_STEP_PREPARE)
            luna_statements_remove(&conn->statements, step->statement);
        conn->plans_changed |= step->kind == LUNA_STEP_DEALLOCATE; /* the server has it still */
        if (step->state == LUNA_STEP_SENT)
            step->state = LUNA_STEP_SKIPPED;
        break;
    case PGRES_BAD_RESPONSE:
    case PGRES_FATAL_ERROR:
        if (!take_error(conn, step, res))
            return true;
        break;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        PQclear(res);
        luna_conn_lost(conn, "COPY on a shared connection");
        return false;
    default:
        if (step->kind == LUNA_STEP_RUN) {
            take_rows(step, res);
        } else {
            step->state = LUNA_STEP_DONE;
            PQclear(res);
        }
        break;
    }
    lane->next++;
    return true;
}

/* A result that outgrows its limit ends the connection before it has filled the memory. */
static bool is_too_large(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    int n = 0;
    if (conn->bursts++ == 0 || ioctl(PQsocket(conn->pg), FIONREAD, &n) != 0)
        return false;
    lane->received += (size_t)n;
    luna_request *request = step_at(lane, lane->next)->request;
    size_t limit = request != NULL ? request->max_bytes : LARGE_RESULT;
    if (limit == 0 || lane->received < limit + READ_SLACK)
        return false;
    luna_err err;
    if (request != NULL) {
        request->text->alone_for = PENALTY_SLOW;
        luna_too_large(request, &request->w.err);
        err = request->w.err;
    } else {
        luna_err_set(&err, LUNA_ETOOLARGE, "a result that nobody waits for was too large");
    }
    luna_conn_close(conn, &err);
    return true;
}

void luna_lane_read(luna_conn *conn)
{
    if (is_too_large(conn))
        return;
    /* when the connection is lost, what the server said last is still to be read */
    (void)PQconsumeInput(conn->pg);
    bool between = false; /* one NULL stands between the answers of two statements */
    while (!PQisBusy(conn->pg)) {
        PGresult *res = PQgetResult(conn->pg);
        if (res != NULL) {
            if (!take_answer(conn, res))
                return;
        } else if (between || PQstatus(conn->pg) == CONNECTION_BAD) {
            luna_conn_lost(conn, between ? out_of_step : "connection lost");
            return;
        }
        between = res == NULL;
    }
    if (!luna_conn_flush(conn))
        luna_conn_lost(conn, "connection lost");
}

/* ---- giving up -------------------------------------------------------------------------- */

static bool is_running(const luna_lane *lane, const luna_request *request)
{
    for (unsigned i = lane->first; i != request->step; i++)
        if (step_at(lane, i)->kind == LUNA_STEP_SYNC)
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
    bool running = is_running(lane, request);
    if (reads || status == LUNA_ECANCELED) {
        luna_lane_abandon(lane, request);
        request->w.conn = NULL;
        PQclear(request->result);
        request->result = NULL;
        luna_waiter_finish(&request->w, status, NULL);
    } else { /* a write: the server's answer says whether it was done */
        request->expired = true;
        if (!running)
            luna_timer_start(conn->cfg->loop, &request->w.timer, luna_loop_clock() + LAST_WORD,
                             on_last_word);
    }
    if (running) /* one behind others must not be cancelled: it would hit them */
        lane_cancel(conn);
}

void luna_lane_abandon(luna_lane *lane, const luna_request *request)
{
    step_at(lane, request->step)->request = NULL;
}

void luna_lane_leave(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    lane->kind = LUNA_LANE_NONE;
    lane->closing = lane->cancelled = false;
    luna_timer_stop(conn->cfg->loop, &lane->slow);
}

void luna_lane_fail(luna_conn *conn, const luna_err *why)
{
    luna_lane *lane = &conn->lane;
    luna_err err = *why;
    if (err.sqlstate[0] == '\0')
        memcpy(err.sqlstate, lane->last_words, sizeof(err.sqlstate));
    luna_err neighbour;
    luna_err_set(&neighbour, LUNA_EDOWN, "another statement's result was too large");
    luna_timer_stop(conn->cfg->loop, &lane->slow);
    for (unsigned i = lane->first; i != lane->end; i++) {
        luna_step *step = step_at(lane, i);
        luna_request *request = step->request;
        luna_statement_release(step->statement);
        if (request == NULL)
            continue;
        if (why->code != LUNA_ETOOLARGE || request->w.err.code == LUNA_ETOOLARGE)
            luna_conn_fail_request(conn, request, &err, true);
        else if (lane->kind == LUNA_LANE_READS)
            run_again(conn, request);
        else
            luna_conn_fail_request(conn, request, &neighbour, true);
    }
    free(lane->steps);
    lane->steps = NULL;
    lane->first = lane->next = lane->end = lane->size = lane->depth = lane->groups = 0;
}
