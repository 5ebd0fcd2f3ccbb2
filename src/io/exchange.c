/* exchange.c - how a request is put to the server, and given up.  Layer: io.
 *
 * Queries go through libpq's pipeline mode, so that an unprepared statement is
 * prepared and run in one round trip:
 *     [DEALLOCATE old sync] [PREPARE new] EXECUTE sync
 * A result counts only when the sync is answered: in the extended protocol the
 * server says CommandComplete before it commits, and a deferred constraint may
 * still fail after it.
 *
 * What comes back is read in answer.c, the rows of a stream in wire.c.
 *
 * An exchange that nobody waits for any more (a timeout, a cancelled task) goes
 * on without its request until the answer is complete, the cancel request has
 * returned and the connection is idle. */
#include <stdio.h>

#include "conn.h"

static const char reset_sql[] =
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *;"
    "SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/* ---- sending ------------------------------------------------------------------ */

bool luna_send_deallocate(luna_conn *conn, const luna_statement *statement)
{
    char sql[32];
    snprintf(sql, sizeof(sql), "DEALLOCATE %s", statement->name);
    return PQsendQueryParams(conn->pg, sql, 0, NULL, NULL, NULL, NULL, 0);
}

/* `name` is NULL for a statement that is not prepared. */
static bool send_execute(luna_conn *conn, const luna_request *request, const char *name)
{
    bool sent;
    if (request->kind == LUNA_REQUEST_MANY)
        sent = luna_many_send(request->many, conn->pg, name, request->sql);
    else if (name == NULL)
        sent = PQsendQueryParams(conn->pg, request->sql, request->n_params, NULL, request->values,
                                 request->lengths, request->formats, 0);
    else
        sent = PQsendQueryPrepared(conn->pg, name, request->n_params, request->values,
                                   request->lengths, request->formats, 0);
    return sent && PQpipelineSync(conn->pg);
}

/* The entry for `text`; what it replaces is deallocated.  NULL when libpq refuses. */
static luna_statement *find_statement(luna_conn *conn, luna_text *text)
{
    luna_statements *cache = &conn->statements;
    luna_statement *st = luna_statements_find(cache, text);
    if (st != NULL)
        return st;
    luna_statement *old = luna_statements_are_full(cache) ? luna_statements_oldest(cache) : NULL;
    /* in a failed transaction DEALLOCATE would fail too, and hide the real error */
    if (old != NULL && PQtransactionStatus(conn->pg) != PQTRANS_INERROR) {
        /* some commands must be the first of their transaction: it gets one of its own */
        conn->deallocating++;
        if (!luna_send_deallocate(conn, old) || !PQpipelineSync(conn->pg))
            return NULL;
        luna_statements_remove(cache, old);
    }
    return luna_statements_add(cache, text);
}

/* In the transaction of what follows, so that none may be begun and ended in between. */
static bool send_guard(luna_conn *conn, const luna_call *guard)
{
    luna_statement *st = conn->guard;
    conn->guarding = 1;
    if (st == NULL)
        return PQsendQueryParams(conn->pg, guard->text->sql, guard->n_params, NULL, guard->values,
                                 guard->lengths, guard->formats, 0);
    if (!st->sent) {
        st->sent = true;
        conn->guarding++;
        if (!PQsendPrepare(conn->pg, st->name, guard->text->sql, 0, NULL))
            return false;
    }
    return PQsendQueryPrepared(conn->pg, st->name, guard->n_params, guard->values, guard->lengths,
                               guard->formats, 0);
}

static bool send_query(luna_conn *conn, const luna_request *request)
{
    luna_text *guard = request->guard.text;
    unsigned max = conn->statements.max;
    luna_statement *st = NULL;
    if (guard != NULL && max > 1 && (conn->guard = find_statement(conn, guard)) == NULL)
        return false;
    if (max > 0 && (st = find_statement(conn, request->text)) == NULL)
        return false;
    if (guard != NULL && !send_guard(conn, &request->guard))
        return false;
    if (st == NULL)
        return send_execute(conn, request, NULL);
    conn->executing = st;
    if (!st->sent) {
        st->sent = conn->to_prepare = true;
        if (!PQsendPrepare(conn->pg, st->name, request->sql, 0, NULL))
            return false;
    }
    if (request->text->changes_state)
        conn->state_changed = true;
    return send_execute(conn, request, st->name);
}

static bool send_copy_data(luna_conn *conn, const luna_request *request)
{
    return request->n_bytes == 0 ||
           PQputCopyData(conn->pg, request->bytes, (int)request->n_bytes) == 1;
}

