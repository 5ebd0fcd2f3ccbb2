/* lane_answer.c - what the server answers on a lane, group by group.  Layer: io. */
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

static const char out_of_step[] = "out of step with the server";

/* ---- the end of a group ------------------------------------------------------------ */

/* What it took tells which texts had better not share a connection. */
static void learn(luna_conn *conn, unsigned end, unsigned runs, double now)
{
    luna_lane *lane = &conn->lane;
    if (runs == 0)
        return;
    double each = (now - lane->began) / runs;
    lane->service += (each - lane->service) / (lane->service > 0 ? 8 : 1);
    if (!luna_lane_is_slow(conn, now))
        return;
    for (unsigned i = lane->first; i != end; i++) {
        const luna_step *step = luna_lane_step(lane, i);
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
        luna_lane_run_again(conn, request);
        return;
    }
    if (at_fault && runs > 1)
        request->text->solo_for = PENALTY_FAILED;
    if (!failed && request->w.err.code == LUNA_ETIMEOUT)
        request->w.err = (luna_err){ 0 }; /* it was done after all */
    luna_take_doubt(conn, request);
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

/* Is the group that runs now one that nobody waits for, or a write that waits for the server's
 * last word? */
static void cancel_if_given_up(luna_conn *conn)
{
    const luna_lane *lane = &conn->lane;
    bool wanted = false;
    for (unsigned i = lane->first; luna_lane_step(lane, i)->kind != LUNA_STEP_SYNC; i++) {
        const luna_step *step = luna_lane_step(lane, i);
        wanted |=
            step->kind == LUNA_STEP_SETUP || (step->request != NULL && !step->request->expired);
    }
    if (!wanted)
        luna_lane_cancel(conn);
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
        const luna_step *step = luna_lane_step(lane, i);
        runs += step->kind == LUNA_STEP_RUN;
        failed |= step->kind == LUNA_STEP_RUN && step->state != LUNA_STEP_DONE;
        /* somebody cancelled it: what was sent after it is good, but no more */
        lane->closing |= step->kind == LUNA_STEP_SETUP && step->state != LUNA_STEP_DONE;
    }
    learn(conn, end, runs, now);
    for (; lane->first != end; lane->first++) {
        luna_step *step = luna_lane_step(lane, lane->first);
        deliver(conn, step, runs, failed, now);
        luna_statement_release(step->statement);
    }
    conn->unreplicated = false;
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
        return luna_lane_step(lane, lane->next + 1);
    luna_step *only = NULL; /* at the Sync: the commit failed */
    for (unsigned i = lane->first; step->kind == LUNA_STEP_SYNC && i != lane->next; i++)
        if (luna_lane_step(lane, i)->kind == LUNA_STEP_RUN) {
            luna_lane_step(lane, i)->state = LUNA_STEP_SKIPPED;
            only = only == NULL ? luna_lane_step(lane, i) : step;
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
    luna_step *step = luna_lane_step(lane, lane->next);
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
    luna_request *request = luna_lane_step(lane, lane->next)->request;
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
