/* Ids: the bits are where the contract says, order and uniqueness survive a clock that misbehaves.
 */
#include "id.h"
#include "test.h"

static const int64_t EPOCH = INT64_C(1704067200000);
static luna_err err;

static luna_id_generator make(luna_id_options options)
{
    luna_id_generator gen;
    CHECK_INT(LUNA_OK, luna_id_init(&gen, &options, &err));
    return gen;
}

static int64_t next_id(luna_id_generator *gen, int64_t now_ms)
{
    int64_t id = -1;
    luna_status st = luna_id_next(gen, now_ms, &id, &err);
    return st == LUNA_OK ? id : -1;
}

static void golden_bits(void)
{
    /* Instagram's own example: 1387263000 s after its epoch, shard 1341, 5001st id. */
    luna_id_generator gen = make((luna_id_options){ .epoch_ms = 0, .shard = 1341 });
    CHECK_INT((INT64_C(1387263000) << 23) | (INT64_C(1341) << 10), next_id(&gen, 1387263000));

    gen = make((luna_id_options){ .epoch_ms = EPOCH, .shard = 5, .worker = 3, .worker_bits = 2 });
    int64_t id = next_id(&gen, EPOCH + 1000);
    CHECK_INT((INT64_C(1000) << 23) | (5 << 10) | (3 << 8), id);
    CHECK_INT(id + 1, next_id(&gen, EPOCH + 1000));

    gen = make((luna_id_options){ .layout = LUNA_ID_53, .epoch_ms = EPOCH, .shard = 127 });
    CHECK_INT((INT64_C(1000) << 13) | (127 << 6), next_id(&gen, EPOCH + 1000));
}

static void decode_inverts(uint64_t *random)
{
    int wrong = 0;
    for (int i = 0; i < 10000; i++) {
        luna_id_options options = { .layout = i % 2 ? LUNA_ID_64 : LUNA_ID_53, .epoch_ms = EPOCH };
        options.worker_bits = (uint32_t)(test_random(random) % (i % 2 ? 10 : 6));
        options.worker = (uint32_t)(test_random(random) % (UINT64_C(1) << options.worker_bits));
        options.shard = (uint32_t)(test_random(random) % (i % 2 ? 8192 : 128));
        luna_id_generator gen;
        if (luna_id_init(&gen, &options, &err) != LUNA_OK) {
            wrong++;
            continue;
        }
        int64_t now = EPOCH + (int64_t)(test_random(random) >> 24); /* 40 bits */
        int64_t first = next_id(&gen, now), second = next_id(&gen, now);
        luna_id_parts parts = luna_id_decode(&options, first);
        wrong += parts.time_ms != now || parts.shard != options.shard ||
                 parts.worker != options.worker || parts.sequence != 0;
        wrong += second <= first && now < EPOCH + (INT64_C(1) << 40) - 1;
        wrong += first < 0 || (options.layout == LUNA_ID_53 && first >= INT64_C(1) << 53);
    }
    CHECK_INT(0, wrong);
}

/* Whatever the clock does, ids only grow. */
static void always_ascending(uint64_t *random, luna_id_layout layout, uint32_t worker_bits)
{
    luna_id_generator gen =
        make((luna_id_options){ .layout = layout, .epoch_ms = EPOCH, .worker_bits = worker_bits });
    int64_t now = EPOCH + 1000000, last = -1;
    int wrong = 0;
    for (int i = 0; i < 200000; i++) {
        uint64_t dice = test_random(random) % 1000;
        if (dice == 0)
            now -= (int64_t)(test_random(random) % 5000); /* the clock is set back */
        else if (dice < 20)
            now += 1;
        int64_t id = next_id(&gen, now);
        wrong += id <= last;
        last = id;
    }
    CHECK_INT(0, wrong);
}

