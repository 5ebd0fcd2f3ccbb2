/* copytext.h - rows in COPY's text and CSV formats.  Layer: base.
 *
 * Cuts bytes into rows as the server's own reader does (CopyReadLineText), so that rows can be
 * dealt out to several servers unchanged.  What the server could take for something else when it
 * sees only a part of the rows is refused: a lone carriage return, line ends of two kinds, an end
 * marker within a row.  Defaults only: tab and \N, or comma, double quotes and an empty NULL. */
#ifndef LUNA_BASE_COPYTEXT_H
#define LUNA_BASE_COPYTEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "err.h"

typedef enum luna_copy_format { LUNA_COPY_TEXT, LUNA_COPY_CSV } luna_copy_format;

#define LUNA_COPY_MAX_COLUMNS 1600 /* of a table, in PostgreSQL */

/* Zero-initialised but for format and columns.  Owns nothing, and keeps no pointer. */
typedef struct luna_copy_reader {
    luna_copy_format format;
    size_t columns;                                            /* how many every row must have */
    enum { LUNA_EOL_UNKNOWN, LUNA_EOL_LF, LUNA_EOL_CRLF } eol; /* that of the first row */
    size_t len;                         /* of the row just read, with its line end */
    size_t body;                        /* without */
    size_t ends[LUNA_COPY_MAX_COLUMNS]; /* where its fields end */
} luna_copy_reader;

typedef enum luna_copy_step {
    LUNA_COPY_ROW,  /* len, body and ends tell about it */
    LUNA_COPY_MORE, /* the bytes hold no whole row: come again with more behind them */
    LUNA_COPY_END,  /* the end marker `\.`; len counts it */
    LUNA_COPY_BAD,  /* `err` says why, as LUNA_EINVAL */
} luna_copy_step;

/* Look at the row that begins at `bytes`.  `last` says that nothing follows them: a row without
 * a line end is then whole, and `n` must not be 0. */
LUNA_MUSTCHECK luna_copy_step luna_copy_read(luna_copy_reader *reader, const char *bytes, size_t n,
                                             bool last, luna_err *err);

/* The value of field `i` (from 0) of the row at `bytes` that was just read; false when it is
 * NULL.  `value` points into the row, or into `scratch` when it had to be unescaped. */
bool luna_copy_field(const luna_copy_reader *reader, const char *bytes, size_t i, luna_buf *scratch,
                     const char **value, size_t *len);
#endif
