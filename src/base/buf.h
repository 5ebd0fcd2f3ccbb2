/* buf.h - growable byte buffer.  Layer: base.
 *
 * Zero-initialised is empty and valid.  Owns its bytes until luna_buf_deinit.
 * Growth aborts when memory is gone: nothing useful could go on. */
#ifndef LUNA_BASE_BUF_H
#define LUNA_BASE_BUF_H

#include <stddef.h>

#include "err.h"

typedef struct luna_buf {
    char *data; /* NULL while cap is 0 */
    size_t len, cap;
} luna_buf;

void luna_buf_deinit(luna_buf *buf);

/* The seldom part of luna_buf_reserve. */
void luna_buf_grow(luna_buf *buf, size_t n);

/* Room for `n` more bytes; returns where they start.  len is unchanged. */
static inline char *luna_buf_reserve(luna_buf *buf, size_t n)
{
    if (buf->cap - buf->len < n)
        luna_buf_grow(buf, n);
    return buf->data + buf->len;
}

void luna_buf_add(luna_buf *buf, const void *bytes, size_t n);
void luna_buf_add_str(luna_buf *buf, const char *s);
static inline void luna_buf_add_char(luna_buf *buf, char c)
{
    *luna_buf_reserve(buf, 1) = c;
    buf->len++;
}

void luna_buf_addf(luna_buf *buf, const char *fmt, ...) LUNA_PRINTF(2, 3);
static inline void luna_buf_clear(luna_buf *buf)
{
    buf->len = 0;
}
#endif
