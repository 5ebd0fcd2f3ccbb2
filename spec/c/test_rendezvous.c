/* Rendezvous: golden owners, a naive scorer as oracle, balance and movement. */
#include <math.h>

#include "bucket_map.h"
#include "hash.h"
#include "rendezvous.h"
#include "test.h"

#define FEW 2000 /* buckets for which the naive scorer's n^2 is bearable */

static luna_err err;

static const luna_weighted_shard SHARDS[] = {
    { "shard1", 1 }, { "shard2", 1 }, { "shard3", 1 }, { "shard4", 1 }, { "shard5", 1 },
    { "shard6", 1 }, { "shard7", 1 }, { "shard8", 1 }, { "shard9", 1 },
};

static void golden_map(void)
{
    static const unsigned char FIRST[] = { 1, 1, 1, 1, 2, 0, 0, 2, 1, 2, 2, 1, 2, 2, 1, 2,
                                           1, 0, 2, 1, 2, 0, 0, 1, 2, 2, 1, 1, 0, 1, 0, 0 };
    luna_bucket_map map = { 0 };
    uint64_t sum = 0;
    CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&map, SHARDS, 3, &err));
    for (uint32_t b = 0; b < map.buckets; b++)
        sum = luna_hash_combine(sum, map.owner[b]);
    for (size_t i = 0; i < sizeof(FIRST); i++)
        CHECK_INT(FIRST[i], map.owner[i]);
    CHECK_INT(INT64_C(8783654589191825219), sum);
    luna_bucket_map_deinit(&map);
}

/* With nine shards equal ranks do meet; the id then decides. */
static void golden_map_with_ties(void)
{
    luna_bucket_map map = { 0 };
    uint64_t sum = 0;
    CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&map, SHARDS, 9, &err));
    for (uint32_t b = 0; b < map.buckets; b++)
        sum = luna_hash_combine(sum, map.owner[b]);
    CHECK_INT(INT64_C(8825621842878075999), sum);
    luna_bucket_map_deinit(&map);
}

static void golden_weighted_map(void)
{
    static const luna_weighted_shard WEIGHTED[] = { { "shard1", 1 },
                                                    { "shard2", 2.5 },
                                                    { "shard3", 4 } };
    luna_bucket_map map = { 0 };
    uint64_t sum = 0;
    CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&map, WEIGHTED, 3, &err));
    for (uint32_t b = 0; b < map.buckets; b++)
        sum = luna_hash_combine(sum, map.owner[b]);
    CHECK_INT(INT64_C(-8178579442347210029), sum);
    luna_bucket_map_deinit(&map);
}

/* Scores of all buckets, by counting lesser hashes and with libm's logarithm. */
static void naive_scores(const luna_weighted_shard *shard, double *scores)
{
    static uint64_t hashes[FEW];
    for (size_t b = 0; b < FEW; b++)
        hashes[b] = luna_hash_bytes(shard->shard_id, strlen(shard->shard_id), b);
    for (size_t b = 0; b < FEW; b++) {
        size_t rank = 0;
        for (size_t other = 0; other < FEW; other++)
            rank += hashes[other] < hashes[b];
        scores[b] = shard->weight / -log(((double)rank + 0.5) / FEW);
    }
}

static int is_within(const luna_weighted_shard *shards, size_t n, const int *count, double buckets,
                     double tolerance)
{
    double total = 0;
    int ok = 1;
    for (size_t s = 0; s < n; s++)
        total += shards[s].weight;
    for (size_t s = 0; s < n; s++)
        ok &= fabs(count[s] / (buckets * shards[s].weight / total) - 1) <= tolerance;
    return ok;
}

/* Where the plain definition keeps within 2.9 % of the weights, it is the result. */
static void agrees_with_the_definition(uint64_t *random)
{
    static double scores[3][FEW];
    int wrong = 0, compared = 0;
    for (int round = 0; round < 12; round++) {
        luna_weighted_shard shards[3];
        char ids[3][32];
        uint16_t owners[FEW];
        int count[3] = { 0 };
        size_t n = 2 + test_random(random) % 2;
        for (size_t s = 0; s < n; s++) {
            snprintf(ids[s], sizeof(ids[s]), "%" PRIx64, test_random(random));
            shards[s] =
                (luna_weighted_shard){ ids[s], 1 + (double)(test_random(random) % 100) / 100 };
            naive_scores(&shards[s], scores[s]);
        }
        luna_rendezvous_place(shards, n, owners, FEW);
        int different = 0;
        for (size_t b = 0; b < FEW; b++) {
            size_t best = 0;
            for (size_t s = 1; s < n; s++)
                best = scores[s][b] > scores[best][b] ? s : best;
            count[best]++;
            different += scores[owners[b]][b] < scores[best][b] * (1 - 1e-12);
        }
        if (is_within(shards, n, count, FEW, 0.029)) {
            wrong += different;
            compared++;
        }
    }
    CHECK_INT(0, wrong);
    CHECK(compared > 0);
}

static void shares(const luna_weighted_shard *shards, size_t n, int *count)
{
    luna_bucket_map map = { 0 };
    CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&map, shards, n, &err));
    memset(count, 0, n * sizeof(*count));
    for (uint32_t b = 0; b < LUNA_BUCKETS; b++)
        count[map.owner[b]]++;
    luna_bucket_map_deinit(&map);
}

static int within(const luna_weighted_shard *shards, size_t n, double tolerance)
{
    int count[64];
    shares(shards, n, count);
    return is_within(shards, n, count, LUNA_BUCKETS, tolerance);
}

