/* COPY's formats: rows are cut where the server cuts them, wherever the bytes are cut. */
#include "copytext.h"
#include "test.h"

static luna_copy_reader reader;
static luna_err err;

static luna_copy_step read_as(luna_copy_format format, size_t columns, const char *text, bool last)
{
    memset(&reader, 0, sizeof(reader));
    reader.format = format;
    reader.columns = columns;
    return luna_copy_read(&reader, text, strlen(text), last, &err);
}

static bool is_row(luna_copy_format format, size_t columns, const char *text, size_t body,
                   size_t len)
{
    return read_as(format, columns, text, false) == LUNA_COPY_ROW && reader.body == body &&
           reader.len == len;
}

static bool is_bad(luna_copy_format format, size_t columns, const char *text, const char *why)
{
    return read_as(format, columns, text, true) == LUNA_COPY_BAD && strstr(err.msg, why) != NULL;
}

/* The value of field `i` of the only row of `text`; "NULL" for that. */
static const char *field(luna_copy_format format, size_t columns, const char *text, size_t i)
{
    static char value[100];
    luna_buf scratch = { 0 };
    const char *found;
    size_t len;
    if (read_as(format, columns, text, true) != LUNA_COPY_ROW)
        return "no row";
    bool is = luna_copy_field(&reader, text, i, &scratch, &found, &len);
    snprintf(value, sizeof(value), "%.*s", is ? (int)len : 4, is ? found : "NULL");
    luna_buf_deinit(&scratch);
    return value;
}

static void test_text_rows(void)
{
    CHECK(is_row(LUNA_COPY_TEXT, 2, "1\ta\n2\tb\n", 3, 4));
    CHECK(is_row(LUNA_COPY_TEXT, 2, "1\ta\r\n2\tb\r\n", 3, 5));
    CHECK(is_row(LUNA_COPY_TEXT, 1, "\nx\n", 0, 1));
    CHECK(is_row(LUNA_COPY_TEXT, 2, "1\ta\\\tb\n", 6, 7));   /* an escaped tab is data */
    CHECK(is_row(LUNA_COPY_TEXT, 2, "1\ta\\\nb\n", 6, 7));   /* so is an escaped newline */
    CHECK(is_row(LUNA_COPY_TEXT, 2, "1\ta\\\\\nb\n", 5, 6)); /* but not behind two backslashes */
    CHECK_INT(LUNA_COPY_MORE, read_as(LUNA_COPY_TEXT, 2, "1\ta", false));
    CHECK_INT(LUNA_COPY_MORE, read_as(LUNA_COPY_TEXT, 2, "1\ta\\", false));
    CHECK_INT(LUNA_COPY_MORE, read_as(LUNA_COPY_TEXT, 2, "1\ta\r", false));
    CHECK_INT(LUNA_COPY_ROW, read_as(LUNA_COPY_TEXT, 2, "1\ta", true));
    CHECK_INT(3, reader.len);
}

static void test_end_marker(void)
{
    for (int csv = 0; csv < 2; csv++) {
        luna_copy_format format = csv ? LUNA_COPY_CSV : LUNA_COPY_TEXT;
        CHECK_INT(LUNA_COPY_END, read_as(format, 2, "\\.\n", false));
        CHECK_INT(3, reader.len);
        CHECK_INT(LUNA_COPY_END, read_as(format, 2, "\\.\r\n", false));
        CHECK_INT(4, reader.len);
        CHECK_INT(LUNA_COPY_END, read_as(format, 2, "\\.", true));
        CHECK_INT(LUNA_COPY_MORE, read_as(format, 2, "\\.", false));
        CHECK_INT(LUNA_COPY_MORE, read_as(format, 2, "\\", false));
    }
    CHECK(is_bad(LUNA_COPY_TEXT, 2, "1\ta\\.\n", "end marker"));
    CHECK(is_bad(LUNA_COPY_TEXT, 1, "\\.x\n", "end marker"));
    CHECK(is_row(LUNA_COPY_CSV, 1, "\\.x\n", 3, 4));
}

