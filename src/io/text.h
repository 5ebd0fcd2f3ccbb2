/* text.h - the text of a statement that is run again and again.  Layer: io.
 *
 * One object for each text and pool, so that a text is hashed and looked at once
 * and known by its address from then on.  It also keeps what was learnt of the
 * statement: may it share a connection, and has it been slow or failed there. */
#ifndef LUNA_IO_TEXT_H
#define LUNA_IO_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "columns.h"

typedef enum luna_sharing {
    LUNA_SHARING_ALONE, /* a connection of its own while it runs */
    LUNA_SHARING_SYNC,  /* shares a connection, with a Sync of its own */
    LUNA_SHARING_BATCH, /* a read that may share its Sync with others too */
} luna_sharing;

typedef struct luna_text {
    char *sql;
    unsigned refs;
    luna_sharing sharing;
    bool repeatable; /* a read that may be run for nothing as well */
    unsigned
        alone_for; /* so many executions more on a connection of its own: it was slow or large */
    unsigned solo_for;     /* so many more with a Sync of its own: it failed in a batch */
    bool changes_state;    /* it names something that outlives the transaction */
    luna_columns *columns; /* on lanes, as last described: its statements there share them */
} luna_text;

/* A copy of `sql` with one reference.  Never NULL. */
luna_text *luna_text_new(const char *sql, size_t len);

luna_text *luna_text_ref(luna_text *text);
/* NULL is allowed. */
void luna_text_unref(luna_text *text);
#endif
