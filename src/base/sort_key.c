#include "sort_key.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "pgtext.h"

/* ---- numeric -------------------------------------------------------------------- */

/* A numeric is ranked by sign and exponent; between equal ranks its digits decide,
 * the first significant one to the last. */
enum { RANK_ZERO = 0, RANK_BIAS = 1 << 20, RANK_INFINITE = 1 << 22, RANK_NAN = 1 << 23 };

static bool is_word(const char *text, size_t n, const char *word)
{
    return strlen(word) == n && memcmp(text, word, n) == 0;
}

static bool numeric_word(luna_sort_key *key, const char *text, size_t n)
{
    if (is_word(text, n, "NaN"))
        key->rank = RANK_NAN;
    else if (is_word(text, n, "Infinity"))
        key->rank = RANK_INFINITE;
    else if (is_word(text, n, "-Infinity"))
        key->rank = -RANK_INFINITE;
    else
        return false;
    return true;
}

static bool make_numeric(luna_sort_key *key, const char *text, size_t n)
{
    const char *p = text, *end = text + n, *point = NULL, *first = NULL, *last = NULL;
    bool negative = n > 0 && *p == '-', any = false;
    p += negative;
    for (; p < end; p++) {
        if (*p == '.' && point == NULL) {
            point = p;
        } else if (*p >= '0' && *p <= '9') {
            any = true;
            if (*p != '0') {
                if (first == NULL)
                    first = p;
                last = p;
            }
        } else {
            return numeric_word(key, text, n);
        }
    }
    if (!any)
        return false;
    key->bytes = NULL;
    key->n = 0;
    key->rank = RANK_ZERO;
    if (first == NULL)
        return true;
    if (point == NULL)
        point = end;
    ptrdiff_t exponent = first < point ? point - first : point - first + 1;
    key->rank = RANK_BIAS + exponent;
    if (negative)
        key->rank = -key->rank;
    key->bytes = first;
    key->n = (size_t)(last - first) + 1;
    return true;
}

/* Significant digits, with a point passed over wherever it is. */
static int compare_digits(const luna_sort_key *a, const luna_sort_key *b)
{
    const char *p = a->bytes, *q = b->bytes;
    const char *p_end = p + a->n, *q_end = q + b->n;
    for (;; p++, q++) {
        if (p < p_end && *p == '.')
            p++;
        if (q < q_end && *q == '.')
            q++;
        if (p == p_end || q == q_end)
            return (p < p_end) - (q < q_end); /* none ends in a zero */
        if (*p != *q)
            return *p < *q ? -1 : 1;
    }
}

/* ---- dates ------------------------------------------------------------------------ */

#define LAST_YEAR 294276 /* of a timestamp */

typedef struct scanner {
    const char *at, *end;
} scanner;

/* A number of `min` digits or more. */
static bool scan_number(scanner *s, int min, int64_t *value)
{
    int64_t v = 0;
    int n = 0;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9' && n < 10; s->at++, n++)
        v = v * 10 + (*s->at - '0');
    *value = v;
    return n >= min;
}

