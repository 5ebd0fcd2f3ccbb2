/* rendezvous.h - weighted rendezvous hashing of buckets.  Layer: base.
 *
 * Every shard ranks all buckets by hashtextextended(shard_id, bucket); a bucket goes to the
 * shard with the highest score weight / -ln(rank's share).  A shard's scores depend on its own
 * id and weight alone, so adding one takes buckets from the others and moves none between them.
 *
 * Chance leaves an imbalance that grows with the number of shards.  Ranks instead of raw hashes
 * take a third off it, for they spread each shard's scores evenly over the buckets.  Shards that
 * are still more than 3 % away from their share have their weights corrected until they are not:
 * rarely needed below ten shards, and then, and only then, a few buckets may move between old
 * shards when one is added (figures in rendezvous.lua). */
#ifndef LUNA_BASE_RENDEZVOUS_H
#define LUNA_BASE_RENDEZVOUS_H

#include <stddef.h>
#include <stdint.h>

typedef struct luna_weighted_shard {
    const char *shard_id; /* borrowed; decides between equal scores, bytewise */
    double weight;        /* finite and above 0 */
} luna_weighted_shard;

/* Fill owners[0..buckets-1] with indexes into `shards`; n is at least 1, buckets at most 65536.
 * The result does not depend on the order of `shards` nor on the machine's math library. */
void luna_rendezvous_place(const luna_weighted_shard *shards, size_t n, uint16_t *owners,
                           size_t buckets);
#endif
