/* pgtext.h - PostgreSQL's text formats: numbers, bytea, arrays, COPY.  Layer: base.
 *
 * What the server prints becomes bytes and numbers here, and the other way
 * round.  Inputs are counted bytes and need no NUL at their end.  Every
 * luna_pg_add_* appends to `out`; nothing here keeps a pointer but the array
 * iterator, which says so. */
#ifndef LUNA_BASE_PGTEXT_H
#define LUNA_BASE_PGTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

/* An int2, int4 or int8 as the server prints it.  False, and `*value` is left
 * alone, for anything but an optional minus and digits within int64's range. */
bool luna_pg_parse_int8(const char *text, size_t n, int64_t *value);

/* Decimal digits; returns the length, `text` ends with NUL. */
#define LUNA_PG_INT8_MAX 24
size_t luna_pg_format_int8(int64_t value, char text[LUNA_PG_INT8_MAX]);

/* Room for any double as text, the 309 digits of the largest one included. */
#define LUNA_PG_DOUBLE_MAX 320

/* A double as SQL text that the server reads back as the same double: integral
 * ones in full, without exponent or fraction, so that they are integers to SQL
 * as well; others with the fewest digits of %g that keep the value; "NaN",
 * "Infinity", "-Infinity", "-0".  Returns the length; `text` ends with NUL. */
size_t luna_pg_format_double(double value, char text[LUNA_PG_DOUBLE_MAX]);

/* ---- bytea ---- */

/* The bytes of a bytea, in hex or in escape format.  False for malformed
 * text; `out` then keeps its length. */
bool luna_pg_add_bytea_bytes(luna_buf *out, const char *text, size_t n);

/* The bytea literal of `n` bytes, in hex format, unquoted. */
void luna_pg_add_bytea_text(luna_buf *out, const void *bytes, size_t n);

/* ---- arrays ---- */

typedef enum luna_pg_array_shape {
    LUNA_PG_ARRAY_FLAT,      /* one dimension counted from 1, or empty */
    LUNA_PG_ARRAY_NOT_FLAT,  /* more dimensions, or bounds such as [0:1]={..} */
    LUNA_PG_ARRAY_MALFORMED, /* not what array_out prints */
} luna_pg_array_shape;

/* Iterator over a flat array.  Points into the text it was opened on. */
typedef struct luna_pg_array {
    const char *at, *end;
    luna_buf scratch;
    const char *element; /* valid until the next call */
    size_t len;
    bool is_null;
} luna_pg_array;

/* Look at the whole text first, so that a caller who gets FLAT meets no
 * surprise halfway through.  Whatever the shape, `array` may be closed. */
luna_pg_array_shape luna_pg_array_open(luna_pg_array *array, const char *text, size_t n);

/* Step to the next element; false at the end. */
bool luna_pg_array_next(luna_pg_array *array);
void luna_pg_array_close(luna_pg_array *array);

/* Writer of array literals, nested ones included:
 * begin, (element | null | begin ... end)*, end. */
typedef struct luna_pg_array_writer {
    luna_buf *out;
    bool comma; /* something stands before the next element */
} luna_pg_array_writer;

void luna_pg_array_begin(luna_pg_array_writer *writer);
void luna_pg_array_element(luna_pg_array_writer *writer, const char *bytes, size_t n);
void luna_pg_array_null(luna_pg_array_writer *writer);
void luna_pg_array_end(luna_pg_array_writer *writer);

/* ---- COPY's text format ---- */

/* One field; the caller adds the tabs between fields and the newline. */
void luna_pg_add_copy_field(luna_buf *out, const char *bytes, size_t n);
void luna_pg_add_copy_null(luna_buf *out);

/* ---- UTF-8 ---- */

/* Where the first byte stands that a UTF8 database refuses (NUL included), or
 * `n` when there is none. */
size_t luna_utf8_check(const char *bytes, size_t n);
#endif
