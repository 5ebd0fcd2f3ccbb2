/* ring.c - a sorted array of points and a binary search. */
#include "ring.h"

#include <stdlib.h>
#include <string.h>

#include "hash.h"

void luna_ring_deinit(luna_ring *ring)
{
    free(ring->nodes);
    memset(ring, 0, sizeof(*ring));
}

luna_status luna_ring_add(luna_ring *ring, const char *shard_id, uint32_t shard, size_t count,
                          luna_err *err)
{
    if (count > LUNA_RING_MAX_NODES || ring->n + count > LUNA_RING_MAX_NODES)
        return luna_err_set(err, LUNA_ETOOLARGE, "more than %d virtual nodes", LUNA_RING_MAX_NODES);
    if (ring->n + count > ring->cap) {
        size_t cap = (ring->n + count) * 2;
        luna_ring_node *nodes = realloc(ring->nodes, cap * sizeof(*nodes));
        if (nodes == NULL)
            abort();
        ring->nodes = nodes;
        ring->cap = cap;
    }
    size_t len = strlen(shard_id);
    for (size_t i = 0; i < count; i++) {
        luna_ring_node *node = &ring->nodes[ring->n++];
        node->point = luna_hash_bytes(shard_id, len, i);
        node->shard_id = shard_id;
        node->shard = shard;
    }
    return LUNA_OK;
}

static int compare_nodes(const void *left, const void *right)
{
    const luna_ring_node *a = left, *b = right;
    if (a->point != b->point)
        return a->point < b->point ? -1 : 1;
    return strcmp(a->shard_id, b->shard_id);
}

void luna_ring_sort(luna_ring *ring)
{
    if (ring->n > 1)
        qsort(ring->nodes, ring->n, sizeof(*ring->nodes), compare_nodes);
}

uint32_t luna_ring_owner(const luna_ring *ring, uint64_t point)
{
    size_t low = 0, high = ring->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ring->nodes[middle].point < point)
            low = middle + 1;
        else
            high = middle;
    }
    return ring->nodes[low == ring->n ? 0 : low].shard;
}
