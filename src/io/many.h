/* many.h - one statement with many sets of parameters, in one exchange.  Layer: io.
 *
 *     [PREPARE] EXECUTE EXECUTE ... sync
 * One sync means one transaction, unless one is open anyway: the first set that fails ends the
 * rest, which the server then passes over.  The sets are packed, for an exchange may have to wait
 * before it is sent. */
#ifndef LUNA_IO_MANY_H
#define LUNA_IO_MANY_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "buf.h"
#include "err.h"

/* Zero-initialised is empty. */
typedef struct luna_many {
    luna_buf sets;
    int n_sets, max_params;
    luna_buf answers; /* of PGresult *, of the sets that were done */
} luna_many;

void luna_many_deinit(luna_many *many);

/* Add a set: values in text or, where formats[i] is 1, in binary; NULL is NULL. */
void luna_many_add(luna_many *many, int n_params, const char *const *values, const int *lengths,
                   const int *formats);

/* Put every set to the statement `name`, or to `sql` unprepared when that is NULL, into the
 * pipeline, and forget answers to an earlier try.  False when libpq refuses. */
LUNA_MUSTCHECK bool luna_many_send(luna_many *many, PGconn *pg, const char *name, const char *sql);

/* The next set was done.  Takes `res`. */
void luna_many_answer(luna_many *many, PGresult *res);

int luna_many_answered(const luna_many *many);
PGresult *luna_many_result(const luna_many *many, int i);
#endif
