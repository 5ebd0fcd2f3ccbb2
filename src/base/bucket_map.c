/* bucket_map.c - filling the map by each placement. */
#include "bucket_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ring.h"

/* Bucket b's arc of the ring begins at b * 2^64 / LUNA_BUCKETS. */
#define ARC_SHIFT 50

void luna_bucket_map_deinit(luna_bucket_map *map)
{
    free(map->owner);
    memset(map, 0, sizeof(*map));
}

static luna_status check_shards(const luna_weighted_shard *shards, size_t n, luna_err *err)
{
    if (n < 1 || n > LUNA_MAX_SHARDS)
        return luna_err_set(err, LUNA_EINVAL, "%zu shards: must be 1 to %d", n, LUNA_MAX_SHARDS);
    for (size_t i = 0; shards != NULL && i < n; i++) {
        if (!isfinite(shards[i].weight) || shards[i].weight <= 0)
            return luna_err_set(err, LUNA_EINVAL,
                                "weight of shard \"%s\" is %.14g: must be above 0",
                                shards[i].shard_id, shards[i].weight);
    }
    return LUNA_OK;
}

static void map_alloc(luna_bucket_map *map, size_t buckets, size_t shards)
{
    map->owner = malloc(buckets * sizeof(*map->owner));
    if (map->owner == NULL)
        abort();
    map->buckets = (uint32_t)buckets;
    map->shards = (uint32_t)shards;
    map->reciprocal = UINT64_MAX / buckets;
}

luna_status luna_bucket_map_hash(luna_bucket_map *map, size_t shards, luna_err *err)
{
    luna_status st = check_shards(NULL, shards, err);
    if (st != LUNA_OK)
        return st;
    map_alloc(map, shards * ((LUNA_BUCKETS + shards - 1) / shards), shards);
    for (uint32_t b = 0; b < map->buckets; b++)
        map->owner[b] = (uint16_t)(b % shards);
    return LUNA_OK;
}

luna_status luna_bucket_map_ring(luna_bucket_map *map, const luna_weighted_shard *shards, size_t n,
                                 unsigned virtual_nodes, luna_err *err)
{
    luna_ring ring = { 0 };
    luna_status st = check_shards(shards, n, err);
    if (st != LUNA_OK)
        return st;
    for (size_t i = 0; i < n; i++) {
        /* Compared as a double first: a huge weight must not overflow the count. */
        double nodes = floor(virtual_nodes * shards[i].weight + 0.5);
        if (nodes < 1) {
            st = luna_err_set(err, LUNA_EINVAL,
                              "weight %.14g of shard \"%s\" leaves it no virtual node of %u",
                              shards[i].weight, shards[i].shard_id, virtual_nodes);
            goto out;
        }
        if (nodes > LUNA_RING_MAX_NODES)
            nodes = LUNA_RING_MAX_NODES + 1.0;
        st = luna_ring_add(&ring, shards[i].shard_id, (uint32_t)i, (size_t)nodes, err);
        if (st != LUNA_OK)
            goto out;
    }
    luna_ring_sort(&ring);
    map_alloc(map, LUNA_BUCKETS, n);
    for (uint64_t b = 0; b < LUNA_BUCKETS; b++)
        map->owner[b] = (uint16_t)luna_ring_owner(&ring, b << ARC_SHIFT);
out:
    luna_ring_deinit(&ring);
    return st;
}

luna_status luna_bucket_map_rendezvous(luna_bucket_map *map, const luna_weighted_shard *shards,
                                       size_t n, luna_err *err)
{
    luna_status st = check_shards(shards, n, err);
    if (st != LUNA_OK)
        return st;
    map_alloc(map, LUNA_BUCKETS, n);
    luna_rendezvous_place(shards, n, map->owner, LUNA_BUCKETS);
    return LUNA_OK;
}

luna_status luna_bucket_map_owners(luna_bucket_map *map, const uint16_t *owner, size_t buckets,
                                   size_t shards, luna_err *err)
{
    if (shards < 1 || shards > LUNA_MAX_SHARDS + 1)
        return luna_err_set(err, LUNA_EINVAL, "%zu shards: must be 1 to %d", shards,
                            LUNA_MAX_SHARDS);
    if (buckets < 1 || buckets > LUNA_MAX_BUCKETS)
        return luna_err_set(err, LUNA_EINVAL, "%zu buckets: must be 1 to %d", buckets,
                            LUNA_MAX_BUCKETS);
    for (size_t b = 0; b < buckets; b++) {
        if (owner[b] >= shards)
            return luna_err_set(err, LUNA_EINVAL, "bucket %zu has no owner", b);
    }
    map_alloc(map, buckets, shards);
    memcpy(map->owner, owner, buckets * sizeof(*owner));
    return LUNA_OK;
}
