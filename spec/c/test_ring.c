/* The ring: golden points and owners, movement, and a naive search as oracle. */
#include "bucket_map.h"
#include "hash.h"
#include "ring.h"
#include "test.h"

static luna_err err;

/* hashtextextended('shard1', i) and ('shard2', i) on a PostgreSQL 15 server. */
static void golden_points(void)
{
    static const int64_t POINTS[2][3] = {
        { INT64_C(4208488365619418337), INT64_C(7282022194853109316),
          INT64_C(4396433933001127494) },
        { INT64_C(5130544789449725674), INT64_C(7497539134668931704),
          INT64_C(-7424167134882328192) },
    };
    luna_ring ring = { 0 };
    CHECK_INT(LUNA_OK, luna_ring_add(&ring, "shard1", 0, 3, &err));
    CHECK_INT(LUNA_OK, luna_ring_add(&ring, "shard2", 1, 3, &err));
    for (size_t i = 0; i < 6; i++)
        CHECK_INT(POINTS[i / 3][i % 3], ring.nodes[i].point);
    luna_ring_sort(&ring);

    /* Owned up to and including the point, then by the next; past the last by the first. */
    CHECK_INT(0, luna_ring_owner(&ring, 0));
    CHECK_INT(0, luna_ring_owner(&ring, UINT64_C(4396433933001127494)));
    CHECK_INT(1, luna_ring_owner(&ring, UINT64_C(4396433933001127495)));
    CHECK_INT(1, luna_ring_owner(&ring, UINT64_C(5130544789449725674)));
    CHECK_INT(0, luna_ring_owner(&ring, UINT64_C(5130544789449725675)));
    CHECK_INT(1, luna_ring_owner(&ring, UINT64_C(7282022194853109317)));
    CHECK_INT(1, luna_ring_owner(&ring, (uint64_t)INT64_C(-7424167134882328192)));
    CHECK_INT(0, luna_ring_owner(&ring, (uint64_t)INT64_C(-7424167134882328191)));
    CHECK_INT(0, luna_ring_owner(&ring, UINT64_MAX));
    luna_ring_deinit(&ring);
}

static void equal_points_go_to_the_lesser_id(void)
{
    luna_ring_node nodes[2] = { { 10, "b", 0 }, { 10, "a", 1 } };
    luna_ring ring = { nodes, 2, 2 };
    luna_ring_sort(&ring);
    CHECK_INT(1, luna_ring_owner(&ring, 10));
    CHECK_INT(1, luna_ring_owner(&ring, 11)); /* wraps to the first, which is a's too */
}

static void too_many_nodes_change_nothing(void)
{
    luna_ring ring = { 0 };
    CHECK_INT(LUNA_OK, luna_ring_add(&ring, "a", 0, 10, &err));
    CHECK_INT(LUNA_ETOOLARGE, luna_ring_add(&ring, "b", 1, LUNA_RING_MAX_NODES, &err));
    CHECK_INT(10, ring.n);
    luna_ring_deinit(&ring);
}

/* The nearest node clockwise, by looking at all of them. */
static uint32_t naive_owner(const luna_ring *ring, uint64_t point)
{
    uint64_t best = UINT64_MAX;
    uint32_t owner = 0;
    for (size_t i = 0; i < ring->n; i++) {
        uint64_t distance = ring->nodes[i].point - point; /* wraps as the ring does */
        if (i == 0 || distance < best) {
            best = distance;
            owner = ring->nodes[i].shard;
        }
    }
    return owner;
}

static void agrees_with_a_full_search(uint64_t *random)
{
    int wrong = 0;
    for (int round = 0; round < 20; round++) {
        luna_ring ring = { 0 };
        char ids[16][32];
        size_t n = 1 + test_random(random) % 16;
        for (uint32_t s = 0; s < n; s++) {
            snprintf(ids[s], sizeof(ids[s]), "shard-%" PRIx64, test_random(random));
            wrong += luna_ring_add(&ring, ids[s], s, 1 + test_random(random) % 50, &err) != LUNA_OK;
        }
        luna_ring_sort(&ring);
        for (int i = 0; i < 1000; i++) {
            uint64_t point = test_random(random);
            wrong += luna_ring_owner(&ring, point) != naive_owner(&ring, point);
        }
        for (size_t i = 0; i < ring.n; i++) {
            uint64_t point = ring.nodes[i].point;
            wrong += luna_ring_owner(&ring, point) != naive_owner(&ring, point);
            wrong += luna_ring_owner(&ring, point + 1) != naive_owner(&ring, point + 1);
        }
        luna_ring_deinit(&ring);
    }
    CHECK_INT(0, wrong);
}

static const luna_weighted_shard SHARDS[] = {
    { "shard1", 1 }, { "shard2", 1 }, { "shard3", 1 }, { "shard4", 1 },
    { "shard5", 1 }, { "shard6", 1 }, { "shard7", 1 },
};

