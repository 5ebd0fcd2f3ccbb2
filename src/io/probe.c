#include "probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Seconds after which the connection is made anew: that it was possible once does not say that it
 * is, and the name may have another address by now. */
#define LIFETIME 60.0

struct luna_probe {
    luna_conn_config cfg;
    double max_lifetime;
    luna_conn *conn; /* NULL when there is none */
    luna_request request;
    luna_list looks; /* the first one is under way */
    double sent;
    bool humble; /* this user may not ask for everything */
};

static const luna_conn_owner probe_as_owner;

/* Is the database a shard of a cluster with a catalog?  By pg_class, for to_regclass fails for
 * users who may not use the schema. */
#define MANAGED                                                                                    \
    "EXISTS (SELECT FROM pg_catalog.pg_class k"                                                    \
    " JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace"                                    \
    " WHERE n.nspname = 'lunashard' AND k.relname = 'identity')"

/* One round trip.  What of pg_stat_wal_receiver is for monitors only is NULL for others, as its
 * row is not.  The checkpoint's timeline is an old one for a while after a promotion. */
static const char everything[] =
    "SELECT r.in_recovery,"
    " CASE WHEN r.in_recovery"
    "  THEN greatest(c.timeline_id, v.min_recovery_end_timeline, w.received_tli)"
    "  ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()),"
    "   1, 8))::bit(32)::int8 END,"
    " (CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn()"
    "  ELSE pg_catalog.pg_current_wal_lsn() END - '0/0')::float8,"
    " CASE WHEN r.in_recovery THEN (pg_catalog.pg_last_wal_receive_lsn() - '0/0')::float8 END,"
    " CASE WHEN r.in_recovery THEN extract(epoch FROM pg_catalog.clock_timestamp()"
    "  - pg_catalog.pg_last_xact_replay_timestamp()) END,"
    " w.pid IS NOT NULL, s.system_identifier,"
    " extract(epoch FROM pg_catalog.pg_postmaster_start_time()), " MANAGED
    " FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) r"
    " CROSS JOIN pg_catalog.pg_control_checkpoint() c"
    " CROSS JOIN pg_catalog.pg_control_recovery() v"
    " CROSS JOIN pg_catalog.pg_control_system() s"
    " LEFT JOIN pg_catalog.pg_stat_wal_receiver w ON true";

/* The same columns, for users from whom the rest was taken away. */
static const char the_least[] =
    "SELECT pg_catalog.pg_is_in_recovery(), NULL, NULL, NULL, NULL, false, NULL, NULL, " MANAGED;

/* ---- looks ------------------------------------------------------------------- */

static luna_look *current_look(const luna_probe *probe)
{
    return luna_list_empty(&probe->looks) ? NULL
                                          : LUNA_CONTAINER(probe->looks.next, luna_look, op.link);
}

static void proceed(luna_probe *probe);

/* Ends a look and begins the next one. */
static void look_end(luna_look *look, luna_status status)
{
    luna_probe *probe = look->probe;
    bool was_current = look == current_look(probe);
    look->err.code = status;
    look->probe = NULL;
    luna_timer_stop(probe->cfg.loop, &look->timer);
    luna_op_post(&look->op, status); /* takes it out of the queue */
    if (was_current)
        proceed(probe);
}

static void look_fail(luna_look *look, const luna_err *why)
{
    look->err = *why;
    look_end(look, why->code);
}

/* The connection, if any, goes away without a word to the look. */
static void drop_connection(luna_probe *probe, const luna_err *why)
{
    luna_op_abandon(&probe->request.w.op);
    luna_request_deinit(&probe->request);
    luna_conn *conn = probe->conn;
    probe->conn = NULL;
    if (conn == NULL)
        return;
    conn->request = NULL;
    conn->owner_data = NULL;
    luna_conn_close(conn, why);
}

static void on_deadline(luna_timer *timer)
{
    luna_look *look = LUNA_CONTAINER(timer, luna_look, timer);
    luna_probe *probe = look->probe;
    luna_err err;
    if (look == current_look(probe) && probe->conn != NULL &&
        (probe->conn->state == LUNA_CONN_RESOLVING || probe->conn->state == LUNA_CONN_CONNECTING))
        luna_err_set(&err, LUNA_EDOWN, "cannot connect: the server did not answer in time");
    else
        luna_err_set(&err, LUNA_ETIMEOUT, "the server did not answer a probe in time");
    if (look == current_look(probe))
        drop_connection(probe, &err);
    look_fail(look, &err);
}