static void overflow_borrows_from_the_next_ms(void)
{
    luna_id_options options = { .epoch_ms = EPOCH };
    luna_id_generator gen = make(options);
    int64_t id = 0;
    for (int i = 0; i < 1024; i++)
        id = next_id(&gen, EPOCH + 7);
    CHECK_INT(1023, luna_id_decode(&options, id).sequence);
    CHECK_INT(EPOCH + 7, luna_id_decode(&options, id).time_ms);
    id = next_id(&gen, EPOCH + 7);
    CHECK_INT(0, luna_id_decode(&options, id).sequence);
    CHECK_INT(EPOCH + 8, luna_id_decode(&options, id).time_ms);
    id = next_id(&gen, EPOCH + 8); /* the clock catches up: the borrowed ids are not made again */
    CHECK_INT(1, luna_id_decode(&options, id).sequence);
}

static void workers_never_collide(void)
{
    luna_id_generator a =
        make((luna_id_options){ .epoch_ms = EPOCH, .worker = 0, .worker_bits = 1 });
    luna_id_generator b =
        make((luna_id_options){ .epoch_ms = EPOCH, .worker = 1, .worker_bits = 1 });
    static unsigned char seen[1 << 23];
    int wrong = 0;
    for (int i = 0; i < 3000; i++) { /* six times what one ms holds for a worker */
        int64_t x = next_id(&a, EPOCH), y = next_id(&b, EPOCH);
        wrong += seen[x % (1 << 23) + (x >> 23) * 1024]++ != 0;
        wrong += seen[y % (1 << 23) + (y >> 23) * 1024]++ != 0;
    }
    CHECK_INT(0, wrong);
}

static void advance_skips_what_was_used(void)
{
    luna_id_options options = { .epoch_ms = EPOCH, .shard = 9 };
    luna_id_generator before = make(options), after = make(options);
    int64_t last = 0;
    for (int i = 0; i < 10; i++)
        last = next_id(&before, EPOCH + 5000);
    luna_id_advance(&after, last);
    CHECK(next_id(&after, EPOCH + 100) > last); /* the clock went back over the restart */
    CHECK_INT(EPOCH + 9000, luna_id_decode(&options, next_id(&after, EPOCH + 9000)).time_ms);
}

static void refusals(void)
{
    luna_id_generator gen;
    luna_id_options options = { .epoch_ms = EPOCH, .shard = 8192 };
    CHECK_INT(LUNA_EINVAL, luna_id_init(&gen, &options, &err));
    CHECK_STR("shard is 8192: must be 0 to 8191", err.msg);
    options = (luna_id_options){ .layout = LUNA_ID_53, .shard = 128 };
    CHECK_INT(LUNA_EINVAL, luna_id_init(&gen, &options, &err));
    options = (luna_id_options){ .worker_bits = 10 };
    CHECK_INT(LUNA_EINVAL, luna_id_init(&gen, &options, &err));
    options = (luna_id_options){ .worker = 4, .worker_bits = 2 };
    CHECK_INT(LUNA_EINVAL, luna_id_init(&gen, &options, &err));
    CHECK_STR("worker is 4: must be 0 to 3 with 2 worker_bits", err.msg);

    gen = make((luna_id_options){ .epoch_ms = EPOCH });
    CHECK_INT(-1, next_id(&gen, EPOCH - 1));
    CHECK_INT(-1, next_id(&gen, EPOCH + (INT64_C(1) << 40)));
    CHECK_INT(-1, next_id(&gen, INT64_MIN));
    CHECK_INT(0, next_id(&gen, EPOCH)); /* a refused time changed nothing */
    int64_t latest = next_id(&gen, EPOCH + (INT64_C(1) << 40) - 1);
    CHECK_INT(((INT64_C(1) << 40) - 1) << 23, latest);
}

int main(void)
{
    uint64_t random = test_seed();
    golden_bits();
    decode_inverts(&random);
    always_ascending(&random, LUNA_ID_64, 0);
    always_ascending(&random, LUNA_ID_53, 0);
    always_ascending(&random, LUNA_ID_64, 9);
    overflow_borrows_from_the_next_ms();
    workers_never_collide();
    advance_skips_what_was_used();
    refusals();
    return test_report();
}