static void test_refusals(void)
{
    CHECK(is_bad(LUNA_COPY_TEXT, 2, "1\n", "it has 1 value for 2 columns"));
    CHECK(is_bad(LUNA_COPY_TEXT, 2, "1\t2\t3\n", "it has 3 values for 2 columns"));
    CHECK(is_bad(LUNA_COPY_CSV, 1, "1,2\n", "it has 2 values for 1 column"));
    CHECK(is_bad(LUNA_COPY_TEXT, 2, "1\ta\rb\n", "carriage return"));
    CHECK(is_bad(LUNA_COPY_CSV, 2, "1,a\rb\n", "carriage return"));
    CHECK(is_bad(LUNA_COPY_TEXT, 2, "1\ta\\\r\n", "carriage return"));
    CHECK(is_bad(LUNA_COPY_TEXT, 2, "1\ta\\", "within an escape"));
    CHECK(is_bad(LUNA_COPY_CSV, 2, "1,\"a\n", "not closed"));
    CHECK_INT(LUNA_COPY_ROW, read_as(LUNA_COPY_TEXT, 1, "a\n", false));
    CHECK_INT(LUNA_COPY_BAD, luna_copy_read(&reader, "b\r\n", 3, false, &err));
}

static void test_text_fields(void)
{
    CHECK_STR("NULL", field(LUNA_COPY_TEXT, 2, "\\N\tx\n", 0));
    CHECK_STR("x", field(LUNA_COPY_TEXT, 2, "\\N\tx\n", 1));
    CHECK_STR("", field(LUNA_COPY_TEXT, 2, "\tx\n", 0));
    CHECK_STR("x", field(LUNA_COPY_TEXT, 1, "x\r\n", 0));
    CHECK_STR("\\N", field(LUNA_COPY_TEXT, 1, "\\\\N\n", 0));
    CHECK_STR("a\tb\nc\\d\r", field(LUNA_COPY_TEXT, 1, "a\\tb\\nc\\\\d\\r\n", 0));
    CHECK_STR("\b\f\v", field(LUNA_COPY_TEXT, 1, "\\b\\f\\v\n", 0));
    CHECK_STR("AzB8", field(LUNA_COPY_TEXT, 1, "\\101\\x7a\\1028\n", 0));
    CHECK_STR("x-q", field(LUNA_COPY_TEXT, 1, "\\x-\\q\n", 0));
}

static void test_csv_fields(void)
{
    CHECK(is_row(LUNA_COPY_CSV, 2, "1,\"a\nb\"\n", 7, 8));
    CHECK(is_row(LUNA_COPY_CSV, 2, "1,\"a,\r\"\"\"\r\n", 9, 11));
    CHECK_INT(LUNA_COPY_MORE, read_as(LUNA_COPY_CSV, 2, "1,\"a\n", false));
    CHECK_STR("NULL", field(LUNA_COPY_CSV, 2, "1,\n", 1));
    CHECK_STR("", field(LUNA_COPY_CSV, 2, "1,\"\"\n", 1));
    CHECK_STR("a,\"b\"\n", field(LUNA_COPY_CSV, 2, "1,\"a,\"\"b\"\"\n\"\n", 1));
    CHECK_STR("abcd", field(LUNA_COPY_CSV, 1, "a\"bc\"d\n", 0));
    CHECK_STR("\\N", field(LUNA_COPY_CSV, 1, "\\N\n", 0));
}

/* Bytes that come one by one give the same rows as all at once. */
static void test_cuts(uint64_t *seed)
{
    static const char *const parts[] = { "a",  "\t",  ",",    "\\",  "\n",
                                         "\"", "\\n", "\"\"", "x\n", "\\N" };
    for (int round = 0; round < 2000; round++) {
        char text[64] = "";
        for (int i = 0; i < 12; i++)
            strcat(text, parts[test_random(seed) % 10]);
        luna_copy_format format = test_random(seed) % 2 ? LUNA_COPY_CSV : LUNA_COPY_TEXT;
        size_t columns = 1 + test_random(seed) % 2, n = strlen(text);
        luna_copy_step whole = read_as(format, columns, text, true);
        size_t len = whole == LUNA_COPY_ROW ? reader.len : 0;
        bool same = true;
        for (size_t i = 1; i < n; i++) { /* a prefix is not read in another way */
            memset(&reader, 0, sizeof(reader));
            reader.format = format;
            reader.columns = columns;
            luna_copy_step step = luna_copy_read(&reader, text, i, false, &err);
            if (step == LUNA_COPY_ROW)
                same = same && whole == LUNA_COPY_ROW && reader.len == len;
            else if (step == LUNA_COPY_MORE)
                same = same && (whole != LUNA_COPY_ROW || i <= len);
            else
                same = same && step == whole;
        }
        CHECK(same);
    }
}

int main(void)
{
    uint64_t seed = test_seed();
    test_text_rows();
    test_end_marker();
    test_refusals();
    test_text_fields();
    test_csv_fields();
    test_cuts(&seed);
    return test_report();
}
