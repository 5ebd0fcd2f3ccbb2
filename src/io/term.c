#include "term.h"

#include <stdlib.h>

luna_term *luna_term_new(void)
{
    luna_term *term = calloc(1, sizeof(*term));
    if (term == NULL)
        abort();
    term->refs = 1;
    return term;
}

luna_term *luna_term_ref(luna_term *term)
{
    term->refs++;
    return term;
}

void luna_term_unref(luna_term *term)
{
    if (term != NULL && --term->refs == 0)
        free(term);
}
