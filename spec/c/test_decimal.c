/* Exact decimals against known values, 128-bit integers and the server's rules. */
#include "decimal.h"
#include "test.h"

static void set(luna_decimal *d, const char *text)
{
    luna_err err;
    CHECK(luna_decimal_parse(d, text, strlen(text), &err) == LUNA_OK);
}

/* The text of `d`, valid until the next call. */
static const char *text_of(const luna_decimal *d)
{
    static luna_buf buf;
    luna_buf_clear(&buf);
    luna_decimal_write(d, &buf);
    luna_buf_add_char(&buf, '\0');
    return buf.data;
}

static void prints_what_the_server_prints(void)
{
    static const char *cases[][2] = {
        { "0", "0" },
        { "-0", "0" },
        { "-0.00", "0.00" },
        { "00012.50", "12.50" },
        { ".5", "0.5" },
        { "7.", "7" },
        { "+3", "3" },
        { "1000000000", "1000000000" },
        { "-1000000000.000000001", "-1000000000.000000001" },
        { "0.0000000000000000000000000001", "0.0000000000000000000000000001" },
        { "123456789012345678901234567890.12345678901",
          "123456789012345678901234567890.12345678901" },
        { "NaN", "NaN" },
        { "Infinity", "Infinity" },
        { "-Infinity", "-Infinity" },
    };
    luna_decimal d = { 0 };
    CHECK_STR("0", text_of(&d));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set(&d, cases[i][0]);
        CHECK_STR(cases[i][1], text_of(&d));
    }
    luna_decimal_deinit(&d);
}

static void refuses_what_is_no_number_and_keeps_its_value(void)
{
    static const char *bad[] = { "",   "-",  ".",   "1e5",  "1.2.3", "12a",
                                 " 1", "1 ", "nan", "-NaN", "--1" };
    luna_decimal d = { 0 };
    set(&d, "12.5");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        luna_err err;
        CHECK(luna_decimal_parse(&d, bad[i], strlen(bad[i]), &err) == LUNA_EINVAL);
        CHECK(strstr(err.msg, "is not a number") != NULL);
    }
    char *huge = malloc(131074);
    memset(huge, '9', 131073);
    huge[131073] = '\0';
    CHECK(luna_decimal_parse(&d, huge, 131073, NULL) == LUNA_EINVAL);
    free(huge);
    CHECK_STR("12.5", text_of(&d));
    luna_decimal_deinit(&d);
}

static void check_sum(const char *a, const char *b, const char *sum, const char *difference)
{
    luna_decimal x = { 0 }, y = { 0 };
    set(&x, a);
    set(&y, b);
    luna_decimal_add(&x, &y);
    CHECK_STR(sum, text_of(&x));
    set(&x, a);
    luna_decimal_sub(&x, &y);
    CHECK_STR(difference, text_of(&x));
    luna_decimal_deinit(&x);
    luna_decimal_deinit(&y);
}

static void adds_and_subtracts(void)
{
    check_sum("0.1", "0.2", "0.3", "-0.1");
    check_sum("1", "0.999999999", "1.999999999", "0.000000001");
    check_sum("1", "0.9999999999", "1.9999999999", "0.0000000001");
    check_sum("999999999", "1", "1000000000", "999999998");
    check_sum("999999999999999999", "1", "1000000000000000000", "999999999999999998");
    check_sum("1.50", "-1.5", "0.00", "3.00");
    check_sum("-5", "3", "-2", "-8");
    check_sum("3", "-5", "-2", "8");
    check_sum("0", "-7", "-7", "7");
    check_sum("9223372036854775807", "9223372036854775807", "18446744073709551614", "0");
    check_sum("NaN", "1", "NaN", "NaN");
    check_sum("1", "NaN", "NaN", "NaN");
    check_sum("1", "Infinity", "Infinity", "-Infinity");
    check_sum("-Infinity", "1", "-Infinity", "-Infinity");
    check_sum("Infinity", "Infinity", "Infinity", "NaN");
    check_sum("Infinity", "-Infinity", "NaN", "Infinity");
    check_sum("NaN", "Infinity", "NaN", "NaN");
}

static void orders_as_the_server_does(void)
{
    static const char *order[] = { "-Infinity",  "-1000000000000", "-1.01",    "-1", "-0.000001",
                                   "0.00",       "0.00000001",     "0.1",      "1",  "999999999",
                                   "1000000000", "1000000000.1",   "Infinity", "NaN" };
    int n = (int)(sizeof(order) / sizeof(order[0]));
    luna_decimal a = { 0 }, b = { 0 };
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            set(&a, order[i]);
            set(&b, order[j]);
            CHECK_INT((i > j) - (i < j), luna_decimal_compare(&a, &b));
        }
    }
    set(&a, "1.0");
    set(&b, "1.0000000000000000");
    CHECK_INT(0, luna_decimal_compare(&a, &b));
    luna_decimal_deinit(&a);
    luna_decimal_deinit(&b);
}

