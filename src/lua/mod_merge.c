/* mod_merge.c - merging sorted sources of rows.  Layer: lua. */
/*** Sorted rows of several streams as one.
@classmod lunashard.core.rows.merger */
#include <lauxlib.h>
#include <string.h>

#include "bind.h"
#include "list.h"
#include "merge.h"
#include "row_source.h"

#define MERGE_TYPE "lunashard.merge"

static luna_merge *check_merge(lua_State *L)
{
    return luaL_checkudata(L, 1, MERGE_TYPE);
}

static luna_sort_family check_family(lua_State *L, int idx)
{
    static const char *const names[] = { "integer", "float", "numeric",   "bool",        "bytes",
                                         "padded",  "date",  "timestamp", "timestamptz", NULL };
    lua_getfield(L, idx, "family");
    luna_sort_family family = (luna_sort_family)luaL_checkoption(L, -1, NULL, names);
    lua_pop(L, 1);
    return family;
}

static bool get_flag(lua_State *L, int idx, const char *name)
{
    lua_getfield(L, idx, name);
    bool is = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is;
}

/* The source on top of L: its rows and the columns to compare. */
static void add_source(lua_State *L, luna_merge *merge, int i)
{
    luna_merge_source *to = &merge->sources[i];
    int at = lua_gettop(L);
    lua_getfield(L, at, "rows");
    to->rows = luna_rows_check(L, -1);
    luna_row_source_describe(L, at + 1);
    lua_getfield(L, at, "columns");
    luaL_checktype(L, -1, LUA_TTABLE);
    for (int k = 0; k < merge->n_items; k++) {
        lua_rawgeti(L, at + 2, k + 1);
        to->columns[k] = luaL_checkint(L, -1) - 1;
        if (to->columns[k] < 0 || to->columns[k] >= to->rows->n_columns)
            luaL_error(L, "merge: source %d has no column %d", i + 1, to->columns[k] + 1);
        lua_pop(L, 1);
    }
    lua_settop(L, at);
    luna_merge_describe(merge, i);
}

/*** Merge sources whose columns are known.
@function lunashard.core.rows.merge
@tparam {table,...} items each `{ family =, desc =, nulls_first = }`
@tparam {table,...} sources each `{ rows = rows, columns = {int,...}, shard_id = }`: for each item
  the number of its column
@treturn lunashard.core.rows.merger */
int luna_merge_new(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    luna_merge *merge = lua_newuserdata(L, sizeof(*merge));
    memset(merge, 0, sizeof(*merge));
    luaL_getmetatable(L, MERGE_TYPE);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, 2); /* keeps the sources, and knows their names */
    lua_setfenv(L, -2);
    luna_merge_init(merge, (int)lua_objlen(L, 1), (int)lua_objlen(L, 2));
    for (int i = 0; i < merge->n_items; i++) {
        lua_rawgeti(L, 1, i + 1);
        merge->items[i].family = check_family(L, 4);
        merge->items[i].desc = get_flag(L, 4, "desc");
        merge->items[i].nulls_first = get_flag(L, 4, "nulls_first");
        lua_pop(L, 1);
    }
    for (int i = 0; i < merge->n_sources; i++) {
        lua_rawgeti(L, 2, i + 1);
        add_source(L, merge, i);
        lua_pop(L, 1);
    }
    return 1;
}

/* The names and shards of all sources, to be at hand: two stack slots for each. */
static int push_sources(lua_State *L, const luna_merge *merge)
{
    int first = lua_gettop(L) + 2;
    luaL_checkstack(L, 2 * merge->n_sources + 8, "too many sources");
    lua_getfenv(L, 1);
    for (int i = 0; i < merge->n_sources; i++) {
        lua_rawgeti(L, first - 1, i + 1);
        lua_getfield(L, -1, "rows");
        lua_getfenv(L, -1);
        lua_replace(L, -2);
        lua_getfield(L, -2, "shard_id");
        lua_remove(L, -3);
    }
    return first;
}

static const luna_row_source *source_of(const luna_merge *merge, int i)
{
    return LUNA_CONTAINER(merge->sources[i].rows, luna_row_source, rows);
}

/*** Take the next rows.
@function merger:take
@tparam table list the rows go there, from 1 on
@tparam table shard_ids and the shards that they are from there
@int max
@treturn int how many
@treturn ?string why not `max`: `wants` more rows in a source, `end`, `unsorted` (a row of a source
comes before the row above it), `misfit` (a value is not of its family), `malformed`
@treturn ?int the source
@treturn ?int the row's number in it
@treturn ?int the item of a misfit
@treturn ?string the value of a misfit */
static int merge_take(lua_State *L)
{
    static const char *const reasons[] = {
        NULL, "wants", "end", "unsorted", "misfit", "malformed"
    };
    luna_merge *merge = check_merge(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    int max = luaL_checkint(L, 4), n = 0, source = 0;
    lua_settop(L, 4);
    for (int i = 0; i < merge->n_sources; i++)
        if (source_of(merge, i)->closed) /* keys point to where its rows were */
            return luaL_error(L, "merge: source %d is closed", i + 1);
    int first = push_sources(L, merge);
    luna_merge_outcome outcome = LUNA_MERGE_ROW;
    while (n < max && (outcome = luna_merge_next(merge, &source)) == LUNA_MERGE_ROW) {
        luna_row_push(L, source_of(merge, source), first + 2 * source,
                      merge->sources[source].fields);
        lua_rawseti(L, 2, ++n);
        lua_pushvalue(L, first + 2 * source + 1);
        lua_rawseti(L, 3, n);
    }
    lua_pushinteger(L, n);
    if (outcome == LUNA_MERGE_ROW)
        return 1;
    const luna_merge_source *at = &merge->sources[source];
    lua_pushstring(L, reasons[outcome]);
    lua_pushinteger(L, source + 1);
    lua_pushnumber(L, (lua_Number)at->row_number);
    if (outcome != LUNA_MERGE_MISFIT)
        return 4;
    const luna_field *field = &at->fields[at->columns[merge->misfit]];
    lua_pushinteger(L, merge->misfit + 1);
    lua_pushlstring(L, field->text, (size_t)field->len);
    return 6;
}

/*** A source has no more rows than it was given.
@function merger:ended
@int source */
static int merge_ended(lua_State *L)
{
    luna_merge *merge = check_merge(L);
    int source = luaL_checkint(L, 2);
    luaL_argcheck(L, source >= 1 && source <= merge->n_sources, 2, "no such source");
    merge->sources[source - 1].ended = true;
    return 0;
}

static int merge_gc(lua_State *L)
{
    luna_merge_deinit(check_merge(L));
    return 0;
}

void luna_merge_register(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "take", merge_take },
        { "ended", merge_ended },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", merge_gc }, { NULL, NULL } };
    luna_bind_type(L, MERGE_TYPE, methods, meta);
}
