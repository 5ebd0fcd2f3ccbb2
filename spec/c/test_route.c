/* Routing by the short way: it agrees with the long one, and refuses what that one refuses. */
#include <math.h>

#include "hash.h"
#include "key_text.h"
#include "route.h"
#include "test.h"

static luna_err err;

static luna_route route_of(luna_key_type type, size_t shards)
{
    luna_route route = { .type = type, .columns = 1 };
    CHECK_INT(LUNA_OK, luna_bucket_map_hash(&route.map, shards, &err));
    return route;
}

/* The answer by division and the general hash, or LUNA_ROUTE_UNKNOWN. */
static int32_t expected(const luna_route *route, luna_status st, const luna_key *key)
{
    if (st != LUNA_OK)
        return LUNA_ROUTE_UNKNOWN;
    uint64_t hash = key->type == LUNA_KEY_INT8 || key->type == LUNA_KEY_DATE
                        ? luna_hash_int8(key->number, LUNA_PARTITION_SEED)
                    : key->type == LUNA_KEY_UUID
                        ? luna_hash_bytes(key->uuid, 16, LUNA_PARTITION_SEED)
                        : luna_hash_bytes(key->text, key->len, LUNA_PARTITION_SEED);
    uint32_t bucket = (uint32_t)(luna_hash_combine(0, hash) % route->map.buckets);
    return (int32_t)((uint32_t)route->map.owner[bucket] << LUNA_ROUTE_SHIFT | bucket);
}

static void buckets_are_remainders(uint64_t *random)
{
    luna_bucket_map map = { 0 };
    for (uint32_t buckets = 1; buckets <= 17408; buckets++) {
        map.buckets = buckets;
        map.reciprocal = UINT64_MAX / buckets;
        const uint64_t near[] = { 0,
                                  1,
                                  buckets - 1u,
                                  buckets,
                                  UINT64_MAX,
                                  UINT64_MAX - 1,
                                  UINT64_MAX - buckets,
                                  UINT64_MAX / buckets * buckets,
                                  UINT64_MAX / buckets * buckets - 1,
                                  test_random(random),
                                  test_random(random) };
        int wrong = 0;
        for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++)
            wrong += luna_bucket_of(&map, near[i]) != near[i] % buckets;
        if (wrong != 0)
            printf("    of %u buckets\n", buckets);
        if (wrong != 0 || buckets == 17408)
            CHECK_INT(0, wrong);
    }
}

static void numbers_agree(uint64_t *random)
{
    static const luna_key_type TYPES[] = { LUNA_KEY_ANY, LUNA_KEY_INT8, LUNA_KEY_TEXT,
                                           LUNA_KEY_UUID, LUNA_KEY_DATE };
    for (size_t t = 0; t < sizeof(TYPES) / sizeof(TYPES[0]); t++) {
        luna_route route = route_of(TYPES[t], 1 + test_random(random) % 300);
        int wrong = 0;
        for (int i = 0; i < 20000; i++) {
            luna_key key;
            int64_t value = (int64_t)test_random(random) >> (test_random(random) % 64);
            double number = (double)value + (i % 7 == 0 ? 0.5 : 0);
            luna_status st = luna_key_from_int64(&key, route.type, value, &err);
            wrong += luna_route_int64(&route, value) != expected(&route, st, &key);
            st = luna_key_from_double(&key, route.type, number, &err);
            wrong += luna_route_number(&route, number) != expected(&route, st, &key);
        }
        CHECK_INT(0, wrong);
        luna_bucket_map_deinit(&route.map);
    }
}

static void numbers_that_are_no_keys(void)
{
    luna_route route = route_of(LUNA_KEY_INT8, 3);
    static const double BAD[] = { NAN,     -NAN,  INFINITY, -INFINITY,         0.5,
                                  -1e-300, 1e300, -1e300,   9007199254740994.0 };
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        CHECK_INT(LUNA_ROUTE_UNKNOWN, luna_route_number(&route, BAD[i]));
    CHECK_INT(luna_route_int64(&route, 0), luna_route_number(&route, -0.0));
    CHECK_INT(luna_route_int64(&route, INT64_C(1) << 53),
              luna_route_number(&route, 9007199254740992.0));
    CHECK_INT(luna_route_int64(&route, -(INT64_C(1) << 53)),
              luna_route_number(&route, -9007199254740992.0));
    luna_bucket_map_deinit(&route.map);
}

