/* range.h - disjoint ranges of keys, each owned by a shard.  Layer: base.
 *
 * Bounds are keys of one type (int8, date, text by bytes).  A lower bound is inclusive, an upper
 * one inclusive or exclusive; a missing one is open.  Overlaps are refused, and gaps between
 * ranges unless allowed: what lies before the first or after the last range is no gap. */
#ifndef LUNA_BASE_RANGE_H
#define LUNA_BASE_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "key.h"

typedef struct luna_range {
    bool has_low, has_high;
    bool high_exclusive;
    luna_key low, high;
    uint32_t shard;
    uint32_t index; /* position in the array given to init; set by init */
} luna_range;

/* Zero-initialised is empty; owns its ranges and their texts. */
typedef struct luna_range_set {
    luna_range *ranges; /* in ascending order */
    size_t n;
    char *texts;
} luna_range_set;

typedef enum luna_range_fault {
    LUNA_RANGE_SOUND,
    LUNA_RANGE_EMPTY,   /* range `a` holds no key */
    LUNA_RANGE_OVERLAP, /* ranges `a` and `b` share a key */
    LUNA_RANGE_GAP,     /* keys lie between range `a` and its successor `b` */
} luna_range_fault;

/* Copy and order `n` ranges.  A fault other than SOUND leaves the set empty and puts the 0-based
 * positions of the ranges concerned into `a` and `b`, in key order. */
LUNA_MUSTCHECK luna_range_fault luna_range_set_init(luna_range_set *set, const luna_range *ranges,
                                                    size_t n, bool allow_gaps, size_t *a,
                                                    size_t *b);
void luna_range_set_deinit(luna_range_set *set);

/* The range that holds `key`, or NULL.  The key must be of the set's type. */
const luna_range *luna_range_find(const luna_range_set *set, const luna_key *key);

/* The ranges that hold any key of low..high (both inclusive; NULL is open): their number, and
 * through `first` the position of the first in set->ranges. */
size_t luna_range_span(const luna_range_set *set, const luna_key *low, const luna_key *high,
                       size_t *first);
#endif
