/* PostgreSQL's text formats: exact where the server is exact, strict on malformed text. */
#include <float.h>
#include <math.h>

#include "pgtext.h"
#include "test.h"

static uint64_t seed;

static int same(const luna_buf *buf, const char *text, size_t n)
{
    return buf->len == n && (n == 0 || memcmp(buf->data, text, n) == 0);
}

#define SAME(buf, literal) same(&(buf), literal, sizeof(literal) - 1)

/* ---- numbers ---- */

static bool parses_to(const char *text, int64_t expected)
{
    int64_t v = 12345;
    return luna_pg_parse_int8(text, strlen(text), &v) && v == expected;
}

static bool refuses(const char *text)
{
    int64_t v = 12345;
    return !luna_pg_parse_int8(text, strlen(text), &v) && v == 12345;
}

static void test_int8(void)
{
    CHECK(parses_to("0", 0));
    CHECK(parses_to("-1", -1));
    CHECK(parses_to("9223372036854775807", INT64_MAX));
    CHECK(parses_to("-9223372036854775808", INT64_MIN));
    CHECK(parses_to("9007199254740993", INT64_C(9007199254740993)));
    CHECK(refuses("9223372036854775808"));
    CHECK(refuses("-9223372036854775809"));
    CHECK(refuses("18446744073709551616"));
    CHECK(refuses("99999999999999999999999"));
    CHECK(refuses(""));
    CHECK(refuses("-"));
    CHECK(refuses("--1"));
    CHECK(refuses("+1"));
    CHECK(refuses(" 1"));
    CHECK(refuses("1 "));
    CHECK(refuses("1.0"));
    CHECK(refuses("0x10"));
    int64_t v = 0;
    CHECK(luna_pg_parse_int8("1234", 2, &v) && v == 12); /* reads no further than told */
    for (int i = 0; i < 20000; i++) {
        int64_t expected = (int64_t)(test_random(&seed) >> (test_random(&seed) % 64));
        char text[32];
        snprintf(text, sizeof(text), "%" PRId64, expected);
        if (!parses_to(text, expected))
            CHECK_STR("an int8 read back", text);
    }
}

static const char *formatted(double v)
{
    static char text[LUNA_PG_DOUBLE_MAX];
    size_t n = luna_pg_format_double(v, text);
    CHECK_INT(strlen(text), n);
    return text;
}

static void test_double(void)
{
    CHECK_STR("0", formatted(0.));
    CHECK_STR("-0", formatted(-0.));
    CHECK_STR("42", formatted(42.));
    CHECK_STR("-1000000", formatted(-1e6));
    CHECK_STR("100000000000000000000", formatted(1e20));
    CHECK_STR("9007199254740993024", formatted(9007199254740993000.)); /* what it really is */
    CHECK_STR("0.1", formatted(0.1));
    CHECK_STR("-2.5", formatted(-2.5));
    CHECK_STR("0.30000000000000004", formatted(0.1 + 0.2));
    CHECK_STR("5e-324", formatted(5e-324));
    CHECK_STR("1e-07", formatted(1e-7));
    CHECK_STR("NaN", formatted((double)NAN));
    CHECK_STR("NaN", formatted(-(double)NAN));
    CHECK_STR("Infinity", formatted((double)INFINITY));
    CHECK_STR("-Infinity", formatted(-(double)INFINITY));
    CHECK_INT(309, strlen(formatted(DBL_MAX)));
    CHECK_INT(310, strlen(formatted(-DBL_MAX)));
    CHECK(strtod(formatted(DBL_MAX), NULL) == DBL_MAX);
    CHECK(strtod(formatted(DBL_MIN), NULL) == DBL_MIN);

    int wrong = 0, wasteful = 0;
    for (int i = 0; i < 50000; i++) {
        uint64_t bits = test_random(&seed);
        if (i % 8 == 0)
            bits &= ~(UINT64_C(0x7FF) << 52); /* a denormal */
        double v;
        memcpy(&v, &bits, sizeof(v));
        if (!isfinite(v))
            continue;
        char text[LUNA_PG_DOUBLE_MAX], shorter[LUNA_PG_DOUBLE_MAX];
        luna_pg_format_double(v, text);
        double back = strtod(text, NULL);
        wrong += memcmp(&back, &v, sizeof(v)) != 0;
        if (v == trunc(v)) {
            wrong += strpbrk(text, ".eE") != NULL;
            continue;
        }
        size_t digits = 0;
        for (const char *c = text; *c != '\0' && *c != 'e'; c++)
            digits += *c >= '0' && *c <= '9' && (digits > 0 || *c != '0');
        snprintf(shorter, sizeof(shorter), "%.*g", (int)digits - 1, v);
        wasteful += digits > 1 && strtod(shorter, NULL) == v;
    }
    CHECK_INT(0, wrong);
    CHECK_INT(0, wasteful);
}

