/* conn.h - one PostgreSQL connection: connect, exchange, cancel, close.  Layer: io.
 *
 * A connection runs one exchange at a time and belongs to an owner (the pool),
 * which it tells what happens.  It is freed by itself some time after `closed`;
 * the owner drops its pointer there.
 *
 * Or it is a lane (lane.h), on which statements of many tasks are under way.
 *
 * conn.c connects and closes, exchange.c asks, answer.c listens.  Everything here is called
 * from the loop's thread. */
#ifndef LUNA_IO_CONN_H
#define LUNA_IO_CONN_H

#include "cancel.h"
#include "channel.h"
#include "lane.h"
#include "loop.h"
#include "request.h"
#include "resolve.h"
#include "statements.h"
#include "timer.h"
#include "wire.h"

typedef struct luna_conn_owner {
    void (*opened)(luna_conn *conn);                      /* ready for its first exchange */
    void (*idle)(luna_conn *conn);                        /* ready for the next one */
    void (*closed)(luna_conn *conn, const luna_err *why); /* gone, or never came up */
    /* of lanes: this request was undone for another's sake, run it again; there is room for more */
    void (*again)(luna_conn *conn, luna_request *request);
    void (*progress)(luna_conn *conn);
} luna_conn_owner;

typedef struct luna_conn_config {
    luna_loop *loop;
    luna_resolver *resolver;
    luna_canceler *canceler;     /* NULL: what runs is just left when the connection is closed */
    const char *const *keywords; /* for PQconnectStartParams; without hostaddr */
    const char *const *values;
    const char *host;     /* name, address or socket directory */
    const char *endpoint; /* "host:port", for messages */
    double connection_timeout;
    unsigned statement_cache;
    double slow_statement; /* seconds; what takes longer leaves shared connections */
    uint64_t *cancels; /* counts what the server is asked to cancel; NULL: nobody wants to know */
} luna_conn_config;

struct luna_conn {
    luna_list link;        /* the owner's: in one of its lists */
    luna_list *owner_list; /* the list that `link` is in */
    void *owner_data;
    luna_waiter *lease; /* who has it for longer than an exchange, or NULL */
    double started_at, opened_at, idle_since, expires_at;

    const luna_conn_config *cfg;
    const luna_conn_owner *owner;
    PGconn *pg;
    ev_io io;
    luna_timer timer; /* while connecting or resetting: the timeout; while cancelling: the grace */
    luna_resolve lookup;
    struct luna_errand *cancel; /* a cancel request under way */
    luna_statements statements;
    luna_request *request; /* the one that runs; NULL when nobody waits for it any more */
    luna_request *next;    /* of the lease; waits for an abandoned exchange to drain */
    luna_statement *executing, *guard; /* NULL: not in the table of statements */
    luna_wire wire;                    /* reads the rows of a stream */
    luna_channel channel;              /* of a lane */
    luna_lane lane;
    enum {
        LUNA_CONN_RESOLVING,
        LUNA_CONN_CONNECTING,
        LUNA_CONN_IDLE,
        LUNA_CONN_BUSY,      /* an exchange runs */
        LUNA_CONN_STREAMING, /* rows are left to fetch; reading is paused between fetches */
        LUNA_CONN_COPYING,   /* the server waits for COPY data */
        LUNA_CONN_SHARED,    /* a lane with statements under way */
        LUNA_CONN_CLOSED,
    } state;
    unsigned deallocating; /* what comes first in this exchange, each up to a sync of its own */
    unsigned guarding;     /* results of the guard that are to come, its preparation's among them */
    bool to_prepare;       /* the next result belongs to the preparation */
    bool pipelined;        /* this exchange ends with a sync */
    bool copying_out;      /* what streams is COPY data */
    bool state_changed;    /* the session is not as it was: reset before others use it */
    bool plans_changed;    /* somebody prepared or deallocated by SQL */
    bool resetting;        /* runs the reset; no request */
    bool reset_failed;
    bool resend;         /* the statement was stale: prepare it anew and run it again */
    bool in_transaction; /* when the exchange began */
    bool fatal;          /* the request's error ends the session, or says that it has ended */
    bool unreplicated;   /* the server has ended a commit's wait for its synchronous standbys */
    bool lookup_pending;
    unsigned graces; /* that a cancelled statement was given */
    unsigned bursts; /* reads of this exchange after the first */
    size_t received; /* bytes in those reads, roughly */
};

