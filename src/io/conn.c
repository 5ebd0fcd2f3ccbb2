#include "conn.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* Seconds that the server has to answer a cancel before the connection is dropped: to go on with
 * what it says, as often as GRACES, for what it had sent already comes first. */
#define CANCEL_GRACE 1.0
#define GRACES 5

/* A cancel request outlives the connection that it was made for. */
struct luna_errand {
    luna_cancel cancel;
    luna_conn *conn; /* NULL once closed */
};

static void conn_set_state(luna_conn *conn, int state)
{
    assert(conn->state != LUNA_CONN_CLOSED);
    conn->state = state;
}

static void conn_free_if_unused(luna_conn *conn)
{
    if (conn->state == LUNA_CONN_CLOSED && !conn->lookup_pending)
        free(conn);
}

static void watch(luna_conn *conn, int events)
{
    if (conn->io.events == events && ev_is_active(&conn->io))
        return;
    ev_io_stop(conn->cfg->loop->ev, &conn->io);
    ev_io_set(&conn->io, PQsocket(conn->pg), events);
    if (events != 0)
        ev_io_start(conn->cfg->loop->ev, &conn->io);
}

/* libpq's messages end with a newline, or are several lines: make them one. */
static luna_status err_from_pq(luna_err *err, luna_status code, const char *what,
                               const luna_conn *conn)
{
    char text[400];
    const char *message = conn->pg != NULL ? PQerrorMessage(conn->pg) : "out of memory";
    size_t n = 0;
    for (const char *p = message; *p != '\0' && n < sizeof(text) - 1; p++) {
        if (*p == '\n' || *p == '\t')
            text[n] = ' ';
        else
            text[n] = *p;
        if (text[n] != ' ' || (n > 0 && text[n - 1] != ' '))
            n++;
    }
    while (n > 0 && text[n - 1] == ' ')
        n--;
    text[n] = '\0';
    return luna_err_set(err, code, "%s%s%s", what, text[0] != '\0' ? ": " : "", text);
}

/* A single statement.  One behind a comment is taken for it, to be on the safe side. */
static bool ends_transaction(const char *sql)
{
    static const char *const words[] = { "commit", "end", "prepare", "--", "/*" };
    sql += strspn(sql, " \t\n\r\f;");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strncasecmp(sql, words[i], strlen(words[i])) == 0)
            return true;
    return false;
}

/* May a request that was sent and not answered have had its effect?  Not when
 * it only reads, and not inside a transaction unless it would have ended it. */
static bool outcome_is_unknown(const luna_conn *conn, const luna_request *request)
{
    if (conn->lane.kind == LUNA_LANE_READS)
        return false;
    switch (request->kind) {
    case LUNA_REQUEST_STREAM:
    case LUNA_REQUEST_FETCH:
    case LUNA_REQUEST_COPY_OUT:
    case LUNA_REQUEST_COPY_READ:
    case LUNA_REQUEST_NOTIFIED:
    case LUNA_REQUEST_COPY_IN: return false;
    case LUNA_REQUEST_COPY_WRITE:
    case LUNA_REQUEST_COPY_END: return !conn->in_transaction && request->bytes == NULL;
    case LUNA_REQUEST_MANY:
    case LUNA_REQUEST_QUERY:
        return !request->read_only && (!conn->in_transaction || ends_transaction(request->sql));
    case LUNA_REQUEST_SIMPLE: break;
    }
    return !request->read_only &&
           (!conn->in_transaction || strcasestr(request->sql, "commit") != NULL ||
            strcasestr(request->sql, "end") != NULL || strcasestr(request->sql, "prepare") != NULL);
}

void luna_conn_fail_request(const luna_conn *conn, luna_request *request, const luna_err *why,
                            bool midway)
{
    luna_err *err = &request->w.err;
    char sqlstate[6];
    memcpy(sqlstate, why->sqlstate[0] != '\0' ? why->sqlstate : err->sqlstate, sizeof(sqlstate));
    bool failed_before = err->code == LUNA_ESQL && !conn->fatal; /* nothing can change that */
    bool by_server = why->code != LUNA_ETOOLARGE && why->code != LUNA_EINVAL;
    if (!failed_before) {
        if (midway && by_server && outcome_is_unknown(conn, request))
            luna_err_set(err, LUNA_EUNKNOWN, "the connection ended before the server's answer: %s",
                         why->msg);
        else
            *err = *why;
        memcpy(err->sqlstate, sqlstate, sizeof(sqlstate));
    }
    request->w.conn = NULL;
    luna_waiter_finish(&request->w, err->code, NULL);
}

/* ---- closing --------------------------------------------------------------- */