static void knows_which_values_are_int64(void)
{
    luna_decimal d = { 0 };
    int64_t v = 0;
    set(&d, "9223372036854775807");
    CHECK(luna_decimal_to_int64(&d, &v) && v == INT64_MAX);
    set(&d, "-9223372036854775808");
    CHECK(luna_decimal_to_int64(&d, &v) && v == INT64_MIN);
    set(&d, "9223372036854775808");
    CHECK(!luna_decimal_to_int64(&d, &v));
    set(&d, "-9223372036854775809");
    CHECK(!luna_decimal_to_int64(&d, &v));
    set(&d, "1000000000000000000000000000000000000000000");
    CHECK(!luna_decimal_to_int64(&d, &v));
    set(&d, "-42.000");
    CHECK(luna_decimal_to_int64(&d, &v) && v == -42);
    set(&d, "42.000000000000000001");
    CHECK(!luna_decimal_to_int64(&d, &v));
    set(&d, "NaN");
    CHECK(!luna_decimal_to_int64(&d, &v));
    set(&d, "Infinity");
    CHECK(!luna_decimal_to_int64(&d, &v));
    luna_decimal copy = { 0 };
    set(&copy, "123456789012345678901234567890");
    luna_decimal_copy(&copy, &d);
    set(&d, "-7.25");
    CHECK_STR("Infinity", text_of(&copy));
    luna_decimal_copy(&copy, &d);
    CHECK_STR("-7.25", text_of(&copy));
    luna_decimal_deinit(&copy);
    luna_decimal_set(&d, UINT64_MAX, false);
    CHECK_STR("18446744073709551615", text_of(&d));
    luna_decimal_set(&d, (uint64_t)INT64_MAX + 1, true);
    CHECK(luna_decimal_to_int64(&d, &v) && v == INT64_MIN);
    luna_decimal_deinit(&d);
}

/* Every quotient below was printed by PostgreSQL 15 for `a::numeric / b`. */
static void divides_with_the_servers_scale(void)
{
    static const struct {
        const char *sum;
        uint64_t count;
        const char *quotient;
    } cases[] = {
#include "decimal_quotients.h"
    };
    luna_decimal d = { 0 };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set(&d, cases[i].sum);
        luna_decimal_divide(&d, cases[i].count);
        CHECK_STR(cases[i].quotient, text_of(&d));
    }
    luna_decimal_deinit(&d);
}

/* Random running sums of scaled integers, against __int128. */
static void agrees_with_wide_integers(uint64_t *seed)
{
    luna_decimal sum = { 0 }, x = { 0 };
    for (int round = 0; round < 200; round++) {
        unsigned scale = (unsigned)(test_random(seed) % 13);
        __int128 oracle = 0;
        luna_decimal_set(&sum, 0, false);
        for (int i = 0; i < 50; i++) {
            int64_t v = (int64_t)test_random(seed) >> (test_random(seed) % 64);
            uint64_t magnitude = v < 0 ? -(uint64_t)v : (uint64_t)v;
            char digits[64];
            snprintf(digits, sizeof(digits), "%0*" PRIu64, (int)scale + 1, magnitude);
            char text[80];
            int whole = (int)(strlen(digits) - scale);
            snprintf(text, sizeof(text), "%s%.*s.%s", v < 0 ? "-" : "", whole, digits,
                     digits + whole);
            set(&x, text);
            if (test_random(seed) % 2) {
                luna_decimal_add(&sum, &x);
                oracle += v;
            } else {
                luna_decimal_sub(&sum, &x);
                oracle -= v;
            }
        }
        /* print the oracle by hand */
        unsigned __int128 left =
            oracle < 0 ? -(unsigned __int128)oracle : (unsigned __int128)oracle;
        char reversed[80], expected[80];
        size_t n = 0, at = 0;
        for (unsigned place = 0; left != 0 || place <= scale; place++) {
            if (place == scale && scale > 0)
                reversed[n++] = '.';
            reversed[n++] = (char)('0' + (int)(left % 10));
            left /= 10;
        }
        if (oracle < 0)
            expected[at++] = '-';
        while (n > 0)
            expected[at++] = reversed[--n];
        expected[at] = '\0';
        CHECK_STR(expected, text_of(&sum));
    }
    luna_decimal_deinit(&sum);
    luna_decimal_deinit(&x);
}

int main(void)
{
    uint64_t seed = test_seed();
    prints_what_the_server_prints();
    refuses_what_is_no_number_and_keeps_its_value();
    adds_and_subtracts();
    orders_as_the_server_does();
    knows_which_values_are_int64();
    divides_with_the_servers_scale();
    agrees_with_wide_integers(&seed);
    return test_report();
}
