/* sort_key.h - the server's order of values, from their text.  Layer: base.
 *
 * A key is what a value of a column is compared by: decoded once for each row,
 * then compared often.  Texts are those of a session of ours: ISO dates, hex
 * bytea, UTF8.  A key of digits or bytes points into the text it was made of. */
#ifndef LUNA_BASE_SORT_KEY_H
#define LUNA_BASE_SORT_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What can be compared with each other. */
typedef enum luna_sort_family {
    LUNA_SORT_INTEGER,
    LUNA_SORT_FLOAT,
    LUNA_SORT_NUMERIC,
    LUNA_SORT_BOOL,
    LUNA_SORT_BYTES,  /* as they are: text under "C", name, uuid, bytea in hex, time */
    LUNA_SORT_PADDED, /* char(n): trailing blanks do not count */
    LUNA_SORT_DATE,
    LUNA_SORT_TIMESTAMP,
    LUNA_SORT_TIMESTAMPTZ,
} luna_sort_family;

typedef struct luna_sort_key {
    bool is_null;
    bool is_bytes; /* compare `bytes`; otherwise `rank`, then, if equal, `digits` of a numeric */
    bool is_float; /* compare `f` */
    int64_t rank;  /* integer, microseconds; of a numeric: sign and exponent */
    double f;
    const char *bytes; /* bytes, or the significant digits of a numeric, which may hold a point */
    size_t n;
} luna_sort_key;

/* Make a key of a value that is not NULL.  False when the text is not one of the
 * family; `key` is then undefined. */
bool luna_sort_key_make(luna_sort_key *key, luna_sort_family family, const char *text, size_t n);

/* Below 0, 0, above 0: the order of two keys of one family, neither NULL. */
int luna_sort_key_compare(const luna_sort_key *a, const luna_sort_key *b);
#endif
