/* Ranges: the right one is found, faults name both sides; compared with a scan over all of them. */
#include "range.h"
#include "test.h"

static luna_range between(int64_t low, int64_t high)
{
    return (luna_range){ .has_low = true,
                         .has_high = true,
                         .low = { .type = LUNA_KEY_INT8, .number = low },
                         .high = { .type = LUNA_KEY_INT8, .number = high } };
}

static luna_key number(int64_t n)
{
    return (luna_key){ .type = LUNA_KEY_INT8, .number = n };
}

static luna_key text(const char *s)
{
    return (luna_key){ .type = LUNA_KEY_TEXT, .text = s, .len = strlen(s) };
}

static int64_t found(const luna_range_set *set, luna_key key)
{
    const luna_range *range = luna_range_find(set, &key);
    return range ? (int64_t)range->index : -1;
}

static void guide_ranges(void)
{
    luna_range ranges[3] = { between(2000001, 0), between(0, 1000000), between(1000001, 2000000) };
    luna_range_set set;
    size_t a, b;
    ranges[0].has_high = false;
    CHECK_INT(LUNA_RANGE_SOUND, luna_range_set_init(&set, ranges, 3, false, &a, &b));
    CHECK_INT(-1, found(&set, number(-1)));
    CHECK_INT(1, found(&set, number(0)));
    CHECK_INT(1, found(&set, number(1000000)));
    CHECK_INT(2, found(&set, number(1000001)));
    CHECK_INT(2, found(&set, number(2000000)));
    CHECK_INT(0, found(&set, number(2000001)));
    CHECK_INT(0, found(&set, number(INT64_MAX)));
    luna_range_set_deinit(&set);
}

static void extremes(void)
{
    luna_range ranges[2] = { between(INT64_MIN, -1), between(0, INT64_MAX) };
    luna_range_set set;
    size_t a, b;
    CHECK_INT(LUNA_RANGE_SOUND, luna_range_set_init(&set, ranges, 2, false, &a, &b));
    CHECK_INT(0, found(&set, number(INT64_MIN)));
    CHECK_INT(1, found(&set, number(INT64_MAX)));
    luna_range_set_deinit(&set);
}

static void faults(void)
{
    luna_range_set set = { 0 };
    size_t a = 9, b = 9;
    luna_range overlap[2] = { between(10, 20), between(0, 10) };
    CHECK_INT(LUNA_RANGE_OVERLAP, luna_range_set_init(&set, overlap, 2, true, &a, &b));
    CHECK_INT(1, a);
    CHECK_INT(0, b);
    luna_range gap[2] = { between(0, 9), between(11, 20) };
    CHECK_INT(LUNA_RANGE_GAP, luna_range_set_init(&set, gap, 2, false, &a, &b));
    CHECK_INT(0, a);
    CHECK_INT(1, b);
    CHECK_INT(LUNA_RANGE_SOUND, luna_range_set_init(&set, gap, 2, true, &a, &b));
    CHECK_INT(-1, found(&set, number(10)));
    luna_range_set_deinit(&set);
    luna_range empty[1] = { between(5, 4) };
    CHECK_INT(LUNA_RANGE_EMPTY, luna_range_set_init(&set, empty, 1, false, &a, &b));
    luna_range same[2] = { between(1, 2), between(1, 2) };
    CHECK_INT(LUNA_RANGE_OVERLAP, luna_range_set_init(&set, same, 2, false, &a, &b));
    luna_range open[2] = { between(0, 0), between(5, 9) };
    open[0].has_high = false;
    CHECK_INT(LUNA_RANGE_OVERLAP, luna_range_set_init(&set, open, 2, true, &a, &b));
    luna_range both_open[2] = { between(0, 5), between(0, 9) };
    both_open[0].has_low = both_open[1].has_low = false;
    CHECK_INT(LUNA_RANGE_OVERLAP, luna_range_set_init(&set, both_open, 2, true, &a, &b));
    both_open[0].high.number = -9;
    both_open[1].high.number = -5;
    CHECK_INT(LUNA_RANGE_OVERLAP, luna_range_set_init(&set, both_open, 2, true, &a, &b));
    CHECK(set.ranges == NULL);
}