/* Short decimals and integers take a way of their own, to the very text of printf. */
static void test_short_numbers(void)
{
    CHECK_STR("12.34", formatted(12.34));
    CHECK_STR("-0.001", formatted(-0.001));
    CHECK_STR("999999999.999999", formatted(999999999.999999));
    CHECK_STR("1.05", formatted(1.05));
    CHECK_STR("9223372036854775808", formatted(0x1p63));
    CHECK_STR("-9223372036854775808", formatted(-0x1p63));
    int wrong = 0;
    for (int i = 0; i < 50000; i++) {
        static const double powers[] = { 1, 10, 100, 1000, 1e4, 1e5, 1e6, 1e7 };
        int64_t digits = (int64_t)(test_random(&seed) >> (14 + test_random(&seed) % 40));
        double v = (double)(i % 2 ? digits : -digits) / powers[test_random(&seed) % 8];
        char text[LUNA_PG_DOUBLE_MAX], expected[LUNA_PG_DOUBLE_MAX];
        luna_pg_format_double(v, text);
        snprintf(expected, sizeof(expected), "%.15g", v);
        if (v == trunc(v))
            snprintf(expected, sizeof(expected), "%.0f", v);
        wrong +=
            strtod(expected, NULL) == v && !(v == 0 && i % 2 == 0) && strcmp(text, expected) != 0;
    }
    CHECK_INT(0, wrong);
    char text[LUNA_PG_INT8_MAX];
    CHECK_INT(20, luna_pg_format_int8(INT64_MIN, text));
    CHECK_STR("-9223372036854775808", text);
    CHECK_INT(1, luna_pg_format_int8(0, text));
    CHECK_STR("0", text);
}

/* ---- bytea ---- */

static void test_bytea(void)
{
    luna_buf buf = { 0 };
    CHECK(luna_pg_add_bytea_bytes(&buf, "\\x00fF7a", 8) && SAME(buf, "\0\xFFz"));
    luna_buf_clear(&buf);
    CHECK(luna_pg_add_bytea_bytes(&buf, "\\x", 2) && buf.len == 0);
    CHECK(luna_pg_add_bytea_bytes(&buf, "", 0) && buf.len == 0);
    CHECK(luna_pg_add_bytea_bytes(&buf, "a\\\\b\\000\\377\"'", 14) && SAME(buf, "a\\b\0\xFF\"'"));

    luna_buf_clear(&buf);
    luna_buf_add_str(&buf, "kept");
    static const char *const malformed[] = { "\\x0", "\\x0g", "\\xzz",    "\\x 00",
                                             "a\\",  "a\\12", "\\400",    "\\08x",
                                             "\\n",  "\\0",   "abc\\x41", "\\x00\\" };
    for (size_t i = 0; i < sizeof(malformed) / sizeof(*malformed); i++) {
        if (luna_pg_add_bytea_bytes(&buf, malformed[i], strlen(malformed[i])))
            CHECK_STR("malformed bytea refused", malformed[i]);
        CHECK(SAME(buf, "kept"));
    }
    luna_pg_add_bytea_text(&buf, "\0\x9f\xFF", 3);
    CHECK(SAME(buf, "kept\\x009fff")); /* appended, not overwritten */

    for (int i = 0; i < 500; i++) {
        unsigned char bytes[200];
        char escaped[800];
        size_t n = test_random(&seed) % sizeof(bytes), e = 0;
        for (size_t k = 0; k < n; k++) {
            unsigned char c = bytes[k] = (unsigned char)test_random(&seed);
            if (c == '\\')
                e += (size_t)sprintf(escaped + e, "\\\\");
            else if (c < 32 || c > 126)
                e += (size_t)sprintf(escaped + e, "\\%03o", c);
            else
                escaped[e++] = (char)c;
        }
        luna_buf hex = { 0 };
        luna_pg_add_bytea_text(&hex, bytes, n);
        luna_buf_clear(&buf);
        CHECK(luna_pg_add_bytea_bytes(&buf, hex.data, hex.len) && same(&buf, (char *)bytes, n));
        luna_buf_clear(&buf);
        CHECK(luna_pg_add_bytea_bytes(&buf, escaped, e) && same(&buf, (char *)bytes, n));
        luna_buf_deinit(&hex);
    }
    luna_buf_deinit(&buf);
}

