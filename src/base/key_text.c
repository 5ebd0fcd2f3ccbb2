/* key_text.c - reading and writing the texts of key types.
 *
 * The rules follow PostgreSQL's input functions (int8in, uuid_in, date_in), so that
 * a key is routed to where the server would store the value of the same text.
 * ctype.h is avoided: it follows the locale, the server's readers do not. */
#include "key_text.h"

#include <stdio.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

luna_status luna_key_read_int8(const char *text, size_t len, int64_t *value)
{
    const char *p = text, *end = text + len;
    while (p < end && is_space(*p))
        p++;
    while (end > p && is_space(end[-1]))
        end--;
    bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+'))
        p++;
    if (p == end)
        return LUNA_EINVAL;

    /* Accumulated below zero, where the range is larger by one. */
    int64_t n = 0;
    bool overflow = false;
    for (; p < end; p++) {
        if (!is_digit(*p))
            return LUNA_EINVAL;
        if (!overflow && (__builtin_mul_overflow(n, 10, &n) ||
                          __builtin_sub_overflow(n, (int64_t)(*p - '0'), &n)))
            overflow = true; /* go on: "99999999999999999999x" is no number at all */
    }
    if (overflow || (!negative && n == INT64_MIN))
        return LUNA_ETOOLARGE;
    *value = negative ? n : -n;
    return LUNA_OK;
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

luna_status luna_key_read_uuid(const char *text, size_t len, unsigned char uuid[16])
{
    const char *p = text, *end = text + len;
    if (len >= 2 && *p == '{') {
        if (end[-1] != '}')
            return LUNA_EINVAL;
        p++;
        end--;
    }
    for (int i = 0; i < 16; i++) {
        if (end - p < 2 || hex_digit(p[0]) < 0 || hex_digit(p[1]) < 0)
            return LUNA_EINVAL;
        uuid[i] = (unsigned char)(hex_digit(p[0]) << 4 | hex_digit(p[1]));
        p += 2;
        if (i % 2 == 1 && i < 15 && p < end && *p == '-')
            p++;
    }
    return p == end ? LUNA_OK : LUNA_EINVAL;
}

size_t luna_key_write_uuid(const unsigned char uuid[16], char *buf, size_t cap)
{
    static const char HEX[] = "0123456789abcdef";
    char out[37];
    size_t n = 0;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out[n++] = '-';
        out[n++] = HEX[uuid[i] >> 4];
        out[n++] = HEX[uuid[i] & 15];
    }
    out[n] = '\0';
    return (size_t)snprintf(buf, cap, "%s", out);
}

/* Days from 2000-01-01 in the proleptic Gregorian calendar.  Years begin in March
 * here, so that the leap day is a year's last; 400 years have 146,097 days. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month > 2 ? year : year - 1;
    int64_t m = (month + 9) % 12;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 730426;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
    static const unsigned char DAYS[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : DAYS[month - 1];
}

/* All of `len` bytes must be digits, at most 7, so no overflow. */
static bool read_digits(const char *text, size_t len, int64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(text[i]))
            return false;
        *value = *value * 10 + (text[i] - '0');
    }
    return true;
}

luna_status luna_key_read_date(const char *text, size_t len, int64_t *days)
{
    int64_t year, month, day;
    if (len < 10 || len > 13 || text[len - 6] != '-' || text[len - 3] != '-' ||
        !read_digits(text, len - 6, &year) || !read_digits(text + len - 5, 2, &month) ||
        !read_digits(text + len - 2, 2, &day))
        return LUNA_EINVAL;
    if (year < 1 || year > 5874897 || month < 1 || month > 12 || day < 1 ||
        day > days_in_month(year, month))
        return LUNA_ETOOLARGE;
    *days = days_of(year, month, day);
    return LUNA_OK;
}

size_t luna_key_write_date(int64_t days, char *buf, size_t cap)
{
    /* The year is guessed from the mean length and corrected: at most one step. */
    int64_t year = 2000 + days * 400 / 146097;
    while (days < days_of(year, 1, 1))
        year--;
    while (days >= days_of(year + 1, 1, 1))
        year++;
    int64_t month = 1;
    while (month < 12 && days >= days_of(year, month + 1, 1))
        month++;
    return (size_t)snprintf(buf, cap, "%04d-%02d-%02d", (int)year, (int)month,
                            (int)(days - days_of(year, month, 1) + 1));
}

/* The borrow of taking 1 from each byte sets the top bit of a zero byte. */
static inline uint64_t not_ascii(const char *text)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t word;
    memcpy(&word, text, sizeof(word));
    return (word | (word - ones)) & ones << 7;
}

bool luna_key_is_ascii(const char *text, size_t len)
{
    uint64_t bad = 0;
    if (len >= 8) {
        for (size_t i = 0; i + 8 < len; i += 8)
            bad |= not_ascii(text + i);
        return (bad | not_ascii(text + len - 8)) == 0; /* the last may overlap the one before */
    }
    for (size_t i = 0; i < len; i++)
        bad |= (unsigned char)(text[i] - 1) >= 0x7f;
    return bad == 0;
}

bool luna_key_is_utf8(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + len;
    while (p < end) {
        if (*p < 0x80) {
            p++;
            continue;
        }
        /* Length, and the second byte's range: it excludes overlong forms, surrogates
         * and what lies beyond U+10FFFF. */
        int n = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
        unsigned low = *p == 0xe0 ? 0xa0 : *p == 0xf0 ? 0x90 : 0x80;
        unsigned high = *p == 0xed ? 0x9f : *p == 0xf4 ? 0x8f : 0xbf;
        if (*p < 0xc2 || *p > 0xf4 || end - p < n || p[1] < low || p[1] > high)
            return false;
        for (int i = 2; i < n; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return false;
        }
        p += n;
    }
    return true;
}

const char *luna_key_quote(char buf[LUNA_KEY_QUOTE_MAX], const char *text, size_t len)
{
    size_t shown = len > 40 ? 40 : len, n = 0;
    buf[n++] = '"';
    for (size_t i = 0; i < shown; i++)
        buf[n++] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    if (shown < len) {
        memcpy(buf + n, "...", 3);
        n += 3;
    }
    buf[n++] = '"';
    buf[n] = '\0';
    return buf;
}
