/* statements.h - the prepared statements of one connection, by text.  Layer: io.
 *
 * A bounded table with least-recently-used eviction.  It only keeps the books:
 * the connection prepares and deallocates. */
#ifndef LUNA_IO_STATEMENTS_H
#define LUNA_IO_STATEMENTS_H

#include <stdbool.h>

#include "list.h"
#include "text.h"

typedef struct luna_statement {
    luna_list recent; /* most recently used last */
    struct luna_statement *chain;
    luna_text *text;
    char name[16];         /* on the server */
    bool sent;             /* the server has been asked to prepare it */
    bool prepared;         /* and has confirmed it */
    bool forgotten;        /* out of the table; freed when `users` is 0 */
    unsigned users;        /* executions in flight */
    bool described;        /* what it gives is known; the server refuses to give anything else */
    luna_columns *columns; /* NULL: no rows */
} luna_statement;

typedef struct luna_statements {
    luna_statement **slots;
    unsigned n_slots, count, max, next_id;
    luna_list recent;
} luna_statements;

/* `max` may be 0: nothing is ever added then. */
void luna_statements_init(luna_statements *cache, unsigned max);
void luna_statements_deinit(luna_statements *cache);

/* The entry for `text`, now the most recent; NULL when there is none. */
luna_statement *luna_statements_find(luna_statements *cache, const luna_text *text);

/* A new entry, not yet prepared.  The caller evicts first when full. */
luna_statement *luna_statements_add(luna_statements *cache, luna_text *text);

bool luna_statements_are_full(const luna_statements *cache);

/* The least recently used entry that is not in flight; NULL when there is none. */
luna_statement *luna_statements_oldest(const luna_statements *cache);

/* Forget an entry, or all.  Those in flight live on until they are released. */
void luna_statements_remove(luna_statements *cache, luna_statement *statement);
void luna_statements_clear(luna_statements *cache);

/* An execution has ended.  NULL is allowed. */
void luna_statement_release(luna_statement *statement);
#endif