/* ---- arrays ---- */

/* The elements as "<a><b>" with ~ for NULL, or what is wrong. */
static const char *listed_n(const char *text, size_t n)
{
    static char line[256];
    size_t len = 0;
    luna_pg_array array;
    luna_pg_array_shape shape = luna_pg_array_open(&array, text, n);
    line[0] = '\0';
    while (luna_pg_array_next(&array))
        len += (size_t)snprintf(line + len, sizeof(line) - len, array.is_null ? "~" : "<%.*s>",
                                (int)array.len, array.element);
    luna_pg_array_close(&array);
    CHECK(shape == LUNA_PG_ARRAY_FLAT || len == 0);
    return shape == LUNA_PG_ARRAY_FLAT       ? line
           : shape == LUNA_PG_ARRAY_NOT_FLAT ? "not flat"
                                             : "malformed";
}

static const char *listed(const char *text)
{
    return listed_n(text, strlen(text));
}

static void test_array_reader(void)
{
    CHECK_STR("", listed("{}"));
    CHECK_STR("<1>", listed("{1}"));
    CHECK_STR("<a><b \" c>~<NULL><>", listed("{a,\"b \\\" c\",NULL,\"NULL\",\"\"}"));
    CHECK_STR("<\\><\\\\x><,><{}>", listed("{\"\\\\\",\"\\\\\\\\x\",\",\",\"{}\"}"));
    CHECK_STR("<n\nl><tab\t>", listed("{\"n\nl\",\"tab\t\"}"));
    CHECK_STR("<NULLS><nULL x>", listed("{NULLS,\"nULL x\"}"));
    CHECK_STR("~", listed("{NULL}"));
    CHECK_STR("<NULL>", listed("{\"NUL\\L\"}"));
    CHECK_STR("<\xc3\xa9><2020-01-01 00:00:00+00>",
              listed("{\xc3\xa9,\"2020-01-01 00:00:00+00\"}"));

    CHECK_STR("not flat", listed("{{1,2},{3,4}}"));
    CHECK_STR("not flat", listed("[2:3]={7,8}"));
    CHECK_STR("not flat", listed("[0:0][1:1]={{1}}"));

    static const char *const malformed[] = {
        "",      "{",      "}",      "a",        "{a",      "a}",      "{,}",      "{a,}",
        "{,a}",  "{a,,b}", "{a}b}",  "{a{b}",    "{a,{b}}", "{\"a}",   "{\"a\"",   "{\"}",
        "{\"\\", "{\"\\}", "{a\"b}", "{\"a\"b}", "{a\\b}",  "{a},{b}", "{\"a\" }",
    };
    for (size_t i = 0; i < sizeof(malformed) / sizeof(*malformed); i++) {
        const char *verdict = listed(malformed[i]);
        if (strcmp(verdict, "malformed") != 0)
            CHECK_STR(malformed[i], verdict);
    }
    CHECK_STR("malformed", listed_n("{a\0b}", 5)); /* NUL never comes from a server */
    CHECK_STR("<a>", listed_n("{a},{b}", 3));      /* reads no further than told */
}

