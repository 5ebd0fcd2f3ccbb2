#include "decimal.h"

#include <stdlib.h>
#include <string.h>

#define LIMB_BASE 1000000000u
#define LIMB_DIGITS 9u

/* The limits of numeric itself: a longer text cannot have come from a server. */
#define MAX_WHOLE_DIGITS 131072u
#define MAX_SCALE 16383u

/* The server picks the scale of a quotient so that it shows at least this many
 * significant digits, counted in its own base-10000 digits, and at most this
 * many places. */
#define MIN_SIGNIFICANT_DIGITS 16
#define SERVER_DIGITS 4
#define MAX_QUOTIENT_SCALE 1000

static const uint32_t POW10[] = { 1,      10,      100,      1000,      10000,
                                  100000, 1000000, 10000000, 100000000, 1000000000 };

void luna_decimal_deinit(luna_decimal *d)
{
    free(d->limbs);
    *d = (luna_decimal){ 0 };
}

/* Room for `cap` limbs in all; the new ones are not set. */
static void decimal_reserve(luna_decimal *d, size_t cap)
{
    if (cap <= d->cap)
        return;
    size_t grown = d->cap ? d->cap : 4;
    while (grown < cap)
        grown *= 2;
    uint32_t *limbs = realloc(d->limbs, grown * sizeof(*limbs));
    if (limbs == NULL)
        abort();
    d->limbs = limbs;
    d->cap = grown;
}

/* Lengthen to `len` limbs with zeros at the significant end. */
static void decimal_widen(luna_decimal *d, size_t len)
{
    if (len <= d->len)
        return;
    decimal_reserve(d, len);
    memset(d->limbs + d->len, 0, (len - d->len) * sizeof(*d->limbs));
    d->len = len;
}

/* Have `frac` limbs after the point, with zeros at the insignificant end. */
static void decimal_deepen(luna_decimal *d, size_t frac)
{
    if (frac <= d->frac)
        return;
    size_t more = frac - d->frac;
    decimal_reserve(d, d->len + more);
    if (d->len > 0)
        memmove(d->limbs + more, d->limbs, d->len * sizeof(*d->limbs));
    memset(d->limbs, 0, more * sizeof(*d->limbs));
    d->len += more;
    d->frac = frac;
}

/* Drop leading zero limbs; zero has no sign. */
static void decimal_trim(luna_decimal *d)
{
    while (d->len > d->frac && d->limbs[d->len - 1] == 0)
        d->len--;
    if (d->negative) {
        size_t i = 0;
        while (i < d->len && d->limbs[i] == 0)
            i++;
        d->negative = i < d->len;
    }
}

static void decimal_clear(luna_decimal *d, luna_decimal_kind kind, bool negative)
{
    d->kind = kind;
    d->negative = negative;
    d->scale = 0;
    d->frac = d->len = 0;
}

void luna_decimal_copy(luna_decimal *to, const luna_decimal *from)
{
    decimal_clear(to, from->kind, from->negative);
    decimal_reserve(to, from->len);
    if (from->len > 0)
        memcpy(to->limbs, from->limbs, from->len * sizeof(*from->limbs));
    to->scale = from->scale;
    to->frac = from->frac;
    to->len = from->len;
}

void luna_decimal_set(luna_decimal *d, uint64_t magnitude, bool negative)
{
    decimal_clear(d, LUNA_DECIMAL_FINITE, negative && magnitude != 0);
    decimal_reserve(d, 3);
    for (; magnitude != 0; magnitude /= LIMB_BASE)
        d->limbs[d->len++] = (uint32_t)(magnitude % LIMB_BASE);
}

/* The value of up to nine digits. */
static uint32_t limb_of(const char *digits, size_t n)
{
    uint32_t limb = 0;
    for (size_t i = 0; i < n; i++)
        limb = limb * 10 + (uint32_t)(digits[i] - '0');
    return limb;
}

static size_t digits_at(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && text[n] >= '0' && text[n] <= '9')
        n++;
    return n;
}

static bool is_word(const char *text, size_t len, const char *word)
{
    return len == strlen(word) && memcmp(text, word, len) == 0;
}

