/* answer.c - what the server answers to an exchange, until its end.  Layer: io. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "conn.h"

#define COPY_READS 8 /* of the socket in one go */
#define COPY_CHUNK                                                                                 \
    ((size_t)64 * 1024) /* rows of COPY TO are handed on when they are this many bytes */

/* ---- the end of an exchange ------------------------------------------------------ */

void luna_conn_idle_again(luna_conn *conn)
{
    luna_request *next = conn->next;
    if (next == NULL) {
        conn->owner->idle(conn);
        return;
    }
    conn->next = NULL;
    if (luna_waiter_is_over(&next->w, luna_loop_clock())) {
        next->w.conn = NULL;
        luna_waiter_end_late(&next->w);
        conn->owner->idle(conn);
        return;
    }
    if (!luna_conn_send(conn, next)) {
        if (next->w.op.state == LUNA_OP_PENDING)
            conn->request = next;
        luna_conn_lost(conn, "connection lost while sending");
    }
}

void luna_take_doubt(const luna_conn *conn, luna_request *request)
{
    if (conn->unreplicated && request->w.err.code == LUNA_OK && !request->read_only)
        luna_err_set(&request->w.err, LUNA_EUNKNOWN,
                     "committed on this server, but not known to be on its synchronous standbys");
}

/* The answer is complete: tell the request, then the owner. */
static void exchange_end(luna_conn *conn)
{
    luna_request *request = conn->request;
    if (conn->reset_failed) {
        luna_conn_lost(conn, "the session could not be reset");
        return;
    }
    if (conn->pipelined && !PQexitPipelineMode(conn->pg)) {
        luna_conn_lost(conn, "out of step with the server");
        return;
    }
    conn->request = NULL;
    conn->resetting = conn->pipelined = false;
    conn->executing = conn->guard = NULL;
    conn->state = LUNA_CONN_IDLE;
    if (request != NULL) {
        request->w.conn = NULL;
        request->answered = luna_loop_clock();
        if (request->w.err.code == LUNA_ETIMEOUT &&
            PQresultStatus(request->result) != PGRES_FATAL_ERROR)
            request->w.err = (luna_err){ 0 }; /* it was done after all */
        luna_take_doubt(conn, request);
        luna_request_check_term(request, request->answered);
        luna_waiter_finish(&request->w, request->w.err.code, NULL);
    }
    conn->unreplicated = false;
    if (conn->cancel != NULL)
        return; /* its return goes on: a late cancel must not hit the next statement */
    if (!luna_conn_flush(conn)) {
        luna_conn_lost(conn, "connection lost");
        return;
    }
    luna_timer_stop(conn->cfg->loop, &conn->timer);
    luna_conn_idle_again(conn);
}

/* ---- results ---------------------------------------------------------------------- */

/* Commands whose effect outlives the transaction, by command tag. */
static void note_command(luna_conn *conn, const char *tag)
{
    static const char *const session[] = { "SET", "RESET", "LISTEN", "LOAD", "DECLARE CURSOR" };
    static const char *const plans[] = { "PREPARE", "DEALLOCATE", "DEALLOCATE ALL", "DISCARD ALL",
                                         "DISCARD PLANS" };
    if (tag[0] == 'I' || tag[0] == 'U' || (tag[0] == 'S' && tag[2] == 'L'))
        return; /* INSERT, UPDATE, SELECT: nearly all there are */
    for (size_t i = 0; i < sizeof(session) / sizeof(session[0]); i++)
        conn->state_changed |= strcmp(tag, session[i]) == 0;
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++)
        conn->plans_changed |= strcmp(tag, plans[i]) == 0;
    if (strcmp(tag, "DEALLOCATE ALL") == 0 || strcmp(tag, "DISCARD ALL") == 0) { /* ours too */
        luna_statements_clear(&conn->statements);
        conn->executing = conn->guard = NULL;
    }
}

bool luna_is_stale_plan(const char *sqlstate, const char *where)
{
    if (strcmp(sqlstate, "26000") == 0)
        return true;
    return strcmp(sqlstate, "0A000") == 0 && where != NULL &&
           strcmp(where, "RevalidateCachedQuery") == 0;
}