static void test_array_writer(void)
{
    luna_buf buf = { 0 };
    luna_buf_add_str(&buf, "before{");
    luna_pg_array_writer w = { .out = &buf };
    luna_pg_array_begin(&w);
    luna_pg_array_end(&w);
    CHECK(SAME(buf, "before{{}"));

    luna_buf_clear(&buf);
    w = (luna_pg_array_writer){ .out = &buf };
    luna_pg_array_begin(&w);
    luna_pg_array_element(&w, "a-1.5", 5);
    luna_pg_array_element(&w, "", 0);
    luna_pg_array_null(&w);
    luna_pg_array_element(&w, "NULL", 4);
    luna_pg_array_element(&w, "null", 4);
    luna_pg_array_element(&w, "q\"b\\", 4);
    luna_pg_array_element(&w, "{", 1);
    luna_pg_array_element(&w, "x y", 3);
    luna_pg_array_end(&w);
    CHECK(SAME(buf, "{a-1.5,\"\",NULL,\"NULL\",\"null\",\"q\\\"b\\\\\",\"{\",\"x y\"}"));

    luna_buf_clear(&buf);
    w = (luna_pg_array_writer){ .out = &buf };
    luna_pg_array_begin(&w);
    for (int i = 0; i < 2; i++) {
        luna_pg_array_begin(&w);
        luna_pg_array_element(&w, "1", 1);
        luna_pg_array_null(&w);
        luna_pg_array_end(&w);
    }
    luna_pg_array_end(&w);
    CHECK(SAME(buf, "{{1,NULL},{1,NULL}}"));
    luna_buf_deinit(&buf);
}

static void test_array_round_trip(void)
{
    static const char alphabet[] = "ab1NUL{}[]=,:;\"\\ \t\n'-.\xc3\xa9";
    for (int i = 0; i < 3000; i++) {
        char elements[12][10];
        int lengths[12], count = (int)(test_random(&seed) % 13);
        luna_buf buf = { 0 };
        luna_pg_array_writer w = { .out = &buf };
        luna_pg_array_begin(&w);
        for (int k = 0; k < count; k++) {
            lengths[k] = (int)(test_random(&seed) % 11) - 1;
            for (int c = 0; c < lengths[k]; c++)
                elements[k][c] = alphabet[test_random(&seed) % (sizeof(alphabet) - 1)];
            if (test_random(&seed) % 9 == 0) {
                memcpy(elements[k], "NULL", 4);
                lengths[k] = 4;
            }
            if (lengths[k] < 0)
                luna_pg_array_null(&w);
            else
                luna_pg_array_element(&w, elements[k], (size_t)lengths[k]);
        }
        luna_pg_array_end(&w);

        luna_pg_array array;
        bool good = luna_pg_array_open(&array, buf.data, buf.len) == LUNA_PG_ARRAY_FLAT;
        int read = 0;
        for (; luna_pg_array_next(&array); read++) {
            good = good && read < count && array.is_null == (lengths[read] < 0);
            if (good && !array.is_null)
                good = array.len == (size_t)lengths[read] &&
                       memcmp(array.element, elements[read], array.len) == 0;
        }
        CHECK(good && read == count);
        luna_pg_array_close(&array);
        luna_buf_deinit(&buf);
    }
}

/* Arbitrary text must be judged without reading outside of it (the sanitizers watch), and
 * what is judged flat must be read to its end. */
static void test_array_garbage(void)
{
    static const char alphabet[] = "{}\"\\,aN";
    for (int i = 0; i < 20000; i++) {
        size_t n = test_random(&seed) % 9;
        char *text = malloc(n ? n : 1); /* on the heap, so that one byte too far is seen */
        if (text == NULL)
            abort();
        size_t commas = 0;
        for (size_t k = 0; k < n; k++) {
            text[k] = alphabet[test_random(&seed) % (sizeof(alphabet) - 1)];
            commas += text[k] == ',';
        }
        luna_pg_array array;
        bool flat = luna_pg_array_open(&array, text, n) == LUNA_PG_ARRAY_FLAT;
        size_t read = 0;
        while (luna_pg_array_next(&array))
            read++;
        CHECK(flat ? array.at == array.end - (n == 2) && read <= commas + 1 : read == 0);
        luna_pg_array_close(&array);
        free(text);
    }
}

/* ---- COPY and UTF-8 ---- */

