#include "statements.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

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

/* Texts are known by their address; Fibonacci hashing, Knuth vol. 3, 6.4. */
static luna_statement **slot_of(const luna_statements *cache, const luna_text *text)
{
    uint64_t hash = (uint64_t)(uintptr_t)text * UINT64_C(0x9e3779b97f4a7c15);
    return &cache->slots[(hash >> 32) & (cache->n_slots - 1)];
}

luna_statement *luna_statements_find(luna_statements *cache, const luna_text *text)
{
    for (luna_statement *st = *slot_of(cache, text); st != NULL; st = st->chain) {
        if (st->text == text) {
            luna_list_del(&st->recent);
            luna_list_push(&cache->recent, &st->recent);
            return st;
        }
    }
    return NULL;
}

luna_statement *luna_statements_add(luna_statements *cache, luna_text *text)
{
    luna_statement *st = calloc(1, sizeof(*st));
    if (st == NULL)
        abort();
    st->text = luna_text_ref(text);
    snprintf(st->name, sizeof(st->name), "luna%u", ++cache->next_id);
    luna_statement **slot = slot_of(cache, text);
    st->chain = *slot;
    *slot = st;
    luna_list_push(&cache->recent, &st->recent);
    cache->count++;
    return st;
}

bool luna_statements_are_full(const luna_statements *cache)
{
    return cache->count >= cache->max;
}

luna_statement *luna_statements_oldest(const luna_statements *cache)
{
    for (luna_list *it = cache->recent.next; it != &cache->recent; it = it->next) {
        luna_statement *st = LUNA_CONTAINER(it, luna_statement, recent);
        if (st->users == 0)
            return st;
    }
    return NULL;
}

static void statement_free_if_unused(luna_statement *st)
{
    if (!st->forgotten || st->users > 0)
        return;
    luna_text_unref(st->text);
    luna_columns_unref(st->columns);
    free(st);
}

void luna_statements_remove(luna_statements *cache, luna_statement *statement)
{
    if (statement->forgotten)
        return;
    luna_statement **at = slot_of(cache, statement->text);
    while (*at != statement)
        at = &(*at)->chain;
    *at = statement->chain;
    luna_list_del(&statement->recent);
    cache->count--;
    statement->forgotten = true;
    statement_free_if_unused(statement);
}

void luna_statements_clear(luna_statements *cache)
{
    LUNA_LIST_EACH (&cache->recent, it)
        luna_statements_remove(cache, LUNA_CONTAINER(it, luna_statement, recent));
}

void luna_statement_release(luna_statement *statement)
{
    if (statement == NULL)
        return;
    statement->users--;
    statement_free_if_unused(statement);
}
