/* row_source.h - rows of a stream as Lua sees them.  Layer: lua.
 *
 * The userdata of lunashard.core.rows: what a stream has received and nobody has
 * taken yet.  Its environment is the list of its column names. */
#ifndef LUNA_LUA_ROW_SOURCE_H
#define LUNA_LUA_ROW_SOURCE_H

#include "rows.h"
#include "values.h"

typedef struct luna_row_source {
    luna_rows rows;
    luna_decoder *decoders; /* NULL before the columns were asked for */
    luna_field *fields;     /* a row of it */
    bool closed;            /* the rows are gone */
} luna_row_source;

/* The source at `idx`; raises when there is none. */
luna_row_source *luna_row_source_check(lua_State *L, int idx);
luna_rows *luna_rows_check(lua_State *L, int idx);

/* Make decoders and names, once the columns are known. */
void luna_row_source_describe(lua_State *L, int idx);

/* Push a row as a table.  `names` is the stack index of the source's environment. */
void luna_row_push(lua_State *L, const luna_row_source *source, int names,
                   const luna_field *fields);

/* lunashard.core.rows.merge, in mod_merge.c. */
int luna_merge_new(lua_State *L);
void luna_merge_register(lua_State *L);
#endif
