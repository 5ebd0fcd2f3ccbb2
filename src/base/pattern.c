#include "pattern.h"

#include <ctype.h>
#include <string.h>

/* Items that may have to be taken back, and so cost a level of the C stack each. */
#define MAX_CHOICES 200

enum { BYTE, ANY, SET, BALANCE, FRONTIER, OPEN, POSITION, CLOSE, BACK, SUBJECT_END, DONE };
enum { ONCE, MAYBE, MANY, AT_LEAST_ONE, FEW };

/* ---- compiling -------------------------------------------------------------------- */

typedef struct luna_reader {
    luna_pattern *pattern;
    const unsigned char *at, *end;
    size_t n, choices;
    int open[LUNA_PATTERN_CAPTURES], n_open; /* captures not yet closed, innermost last */
    bool closed[LUNA_PATTERN_CAPTURES];
} luna_reader;

size_t luna_pattern_size(size_t len)
{
    return sizeof(luna_pattern) + (len + 1) * sizeof(luna_pattern_item);
}

static void add_byte(uint32_t *set, unsigned c)
{
    set[c / 32] |= (uint32_t)1 << c % 32;
}

static bool has_byte(const uint32_t *set, unsigned c)
{
    return (set[c / 32] >> c % 32 & 1) != 0;
}

static bool is_of_class(unsigned c, int class)
{
    switch (class) {
    case 'a': return c < 128 && isalpha((int)c);
    case 'c': return c < 128 && iscntrl((int)c);
    case 'd': return c >= '0' && c <= '9';
    case 'g': return c > 32 && c < 127;
    case 'l': return c >= 'a' && c <= 'z';
    case 'p': return c < 128 && ispunct((int)c);
    case 's': return c == ' ' || (c >= '\t' && c <= '\r');
    case 'u': return c >= 'A' && c <= 'Z';
    case 'w': return c < 128 && isalnum((int)c);
    default: return c < 128 && isxdigit((int)c);
    }
}

/* What % and this letter stand for: a class, the complement of one, or the byte. */
static void add_class(uint32_t *set, unsigned letter)
{
    bool is_upper = letter >= 'A' && letter <= 'Z';
    int class = is_upper ? (int)letter + 32 : (int)letter;
    if (letter == 'z' || letter == 'Z' || memchr("acdglpsuwx", class, 10) == NULL) {
        for (unsigned c = 0; c < 256; c++)
            if (letter == 'z' ? c == 0 : letter == 'Z' ? c != 0 : c == letter)
                add_byte(set, c);
        return;
    }
    for (unsigned c = 0; c < 256; c++)
        if (is_of_class(c, class) != is_upper)
            add_byte(set, c);
}

/* The ] that ends a set: not the first byte in it, not one after %. */
static const unsigned char *find_set_end(const luna_reader *r)
{
    for (const unsigned char *at = r->at; at < r->end; at++) {
        if (*at == ']' && at > r->at)
            return at;
        at += *at == '%';
    }
    return NULL;
}

/* [...], of which [ was read. */
static const char *read_set(luna_reader *r, uint32_t *set)
{
    bool is_complement = r->at < r->end && *r->at == '^';
    r->at += is_complement;
    const unsigned char *end = find_set_end(r);
    if (end == NULL)
        return "malformed pattern (missing ']')";
    while (r->at < end) {
        unsigned c = *r->at++;
        if (c == '%') {
            add_class(set, *r->at++);
        } else if (end - r->at >= 2 && *r->at == '-') {
            for (unsigned last = r->at[1]; c <= last; c++)
                add_byte(set, c);
            r->at += 2;
        } else {
            add_byte(set, c);
        }
    }
    r->at = end + 1;
    for (int i = 0; is_complement && i < 8; i++)
        set[i] = ~set[i];
    return NULL;
}

static const char *read_open(luna_reader *r, luna_pattern_item *item)
{
    int number = r->pattern->n_captures;
    if (number == LUNA_PATTERN_CAPTURES)
        return "too many captures";
    r->pattern->n_captures++;
    item->a = (uint8_t)number;
    item->kind = OPEN;
    if (r->at < r->end && *r->at == ')') {
        r->at++;
        item->kind = POSITION;
        r->closed[number] = true;
    } else {
        r->open[r->n_open++] = number;
    }
    r->choices++;
    return NULL;
}

