/* copy_rows.c - rows as Lua tables for lunashard.core.copy. */
/*** Splitters.
@classmod lunashard.core.copy.splitter */
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "copy.h"
#include "pgtext.h"
#include "values.h"

/* Raise for a row that is none, without a position: the caller is a line of ours. */
static void bad_row(lua_State *L, double number, const char *what)
{
    char row[32];
    snprintf(row, sizeof(row), "row %.0f: ", number);
    lua_pushfstring(L, "%s%s", row, what);
    lua_error(L);
}

/* Is the row at `row`, whose first value is nil, a table by column name? */
static bool is_by_name(lua_State *L, int row)
{
    lua_pushnil(L);
    if (lua_next(L, row) == 0)
        return false;
    bool by_name = lua_type(L, -2) == LUA_TSTRING;
    lua_pop(L, 2);
    return by_name;
}

/* Push the values of the row at `row`, one for each column; the columns' names are at `names`.
 * False when the row has a name that is none of these. */
static bool push_values(lua_State *L, luna_splitter *s, int row, int names, double number)
{
    int columns = (int)s->reader.columns, found = 0, given = 0;
    if (!lua_istable(L, row))
        bad_row(L, number, lua_pushfstring(L, "expected a table, got a %s", luaL_typename(L, row)));
    lua_rawgeti(L, row, 1);
    if (!lua_isnil(L, -1) || !is_by_name(L, row)) {
        for (int c = 2; c <= columns + 1; c++)
            lua_rawgeti(L, row, c);
        if (!lua_isnil(L, -1))
            bad_row(L, number,
                    lua_pushfstring(L, "it has more values than the %d columns", columns));
        lua_pop(L, 1);
        return true;
    }
    lua_pop(L, 1);
    for (int c = 1; c <= columns; c++) {
        lua_rawgeti(L, names, c);
        lua_rawget(L, row);
        found += !lua_isnil(L, -1);
    }
    for (lua_pushnil(L); lua_next(L, row) != 0; lua_pop(L, 1))
        given++;
    return given == found;
}

/* The output of the row whose values begin at `first`; negative when its key is none, with nil and
 * the error pushed. */
static int output_of_values(lua_State *L, luna_splitter *s, int first, double number)
{
    luna_key keys[LUNA_KEY_MAX_COLUMNS], *key = keys;
    luna_err err;
    luna_key_spec one = { .columns = 1 };
    for (size_t i = 0; i < s->n_keys; i++, key++) {
        one.types[0] = s->spec.types[i];
        luna_status st = luna_read_key(L, first + (int)s->key_at[i], &one, key, &err);
        if (st != LUNA_OK) {
            luna_push_row_err(L, number, st, "%s", err.msg);
            return -1;
        }
    }
    return s->map->owner[luna_bucket_of(s->map, luna_key_row_hash(keys, s->n_keys))];
}

/* One value in COPY's text format; raises when it has no SQL form. */
static void add_value(lua_State *L, luna_splitter *s, int idx, luna_buf *out, double number,
                      int column)
{
    char where[64];
    size_t len;
    const char *text;
    switch (lua_type(L, idx)) {
    case LUA_TNIL: luna_pg_add_copy_null(out); return;
    case LUA_TNUMBER:
        luna_buf_reserve(out, LUNA_PG_DOUBLE_MAX);
        out->len += luna_pg_format_double(lua_tonumber(L, idx), out->data + out->len);
        return;
    case LUA_TSTRING:
        text = lua_tolstring(L, idx, &len);
        if (memchr(text, '\0', len) == NULL) {
            luna_pg_add_copy_field(out, text, len);
            return;
        }
        break;
    case LUA_TBOOLEAN: luna_buf_add_char(out, lua_toboolean(L, idx) ? 't' : 'f'); return;
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, idx) == NULL) {
            luna_pg_add_copy_null(out);
            return;
        }
        break;
    default: break;
    }
    snprintf(where, sizeof(where), "row %lld: value %d", (long long)number, column);
    luna_buf_clear(&s->field);
    luna_value_encode(L, idx, where, &s->field, &s->scratch);
    luna_pg_add_copy_field(out, s->field.data, s->field.len);
}

/*** Take rows in. Raises, naming the row, for one that is no table or too long, and for a value
that has no SQL form.
@function splitter:rows
@tparam {table,...} rows without metatables
@int from the first of them to be taken
@int to the last one
@tparam ?{int,...} outputs for each, from 1; nil: by the map, or all to the first one
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] lunashard.error with `index`, the row's number over all calls
@treturn[3] nil
@treturn[3] int the position in `rows` of a row with a name that is no column */
static int splitter_rows(lua_State *L)
{
    luna_splitter *s = luna_check_splitter(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    int from = luaL_checkint(L, 3), to = luaL_checkint(L, 4), columns = (int)s->reader.columns;
    lua_settop(L, 5);
    luaL_checkstack(L, columns + 8, "too many columns");
    lua_getfenv(L, 1);
    for (int r = from; r <= to; r++) {
        double number = s->rows + 1;
        lua_rawgeti(L, 2, r);
        if (!push_values(L, s, 7, 6, number)) { /* the caller finds out what it may mean */
            lua_pushnil(L);
            lua_pushinteger(L, r);
            return 2;
        }
        int at = 0;
        if (!lua_isnil(L, 5))
            at = (int)luna_named_output(L, s, 5, r - from + 1);
        else if (s->map != NULL && (at = output_of_values(L, s, 8, number)) < 0)
            return 2;
        luna_buf *out = luna_splitter_output(s, (size_t)at, number);
        for (int c = 0; c < columns; c++) {
            if (c > 0)
                luna_buf_add_char(out, '\t');
            add_value(L, s, 8 + c, out, number, c + 1);
        }
        luna_buf_add_char(out, '\n');
        s->rows = number;
        lua_settop(L, 6);
    }
    lua_pushboolean(L, 1);
    return 1;
}

void luna_copy_open_rows(lua_State *L)
{
    static const luaL_Reg methods[] = { { "rows", splitter_rows }, { NULL, NULL } };
    luaL_register(L, NULL, methods);
}
