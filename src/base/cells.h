/* cells.h - texts on a terminal: how many cells they take, and what may be shown.  Layer: base.
 *
 * Widths are those of the C library's table for UTF-8, whatever the program's own locale is: two
 * for wide characters and most emoji, none for combining ones.  A text may be any bytes. */
#ifndef LUNA_BASE_CELLS_H
#define LUNA_BASE_CELLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

/* The character at the beginning of a text of `n` bytes, n > 0: its length in bytes, its code and
 * the cells it takes.  What is no valid UTF-8 is one byte long with the code -1 and takes one cell,
 * as does what a terminal would act on rather than show. */
typedef struct luna_cell {
    size_t len;
    int32_t code;
    int width;
} luna_cell;
luna_cell luna_cells_first(const char *text, size_t n);

/* Cells that a text takes. */
size_t luna_cells_width(const char *text, size_t n);

/* The bytes of the longest beginning of a text that takes at most `width` cells. */
size_t luna_cells_fit(const char *text, size_t n, size_t width);

/* Add a text as it may be sent to a terminal: control characters, bytes that are no UTF-8, and what
 * is invisible or turns the direction of writing are escaped (\n, \x1b, \u202e).  `keep_lines`
 * leaves line ends as they are. */
void luna_cells_add_safe(luna_buf *out, const char *text, size_t n, bool keep_lines);
#endif
