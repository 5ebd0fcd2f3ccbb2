/* ring.h - consistent hashing: virtual nodes on a ring of 64-bit points.  Layer: base.
 *
 * Virtual node i of a shard lies at hashtextextended(shard_id, i), so the ring can be
 * recomputed in SQL.  A point belongs to the first virtual node at or after it, and past
 * the last one to the first.  Which shard owns a point depends on the shards' ids and
 * node counts only, not on the order in which they were added. */
#ifndef LUNA_BASE_RING_H
#define LUNA_BASE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define LUNA_RING_MAX_NODES 1000000

typedef struct luna_ring_node {
    uint64_t point;
    const char *shard_id; /* borrowed; decides between equal points, bytewise */
    uint32_t shard;
} luna_ring_node;

/* Zero-initialised is an empty ring. */
typedef struct luna_ring {
    luna_ring_node *nodes; /* in order of points once luna_ring_sort was called */
    size_t n, cap;
} luna_ring;

void luna_ring_deinit(luna_ring *ring);

/* Give shard number `shard` `count` nodes.  `shard_id` must outlive the ring.  On failure
 * (LUNA_ETOOLARGE: more than LUNA_RING_MAX_NODES in all) the ring is unchanged. */
LUNA_MUSTCHECK luna_status luna_ring_add(luna_ring *ring, const char *shard_id, uint32_t shard,
                                         size_t count, luna_err *err);

/* Put the nodes in order; required between the last add and the first luna_ring_owner. */
void luna_ring_sort(luna_ring *ring);

/* The number of the shard that owns `point`.  The ring must not be empty. */
uint32_t luna_ring_owner(const luna_ring *ring, uint64_t point);
#endif
