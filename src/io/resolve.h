/* resolve.h - host names to addresses without blocking, by c-ares.  Layer: io.
 *
 * libpq would look names up itself, and block the loop while it does; so names
 * are resolved here first and libpq is given numeric addresses only. */
#ifndef LUNA_IO_RESOLVE_H
#define LUNA_IO_RESOLVE_H

#include "loop.h"

typedef struct luna_resolver luna_resolver;

/* One lookup; embedded by the caller, who keeps it alive until `op` is done. */
typedef struct luna_resolve {
    luna_op op;
    char addresses[512]; /* on LUNA_OK: comma-separated numeric addresses, best first, at least
                            one; those that do not fit are left out */
    int count;           /* how many */
    luna_err err;        /* when op.status is not LUNA_OK */
    void *impl;
} luna_resolve;

/* The resolver of a loop; NULL and a filled `err` when c-ares cannot start.
 * The system's resolver configuration is read here, once. */
luna_resolver *luna_resolver_new(luna_loop *loop, luna_err *err);
/* Outstanding lookups complete with LUNA_ECANCELED, by way of the loop, and
 * must not be freed before that.  NULL is allowed. */
void luna_resolver_free(luna_resolver *resolver);

/* Ask these servers from now on ("10.0.0.2,10.0.0.3:8600"), NULL: those of the
 * system.  Lookups under way fail with LUNA_EDOWN.  On failure (LUNA_EINVAL)
 * the servers stay as they are. */
LUNA_MUSTCHECK luna_status luna_resolver_use(luna_resolver *resolver, const char *servers,
                                             luna_err *err);

/* Start looking up `host` (copied).  A numeric address completes with itself.
 * Both families are asked for, in the order of preference of RFC 6724.
 * Fails with LUNA_EDOWN (no such host, no answer) or LUNA_ETIMEOUT after
 * `timeout` seconds.  op.user is free for the caller. */
void luna_resolve_start(luna_resolver *resolver, luna_resolve *lookup, const char *host,
                        double timeout, void (*done)(luna_op *op));
#endif
