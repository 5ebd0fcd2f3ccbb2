/* statements.h - the prepared statements of one connection, by text.  Layer: io.
 *
 * A bounded table with least-recently-used eviction.  It only keeps the books:
 * the connection prepares and deallocates. */
#ifndef LUNA_IO_STATEMENTS_H
#define LUNA_IO_STATEMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "list.h"

typedef struct luna_statement {
    luna_list recent; /* most recently used last */
    struct luna_statement *chain;
    uint64_t hash;
    unsigned id;        /* its name on the server is "luna<id>" */
    bool prepared;      /* the server has confirmed it */
    bool changes_state; /* its text names something that outlives the transaction */
    char *sql;
} luna_statement;

typedef struct luna_statements {
    luna_statement **slots;
    unsigned n_slots, count, max, next_id;
    luna_list recent;
} luna_statements;

/* `max` may be 0: nothing is ever added then. */
void luna_statements_init(luna_statements *cache, unsigned max);
void luna_statements_deinit(luna_statements *cache);

/* The entry for `sql`, now the most recent; NULL when there is none. */
luna_statement *luna_statements_find(luna_statements *cache, const char *sql);

/* A new entry, not yet prepared.  `sql` is copied.  The caller evicts first when full. */
luna_statement *luna_statements_add(luna_statements *cache, const char *sql);

/* The least recently used entry when the cache is full, otherwise NULL. */
luna_statement *luna_statements_oldest_if_full(luna_statements *cache);

/* Forget an entry, or all. */
void luna_statements_remove(luna_statements *cache, luna_statement *statement);
void luna_statements_clear(luna_statements *cache);
#endif
