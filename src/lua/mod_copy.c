/* mod_copy.c - "lunashard.core.copy": rows dealt out to shards as COPY data.  Layer: lua.
 *
 * See copy.h; rows as tables come in through copy_rows.c, as bytes through copy_bytes.c. */
/*** Splitting rows for COPY. Scripts use `router:copy_in`.
@module lunashard.core.copy */
#include "copy.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bind.h"

#define SPLITTER_TYPE "lunashard.copy_splitter"
#define BUFFER_TYPE "lunashard.copy_buffer"
#define BUFFER_SIZE ((size_t)80 * 1024) /* of a new one: a chunk and the row that exceeds it */

luna_splitter *luna_check_splitter(lua_State *L)
{
    return luaL_checkudata(L, 1, SPLITTER_TYPE);
}

int luna_push_row_err(lua_State *L, double row, luna_status code, const char *fmt, ...)
{
    luna_err err;
    char msg[460];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    luna_err_set(&err, code, "row %.0f: %s", row, msg);
    luna_push_err(L, &err);
    lua_pushnumber(L, row);
    lua_setfield(L, -2, "index");
    return 2;
}

luna_buf *luna_splitter_output(luna_splitter *s, size_t i, double row)
{
    luna_buf *out = &s->outputs[i].bytes;
    luna_row_log_add(&s->outputs[i].rows, (uint64_t)row);
    if (out->cap == 0)
        luna_buf_reserve(out, BUFFER_SIZE);
    return out;
}

size_t luna_named_output(lua_State *L, const luna_splitter *s, int list, int i)
{
    lua_rawgeti(L, list, i);
    lua_Number at = lua_tonumber(L, -1);
    lua_pop(L, 1);
    if (!(at >= 1 && at <= (double)s->n_outputs))
        luaL_error(L, "outputs[%d]: no such output", i);
    return (size_t)at - 1;
}

/* ---- making one ------------------------------------------------------------------ */

static void check_keys(lua_State *L, int arg, luna_splitter *s)
{
    luaL_checktype(L, arg, LUA_TTABLE);
    s->n_keys = lua_objlen(L, arg);
    luaL_argcheck(L, s->n_keys >= 1 && s->n_keys <= LUNA_KEY_MAX_COLUMNS, arg,
                  "a shard key has 1 to 32 columns");
    for (size_t i = 0; i < s->n_keys; i++) {
        lua_rawgeti(L, arg, (int)i + 1);
        lua_Number at = lua_tonumber(L, -1);
        luaL_argcheck(L, at >= 1 && at <= (double)s->reader.columns, arg, "no such column");
        s->key_at[i] = (size_t)at - 1;
        lua_pop(L, 1);
    }
}

/*** A splitter.
@function splitter
@tparam {string,...} columns
@int outputs how many
@tparam ?{int,...} keys the positions of the shard key's columns; nil: rows go to the first output,
or to those named with them
@tparam ?bucket_map map that routes the keys; nil: the caller does
@tparam ?string format `text` or `csv`: rows come as bytes; nil: as tables
@tparam ?boolean header the first row names the columns
@treturn splitter */
static int copy_splitter(lua_State *L)
{
    static const char *const formats[] = { "text", "csv", NULL };
    luaL_checktype(L, 1, LUA_TTABLE);
    size_t columns = lua_objlen(L, 1);
    lua_Integer outputs = luaL_checkinteger(L, 2);
    luaL_argcheck(L, columns >= 1 && columns <= LUNA_COPY_MAX_COLUMNS, 1,
                  "there must be 1 to 1600 columns");
    luaL_argcheck(L, outputs >= 1 && outputs <= LUNA_MAX_SHARDS, 2, "must be 1 to 1024");
    lua_settop(L, 6);
    size_t size = sizeof(luna_splitter) + (size_t)outputs * sizeof(luna_copy_output);
    luna_splitter *s = lua_newuserdata(L, size);
    memset(s, 0, size);
    s->n_outputs = (size_t)outputs;
    s->reader.columns = columns;
    luaL_getmetatable(L, SPLITTER_TYPE);
    lua_setmetatable(L, -2);
    if (!lua_isnil(L, 3))
        check_keys(L, 3, s);
    if (!lua_isnil(L, 4)) {
        s->map = luna_check_bucket_map(L, 4, &s->spec);
        luaL_argcheck(L, s->spec.columns == s->n_keys, 3, "not the columns of the map's keys");
        luaL_argcheck(L, s->map->shards <= s->n_outputs, 2, "fewer outputs than shards");
    }
    if (!lua_isnil(L, 5)) {
        s->reader.format = (luna_copy_format)luaL_checkoption(L, 5, NULL, formats);
        s->header = lua_toboolean(L, 6);
    }
    lua_createtable(L, (int)columns, 1);
    for (size_t i = 1; i <= columns; i++) {
        lua_rawgeti(L, 1, (int)i);
        luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 1, "columns must be names");
        lua_rawseti(L, -2, (int)i);
    }
    lua_pushvalue(L, 4);
    lua_setfield(L, -2, "map");
    lua_setfenv(L, -2);
    return 1;
}

