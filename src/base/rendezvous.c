/* rendezvous.c - rank, score, keep the best, correct what chance left too uneven. */
#include "rendezvous.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

#define TOLERANCE 0.03
#define MAX_ROUNDS 100

/* Beyond this shards have so few of 16384 buckets that corrections no longer settle. */
#define MAX_CORRECTED 64

typedef struct ranked {
    uint64_t hash;
    size_t bucket;
} ranked;

typedef struct placement {
    const luna_weighted_shard *shards;
    size_t n, buckets;
    uint16_t *rank;    /* of bucket b for shard s: rank[s * buckets + b] */
    double *of_rank;   /* 1 / -ln(share) */
    double *corrected; /* the shards' weights, as corrected so far */
    double *best;      /* score of each bucket's owner */
    size_t *count;     /* buckets of each shard */
    uint16_t *owners;
} placement;

static void *alloc(size_t n, size_t size)
{
    void *p = malloc(n * size);
    if (p == NULL)
        abort();
    return p;
}

static int compare_ranked(const void *left, const void *right)
{
    const ranked *a = left, *b = right;
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return (a->bucket > b->bucket) - (a->bucket < b->bucket);
}

static void rank_buckets(placement *p)
{
    ranked *list = alloc(p->buckets, sizeof(*list));
    for (size_t s = 0; s < p->n; s++) {
        const char *id = p->shards[s].shard_id;
        size_t len = strlen(id);
        for (size_t b = 0; b < p->buckets; b++)
            list[b] = (ranked){ luna_hash_bytes(id, len, b), b };
        qsort(list, p->buckets, sizeof(*list), compare_ranked);
        for (size_t r = 0; r < p->buckets; r++)
            p->rank[s * p->buckets + list[r].bucket] = (uint16_t)r;
    }
    free(list);
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

/* Give each bucket to the highest score.  Equal ones happen: 1 in `buckets` for each pair. */
static void assign(placement *p)
{
    for (size_t s = 0; s < p->n; s++) {
        const uint16_t *rank = p->rank + s * p->buckets;
        for (size_t b = 0; b < p->buckets; b++) {
            double score = p->corrected[s] * p->of_rank[rank[b]];
            if (s > 0 && score < p->best[b])
                continue;
            if (s > 0 && score == p->best[b] &&
                strcmp(p->shards[s].shard_id, p->shards[p->owners[b]].shard_id) > 0)
                continue;
            p->best[b] = score;
            p->owners[b] = (uint16_t)s;
        }
    }
    memset(p->count, 0, p->n * sizeof(*p->count));
    for (size_t b = 0; b < p->buckets; b++)
        p->count[p->owners[b]]++;
}

/* Change the weight of each shard that is outside the tolerance by as much as its count is wrong.
 * False when there is none. */
static bool correct(placement *p, double total)
{
    bool changed = false;
    for (size_t s = 0; s < p->n; s++) {
        double share = (double)p->buckets * p->shards[s].weight / total;
        /* Whole buckets: the nearest number on each side is always within bounds. */
        double most = fmax(ceil(share), floor(share * (1 + TOLERANCE)));
        double least = fmin(floor(share), ceil(share * (1 - TOLERANCE)));
        double count = (double)p->count[s];
        double wanted = count > most ? most : count < least ? least : count;
        if (wanted == count)
            continue;
        p->corrected[s] *= wanted / fmax(count, 0.5);
        changed = true;
    }
    return changed;
}

void luna_rendezvous_place(const luna_weighted_shard *shards, size_t n, uint16_t *owners,
                           size_t buckets)
{
    placement p = { .shards = shards, .n = n, .buckets = buckets, .owners = owners };
    double total = 0;
    p.rank = alloc(n * buckets, sizeof(*p.rank));
    p.of_rank = alloc(buckets, sizeof(*p.of_rank));
    p.corrected = alloc(n, sizeof(*p.corrected));
    p.best = alloc(buckets, sizeof(*p.best));
    p.count = alloc(n, sizeof(*p.count));

    rank_buckets(&p);
    for (size_t r = 0; r < buckets; r++)
        p.of_rank[r] = 1.0 / negative_log(((double)r + 0.5) / (double)buckets);
    for (size_t s = 0; s < n; s++) {
        p.corrected[s] = shards[s].weight;
        total += shards[s].weight;
    }
    assign(&p);
    for (int round = 0; n <= MAX_CORRECTED && round < MAX_ROUNDS && correct(&p, total); round++)
        assign(&p);

    free(p.rank);
    free(p.of_rank);
    free(p.corrected);
    free(p.best);
    free(p.count);
}
