/* Keys: every form of a value becomes one key, everything else is refused with a reason. */
#include <math.h>

#include "key.h"
#include "test.h"

static luna_key key;
static luna_err err;

static luna_status read_text(luna_key_type type, const char *text)
{
    err.msg[0] = '\0';
    return luna_key_from_text(&key, type, text, strlen(text), &err);
}

static void int8_texts(void)
{
    static const struct {
        const char *text;
        int64_t value;
    } GOOD[] = {
        { "42", 42 },
        { "042", 42 },
        { "+42", 42 },
        { "-42", -42 },
        { " 42\t", 42 },
        { "-0", 0 },
        { "\v\f\r\n42", 42 },
        { "0000000000000000000000001", 1 },
        { "9223372036854775807", INT64_MAX },
        { "-9223372036854775808", INT64_MIN },
    };
    static const char *const BAD[] = { "",
                                       " ",
                                       "+",
                                       "-",
                                       "+ 42",
                                       "4x2",
                                       "42.0",
                                       "42.",
                                       "1e3",
                                       "0x2A",
                                       "4_2",
                                       "--1",
                                       "4 2",
                                       "42LL",
                                       "\xc2\xa0"
                                       "42",
                                       "99999999999999999999x" };
    static const char *const FAR[] = { "9223372036854775808", "-9223372036854775809",
                                       "99999999999999999999999" };
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        CHECK_INT(LUNA_OK, read_text(LUNA_KEY_INT8, GOOD[i].text));
        CHECK_INT(GOOD[i].value, key.number);
    }
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        CHECK_INT(LUNA_EINVAL, read_text(LUNA_KEY_INT8, BAD[i]));
        CHECK(strstr(err.msg, "is not an int8") != NULL);
    }
    for (size_t i = 0; i < sizeof(FAR) / sizeof(FAR[0]); i++) {
        CHECK_INT(LUNA_EINVAL, read_text(LUNA_KEY_INT8, FAR[i]));
        CHECK(strstr(err.msg, "out of range") != NULL);
    }
    CHECK_INT(LUNA_EINVAL, read_text(LUNA_KEY_INT8, "4x2"));
    CHECK_STR("routing key \"4x2\" is not an int8", err.msg);
    CHECK_INT(LUNA_EINVAL, luna_key_from_text(&key, LUNA_KEY_INT8, "42\0", 3, &err));
}

static void int8_numbers(void)
{
    CHECK_INT(LUNA_OK, luna_key_from_double(&key, LUNA_KEY_INT8, 42.0, &err));
    CHECK_INT(42, key.number);
    CHECK_INT(LUNA_OK, luna_key_from_double(&key, LUNA_KEY_INT8, -0.0, &err));
    CHECK_INT(0, key.number);
    CHECK_INT(LUNA_OK, luna_key_from_double(&key, LUNA_KEY_INT8, 9007199254740992.0, &err));
    CHECK_INT(INT64_C(9007199254740992), key.number);
    CHECK_INT(LUNA_EINVAL, luna_key_from_double(&key, LUNA_KEY_INT8, 9007199254740994.0, &err));
    CHECK(strstr(err.msg, "beyond 2^53") != NULL);
    CHECK_INT(LUNA_EINVAL, luna_key_from_double(&key, LUNA_KEY_INT8, -1e300, &err));
    CHECK_INT(LUNA_EINVAL, luna_key_from_double(&key, LUNA_KEY_INT8, 42.5, &err));
    CHECK_STR("routing key 42.5 is not an int8", err.msg);
    CHECK_INT(LUNA_EINVAL, luna_key_from_double(&key, LUNA_KEY_INT8, INFINITY, &err));
    CHECK_INT(LUNA_ENULLKEY, luna_key_from_double(&key, LUNA_KEY_INT8, NAN, &err));
    CHECK_INT(LUNA_ENULLKEY, luna_key_from_double(&key, LUNA_KEY_TEXT, NAN, &err));
    CHECK_INT(LUNA_OK, luna_key_from_int64(&key, LUNA_KEY_INT8, INT64_MIN, &err));
    CHECK_INT(INT64_MIN, key.number);
    CHECK_INT(LUNA_OK, luna_key_from_uint64(&key, LUNA_KEY_INT8, INT64_MAX, &err));
    CHECK_INT(INT64_MAX, key.number);
    CHECK_INT(LUNA_EINVAL, luna_key_from_uint64(&key, LUNA_KEY_INT8, UINT64_C(1) << 63, &err));
    CHECK_STR("routing key 9223372036854775808 is out of range for int8", err.msg);
}

