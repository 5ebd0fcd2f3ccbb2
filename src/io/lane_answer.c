/* lane_answer.c - what the server answers on a lane, group by group.  Layer: io. */
#include <stdio.h>
#include <string.h>

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
/* Of the socket in one go. */
#define READS 8

static const char out_of_step[] = "out of step with the server";

static const char *field_of(const luna_message *message, int letter)
{
    return luna_message_field(message->body, message->len, letter);
}

static const char *sqlstate_of(const luna_message *message)
{
    const char *sqlstate = field_of(message, PG_DIAG_SQLSTATE);
    return sqlstate != NULL ? sqlstate : "";
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

bool luna_lane_is_to_blame(const luna_conn *conn, luna_request *request, unsigned runs)
{
    const char *sqlstate = request->w.err.sqlstate;
    if (request->w.err.code != LUNA_ESQL)
        return false;
    if (luna_is_stale_plan(sqlstate, luna_request_error_field(request, PG_DIAG_SOURCE_FUNCTION)))
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
    if (failed && !request->expired && (!at_fault || luna_lane_is_to_blame(conn, request, runs))) {
        luna_lane_run_again(conn, request);
        return;
    }
    if (at_fault && runs > 1 && !request->refused)
        request->text->solo_for = PENALTY_FAILED;
    if (!failed && request->w.err.code == LUNA_ETIMEOUT)
        request->w.err = (luna_err){ 0 }; /* it was done after all */
    luna_take_doubt(conn, request);
    luna_request_check_term(request, now);
    request->w.conn = NULL;
    request->answered = now;
    luna_waiter_finish(&request->w, request->w.err.code, NULL);
}

static void lane_set_idle(luna_conn *conn)
{
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

/* ---- errors ------------------------------------------------------------------------- */

void luna_lane_set_sqlstate(luna_err *err, const luna_buf *error)
{
    const char *sqlstate = luna_message_field(error->data, error->len, PG_DIAG_SQLSTATE);
    snprintf(err->sqlstate, sizeof(err->sqlstate), "%s", sqlstate != NULL ? sqlstate : "");
}

void luna_lane_why_lost(const luna_conn *conn, const char *what, luna_err *err)
{
    const luna_channel *channel = &conn->channel;
    const luna_buf *words = &conn->lane.last_words;
    const char *said = luna_message_field(words->data, words->len, PG_DIAG_MESSAGE_PRIMARY);
    const char *severity = luna_message_field(words->data, words->len, PG_DIAG_SEVERITY);
    if (said != NULL && severity != NULL)
        luna_err_set(err, LUNA_EDOWN, "%s: %s: %s", what, severity, said);
    else if (channel->lost)
        luna_err_set(err, LUNA_EDOWN, "%s: %s", what,
                     channel->reason != 0 ? strerror(channel->reason)
                                          : "the server closed the connection unexpectedly");
    else
        luna_err_set(err, LUNA_EDOWN, "%s", what);
}

static void set_error(luna_request *request, const luna_message *message)
{
    const char *sqlstate = sqlstate_of(message);
    luna_reply_fail(&request->reply, message);
    if (request->expired &&
        (strcmp(sqlstate, "57014") == 0 ||
         luna_is_stale_plan(sqlstate, field_of(message, PG_DIAG_SOURCE_FUNCTION))))
        return; /* w.err says TIMEOUT, and now it is certain that nothing was done */
    const char *said = field_of(message, PG_DIAG_MESSAGE_PRIMARY);
    luna_err_set(&request->w.err, LUNA_ESQL, "%s", said != NULL ? said : "");
    luna_lane_set_sqlstate(&request->w.err, &request->reply.bytes);
}

/* Which execution does an error at this step belong to?  NULL: to none, or to all of a batch. */
static luna_step *culprit_of(luna_lane *lane, luna_step *step)
{
    if (step->kind == LUNA_STEP_PREPARE || step->kind == LUNA_STEP_GUARD)
        for (unsigned i = lane->next; step->kind != LUNA_STEP_RUN;)
            step = luna_lane_step(lane, ++i);
    if (step->kind == LUNA_STEP_RUN)
        return step;
    luna_step *only = NULL; /* at the Sync: the commit failed */
    for (unsigned i = lane->first; step->kind == LUNA_STEP_SYNC && i != lane->next; i++)
        if (luna_lane_step(lane, i)->kind == LUNA_STEP_RUN) {
            luna_lane_step(lane, i)->state = LUNA_STEP_SKIPPED;
            only = only == NULL ? luna_lane_step(lane, i) : step;
        }
    return only == step ? NULL : only;
}

/* Was it a guard, or its preparation, that failed? */
static bool is_of_guard(const luna_lane *lane, const luna_step *step)
{
    if (step->kind == LUNA_STEP_PREPARE)
        step = luna_lane_step(lane, lane->next + 1);
    return step->kind == LUNA_STEP_GUARD;
}

/* After an error the server skips what is before the Sync. */
static void skip_to_sync(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    luna_step *step;
    while ((step = luna_lane_step(lane, ++lane->next))->kind != LUNA_STEP_SYNC) {
        if (step->kind == LUNA_STEP_PREPARE)
            luna_statements_remove(&conn->statements, step->statement);
        conn->plans_changed |= step->kind == LUNA_STEP_DEALLOCATE; /* the server has it still */
        if (step->state == LUNA_STEP_SENT)
            step->state = LUNA_STEP_SKIPPED;
    }
}

static bool take_error(luna_conn *conn, const luna_message *message)
{
    luna_lane *lane = &conn->lane;
    const char *severity = field_of(message, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *sqlstate = sqlstate_of(message);
    if (severity == NULL || strcmp(severity, "ERROR") != 0) { /* the session is over */
        luna_buf_clear(&lane->last_words);
        luna_buf_add(&lane->last_words, message->body, message->len);
        return true;
    }
    if (lane->next == lane->end)
        return false;
    luna_step *step = luna_lane_step(lane, lane->next);
    step->state = LUNA_STEP_FAILED;
    luna_step *culprit = culprit_of(lane, step);
    if (step->kind == LUNA_STEP_PREPARE) {
        luna_statements_remove(&conn->statements, step->statement);
    } else if (step->statement != NULL &&
               luna_is_stale_plan(sqlstate, field_of(message, PG_DIAG_SOURCE_FUNCTION))) {
        if (sqlstate[0] == '2') /* it is gone, and others may be as well */
            luna_statements_clear(&conn->statements);
        else
            luna_statements_remove(&conn->statements, step->statement);
        conn->plans_changed = true; /* the server may have it still, under its old name */
    }
    if (culprit != NULL && culprit->request != NULL) {
        culprit->state = LUNA_STEP_FAILED;
        culprit->request->refused = is_of_guard(lane, step);
        set_error(culprit->request, message);
    }
    if (step->kind != LUNA_STEP_SYNC)
        skip_to_sync(conn);
    return true;
}

/* ---- answers ------------------------------------------------------------------------ */

/* What the rows of a step consist of: its statement's, or when it was not prepared its own. */
static luna_columns **columns_of(const luna_step *step)
{
    if (step->statement != NULL)
        return &step->statement->columns;
    return step->request != NULL ? &step->request->reply.columns : NULL;
}

/* RowDescription.  Those of one text are nearly always alike, on all its connections. */
static bool take_columns(luna_step *step, const luna_message *message)
{
    luna_columns **at = columns_of(step);
    if (at == NULL) /* nobody waits for it */
        return true;
    luna_columns *columns = luna_columns_read(message->body, message->len);
    luna_text *text = step->statement != NULL ? step->statement->text : step->request->text;
    if (columns == NULL)
        return false;
    if (text->columns != NULL && luna_columns_equal(text->columns, columns)) {
        luna_columns_unref(columns);
        columns = luna_columns_ref(text->columns);
    } else {
        luna_columns_unref(text->columns);
        text->columns = luna_columns_ref(columns);
    }
    luna_columns_unref(*at);
    *at = columns;
    return true;
}

static bool take_row(luna_step *step, const luna_message *message)
{
    luna_request *request = step->request;
    if (request == NULL)
        return true;
    luna_columns *const *columns = columns_of(step);
    if (*columns == NULL || !luna_message_is_row(message->body, message->len, (*columns)->n))
        return false;
    /* beyond the limit there is nothing to be kept, but its size */
    if (request->max_bytes > 0 && request->reply.bytes.len > request->max_bytes)
        return true;
    luna_reply_add_row(&request->reply, message);
    return true;
}

/* CommandComplete or EmptyQueryResponse. */
static bool take_end(luna_step *step, const luna_message *message)
{
    luna_request *request = step->request;
    step->state = LUNA_STEP_DONE;
    if (request == NULL)
        return true;
    luna_reply *reply = &request->reply;
    size_t size = reply->bytes.len;
    if (size > LARGE_RESULT)
        request->text->alone_for = PENALTY_SLOW;
    if (request->max_bytes > 0 && size > request->max_bytes) {
        luna_reply_clear(reply);
        luna_too_large(request, &request->w.err);
        return true;
    }
    luna_reply_complete(reply, message);
    if (step->statement != NULL && step->statement->columns != NULL)
        reply->columns = luna_columns_ref(step->statement->columns);
    return true;
}

/* What belongs to one statement, a guard, or to the lane's setup. */
static bool take_of_run(luna_lane *lane, luna_step *step, const luna_message *message)
{
    bool is_run = step->kind == LUNA_STEP_RUN, good = true;
    switch (message->type) {
    case '1': /* ParseComplete, of one that was not prepared */ break;
    case '2': /* BindComplete */ return true;
    case 'n': /* NoData */
    case 'T':
        if (message->type == 'T')
            good = take_columns(step, message);
        if (step->statement != NULL)
            step->statement->described = good;
        return good;
    case 'D': return !is_run || take_row(step, message);
    case 'C':
    case 'I':
        lane->next++;
        if (is_run)
            return take_end(step, message);
        step->state = LUNA_STEP_DONE;
        return true;
    default: return false;
    }
    return step->statement == NULL;
}

/* false: no server says such a thing. */
static bool take_answer(luna_conn *conn, const luna_message *message)
{
    luna_lane *lane = &conn->lane;
    if (lane->next == lane->end)
        return false;
    luna_step *step = luna_lane_step(lane, lane->next);
    char confirmed = 0;
    switch (step->kind) {
    case LUNA_STEP_SETUP:
    case LUNA_STEP_GUARD:
    case LUNA_STEP_RUN: return take_of_run(lane, step, message);
    case LUNA_STEP_PREPARE: confirmed = '1'; break;
    case LUNA_STEP_DEALLOCATE: confirmed = '3'; break;
    case LUNA_STEP_SYNC: confirmed = 'Z'; break;
    }
    step->state = LUNA_STEP_DONE;
    lane->next++;
    return message->type == confirmed;
}

/* false when reading must stop. */
static bool take_message(luna_conn *conn, const luna_message *message)
{
    luna_lane *lane = &conn->lane;
    bool good;
    switch (message->type) {
    case 'S': /* a parameter was changed */
    case 'A': /* NOTIFY */ return true;
    case 'N': luna_conn_note(conn, field_of(message, PG_DIAG_SOURCE_FUNCTION)); return true;
    case 'E': good = take_error(conn, message); break;
    case 'G':
    case 'H':
    case 'W': luna_conn_lost(conn, "COPY on a shared connection"); return false;
    default: good = take_answer(conn, message); break;
    }
    if (message->type != 'D')
        lane->received = 0;
    if (good && message->type == 'Z') {
        good = message->len == 1 && message->body[0] == 'I';
        if (good)
            return group_end(conn);
    }
    if (!good)
        luna_conn_lost(conn, out_of_step);
    return good;
}

/* A result that outgrows its limit ends the connection before it has filled the memory. */
static bool is_too_large(luna_conn *conn)
{
    luna_lane *lane = &conn->lane;
    if (lane->received < READ_SLACK || lane->next == lane->end)
        return false;
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
    luna_channel *channel = &conn->channel;
    luna_message message;
    luna_message_state state;
    size_t n;
    int reads = 0;
    do {
        n = luna_channel_receive(channel);
        conn->lane.received += n;
        while ((state = luna_channel_next(channel, &message)) == LUNA_MESSAGE_WHOLE)
            if (!take_message(conn, &message))
                return;
        if (state == LUNA_MESSAGE_BROKEN) {
            luna_conn_lost(conn, out_of_step);
            return;
        }
        if (is_too_large(conn))
            return;
    } while (n > 0 && channel->more && ++reads < READS);
    if (reads == READS) /* others have something to say as well */
        ev_feed_event(conn->cfg->loop->ev, &conn->io, EV_READ);
    if (channel->lost)
        luna_conn_lost(conn, conn->state == LUNA_CONN_SHARED
                                 ? "connection lost"
                                 : "the server closed an idle connection");
    else if (channel->out.len > 0) /* TLS may have waited for something to read */
        (void)luna_conn_flush(conn);
}
