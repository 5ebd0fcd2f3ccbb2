/* message.h - messages of PostgreSQL's protocol, version 3.  Layer: base.
 *
 * Each is a letter, a length that counts itself, and a body; numbers have their most significant
 * byte first.  What is read is checked, and points into the bytes that were given. */
#ifndef LUNA_BASE_MESSAGE_H
#define LUNA_BASE_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

/* The length that no message may reach; servers take none, and send none. */
#define LUNA_MESSAGE_MAX (1u << 30)

static inline uint32_t luna_get32(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline unsigned luna_get16(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (unsigned)b[0] << 8 | b[1];
}

static inline char *luna_put32(char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (char)(v >> (24 - 8 * i));
    return p + 4;
}

static inline char *luna_put16(char *p, unsigned v)
{
    p[0] = (char)(v >> 8);
    p[1] = (char)v;
    return p + 2;
}

/* ---- what the server says -------------------------------------------------------- */

typedef struct luna_message {
    char type;
    const char *body;
    size_t len; /* of the body */
} luna_message;

typedef enum luna_message_state {
    LUNA_MESSAGE_WHOLE,
    LUNA_MESSAGE_PART,
    LUNA_MESSAGE_BROKEN, /* a length that none has */
} luna_message_state;

/* The first message of `n` bytes.  `size` is all of it, 0 while that is not known. */
luna_message_state luna_message_read(const char *bytes, size_t n, luna_message *message,
                                     size_t *size);

/* A field of an ErrorResponse or NoticeResponse by its letter, as PG_DIAG_... has them; NULL when
 * there is none. */
const char *luna_message_field(const char *body, size_t len, int letter);

/* The column of a RowDescription that begins at `p`: its name is there, its type is filled in.
 * Gives where the next one begins; NULL when there is no whole one. */
const char *luna_message_column(const char *p, const char *end, uint32_t *type);

/* Is this the body of a DataRow of `n_columns`?  For each a length, -1 of NULL, and the bytes. */
bool luna_message_is_row(const char *body, size_t len, int n_columns);

/* ---- what is said to it ------------------------------------------------------------ */

/* Parse; the types of parameters are the server's to find. */
void luna_message_parse(luna_buf *out, const char *name, const char *sql);

/* Bind, Describe when wanted, Execute; of results everything in text. */
void luna_message_execute(luna_buf *out, const char *name, int n_params, const char *const *values,
                          const int *lengths, const int *formats, bool describe);

/* Close a prepared statement. */
void luna_message_close(luna_buf *out, const char *name);

void luna_message_sync(luna_buf *out);
#endif
