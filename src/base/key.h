/* key.h - routing keys in canonical form.  Layer: base.
 *
 * Whatever form a key arrives in (a double, an int64, text), equal keys become
 * equal luna_keys and hash alike: 42, 42.0, "42" and "+042" are one int8 key,
 * a UUID is its 16 bytes, a date its day number.  What PostgreSQL would not
 * take as a value of the type is refused, never guessed; nothing here loses a
 * digit.  Pure functions; a text key borrows the caller's bytes. */
#ifndef LUNA_BASE_KEY_H
#define LUNA_BASE_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define LUNA_KEY_MAX_COLUMNS 32 /* as in PostgreSQL's PARTITION BY HASH */

typedef enum luna_key_type {
    LUNA_KEY_ANY, /* int8 for numbers, text for strings */
    LUNA_KEY_INT8,
    LUNA_KEY_TEXT,
    LUNA_KEY_UUID,
    LUNA_KEY_DATE,
} luna_key_type;

typedef struct luna_key {
    luna_key_type type; /* never LUNA_KEY_ANY */
    int64_t number;     /* int8: the value; date: days since 2000-01-01 */
    const char *text;   /* text: borrowed */
    size_t len;
    unsigned char uuid[16];
} luna_key;

/* "int8" and so on; and back, where an unknown name gives LUNA_EINVAL. */
const char *luna_key_type_name(luna_key_type type);
LUNA_MUSTCHECK luna_status luna_key_type_parse(const char *name, luna_key_type *type,
                                               luna_err *err);

/* Set `key` from a value, as a key of `type`.  LUNA_ENULLKEY for NaN, LUNA_EINVAL for
 * a value that is not of the type, with a message that quotes it; then `key` is
 * undefined.  A double beyond 2^53 is refused, for it may stand for its neighbours. */
LUNA_MUSTCHECK luna_status luna_key_from_double(luna_key *key, luna_key_type type, double value,
                                                luna_err *err);
LUNA_MUSTCHECK luna_status luna_key_from_int64(luna_key *key, luna_key_type type, int64_t value,
                                               luna_err *err);
LUNA_MUSTCHECK luna_status luna_key_from_uint64(luna_key *key, luna_key_type type, uint64_t value,
                                                luna_err *err);
LUNA_MUSTCHECK luna_status luna_key_from_text(luna_key *key, luna_key_type type, const char *text,
                                              size_t len, luna_err *err);

/* Order of two keys of one type: numbers by value, text and uuid by bytes. */
int luna_key_compare(const luna_key *a, const luna_key *b);

/* The hash of one column's key, as PARTITION BY HASH computes it. */
uint64_t luna_key_hash(const luna_key *key);

/* The hash of a row with these 1 to 32 key columns, as PARTITION BY HASH computes it. */
uint64_t luna_key_row_hash(const luna_key *keys, size_t n);

/* Canonical text: decimal digits, the text, lower-case UUID, YYYY-MM-DD.  Writes at most `cap`
 * bytes with their NUL and returns the length; a text key is not copied (returns its length). */
size_t luna_key_format(const luna_key *key, char *buf, size_t cap);
#define LUNA_KEY_FORMAT_MAX 48
#endif