static void cancel_look(luna_op *op)
{
    luna_look *look = LUNA_CONTAINER(op, luna_look, op);
    luna_err err;
    luna_err_set(&err, LUNA_ECANCELED, "cancelled");
    if (look == current_look(look->probe))
        drop_connection(look->probe, &err);
    look_fail(look, &err);
}

/* ---- the exchange -------------------------------------------------------------- */

static void connect_anew(luna_probe *probe)
{
    luna_look *look = current_look(probe);
    look->reconnected = true;
    double left = look->timer.deadline - luna_loop_clock();
    probe->cfg.connection_timeout = left > 0.001 ? left : 0.001;
    probe->conn = luna_conn_open(&probe->cfg, &probe_as_owner, probe);
    luna_op_background(&probe->conn->lookup.op);
}

static double number_at(const PGresult *res, int column)
{
    return PQgetisnull(res, 0, column) ? (double)NAN : strtod(PQgetvalue(res, 0, column), NULL);
}

static void text_at(const PGresult *res, int column, char *to, size_t size)
{
    strncpy(to, PQgetvalue(res, 0, column), size - 1); /* it was all zero */
}

static bool read_report(const luna_probe *probe, luna_report *report)
{
    const PGresult *res = probe->request.result;
    if (PQntuples(res) != 1 || PQnfields(res) != 9)
        return false;
    *report = (luna_report){
        .latency = luna_loop_clock() - probe->sent,
        .in_recovery = PQgetvalue(res, 0, 0)[0] == 't',
        .timeline = number_at(res, 1),
        .lsn = number_at(res, 2),
        .received = number_at(res, 3),
        .replay_age = number_at(res, 4),
        .streaming = PQgetvalue(res, 0, 5)[0] == 't',
        .managed = PQgetvalue(res, 0, 8)[0] == 't',
    };
    text_at(res, 6, report->system_identifier, sizeof(report->system_identifier));
    text_at(res, 7, report->started, sizeof(report->started));
    const char *encoding =
        probe->conn != NULL ? PQparameterStatus(probe->conn->pg, "server_encoding") : NULL;
    strncpy(report->encoding, encoding != NULL ? encoding : "", sizeof(report->encoding) - 1);
    return true;
}

static void on_answer(luna_op *op)
{
    luna_probe *probe = LUNA_CONTAINER(op, luna_probe, request.w.op);
    luna_look *look = current_look(probe);
    luna_err err = probe->request.w.err;
    luna_report report;
    bool answered = op->status == LUNA_OK, ok = answered && read_report(probe, &report);
    if (answered && !ok)
        luna_err_set(&err, LUNA_EDOWN, "the server's answer to a probe makes no sense");
    luna_request_deinit(&probe->request);
    if (look == NULL)
        return;
    if (ok) {
        look->report = report;
        look_end(look, LUNA_OK);
    } else if (strcmp(err.sqlstate, "42501") == 0 && !probe->humble) {
        probe->humble = true;
        proceed(probe);
    } else if (!look->reconnected) { /* whatever had become of the old connection */
        drop_connection(probe, &err);
        connect_anew(probe);
    } else {
        look_fail(look, &err);
    }
}

static void cancel_request(luna_op *op)
{
    (void)op; /* looks are cancelled, which drops the request */
}

static void ask(luna_probe *probe)
{
    luna_err err;
    luna_request *request = &probe->request;
    *request = (luna_request){
        .kind = LUNA_REQUEST_SIMPLE,
        .sql = probe->humble ? the_least : everything,
        .read_only = true,
    };
    luna_op_start(&request->w.op, probe->cfg.loop, on_answer, cancel_request);
    luna_op_background(&request->w.op);
    probe->sent = luna_loop_clock();
    if (luna_conn_send(probe->conn, request))
        return;
    luna_look *look = current_look(probe);
    luna_err_set(&err, LUNA_EDOWN, "connection lost while a probe was sent");
    drop_connection(probe, &err);
    if (look->reconnected)
        look_fail(look, &err);
    else
        connect_anew(probe);
}