/* pool_settings.c: free what it points to; the password is wiped. */
void luna_conn_config_deinit(const luna_conn_config *cfg);

/* Start connecting.  cfg and owner must outlive the connection.  Never NULL. */
luna_conn *luna_conn_open(const luna_conn_config *cfg, const luna_conn_owner *owner, void *data);

/* Has the server been asked to cancel what runs there, and not answered yet? */
bool luna_conn_is_cancelling(const luna_conn *conn);

/* Close it now: a running request ends (UNKNOWN_OUTCOME when it may have had
 * its effect), the server is asked to stop, `closed` is called last. */
void luna_conn_close(luna_conn *conn, const luna_err *why);

/* Why the request cannot follow what the connection is doing, or NULL. */
const char *luna_conn_obstacle(const luna_conn *conn, const luna_request *request);

/* The form in which a server keeps a password (SCRAM-SHA-256), so that the password itself is never
 * sent to it.  `out` takes it with its NUL; 256 bytes are plenty.  Takes some milliseconds of
 * computing; asks the server nothing. */
LUNA_MUSTCHECK luna_status luna_conn_encrypt_password(luna_conn *conn, const char *password,
                                                      char *out, size_t size, luna_err *err);

/* Run a request on an idle connection (or after the drain of an abandoned
 * exchange).  false when nothing was sent because the connection is broken: the
 * caller closes it and may run the request elsewhere. */
LUNA_MUSTCHECK bool luna_conn_send(luna_conn *conn, luna_request *request);

/* Its deadline passed, or nobody wants it any more.  `status` says which. */
void luna_conn_expire(luna_conn *conn, luna_request *request, luna_status status);

/* What such a request is doing, for messages: "timed out while ...". */
const char *luna_conn_phase(const luna_conn *conn, const luna_request *request);

/* Bring the session back to what it was when it was opened; `idle` follows.  It
 * is closed when that takes longer than a new connection may. */
void luna_conn_reset(luna_conn *conn);

/* Has the server closed or said something behind our back?  For idle connections. */
bool luna_conn_is_stale(const luna_conn *conn);

/* End a stream early: cancel what still runs, read and drop the rest.  A fetch
 * that waits ends with LUNA_ECLOSED. */
void luna_conn_abandon(luna_conn *conn);

/* The drain is over: run what waited for it, or tell the owner. */
void luna_conn_idle_again(luna_conn *conn);

/* answer.c: what conn.c hands on when the socket is readable. */
void luna_exchange_read(luna_conn *conn);
/* An error of this SQLSTATE, raised by this function of the server: it dropped or changed a
 * prepared statement behind our back. */
bool luna_is_stale_plan(const char *sqlstate, const char *where);
/* A notice raised by this function of the server, or NULL. */
void luna_conn_note(luna_conn *conn, const char *where);
/* exchange.c: DEALLOCATE in the pipeline. */
LUNA_MUSTCHECK bool luna_send_deallocate(luna_conn *conn, const luna_statement *statement);
/* What was committed without its standbys is lost when one of them becomes the primary. */
void luna_take_doubt(const luna_conn *conn, luna_request *request);
void luna_too_large(const luna_request *request, luna_err *err);
/* conn.c: it ends while `request` runs, `midway` if it was sent. */
void luna_conn_fail_request(const luna_conn *conn, luna_request *request, const luna_err *why,
                            bool midway);
/* Send what libpq has buffered and watch the socket accordingly; false when it is lost. */
bool luna_conn_flush(luna_conn *conn);
/* The connection is lost: `what` it was doing, with libpq's message. */
void luna_conn_lost(luna_conn *conn, const char *what);
/* Ask the server to cancel; the connection drains until the answer is complete. */
void luna_conn_cancel(luna_conn *conn);
#endif
