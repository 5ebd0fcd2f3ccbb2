/* list.h - intrusive doubly linked list.  Layer: base.
 *
 * A list head and its members are the same type; an initialised node that is
 * in no list points to itself, so that luna_list_del may be called twice. */
#ifndef LUNA_BASE_LIST_H
#define LUNA_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct luna_list {
    struct luna_list *prev, *next;
} luna_list;

#define LUNA_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Visit members while the current one may be removed. */
#define LUNA_LIST_EACH(head, it)                                                                   \
    for (luna_list *it = (head)->next, *it##_next = it->next; it != (head);                        \
         it = it##_next, it##_next = it->next)

static inline void luna_list_init(luna_list *l)
{
    l->prev = l->next = l;
}

static inline bool luna_list_empty(const luna_list *l)
{
    return l->next == l;
}

static inline void luna_list_del(luna_list *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    luna_list_init(l);
}

/* Append (push) or prepend (unshift) `l`, which must be in no list. */
static inline void luna_list_push(luna_list *head, luna_list *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

static inline void luna_list_unshift(luna_list *head, luna_list *l)
{
    luna_list_push(head->next, l);
}

/* Move all members of `from` to the empty list `to`, keeping their order. */
static inline void luna_list_take(luna_list *to, luna_list *from)
{
    if (luna_list_empty(from)) {
        luna_list_init(to);
        return;
    }
    *to = *from;
    to->prev->next = to->next->prev = to;
    luna_list_init(from);
}
#endif
