/* merge.h - k sorted sources of rows as one.  Layer: base.
 *
 * A heap holds the next row of every source; a row is decoded once into keys and
 * stays where it was received.  Nothing here waits: when a source has no whole
 * row left, the merge says which, and goes on when it has been given more, or
 * was told that there are none. */
#ifndef LUNA_BASE_MERGE_H
#define LUNA_BASE_MERGE_H

#include "rows.h"
#include "sort_key.h"

typedef struct luna_merge_item {
    luna_sort_family family; /* of every source */
    bool desc, nulls_first;
} luna_merge_item;

typedef struct luna_merge_source {
    luna_rows *rows;    /* the caller's */
    int *columns;       /* for each item, the column that holds it */
    luna_field *fields; /* the row at the head of this source */
    luna_sort_key *keys, *last;
    luna_buf kept; /* bytes of `last`, after its row has gone */
    uint64_t row_number;
    bool ended;
} luna_merge_source;

typedef struct luna_merge {
    luna_merge_item *items;
    luna_merge_source *sources;
    int *heap; /* sources by their head rows; the first is the next to give */
    int n_items, n_sources, n_heap;
    int loading; /* the source whose next row is wanted before anything else; -1: none */
    bool started;
    int misfit; /* LUNA_MERGE_MISFIT: the item */
} luna_merge;

typedef enum luna_merge_outcome {
    LUNA_MERGE_ROW,       /* the next row is sources[source].fields, until the next call */
    LUNA_MERGE_WANTS,     /* compact and refill sources[source].rows, or say `ended` */
    LUNA_MERGE_END,       /* all have ended */
    LUNA_MERGE_UNSORTED,  /* a row of this source comes before the row above it */
    LUNA_MERGE_MISFIT,    /* a value of this source is not one of its item's family */
    LUNA_MERGE_MALFORMED, /* what was received from this source makes no sense */
} luna_merge_outcome;

/* For sources whose `rows` and `columns` the caller sets then; zero-initialised
 * otherwise.  The columns of all rows must be known before the first step. */
void luna_merge_init(luna_merge *merge, int n_items, int n_sources);
void luna_merge_deinit(luna_merge *merge);

/* Room for the fields of a source whose columns are known now. */
void luna_merge_describe(luna_merge *merge, int source);

/* One step; after UNSORTED, MISFIT and MALFORMED there are no more. */
luna_merge_outcome luna_merge_next(luna_merge *merge, int *source);
#endif