/* The whole map of three shards as one number: placement is a contract with data on disk. */
static void golden_map(void)
{
    static const unsigned char FIRST[] = { 0, 1, 0, 0, 1, 0, 1, 2, 0, 2, 2, 2, 1, 1, 2, 1,
                                           0, 1, 1, 0, 2, 0, 1, 0, 0, 0, 0, 1, 2, 2, 1, 2 };
    luna_bucket_map map = { 0 };
    CHECK_INT(LUNA_OK, luna_bucket_map_ring(&map, SHARDS, 3, 150, &err));
    CHECK_INT(16384, map.buckets);
    uint64_t sum = 0;
    for (uint32_t b = 0; b < map.buckets; b++)
        sum = luna_hash_combine(sum, map.owner[b]);
    for (size_t i = 0; i < sizeof(FIRST); i++)
        CHECK_INT(FIRST[i], map.owner[i * 512]);
    CHECK_INT(INT64_C(-3073289896221941123), sum);
    luna_bucket_map_deinit(&map);
}

static void hash_map_is_modulo(void)
{
    for (size_t n = 1; n <= 16; n++) {
        luna_bucket_map map = { 0 };
        CHECK_INT(LUNA_OK, luna_bucket_map_hash(&map, n, &err));
        CHECK(map.buckets >= 16384 && map.buckets < 16384 + n && map.buckets % n == 0);
        int wrong = 0;
        for (uint32_t b = 0; b < map.buckets; b++)
            wrong += map.owner[b] != b % n;
        CHECK_INT(0, wrong);
        luna_bucket_map_deinit(&map);
    }
}

/* Adding a shard moves about 1/(N+1) of the buckets, all of them to it. */
static void growth_moves_only_to_the_new_shard(void)
{
    for (size_t n = 1; n <= 6; n++) {
        luna_bucket_map before = { 0 }, after = { 0 };
        CHECK_INT(LUNA_OK, luna_bucket_map_ring(&before, SHARDS, n, 150, &err));
        CHECK_INT(LUNA_OK, luna_bucket_map_ring(&after, SHARDS, n + 1, 150, &err));
        int moved = 0, between_old = 0;
        for (uint32_t b = 0; b < LUNA_BUCKETS; b++) {
            moved += before.owner[b] != after.owner[b];
            between_old += before.owner[b] != after.owner[b] && after.owner[b] != n;
        }
        CHECK_INT(0, between_old);
        double expected = LUNA_BUCKETS / (double)(n + 1);
        CHECK(moved > 0.75 * expected && moved < 1.25 * expected);
        luna_bucket_map_deinit(&before);
        luna_bucket_map_deinit(&after);
    }
}

static void order_does_not_matter(void)
{
    static const luna_weighted_shard SWAPPED[] = { { "shard3", 1 },
                                                   { "shard1", 1 },
                                                   { "shard2", 1 } };
    luna_bucket_map a = { 0 }, b = { 0 };
    CHECK_INT(LUNA_OK, luna_bucket_map_ring(&a, SHARDS, 3, 150, &err));
    CHECK_INT(LUNA_OK, luna_bucket_map_ring(&b, SWAPPED, 3, 150, &err));
    int wrong = 0;
    for (uint32_t i = 0; i < LUNA_BUCKETS; i++)
        wrong += strcmp(SHARDS[a.owner[i]].shard_id, SWAPPED[b.owner[i]].shard_id) != 0;
    CHECK_INT(0, wrong);
    luna_bucket_map_deinit(&a);
    luna_bucket_map_deinit(&b);
}

/* Twice the weight, about twice the buckets. */
static void weights_count(void)
{
    static const luna_weighted_shard WEIGHTED[] = { { "shard1", 2 },
                                                    { "shard2", 1 },
                                                    { "shard3", 1 } };
    luna_bucket_map map = { 0 };
    int count[3] = { 0 };
    CHECK_INT(LUNA_OK, luna_bucket_map_ring(&map, WEIGHTED, 3, 1000, &err));
    for (uint32_t b = 0; b < LUNA_BUCKETS; b++)
        count[map.owner[b]]++;
    CHECK(count[0] > 7372 && count[0] < 9011); /* 8192, within 10 % */
    luna_bucket_map_deinit(&map);
}

static void bad_weights_and_counts(void)
{
    luna_bucket_map map = { 0 };
    luna_weighted_shard shards[2] = { { "a", 1 }, { "b", 0 } };
    CHECK_INT(LUNA_EINVAL, luna_bucket_map_ring(&map, shards, 2, 150, &err));
    CHECK_STR("weight of shard \"b\" is 0: must be above 0", err.msg);
    shards[1].weight = 0.001;
    CHECK_INT(LUNA_EINVAL, luna_bucket_map_ring(&map, shards, 2, 150, &err));
    CHECK_STR("weight 0.001 of shard \"b\" leaves it no virtual node of 150", err.msg);
    shards[1].weight = 1e300;
    CHECK_INT(LUNA_ETOOLARGE, luna_bucket_map_ring(&map, shards, 2, 150, &err));
    CHECK_INT(LUNA_EINVAL, luna_bucket_map_ring(&map, shards, 0, 150, &err));
    CHECK_INT(LUNA_EINVAL, luna_bucket_map_hash(&map, 0, &err));
    CHECK_INT(LUNA_EINVAL, luna_bucket_map_hash(&map, LUNA_MAX_SHARDS + 1, &err));
    CHECK(map.owner == NULL);
}

int main(void)
{
    uint64_t random = test_seed();
    golden_points();
    equal_points_go_to_the_lesser_id();
    too_many_nodes_change_nothing();
    agrees_with_a_full_search(&random);
    golden_map();
    hash_map_is_modulo();
    growth_moves_only_to_the_new_shard();
    order_does_not_matter();
    weights_count();
    bad_weights_and_counts();
    return test_report();
}