static void text_ranges(void)
{
    char low[] = "a", middle[] = "n";
    luna_range ranges[2] = { { .has_low = true, .has_high = true, .high_exclusive = true },
                             { .has_low = true } };
    luna_range_set set;
    size_t a, b;
    ranges[0].low = text(low);
    ranges[0].high = text(middle);
    ranges[1].low = text(middle);
    CHECK_INT(LUNA_RANGE_SOUND, luna_range_set_init(&set, ranges, 2, false, &a, &b));
    memset(low, 'x', 1); /* the set has its own copies */
    memset(middle, 'x', 1);
    CHECK_INT(-1, found(&set, text("Z")));
    CHECK_INT(0, found(&set, text("a")));
    CHECK_INT(0, found(&set, text("mzzz")));
    CHECK_INT(1, found(&set, text("n")));
    CHECK_INT(1, found(&set, text("\xc3\xbc")));
    luna_range_set_deinit(&set);

    ranges[0].low = text("a");
    ranges[0].high = text("m");
    ranges[0].high_exclusive = false;
    ranges[1].low = text("n");
    ranges[0].high.number = 4; /* what a text key has there means nothing */
    ranges[1].low.number = 5;
    CHECK_INT(LUNA_RANGE_GAP, luna_range_set_init(&set, ranges, 2, false, &a, &b));
    ranges[0].low = ranges[0].high = text("a");
    ranges[0].high_exclusive = true;
    CHECK_INT(LUNA_RANGE_EMPTY, luna_range_set_init(&set, ranges, 1, false, &a, &b));
}

/* Does range `r` hold `n`?  Said without the code under test. */
static bool holds(const luna_range *r, int64_t n)
{
    return (!r->has_low || n >= r->low.number) &&
           (!r->has_high || (r->high_exclusive ? n < r->high.number : n <= r->high.number));
}

static bool meets(const luna_range *r, int64_t low, int64_t high)
{
    for (int64_t n = low; n <= high; n++) {
        if (holds(r, n))
            return true;
    }
    return false;
}

/* Random disjoint ranges over 0..200, shuffled, against a scan. */
static void random_sets(uint64_t *random)
{
    int wrong = 0;
    for (int round = 0; round < 500; round++) {
        luna_range ranges[40];
        size_t n = 0, a, b;
        for (int64_t at = (int64_t)(test_random(random) % 10); at < 180 && n < 40;) {
            int64_t width = (int64_t)(test_random(random) % 12);
            ranges[n] = between(at, at + width);
            if (test_random(random) % 2 == 0) {
                ranges[n].high.number++;
                ranges[n].high_exclusive = true;
            }
            at += width + 1 + (int64_t)(test_random(random) % 3);
            n++;
        }
        ranges[0].has_low = test_random(random) % 2 == 0;
        ranges[n - 1].has_high = test_random(random) % 2 == 0;
        for (size_t i = n - 1; i > 0; i--) {
            size_t j = test_random(random) % (i + 1);
            luna_range other = ranges[i];
            ranges[i] = ranges[j];
            ranges[j] = other;
        }
        luna_range_set set;
        if (luna_range_set_init(&set, ranges, n, true, &a, &b) != LUNA_RANGE_SOUND) {
            wrong++;
            continue;
        }
        for (int64_t key = -5; key < 205; key++) {
            int64_t expected = -1;
            for (size_t i = 0; i < n; i++) {
                if (holds(&ranges[i], key))
                    expected = (int64_t)i;
            }
            wrong += found(&set, number(key)) != expected;
        }
        for (int i = 0; i < 20; i++) {
            int64_t low = (int64_t)(test_random(random) % 210) - 5;
            int64_t high = low + (int64_t)(test_random(random) % 30) - 3;
            luna_key from = number(low), to = number(high);
            size_t first, count = luna_range_span(&set, &from, &to, &first), expected = 0;
            for (size_t r = 0; r < n; r++)
                expected += meets(&ranges[r], low, high);
            wrong += count != expected;
            for (size_t r = 0; r < count; r++)
                wrong += !meets(&set.ranges[first + r], low, high);
        }
        size_t first;
        luna_key middle = number(100);
        size_t below = luna_range_span(&set, NULL, &middle, &first);
        size_t all = luna_range_span(&set, NULL, NULL, &first);
        wrong += all != n || below > all || luna_range_span(&set, &middle, NULL, &first) > all;
        luna_range_set_deinit(&set);
    }
    CHECK_INT(0, wrong);
}

int main(void)
{
    uint64_t random = test_seed();
    guide_ranges();
    extremes();
    faults();
    text_ranges();
    random_sets(&random);
    return test_report();
}
