#include "merge.h"

#include <stdlib.h>
#include <string.h>

static void *zeroed(int n, size_t size)
{
    void *p = calloc(n > 0 ? (size_t)n : 1, size);
    if (p == NULL)
        abort();
    return p;
}

void luna_merge_init(luna_merge *merge, int n_items, int n_sources)
{
    *merge = (luna_merge){ .n_items = n_items, .n_sources = n_sources, .loading = -1 };
    merge->items = zeroed(n_items, sizeof(*merge->items));
    merge->sources = zeroed(n_sources, sizeof(*merge->sources));
    merge->heap = zeroed(n_sources, sizeof(*merge->heap));
    for (int i = 0; i < n_sources; i++) {
        luna_merge_source *source = &merge->sources[i];
        source->columns = zeroed(n_items, sizeof(*source->columns));
        source->keys = zeroed(n_items, sizeof(*source->keys));
        source->last = zeroed(n_items, sizeof(*source->last));
    }
}

void luna_merge_deinit(luna_merge *merge)
{
    for (int i = 0; i < merge->n_sources; i++) {
        luna_merge_source *source = &merge->sources[i];
        free(source->columns);
        free(source->keys);
        free(source->last);
        free(source->fields);
        luna_buf_deinit(&source->kept);
    }
    free(merge->items);
    free(merge->sources);
    free(merge->heap);
    *merge = (luna_merge){ 0 };
}

void luna_merge_describe(luna_merge *merge, int source)
{
    luna_merge_source *s = &merge->sources[source];
    free(s->fields);
    s->fields = zeroed(s->rows->n_columns, sizeof(*s->fields));
}

/* ---- order ------------------------------------------------------------------------ */

static int compare_items(const luna_merge *merge, const luna_sort_key *a, const luna_sort_key *b)
{
    for (int i = 0; i < merge->n_items; i++) {
        const luna_merge_item *item = &merge->items[i];
        int by;
        if (a[i].is_null || b[i].is_null) {
            by = (int)b[i].is_null - (int)a[i].is_null;
            by = item->nulls_first ? by : -by;
        } else {
            by = luna_sort_key_compare(&a[i], &b[i]);
            by = item->desc ? -by : by;
        }
        if (by != 0)
            return by;
    }
    return 0;
}

/* Equal rows come out in the order of the sources. */
static bool is_before(const luna_merge *merge, int a, int b)
{
    int by = compare_items(merge, merge->sources[a].keys, merge->sources[b].keys);
    return by < 0 || (by == 0 && a < b);
}

static void sift_down(luna_merge *merge, int at)
{
    int *heap = merge->heap, moving = heap[at];
    for (int child; (child = 2 * at + 1) < merge->n_heap; at = child) {
        if (child + 1 < merge->n_heap && is_before(merge, heap[child + 1], heap[child]))
            child++;
        if (!is_before(merge, heap[child], moving))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

/* ---- sources ----------------------------------------------------------------------- */

/* The row of `last` is about to go: keep what its keys point to. */
static void keep_last(luna_merge *merge, luna_merge_source *source)
{
    if (source->row_number == 0)
        return;
    size_t at = 0;
    luna_buf kept = { 0 };
    for (int i = 0; i < merge->n_items; i++)
        if (!source->last[i].is_null)
            luna_buf_add(&kept, source->last[i].bytes, source->last[i].n);
    for (int i = 0; i < merge->n_items; i++) {
        if (source->last[i].is_null || source->last[i].n == 0)
            continue;
        source->last[i].bytes = kept.data + at;
        at += source->last[i].n;
    }
    luna_buf_deinit(&source->kept);
    source->kept = kept;
}

/* The row above goes; its keys stay to be compared with. */
static void leave_row(luna_merge_source *source)
{
    luna_sort_key *keys = source->keys;
    source->keys = source->last;
    source->last = keys;
}

static luna_merge_outcome load(luna_merge *merge, luna_merge_source *source)
{
    if (!luna_rows_next(source->rows, source->fields)) {
        if (source->rows->malformed)
            return LUNA_MERGE_MALFORMED;
        if (!source->ended)
            keep_last(merge, source);
        return source->ended ? LUNA_MERGE_END : LUNA_MERGE_WANTS;
    }
    for (int i = 0; i < merge->n_items; i++) {
        const luna_field *field = &source->fields[source->columns[i]];
        luna_sort_key *key = &source->keys[i];
        key->n = 0;
        key->is_null = field->len < 0;
        if (!key->is_null &&
            !luna_sort_key_make(key, merge->items[i].family, field->text, (size_t)field->len)) {
            merge->misfit = i;
            return LUNA_MERGE_MISFIT;
        }
    }
    source->row_number++;
    if (source->row_number > 1 && compare_items(merge, source->keys, source->last) < 0)
        return LUNA_MERGE_UNSORTED;
    return LUNA_MERGE_ROW;
}

/* Load the first row of each; the heap is made when all have one or have ended. */
static luna_merge_outcome start(luna_merge *merge, int *source)
{
    for (int i = merge->loading < 0 ? 0 : merge->loading; i < merge->n_sources; i++) {
        merge->loading = *source = i;
        luna_merge_outcome outcome = load(merge, &merge->sources[i]);
        if (outcome == LUNA_MERGE_ROW)
            merge->heap[merge->n_heap++] = i;
        else if (outcome != LUNA_MERGE_END)
            return outcome;
    }
    merge->loading = -1;
    merge->started = true;
    for (int at = merge->n_heap / 2 - 1; at >= 0; at--)
        sift_down(merge, at);
    return LUNA_MERGE_ROW;
}

/* The row given last makes room for the next of its source. */
static luna_merge_outcome advance(luna_merge *merge, int *source)
{
    *source = merge->loading;
    luna_merge_outcome outcome = load(merge, &merge->sources[merge->loading]);
    if (outcome == LUNA_MERGE_END)
        merge->heap[0] = merge->heap[--merge->n_heap];
    else if (outcome != LUNA_MERGE_ROW)
        return outcome;
    merge->loading = -1;
    if (merge->n_heap > 1)
        sift_down(merge, 0);
    return LUNA_MERGE_ROW;
}

luna_merge_outcome luna_merge_next(luna_merge *merge, int *source)
{
    luna_merge_outcome outcome = LUNA_MERGE_ROW;
    if (!merge->started)
        outcome = start(merge, source);
    else if (merge->loading >= 0)
        outcome = advance(merge, source);
    if (outcome != LUNA_MERGE_ROW)
        return outcome;
    if (merge->n_heap == 0)
        return LUNA_MERGE_END;
    *source = merge->loading = merge->heap[0];
    leave_row(&merge->sources[*source]);
    return LUNA_MERGE_ROW;
}
