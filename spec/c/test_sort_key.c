/* Sort keys: lists in the server's order (checked with ORDER BY on one), every pair compared. */
#include <stdbool.h>

#include "sort_key.h"
#include "test.h"

static bool key_of(luna_sort_key *key, luna_sort_family family, const char *text)
{
    return luna_sort_key_make(key, family, text, strlen(text));
}

/* `texts` ascend; one that begins with '=' equals the one before it. */
static void in_order(luna_sort_family family, const char *const *texts)
{
    int n = 0, ranks[64] = { 0 };
    luna_sort_key keys[64];
    for (; texts[n] != NULL; n++) {
        bool same = texts[n][0] == '=';
        ranks[n] = n == 0 ? 0 : ranks[n - 1] + !same;
        if (!key_of(&keys[n], family, texts[n] + same)) {
            printf("no key of %s\n", texts[n]);
            CHECK(false);
        }
    }
    for (int a = 0; a < n; a++) {
        for (int b = 0; b < n; b++) {
            int by = luna_sort_key_compare(&keys[a], &keys[b]);
            int want = (ranks[a] > ranks[b]) - (ranks[a] < ranks[b]);
            if ((by > 0) - (by < 0) != want)
                printf("%s against %s\n", texts[a], texts[b]);
            CHECK_INT(want, (by > 0) - (by < 0));
        }
    }
}

static void refused(luna_sort_family family, const char *const *texts)
{
    luna_sort_key key;
    for (; *texts != NULL; texts++) {
        bool made = key_of(&key, family, *texts);
        if (made)
            printf("a key of %s\n", *texts);
        CHECK(!made);
    }
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Random decimals against long doubles that hold them exactly. */
static void random_numerics(uint64_t *random)
{
    for (int i = 0; i < 20000; i++) {
        char text[2][40];
        long double value[2];
        luna_sort_key keys[2];
        for (int k = 0; k < 2; k++) {
            int whole = (int)(test_random(random) % 2001) - 1000,
                places = (int)(test_random(random) % 4);
            int fraction = (int)(test_random(random) % 1000), scale = 1;
            if (test_random(random) % 4 == 0)
                whole = 0;
            for (int p = 0; p < places; p++)
                scale *= 10;
            fraction %= scale;
            bool negative = whole < 0;
            snprintf(text[k], sizeof(text[k]), places > 0 ? "%s%d.%0*d" : "%s%d",
                     negative ? "-" : "", abs(whole), places, fraction);
            value[k] =
                ((long double)abs(whole) * 1000 + fraction * (1000 / scale)) * (negative ? -1 : 1);
            CHECK(key_of(&keys[k], LUNA_SORT_NUMERIC, text[k]));
        }
        int by = luna_sort_key_compare(&keys[0], &keys[1]);
        int want = (value[0] > value[1]) - (value[0] < value[1]);
        if ((by > 0) - (by < 0) != want)
            printf("%s against %s\n", text[0], text[1]);
        CHECK_INT(want, (by > 0) - (by < 0));
    }
}

int main(void)
{
    uint64_t random = test_seed();
    in_order(LUNA_SORT_INTEGER,
             LIST("-9223372036854775808", "-9223372036854775807", "-10", "-9", "-1", "0", "1", "9",
                  "10", "9007199254740992", "9007199254740993", "9223372036854775807"));
    refused(LUNA_SORT_INTEGER, LIST("", "-", "1.5", "x", "9223372036854775808"));
    in_order(LUNA_SORT_FLOAT, LIST("-Infinity", "-1.7976931348623157e+308", "-1.5", "-1e-300", "-0",
                                   "=0", "5e-324", "0.1", "1e+100", "Infinity", "NaN", "=NaN"));
    refused(LUNA_SORT_FLOAT, LIST("", " 1", "1x", "one"));
    in_order(LUNA_SORT_NUMERIC,
             LIST("-Infinity", "-100000000000000000000.5", "-100000000000000000000", "-10", "-9.99",
                  "-9.9", "=-9.90", "-1.01", "-1", "=-1.000", "-0.1", "-0.01", "-0.001", "0",
                  "=0.000", "=-0", "0.001", "0.0010001", "0.01", "0.1", "0.11", "1", "=1.0", "1.01",
                  "1.1", "2", "9.99", "10", "=10.000", "10.01", "99", "100", "100.1", "101",
                  "123456789012345678901234567890.1", "123456789012345678901234567890.12",
                  "Infinity", "NaN"));
    refused(LUNA_SORT_NUMERIC, LIST("", "-", ".", "1.2.3", "1e5", "nan", "--1"));
    in_order(LUNA_SORT_BOOL, LIST("f", "t"));
    refused(LUNA_SORT_BOOL, LIST("", "true", "x"));
    in_order(LUNA_SORT_BYTES,
             LIST("", " ", "A", "B", "a", "a ", "aa", "b", "\xc3\xa9", "\xf0\x9f\x90\x98"));
    in_order(LUNA_SORT_PADDED, LIST("", "=   ", "A", "a", "=a ", "=a   ", "a b", "aa"));
    in_order(LUNA_SORT_DATE,
             LIST("-infinity", "4713-01-01 BC", "0044-03-15 BC", "0001-02-29 BC", "0001-12-31 BC",
                  "0001-01-01", "1582-10-15", "1900-02-28", "1900-03-01", "1969-12-31",
                  "1970-01-01", "2000-02-29", "2000-03-01", "2024-12-31", "2025-01-01",
                  "9999-12-31", "10000-01-01", "5874897-12-31", "infinity"));
    refused(LUNA_SORT_DATE,
            LIST("", "2024-13-01", "2024-1-1", "01/02/2024", "2024-01-01 AD", "Infinity"));
    in_order(LUNA_SORT_TIMESTAMP,
             LIST("-infinity", "4713-01-01 00:00:00 BC", "0001-12-31 23:59:59.999999 BC",
                  "0001-01-01 00:00:00", "1969-12-31 23:59:59.5", "1970-01-01 00:00:00",
                  "2024-02-29 00:00:00.000001", "2024-02-29 00:00:00.00001",
                  "2024-02-29 00:00:00.1", "=2024-02-29 00:00:00.100000", "2024-02-29 00:00:01",
                  "2024-03-01 00:00:00", "294276-12-31 23:59:59.999999", "infinity"));
    refused(LUNA_SORT_TIMESTAMP,
            LIST("2024-01-01", "2024-01-01 10:00", "2024-01-01T10:00:00", "2024-01-01 10:00:00+00",
                 "2024-01-01 10:00:00.", "2024-01-01 10:00:00.1234567", "999999-01-01 00:00:00"));
    in_order(LUNA_SORT_TIMESTAMPTZ,
             LIST("-infinity", "0002-12-31 23:00:00+00 BC", "2024-03-31 00:30:00+00",
                  "=2024-03-31 01:30:00+01", "2024-03-31 03:30:00+02",
                  "2024-03-31 01:30:00.000001+00", "=2024-03-31 07:00:00.000001+05:30",
                  "=2024-03-30 22:30:00.000001-03", "2024-03-31 01:30:00.5+00",
                  "=2024-03-31 01:37:30.5+00:07:30", "294276-12-31 23:59:59.999999+00",
                  "infinity"));
    refused(LUNA_SORT_TIMESTAMPTZ,
            LIST("2024-01-01 10:00:00", "2024-01-01 10:00:00 UTC", "2024-01-01 10:00:00+0"));
    random_numerics(&random);
    return test_report();
}
