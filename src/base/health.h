/* health.h - how an endpoint does: the state machine behind its health record.  Layer: base.
 *
 * Two kinds of signals come in: how statements fared (passive), and what probes found.  Statements
 * are many, come late and fail for reasons of their own, so that they only arouse suspicion; it
 * is a probe that opens the circuit, and one that closes it again.  Without any probe, statements
 * decide alone.
 *
 * Nothing here looks at a clock, waits or allocates; the caller owns the struct.  Functions that
 * may change status or circuit return true when they did. */
#ifndef LUNA_BASE_HEALTH_H
#define LUNA_BASE_HEALTH_H

#include <stdbool.h>

typedef enum luna_health_status {
    LUNA_HEALTH_UNCHECKED, /* nothing is known; neither healthy nor unhealthy */
    LUNA_HEALTH_HEALTHY,
    LUNA_HEALTH_DEGRADED,   /* in use, but it has failed of late */
    LUNA_HEALTH_UNHEALTHY,  /* the circuit is not closed */
    LUNA_HEALTH_RECOVERING, /* in use again, not yet for long enough to be trusted */
} luna_health_status;

typedef enum luna_circuit {
    LUNA_CIRCUIT_CLOSED,    /* work may be sent there */
    LUNA_CIRCUIT_OPEN,      /* no work */
    LUNA_CIRCUIT_HALF_OPEN, /* no work but one probe, whose outcome closes or opens it */
} luna_circuit;

typedef struct luna_health {
    luna_health_status status;
    luna_circuit circuit;
    unsigned limit;     /* failures in a row that make it unhealthy */
    unsigned failures;  /* in a row */
    unsigned successes; /* in a row, as far as they matter */
    double latency;     /* moving average in seconds; 0 before the first success */
    double error_rate;  /* moving average, 0 to 1 */
    bool probed;        /* there was one */
    bool probe_failed;  /* the last one */
} luna_health;

/* Successes in a row that end `degraded` and `recovering`. */
#define LUNA_HEALTH_STEADY 3

/* Share of failures from which on it is degraded, and below which it no longer is. */
#define LUNA_HEALTH_TOO_MANY 0.25
#define LUNA_HEALTH_FEW 0.125

/* `limit` is 1 or more. */
void luna_health_init(luna_health *health, unsigned limit);

/* A statement was answered; `seconds` that it took, or a negative number. */
bool luna_health_success(luna_health *health, double seconds);

/* A statement failed for a reason that speaks against the endpoint. */
bool luna_health_failure(luna_health *health);

/* A probe is sent off. */
bool luna_health_probe_begins(luna_health *health);

/* It was answered. */
bool luna_health_probe_success(luna_health *health, double seconds);

/* It was not.  `certain`: unhealthy at once, however few failures there were. */
bool luna_health_probe_failure(luna_health *health, bool certain);

/* The server turned it away for being full: it is there, and what is connected to it may go on. */
bool luna_health_probe_refused(luna_health *health);
#endif
