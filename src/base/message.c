#include "message.h"

#include <string.h>

#define HEAD 5          /* letter and length */
#define MAX_SHORT 30000 /* what is longer must be of few kinds, otherwise we are out of step */

static bool may_be_long(char type)
{
    return type == 'D' || type == 'T' || type == 'E' || type == 'N' || type == 'A';
}

luna_message_state luna_message_read(const char *bytes, size_t n, luna_message *message,
                                     size_t *size)
{
    *size = 0;
    if (n < HEAD)
        return LUNA_MESSAGE_PART;
    uint32_t len = luna_get32(bytes + 1);
    if (len < 4 || len > LUNA_MESSAGE_MAX || (len > MAX_SHORT && !may_be_long(bytes[0])))
        return LUNA_MESSAGE_BROKEN;
    *size = (size_t)len + 1;
    if (n < *size)
        return LUNA_MESSAGE_PART;
    *message = (luna_message){ .type = bytes[0], .body = bytes + HEAD, .len = len - 4 };
    return LUNA_MESSAGE_WHOLE;
}

const char *luna_message_field(const char *body, size_t len, int letter)
{
    const char *end = body + len;
    for (const char *p = body; p < end && *p != '\0';) {
        const char *value_end = memchr(p, '\0', (size_t)(end - p));
        if (value_end == NULL)
            break;
        if (*p == letter)
            return p + 1;
        p = value_end + 1;
    }
    return NULL;
}

/* A name, 6 bytes, the type, 8 bytes. */
const char *luna_message_column(const char *p, const char *end, uint32_t *type)
{
    const char *name_end = p < end ? memchr(p, '\0', (size_t)(end - p)) : NULL;
    if (name_end == NULL || end - name_end < 19)
        return NULL;
    *type = luna_get32(name_end + 7);
    return name_end + 19;
}

bool luna_message_is_row(const char *body, size_t len, int n_columns)
{
    const char *p = body, *end = body + len;
    if (len < 2 || (int)luna_get16(p) != n_columns)
        return false;
    p += 2;
    for (int c = 0; c < n_columns; c++) {
        if (end - p < 4)
            return false;
        int32_t n = (int32_t)luna_get32(p);
        p += 4;
        if (n > end - p || n < -1)
            return false;
        p += n > 0 ? n : 0;
    }
    return p == end;
}

static char *put_head(char *p, char type, size_t len)
{
    *p = type;
    return luna_put32(p + 1, (uint32_t)len);
}

static char *put_bytes(char *p, const char *bytes, size_t n)
{
    memcpy(p, bytes, n);
    return p + n;
}

void luna_message_parse(luna_buf *out, const char *name, const char *sql)
{
    size_t name_size = strlen(name) + 1, sql_size = strlen(sql) + 1;
    size_t len = 4 + name_size + sql_size + 2;
    char *p = put_head(luna_buf_reserve(out, len + 1), 'P', len);
    p = put_bytes(p, name, name_size);
    p = put_bytes(p, sql, sql_size);
    luna_put16(p, 0);
    out->len += len + 1;
}

static void add_bind(luna_buf *out, const char *name, int n_params, const char *const *values,
                     const int *lengths, const int *formats)
{
    size_t name_size = strlen(name) + 1;
    size_t len = 4 + 1 + name_size + 2 + 2 + 2;
    int n_formats = 0;
    for (int i = 0; i < n_params; i++) {
        len += 4 + (values[i] != NULL ? (size_t)lengths[i] : 0);
        if (formats[i] != 0)
            n_formats = n_params; /* none is: all are text */
    }
    len += 2 * (size_t)n_formats;
    char *p = put_head(luna_buf_reserve(out, len + 1), 'B', len);
    *p++ = '\0'; /* the portal without a name */
    p = put_bytes(p, name, name_size);
    p = luna_put16(p, (unsigned)n_formats);
    for (int i = 0; i < n_formats; i++)
        p = luna_put16(p, (unsigned)formats[i]);
    p = luna_put16(p, (unsigned)n_params);
    for (int i = 0; i < n_params; i++) {
        p = luna_put32(p, values[i] != NULL ? (uint32_t)lengths[i] : UINT32_MAX);
        if (values[i] != NULL)
            p = put_bytes(p, values[i], (size_t)lengths[i]);
    }
    luna_put16(p, 0);
    out->len += len + 1;
}

void luna_message_execute(luna_buf *out, const char *name, int n_params, const char *const *values,
                          const int *lengths, const int *formats, bool describe)
{
    static const char described[] = { 'D', 0, 0, 0, 6, 'P', 0 };
    static const char executed[] = { 'E', 0, 0, 0, 9, 0, 0, 0, 0, 0 };
    add_bind(out, name, n_params, values, lengths, formats);
    if (describe)
        luna_buf_add(out, described, sizeof(described));
    luna_buf_add(out, executed, sizeof(executed));
}

void luna_message_close(luna_buf *out, const char *name)
{
    size_t name_size = strlen(name) + 1, len = 4 + 1 + name_size;
    char *p = put_head(luna_buf_reserve(out, len + 1), 'C', len);
    *p++ = 'S';
    put_bytes(p, name, name_size);
    out->len += len + 1;
}

void luna_message_sync(luna_buf *out)
{
    static const char sync[] = { 'S', 0, 0, 0, 4 };
    luna_buf_add(out, sync, sizeof(sync));
}