/* Do what the first look in the queue needs next. */
static void proceed(luna_probe *probe)
{
    if (luna_list_empty(&probe->looks))
        return;
    if (probe->conn != NULL && probe->conn->state == LUNA_CONN_IDLE &&
        luna_loop_clock() - probe->conn->opened_at < probe->max_lifetime) {
        ask(probe);
        return;
    }
    luna_err err;
    luna_err_set(&err, LUNA_ECLOSED, "not needed any more");
    drop_connection(probe, &err);
    connect_anew(probe);
}

static void on_opened(luna_conn *conn)
{
    luna_probe *probe = conn->owner_data;
    if (probe != NULL && !luna_list_empty(&probe->looks))
        ask(probe);
}

static void on_idle(luna_conn *conn)
{
    (void)conn; /* on_answer goes on */
}

static void on_closed(luna_conn *conn, const luna_err *why)
{
    luna_probe *probe = conn->owner_data;
    if (probe == NULL)
        return;
    probe->conn = NULL;
    luna_look *look = current_look(probe);
    if (look == NULL || probe->request.w.op.state != LUNA_OP_IDLE)
        return; /* nobody was waiting, or on_answer is to come */
    look_fail(look, why);
}

static const luna_conn_owner probe_as_owner = {
    .opened = on_opened,
    .idle = on_idle,
    .closed = on_closed,
};

/* ---- from outside --------------------------------------------------------------- */

static void set_config(luna_probe *probe, const luna_conn_config *cfg, double max_lifetime)
{
    probe->cfg = *cfg;
    probe->cfg.canceler = NULL;
    probe->max_lifetime = max_lifetime > 0 && max_lifetime < LIFETIME ? max_lifetime : LIFETIME;
}

luna_probe *luna_probe_new(const luna_conn_config *cfg, double max_lifetime)
{
    luna_probe *probe = calloc(1, sizeof(*probe));
    if (probe == NULL)
        abort();
    set_config(probe, cfg, max_lifetime);
    luna_list_init(&probe->looks);
    return probe;
}

void luna_probe_free(luna_probe *probe)
{
    luna_err err;
    luna_err_set(&err, LUNA_ECLOSED, "the probe is closed");
    drop_connection(probe, &err);
    LUNA_LIST_EACH (&probe->looks, it) {
        luna_look *look = LUNA_CONTAINER(it, luna_look, op.link);
        look->probe = NULL;
        look->err = err;
        luna_timer_stop(probe->cfg.loop, &look->timer);
        luna_op_post(&look->op, LUNA_ECLOSED);
    }
    luna_conn_config_deinit(&probe->cfg);
    free(probe);
}

void luna_probe_reconfigure(luna_probe *probe, const luna_conn_config *cfg, double max_lifetime)
{
    luna_err err;
    luna_err_set(&err, LUNA_ECLOSED, "other parameters are to be used");
    drop_connection(probe, &err);
    luna_conn_config_deinit(&probe->cfg);
    set_config(probe, cfg, max_lifetime);
    probe->humble = false;
    proceed(probe);
}

void luna_probe_look(luna_probe *probe, luna_look *look, double deadline, void (*done)(luna_op *op))
{
    look->probe = probe;
    look->reconnected = false;
    look->err = (luna_err){ 0 };
    luna_op_start(&look->op, probe->cfg.loop, done, cancel_look);
    luna_op_background(&look->op);
    luna_timer_start(probe->cfg.loop, &look->timer, deadline, on_deadline);
    bool first = luna_list_empty(&probe->looks);
    luna_list_push(&probe->looks, &look->op.link);
    if (first)
        proceed(probe);
}

void luna_look_abandon(luna_look *look)
{
    luna_probe *probe = look->probe;
    if (probe == NULL) {
        luna_op_abandon(&look->op);
        return;
    }
    luna_err err;
    luna_err_set(&err, LUNA_ECANCELED, "abandoned");
    bool was_current = look == current_look(probe);
    if (was_current)
        drop_connection(probe, &err);
    look->probe = NULL;
    luna_timer_stop(probe->cfg.loop, &look->timer);
    luna_op_abandon(&look->op);
    if (was_current)
        proceed(probe);
}
