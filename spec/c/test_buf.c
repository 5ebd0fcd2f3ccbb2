/* Buffers and error values: what is appended is kept, whatever the growth. */
#include "buf.h"
#include "test.h"

static void test_empty(void)
{
    luna_buf buf = { 0 };
    luna_buf_add(&buf, NULL, 0);
    CHECK(buf.len == 0 && buf.data == NULL);
    luna_buf_deinit(&buf);
    luna_buf_deinit(&buf); /* leaves a valid empty buffer */
    CHECK(buf.len == 0 && buf.cap == 0);
}

static void test_append(void)
{
    luna_buf buf = { 0 };
    luna_buf_add(&buf, "a\0b", 3);
    luna_buf_add_str(&buf, "cd");
    luna_buf_add_char(&buf, '\0');
    luna_buf_addf(&buf, "%s=%d", "n", 42);
    CHECK_INT(10, buf.len);
    CHECK(memcmp(buf.data, "a\0bcd\0n=42", 10) == 0);
    size_t cap = buf.cap;
    luna_buf_clear(&buf);
    CHECK(buf.len == 0 && buf.cap == cap);
    luna_buf_addf(&buf, "%s", "");
    CHECK_INT(0, buf.len);
    luna_buf_deinit(&buf);
}

static void test_reserve(void)
{
    luna_buf buf = { 0 };
    luna_buf_add_str(&buf, "head");
    char *at = luna_buf_reserve(&buf, 100000);
    CHECK(at == buf.data + 4);
    CHECK_INT(4, buf.len); /* room is not content */
    CHECK(buf.cap - buf.len >= 100000);
    memset(at, 'x', 100000);
    CHECK(memcmp(buf.data, "headx", 5) == 0);
    luna_buf_deinit(&buf);
}

static void test_long_format(void)
{
    luna_buf buf = { 0 };
    for (int n = 0; n < 300; n++) { /* every length around the growth steps */
        luna_buf_clear(&buf);
        luna_buf_addf(&buf, "%0*d", n + 1, 7);
        if (buf.len != (size_t)n + 1 || buf.data[n] != '7')
            CHECK_INT(n + 1, buf.len);
    }
    luna_buf_deinit(&buf);
}

static void test_random_appends(void)
{
    uint64_t seed = test_seed();
    static char oracle[1 << 20];
    size_t len = 0;
    luna_buf buf = { 0 };
    while (len < sizeof(oracle) - 5000) {
        size_t n = test_random(&seed) % (test_random(&seed) % 50 == 0 ? 5000 : 20);
        for (size_t i = 0; i < n; i++)
            oracle[len + i] = (char)test_random(&seed);
        luna_buf_add(&buf, oracle + len, n);
        len += n;
        if (buf.len != len || buf.cap < buf.len)
            CHECK_INT(len, buf.len);
    }
    CHECK(memcmp(buf.data, oracle, len) == 0);
    luna_buf_deinit(&buf);
}

static void test_errors(void)
{
    luna_err err = { .sqlstate = "42P01" };
    CHECK_INT(LUNA_EDOWN, luna_err_set(&err, LUNA_EDOWN, "host %s, port %d", "h", 5432));
    CHECK_INT(LUNA_EDOWN, err.code);
    CHECK_STR("host h, port 5432", err.msg);
    CHECK_STR("", err.sqlstate); /* an older server error does not stick */
    CHECK_INT(LUNA_EINVAL, luna_err_set(NULL, LUNA_EINVAL, "nobody listens"));

    char text[2000];
    memset(text, 'y', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    CHECK_INT(LUNA_EINVAL, luna_err_set(&err, LUNA_EINVAL, "%s", text));
    CHECK_INT(sizeof(err.msg) - 1, strlen(err.msg)); /* cut, and terminated */

    CHECK_STR("OK", luna_status_name(LUNA_OK));
    for (int code = LUNA_ECLOSED; code < LUNA_OK; code++)
        for (int other = LUNA_ECLOSED; other < code; other++)
            CHECK(strcmp(luna_status_name((luna_status)code),
                         luna_status_name((luna_status)other)) != 0);
    CHECK_STR("RESULT_TOO_LARGE", luna_status_name(LUNA_ETOOLARGE));
    CHECK_STR("POOL_EXHAUSTED", luna_status_name(LUNA_EPOOL));
}

int main(void)
{
    test_empty();
    test_append();
    test_reserve();
    test_long_format();
    test_random_appends();
    test_errors();
    return test_report();
}
