/* route_c.c - what routing a key costs in C, against a hash and a table without anything around.
 *
 * The peer is PostgreSQL's row hash written down plainly, mod the number of buckets, and one array
 * read.  Both do the same keys in turn, ROUNDS times, and must agree; one line of JSON for each
 * number of shards: the median ns per key. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "route.h"

#define KEYS 65536
#define PASSES 16
#define ROUNDS 9
#define SEED UINT64_C(0x7A5B22367996DCFD)

static uint32_t rot(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

static uint64_t bare_row_hash(int64_t value)
{
    uint32_t low = (uint32_t)value, high = (uint32_t)((uint64_t)value >> 32);
    uint32_t a, b, c;
    a = b = c = UINT32_C(0x9e3779b9) + 4 + UINT32_C(3923095);
    a += (uint32_t)(SEED >> 32);
    b += (uint32_t)SEED;
    a = (a - c) ^ rot(c, 4), c += b;
    b = (b - a) ^ rot(a, 6), a += c;
    c = (c - b) ^ rot(b, 8), b += a;
    a = (a - c) ^ rot(c, 16), c += b;
    b = (b - a) ^ rot(a, 19), a += c;
    c = (c - b) ^ rot(b, 4), b += a;
    a += low ^ (value >= 0 ? high : ~high);
    c = (c ^ b) - rot(b, 14);
    a = (a ^ c) - rot(c, 11);
    b = (b ^ a) - rot(a, 25);
    c = (c ^ b) - rot(b, 16);
    a = (a ^ c) - rot(c, 4);
    b = (b ^ a) - rot(a, 14);
    c = (c ^ b) - rot(b, 24);
    return ((uint64_t)b << 32 | c) + UINT64_C(0x49a0f4dd15e5a8e3);
}

static int64_t keys[KEYS];
static double numbers[KEYS];
static uint16_t expected[KEYS], found[KEYS];

/* Each fills `out` with the shards of all keys. */
static void run_bare(const luna_route *route, uint16_t *out)
{
    const uint16_t *owner = route->map.owner;
    uint32_t buckets = route->map.buckets;
    for (size_t i = 0; i < KEYS; i++)
        out[i] = owner[bare_row_hash(keys[i]) % buckets];
}

static void run_batch(const luna_route *route, uint16_t *out)
{
    if (luna_route_int64s(route, keys, KEYS, out) != KEYS)
        abort();
}

static void run_single(const luna_route *route, uint16_t *out)
{
    for (size_t i = 0; i < KEYS; i++)
        out[i] = (uint16_t)(luna_route_int64(route, keys[i]) >> LUNA_ROUTE_SHIFT);
}

static void run_number(const luna_route *route, uint16_t *out)
{
    for (size_t i = 0; i < KEYS; i++)
        out[i] = (uint16_t)(luna_route_number(route, numbers[i]) >> LUNA_ROUTE_SHIFT);
}

static const struct {
    const char *name;
    void (*run)(const luna_route *route, uint16_t *out);
} WAYS[] = {
    { "bare_ns", run_bare },
    { "batch_ns", run_batch },
    { "single_ns", run_single },
    { "number_ns", run_number },
};
#define N_WAYS (sizeof(WAYS) / sizeof(WAYS[0]))

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(size_t shards)
{
    luna_route route = { .type = LUNA_KEY_INT8, .columns = 1 };
    double ns[N_WAYS][ROUNDS];
    luna_err err;
    if (luna_bucket_map_hash(&route.map, shards, &err) != LUNA_OK)
        abort();
    run_bare(&route, expected);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t way = 0; way < N_WAYS; way++) {
            double start = seconds();
            for (int pass = 0; pass < PASSES; pass++)
                WAYS[way].run(&route, found);
            ns[way][round] = (seconds() - start) * 1e9 / ((double)KEYS * PASSES);
            for (size_t i = 0; i < KEYS; i++) {
                if (found[i] != expected[i])
                    abort();
            }
        }
    }
    printf("{\"bench\":\"route_c\",\"shards\":%zu", shards);
    for (size_t way = 0; way < N_WAYS; way++) {
        qsort(ns[way], ROUNDS, sizeof(double), by_value);
        printf(",\"%s\":%.2f", WAYS[way].name, ns[way][ROUNDS / 2]);
    }
    puts("}");
    luna_bucket_map_deinit(&route.map);
}

int main(void)
{
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < KEYS; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        keys[i] = (int64_t)(x >> 12); /* 52 bits: exact as a double too */
        numbers[i] = (double)keys[i];
    }
    measure(16);
    measure(256);
    return 0;
}
