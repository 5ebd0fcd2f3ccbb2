/* range.c - a sorted array of disjoint ranges. */
#include "range.h"

#include <stdlib.h>
#include <string.h>

void luna_range_set_deinit(luna_range_set *set)
{
    free(set->ranges);
    free(set->texts);
    memset(set, 0, sizeof(*set));
}

/* Is `key` above everything the range holds? */
static bool is_past(const luna_range *range, const luna_key *key)
{
    if (!range->has_high)
        return false;
    int order = luna_key_compare(key, &range->high);
    return range->high_exclusive ? order >= 0 : order > 0;
}

static bool is_before(const luna_range *range, const luna_key *key)
{
    return range->has_low && luna_key_compare(key, &range->low) < 0;
}

/* By lower bound; open ones first. */
static int compare_ranges(const void *left, const void *right)
{
    const luna_range *a = left, *b = right;
    if (a->has_low && b->has_low) {
        int order = luna_key_compare(&a->low, &b->low);
        if (order != 0)
            return order;
    } else if (a->has_low != b->has_low) {
        return a->has_low ? 1 : -1;
    }
    return (a->index > b->index) - (a->index < b->index);
}

/* Does `next` begin right where `range` ends?  Given that they do not overlap. */
static bool is_adjacent(const luna_range *range, const luna_range *next)
{
    if (range->high_exclusive)
        return luna_key_compare(&range->high, &next->low) == 0;
    /* Between two texts there is always another one; between whole numbers not.  No overflow:
     * next->low is greater than range->high. */
    return range->high.type != LUNA_KEY_TEXT && range->high.number + 1 == next->low.number;
}

static luna_range_fault check_order(const luna_range_set *set, bool allow_gaps, size_t *a,
                                    size_t *b)
{
    for (size_t i = 0; i < set->n; i++) {
        const luna_range *range = &set->ranges[i];
        *a = range->index;
        if (range->has_low && is_past(range, &range->low))
            return LUNA_RANGE_EMPTY;
        if (i + 1 == set->n)
            continue;
        const luna_range *next = &set->ranges[i + 1];
        *b = next->index;
        if (!next->has_low || !is_past(range, &next->low))
            return LUNA_RANGE_OVERLAP;
        if (!allow_gaps && !is_adjacent(range, next))
            return LUNA_RANGE_GAP;
    }
    return LUNA_RANGE_SOUND;
}

/* Copy a bound's text to `at`; returns where the next one goes. */
static char *own_text(luna_key *key, char *at)
{
    if (key->type != LUNA_KEY_TEXT || key->len == 0)
        return at;
    memcpy(at, key->text, key->len);
    key->text = at;
    return at + key->len;
}

static size_t text_len(const luna_range *range)
{
    return (range->has_low && range->low.type == LUNA_KEY_TEXT ? range->low.len : 0) +
           (range->has_high && range->high.type == LUNA_KEY_TEXT ? range->high.len : 0);
}

luna_range_fault luna_range_set_init(luna_range_set *set, const luna_range *ranges, size_t n,
                                     bool allow_gaps, size_t *a, size_t *b)
{
    size_t bytes = 1; /* never malloc(0), whose NULL would look like a failure */
    for (size_t i = 0; i < n; i++)
        bytes += text_len(&ranges[i]);
    set->ranges = malloc((n + 1) * sizeof(*ranges));
    set->texts = malloc(bytes);
    if (set->ranges == NULL || set->texts == NULL)
        abort();

    char *at = set->texts;
    for (size_t i = 0; i < n; i++) {
        luna_range *range = &set->ranges[i];
        *range = ranges[i];
        range->index = (uint32_t)i;
        if (range->has_low)
            at = own_text(&range->low, at);
        if (range->has_high)
            at = own_text(&range->high, at);
    }
    set->n = n;
    qsort(set->ranges, n, sizeof(*ranges), compare_ranges);

    luna_range_fault fault = check_order(set, allow_gaps, a, b);
    if (fault != LUNA_RANGE_SOUND)
        luna_range_set_deinit(set);
    return fault;
}

/* Position of the first range that does not end before `key`. */
static size_t first_not_past(const luna_range_set *set, const luna_key *key)
{
    size_t low = 0, high = set->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (is_past(&set->ranges[middle], key))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const luna_range *luna_range_find(const luna_range_set *set, const luna_key *key)
{
    size_t i = first_not_past(set, key);
    return i < set->n && !is_before(&set->ranges[i], key) ? &set->ranges[i] : NULL;
}

size_t luna_range_span(const luna_range_set *set, const luna_key *low, const luna_key *high,
                       size_t *first)
{
    *first = low != NULL ? first_not_past(set, low) : 0;
    if (low != NULL && high != NULL && luna_key_compare(low, high) > 0)
        return 0;
    size_t end = high != NULL ? first_not_past(set, high) : set->n;
    if (high != NULL && end < set->n && !is_before(&set->ranges[end], high))
        end++;
    return end > *first ? end - *first : 0;
}