void luna_conn_close(luna_conn *conn, const luna_err *why)
{
    if (conn->state == LUNA_CONN_CLOSED)
        return;
    luna_loop *loop = conn->cfg->loop;
    luna_request *request = conn->request, *next = conn->next;
    luna_err err = *why;
    bool midway = conn->state == LUNA_CONN_BUSY || conn->state == LUNA_CONN_STREAMING ||
                  conn->state == LUNA_CONN_SHARED;
    if (midway && conn->cancel == NULL && conn->cfg->canceler != NULL && !conn->channel.lost &&
        PQstatus(conn->pg) == CONNECTION_OK)
        luna_conn_cancel(conn);

    luna_timer_stop(loop, &conn->timer);
    ev_io_stop(loop->ev, &conn->io);
    if (conn->lookup_pending)
        luna_op_cancel(&conn->lookup.op);
    if (conn->cancel != NULL)
        conn->cancel->conn = NULL;
    PQfinish(conn->pg);
    conn->pg = NULL;
    conn->request = conn->next = NULL;
    luna_statements_deinit(&conn->statements);
    conn_set_state(conn, LUNA_CONN_CLOSED);

    if (request != NULL)
        luna_conn_fail_request(conn, request, &err, midway);
    if (next != NULL) {
        next->w.conn = NULL;
        luna_waiter_finish(&next->w, why->code, why);
    }
    luna_lane_fail(conn, &err);
    luna_channel_close(&conn->channel);
    void (*closed)(luna_conn *, const luna_err *) = conn->owner->closed;
    closed(conn, &err);
    conn_free_if_unused(conn);
}

void luna_conn_lost(luna_conn *conn, const char *what)
{
    luna_err err;
    if (conn->lane.kind != LUNA_LANE_NONE)
        luna_lane_why_lost(conn, what, &err);
    else
        err_from_pq(&err, LUNA_EDOWN, what, conn);
    luna_conn_close(conn, &err);
}

/* ---- connecting ------------------------------------------------------------- */

/* libpq 15 keeps no SQLSTATE of a failed start-up, but prints it when verbose:
 * "FATAL: 28P01: password authentication failed ... LOCATION: ...".  Move it
 * from the text to the error. */
static void take_sqlstate(luna_err *err)
{
    for (char *p = err->msg; (p = strstr(p, ": ")) != NULL; p++) {
        char *state = p + 2;
        if (strspn(state, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && state[5] == ':' &&
            state[6] == ' ' && strcspn(state, "0123456789") < 5) { /* "FATAL" is none */
            memcpy(err->sqlstate, state, 5);
            err->sqlstate[5] = '\0';
            memmove(state, state + 7, strlen(state + 7) + 1);
            break;
        }
    }
    char *location = strstr(err->msg, " LOCATION:");
    if (location != NULL)
        *location = '\0';
}

static void connect_failed(luna_conn *conn)
{
    luna_err err;
    err_from_pq(&err, LUNA_EDOWN, "cannot connect", conn);
    take_sqlstate(&err);
    if (strncmp(err.sqlstate, "28", 2) == 0 || strstr(err.msg, "no password supplied") != NULL)
        err.code = LUNA_EAUTH;
    luna_conn_close(conn, &err);
}

static void on_io(struct ev_loop *ev, ev_io *w, int revents);

/* A commit whose wait for synchronous replication was cut short is reported as done, with a
 * warning; its function's name is all that tells this warning from others. */
void luna_conn_note(luna_conn *conn, const char *where)
{
    conn->unreplicated |= where != NULL && strcmp(where, "SyncRepWaitForLSN") == 0;
}

static void on_notice(void *arg, const PGresult *res)
{
    luna_conn *conn = arg;
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    luna_conn_note(conn, PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION));
    conn->fatal |=
        severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}

static void connect_poll(luna_conn *conn)
{
    /* the socket can change within PQconnectPoll: never keep a watcher across it */
    ev_io_stop(conn->cfg->loop->ev, &conn->io);
    switch (PQconnectPoll(conn->pg)) {
    case PGRES_POLLING_READING: watch(conn, EV_READ); break;
    case PGRES_POLLING_WRITING: watch(conn, EV_WRITE); break;
    case PGRES_POLLING_OK:
        if (PQsetnonblocking(conn->pg, 1) != 0) {
            connect_failed(conn);
            return;
        }
        PQsetErrorVerbosity(conn->pg, PQERRORS_DEFAULT);
        luna_timer_stop(conn->cfg->loop, &conn->timer);
        watch(conn, EV_READ);
        conn->opened_at = luna_loop_clock();
        conn_set_state(conn, LUNA_CONN_IDLE);
        conn->owner->opened(conn);
        break;
    default: connect_failed(conn); break;
    }
}