/* ---- what comes out -------------------------------------------------------------- */

/*** How much has been taken in.
@function splitter:count
@treturn number rows */
static int splitter_count(lua_State *L)
{
    lua_pushnumber(L, luna_check_splitter(L)->rows);
    return 1;
}

static luna_copy_output *check_output(lua_State *L)
{
    luna_splitter *s = luna_check_splitter(L);
    lua_Integer i = luaL_checkinteger(L, 2);
    luaL_argcheck(L, i >= 1 && (size_t)i <= s->n_outputs, 2, "no such output");
    return &s->outputs[i - 1];
}

/*** How many bytes wait in an output.
@function splitter:size
@int output from 1
@treturn number */
static int splitter_size(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)check_output(L)->bytes.len);
    return 1;
}

/*** What waits in an output, which is then empty.
@function splitter:take
@int output from 1
@treturn buffer to be sent once */
static int splitter_take(lua_State *L)
{
    luna_buf *out = &check_output(L)->bytes;
    luna_buf *buffer = lua_newuserdata(L, sizeof(*buffer));
    *buffer = *out;
    *out = (luna_buf){ 0 };
    luaL_getmetatable(L, BUFFER_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

/*** What waits in an output, which is then empty, as a string: to be sent any number of times.
@function splitter:take_string
@int output from 1
@treturn string */
static int splitter_take_string(lua_State *L)
{
    luna_buf *out = &check_output(L)->bytes;
    lua_pushlstring(L, out->data, out->len);
    luna_buf_clear(out);
    return 1;
}

/*** Which row was written to an output as the n-th?
@function splitter:row_of
@int output from 1
@tparam number n from 1
@treturn ?number its number over all calls; nil when it is not known any more */
static int splitter_row_of(lua_State *L)
{
    lua_Number n = luaL_checknumber(L, 3);
    uint64_t row = n >= 1 ? luna_row_log_find(&check_output(L)->rows, (uint64_t)n) : 0;
    if (row == 0)
        return 0;
    lua_pushnumber(L, (lua_Number)row);
    return 1;
}

luna_buf *luna_to_copy_buffer(lua_State *L, int idx)
{
    luna_buf *buffer = lua_touserdata(L, idx);
    if (buffer == NULL || !lua_getmetatable(L, idx))
        return NULL;
    luaL_getmetatable(L, BUFFER_TYPE);
    bool is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is ? buffer : NULL;
}

static int splitter_gc(lua_State *L)
{
    luna_splitter *s = luna_check_splitter(L);
    for (size_t i = 0; i < s->n_outputs; i++) {
        luna_buf_deinit(&s->outputs[i].bytes);
        luna_row_log_deinit(&s->outputs[i].rows);
    }
    for (size_t i = 0; i < LUNA_KEY_MAX_COLUMNS; i++)
        luna_buf_deinit(&s->values[i]);
    luna_buf_deinit(&s->rest);
    luna_buf_deinit(&s->lines);
    luna_buf_deinit(&s->field);
    luna_buf_deinit(&s->scratch);
    return 0;
}

static int buffer_gc(lua_State *L)
{
    luna_buf_deinit(luaL_checkudata(L, 1, BUFFER_TYPE));
    return 0;
}

int luaopen_lunashard_core_copy(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "count", splitter_count },   { "size", splitter_size },
        { "take", splitter_take },     { "take_string", splitter_take_string },
        { "row_of", splitter_row_of }, { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", splitter_gc }, { NULL, NULL } };
    static const luaL_Reg buffer_methods[] = { { NULL, NULL } };
    static const luaL_Reg buffer_meta[] = { { "__gc", buffer_gc }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "splitter", copy_splitter }, { NULL, NULL } };
    luna_bind_type(L, SPLITTER_TYPE, methods, meta);
    luaL_getmetatable(L, SPLITTER_TYPE);
    lua_getfield(L, -1, "__index");
    luna_copy_open_rows(L);
    luna_copy_open_text(L);
    lua_pop(L, 2);
    luna_bind_type(L, BUFFER_TYPE, buffer_methods, buffer_meta);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
