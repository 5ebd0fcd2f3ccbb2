/* copy.h - what the files of lunashard.core.copy share, and what it hands on.  Layer: lua.
 *
 * A splitter has one output for each shard.  Rows go in, as Lua tables or as bytes in one of COPY's
 * formats; each is routed by its key and written to the output of its shard in one pass.  Buffers
 * come out, which lease:copy_write sends without copying them.  The environment of a splitter holds
 * the columns' names, and as "map" the bucket map. */
#ifndef LUNA_LUA_COPY_H
#define LUNA_LUA_COPY_H

#include <lua.h>

#include "buf.h"
#include "copytext.h"
#include "placement.h"
#include "row_log.h"

typedef struct luna_copy_output {
    luna_buf bytes;
    luna_row_log rows; /* that were ever written here */
} luna_copy_output;

typedef struct luna_splitter {
    luna_copy_reader reader;
    bool header;                /* the next row names the columns */
    bool ended;                 /* by an end marker */
    const luna_bucket_map *map; /* NULL: routed by the caller, or not at all */
    luna_key_spec spec;
    size_t key_at[LUNA_KEY_MAX_COLUMNS]; /* from 0 */
    size_t n_keys;
    double rows;                           /* that were taken in */
    luna_buf rest;                         /* bytes from the first row on that was not taken in */
    luna_buf lines;                        /* of those that wait for their outputs */
    size_t used;                           /* bytes of `rest` that `place` may drop */
    size_t retry;                          /* read again when this many bytes have come */
    luna_buf values[LUNA_KEY_MAX_COLUMNS]; /* unescaped keys */
    luna_buf field, scratch;
    size_t n_outputs;
    luna_copy_output outputs[];
} luna_splitter;

luna_splitter *luna_check_splitter(lua_State *L);

/* Push nil and the error of a row, counted from 1 over all of them; returns 2. */
int luna_push_row_err(lua_State *L, double row, luna_status code, const char *fmt, ...)
    LUNA_PRINTF(4, 5);

/* Where row number `row`, whose place is output `i`, is to be written. */
luna_buf *luna_splitter_output(luna_splitter *s, size_t i, double row);

/* The output, from 0, that item `i` of the list at `list` names.  Raises when there is none. */
size_t luna_named_output(lua_State *L, const luna_splitter *s, int list, int i);

/* The bytes of the copy buffer at `idx`, for the caller to take; NULL when it is none. */
luna_buf *luna_to_copy_buffer(lua_State *L, int idx);

/* Methods of a splitter, for its table of them. */
void luna_copy_open_rows(lua_State *L);
void luna_copy_open_text(lua_State *L);
#endif
