/* mod_rows.c - lunashard.core.rows: received rows, on their way to Lua.  Layer: lua. */
/*** Rows as they were received. Scripts use `router:stream`.
@module lunashard.core.rows */
#include <lauxlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "row_source.h"

#define ROWS_TYPE "lunashard.rows"

luna_row_source *luna_row_source_check(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, ROWS_TYPE);
}

luna_rows *luna_rows_check(lua_State *L, int idx)
{
    return &luna_row_source_check(L, idx)->rows;
}

/*** Room for the rows of one stream.
@function new
@treturn lunashard.core.rows */
static int rows_new(lua_State *L)
{
    luna_row_source *source = lua_newuserdata(L, sizeof(*source));
    memset(source, 0, sizeof(*source));
    luaL_getmetatable(L, ROWS_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

void luna_row_source_describe(lua_State *L, int idx)
{
    luna_row_source *source = luna_row_source_check(L, idx);
    int n = source->rows.n_columns;
    if (source->decoders != NULL || !source->rows.described)
        return;
    lua_pushvalue(L, idx);
    lua_createtable(L, n, 0);
    for (int c = 0; c < n; c++) {
        lua_pushstring(L, source->rows.columns[c].name); /* made once, shared by all rows */
        lua_rawseti(L, -2, c + 1);
    }
    lua_setfenv(L, -2);
    lua_pop(L, 1);
    source->decoders = calloc((size_t)n + 1, sizeof(*source->decoders));
    source->fields = calloc((size_t)n + 1, sizeof(*source->fields));
    if (source->decoders == NULL || source->fields == NULL)
        abort();
    for (int c = 0; c < n; c++)
        source->decoders[c] = luna_decoder_of(source->rows.columns[c].type);
}

void luna_row_push(lua_State *L, const luna_row_source *source, int names, const luna_field *fields)
{
    int n = source->rows.n_columns;
    lua_createtable(L, 0, n);
    for (int c = 0; c < n; c++) {
        if (fields[c].len < 0)
            continue;
        lua_rawgeti(L, names, c + 1);
        luna_push_value(L, source->decoders[c], fields[c].text, (size_t)fields[c].len);
        lua_rawset(L, -3);
    }
}

/*** What the rows consist of.
@function rows:columns
@treturn[1] {string,...} names
@treturn[1] {string,...} types, as in the `column_types` of a result
@treturn[2] nil before the server has said it */
static int rows_columns(lua_State *L)
{
    const luna_row_source *source = luna_row_source_check(L, 1);
    int n = source->rows.n_columns;
    if (!source->rows.described)
        return 0;
    luna_row_source_describe(L, 1);
    lua_createtable(L, n, 0);
    lua_createtable(L, n, 0);
    for (int c = 0; c < n; c++) {
        lua_pushstring(L, source->rows.columns[c].name);
        lua_rawseti(L, -3, c + 1);
        luna_push_type_name(L, source->rows.columns[c].type);
        lua_rawseti(L, -2, c + 1);
    }
    return 2;
}

/*** Take rows out, as tables.
@function rows:take
@tparam table list they are appended to it
@int length of the list
@int max
@treturn[1] int the new length; the old one when no row is left
@treturn[2] nil
@treturn[2] lunashard.error `SHARD_DOWN` when what was received makes no sense */
static int rows_take(lua_State *L)
{
    luna_row_source *source = luna_row_source_check(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    int at = luaL_checkint(L, 3), max = luaL_checkint(L, 4);
    luna_row_source_describe(L, 1);
    lua_getfenv(L, 1);
    for (; max > 0 && luna_rows_next(&source->rows, source->fields); max--) {
        luna_row_push(L, source, 5, source->fields);
        lua_rawseti(L, 2, ++at);
    }
    if (source->rows.malformed) {
        luna_err err;
        luna_err_set(&err, LUNA_EDOWN, "a row was received that makes no sense");
        return luna_push_err(L, &err);
    }
    lua_pushinteger(L, at);
    return 1;
}

/*** How many rows were received and not taken.
@function rows:count
@treturn int */
static int rows_count(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)luna_rows_check(L, 1)->ready);
    return 1;
}

/*** Drop the rows that were not taken.
@function rows:close */
static int rows_close(lua_State *L)
{
    luna_row_source *source = luna_row_source_check(L, 1);
    luna_rows_drop(&source->rows);
    source->closed = true;
    return 0;
}

static int rows_gc(lua_State *L)
{
    luna_row_source *source = luna_row_source_check(L, 1);
    luna_rows_deinit(&source->rows);
    free(source->decoders);
    free(source->fields);
    source->decoders = NULL;
    source->fields = NULL;
    return 0;
}

int luaopen_lunashard_core_rows(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "columns", rows_columns }, { "take", rows_take }, { "count", rows_count },
        { "close", rows_close },     { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", rows_gc }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "new", rows_new },
        { "merge", luna_merge_new },
        { NULL, NULL },
    };
    luna_bind_type(L, ROWS_TYPE, methods, meta);
    luna_merge_register(L);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
