/* rendezvous.h - weighted rendezvous hashing of buckets.  Layer: base.
 *
 * Every shard ranks all buckets by hashtextextended(shard_id, bucket); a bucket goes to the
 * shard with the highest score weight / -ln(rank's share).  A shard's scores depend on its own
 * id and weight alone, so adding one takes buckets from the others and moves none between them.
 * Ranks instead of raw hashes: they spread each shard's scores evenly over the buckets, which
 * takes about a third off the imbalance that chance leaves (see rendezvous.lua for figures). */
#ifndef LUNA_BASE_RENDEZVOUS_H
#define LUNA_BASE_RENDEZVOUS_H

#include <stddef.h>
#include <stdint.h>

typedef struct luna_weighted_shard {
    const char *shard_id; /* borrowed; decides between equal scores, bytewise */
    double weight;        /* finite and above 0 */
} luna_weighted_shard;

/* Fill owners[0..buckets-1] with indexes into `shards`; n is at least 1.  The result does not
 * depend on the order of `shards` nor on the machine's math library. */
void luna_rendezvous_place(const luna_weighted_shard *shards, size_t n, uint16_t *owners,
                           size_t buckets);
#endif