static void connect_start(luna_conn *conn, const char *addresses)
{
    const char *keywords[64], *values[64];
    int n = 0;
    for (; conn->cfg->keywords[n] != NULL; n++) {
        keywords[n] = conn->cfg->keywords[n];
        values[n] = conn->cfg->values[n];
    }
    char hosts[1024] = "";
    if (addresses != NULL) {
        /* one host name for each address; it is what certificates and passfile go by */
        for (int i = 0; i < conn->lookup.count; i++) {
            if (i > 0)
                strncat(hosts, ",", sizeof(hosts) - strlen(hosts) - 1);
            strncat(hosts, conn->cfg->host, sizeof(hosts) - strlen(hosts) - 1);
        }
        keywords[n] = "hostaddr";
        values[n++] = addresses;
    }
    keywords[n] = "host";
    values[n++] = addresses != NULL ? hosts : conn->cfg->host;
    keywords[n] = NULL;
    values[n] = NULL;

    conn_set_state(conn, LUNA_CONN_CONNECTING);
    conn->pg = PQconnectStartParams(keywords, values, 0);
    if (conn->pg == NULL)
        abort();
    PQsetNoticeReceiver(conn->pg, on_notice, conn);
    PQsetErrorVerbosity(conn->pg, PQERRORS_VERBOSE); /* see take_sqlstate */
    if (PQstatus(conn->pg) == CONNECTION_BAD) {
        connect_failed(conn);
        return;
    }
    watch(conn, EV_WRITE);
}

static void on_resolved(luna_op *op)
{
    luna_conn *conn = LUNA_CONTAINER(op, luna_conn, lookup.op);
    conn->lookup_pending = false;
    if (conn->state == LUNA_CONN_CLOSED) {
        free(conn);
    } else if (op->status != LUNA_OK) {
        luna_err err; /* not TIMEOUT: that is when a deadline of the caller's passes */
        luna_err_set(&err, LUNA_EDOWN, "cannot connect: %s", conn->lookup.err.msg);
        luna_conn_close(conn, &err);
    } else {
        connect_start(conn, conn->lookup.addresses);
    }
}

static void on_connect_timeout(luna_timer *timer)
{
    luna_conn *conn = LUNA_CONTAINER(timer, luna_conn, timer);
    luna_err err;
    luna_err_set(&err, LUNA_EDOWN, "cannot connect: no answer from the %s within %gs",
                 conn->state == LUNA_CONN_RESOLVING ? "resolver" : "server",
                 conn->cfg->connection_timeout);
    luna_conn_close(conn, &err);
}

static void on_start(luna_op *op)
{
    luna_conn *conn = LUNA_CONTAINER(op, luna_conn, lookup.op);
    conn->lookup_pending = false;
    if (conn->state == LUNA_CONN_CLOSED)
        free(conn);
    else
        connect_start(conn, NULL);
}

static void cancel_start(luna_op *op)
{
    luna_op_post(op, LUNA_ECANCELED);
}

luna_conn *luna_conn_open(const luna_conn_config *cfg, const luna_conn_owner *owner, void *data)
{
    luna_conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL)
        abort();
    luna_list_init(&conn->link);
    conn->cfg = cfg;
    conn->owner = owner;
    conn->owner_data = data;
    conn->state = LUNA_CONN_RESOLVING;
    conn->lookup_pending = true;
    luna_statements_init(&conn->statements, cfg->statement_cache);
    ev_init(&conn->io, on_io);
    conn->started_at = luna_loop_clock();
    luna_timer_start(cfg->loop, &conn->timer, conn->started_at + cfg->connection_timeout,
                     on_connect_timeout);
    if (cfg->host[0] ==
        '/') { /* a socket directory: nothing to resolve, but not before we return */
        luna_op_start(&conn->lookup.op, cfg->loop, on_start, cancel_start);
        luna_op_post(&conn->lookup.op, LUNA_OK);
    } else {
        luna_resolve_start(cfg->resolver, &conn->lookup, cfg->host, cfg->connection_timeout,
                           on_resolved);
    }
    return conn;
}

/* ---- the socket -------------------------------------------------------------- */

bool luna_conn_flush(luna_conn *conn)
{
    int r =
        conn->state == LUNA_CONN_SHARED ? !luna_channel_flush(&conn->channel) : PQflush(conn->pg);
    if (r < 0)
        return false;
    int events = r == 1 ? EV_WRITE : 0;
    if (conn->state != LUNA_CONN_STREAMING || conn->request != NULL)
        events |= EV_READ;
    watch(conn, events);
    return true;
}

