#include "copytext.h"

#include <string.h>

/* ---- rows ------------------------------------------------------------------------ */

static luna_copy_step bad(luna_err *err, const char *what)
{
    luna_err_set(err, LUNA_EINVAL, "%s", what);
    return LUNA_COPY_BAD;
}

/* The row's body is `body` long and its end `end` bytes (0 at the very end of the input). */
static luna_copy_step row_ends(luna_copy_reader *reader, size_t fields, size_t body, size_t end,
                               luna_err *err)
{
    if (fields < reader->columns)
        reader->ends[fields] = body;
    if (++fields != reader->columns) {
        luna_err_set(err, LUNA_EINVAL, "it has %zu value%s for %zu column%s", fields,
                     fields == 1 ? "" : "s", reader->columns, reader->columns == 1 ? "" : "s");
        return LUNA_COPY_BAD;
    }
    if (end > 0) {
        int eol = end == 1 ? LUNA_EOL_LF : LUNA_EOL_CRLF;
        if (reader->eol != LUNA_EOL_UNKNOWN && (int)reader->eol != eol)
            return bad(err, "its line end differs from that of the rows before it");
        reader->eol = end == 1 ? LUNA_EOL_LF : LUNA_EOL_CRLF;
    }
    reader->body = body;
    reader->len = body + end;
    return LUNA_COPY_ROW;
}

/* At a carriage return outside quotes, `n` bytes including it being left. */
static luna_copy_step carriage_return(luna_copy_reader *reader, const char *p, size_t n, bool last,
                                      size_t fields, size_t body, luna_err *err)
{
    if (n == 1 && !last)
        return LUNA_COPY_MORE;
    if (n == 1 || p[1] != '\n')
        return bad(err, "it has a carriage return that is neither escaped nor part of a line end");
    return row_ends(reader, fields, body, 2, err);
}

/* Is there an end marker, alone on its line, at `bytes`? */
static luna_copy_step end_marker(luna_copy_reader *reader, const char *bytes, size_t n, bool last)
{
    size_t len = 2;
    if (n > len && bytes[len] == '\r')
        len++;
    if (n == len && !last)
        return LUNA_COPY_MORE;
    if (n > len && bytes[len] != '\n')
        return LUNA_COPY_BAD;
    reader->len = n > len ? len + 1 : len;
    return LUNA_COPY_END;
}

static luna_copy_step read_text(luna_copy_reader *reader, const char *bytes, size_t n, bool last,
                                luna_err *err)
{
    size_t fields = 0;
    for (size_t i = 0; i < n; i++) {
        char c = bytes[i];
        if ((unsigned char)c > '\r' && c != '\\')
            continue;
        switch (c) {
        case '\t':
            if (fields < reader->columns)
                reader->ends[fields] = i;
            fields++;
            break;
        case '\n': return row_ends(reader, fields, i, 1, err);
        case '\r': return carriage_return(reader, bytes + i, n - i, last, fields, i, err);
        case '\\':
            if (i + 1 == n)
                return last ? bad(err, "it ends within an escape") : LUNA_COPY_MORE;
            if (bytes[i + 1] == '.') {
                luna_copy_step step = i == 0 ? end_marker(reader, bytes, n, last) : LUNA_COPY_BAD;
                return step == LUNA_COPY_BAD ? bad(err, "it holds the end marker \\.") : step;
            }
            if (bytes[i + 1] == '\r')
                return bad(err, "it has a backslash before a carriage return");
            i++; /* whatever it is, a newline included: it is data */
            break;
        default: break;
        }
    }
    return last ? row_ends(reader, fields, n, 0, err) : LUNA_COPY_MORE;
}

