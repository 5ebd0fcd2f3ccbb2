#include "statements.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hash.h"

void luna_statements_init(luna_statements *cache, unsigned max)
{
    *cache = (luna_statements){ .max = max, .n_slots = 16 };
    while (cache->n_slots < max)
        cache->n_slots *= 2;
    cache->slots = calloc(cache->n_slots, sizeof(luna_statement *));
    if (cache->slots == NULL)
        abort();
    luna_list_init(&cache->recent);
}

void luna_statements_deinit(luna_statements *cache)
{
    luna_statements_clear(cache);
    free(cache->slots);
}

static uint64_t hash_text(const char *sql)
{
    return luna_hash_bytes(sql, strlen(sql), 0);
}

static luna_statement **slot_of(const luna_statements *cache, uint64_t hash)
{
    return &cache->slots[hash & (cache->n_slots - 1)];
}

luna_statement *luna_statements_find(luna_statements *cache, const char *sql)
{
    uint64_t hash = hash_text(sql);
    for (luna_statement *st = *slot_of(cache, hash); st != NULL; st = st->chain) {
        if (st->hash == hash && strcmp(st->sql, sql) == 0) {
            luna_list_del(&st->recent);
            luna_list_push(&cache->recent, &st->recent);
            return st;
        }
    }
    return NULL;
}

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

luna_statement *luna_statements_add(luna_statements *cache, const char *sql)
{
    luna_statement *st = calloc(1, sizeof(*st));
    if (st == NULL || (st->sql = strdup(sql)) == NULL)
        abort();
    st->hash = hash_text(sql);
    st->id = ++cache->next_id;
    st->changes_state = text_changes_state(sql);
    luna_statement **slot = slot_of(cache, st->hash);
    st->chain = *slot;
    *slot = st;
    luna_list_push(&cache->recent, &st->recent);
    cache->count++;
    return st;
}

luna_statement *luna_statements_oldest_if_full(luna_statements *cache)
{
    if (cache->count < cache->max || luna_list_empty(&cache->recent))
        return NULL;
    return LUNA_CONTAINER(cache->recent.next, luna_statement, recent);
}

void luna_statements_remove(luna_statements *cache, luna_statement *statement)
{
    luna_statement **at = slot_of(cache, statement->hash);
    while (*at != statement)
        at = &(*at)->chain;
    *at = statement->chain;
    luna_list_del(&statement->recent);
    cache->count--;
    free(statement->sql);
    free(statement);
}

void luna_statements_clear(luna_statements *cache)
{
    LUNA_LIST_EACH (&cache->recent, it)
        luna_statements_remove(cache, LUNA_CONTAINER(it, luna_statement, recent));
}
