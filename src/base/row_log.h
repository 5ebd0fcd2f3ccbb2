/* row_log.h - which row of the whole was sent as the n-th.  Layer: base.
 *
 * A server counts the rows that it was sent; whoever dealt rows out to several servers wants to
 * know which of all the rows the server means.  The last half million or more are remembered. */
#ifndef LUNA_BASE_ROW_LOG_H
#define LUNA_BASE_ROW_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

/* Zero-initialised is empty. */
typedef struct luna_row_log {
    luna_buf steps;   /* uint32_t: from row to row */
    uint64_t dropped; /* rows that were forgotten */
    uint64_t base;    /* the last of these */
    uint64_t last;
    uint64_t lost_at; /* from this many rows on nothing is known any more; 0 is never */
} luna_row_log;

void luna_row_log_deinit(luna_row_log *log);

/* One more was sent: `row`, counted from 1, above all before it. */
void luna_row_log_add(luna_row_log *log, uint64_t row);

/* From the last row on the server counts otherwise. */
void luna_row_log_lose(luna_row_log *log);

/* The row that was sent as the n-th, from 1; 0 when it is not known. */
uint64_t luna_row_log_find(const luna_row_log *log, uint64_t n);
#endif