static bool send_request(luna_conn *conn, luna_request *request)
{
    switch (request->kind) {
    case LUNA_REQUEST_MANY:
    case LUNA_REQUEST_QUERY:
        conn->pipelined = true;
        return PQenterPipelineMode(conn->pg) && send_query(conn, request);
    case LUNA_REQUEST_SIMPLE:
        conn->state_changed = true; /* whatever of it the tags do not tell */
        return PQsendQuery(conn->pg, request->sql);
    case LUNA_REQUEST_COPY_IN: return PQsendQuery(conn->pg, request->sql);
    case LUNA_REQUEST_STREAM:
        luna_wire_start(&conn->wire, conn->pg);
        conn->pipelined = true; /* for without a sync libpq stays in single-row mode */
        return PQenterPipelineMode(conn->pg) &&
               PQsendQueryParams(conn->pg, request->sql, request->n_params, NULL, request->values,
                                 request->lengths, request->formats, 0) &&
               PQsetSingleRowMode(conn->pg) && PQpipelineSync(conn->pg);
    case LUNA_REQUEST_COPY_WRITE: return send_copy_data(conn, request);
    case LUNA_REQUEST_COPY_END: return PQputCopyEnd(conn->pg, request->bytes) == 1;
    case LUNA_REQUEST_COPY_OUT: /* in the extended protocol, which takes no second statement */
        return PQsendQueryParams(conn->pg, request->sql, 0, NULL, NULL, NULL, NULL, 0);
    case LUNA_REQUEST_NOTIFIED:
    case LUNA_REQUEST_COPY_READ:
    case LUNA_REQUEST_FETCH: return true;
    }
    return false;
}

/* Does it go on with what is open? */
static bool is_fetch(const luna_request *request)
{
    return request->kind == LUNA_REQUEST_FETCH || request->kind == LUNA_REQUEST_COPY_READ;
}

const char *luna_conn_obstacle(const luna_conn *conn, const luna_request *request)
{
    bool copies =
        request->kind == LUNA_REQUEST_COPY_WRITE || request->kind == LUNA_REQUEST_COPY_END;
    if (conn->request != NULL || conn->next != NULL)
        return "another statement runs on this connection";
    if (conn->state == LUNA_CONN_COPYING)
        return copies ? NULL : "a COPY is under way on this connection: finish or abort it first";
    if (copies)
        return "no COPY is under way on this connection";
    bool fetches = is_fetch(request);
    if (conn->state == LUNA_CONN_STREAMING &&
        request->kind != (conn->copying_out ? LUNA_REQUEST_COPY_READ : LUNA_REQUEST_FETCH))
        return "a stream is open on this connection: read it to its end or close it first";
    if (conn->state != LUNA_CONN_STREAMING && fetches)
        return "no stream is open on this connection";
    return NULL;
}

bool luna_conn_send(luna_conn *conn, luna_request *request)
{
    request->w.conn = conn;
    if (conn->state == LUNA_CONN_BUSY || conn->cancel != NULL) {
        conn->next = request; /* an abandoned exchange drains first */
        return true;
    }
    conn->request = request;
    if (request->kind != LUNA_REQUEST_FETCH) /* which goes on with the exchange of its stream */
        conn->pipelined = conn->wire.on = false;
    conn->to_prepare = false;
    conn->deallocating = conn->guarding = 0;
    conn->bursts = 0;
    conn->received = 0;
    conn->executing = conn->guard = NULL;
    conn->resend = conn->fatal = false;
    if (conn->state == LUNA_CONN_IDLE) /* otherwise it is that of the stream or COPY */
        conn->in_transaction = PQtransactionStatus(conn->pg) != PQTRANS_IDLE;
    conn->state = is_fetch(request)                          ? LUNA_CONN_STREAMING
                  : request->kind == LUNA_REQUEST_COPY_WRITE ? LUNA_CONN_COPYING
                                                             : LUNA_CONN_BUSY;
    bool sent = send_request(conn, request);
    if (sent && luna_conn_flush(conn)) {
        /* what these wait for may have been read from the socket before: rows, room in the
         * buffer, the error that the server answered to COPY data, notifications */
        if (is_fetch(request) || request->kind == LUNA_REQUEST_COPY_WRITE ||
            request->kind == LUNA_REQUEST_COPY_END || request->kind == LUNA_REQUEST_NOTIFIED)
            ev_feed_event(conn->cfg->loop->ev, &conn->io, EV_READ);
        return true;
    }
    conn->request = NULL;
    request->w.conn = NULL;
    if (!sent && PQstatus(conn->pg) == CONNECTION_OK) {
        /* libpq itself refused: the request is at fault, and the exchange half made */
        luna_err_set(&request->w.err, LUNA_EINVAL, "%s", PQerrorMessage(conn->pg));
        luna_waiter_finish(&request->w, LUNA_EINVAL, NULL);
    }
    return false;
}