static void other_types_refuse_numbers(void)
{
    CHECK_INT(LUNA_EINVAL, luna_key_from_double(&key, LUNA_KEY_TEXT, 42, &err));
    CHECK_STR("routing key 42 is a number, not a text: give it as text", err.msg);
    CHECK_INT(LUNA_EINVAL, luna_key_from_int64(&key, LUNA_KEY_UUID, 42, &err));
    CHECK_INT(LUNA_EINVAL, luna_key_from_int64(&key, LUNA_KEY_DATE, 20240101, &err));
}

static void any_type_follows_the_value(void)
{
    CHECK_INT(LUNA_OK, luna_key_from_double(&key, LUNA_KEY_ANY, 42, &err));
    CHECK_INT(LUNA_KEY_INT8, key.type);
    CHECK_INT(LUNA_OK, read_text(LUNA_KEY_ANY, "42"));
    CHECK_INT(LUNA_KEY_TEXT, key.type);
}

static void uuids(void)
{
    static const char *const SAME[] = {
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",    "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",  "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}",
    };
    static const char *const BAD[] = {
        "",
        "{}",
        "a0eebc99",
        " a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11}",
        "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
        "a0eebc999c0b4ef8bb6d6bb9bd380a1g",
        "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a1122",
        "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
    };
    char buf[LUNA_KEY_FORMAT_MAX];
    for (size_t i = 0; i < sizeof(SAME) / sizeof(SAME[0]); i++) {
        CHECK_INT(LUNA_OK, read_text(LUNA_KEY_UUID, SAME[i]));
        CHECK_INT(36, luna_key_format(&key, buf, sizeof(buf)));
        CHECK_STR(SAME[0], buf);
        CHECK_INT(9680, luna_key_row_hash(&key, 1) % 16384); /* satisfies_hash_partition's word */
    }
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        CHECK_INT(LUNA_EINVAL, read_text(LUNA_KEY_UUID, BAD[i]));
        CHECK(strstr(err.msg, "is not a uuid") != NULL);
    }
}

static void dates(void)
{
    static const struct {
        const char *text;
        int64_t days; /* date 'text' - date '2000-01-01' on the server */
    } GOOD[] = {
        { "2000-01-01", 0 },       { "1999-12-31", -1 },     { "2000-02-29", 59 },
        { "2000-03-01", 60 },      { "2024-02-29", 8825 },   { "1900-03-01", -36465 },
        { "0001-01-01", -730119 }, { "1970-01-01", -10957 }, { "5874897-12-31", 2145031948 },
    };
    static const char *const BAD[] = {
        "",           "2024-2-29",   "2024-02-2x",       "20240229",
        "2024/02/29", " 2024-02-29", "2024-02-29 10:00", "-024-02-29",
        "now"
    };
    static const char *const FAR[] = { "2023-02-29", "1900-02-29", "2024-13-01", "2024-00-01",
                                       "2024-04-31", "2024-01-00", "0000-01-01", "5874898-01-01" };
    char buf[LUNA_KEY_FORMAT_MAX];
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        CHECK_INT(LUNA_OK, read_text(LUNA_KEY_DATE, GOOD[i].text));
        CHECK_INT(GOOD[i].days, key.number);
        luna_key_format(&key, buf, sizeof(buf));
        CHECK_STR(GOOD[i].text, buf);
    }
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        CHECK_INT(LUNA_EINVAL, read_text(LUNA_KEY_DATE, BAD[i]));
        CHECK(strstr(err.msg, "is not a date") != NULL);
    }
    for (size_t i = 0; i < sizeof(FAR) / sizeof(FAR[0]); i++) {
        CHECK_INT(LUNA_EINVAL, read_text(LUNA_KEY_DATE, FAR[i]));
        CHECK(strstr(err.msg, "out of range for date") != NULL);
    }
    CHECK_INT(LUNA_OK, read_text(LUNA_KEY_DATE, "2024-02-29"));
    CHECK_INT(15591, luna_key_row_hash(&key, 1) % 16384);
}

