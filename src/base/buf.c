#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void luna_buf_deinit(luna_buf *buf)
{
    free(buf->data);
    *buf = (luna_buf){ 0 };
}

void luna_buf_grow(luna_buf *buf, size_t n)
{
    size_t cap = buf->cap ? buf->cap : 64;
    while (cap - buf->len < n)
        cap *= 2;
    char *data = realloc(buf->data, cap);
    if (data == NULL)
        abort();
    buf->data = data;
    buf->cap = cap;
}

void luna_buf_add(luna_buf *buf, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    memcpy(luna_buf_reserve(buf, n), bytes, n);
    buf->len += n;
}

void luna_buf_add_str(luna_buf *buf, const char *s)
{
    luna_buf_add(buf, s, strlen(s));
}

void luna_buf_addf(luna_buf *buf, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n > 0) {
        char *to = luna_buf_reserve(buf, (size_t)n + 1);
        vsnprintf(to, (size_t)n + 1, fmt, again);
        buf->len += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}
