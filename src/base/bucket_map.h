/* bucket_map.h - bucket -> shard as an array.  Layer: base.
 *
 * Routing a key is its row hash mod the number of buckets, and one array read.  Strategies
 * differ only in how the array is filled; where there is a catalog, it says who owns each. */
#ifndef LUNA_BASE_BUCKET_MAP_H
#define LUNA_BASE_BUCKET_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "rendezvous.h"

#define LUNA_BUCKETS 16384
#define LUNA_MAX_SHARDS 1024
#define LUNA_MAX_BUCKETS 65536

/* Zero-initialised is empty; owns its array until luna_bucket_map_deinit. */
typedef struct luna_bucket_map {
    uint16_t *owner; /* 0-based shard number of each bucket */
    uint32_t buckets;
    uint32_t shards;
    uint64_t reciprocal; /* (2^64 - 1) / buckets */
} luna_bucket_map;

void luna_bucket_map_deinit(luna_bucket_map *map);

/* Fill an empty map for 1 to LUNA_MAX_SHARDS shards.
 *   hash: shards * ceil(16384 / shards) buckets, bucket b on shard b mod shards: PostgreSQL's
 *         PARTITION BY HASH with modulus = number of shards
 *   ring: 16384 equal arcs, each owned by whoever owns its first point; round(virtual_nodes *
 *         weight) nodes for a shard
 *   rendezvous: 16384 buckets by luna_rendezvous_place
 * On failure (LUNA_EINVAL: number of shards, a weight; LUNA_ETOOLARGE: nodes) it stays empty. */
LUNA_MUSTCHECK luna_status luna_bucket_map_hash(luna_bucket_map *map, size_t shards, luna_err *err);
LUNA_MUSTCHECK luna_status luna_bucket_map_ring(luna_bucket_map *map,
                                                const luna_weighted_shard *shards, size_t n,
                                                unsigned virtual_nodes, luna_err *err);
LUNA_MUSTCHECK luna_status luna_bucket_map_rendezvous(luna_bucket_map *map,
                                                      const luna_weighted_shard *shards, size_t n,
                                                      luna_err *err);

/* Fill an empty map of 1 to LUNA_MAX_BUCKETS buckets with the owners given, each below `shards`,
 * which may be one more than LUNA_MAX_SHARDS: the last may stand for nobody. On failure
 * (LUNA_EINVAL) it stays empty. */
LUNA_MUSTCHECK luna_status luna_bucket_map_owners(luna_bucket_map *map, const uint16_t *owner,
                                                  size_t buckets, size_t shards, luna_err *err);

/* row_hash mod buckets by two multiplications, which take half the time of a division: the quotient
 * from the reciprocal is the true one or one less. */
static inline uint32_t luna_bucket_of(const luna_bucket_map *map, uint64_t row_hash)
{
    uint64_t quotient = (uint64_t)((unsigned __int128)row_hash * map->reciprocal >> 64);
    uint64_t rest = row_hash - quotient * map->buckets;
    return (uint32_t)(rest >= map->buckets ? rest - map->buckets : rest);
}
#endif
