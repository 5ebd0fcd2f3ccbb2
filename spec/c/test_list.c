/* Intrusive lists: order, removal while visiting, taking a whole list. */
#include "list.h"
#include "test.h"

typedef struct item {
    int id;
    luna_list link;
} item;

/* The ids in order, as a decimal number. */
static int forward(const luna_list *head)
{
    int digits = 0;
    for (const luna_list *l = head->next; l != head; l = l->next)
        digits = digits * 10 + LUNA_CONTAINER(l, item, link)->id;
    return digits;
}

static int backward(const luna_list *head)
{
    int digits = 0;
    for (const luna_list *l = head->prev; l != head; l = l->prev)
        digits = digits * 10 + LUNA_CONTAINER(l, item, link)->id;
    return digits;
}

static void test_order(void)
{
    luna_list head;
    item a = { .id = 1 }, b = { .id = 2 }, c = { .id = 3 };
    luna_list_init(&head);
    CHECK(luna_list_empty(&head));
    luna_list_push(&head, &a.link);
    luna_list_push(&head, &b.link);
    luna_list_unshift(&head, &c.link);
    CHECK(!luna_list_empty(&head));
    CHECK_INT(312, forward(&head));
    CHECK_INT(213, backward(&head));

    luna_list_del(&a.link);
    CHECK_INT(32, forward(&head));
    CHECK_INT(23, backward(&head));
    luna_list_del(&a.link); /* once more does no harm to the others */
    CHECK_INT(32, forward(&head));
    CHECK(luna_list_empty(&a.link));
    luna_list_del(&b.link);
    luna_list_del(&c.link);
    CHECK(luna_list_empty(&head));
}

static void test_removal_while_visiting(void)
{
    luna_list head;
    item items[9];
    luna_list_init(&head);
    for (int i = 0; i < 9; i++) {
        items[i].id = i + 1;
        luna_list_push(&head, &items[i].link);
    }
    int seen = 0;
    LUNA_LIST_EACH (&head, it) {
        seen++;
        if (LUNA_CONTAINER(it, item, link)->id % 2 == 0)
            luna_list_del(it);
    }
    CHECK_INT(9, seen);
    CHECK_INT(13579, forward(&head));
    LUNA_LIST_EACH (&head, it) {
        luna_list_del(it);
    }
    CHECK(luna_list_empty(&head));
}

static void test_take(void)
{
    luna_list from, to;
    item a = { .id = 1 }, b = { .id = 2 };
    luna_list_init(&from);
    luna_list_take(&to, &from); /* empty; `to` need not be initialised */
    CHECK(luna_list_empty(&to) && luna_list_empty(&from));

    luna_list_push(&from, &a.link);
    luna_list_take(&to, &from);
    CHECK(luna_list_empty(&from));
    CHECK_INT(1, forward(&to));
    CHECK_INT(1, backward(&to));

    luna_list_push(&to, &b.link);
    luna_list_take(&from, &to);
    CHECK(luna_list_empty(&to));
    CHECK_INT(12, forward(&from));
    CHECK_INT(21, backward(&from));
    luna_list_del(&b.link); /* members know their new head */
    luna_list_del(&a.link);
    CHECK(luna_list_empty(&from));
}

/* Against an array as the oracle: 20,000 random operations. */
static void test_random_operations(void)
{
    uint64_t seed = test_seed();
    luna_list head;
    item items[8];
    int order[8], n = 0, wrong = 0;
    luna_list_init(&head);
    for (int i = 0; i < 8; i++) {
        items[i].id = i + 1;
        luna_list_init(&items[i].link);
    }
    for (int step = 0; step < 20000; step++) {
        int id = (int)(test_random(&seed) % 8) + 1, at = 0;
        while (at < n && order[at] != id)
            at++;
        if (at < n) {
            luna_list_del(&items[id - 1].link);
            memmove(order + at, order + at + 1, (size_t)(n - at - 1) * sizeof(*order));
            n--;
        } else if (test_random(&seed) % 2) {
            luna_list_push(&head, &items[id - 1].link);
            order[n++] = id;
        } else {
            luna_list_unshift(&head, &items[id - 1].link);
            memmove(order + 1, order, (size_t)n * sizeof(*order));
            order[0] = id;
            n++;
        }
        int ahead = 0, behind = 0;
        for (int i = 0; i < n; i++) {
            ahead = ahead * 10 + order[i];
            behind = behind * 10 + order[n - 1 - i];
        }
        wrong += forward(&head) != ahead || backward(&head) != behind;
    }
    CHECK_INT(0, wrong);
}

int main(void)
{
    test_order();
    test_removal_while_visiting();
    test_take();
    test_random_operations();
    return test_report();
}