luna_status luna_decimal_parse(luna_decimal *d, const char *text, size_t len, luna_err *err)
{
    const char *at = text;
    size_t left = len;
    bool negative = left > 0 && *at == '-';
    if (left > 0 && (*at == '-' || *at == '+')) {
        at++;
        left--;
    }

    if (is_word(at, left, "NaN") && at == text) {
        decimal_clear(d, LUNA_DECIMAL_NAN, false);
        return LUNA_OK;
    }
    if (is_word(at, left, "Infinity")) {
        decimal_clear(d, LUNA_DECIMAL_INFINITE, negative);
        return LUNA_OK;
    }

    const char *whole = at;
    size_t n_whole = digits_at(at, left);
    at += n_whole;
    left -= n_whole;
    const char *places = at;
    size_t n_places = 0;
    if (left > 0 && *at == '.') {
        places = at + 1;
        n_places = digits_at(places, left - 1);
        left -= n_places + 1;
    }
    if (left != 0 || n_whole + n_places == 0)
        return luna_err_set(err, LUNA_EINVAL, "\"%.*s\" is not a number",
                            (int)(len > 40 ? 40 : len), text);
    while (n_whole > 0 && *whole == '0') {
        whole++;
        n_whole--;
    }
    if (n_whole > MAX_WHOLE_DIGITS || n_places > MAX_SCALE)
        return luna_err_set(err, LUNA_EINVAL, "a number of %zu.%zu digits is beyond numeric",
                            n_whole, n_places);

    decimal_clear(d, LUNA_DECIMAL_FINITE, negative);
    d->scale = (unsigned)n_places;
    d->frac = (n_places + LIMB_DIGITS - 1) / LIMB_DIGITS;
    d->len = d->frac + (n_whole + LIMB_DIGITS - 1) / LIMB_DIGITS;
    decimal_reserve(d, d->len);
    for (size_t i = 0; i < d->frac; i++) {
        size_t start = i * LIMB_DIGITS;
        size_t n = n_places - start < LIMB_DIGITS ? n_places - start : LIMB_DIGITS;
        d->limbs[d->frac - 1 - i] = limb_of(places + start, n) * POW10[LIMB_DIGITS - n];
    }
    for (size_t i = d->frac; i < d->len; i++) {
        size_t n = n_whole < LIMB_DIGITS ? n_whole : LIMB_DIGITS;
        n_whole -= n;
        d->limbs[i] = limb_of(whole + n_whole, n);
    }
    decimal_trim(d);
    return LUNA_OK;
}

/* Limb of weight `w` (limbs before the point count from 0, after it from -1). */
static uint32_t limb_at(const luna_decimal *d, ptrdiff_t w)
{
    ptrdiff_t i = w + (ptrdiff_t)d->frac;
    return i < 0 || i >= (ptrdiff_t)d->len ? 0 : d->limbs[i];
}

