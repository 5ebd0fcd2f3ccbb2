#include "pgtext.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool luna_pg_parse_int8(const char *text, size_t n, int64_t *value)
{
    bool negative = n > 0 && text[0] == '-';
    size_t i = negative;
    uint64_t limit = (uint64_t)INT64_MAX + negative, v = 0;
    if (i == n)
        return false;
    for (size_t sure = n < 18 ? n : 18; i < sure; i++) { /* so many digits always fit */
        unsigned digit = (unsigned char)text[i] - (unsigned)'0';
        if (digit > 9)
            return false;
        v = v * 10 + digit;
    }
    for (; i < n; i++) {
        unsigned digit = (unsigned char)text[i] - (unsigned)'0';
        if (digit > 9 || v > (limit - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *value = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

size_t luna_pg_format_int8(int64_t value, char text[LUNA_PG_INT8_MAX])
{
    char digits[LUNA_PG_INT8_MAX], *at = digits + sizeof(digits);
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    *--at = '\0';
    do
        *--at = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0)
        *--at = '-';
    size_t len = (size_t)(digits + sizeof(digits) - at);
    memcpy(text, at, len);
    return len - 1;
}

/* A double that is the nearest one to a decimal of up to 6 places and 15 digits, which is what
 * prices and measurements are: that decimal.  0 for others.  The quotient of two integers that are
 * exact is rounded as the decimal itself would be, so that an equal one proves it. */
static size_t format_decimal(double value, char *text)
{
    static const int64_t powers[] = { 10, 100, 1000, 10000, 100000, 1000000 };
    double magnitude = fabs(value);
    if (!(magnitude >= 0.001 && magnitude < 1e9))
        return 0;
    for (size_t places = 1; places <= 6; places++) {
        int64_t power = powers[places - 1];
        int64_t scaled = (int64_t)(magnitude * (double)power + 0.5);
        if ((double)scaled / (double)power != magnitude)
            continue;
        size_t len = 0, dot;
        if (value < 0)
            text[len++] = '-';
        len += luna_pg_format_int8(scaled / power, text + len);
        dot = len;
        /* the power in front keeps the leading zeros; its 1 makes room for the dot */
        len += luna_pg_format_int8(power + scaled % power, text + len);
        text[dot] = '.';
        return len;
    }
    return 0;
}

size_t luna_pg_format_double(double value, char text[LUNA_PG_DOUBLE_MAX])
{
    if (isnan(value))
        return (size_t)snprintf(text, LUNA_PG_DOUBLE_MAX, "NaN");
    if (isinf(value))
        return (size_t)snprintf(text, LUNA_PG_DOUBLE_MAX, value < 0 ? "-Infinity" : "Infinity");
    if (value == trunc(value)) {
        if (fabs(value) < 0x1p63 && !(value == 0 && signbit(value)))
            return luna_pg_format_int8((int64_t)value, text);
        return (size_t)snprintf(text, LUNA_PG_DOUBLE_MAX, "%.0f", value);
    }
    size_t len = format_decimal(value, text);
    if (len > 0)
        return len;
    /* 15 digits always survive in a normal double; a denormal holds fewer. */
    int n = 0;
    for (int digits = isnormal(value) ? 15 : 1; digits <= 17; digits++) {
        n = snprintf(text, LUNA_PG_DOUBLE_MAX, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    return (size_t)n;
}

/* ---- bytea ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool add_bytea_hex(luna_buf *out, const char *text, size_t n)
{
    if (n % 2 != 0)
        return false;
    char *to = luna_buf_reserve(out, n / 2 + 1);
    for (size_t i = 0; i < n; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return false;
        *to++ = (char)(high << 4 | low);
    }
    out->len += n / 2;
    return true;
}

static bool is_octal(char c, char max)
{
    return c >= '0' && c <= max;
}

static bool add_bytea_escape(luna_buf *out, const char *text, size_t n)
{
    char *start = luna_buf_reserve(out, n + 1), *to = start;
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\\') {
            *to++ = text[i];
        } else if (i + 1 < n && text[i + 1] == '\\') {
            *to++ = '\\';
            i++;
        } else if (i + 3 < n && is_octal(text[i + 1], '3') && is_octal(text[i + 2], '7') &&
                   is_octal(text[i + 3], '7')) {
            *to++ =
                (char)((text[i + 1] - '0') << 6 | (text[i + 2] - '0') << 3 | (text[i + 3] - '0'));
            i += 3;
        } else {
            return false;
        }
    }
    out->len += (size_t)(to - start);
    return true;
}

bool luna_pg_add_bytea_bytes(luna_buf *out, const char *text, size_t n)
{
    if (n >= 2 && text[0] == '\\' && text[1] == 'x')
        return add_bytea_hex(out, text + 2, n - 2);
    return add_bytea_escape(out, text, n);
}

void luna_pg_add_bytea_text(luna_buf *out, const void *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *from = bytes;
    char *to = luna_buf_reserve(out, 2 + 2 * n);
    *to++ = '\\';
    *to++ = 'x';
    for (size_t i = 0; i < n; i++) {
        *to++ = digits[from[i] >> 4];
        *to++ = digits[from[i] & 15];
    }
    out->len += 2 + 2 * n;
}

/* ---- arrays ---- */

/* One element from `array->at`, which is left at the comma or brace behind it.
 * Without `store` the element is only checked.  False when it is malformed. */
static bool array_scan(luna_pg_array *array, bool store)
{
    const char *p = array->at, *end = array->end, *start = p;
    bool quoted = p < end && *p == '"', copied = false;
    if (quoted) {
        start = ++p;
        luna_buf_clear(&array->scratch);
        const char *run = p; /* since the last backslash */
        for (; p < end && *p != '"'; p++) {
            if (*p != '\\')
                continue;
            if (store)
                luna_buf_add(&array->scratch, run, (size_t)(p - run));
            run = ++p;
            copied = true;
            if (p == end)
                return false;
        }
        if (p >= end)
            return false;
        if (store && copied)
            luna_buf_add(&array->scratch, run, (size_t)(p - run));
    } else {
        while (p < end && strchr(",{}\"\\", *p) == NULL)
            p++;
    }
    array->element = copied ? array->scratch.data : start;
    array->len = copied ? array->scratch.len : (size_t)(p - start);
    array->is_null = !quoted && array->len == 4 && memcmp(start, "NULL", 4) == 0;
    if (!quoted && array->len == 0)
        return false;
    array->at = quoted ? p + 1 : p;
    return array->at < end && (*array->at == ',' || *array->at == '}');
}

luna_pg_array_shape luna_pg_array_open(luna_pg_array *array, const char *text, size_t n)
{
    *array = (luna_pg_array){ .at = text + n, .end = text + n };
    if (n >= 1 && text[0] == '[')
        return LUNA_PG_ARRAY_NOT_FLAT;
    if (n < 2 || text[0] != '{' || text[n - 1] != '}')
        return LUNA_PG_ARRAY_MALFORMED;
    if (text[1] == '{')
        return LUNA_PG_ARRAY_NOT_FLAT;
    array->at = text + 1;
    for (bool more = n > 2; more; array->at++) {
        if (!array_scan(array, false)) {
            array->at = array->end;
            return LUNA_PG_ARRAY_MALFORMED;
        }
        more = *array->at == ',';
    }
    bool whole = n == 2 || array->at == array->end;
    array->at = whole ? text + 1 : array->end;
    return whole ? LUNA_PG_ARRAY_FLAT : LUNA_PG_ARRAY_MALFORMED;
}

bool luna_pg_array_next(luna_pg_array *array)
{
    if (array->end - array->at <= 1 || !array_scan(array, true))
        return false;
    array->at++; /* over the comma or the last brace */
    return true;
}

void luna_pg_array_close(luna_pg_array *array)
{
    luna_buf_deinit(&array->scratch);
}

static void array_comma(luna_pg_array_writer *writer)
{
    if (writer->comma)
        luna_buf_add_char(writer->out, ',');
    writer->comma = true;
}

void luna_pg_array_begin(luna_pg_array_writer *writer)
{
    array_comma(writer);
    luna_buf_add_char(writer->out, '{');
    writer->comma = false;
}

/* Letters, digits and a few signs stand for themselves, but for the word NULL;
 * the rest is quoted, which is never wrong. */
static bool array_is_plain(const char *bytes, size_t n)
{
    if (n == 0 || (n == 4 && (bytes[0] | 0x20) == 'n'))
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = bytes[i], lower = (char)(c | 0x20);
        if (!(c >= '0' && c <= '9') && !(lower >= 'a' && lower <= 'z') && c != '-' && c != '.' &&
            c != '_')
            return false;
    }
    return true;
}

void luna_pg_array_element(luna_pg_array_writer *writer, const char *bytes, size_t n)
{
    array_comma(writer);
    if (array_is_plain(bytes, n)) {
        luna_buf_add(writer->out, bytes, n);
        return;
    }
    char *start = luna_buf_reserve(writer->out, 2 * n + 2), *to = start;
    *to++ = '"';
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '"' || bytes[i] == '\\')
            *to++ = '\\';
        *to++ = bytes[i];
    }
    *to++ = '"';
    writer->out->len += (size_t)(to - start);
}

void luna_pg_array_null(luna_pg_array_writer *writer)
{
    array_comma(writer);
    luna_buf_add_str(writer->out, "NULL");
}

void luna_pg_array_end(luna_pg_array_writer *writer)
{
    luna_buf_add_char(writer->out, '}');
    writer->comma = true;
}

/* ---- COPY's text format ---- */

/* Do all eight bytes stand for themselves in COPY's text format?  May say no without need. */
static bool is_plain_word(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    uint64_t backslash = word ^ (ones * '\\');
    uint64_t low = word - ones * ('\r' + 1), is_backslash = backslash - ones;
    return (((low & ~word) | (is_backslash & ~backslash)) & tops) == 0;
}

void luna_pg_add_copy_field(luna_buf *out, const char *bytes, size_t n)
{
    char *start = luna_buf_reserve(out, 2 * n + 1), *to = start;
    for (size_t i = 0; i < n; i++) {
        uint64_t word;
        while (n - i >= sizeof(word)) {
            memcpy(&word, bytes + i, sizeof(word));
            if (!is_plain_word(word))
                break;
            memcpy(to, &word, sizeof(word));
            to += sizeof(word);
            i += sizeof(word);
        }
        if (i == n)
            break;
        char c = bytes[i];
        if ((unsigned char)c > '\r' && c != '\\') { /* nearly all */
            *to++ = c;
            continue;
        }
        switch (c) {
        case '\\': break;
        case '\t': c = 't'; break;
        case '\n': c = 'n'; break;
        case '\r': c = 'r'; break;
        default: *to++ = c; continue;
        }
        *to++ = '\\';
        *to++ = c;
    }
    out->len += (size_t)(to - start);
}

void luna_pg_add_copy_null(luna_buf *out)
{
    luna_buf_add(out, "\\N", 2);
}

/* ---- UTF-8 ---- */

/* Length of the well-formed sequence at `s`, 0 when there is none.  The second
 * byte's range shuts out overlong forms, surrogates and what lies beyond
 * U+10FFFF. */
static size_t utf8_sequence(const unsigned char *s, size_t n)
{
    unsigned char lead = s[0], low = 0x80, high = 0xBF;
    size_t len = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (len == 1)
        return lead != 0;
    if (lead < 0xC2 || lead > 0xF4 || n < len)
        return 0;
    switch (lead) {
    case 0xE0: low = 0xA0; break;
    case 0xED: high = 0x9F; break;
    case 0xF0: low = 0x90; break;
    case 0xF4: high = 0x8F; break;
    default: break;
    }
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

size_t luna_utf8_check(const char *bytes, size_t n)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    const unsigned char *s = (const unsigned char *)bytes;
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        if (n - i >= sizeof(word)) {
            memcpy(&word, s + i, sizeof(word));
            if (((word | (word - ones)) & tops) == 0) { /* eight ASCII bytes, none of them 0 */
                i += sizeof(word);
                continue;
            }
        }
        size_t len = utf8_sequence(s + i, n - i);
        if (len == 0)
            return i;
        i += len;
    }
    return n;
}
