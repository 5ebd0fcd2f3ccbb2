/* Texts on a terminal: their width, where they are cut, and what is escaped. */
#include "cells.h"
#include "test.h"

static size_t width(const char *text)
{
    return luna_cells_width(text, strlen(text));
}

static void test_width(void)
{
    CHECK_INT(0, width(""));
    CHECK_INT(3, width("abc"));
    CHECK_INT(4, width("z\xc3\xbcge"));                      /* u with diaeresis in one code */
    CHECK_INT(1, width("u\xcc\x88"));                        /* and in two */
    CHECK_INT(4, width("\xe6\xbc\xa2\xe5\xad\x97"));         /* two ideographs */
    CHECK_INT(2, width("\xf0\x9f\x98\x80"));                 /* an emoji */
    CHECK_INT(4, width("\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d")); /* Hebrew */
}

static void test_no_utf8(void)
{
    static const char *const texts[] = { "\x80",     "\xff",         "\xc3",
                                         "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80" };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        luna_cell cell = luna_cells_first(texts[i], strlen(texts[i]));
        CHECK_INT(1, cell.len);
        CHECK_INT(-1, cell.code);
        CHECK_INT(1, cell.width);
    }
}

static void test_fit(void)
{
    CHECK_INT(2, luna_cells_fit("abc", 3, 2));
    CHECK_INT(3, luna_cells_fit("abc", 3, 9));
    CHECK_INT(0, luna_cells_fit("\xe6\xbc\xa2", 3, 1)); /* not half of one */
    CHECK_INT(3, luna_cells_fit("u\xcc\x88x", 4, 1));   /* with its mark */
}

static void check_safe(const char *expected, const char *text, size_t n, bool keep_lines)
{
    luna_buf out = { 0 };
    luna_cells_add_safe(&out, text, n, keep_lines);
    luna_buf_add_char(&out, '\0');
    CHECK_STR(expected, out.data);
    luna_buf_deinit(&out);
}

static void test_safe(void)
{
    check_safe("z\xc3\xbcge \xe6\xbc\xa2", "z\xc3\xbcge \xe6\xbc\xa2", 9, false);
    check_safe("a\\x1b[2Jb", "a\x1b[2Jb", 6, false);
    check_safe("\\x00\\x07\\t\\r\\n\\x7f", "\0\a\t\r\n\x7f", 6, false);
    check_safe("a\nb", "a\nb", 3, true);
    check_safe("\\u0085", "\xc2\x85", 2, false);
    check_safe("\\u202eabc",
               "\xe2\x80\xae"
               "abc",
               6, false);
    check_safe("\\xff\\xc3", "\xff\xc3", 2, false);
}

int main(void)
{
    test_width();
    test_no_utf8();
    test_fit();
    test_safe();
    return test_report();
}