/* Whatever the names, no shard is more than 3 % off, up to 64 shards. */
static void shares_are_corrected(uint64_t *random)
{
    static const size_t SIZES[] = { 2, 3, 4, 5, 6, 8, 12, 16, 24, 40, 64 };
    luna_weighted_shard shards[64];
    char ids[64][32];
    for (size_t i = 0; i < sizeof(SIZES) / sizeof(SIZES[0]); i++) {
        for (size_t s = 0; s < SIZES[i]; s++) {
            snprintf(ids[s], sizeof(ids[s]), "db-%" PRIx64, test_random(random));
            shards[s] = (luna_weighted_shard){ ids[s], i % 2 ? 1 : 1 + (double)(s % 3) };
        }
        /* A share is a whole number of buckets, so the bound may be missed by part of one. */
        CHECK(within(shards, SIZES[i], 0.03 + (double)SIZES[i] / LUNA_BUCKETS));
    }
}

/* Corrections cost a few buckets that move between old shards: below 1 %. */
static void growth_of_many_shards_moves_few_others(uint64_t *random)
{
    for (int round = 0; round < 5; round++) {
        luna_weighted_shard shards[17];
        char ids[17][32];
        for (size_t s = 0; s < 17; s++) {
            snprintf(ids[s], sizeof(ids[s]), "db-%" PRIx64, test_random(random));
            shards[s] = (luna_weighted_shard){ ids[s], 1 };
        }
        luna_bucket_map before = { 0 }, after = { 0 };
        CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&before, shards, 16, &err));
        CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&after, shards, 17, &err));
        int between_old = 0;
        for (uint32_t b = 0; b < LUNA_BUCKETS; b++)
            between_old += before.owner[b] != after.owner[b] && after.owner[b] != 16;
        CHECK(between_old < LUNA_BUCKETS / 100);
        luna_bucket_map_deinit(&before);
        luna_bucket_map_deinit(&after);
    }
}

static void shares_follow_the_weights(void)
{
    static const luna_weighted_shard WEIGHTED[] = {
        { "shard1", 1 }, { "shard2", 2 }, { "shard3", 3 }, { "shard4", 1.5 }
    };
    static const luna_weighted_shard SCALED[] = {
        { "shard1", 10 }, { "shard2", 20 }, { "shard3", 30 }, { "shard4", 15 }
    };
    int a[4], b[4];
    for (size_t n = 2; n <= 9; n++)
        CHECK(within(SHARDS, n, 0.03));
    CHECK(within(WEIGHTED, 4, 0.03));
    shares(WEIGHTED, 4, a);
    shares(SCALED, 4, b);
    CHECK(memcmp(a, b, sizeof(a)) == 0); /* only the ratio counts */
}

static void growth_moves_only_to_the_new_shard(void)
{
    for (size_t n = 1; n <= 8; n++) {
        luna_bucket_map before = { 0 }, after = { 0 };
        CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&before, SHARDS, n, &err));
        CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&after, SHARDS, n + 1, &err));
        int moved = 0, between_old = 0;
        for (uint32_t b = 0; b < LUNA_BUCKETS; b++) {
            moved += before.owner[b] != after.owner[b];
            between_old += before.owner[b] != after.owner[b] && after.owner[b] != n;
        }
        CHECK_INT(0, between_old);
        double expected = LUNA_BUCKETS / (double)(n + 1);
        CHECK(fabs(moved / expected - 1) < 0.05);
        luna_bucket_map_deinit(&before);
        luna_bucket_map_deinit(&after);
    }
}

static void a_heavier_shard_only_gains(void)
{
    luna_weighted_shard heavier[3] = { { "shard1", 1 }, { "shard2", 1.5 }, { "shard3", 1 } };
    luna_bucket_map before = { 0 }, after = { 0 };
    CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&before, SHARDS, 3, &err));
    CHECK_INT(LUNA_OK, luna_bucket_map_rendezvous(&after, heavier, 3, &err));
    int wrong = 0;
    for (uint32_t b = 0; b < LUNA_BUCKETS; b++)
        wrong += before.owner[b] != after.owner[b] && after.owner[b] != 1;
    CHECK_INT(0, wrong);
    luna_bucket_map_deinit(&before);
    luna_bucket_map_deinit(&after);
}

static void order_does_not_matter(void)
{
    luna_weighted_shard swapped[9];
    uint16_t a[LUNA_BUCKETS], b[LUNA_BUCKETS];
    for (size_t s = 0; s < 9; s++)
        swapped[s] = SHARDS[8 - s];
    luna_rendezvous_place(SHARDS, 9, a, LUNA_BUCKETS);
    luna_rendezvous_place(swapped, 9, b, LUNA_BUCKETS);
    int wrong = 0;
    for (size_t i = 0; i < LUNA_BUCKETS; i++)
        wrong += a[i] != 8 - b[i];
    CHECK_INT(0, wrong);
}

static void bad_weights(void)
{
    static const double BAD[] = { 0, -1, NAN, INFINITY };
    luna_bucket_map map = { 0 };
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        luna_weighted_shard shards[2] = { { "a", 1 }, { "b", BAD[i] } };
        CHECK_INT(LUNA_EINVAL, luna_bucket_map_rendezvous(&map, shards, 2, &err));
    }
    CHECK(map.owner == NULL);
}

int main(void)
{
    uint64_t random = test_seed();
    golden_map();
    golden_map_with_ties();
    golden_weighted_map();
    agrees_with_the_definition(&random);
    shares_follow_the_weights();
    shares_are_corrected(&random);
    growth_of_many_shards_moves_few_others(&random);
    growth_moves_only_to_the_new_shard();
    a_heavier_shard_only_gains();
    order_does_not_matter();
    bad_weights();
    return test_report();
}
