/* rows.h - rows as the server sends them.  Layer: base.
 *
 * A stretch of the protocol's messages: DataRow and what surrounds it.  The
 * reader of the socket puts bytes in and says with luna_frames where messages
 * begin and end; whoever wants rows takes them out as fields that point into
 * the bytes.  Nothing is copied or allocated for a row.
 *
 * A row's fields are valid until bytes are put in or luna_rows_compact. */
#ifndef LUNA_BASE_ROWS_H
#define LUNA_BASE_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "columns.h"

/* Where a stream of messages stands.  Zero-initialised: before a message. */
typedef struct luna_frames {
    char head[5]; /* type and length of the message at hand */
    unsigned n_head;
    size_t body; /* bytes of it to come, once the head is complete */
    bool broken; /* a length that none has: the stream cannot be followed any more */
} luna_frames;

/* How many of `n` bytes belong to messages that say what rows are: those of a
 * row, its description and completion of parse and bind, and notices, parameter
 * changes and notifications, which may come in between.  Stops before any other. */
size_t luna_frames_take(luna_frames *frames, const char *bytes, size_t n);

typedef struct luna_field {
    const char *text; /* not ended by NUL, but a byte may be read after it */
    int32_t len;      /* -1: NULL */
} luna_field;

/* Zero-initialised is empty.  Owns everything until luna_rows_deinit. */
typedef struct luna_rows {
    luna_buf bytes;
    size_t at;    /* the next message to look at */
    size_t whole; /* the end of the last whole one */
    size_t ready; /* rows between the two */
    luna_column *columns;
    int n_columns;
    bool described; /* the columns are known */
    bool malformed; /* there was a message that makes no sense: no more rows come out */
} luna_rows;

void luna_rows_deinit(luna_rows *rows);

/* Room to put bytes of messages: at least one, usually LUNA_ROWS_CHUNK. */
#define LUNA_ROWS_CHUNK 65536
char *luna_rows_reserve(luna_rows *rows, const luna_frames *frames, size_t *room);

/* `n` bytes were put where luna_rows_reserve said.  Keeps those that belong to
 * rows and gives their number; the others are for the caller. */
size_t luna_rows_take(luna_rows *rows, luna_frames *frames, size_t n);

/* The same for rows that somebody else received: name the columns once, then
 * each row is luna_rows_begin, a luna_rows_field for each column, luna_rows_end. */
void luna_rows_column(luna_rows *rows, const char *name, uint32_t type);
void luna_rows_begin(luna_rows *rows);
void luna_rows_field(luna_rows *rows, const char *text, int len);
void luna_rows_end(luna_rows *rows);

/* The next row into `fields`, which has room for all columns.  False when no
 * whole row is left. */
bool luna_rows_next(luna_rows *rows, luna_field *fields);

/* Forget what was taken out. */
void luna_rows_compact(luna_rows *rows);

/* Forget all bytes; the columns stay known. */
void luna_rows_drop(luna_rows *rows);
#endif
