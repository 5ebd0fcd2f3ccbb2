/* id.h - unique ids in order of time that carry a shard.  Layer: base.
 *
 * After Instagram's scheme ("Sharding & IDs at Instagram"), from the top bit down:
 *
 *   LUNA_ID_64   41 bits ms since the epoch | 13 bits shard | 10 bits worker and sequence
 *   LUNA_ID_53   40 bits ms since the epoch |  7 bits shard |  6 bits worker and sequence
 *
 * The second stays within 2^53, exact in every JSON reader and Lua number.  Both are positive as
 * int8 for 2^40 ms (34.8 years); then next fails instead of turning negative.  Workers (processes
 * that make ids for one shard at the same time) are told apart by `worker_bits` bits off the
 * sequence's top.
 *
 * One generator never repeats an id and never goes back: when the clock does, it stays at its last
 * millisecond, and when a millisecond's sequence is used up it borrows from the next. */
#ifndef LUNA_BASE_ID_H
#define LUNA_BASE_ID_H

#include <stdint.h>

#include "err.h"

typedef enum luna_id_layout { LUNA_ID_64, LUNA_ID_53 } luna_id_layout;

typedef struct luna_id_options {
    luna_id_layout layout;
    int64_t epoch_ms; /* Unix time of id 0 */
    uint32_t shard;
    uint32_t worker;
    uint32_t worker_bits;
} luna_id_options;

typedef struct luna_id_parts {
    int64_t time_ms; /* Unix time */
    uint32_t shard;
    uint32_t worker;
    uint32_t sequence;
} luna_id_parts;

typedef struct luna_id_generator {
    luna_id_options options;
    int64_t last_ms; /* since the epoch, of the last id; -1 before the first */
    uint32_t sequence;
} luna_id_generator;

/* LUNA_EINVAL, naming the option, when a part does not fit its bits. */
LUNA_MUSTCHECK luna_status luna_id_init(luna_id_generator *gen, const luna_id_options *options,
                                        luna_err *err);

/* The next id for the wall clock `now_ms` (Unix time).  LUNA_EINVAL when the time lies before the
 * epoch or 2^40 ms after it; the generator is then unchanged. */
LUNA_MUSTCHECK luna_status luna_id_next(luna_id_generator *gen, int64_t now_ms, int64_t *id,
                                        luna_err *err);

/* Let no id at or below `id` be made: for a restart while the clock may have gone back. */
void luna_id_advance(luna_id_generator *gen, int64_t id);

/* Take an id apart by the layout, epoch and worker bits of `options`. */
luna_id_parts luna_id_decode(const luna_id_options *options, int64_t id);
#endif