static int compare_magnitude(const luna_decimal *a, const luna_decimal *b)
{
    ptrdiff_t high_a = (ptrdiff_t)(a->len - a->frac), high_b = (ptrdiff_t)(b->len - b->frac);
    ptrdiff_t high = high_a > high_b ? high_a : high_b;
    ptrdiff_t low = -(ptrdiff_t)(a->frac > b->frac ? a->frac : b->frac);
    for (ptrdiff_t w = high - 1; w >= low; w--) {
        uint32_t x = limb_at(a, w), y = limb_at(b, w);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return 0;
}

/* |sum| += |x|; sum has x's depth and one limb to spare. */
static void add_magnitude(luna_decimal *sum, const luna_decimal *x)
{
    uint32_t carry = 0;
    ptrdiff_t high = (ptrdiff_t)(x->len - x->frac);
    for (size_t i = 0; i < sum->len; i++) {
        ptrdiff_t w = (ptrdiff_t)i - (ptrdiff_t)sum->frac;
        if (w >= high && carry == 0)
            break;
        uint32_t limb = sum->limbs[i] + limb_at(x, w) + carry;
        carry = limb >= LIMB_BASE;
        sum->limbs[i] = carry ? limb - LIMB_BASE : limb;
    }
}

/* |sum| = | |sum| - |x| |; `flip` says that |x| is the larger one. */
static void sub_magnitude(luna_decimal *sum, const luna_decimal *x, bool flip)
{
    uint32_t borrow = 0;
    for (size_t i = 0; i < sum->len; i++) {
        uint32_t mine = sum->limbs[i];
        uint32_t theirs = limb_at(x, (ptrdiff_t)i - (ptrdiff_t)sum->frac);
        uint32_t from = flip ? theirs : mine;
        uint32_t take = (flip ? mine : theirs) + borrow;
        borrow = from < take;
        sum->limbs[i] = borrow ? from + LIMB_BASE - take : from - take;
    }
}

static void decimal_combine(luna_decimal *sum, const luna_decimal *x, bool x_negative)
{
    if (sum->kind != LUNA_DECIMAL_FINITE || x->kind != LUNA_DECIMAL_FINITE) {
        bool both = sum->kind == LUNA_DECIMAL_INFINITE && x->kind == LUNA_DECIMAL_INFINITE;
        if (sum->kind == LUNA_DECIMAL_NAN || x->kind == LUNA_DECIMAL_NAN ||
            (both && sum->negative != x_negative))
            decimal_clear(sum, LUNA_DECIMAL_NAN, false);
        else if (sum->kind == LUNA_DECIMAL_FINITE)
            decimal_clear(sum, LUNA_DECIMAL_INFINITE, x_negative);
        return;
    }
    decimal_deepen(sum, x->frac);
    size_t whole_sum = sum->len - sum->frac, whole_x = x->len - x->frac;
    decimal_widen(sum, sum->frac + (whole_sum > whole_x ? whole_sum : whole_x) + 1);
    if (sum->negative == x_negative) {
        add_magnitude(sum, x);
    } else {
        bool flip = compare_magnitude(sum, x) < 0;
        sub_magnitude(sum, x, flip);
        if (flip)
            sum->negative = x_negative;
    }
    sum->scale = sum->scale > x->scale ? sum->scale : x->scale;
    decimal_trim(sum);
}

void luna_decimal_add(luna_decimal *sum, const luna_decimal *x)
{
    decimal_combine(sum, x, x->negative);
}

void luna_decimal_sub(luna_decimal *sum, const luna_decimal *x)
{
    decimal_combine(sum, x, !x->negative);
}

/* Where a kind stands: -Infinity 0, finite 1, Infinity 2, NaN 3. */
static int rank(const luna_decimal *d)
{
    switch (d->kind) {
    case LUNA_DECIMAL_FINITE: return 1;
    case LUNA_DECIMAL_INFINITE: return d->negative ? 0 : 2;
    case LUNA_DECIMAL_NAN: return 3;
    }
    return 3;
}

int luna_decimal_compare(const luna_decimal *a, const luna_decimal *b)
{
    int rank_a = rank(a), rank_b = rank(b);
    if (rank_a != rank_b)
        return rank_a < rank_b ? -1 : 1;
    if (rank_a != 1)
        return 0;
    if (a->negative != b->negative)
        return a->negative ? -1 : 1;
    int order = compare_magnitude(a, b);
    return a->negative ? -order : order;
}

bool luna_decimal_to_int64(const luna_decimal *d, int64_t *v)
{
    if (d->kind != LUNA_DECIMAL_FINITE || d->len - d->frac > 3)
        return false;
    for (size_t i = 0; i < d->frac; i++) {
        if (d->limbs[i] != 0)
            return false;
    }
    unsigned __int128 magnitude = 0;
    for (size_t i = d->len; i > d->frac; i--)
        magnitude = magnitude * LIMB_BASE + d->limbs[i - 1];
    if (magnitude > (unsigned __int128)INT64_MAX + (d->negative ? 1 : 0))
        return false;
    uint64_t bits = (uint64_t)magnitude;
    *v = (int64_t)(d->negative ? -bits : bits);
    return true;
}

void luna_decimal_write(const luna_decimal *d, luna_buf *out)
{
    if (d->kind == LUNA_DECIMAL_NAN) {
        luna_buf_add_str(out, "NaN");
        return;
    }
    if (d->negative)
        luna_buf_add_char(out, '-');
    if (d->kind == LUNA_DECIMAL_INFINITE) {
        luna_buf_add_str(out, "Infinity");
        return;
    }
    if (d->len == d->frac)
        luna_buf_add_char(out, '0');
    for (size_t i = d->len; i > d->frac; i--)
        luna_buf_addf(out, i == d->len ? "%u" : "%09u", d->limbs[i - 1]);
    if (d->scale == 0)
        return;
    luna_buf_add_char(out, '.');
    for (unsigned shown = 0; shown < d->scale; shown += LIMB_DIGITS) {
        unsigned n = d->scale - shown < LIMB_DIGITS ? d->scale - shown : LIMB_DIGITS;
        uint32_t limb = limb_at(d, -1 - (ptrdiff_t)(shown / LIMB_DIGITS));
        luna_buf_addf(out, "%0*u", (int)n, limb / POW10[LIMB_DIGITS - n]);
    }
}

/* The leading base-10000 digit of a number as the server stores it, and its
 * weight; both 0 for zero.  Limbs of nine digits do not line up with groups of
 * four, so the group is read digit by digit. */
static void leading_server_digit(const luna_decimal *d, int *weight, int *digit)
{
    *weight = *digit = 0;
    size_t top = d->len;
    while (top > 0 && d->limbs[top - 1] == 0)
        top--;
    if (top == 0)
        return;
    unsigned inside = 0; /* place of the leading digit within its limb, from the right */
    while (inside + 1 < LIMB_DIGITS && d->limbs[top - 1] >= POW10[inside + 1])
        inside++;
    ptrdiff_t exponent =
        ((ptrdiff_t)top - 1 - (ptrdiff_t)d->frac) * (ptrdiff_t)LIMB_DIGITS + (ptrdiff_t)inside;
    ptrdiff_t group = exponent >= 0 ? exponent / SERVER_DIGITS
                                    : -((-exponent + SERVER_DIGITS - 1) / SERVER_DIGITS);
    *weight = (int)group;
    for (ptrdiff_t e = exponent; e >= group * SERVER_DIGITS; e--) {
        ptrdiff_t shifted = e + (ptrdiff_t)d->frac * (ptrdiff_t)LIMB_DIGITS;
        uint32_t limb = shifted < 0 ? 0 : d->limbs[shifted / (ptrdiff_t)LIMB_DIGITS];
        unsigned place = shifted < 0 ? 0 : (unsigned)(shifted % (ptrdiff_t)LIMB_DIGITS);
        *digit = *digit * 10 + (int)(limb / POW10[place] % 10);
    }
}

/* The scale that the server gives to d / count. */
static unsigned quotient_scale(const luna_decimal *d, uint64_t count)
{
    int weight, digit, weight_by = 0;
    leading_server_digit(d, &weight, &digit);
    for (; count >= 10000; count /= 10000)
        weight_by++;

    /* Equal leading digits leave the quotient's weight open: assume the lower one. */
    int quotient_weight = weight - weight_by - (digit <= (int)count ? 1 : 0);
    int scale = MIN_SIGNIFICANT_DIGITS - quotient_weight * SERVER_DIGITS;
    if (scale < (int)d->scale)
        scale = (int)d->scale;
    if (scale < 0)
        scale = 0;
    return (unsigned)(scale > MAX_QUOTIENT_SCALE ? MAX_QUOTIENT_SCALE : scale);
}

/* Round half away from zero to `scale` places, and drop the limbs beyond. */
static void decimal_round(luna_decimal *d, unsigned scale)
{
    size_t keep = (scale + LIMB_DIGITS - 1) / LIMB_DIGITS;
    ptrdiff_t limb = -1 - (ptrdiff_t)(scale / LIMB_DIGITS); /* weight of the first digit dropped */
    uint32_t unit = POW10[LIMB_DIGITS - 1 - scale % LIMB_DIGITS];
    bool up = limb_at(d, limb) / unit % 10 >= 5;

    d->scale = scale;
    decimal_deepen(d, keep);
    size_t drop = d->frac - keep;
    memmove(d->limbs, d->limbs + drop, (d->len - drop) * sizeof(*d->limbs));
    d->len -= drop;
    d->frac = keep;
    unsigned spare = (unsigned)(keep * LIMB_DIGITS - scale); /* digits of limbs[0] to clear */
    if (spare > 0)
        d->limbs[0] -= d->limbs[0] % POW10[spare];
    if (up) {
        uint32_t carry = POW10[spare];
        decimal_widen(d, d->len + 1);
        for (size_t i = 0; carry != 0; i++) {
            uint32_t digit = d->limbs[i] + carry;
            carry = digit >= LIMB_BASE;
            d->limbs[i] = carry ? digit - LIMB_BASE : digit;
        }
    }
    decimal_trim(d);
}

void luna_decimal_divide(luna_decimal *d, uint64_t count)
{
    if (d->kind != LUNA_DECIMAL_FINITE)
        return;
    unsigned scale = quotient_scale(d, count);
    decimal_deepen(d, scale / LIMB_DIGITS + 1); /* at least one digit to round by */
    unsigned __int128 rest = 0;
    for (size_t i = d->len; i > 0; i--) {
        rest = rest * LIMB_BASE + d->limbs[i - 1];
        d->limbs[i - 1] = (uint32_t)(rest / count);
        rest %= count;
    }
    decimal_round(d, scale);
}
