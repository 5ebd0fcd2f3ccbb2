#include "columns.h"

#include <stdlib.h>
#include <string.h>

#include "message.h"

luna_columns *luna_columns_new(int n)
{
    luna_columns *columns = calloc(1, sizeof(*columns) + (size_t)n * sizeof(columns->at[0]));
    if (columns == NULL)
        abort();
    columns->refs = 1;
    columns->n = n;
    return columns;
}

void luna_columns_set(luna_columns *columns, int i, const char *name, uint32_t type)
{
    columns->at[i] = (luna_column){ .name = strdup(name), .type = type };
    if (columns->at[i].name == NULL)
        abort();
}

luna_columns *luna_columns_read(const char *body, size_t len)
{
    const char *p = body + 2, *end = body + len;
    if (len < 2)
        return NULL;
    luna_columns *columns = luna_columns_new((int)luna_get16(body));
    for (int c = 0; c < columns->n; c++) {
        uint32_t type;
        const char *name = p;
        if ((p = luna_message_column(p, end, &type)) == NULL) {
            luna_columns_unref(columns);
            return NULL;
        }
        luna_columns_set(columns, c, name, type);
    }
    return columns;
}

bool luna_columns_equal(const luna_columns *a, const luna_columns *b)
{
    if (a->n != b->n)
        return false;
    for (int c = 0; c < a->n; c++)
        if (a->at[c].type != b->at[c].type || strcmp(a->at[c].name, b->at[c].name) != 0)
            return false;
    return true;
}

luna_columns *luna_columns_ref(luna_columns *columns)
{
    columns->refs++;
    return columns;
}

void luna_columns_unref(luna_columns *columns)
{
    if (columns == NULL || --columns->refs > 0)
        return;
    for (int c = 0; c < columns->n; c++)
        free(columns->at[c].name);
    free(columns);
}
