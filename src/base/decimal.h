/* decimal.h - exact decimal accumulator.  Layer: base.
 *
 * Adds, subtracts, compares and divides the values of SQL's numeric type with
 * the server's own results: the scale of a sum is the largest scale that went
 * in, NaN is contagious and sorts above everything, Infinity - Infinity is NaN.
 *
 * Zero-initialised is 0 with scale 0 and valid.  Owns its digits until
 * luna_decimal_deinit; they are reused by every later operation, so a running
 * sum allocates only when it outgrows what it has.  Growth aborts when memory
 * is gone. */
#ifndef LUNA_BASE_DECIMAL_H
#define LUNA_BASE_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

typedef enum luna_decimal_kind {
    LUNA_DECIMAL_FINITE = 0,
    LUNA_DECIMAL_INFINITE, /* of either sign */
    LUNA_DECIMAL_NAN,
} luna_decimal_kind;

typedef struct luna_decimal {
    luna_decimal_kind kind;
    bool negative;   /* never set for zero and NaN */
    unsigned scale;  /* decimal digits shown after the point */
    size_t frac;     /* limbs after the point */
    size_t len, cap; /* limbs in use, frac included; limbs allocated */
    uint32_t *limbs; /* base 10^9, least significant first; NULL while cap is 0 */
} luna_decimal;

void luna_decimal_deinit(luna_decimal *d);

void luna_decimal_copy(luna_decimal *to, const luna_decimal *from);

/* Set from an integer; `negative` gives the sign of `magnitude`. */
void luna_decimal_set(luna_decimal *d, uint64_t magnitude, bool negative);

/* Set from the text of a numeric: [-+]digits[.digits], NaN or [-]Infinity.
 * On failure (LUNA_EINVAL, also beyond numeric's own limits) d is unchanged. */
luna_status luna_decimal_parse(luna_decimal *d, const char *text, size_t len,
                               luna_err *err) LUNA_MUSTCHECK;

/* sum += x, or sum -= x.  x is not sum itself. */
void luna_decimal_add(luna_decimal *sum, const luna_decimal *x);
void luna_decimal_sub(luna_decimal *sum, const luna_decimal *x);

/* -1, 0 or 1 by value, in the server's order: -Infinity, finite, Infinity, NaN. */
int luna_decimal_compare(const luna_decimal *a, const luna_decimal *b);

/* Is it a whole number that fits an int64?  Then *v is set. */
bool luna_decimal_to_int64(const luna_decimal *d, int64_t *v);

/* Append the text that the server prints for it. */
void luna_decimal_write(const luna_decimal *d, luna_buf *out);

/* d /= count, with the scale and rounding of the server's numeric division, so
 * that a sum divided by its count is the text of avg().  count is not 0. */
void luna_decimal_divide(luna_decimal *d, uint64_t count);
#endif