static void test_copy(void)
{
    luna_buf buf = { 0 };
    int wrong = 0;
    for (int byte = 0; byte < 256; byte++) { /* any byte at any place among others */
        for (size_t at = 0; at < 19; at++) {
            char text[19], expected[20];
            static const char special[] = "\\\t\n\r", named[] = "\\tnr";
            memset(text, byte % 2 ? 'x' : 0xE4, sizeof(text));
            memcpy(expected, text, sizeof(text));
            text[at] = expected[at] = (char)byte;
            const char *found = byte != 0 ? strchr(special, byte) : NULL;
            if (found != NULL) {
                memmove(expected + at + 1, expected + at, sizeof(text) - at);
                expected[at] = '\\';
                expected[at + 1] = named[found - special];
            }
            luna_buf_clear(&buf);
            luna_pg_add_copy_field(&buf, text, sizeof(text));
            wrong += !same(&buf, expected, sizeof(text) + (found != NULL));
        }
    }
    CHECK_INT(0, wrong);
    luna_buf_clear(&buf);
    luna_pg_add_copy_field(&buf, "a\\b\tc\nd\re\\N", 11);
    CHECK(SAME(buf, "a\\\\b\\tc\\nd\\re\\\\N"));
    luna_buf_clear(&buf);
    luna_pg_add_copy_field(&buf, "", 0);
    CHECK(buf.len == 0);
    luna_pg_add_copy_null(&buf);
    CHECK(SAME(buf, "\\N"));
    luna_buf_deinit(&buf);
}

static bool utf8(const char *text)
{
    return luna_utf8_check(text, strlen(text)) == strlen(text);
}

/* The definition, one scalar value at a time. */
static size_t utf8_oracle(const unsigned char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t c = s[i];
        size_t len = c < 0x80             ? 1
                     : (c & 0xE0) == 0xC0 ? 2
                     : (c & 0xF0) == 0xE0 ? 3
                     : (c & 0xF8) == 0xF0 ? 4
                                          : 0;
        if (len == 0 || n - i < len)
            return i;
        if (len > 1)
            c &= 0x7Fu >> len;
        for (size_t k = 1; k < len; k++) {
            if ((s[i + k] & 0xC0) != 0x80)
                return i;
            c = c << 6 | (s[i + k] & 0x3Fu);
        }
        static const uint32_t smallest[] = { 0, 1, 0x80, 0x800, 0x10000 };
        if (c < smallest[len] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
            return i;
        i += len;
    }
    return n;
}

static void test_utf8(void)
{
    CHECK(utf8(""));
    CHECK(utf8("plain ASCII, longer than one word of eight bytes"));
    CHECK(utf8("\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x98"));
    CHECK(utf8("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\x7f"));
    CHECK(!utf8("\xc0\x80"));         /* overlong */
    CHECK(!utf8("\xe0\x9f\xbf"));     /* overlong */
    CHECK(!utf8("\xf0\x8f\xbf\xbf")); /* overlong */
    CHECK(!utf8("\xed\xa0\x80"));     /* a surrogate */
    CHECK(!utf8("\xf4\x90\x80\x80")); /* beyond U+10FFFF */
    CHECK(!utf8("\x80"));
    CHECK(!utf8("\xff"));
    CHECK(!utf8("a\xc3"));
    CHECK_INT(3, luna_utf8_check("abc\0def", 7));
    CHECK_INT(13, luna_utf8_check("0123456789abc\0ef0123456789", 26)); /* inside a word */
    CHECK_INT(8, luna_utf8_check("01234567\x80", 9));

    int wrong = 0;
    for (int i = 0; i < 200000; i++) {
        unsigned char s[24];
        size_t n = test_random(&seed) % (sizeof(s) + 1);
        for (size_t k = 0; k < n; k++) {
            uint64_t r = test_random(&seed);
            static const unsigned char edges[] = { 0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F,
                                                   0xA0, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0,
                                                   0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF };
            s[k] =
                (unsigned char)(r % 4 ? 0x20 + (r >> 8) % 0x5F : edges[(r >> 8) % sizeof(edges)]);
            if (r % 4 == 1 && k > 0 && s[k - 1] >= 0xC2)
                s[k] = (unsigned char)(0x80 + (r >> 8) % 0x40);
        }
        wrong += luna_utf8_check((const char *)s, n) != utf8_oracle(s, n);
    }
    CHECK_INT(0, wrong);
}

int main(void)
{
    seed = test_seed();
    test_int8();
    test_double();
    test_short_numbers();
    test_bytea();
    test_array_reader();
    test_array_writer();
    test_array_round_trip();
    test_array_garbage();
    test_copy();
    test_utf8();
    return test_report();
}
