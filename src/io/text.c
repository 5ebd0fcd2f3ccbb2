#include "text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static bool has_word(const char *sql, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = sql; (p = strcasestr(p, word)) != NULL; p += len)
        if ((p == sql || !is_word_char(p[-1])) && !is_word_char(p[len]))
            return true;
    return false;
}

/* What stays with the session and cannot be told from a command tag.  Too much
 * costs a reset of the session, too little would leak it to the next user. */
static bool text_changes_state(const char *sql)
{
    return strcasestr(sql, "set_config") != NULL || strcasestr(sql, "advisory") != NULL ||
           has_word(sql, "temp") || has_word(sql, "temporary") || has_word(sql, "pg_temp") ||
           has_word(sql, "hold");
}

luna_text *luna_text_new(const char *sql, size_t len)
{
    luna_text *text = calloc(1, sizeof(*text));
    if (text == NULL || (text->sql = malloc(len + 1)) == NULL)
        abort();
    memcpy(text->sql, sql, len);
    text->sql[len] = '\0';
    text->refs = 1;
    text->changes_state = text_changes_state(text->sql);
    return text;
}

luna_text *luna_text_ref(luna_text *text)
{
    text->refs++;
    return text;
}

void luna_text_unref(luna_text *text)
{
    if (text == NULL || --text->refs > 0)
        return;
    luna_columns_unref(text->columns);
    free(text->sql);
    free(text);
}
