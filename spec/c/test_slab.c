/* The slab: blocks keep what is written to them, do not overlap, and are used again. */
#include "slab.h"
#include "test.h"

#define MB ((size_t)1 << 20)

static void test_blocks(void)
{
    luna_slab *slab = luna_slab_new(16 * MB);
    char *a = luna_slab_take(slab, 1), *b = luna_slab_take(slab, 16), *c = luna_slab_take(slab, 17);
    CHECK(a != NULL && b != NULL && c != NULL);
    CHECK(((uintptr_t)a & 15) == 0 && ((uintptr_t)b & 15) == 0 && ((uintptr_t)c & 15) == 0);
    CHECK(b >= a + 16 || a >= b + 16);
    CHECK(luna_slab_owns(slab, a) && luna_slab_owns(slab, c));
    CHECK(!luna_slab_owns(slab, slab) && !luna_slab_owns(slab, &slab) &&
          !luna_slab_owns(slab, NULL));
    luna_slab_give(slab, a);
    CHECK(luna_slab_take(slab, 9) == a); /* the one freed last comes first */
    luna_slab_free(slab);
}

static void test_same(void)
{
    CHECK(luna_slab_same(1, 16) && luna_slab_same(17, 32) && !luna_slab_same(16, 17));
    CHECK(luna_slab_same(LUNA_SLAB_MAX - 15, LUNA_SLAB_MAX));
}

static void test_end_of_range(void)
{
    luna_slab *slab = luna_slab_new(MB);
    size_t n = 0;
    void *last = NULL;
    for (void *block; (block = luna_slab_take(slab, LUNA_SLAB_MAX)) != NULL; n++)
        last = block;
    CHECK_INT(MB / LUNA_SLAB_MAX, n);
    CHECK(luna_slab_take(slab, 16) == NULL);
    luna_slab_give(slab, last);
    CHECK(luna_slab_take(slab, LUNA_SLAB_MAX) == last);
    luna_slab_free(slab);
}

/* Chunks emptied of one size serve another, and few of them keep their memory. */
static void test_empty_chunks(void)
{
    enum { N = 400 * 64 };
    static void *blocks[N];
    luna_slab *slab = luna_slab_new(32 * MB);
    size_t used, empty;
    for (size_t size = LUNA_SLAB_MAX; size > LUNA_SLAB_MAX / 2; size /= 2) {
        for (int i = 0; i < N; i++)
            memset(blocks[i] = luna_slab_take(slab, size), 'x', size);
        luna_slab_chunks(slab, &used, &empty);
        CHECK_INT(400, used);
        for (int i = 0; i < N; i++)
            luna_slab_give(slab, blocks[i]);
        luna_slab_chunks(slab, &used, &empty);
        CHECK_INT(1, used); /* the last of its size stays */
        CHECK_INT(64, empty);
    }
    size_t n = 0;
    while (luna_slab_take(slab, 512) != NULL)
        n++;
    CHECK_INT((32 * MB - 65536) / 512, n); /* all but that one */
    luna_slab_free(slab);
}

typedef struct block {
    unsigned char *at;
    size_t n;
    unsigned char mark;
} block;

static int is_whole(const block *one)
{
    for (size_t i = 0; i < one->n; i++)
        if (one->at[i] != one->mark)
            return 0;
    return 1;
}

/* Any order of taking and giving: what is in a block is its owner's alone. */
static void test_any_order(void)
{
    enum { N = 5000 };
    static block blocks[N];
    uint64_t seed = test_seed();
    luna_slab *slab = luna_slab_new(64 * MB);
    int spoilt = 0, missing = 0;
    for (int step = 0; step < 400000; step++) {
        /* in waves, so that chunks fill and empty */
        block *one = &blocks[test_random(&seed) % (step / 50000 % 2 ? N / 50 : N)];
        if (one->at != NULL) {
            spoilt += !is_whole(one);
            luna_slab_give(slab, one->at);
            one->at = NULL;
            continue;
        }
        one->n = 1 + test_random(&seed) % (step / 100000 % 2 ? LUNA_SLAB_MAX : 64);
        one->at = luna_slab_take(slab, one->n);
        one->mark = (unsigned char)test_random(&seed);
        if (one->at == NULL) {
            missing++;
            continue;
        }
        memset(one->at, one->mark, one->n);
    }
    for (int i = 0; i < N; i++) {
        if (blocks[i].at == NULL)
            continue;
        spoilt += !is_whole(&blocks[i]);
        luna_slab_give(slab, blocks[i].at);
    }
    CHECK_INT(0, spoilt);
    CHECK_INT(0, missing);
    size_t used, empty;
    luna_slab_chunks(slab, &used, &empty);
    CHECK(used <= LUNA_SLAB_MAX / 16); /* one of each size at the most */
    luna_slab_free(slab);
}

int main(void)
{
    test_blocks();
    test_same();
    test_end_of_range();
    test_empty_chunks();
    test_any_order();
    return test_report();
}