static void set_result(luna_request *request, PGresult *res)
{
    PQclear(request->result);
    request->result = res;
}

/* An error says of what was prepared that the server has it not, or not as we know it. */
static void forget_statements(luna_conn *conn, const char *sqlstate, const char *where)
{
    luna_statements *cache = &conn->statements;
    luna_request *request = conn->request;
    bool of_guard = conn->guarding > 0;
    bool unprepared = of_guard ? conn->guarding > 1 : conn->to_prepare;
    const luna_statement *failed = of_guard ? conn->guard : conn->executing;
    bool stale = failed != NULL && !unprepared && luna_is_stale_plan(sqlstate, where);
    if (stale) {
        conn->plans_changed = true; /* the server may have it still, under its old name */
        conn->resend = request != NULL && !request->resent && !conn->in_transaction;
    }
    if (stale && sqlstate[0] == '2') {
        luna_statements_clear(cache);
    } else {
        if (of_guard && conn->guard != NULL && (unprepared || stale))
            luna_statements_remove(cache, conn->guard);
        /* what a guard went before was skipped, its preparation as well */
        if (conn->executing != NULL && (conn->to_prepare || (stale && !of_guard)))
            luna_statements_remove(cache, conn->executing);
    }
    if (request != NULL)
        request->refused |= of_guard;
    conn->executing = conn->guard = NULL;
    conn->guarding = 0;
    conn->to_prepare = false;
}

/* Takes `res`. */
static void take_error(luna_conn *conn, PGresult *res)
{
    luna_request *request = conn->request;
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *where = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);
    if (sqlstate == NULL)
        sqlstate = "";
    forget_statements(conn, sqlstate, where);
    conn->reset_failed |= conn->resetting;
    /* the first error is the cause of what follows */
    if (request == NULL || request->w.err.code == LUNA_ESQL) {
        PQclear(res);
        return;
    }
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    conn->fatal = severity == NULL || strcmp(severity, "ERROR") != 0; /* NULL: libpq itself */
    set_result(request, res);
    /* the text is in the result, whole; see luna_push_err for requests */
    if (request->expired && (strcmp(sqlstate, "57014") == 0 || conn->resend))
        return; /* w.err says TIMEOUT, and now it is certain that nothing was done */
    luna_err_set(&request->w.err, LUNA_ESQL, "%s", PQresultErrorMessage(res));
    memcpy(request->w.err.sqlstate, sqlstate, strlen(sqlstate) < 6 ? strlen(sqlstate) + 1 : 0);
}

void luna_too_large(const luna_request *request, luna_err *err)
{
    luna_err_set(err, LUNA_ETOOLARGE, "the result has more than max_result_bytes (%zu)%s",
                 request->max_bytes,
                 request->read_only ? "" : "; a statement that writes may have been done");
}

static void describe_rows(luna_rows *rows, const PGresult *res)
{
    int n_columns = rows->described ? 0 : PQnfields(res);
    for (int c = 0; c < n_columns; c++)
        luna_rows_column(rows, PQfname(res, c), PQftype(res, c));
}

/* A row of a stream that libpq has read (see wire.h).  Takes `res`. */
static void take_row(const luna_conn *conn, PGresult *res)
{
    luna_rows *rows = conn->request != NULL ? conn->request->rows : NULL;
    if (rows != NULL) {
        describe_rows(rows, res);
        luna_rows_begin(rows);
        for (int c = 0; c < PQnfields(res); c++)
            luna_rows_field(rows, PQgetvalue(res, 0, c),
                            PQgetisnull(res, 0, c) ? -1 : PQgetlength(res, 0, c));
        luna_rows_end(rows);
    }
    PQclear(res);
}

/* Takes `res`. */
static void take_rows(luna_conn *conn, PGresult *res)
{
    luna_request *request = conn->request;
    if (!conn->resetting)
        note_command(conn, PQcmdStatus(res));
    if (request == NULL) {
        PQclear(res);
        return;
    }
    if (request->max_bytes > 0 && PQresultMemorySize(res) > request->max_bytes) {
        luna_too_large(request, &request->w.err);
        PQclear(res);
        return;
    }
    if (request->rows != NULL)
        describe_rows(request->rows, res); /* there were none */
    if (request->many == NULL)
        set_result(request, res);
    else if (request->w.err.code == LUNA_OK || request->expired)
        luna_many_answer(request->many, res);
    else /* one before it was too large: it has failed with that one */
        PQclear(res);
}

