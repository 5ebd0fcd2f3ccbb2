/* Which row was sent as the n-th: right for as long as it is remembered, and never wrong. */
#include "row_log.h"
#include "test.h"

static void test_few(void)
{
    luna_row_log log = { 0 };
    CHECK_INT(0, luna_row_log_find(&log, 1));
    luna_row_log_add(&log, 3);
    luna_row_log_add(&log, 4);
    luna_row_log_add(&log, 90);
    CHECK_INT(3, luna_row_log_find(&log, 1));
    CHECK_INT(4, luna_row_log_find(&log, 2));
    CHECK_INT(90, luna_row_log_find(&log, 3));
    CHECK_INT(0, luna_row_log_find(&log, 0));
    CHECK_INT(0, luna_row_log_find(&log, 4));
    luna_row_log_deinit(&log);
}

static void test_lost(void)
{
    luna_row_log log = { 0 };
    luna_row_log_add(&log, 1);
    luna_row_log_add(&log, 2);
    luna_row_log_lose(&log);
    luna_row_log_add(&log, 3);
    CHECK_INT(1, luna_row_log_find(&log, 1));
    CHECK_INT(0, luna_row_log_find(&log, 2));
    CHECK_INT(0, luna_row_log_find(&log, 3));
    luna_row_log_deinit(&log);
    log = (luna_row_log){ 0 };
    luna_row_log_add(&log, 1);
    luna_row_log_add(&log, UINT64_C(1) << 33); /* too far for a step */
    CHECK_INT(1, luna_row_log_find(&log, 1));
    CHECK_INT(0, luna_row_log_find(&log, 2));
    luna_row_log_deinit(&log);
}

static void test_many(uint64_t *seed)
{
    enum { N = 3000000 };
    luna_row_log log = { 0 };
    static uint32_t rows[N + 1];
    for (uint32_t n = 1; n <= N; n++) {
        rows[n] = rows[n - 1] + 1 + (uint32_t)(test_random(seed) % 5);
        luna_row_log_add(&log, rows[n]);
    }
    CHECK(log.steps.cap <= (size_t)16 << 20);
    for (uint64_t n = N - 500000; n <= N; n += 4999)
        CHECK_INT(rows[n], luna_row_log_find(&log, n));
    CHECK_INT(rows[N], luna_row_log_find(&log, N));
    int wrong = 0;
    for (uint64_t n = 1; n <= N; n += 99991) {
        uint64_t found = luna_row_log_find(&log, n);
        wrong += found != 0 && found != rows[n];
    }
    CHECK_INT(0, wrong);
    luna_row_log_deinit(&log);
}

int main(void)
{
    uint64_t seed = test_seed();
    test_few();
    test_lost();
    test_many(&seed);
    return test_report();
}
