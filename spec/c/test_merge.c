/* The merge of sorted rows, in random pieces, against a stable sort of all of them. */
#include "merge.h"
#include "test.h"

enum { MAX_ROWS = 200, MAX_SOURCES = 9 };

typedef struct row {
    int number, source, sequence; /* number -1: NULL */
    char text[12];
} row;

static bool number_desc, nulls_first;

static int compare_rows(const void *left, const void *right)
{
    const row *a = left, *b = right;
    if (a->number != b->number) {
        if (a->number < 0 || b->number < 0)
            return (b->number < 0 ? -1 : 1) * (nulls_first ? -1 : 1);
        return (a->number < b->number ? -1 : 1) * (number_desc ? -1 : 1);
    }
    int by = strcmp(a->text, b->text);
    if (by != 0)
        return by;
    return a->source != b->source ? a->source - b->source : a->sequence - b->sequence;
}

static void random_row(uint64_t *random, row *made, int source, int sequence)
{
    made->number = (int)(test_random(random) % 7) - 1;
    made->source = source;
    made->sequence = sequence;
    int len = (int)(test_random(random) % 3);
    for (int i = 0; i < len; i++)
        made->text[i] = (char)('a' + test_random(random) % 3);
    made->text[len] = '\0';
}

static void give(luna_rows *to, const row *from)
{
    char number[16], sequence[16];
    snprintf(number, sizeof(number), "%d", from->number);
    snprintf(sequence, sizeof(sequence), "%d", from->sequence);
    luna_rows_begin(to);
    luna_rows_field(to, sequence, (int)strlen(sequence));
    luna_rows_field(to, number, from->number < 0 ? -1 : (int)strlen(number));
    luna_rows_field(to, from->text, (int)strlen(from->text));
    luna_rows_end(to);
}

static void describe(luna_merge *merge, luna_rows *rows)
{
    merge->items[0] = (luna_merge_item){ LUNA_SORT_INTEGER, number_desc, nulls_first };
    merge->items[1] = (luna_merge_item){ LUNA_SORT_BYTES, false, false };
    for (int i = 0; i < merge->n_sources; i++) {
        luna_rows_column(&rows[i], "sequence", 23);
        luna_rows_column(&rows[i], "number", 23);
        luna_rows_column(&rows[i], "text", 25);
        merge->sources[i].rows = &rows[i];
        merge->sources[i].columns[0] = 1;
        merge->sources[i].columns[1] = 2;
        luna_merge_describe(merge, i);
    }
}

static void against_sort(uint64_t *random)
{
    static row all[MAX_SOURCES][MAX_ROWS], sorted[MAX_SOURCES * MAX_ROWS];
    luna_rows rows[MAX_SOURCES] = { 0 };
    int n[MAX_SOURCES], given[MAX_SOURCES] = { 0 }, total = 0, got = 0, source;
    int n_sources = 1 + (int)(test_random(random) % MAX_SOURCES);
    luna_merge merge;
    number_desc = test_random(random) % 2;
    nulls_first = test_random(random) % 2;
    for (int i = 0; i < n_sources; i++) {
        n[i] = test_random(random) % 4 == 0 ? 0 : (int)(test_random(random) % MAX_ROWS);
        for (int k = 0; k < n[i]; k++)
            random_row(random, &all[i][k], i, k);
        qsort(all[i], (size_t)n[i], sizeof(row), compare_rows);
        for (int k = 0; k < n[i]; k++) {
            all[i][k].sequence = k;
            sorted[total++] = all[i][k];
        }
    }
    qsort(sorted, (size_t)total, sizeof(row), compare_rows);
    luna_merge_init(&merge, 2, n_sources);
    describe(&merge, rows);
    for (;;) {
        luna_merge_outcome outcome = luna_merge_next(&merge, &source);
        if (outcome == LUNA_MERGE_END)
            break;
        if (outcome == LUNA_MERGE_WANTS) {
            int piece = 1 + (int)(test_random(random) % 20);
            luna_rows_compact(&rows[source]);
            if (test_random(random) % 2) /* memory that keys must not point to any more */
                luna_rows_drop(&rows[source]);
            merge.sources[source].ended = given[source] == n[source];
            while (piece-- > 0 && given[source] < n[source])
                give(&rows[source], &all[source][given[source]++]);
            continue;
        }
        CHECK_INT(LUNA_MERGE_ROW, outcome);
        if (outcome != LUNA_MERGE_ROW || got == total)
            break;
        char sequence[16] = "";
        memcpy(sequence, merge.sources[source].fields[0].text,
               (size_t)merge.sources[source].fields[0].len);
        CHECK_INT(sorted[got].source, source);
        CHECK_INT(sorted[got].sequence, atoi(sequence));
        got++;
    }
    CHECK_INT(total, got);
    CHECK_INT(LUNA_MERGE_END, luna_merge_next(&merge, &source));
    luna_merge_deinit(&merge);
    for (int i = 0; i < n_sources; i++)
        luna_rows_deinit(&rows[i]);
}

/* A row that comes too early is told from one that does not, also when the row above has gone. */
static void unsorted(bool gone, int second, luna_merge_outcome expected)
{
    luna_rows rows = { 0 };
    luna_merge merge;
    row first = { .number = 3, .text = "b" }, next = { .number = second, .text = "a" };
    int source;
    number_desc = false;
    nulls_first = false;
    luna_merge_init(&merge, 2, 1);
    describe(&merge, &rows);
    give(&rows, &first);
    if (!gone)
        give(&rows, &next);
    CHECK_INT(LUNA_MERGE_ROW, luna_merge_next(&merge, &source));
    if (gone) {
        CHECK_INT(LUNA_MERGE_WANTS, luna_merge_next(&merge, &source));
        luna_rows_drop(&rows);
        give(&rows, &next);
    }
    CHECK_INT(expected, luna_merge_next(&merge, &source));
    CHECK_INT(0, source);
    CHECK_INT(2, (int64_t)merge.sources[0].row_number);
    luna_merge_deinit(&merge);
    luna_rows_deinit(&rows);
}

static void misfit(void)
{
    luna_rows rows = { 0 };
    luna_merge merge;
    int source;
    luna_merge_init(&merge, 2, 1);
    describe(&merge, &rows);
    luna_rows_begin(&rows);
    luna_rows_field(&rows, "1", 1);
    luna_rows_field(&rows, "one", 3);
    luna_rows_field(&rows, "", 0);
    luna_rows_end(&rows);
    CHECK_INT(LUNA_MERGE_MISFIT, luna_merge_next(&merge, &source));
    CHECK_INT(0, merge.misfit);
    luna_merge_deinit(&merge);
    luna_rows_deinit(&rows);
}

int main(void)
{
    uint64_t random = test_seed();
    for (int i = 0; i < 400; i++)
        against_sort(&random);
    unsorted(false, 2, LUNA_MERGE_UNSORTED);
    unsorted(true, 2, LUNA_MERGE_UNSORTED);
    unsorted(true, 3, LUNA_MERGE_UNSORTED);
    unsorted(false, 4, LUNA_MERGE_ROW);
    unsorted(true, 4, LUNA_MERGE_ROW);
    unsorted(true, -1, LUNA_MERGE_ROW);
    misfit();
    return test_report();
}