static luna_copy_step read_csv(luna_copy_reader *reader, const char *bytes, size_t n, bool last,
                               luna_err *err)
{
    size_t fields = 0;
    if (n == 1 && bytes[0] == '\\' && !last)
        return LUNA_COPY_MORE;
    if (n >= 2 && bytes[0] == '\\' && bytes[1] == '.') {
        luna_copy_step step = end_marker(reader, bytes, n, last);
        if (step != LUNA_COPY_BAD) /* with more on the line it is data */
            return step;
    }
    for (size_t i = 0; i < n; i++) {
        switch (bytes[i]) {
        case '"': { /* a doubled quote closes and opens again: the same to us */
            const char *close = i + 1 < n ? memchr(bytes + i + 1, '"', n - i - 1) : NULL;
            if (close == NULL)
                return last ? bad(err, "a quote is not closed") : LUNA_COPY_MORE;
            i = (size_t)(close - bytes);
            break;
        }
        case ',':
            if (fields < reader->columns)
                reader->ends[fields] = i;
            fields++;
            break;
        case '\n': return row_ends(reader, fields, i, 1, err);
        case '\r': return carriage_return(reader, bytes + i, n - i, last, fields, i, err);
        default: break;
        }
    }
    return last ? row_ends(reader, fields, n, 0, err) : LUNA_COPY_MORE;
}

luna_copy_step luna_copy_read(luna_copy_reader *reader, const char *bytes, size_t n, bool last,
                              luna_err *err)
{
    if (n == 0)
        return LUNA_COPY_MORE;
    return reader->format == LUNA_COPY_CSV ? read_csv(reader, bytes, n, last, err)
                                           : read_text(reader, bytes, n, last, err);
}

/* ---- fields ---------------------------------------------------------------------- */

static int digit_of(char c, int base)
{
    int lower = c | 0x20;
    int digit = c >= '0' && c <= '9'           ? c - '0'
                : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                               : 99;
    return digit < base ? digit : -1;
}

/* What follows a backslash at `p`, up to `max` digits of `base`; false when there is none. */
static bool add_code(luna_buf *out, const char **p, const char *end, int base, int max)
{
    const char *at = *p;
    int code = 0;
    for (; at < end && max > 0 && digit_of(*at, base) >= 0; at++, max--)
        code = code * base + digit_of(*at, base);
    if (at == *p)
        return false;
    luna_buf_add_char(out, (char)(code & 0xFF));
    *p = at;
    return true;
}

static void unescape(luna_buf *out, const char *p, const char *end)
{
    static const char names[] = "bfnrtv", codes[] = "\b\f\n\r\t\v";
    luna_buf_clear(out);
    luna_buf_reserve(out, 1); /* an empty value needs a place, too */
    while (p < end) {
        char c = *p++;
        if (c != '\\' || p == end) {
            luna_buf_add_char(out, c);
            continue;
        }
        const char *hex = p + 1;
        if (add_code(out, &p, end, 8, 3))
            continue;
        if (*p == 'x' && add_code(out, &hex, end, 16, 2)) {
            p = hex;
            continue;
        }
        const char *name = *p != '\0' ? strchr(names, *p) : NULL;
        luna_buf_add_char(out, name != NULL ? codes[name - names] : *p);
        p++;
    }
}

static void unquote(luna_buf *out, const char *p, const char *end)
{
    bool quoted = false;
    luna_buf_clear(out);
    luna_buf_reserve(out, 1);
    for (; p < end; p++) {
        if (*p != '"')
            luna_buf_add_char(out, *p);
        else if (quoted && p + 1 < end && p[1] == '"')
            luna_buf_add_char(out, *++p);
        else
            quoted = !quoted;
    }
}

bool luna_copy_field(const luna_copy_reader *reader, const char *bytes, size_t i, luna_buf *scratch,
                     const char **value, size_t *len)
{
    size_t from = i == 0 ? 0 : reader->ends[i - 1] + 1;
    bool csv = reader->format == LUNA_COPY_CSV;
    *value = bytes + from;
    *len = reader->ends[i] - from;
    if (csv ? *len == 0 : *len == 2 && memcmp(*value, "\\N", 2) == 0)
        return false;
    if (*len == 0 || memchr(*value, csv ? '"' : '\\', *len) == NULL)
        return true;
    (csv ? unquote : unescape)(scratch, *value, *value + *len);
    *value = scratch->data;
    *len = scratch->len;
    return true;
}
