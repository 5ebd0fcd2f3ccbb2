#include "cells.h"

#include <locale.h>
#include <wchar.h>

/* The length of a UTF-8 sequence by its first byte, and the least code that needs it: what is
 * written longer than it need be is no UTF-8. */
static const struct {
    unsigned char mask, mark;
    int32_t least;
} LEADS[] = {
    { 0x80, 0x00, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 }
};

static const luna_cell NO_TEXT = { 1, -1, 1 };

/* Code and length only. */
static luna_cell decode(const char *text, size_t n)
{
    unsigned char lead = (unsigned char)text[0];
    size_t len = 0;
    while (len < 4 && (lead & LEADS[len].mask) != LEADS[len].mark)
        len++;
    if (len == 4 || len + 1 > n)
        return NO_TEXT;
    int32_t code = lead & (unsigned char)~LEADS[len].mask;
    for (size_t i = 1; i <= len; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c & 0xc0) != 0x80)
            return NO_TEXT;
        code = code << 6 | (c & 0x3f);
    }
    if (code < LEADS[len].least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return NO_TEXT;
    return (luna_cell){ len + 1, code, 1 };
}

/* The library's table depends on the locale of the thread; without this one all takes one cell. */
typedef struct cells_locale {
    locale_t utf8, before;
} cells_locale;

static cells_locale locale_enter(void)
{
    cells_locale l = { .utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0) };
    if (l.utf8 != (locale_t)0)
        l.before = uselocale(l.utf8);
    return l;
}

static void locale_leave(cells_locale l)
{
    if (l.utf8 == (locale_t)0)
        return;
    uselocale(l.before);
    freelocale(l.utf8);
}

/* Within the locale. */
static int width_of(int32_t code)
{
    if (code < 0x300)
        return code == 0xad ? 0 : 1;
    int width = wcwidth((wchar_t)code);
    return width < 0 ? 1 : width;
}

luna_cell luna_cells_first(const char *text, size_t n)
{
    luna_cell cell = decode(text, n);
    if (cell.code >= 0x80) {
        cells_locale l = locale_enter();
        cell.width = width_of(cell.code);
        locale_leave(l);
    }
    return cell;
}

static bool is_ascii(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= 0x80)
            return false;
    return true;
}

/* The bytes that fit into `width` cells, and how many of those they take. */
static size_t measure(const char *text, size_t n, size_t width, size_t *taken)
{
    size_t at = 0;
    *taken = 0;
    cells_locale l = locale_enter();
    while (at < n) {
        luna_cell cell = decode(text + at, n - at);
        size_t cells = (size_t)width_of(cell.code);
        if (cells > width - *taken)
            break;
        *taken += cells;
        at += cell.len;
    }
    locale_leave(l);
    return at;
}

size_t luna_cells_width(const char *text, size_t n)
{
    if (is_ascii(text, n))
        return n;
    size_t taken;
    measure(text, n, SIZE_MAX, &taken);
    return taken;
}

size_t luna_cells_fit(const char *text, size_t n, size_t width)
{
    if (is_ascii(text, n < width ? n : width))
        if (n <= width || (unsigned char)text[width] < 0x80)
            return n < width ? n : width;
    size_t taken;
    return measure(text, n, width, &taken);
}

/* Controls, marks of direction, line and paragraph ends, and what cannot be seen at all. */
static bool is_unfit(int32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0xad || code == 0x61c ||
           code == 0x200b || code == 0x200e || code == 0x200f ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) ||
           code == 0xfeff || (code >= 0xfff9 && code <= 0xfffb);
}

static void add_escape(luna_buf *out, luna_cell cell, char byte)
{
    if (cell.code == '\n')
        luna_buf_add_str(out, "\\n");
    else if (cell.code == '\r')
        luna_buf_add_str(out, "\\r");
    else if (cell.code == '\t')
        luna_buf_add_str(out, "\\t");
    else if (cell.code < 0x80)
        luna_buf_addf(out, "\\x%02x", (unsigned)(unsigned char)byte);
    else
        luna_buf_addf(out, "\\u%04x", (unsigned)cell.code);
}

void luna_cells_add_safe(luna_buf *out, const char *text, size_t n, bool keep_lines)
{
    for (size_t at = 0; at < n;) {
        luna_cell cell = decode(text + at, n - at);
        if (is_unfit(cell.code) && !(keep_lines && cell.code == '\n'))
            add_escape(out, cell, text[at]);
        else
            luna_buf_add(out, text + at, cell.len);
        at += cell.len;
    }
}
