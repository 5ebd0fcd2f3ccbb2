/* rendezvous.c - rank, score, keep the best. */
#include "rendezvous.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

typedef struct ranked {
    uint64_t hash;
    size_t bucket;
} ranked;

static int compare_ranked(const void *left, const void *right)
{
    const ranked *a = left, *b = right;
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return (a->bucket > b->bucket) - (a->bucket < b->bucket);
}

/* -ln(x) for 0 < x < 1.  Placement is a contract with data on disk, and libm's last digit
 * differs between platforms: this uses only operations that IEEE 754 defines exactly. */
static double negative_log(double x)
{
    int exponent;
    double m = frexp(x, &exponent); /* x = m * 2^exponent, 0.5 <= m < 1 */
    double t = (m - 1.0) / (m + 1.0), square = t * t, sum = 0.0;
    /* ln m = 2 artanh t = 2 (t + t^3/3 + t^5/5 + ...), |t| <= 1/3, smallest terms first. */
    for (int k = 35; k >= 1; k -= 2)
        sum = sum * square + 1.0 / k;
    return -(2.0 * t * sum + exponent * 0.69314718055994530942);
}

void luna_rendezvous_place(const luna_weighted_shard *shards, size_t n, uint16_t *owners,
                           size_t buckets)
{
    ranked *ranks = malloc(buckets * sizeof(*ranks));
    double *best = malloc(buckets * sizeof(*best));
    if (ranks == NULL || best == NULL)
        abort();

    for (size_t s = 0; s < n; s++) {
        size_t len = strlen(shards[s].shard_id);
        for (size_t b = 0; b < buckets; b++)
            ranks[b] = (ranked){ luna_hash_bytes(shards[s].shard_id, len, b), b };
        qsort(ranks, buckets, sizeof(*ranks), compare_ranked);
        for (size_t r = 0; r < buckets; r++) {
            size_t b = ranks[r].bucket;
            double share = ((double)r + 0.5) / (double)buckets;
            double score = shards[s].weight / negative_log(share);
            if (s == 0 || score > best[b] ||
                (score == best[b] && /* equal ranks happen: 1 in `buckets` for each pair */
                 strcmp(shards[s].shard_id, shards[owners[b]].shard_id) < 0)) {
                best[b] = score;
                owners[b] = (uint16_t)s;
            }
        }
    }
    free(best);
    free(ranks);
}