static void texts_agree(uint64_t *random)
{
    static const char *const TEXTS[] = {
        "",
        "42",
        " +042 ",
        "4x2",
        "tenant-42",
        "tenant-with-a-name-of-many-words",
        "2024-02-29",
        "2023-02-29",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "{a0eebc999c0b4ef8bb6d6bb9bd380a11}",
        "Z\xc3\xbcrich",
        "Z\xfcrich",
        "eight by\xc3",
        "9223372036854775808",
        "-9223372036854775808",
    };
    for (luna_key_type type = LUNA_KEY_ANY; type <= LUNA_KEY_DATE; type++) {
        luna_route route = route_of(type, 1 + test_random(random) % 300);
        for (size_t i = 0; i < sizeof(TEXTS) / sizeof(TEXTS[0]); i++) {
            luna_key key;
            size_t len = strlen(TEXTS[i]);
            luna_status st = luna_key_from_text(&key, type, TEXTS[i], len, &err);
            CHECK_INT(expected(&route, st, &key), luna_route_text(&route, TEXTS[i], len));
        }
        CHECK_INT(LUNA_ROUTE_UNKNOWN, luna_route_text(&route, "a\0b", 3));
        luna_bucket_map_deinit(&route.map);
    }
}

/* A byte that is not ASCII, or NUL, is seen wherever it stands. */
static void ascii_is_told_at_every_place(void)
{
    char text[40];
    for (size_t len = 0; len < sizeof(text); len++) {
        memset(text, 1, sizeof(text));
        CHECK(luna_key_is_ascii(text, len));
        memset(text, 0x7f, sizeof(text));
        CHECK(luna_key_is_ascii(text, len));
        for (size_t at = 0; at < len; at++) {
            static const int BAD[] = { 0, 0x80, 0x81, 0xff };
            for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
                memset(text, 1, sizeof(text));
                text[at] = (char)BAD[i];
                CHECK(!luna_key_is_ascii(text, len));
            }
        }
    }
}

static void many_at_once(uint64_t *random)
{
    int64_t keys[512];
    uint16_t shards[512];
    luna_route route = route_of(LUNA_KEY_ANY, 7);
    for (size_t i = 0; i < 512; i++)
        keys[i] = (int64_t)test_random(random);
    CHECK_INT(512, luna_route_int64s(&route, keys, 512, shards));
    int wrong = 0;
    for (size_t i = 0; i < 512; i++)
        wrong += shards[i] != luna_route_int64(&route, keys[i]) >> LUNA_ROUTE_SHIFT;
    CHECK_INT(0, wrong);
    route.type = LUNA_KEY_TEXT;
    shards[0] = 99;
    CHECK_INT(0, luna_route_int64s(&route, keys, 512, shards));
    CHECK_INT(99, shards[0]);
    luna_bucket_map_deinit(&route.map);
}

static void several_columns_are_not_for_here(void)
{
    luna_route route = route_of(LUNA_KEY_ANY, 3);
    int64_t key = 1;
    uint16_t shard;
    route.columns = 2;
    CHECK_INT(LUNA_ROUTE_UNKNOWN, luna_route_number(&route, 1));
    CHECK_INT(LUNA_ROUTE_UNKNOWN, luna_route_int64(&route, 1));
    CHECK_INT(LUNA_ROUTE_UNKNOWN, luna_route_text(&route, "1", 1));
    CHECK_INT(0, luna_route_int64s(&route, &key, 1, &shard));
    luna_bucket_map_deinit(&route.map);
}

/* The map may change between two calls: nothing is remembered. */
static void a_bucket_given_away_is_found_there(void)
{
    luna_route route = route_of(LUNA_KEY_INT8, 3);
    int32_t before = luna_route_int64(&route, 42);
    uint32_t bucket = (uint32_t)before & LUNA_ROUTE_BUCKET;
    uint16_t other = (uint16_t)((route.map.owner[bucket] + 1) % 3);
    route.map.owner[bucket] = other;
    int32_t after = luna_route_int64(&route, 42);
    CHECK_INT(other, after >> LUNA_ROUTE_SHIFT);
    CHECK_INT(bucket, (uint32_t)after & LUNA_ROUTE_BUCKET);
    luna_bucket_map_deinit(&route.map);
}

int main(void)
{
    uint64_t random = test_seed();
    buckets_are_remainders(&random);
    numbers_agree(&random);
    numbers_that_are_no_keys();
    texts_agree(&random);
    ascii_is_told_at_every_place();
    many_at_once(&random);
    several_columns_are_not_for_here();
    a_bucket_given_away_is_found_there();
    return test_report();
}
