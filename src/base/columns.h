/* columns.h - what the rows of an answer consist of.  Layer: base.
 *
 * Never changed once made, and shared by everybody who holds a reference. */
#ifndef LUNA_BASE_COLUMNS_H
#define LUNA_BASE_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct luna_column {
    char *name;
    uint32_t type; /* OID */
} luna_column;

typedef struct luna_columns {
    unsigned refs;
    int n;
    luna_column at[];
} luna_columns;

/* `n` columns, to be set before they are shared; with one reference.  Never NULL. */
luna_columns *luna_columns_new(int n);
void luna_columns_set(luna_columns *columns, int i, const char *name, uint32_t type);

/* From the body of a RowDescription; NULL when it makes no sense. */
luna_columns *luna_columns_read(const char *body, size_t len);

bool luna_columns_equal(const luna_columns *a, const luna_columns *b);

luna_columns *luna_columns_ref(luna_columns *columns);
/* NULL is allowed. */
void luna_columns_unref(luna_columns *columns);
#endif
