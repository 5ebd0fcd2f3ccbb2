/* Messages of the protocol: what is written is what the protocol says, and nonsense is told from
 * what is read. */
#include "columns.h"
#include "message.h"
#include "test.h"

static void check_bytes(const luna_buf *out, const char *expected, size_t n, int line)
{
    test_check(out->len == n && memcmp(out->data, expected, n) == 0, __FILE__, line, "the bytes");
}

#define CHECK_BYTES(out, literal) check_bytes((out), (literal), sizeof(literal) - 1, __LINE__)

static void written(void)
{
    luna_buf out = { 0 };
    const char *const values[] = { "42", NULL, "\0x" };
    const int lengths[] = { 2, -1, 2 }, text[] = { 0, 0, 0 }, mixed[] = { 0, 0, 1 };

    luna_message_parse(&out, "a1", "SELECT 1");
    CHECK_BYTES(&out, "P\0\0\0\22a1\0SELECT 1\0\0\0");
    luna_buf_clear(&out);
    luna_message_execute(&out, "a1", 0, NULL, NULL, NULL, false);
    CHECK_BYTES(&out, "B\0\0\0\16\0a1\0\0\0\0\0\0\0E\0\0\0\11\0\0\0\0\0");
    luna_buf_clear(&out);
    luna_message_execute(&out, "", 2, values, lengths, text, true);
    CHECK_BYTES(&out, "B\0\0\0\26\0\0\0\0\0\2\0\0\0\002"
                      "42\377\377\377\377\0\0"
                      "D\0\0\0\6P\0E\0\0\0\11\0\0\0\0\0");
    luna_buf_clear(&out);
    luna_message_execute(&out, "", 3, values, lengths, mixed, false);
    CHECK_BYTES(&out, "B\0\0\0\42\0\0\0\3\0\0\0\0\0\1\0\3\0\0\0\002"
                      "42\377\377\377\377\0\0\0\2\0x\0\0"
                      "E\0\0\0\11\0\0\0\0\0");
    luna_buf_clear(&out);
    luna_message_close(&out, "a1");
    luna_message_sync(&out);
    CHECK_BYTES(&out, "C\0\0\0\10Sa1\0S\0\0\0\4");
    luna_buf_deinit(&out);
}

static void framed(void)
{
    static const char bytes[] = "C\0\0\0\15SELECT 1\0Z";
    luna_message message;
    size_t size;
    for (size_t n = 0; n < 14; n++) {
        CHECK_INT(LUNA_MESSAGE_PART, luna_message_read(bytes, n, &message, &size));
        CHECK_INT(n < 5 ? 0 : 14, size);
    }
    CHECK_INT(LUNA_MESSAGE_WHOLE, luna_message_read(bytes, 15, &message, &size));
    CHECK_INT(14, size);
    CHECK_INT('C', message.type);
    CHECK_INT(9, message.len);
    CHECK_STR("SELECT 1", message.body);
    CHECK_INT(LUNA_MESSAGE_BROKEN, luna_message_read("Z\0\0\0\3", 5, &message, &size));
    CHECK_INT(LUNA_MESSAGE_BROKEN, luna_message_read("Z\377\0\0\3", 5, &message, &size));
    CHECK_INT(LUNA_MESSAGE_BROKEN, luna_message_read("Z\0\1\0\0", 5, &message, &size));
    CHECK_INT(LUNA_MESSAGE_PART, luna_message_read("D\0\1\0\0", 5, &message, &size));
    CHECK_INT(LUNA_MESSAGE_WHOLE, luna_message_read("I\0\0\0\4", 5, &message, &size));
    CHECK_INT(0, message.len);
}

static void errors(void)
{
    static const char body[] = "SERROR\0C42601\0Mwrong\0\0Cother\0";
    CHECK_STR("ERROR", luna_message_field(body, sizeof(body) - 1, 'S'));
    CHECK_STR("42601", luna_message_field(body, sizeof(body) - 1, 'C'));
    CHECK_STR("wrong", luna_message_field(body, sizeof(body) - 1, 'M'));
    CHECK(luna_message_field(body, sizeof(body) - 1, 'D') == NULL);
    CHECK(luna_message_field(body, 17, 'M') == NULL); /* it has no end */
    CHECK(luna_message_field(NULL, 0, 'M') == NULL);
}

static void columns_read(void)
{
    static const char body[] = "\0\2id\0\0\0\0\0\0\0\0\0\0\24\0\10\377\377\377\377\0\0"
                               "note\0\0\0\0\0\0\0\0\0\0\31\377\377\377\377\377\377\0\0";
    const size_t len = sizeof(body) - 1;
    luna_columns *columns = luna_columns_read(body, len), *same = luna_columns_read(body, len);
    CHECK_INT(2, columns->n);
    CHECK_STR("id", columns->at[0].name);
    CHECK_INT(20, columns->at[0].type);
    CHECK_STR("note", columns->at[1].name);
    CHECK_INT(25, columns->at[1].type);
    CHECK(luna_columns_equal(columns, same));
    for (size_t n = 0; n < len; n++)
        CHECK(luna_columns_read(body, n) == NULL);
    luna_columns *other = luna_columns_new(2);
    luna_columns_set(other, 0, "id", 20);
    luna_columns_set(other, 1, "note", 1043);
    CHECK(!luna_columns_equal(columns, other));
    luna_columns *none = luna_columns_read("\0\0", 2);
    CHECK_INT(0, none->n);
    CHECK(!luna_columns_equal(columns, none));
    luna_columns_unref(luna_columns_ref(none));
    luna_columns_unref(none);
    luna_columns_unref(other);
    luna_columns_unref(same);
    luna_columns_unref(columns);
    luna_columns_unref(NULL);
}

static void rows_checked(void)
{
    static const char row[] = "\0\3\0\0\0\002ab\377\377\377\377\0\0\0\0";
    const size_t len = sizeof(row) - 1;
    CHECK(luna_message_is_row(row, len, 3));
    CHECK(!luna_message_is_row(row, len, 2));
    CHECK(!luna_message_is_row(row, len, 4));
    for (size_t n = 0; n < len; n++)
        CHECK(!luna_message_is_row(row, n, 3));
    CHECK(!luna_message_is_row("\0\1\377\377\377\376", 6, 1)); /* shorter than NULL */
    CHECK(!luna_message_is_row("\0\1\177\377\377\377x", 7, 1));
    CHECK(!luna_message_is_row("\0\1\0\0\0\1xy", 8, 1));
    CHECK(luna_message_is_row("\0\0", 2, 0));
}

/* Whatever bytes come, nothing beyond them is read. */
static void any_bytes(uint64_t *random)
{
    for (int i = 0; i < 20000; i++) {
        size_t n = test_random(random) % 64, size;
        char *bytes = malloc(n + 1); /* of its size, for the sanitizer */
        luna_message message;
        for (size_t b = 0; b < n; b++)
            bytes[b] =
                (char)(test_random(random) % 3 ? test_random(random) % 6 : test_random(random));
        char *end = realloc(bytes, n > 0 ? n : 1);
        if (luna_message_read(end, n, &message, &size) == LUNA_MESSAGE_WHOLE)
            CHECK(message.body + message.len <= end + n);
        (void)luna_message_field(end, n, 'C');
        (void)luna_message_is_row(end, n, (int)(test_random(random) % 4));
        luna_columns_unref(luna_columns_read(end, n));
        free(end);
    }
}

int main(void)
{
    uint64_t random = test_seed();
    written();
    framed();
    errors();
    columns_read();
    rows_checked();
    any_bytes(&random);
    return test_report();
}