/* Complete the request while the exchange goes on (rows or COPY data to come). */
static void request_done_midway(luna_conn *conn, int state)
{
    luna_request *request = conn->request;
    conn->request = NULL;
    conn->state = state;
    request->w.conn = NULL;
    request->more = true;
    luna_waiter_finish(&request->w, LUNA_OK, NULL);
    if (!luna_conn_flush(conn))
        luna_conn_lost(conn, "connection lost");
}

static void refuse_copy(luna_conn *conn)
{
    luna_err err;
    luna_err_set(&err, LUNA_EINVAL, "COPY with the client needs copy_in or copy_out");
    luna_conn_close(conn, &err);
}

/* One result; false when reading must stop (ended, paused or closed). */
static bool take_result(luna_conn *conn, PGresult *res)
{
    ExecStatusType status = PQresultStatus(res);
    if (conn->deallocating > 0) {
        conn->deallocating -= status == PGRES_PIPELINE_SYNC;
        PQclear(res);
        return true;
    }
    switch (status) {
    case PGRES_PIPELINE_SYNC:
        PQclear(res);
        luna_request *request = conn->request;
        if (!conn->resend || request == NULL || request->expired) {
            exchange_end(conn);
            return false;
        }
        luna_request_clear(request);
        request->w.err = (luna_err){ 0 };
        if (luna_waiter_is_over(&request->w, luna_loop_clock())) {
            luna_err_set(&request->w.err, LUNA_ESTALE, "not sent again, for its term is over");
            exchange_end(conn);
            return false;
        }
        PQexitPipelineMode(conn->pg);
        request->resent = true;
        conn->state = LUNA_CONN_IDLE;
        if (!luna_conn_send(conn, request)) {
            if (request->w.op.state == LUNA_OP_PENDING)
                conn->request = request;
            luna_conn_lost(conn, "connection lost while sending");
        }
        return false;
    case PGRES_PIPELINE_ABORTED: PQclear(res); return true;
    case PGRES_COPY_IN:
        PQclear(res);
        if (conn->request != NULL && conn->request->kind == LUNA_REQUEST_COPY_IN)
            request_done_midway(conn, LUNA_CONN_COPYING);
        else
            refuse_copy(conn);
        return false;
    case PGRES_COPY_OUT:
        PQclear(res);
        conn->copying_out = true;
        if (conn->request == NULL) /* abandoned: what comes is dropped */
            return true;
        if (conn->request->kind == LUNA_REQUEST_COPY_OUT)
            request_done_midway(conn, LUNA_CONN_STREAMING);
        else
            refuse_copy(conn);
        return false;
    case PGRES_COPY_BOTH:
        PQclear(res);
        refuse_copy(conn);
        return false;
    case PGRES_SINGLE_TUPLE: take_row(conn, res); return true;
    case PGRES_BAD_RESPONSE:
    case PGRES_FATAL_ERROR: take_error(conn, res); return true;
    default:
        if (conn->guarding > 0) {
            conn->guarding--;
            PQclear(res);
        } else if (conn->to_prepare) {
            conn->to_prepare = false;
            PQclear(res);
        } else {
            take_rows(conn, res);
        }
        return true;
    }
}

/* Count what arrives, from the second read of an answer on, so that a result
 * over its limit ends before it has filled the memory. */
static bool is_too_large(luna_conn *conn)
{
    luna_request *request = conn->request;
    int n = 0;
    if (conn->bursts++ == 0 || request == NULL || request->max_bytes == 0 ||
        (request->kind != LUNA_REQUEST_QUERY && request->kind != LUNA_REQUEST_SIMPLE) ||
        ioctl(PQsocket(conn->pg), FIONREAD, &n) != 0)
        return false;
    conn->received += (size_t)n;
    return conn->received > request->max_bytes;
}

