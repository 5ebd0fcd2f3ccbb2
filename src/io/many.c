#include "many.h"

#include <stdlib.h>
#include <string.h>

static void forget_answers(luna_many *many)
{
    for (int i = 0; i < luna_many_answered(many); i++)
        PQclear(luna_many_result(many, i));
    luna_buf_clear(&many->answers);
}

void luna_many_deinit(luna_many *many)
{
    forget_answers(many);
    luna_buf_deinit(&many->answers);
    luna_buf_deinit(&many->sets);
    *many = (luna_many){ 0 };
}

static void add_int(luna_buf *buf, int v)
{
    luna_buf_add(buf, &v, sizeof(v));
}

static int take_int(const char **at)
{
    int v;
    memcpy(&v, *at, sizeof(v));
    *at += sizeof(v);
    return v;
}

/* n, then for each parameter: length (-1 is NULL), format, bytes, NUL. */
void luna_many_add(luna_many *many, int n_params, const char *const *values, const int *lengths,
                   const int *formats)
{
    luna_buf *sets = &many->sets;
    add_int(sets, n_params);
    for (int i = 0; i < n_params; i++) {
        add_int(sets, values[i] != NULL ? lengths[i] : -1);
        add_int(sets, formats[i]);
        if (values[i] != NULL) {
            luna_buf_add(sets, values[i], (size_t)lengths[i]);
            luna_buf_add_char(sets, '\0');
        }
    }
    if (n_params > many->max_params)
        many->max_params = n_params;
    many->n_sets++;
}

bool luna_many_send(luna_many *many, PGconn *pg, const char *name, const char *sql)
{
    size_t max = (size_t)many->max_params + 1;
    const char **values = calloc(max, sizeof(*values));
    int *lengths = calloc(max, sizeof(*lengths)), *formats = calloc(max, sizeof(*formats));
    if (values == NULL || lengths == NULL || formats == NULL)
        abort();
    forget_answers(many);
    const char *at = many->sets.data;
    bool sent = true;
    for (int s = 0; s < many->n_sets && sent; s++) {
        int n = take_int(&at);
        for (int i = 0; i < n; i++) {
            lengths[i] = take_int(&at);
            formats[i] = take_int(&at);
            values[i] = lengths[i] < 0 ? NULL : at;
            at += lengths[i] + 1; /* a NULL has neither bytes nor NUL */
        }
        sent = name != NULL ? PQsendQueryPrepared(pg, name, n, values, lengths, formats, 0)
                            : PQsendQueryParams(pg, sql, n, NULL, values, lengths, formats, 0);
    }
    free(values);
    free(lengths);
    free(formats);
    return sent;
}

void luna_many_answer(luna_many *many, PGresult *res)
{
    luna_buf_add(&many->answers, &res, sizeof(res));
}

int luna_many_answered(const luna_many *many)
{
    return (int)(many->answers.len / sizeof(PGresult *));
}

PGresult *luna_many_result(const luna_many *many, int i)
{
    PGresult *res;
    memcpy(&res, many->answers.data + (size_t)i * sizeof(res), sizeof(res));
    return res;
}