static void on_reset_timeout(luna_timer *timer)
{
    luna_conn *conn = LUNA_CONTAINER(timer, luna_conn, timer);
    luna_err err;
    luna_err_set(&err, LUNA_EDOWN, "the session could not be reset within %gs",
                 conn->cfg->connection_timeout);
    luna_conn_close(conn, &err);
}

void luna_conn_reset(luna_conn *conn)
{
    char sql[sizeof(reset_sql) + 64];
    bool deallocate = conn->plans_changed;
    PGTransactionStatusType tx = PQtransactionStatus(conn->pg);
    snprintf(sql, sizeof(sql), "%s%s%s",
             tx == PQTRANS_INTRANS || tx == PQTRANS_INERROR ? "ROLLBACK; " : "",
             deallocate ? "DEALLOCATE ALL; " : "", reset_sql);
    if (deallocate)
        luna_statements_clear(&conn->statements);
    if (!luna_lane_leave(conn)) {
        luna_conn_lost(conn, "out of step with the server");
        return;
    }
    conn->state_changed = conn->plans_changed = conn->resend = false;
    conn->resetting = true;
    conn->pipelined = false;
    conn->state = LUNA_CONN_BUSY;
    luna_timer_start(conn->cfg->loop, &conn->timer,
                     luna_loop_clock() + conn->cfg->connection_timeout, on_reset_timeout);
    if (!PQsendQuery(conn->pg, sql) || !luna_conn_flush(conn))
        luna_conn_lost(conn, "connection lost while the session was reset");
}

void luna_conn_abandon(luna_conn *conn)
{
    luna_request *waiting = conn->request; /* another task may be in the middle of a fetch */
    conn->request = NULL;
    if (waiting != NULL) {
        waiting->w.conn = NULL;
        luna_err_set(&waiting->w.err, LUNA_ECLOSED, "the stream was closed");
        luna_waiter_finish(&waiting->w, LUNA_ECLOSED, NULL);
    }
    conn->state = LUNA_CONN_BUSY;
    luna_conn_cancel(conn);
    if (!luna_conn_flush(conn))
        luna_conn_lost(conn, "connection lost");
    else
        ev_feed_event(conn->cfg->loop->ev, &conn->io, EV_READ);
}

const char *luna_conn_phase(const luna_conn *conn, const luna_request *request)
{
    if (conn->state == LUNA_CONN_SHARED && !luna_lane_runs(&conn->lane, request))
        return "waiting behind other statements on a shared connection";
    if (request == conn->next)
        return "waiting for the statement before it to be cancelled";
    switch (request->kind) {
    case LUNA_REQUEST_FETCH:
    case LUNA_REQUEST_COPY_READ: return "waiting for rows";
    case LUNA_REQUEST_COPY_WRITE: return "sending rows";
    case LUNA_REQUEST_COPY_END: return "waiting for the server to take the rows in";
    case LUNA_REQUEST_NOTIFIED: return "waiting for a notification";
    default: return "running on the server";
    }
}

void luna_conn_expire(luna_conn *conn, luna_request *request, luna_status status)
{
    if (conn->state == LUNA_CONN_SHARED) {
        luna_lane_expire(conn, request, status);
        return;
    }
    if (request == conn->next) { /* never sent */
        conn->next = NULL;
        request->w.conn = NULL;
        luna_waiter_finish(&request->w, status, NULL);
        return;
    }
    if (request->kind != LUNA_REQUEST_QUERY && request->kind != LUNA_REQUEST_MANY &&
        request->kind != LUNA_REQUEST_SIMPLE) {
        luna_err err = request->w.err;
        err.code = status;
        luna_conn_close(conn, &err);
        return;
    }
    if (request->read_only || status == LUNA_ECANCELED) {
        conn->request = NULL;
        request->w.conn = NULL;
        luna_conn_cancel(conn);
        luna_waiter_finish(&request->w, status, NULL);
    } else if (!request->expired) { /* a write: the answer to the cancel says whether it was done */
        request->expired = true;
        luna_conn_cancel(conn);
    }
}