static const char *read_close(luna_reader *r, luna_pattern_item *item)
{
    if (r->n_open == 0)
        return "invalid pattern capture";
    item->kind = CLOSE;
    item->a = (uint8_t)r->open[--r->n_open];
    r->closed[item->a] = true;
    r->choices++;
    return NULL;
}

/* After %: true when it was one of those that are no single byte. */
static bool read_special(luna_reader *r, luna_pattern_item *item, const char **problem)
{
    unsigned c = *r->at;
    if (c == 'b') {
        if (r->end - r->at < 3) {
            *problem = "malformed pattern (missing arguments to '%b')";
            return true;
        }
        item->kind = BALANCE;
        item->a = r->at[1];
        item->b = r->at[2];
        r->at += 3;
    } else if (c == 'f') {
        item->kind = FRONTIER;
        if (r->end - r->at < 2 || r->at[1] != '[') {
            *problem = "malformed pattern (missing '[' after '%f')";
            return true;
        }
        r->at += 2;
        *problem = read_set(r, item->set);
    } else if (c >= '0' && c <= '9') {
        r->at++;
        item->kind = BACK;
        item->a = (uint8_t)(c - '1');
        if (c == '0' || item->a >= r->pattern->n_captures || !r->closed[item->a])
            *problem = "invalid capture index";
    } else {
        return false;
    }
    return true;
}

static void read_repeat(luna_reader *r, luna_pattern_item *item)
{
    static const char marks[] = "?*+-";
    const char *mark = r->at < r->end && *r->at != 0 ? strchr(marks, *r->at) : NULL;
    if (mark == NULL)
        return;
    item->repeat = (uint8_t)(MAYBE + (mark - marks));
    r->choices++;
    r->at++;
}

static const char *read_single(luna_reader *r, luna_pattern_item *item, unsigned c)
{
    const char *problem = NULL;
    if (c == '.') {
        item->kind = ANY;
    } else if (c == '[') {
        item->kind = SET;
        problem = read_set(r, item->set);
    } else if (c == '%') {
        item->kind = SET;
        add_class(item->set, *r->at++);
    } else {
        item->kind = BYTE;
        item->a = (uint8_t)c;
    }
    read_repeat(r, item);
    return problem;
}

static const char *read_item(luna_reader *r, luna_pattern_item *item)
{
    const char *problem = NULL;
    unsigned c = *r->at++;
    if (c == '(')
        return read_open(r, item);
    if (c == ')')
        return read_close(r, item);
    if (c == '$' && r->at == r->end) {
        item->kind = SUBJECT_END;
        return NULL;
    }
    if (c == '%' && r->at == r->end)
        return "malformed pattern (ends with '%')";
    if (c == '%' && read_special(r, item, &problem))
        return problem;
    return read_single(r, item, c);
}

const char *luna_pattern_compile(luna_pattern *pattern, const char *text, size_t len, bool anchors)
{
    luna_reader r = { .pattern = pattern,
                      .at = (const unsigned char *)text,
                      .end = (const unsigned char *)text + len };
    pattern->n_captures = 0;
    pattern->is_anchored = anchors && len > 0 && text[0] == '^';
    r.at += pattern->is_anchored;
    while (r.at < r.end) {
        luna_pattern_item *item = &pattern->items[r.n++];
        *item = (luna_pattern_item){ .repeat = ONCE };
        const char *problem = read_item(&r, item);
        if (problem != NULL)
            return problem;
        if (r.choices > MAX_CHOICES)
            return "pattern too complex";
    }
    pattern->items[r.n].kind = DONE;
    return r.n_open > 0 ? "unfinished capture" : NULL;
}

/* ---- matching --------------------------------------------------------------------- */

static bool fits(const luna_match *m, const luna_pattern_item *item, const char *at)
{
    if (at >= m->end)
        return false;
    unsigned c = (unsigned char)*at;
    return item->kind == ANY || (item->kind == BYTE ? c == item->a : has_byte(item->set, c));
}