static bool scan_char(scanner *s, char c)
{
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool scan_end(scanner *s, bool *bc)
{
    *bc = s->end - s->at == 3 && memcmp(s->at, " BC", 3) == 0;
    return *bc || s->at == s->end;
}

static bool scan_date(scanner *s, int64_t date[3])
{
    return scan_number(s, 4, &date[0]) && scan_char(s, '-') && scan_number(s, 2, &date[1]) &&
           scan_char(s, '-') && scan_number(s, 2, &date[2]) && date[1] >= 1 && date[1] <= 12;
}

/* Days since 1970-01-01 of the proleptic Gregorian calendar; 1 BC is year 0.  Counted in
 * years that begin in March, so that the leap day comes last, from a year before all others. */
static int64_t day_number(const int64_t date[3], bool bc)
{
    const int64_t shift = 12000; /* years; a multiple of 400 */
    int64_t year = (bc ? 1 - date[0] : date[0]) - (date[1] <= 2) + shift;
    int64_t day_of_year = (153 * ((date[1] + 9) % 12) + 2) / 5 + date[2] - 1;
    return 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719468 -
           shift / 400 * 146097;
}

static bool infinite(luna_sort_key *key, const char *text, size_t n)
{
    if (is_word(text, n, "infinity"))
        key->rank = INT64_MAX;
    else if (is_word(text, n, "-infinity"))
        key->rank = INT64_MIN;
    else
        return false;
    return true;
}

static bool make_date(luna_sort_key *key, const char *text, size_t n)
{
    scanner s = { text, text + n };
    int64_t date[3];
    bool bc;
    if (!scan_date(&s, date) || !scan_end(&s, &bc))
        return infinite(key, text, n);
    key->rank = day_number(date, bc);
    return true;
}

/* hh:mm:ss in microseconds */
static bool scan_time(scanner *s, int64_t *micros)
{
    int64_t hour, minute, second;
    if (!scan_number(s, 2, &hour) || !scan_char(s, ':') || !scan_number(s, 2, &minute) ||
        !scan_char(s, ':') || !scan_number(s, 2, &second))
        return false;
    *micros = ((hour * 60 + minute) * 60 + second) * 1000000;
    return true;
}

/* .ffffff in microseconds, or nothing */
static bool scan_fraction(scanner *s, int64_t *micros)
{
    static const int scale[] = { 0, 100000, 10000, 1000, 100, 10, 1 };
    if (!scan_char(s, '.'))
        return true;
    const char *start = s->at;
    if (!scan_number(s, 1, micros) || s->at - start > 6)
        return false;
    *micros *= scale[s->at - start];
    return true;
}

/* +hh[:mm[:ss]] in seconds: sessions may print different offsets for one instant. */
static bool scan_offset(scanner *s, int64_t *seconds)
{
    int64_t part[3] = { 0, 0, 0 };
    bool negative = scan_char(s, '-');
    if (!negative && !scan_char(s, '+'))
        return false;
    if (!scan_number(s, 2, &part[0]))
        return false;
    for (int i = 1; i < 3 && scan_char(s, ':'); i++)
        if (!scan_number(s, 2, &part[i]))
            return false;
    *seconds = (part[0] * 60 + part[1]) * 60 + part[2];
    if (negative)
        *seconds = -*seconds;
    return true;
}

static int two_digits(const char *p, unsigned *odd)
{
    unsigned tens = (unsigned)(p[0] - '0'), ones = (unsigned)(p[1] - '0');
    *odd |= (unsigned)(tens > 9) | (unsigned)(ones > 9);
    return (int)(tens * 10 + ones);
}

/* "2024-02-29 12:34:56", as nearly all begin: in one go, for every row has one. */
static bool scan_usual(scanner *s, int64_t date[3], int64_t *micros)
{
    const char *p = s->at;
    unsigned odd = 0;
    if (s->end - p < 19 || p[4] != '-' || p[7] != '-' || p[10] != ' ' || p[13] != ':' ||
        p[16] != ':')
        return false;
    date[0] = two_digits(p, &odd) * 100 + two_digits(p + 2, &odd);
    date[1] = two_digits(p + 5, &odd);
    date[2] = two_digits(p + 8, &odd);
    int minutes = two_digits(p + 11, &odd) * 60 + two_digits(p + 14, &odd);
    *micros = (minutes * 60 + two_digits(p + 17, &odd)) * INT64_C(1000000);
    if (odd || date[1] < 1 || date[1] > 12)
        return false;
    s->at += 19;
    return true;
}

static bool make_instant(luna_sort_key *key, const char *text, size_t n, bool zoned)
{
    scanner s = { text, text + n };
    int64_t date[3], micros, fraction = 0, offset = 0;
    bool bc;
    if ((!scan_usual(&s, date, &micros) &&
         (!scan_date(&s, date) || !scan_char(&s, ' ') || !scan_time(&s, &micros))) ||
        !scan_fraction(&s, &fraction) || (zoned && !scan_offset(&s, &offset)) || !scan_end(&s, &bc))
        return infinite(key, text, n);
    if (date[0] > LAST_YEAR)
        return false;
    /* counted from 2000, as the server does: the last year would not fit from 1970 */
    key->rank = (day_number(date, bc) - 10957) * INT64_C(86400000000) + micros + fraction -
                offset * 1000000;
    return true;
}

/* ---- the others ------------------------------------------------------------------- */

static bool make_float(luna_sort_key *key, const char *text, size_t n)
{
    char copy[64]; /* strtod wants the NUL; the server prints no more than 25 bytes */
    char *end;
    if (n == 0 || n >= sizeof(copy) || isspace((unsigned char)text[0]))
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    key->is_float = true;
    key->f = strtod(copy, &end);
    return end == copy + n;
}

static bool make_bool(luna_sort_key *key, const char *text, size_t n)
{
    key->rank = n > 0 && text[0] == 't';
    return n == 1 && (text[0] == 't' || text[0] == 'f');
}

static bool make_bytes(luna_sort_key *key, const char *text, size_t n)
{
    key->is_bytes = true;
    key->bytes = text;
    key->n = n;
    return true;
}

bool luna_sort_key_make(luna_sort_key *key, luna_sort_family family, const char *text, size_t n)
{
    key->is_null = key->is_bytes = key->is_float = false;
    key->n = 0;
    switch (family) {
    case LUNA_SORT_INTEGER: return luna_pg_parse_int8(text, n, &key->rank);
    case LUNA_SORT_FLOAT: return make_float(key, text, n);
    case LUNA_SORT_NUMERIC: return make_numeric(key, text, n);
    case LUNA_SORT_BOOL: return make_bool(key, text, n);
    case LUNA_SORT_BYTES: return make_bytes(key, text, n);
    case LUNA_SORT_PADDED:
        while (n > 0 && text[n - 1] == ' ')
            n--;
        return make_bytes(key, text, n);
    case LUNA_SORT_DATE: return make_date(key, text, n);
    case LUNA_SORT_TIMESTAMP: return make_instant(key, text, n, false);
    case LUNA_SORT_TIMESTAMPTZ: return make_instant(key, text, n, true);
    }
    return false;
}

static int compare_bytes(const luna_sort_key *a, const luna_sort_key *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    int by = memcmp(a->bytes, b->bytes, n);
    return by != 0 ? by : (a->n > b->n) - (a->n < b->n);
}

/* NaN is above every number and equals itself. */
static int compare_floats(double a, double b)
{
    if (a != a || b != b)
        return (a != a) - (b != b);
    return (a > b) - (a < b);
}

int luna_sort_key_compare(const luna_sort_key *a, const luna_sort_key *b)
{
    if (a->is_bytes)
        return compare_bytes(a, b);
    if (a->is_float)
        return compare_floats(a->f, b->f);
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->n == 0 || b->n == 0)
        return 0;
    return a->rank < 0 ? compare_digits(b, a) : compare_digits(a, b);
}