/* Data for an idle connection: a notification, a parameter change, or the end. */
static void read_idle(luna_conn *conn)
{
    if (conn->lane.kind != LUNA_LANE_NONE) {
        luna_lane_read(conn);
        return;
    }
    if (!PQconsumeInput(conn->pg)) {
        luna_conn_lost(conn, "the server closed an idle connection");
        return;
    }
    conn->fatal = false;
    for (PGnotify *note; (note = PQnotifies(conn->pg)) != NULL;)
        PQfreemem(note);
    if (conn->fatal) { /* to libpq it is a notice when nothing was asked; the end comes later */
        luna_err err;
        luna_err_set(&err, LUNA_EDOWN, "the server closed an idle connection");
        luna_conn_close(conn, &err);
    }
}

static void on_io(struct ev_loop *ev, ev_io *w, int revents)
{
    (void)ev;
    luna_conn *conn = LUNA_CONTAINER(w, luna_conn, io);
    if (conn->state == LUNA_CONN_CONNECTING) {
        connect_poll(conn);
        return;
    }
    if ((revents & EV_WRITE) && !luna_conn_flush(conn)) {
        luna_conn_lost(conn, "connection lost while sending");
        return;
    }
    if (conn->state == LUNA_CONN_IDLE) {
        if (revents & EV_READ)
            read_idle(conn);
        return;
    }
    if (conn->state == LUNA_CONN_SHARED) {
        luna_lane_read(conn);
        return;
    }
    luna_exchange_read(conn); /* also after a write: COPY waits for room in the buffer */
}

/* 1: the server has said something that was not read yet; 0: nothing; -1: it has gone. */
static int peek(const luna_conn *conn)
{
    char byte;
    ssize_t n = recv(PQsocket(conn->pg), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        return 1;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? 0 : -1;
}

bool luna_conn_is_stale(const luna_conn *conn)
{
    return peek(conn) != 0;
}

luna_status luna_conn_encrypt_password(luna_conn *conn, const char *password, char *out,
                                       size_t size, luna_err *err)
{
    /* The user's name is part of md5 alone. */
    char *verifier = PQencryptPasswordConn(conn->pg, password, "", "scram-sha-256");
    size_t len = verifier != NULL ? strlen(verifier) : 0;
    bool fits = verifier != NULL && len < size;
    if (fits)
        memcpy(out, verifier, len + 1);
    PQfreemem(verifier);
    if (!fits)
        return luna_err_set(err, LUNA_EINVAL, "the password could not be encrypted: %s",
                            PQerrorMessage(conn->pg));
    return LUNA_OK;
}

/* ---- cancelling --------------------------------------------------------------- */

static void on_grace_over(luna_timer *timer);

static void wait_for_answer(luna_conn *conn)
{
    conn->graces++;
    luna_timer_start(conn->cfg->loop, &conn->timer, luna_loop_clock() + CANCEL_GRACE,
                     on_grace_over);
}

static void on_grace_over(luna_timer *timer)
{
    luna_conn *conn = LUNA_CONTAINER(timer, luna_conn, timer);
    luna_err err;
    if (conn->graces < GRACES && peek(conn) > 0) {
        wait_for_answer(conn);
        return;
    }
    luna_err_set(&err, LUNA_EDOWN, "the server did not answer a cancel request within %gs",
                 conn->graces * CANCEL_GRACE);
    luna_conn_close(conn, &err);
}

static void on_cancel_done(luna_op *op)
{
    struct luna_errand *errand = LUNA_CONTAINER(op, struct luna_errand, cancel.op);
    luna_conn *conn = errand->conn;
    luna_err err = errand->cancel.err;
    bool sent = op->status == LUNA_OK;
    free(errand);
    if (conn == NULL)
        return;
    conn->cancel = NULL;
    if (!sent) /* it may still arrive, at any time */
        luna_conn_close(conn, &err);
    else if (conn->state == LUNA_CONN_SHARED)
        luna_lane_cancel_done(conn);
    else if (conn->state == LUNA_CONN_IDLE && conn->request == NULL) {
        luna_timer_stop(conn->cfg->loop, &conn->timer);
        luna_conn_idle_again(conn); /* the answer had come first and waited for this */
    }
}

bool luna_conn_is_cancelling(const luna_conn *conn)
{
    bool in_exchange = conn->state == LUNA_CONN_BUSY || conn->state == LUNA_CONN_SHARED;
    return conn->cancel != NULL ||
           (in_exchange && !conn->resetting && ev_is_active(&conn->timer.ev));
}

void luna_conn_cancel(luna_conn *conn)
{
    if (conn->cancel != NULL)
        return;
    struct luna_errand *errand = calloc(1, sizeof(*errand));
    if (errand == NULL)
        abort();
    errand->conn = conn;
    conn->cancel = errand;
    conn->state_changed = true; /* a late cancel must hit the reset, not somebody's statement */
    if (conn->cfg->cancels != NULL)
        ++*conn->cfg->cancels;
    luna_cancel_start(conn->cfg->canceler, &errand->cancel, conn->pg, on_cancel_done);
    conn->graces = 0;
    wait_for_answer(conn);
}