static bool step(luna_match *m, size_t n)
{
    m->steps = m->steps > n ? m->steps - n : 0;
    return m->steps > 0;
}

static const char *find_balance(luna_match *m, const luna_pattern_item *item, const char *at)
{
    if (at >= m->end || (uint8_t)*at != item->a)
        return NULL;
    size_t depth = 1;
    while (++at < m->end && step(m, 1)) {
        if ((uint8_t)*at == item->b) {
            if (--depth == 0)
                return at + 1;
        } else if ((uint8_t)*at == item->a) {
            depth++;
        }
    }
    return NULL;
}

static bool is_frontier(const luna_match *m, const luna_pattern_item *item, const char *at)
{
    unsigned before = at == m->begin ? 0 : (unsigned char)at[-1];
    unsigned here = at >= m->end ? 0 : (unsigned char)*at;
    return !has_byte(item->set, before) && has_byte(item->set, here);
}

static const char *skip_capture(luna_match *m, const luna_pattern_item *item, const char *at)
{
    const luna_capture *capture = &m->capture[item->a];
    size_t len = capture->len > 0 ? (size_t)capture->len : 0;
    if (capture->len < 0 || (size_t)(m->end - at) < len || !step(m, len / 16 + 1) ||
        memcmp(capture->begin, at, len) != 0)
        return NULL;
    return at + len;
}

static const char *match_from(luna_match *m, const luna_pattern_item *item, const char *at);

static const char *match_capture(luna_match *m, const luna_pattern_item *item, const char *at)
{
    luna_capture *capture = &m->capture[item->a], before = *capture;
    if (item->kind == CLOSE)
        capture->len = at - capture->begin;
    else
        *capture = (luna_capture){ at, LUNA_CAPTURE_POSITION };
    const char *end = match_from(m, item + 1, at);
    if (end == NULL)
        *capture = before;
    return end;
}

/* As many as there are, then fewer. */
static const char *match_many(luna_match *m, const luna_pattern_item *item, const char *at)
{
    const char *last = at;
    while (fits(m, item, last))
        last++;
    if (!step(m, (size_t)(last - at)))
        return NULL;
    const char *least = at + (item->repeat == AT_LEAST_ONE);
    for (; last >= least; last--) {
        const char *end = match_from(m, item + 1, last);
        if (end != NULL)
            return end;
        if (m->steps == 0)
            break;
    }
    return NULL;
}

static const char *match_few(luna_match *m, const luna_pattern_item *item, const char *at)
{
    for (;; at++) {
        const char *end = match_from(m, item + 1, at);
        if (end != NULL || m->steps == 0 || !fits(m, item, at))
            return end;
    }
}

static const char *match_single(luna_match *m, const luna_pattern_item *item, const char *at)
{
    if (item->repeat == MANY || item->repeat == AT_LEAST_ONE)
        return match_many(m, item, at);
    if (item->repeat == FEW)
        return match_few(m, item, at);
    const char *end = fits(m, item, at) ? match_from(m, item + 1, at + 1) : NULL;
    return end != NULL || m->steps == 0 ? end : match_from(m, item + 1, at);
}

/* Match the items from `item` on. */
static const char *match_from(luna_match *m, const luna_pattern_item *item, const char *at)
{
    for (; step(m, 1); item++) {
        switch (item->kind) {
        case DONE: return at;
        case OPEN:
        case POSITION:
        case CLOSE: return match_capture(m, item, at);
        case BALANCE: at = find_balance(m, item, at); break;
        case BACK: at = skip_capture(m, item, at); break;
        case FRONTIER: at = is_frontier(m, item, at) ? at : NULL; break;
        case SUBJECT_END: at = at == m->end ? at : NULL; break;
        default:
            if (item->repeat != ONCE)
                return match_single(m, item, at);
            at = fits(m, item, at) ? at + 1 : NULL;
        }
        if (at == NULL)
            return NULL;
    }
    return NULL;
}

const char *luna_pattern_match(const luna_pattern *pattern, luna_match *match, const char *at)
{
    return match_from(match, pattern->items, at);
}