/* Each day of 800 years follows the one before it, there and back. */
static void days_are_consecutive(void)
{
    char buf[LUNA_KEY_FORMAT_MAX];
    int64_t expected = 0;
    int wrong = 0;
    CHECK_INT(LUNA_OK, read_text(LUNA_KEY_DATE, "1600-01-01"));
    for (expected = key.number; expected < 146097; expected++) {
        luna_key day = { .type = LUNA_KEY_DATE, .number = expected };
        luna_key_format(&day, buf, sizeof(buf));
        wrong += read_text(LUNA_KEY_DATE, buf) != LUNA_OK || key.number != expected;
    }
    CHECK_INT(0, wrong);
    CHECK_STR("2399-12-31", buf);
}

static void texts(void)
{
    static const char *const GOOD[] = { "",
                                        "a",
                                        "Z\xc3\xbcrich",
                                        "\xe2\x98\x83",
                                        "\xf0\x9f\x8c\x99",
                                        "\xed\x9f\xbf",
                                        "\xee\x80\x80",
                                        "\xf4\x8f\xbf\xbf" };
    static const char *const BAD[] = {
        "\x80",
        "\xc3",
        "\xc3(",
        "\xc0\xaf",
        "\xe0\x80\xaf",
        "\xed\xa0\x80",
        "\xf0\x80\x80\xaf",
        "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80\x80",
        "a\xe2\x98",
        "\xff",
    };
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        CHECK_INT(LUNA_OK, read_text(LUNA_KEY_TEXT, GOOD[i]));
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        CHECK_INT(LUNA_EINVAL, read_text(LUNA_KEY_TEXT, BAD[i]));
        CHECK(strstr(err.msg, "not valid UTF-8") != NULL);
    }
    CHECK_INT(LUNA_EINVAL, luna_key_from_text(&key, LUNA_KEY_TEXT, "a\0b", 3, &err));
    CHECK_STR("routing key \"a?b\" contains a NUL byte", err.msg);
    CHECK_INT(LUNA_EINVAL, read_text(LUNA_KEY_INT8, "0123456789012345678901234567890123456789x"));
    CHECK(strstr(err.msg, "...\"") != NULL);
}

static luna_key text_key(const char *text)
{
    return (luna_key){ .type = LUNA_KEY_TEXT, .text = text, .len = strlen(text) };
}

static void order(void)
{
    luna_key a = text_key("a"), ab = text_key("ab"), b = text_key("b"), e = text_key("");
    luna_key high = text_key("\xc3\xbc");
    CHECK(luna_key_compare(&a, &ab) < 0);
    CHECK(luna_key_compare(&ab, &b) < 0);
    CHECK(luna_key_compare(&e, &a) < 0);
    CHECK(luna_key_compare(&b, &high) < 0); /* bytes are unsigned */
    CHECK(luna_key_compare(&ab, &ab) == 0);
    luna_key least = { .type = LUNA_KEY_INT8, .number = INT64_MIN };
    luna_key most = { .type = LUNA_KEY_INT8, .number = INT64_MAX };
    CHECK(luna_key_compare(&least, &most) < 0);
}

static void type_names(void)
{
    luna_key_type type;
    CHECK_INT(LUNA_OK, luna_key_type_parse("uuid", &type, &err));
    CHECK_INT(LUNA_KEY_UUID, type);
    CHECK_INT(LUNA_EINVAL, luna_key_type_parse("any", &type, &err));
    CHECK_INT(LUNA_EINVAL, luna_key_type_parse("bigint", &type, &err));
}

int main(void)
{
    int8_texts();
    int8_numbers();
    other_types_refuse_numbers();
    any_type_follows_the_value();
    uuids();
    dates();
    days_are_consecutive();
    texts();
    order();
    type_names();
    return test_report();
}