/* COPY: the request is done when everything has left our buffer. */
static void copy_flushed(luna_conn *conn)
{
    int r = conn->request != NULL ? PQflush(conn->pg) : 1;
    if (r < 0)
        luna_conn_lost(conn, "connection lost during COPY");
    else if (r == 0)
        request_done_midway(conn, LUNA_CONN_COPYING);
}

/* Are there rows for the task that waits for some?  Once a result has followed them, the
 * request ends with the exchange, and with its error. */
static bool has_rows(const luna_conn *conn)
{
    const luna_request *request = conn->request;
    return request != NULL && request->rows != NULL && request->rows->ready > 0 &&
           request->result == NULL;
}

/* Read rows past libpq; false when there is something for libpq to read. */
static bool read_wire(luna_conn *conn)
{
    luna_wire_state state =
        luna_wire_read(&conn->wire, conn->pg, conn->request != NULL ? conn->request->rows : NULL);
    if (state == LUNA_WIRE_BROKEN)
        luna_conn_lost(conn, "out of step with the server");
    else if (has_rows(conn))
        request_done_midway(conn, LUNA_CONN_STREAMING);
    else if (state == LUNA_WIRE_LIBPQ)
        return false;
    return true;
}

/* The rows of COPY TO that have arrived; true while there is nothing for PQgetResult.  The socket
 * is read a few times at most, for when nobody wants the rows any more there is no other end to it.
 */
static bool read_copy(luna_conn *conn)
{
    for (int reads = 0;;) {
        luna_request *request = conn->request;
        char *row;
        if (request != NULL && request->received->len >= COPY_CHUNK) {
            request_done_midway(conn, LUNA_CONN_STREAMING);
            return true;
        }
        int n = PQgetCopyData(conn->pg, &row, 1);
        if (n > 0) {
            if (request != NULL)
                luna_buf_add(request->received, row, (size_t)n);
            PQfreemem(row);
        } else if (n < 0) {
            conn->copying_out = false;
            return false;
        } else if (reads++ == COPY_READS) {
            return true;
        } else if (!PQconsumeInput(conn->pg)) {
            luna_conn_lost(conn, "connection lost during COPY");
            return true;
        }
    }
}

/* Whatever there is of notifications, one of them ends the wait. */
static void read_notified(luna_conn *conn)
{
    bool alive = PQconsumeInput(conn->pg);
    bool heard = false;
    for (PGnotify *one; (one = PQnotifies(conn->pg)) != NULL; PQfreemem(one))
        heard = true;
    if (!alive)
        luna_conn_lost(conn, "connection lost while waiting for a notification");
    else if (heard)
        exchange_end(conn);
}

void luna_exchange_read(luna_conn *conn)
{
    if (conn->request != NULL && conn->request->kind == LUNA_REQUEST_NOTIFIED) {
        read_notified(conn);
        return;
    }
    if (conn->wire.on && read_wire(conn))
        return;
    if (conn->copying_out && read_copy(conn))
        return;
    if (is_too_large(conn)) {
        luna_err err;
        luna_too_large(conn->request, &err);
        luna_conn_close(conn, &err);
        return;
    }
    /* of a stream no more than is wanted: libpq would buffer without limit */
    bool wanted = conn->state != LUNA_CONN_STREAMING || PQisBusy(conn->pg);
    bool alive = !wanted || PQconsumeInput(conn->pg);
    if (conn->state == LUNA_CONN_COPYING) {
        if (!alive)
            luna_conn_lost(conn, "connection lost during COPY");
        else
            copy_flushed(conn);
        return;
    }
    /* when the connection is lost, what the server said last is still to be read */
    while (!PQisBusy(conn->pg)) {
        PGresult *res = PQgetResult(conn->pg);
        if (res != NULL) {
            if (!take_result(conn, res))
                return;
        } else if (PQstatus(conn->pg) == CONNECTION_BAD) {
            luna_conn_lost(conn, "connection lost");
            return;
        } else if (!conn->pipelined) {
            exchange_end(conn);
            return;
        }
    }
    if (has_rows(conn))
        request_done_midway(conn, LUNA_CONN_STREAMING);
    else if (!luna_conn_flush(conn))
        luna_conn_lost(conn, "connection lost");
}
