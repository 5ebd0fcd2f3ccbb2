/* probe.h - looking at one endpoint, over a connection of its own.  Layer: io.
 *
 * A look never waits behind statements, and is over at its deadline whatever the server does: one
 * that hangs loses the connection.  Between looks the connection stays open; that it was lost
 * meanwhile says nothing about the server, so a new one is tried before the look fails.  Nothing
 * here is counted as live by the loop. */
#ifndef LUNA_IO_PROBE_H
#define LUNA_IO_PROBE_H

#include "conn.h"

typedef struct luna_probe luna_probe;

/* What a server says of itself.  Numbers that it did not give are NAN. */
typedef struct luna_report {
    double latency; /* seconds, without connecting */
    bool in_recovery;
    bool streaming;    /* a standby: it is connected to its primary */
    bool managed;      /* the database is a shard of a cluster with a catalog */
    double timeline;   /* of a standby: that of which it knows, maybe an old one */
    double lsn;        /* bytes: written by a primary, replayed by a standby */
    double received;   /* of a standby */
    double replay_age; /* seconds since the last transaction that it replayed was committed */
    char system_identifier[24], started[32], encoding[24]; /* empty: it did not say */
} luna_report;

/* One look; embedded by the caller, alive until `op` is done. */
typedef struct luna_look {
    luna_op op; /* op.link: in the probe's queue */
    luna_timer timer;
    luna_probe *probe;
    luna_report report; /* on LUNA_OK */
    luna_err err;       /* otherwise */
    bool reconnected;   /* the connection is this look's own */
} luna_look;

/* Takes what `cfg` points to; it needs no canceler.  Never NULL.  Connects with the first look, and
 * anew with the first after max_lifetime seconds, or a minute if that is less. */
luna_probe *luna_probe_new(const luna_conn_config *cfg, double max_lifetime);

/* Looks under way end with LUNA_ECLOSED. */
void luna_probe_free(luna_probe *probe);

/* Connect with these parameters from now on. */
void luna_probe_reconfigure(luna_probe *probe, const luna_conn_config *cfg, double max_lifetime);

/* Start a look.  One at a time: others wait for those before them, until their own deadline
 * (luna_loop_clock).  Fails with LUNA_ETIMEOUT when the server does not answer, LUNA_EDOWN when
 * it cannot be connected to, and what else a connection or a query may fail with. */
void luna_probe_look(luna_probe *probe, luna_look *look, double deadline,
                     void (*done)(luna_op *op));

/* The storage of a look goes away: no completion. */
void luna_look_abandon(luna_look *look);
#endif
