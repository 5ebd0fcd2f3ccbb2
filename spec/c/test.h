/* test.h - the harness of the C tests: count, report, go on.
 *
 * Each program prints "N passed, N failed" last and exits non-zero on failure.
 * Random tests take their seed from SEED in the environment and print it. */
#ifndef LUNA_SPEC_TEST_H
#define LUNA_SPEC_TEST_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int test_passed, test_failed;

#define CHECK(cond) test_check((cond) ? 1 : 0, __FILE__, __LINE__, #cond)

#define CHECK_INT(expected, actual)                                                                \
    do {                                                                                           \
        int64_t test_e = (int64_t)(expected), test_a = (int64_t)(actual);                          \
        test_check(test_e == test_a, __FILE__, __LINE__, #actual);                                 \
        if (test_e != test_a)                                                                      \
            printf("    expected %" PRId64 ", got %" PRId64 "\n", test_e, test_a);                 \
    } while (0)

#define CHECK_STR(expected, actual)                                                                \
    do {                                                                                           \
        const char *test_e = (expected), *test_a = (actual);                                       \
        int test_same = strcmp(test_e, test_a) == 0;                                               \
        test_check(test_same, __FILE__, __LINE__, #actual);                                        \
        if (!test_same)                                                                            \
            printf("    expected %s\n         got %s\n", test_e, test_a);                          \
    } while (0)

static inline void test_check(int ok, const char *file, int line, const char *what)
{
    if (ok) {
        test_passed++;
        return;
    }
    test_failed++;
    printf("%s:%d: failed: %s\n", file, line, what);
}

/* The seed of this run; 0 is avoided because xorshift would stay there. */
static inline uint64_t test_seed(void)
{
    const char *text = getenv("SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
    printf("seed %" PRIu64 " (repeat with SEED=%" PRIu64 ")\n", seed, seed);
    return seed ? seed : 1;
}

/* xorshift64*: independent of the hashes under test. */
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static inline int test_report(void)
{
    printf("%d passed, %d failed\n", test_passed, test_failed);
    return test_failed != 0;
}
#endif
