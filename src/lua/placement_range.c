/* placement_range.c - key ranges for lunashard.core.placement. */
/*** Key ranges.
@classmod lunashard.core.placement.ranges */
#include <string.h>

#include "bind.h"
#include "placement.h"
#include "range.h"

#define RANGES_TYPE "lunashard.ranges"

typedef struct ranges {
    luna_range_set set;
    luna_key_spec spec; /* one column */
} ranges;

static ranges *check_ranges(lua_State *L)
{
    return luaL_checkudata(L, 1, RANGES_TYPE);
}

/* Read field `name` of the range on top of the stack as a key; absent is open.  The table keeps
 * the text alive. */
static int check_bound(lua_State *L, const char *name, const luna_key_spec *spec, luna_key *key)
{
    luna_err err;
    lua_getfield(L, -1, name);
    int present = !lua_isnil(L, -1);
    if (present && luna_read_key(L, lua_gettop(L), spec, key, &err) != LUNA_OK)
        luaL_error(L, "%s", err.msg);
    lua_pop(L, 1);
    return present;
}

/*** Ranges of keys that share none.
@function ranges
@tparam string type of the key
@tparam {table,...} list of `{ low = , high = , high_exclusive = }`, absent bounds being open
@tparam boolean allow_gaps
@treturn[1] ranges
@treturn[2] nil
@treturn[2] string `empty`, `overlap` or `gap`
@treturn[2] number position of the range at fault
@treturn[2] number position of the one after it, in the order of keys */
static int placement_ranges(lua_State *L)
{
    static const char *const faults[] = { NULL, "empty", "overlap", "gap" };
    luna_key_spec spec;
    size_t a = 0, b = 0;
    luna_check_key_spec(L, 1, &spec);
    luaL_argcheck(L, spec.columns == 1, 1, "a range has one column");
    luaL_checktype(L, 2, LUA_TTABLE);
    int allow_gaps = lua_toboolean(L, 3);
    size_t n = lua_objlen(L, 2);

    luna_range *list = lua_newuserdata(L, (n + 1) * sizeof(*list));
    memset(list, 0, (n + 1) * sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        luaL_argcheck(L, lua_istable(L, -1), 2, "ranges must be tables");
        list[i].has_low = check_bound(L, "low", &spec, &list[i].low) != 0;
        list[i].has_high = check_bound(L, "high", &spec, &list[i].high) != 0;
        lua_getfield(L, -1, "high_exclusive");
        list[i].high_exclusive = lua_toboolean(L, -1) != 0;
        lua_pop(L, 2);
    }
    ranges *r = lua_newuserdata(L, sizeof(*r));
    memset(r, 0, sizeof(*r));
    r->spec = spec;
    luaL_getmetatable(L, RANGES_TYPE);
    lua_setmetatable(L, -2);
    luna_range_fault fault = luna_range_set_init(&r->set, list, n, allow_gaps != 0, &a, &b);
    if (fault == LUNA_RANGE_SOUND)
        return 1;
    lua_pushnil(L);
    lua_pushstring(L, faults[fault]);
    lua_pushinteger(L, (lua_Integer)a + 1);
    lua_pushinteger(L, (lua_Integer)b + 1);
    return 4;
}

static luna_status no_range(const luna_key *key, luna_err *err)
{
    char buf[LUNA_KEY_FORMAT_MAX];
    size_t len = luna_key_format(key, buf, sizeof(buf));
    const char *text = key->type == LUNA_KEY_TEXT ? key->text : buf;
    int shown = len > 60 ? 60 : (int)len;
    return luna_err_set(err, LUNA_ENOSHARD, "no range holds routing key %.*s", shown, text);
}

static luna_status find(lua_State *L, int idx, const ranges *r, uint32_t *index, luna_err *err)
{
    luna_key key;
    luna_key keys[LUNA_KEY_MAX_COLUMNS];
    luna_status st = luna_read_key(L, idx, &r->spec, keys, err);
    if (st != LUNA_OK)
        return st;
    key = keys[0];
    const luna_range *range = luna_range_find(&r->set, &key);
    if (range == NULL)
        return no_range(&key, err);
    *index = range->index;
    return LUNA_OK;
}

/*** The range that holds a key.
@function ranges:find
@param key
@treturn[1] number its position in the list given to `ranges`
@treturn[2] nil
@treturn[2] lunashard.error `NULL_KEY`, `INVALID` or `NO_SHARD` */
static int ranges_find(lua_State *L)
{
    uint32_t index;
    luna_err err;
    if (find(L, 2, check_ranges(L), &index, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    lua_pushinteger(L, (lua_Integer)index + 1);
    return 1;
}

/*** The range of each of many keys.
@function ranges:find_many
@tparam table keys a list
@treturn[1] {number,...}
@treturn[2] nil
@treturn[2] lunashard.error of the first key that fails, with its `index` */
static int ranges_find_many(lua_State *L)
{
    const ranges *r = check_ranges(L);
    luna_err err;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    size_t n = lua_objlen(L, 2);
    lua_createtable(L, (int)n, 0);
    for (size_t i = 1; i <= n; i++) {
        uint32_t index;
        lua_rawgeti(L, 2, (int)i);
        if (find(L, 4, r, &index, &err) != LUNA_OK)
            return luna_push_item_err(L, &err, i);
        lua_pushinteger(L, (lua_Integer)index + 1);
        lua_rawseti(L, 3, (int)i);
        lua_settop(L, 3);
    }
    return 1;
}

/*** The ranges that hold any key from low to high.
@function ranges:span
@param low inclusive; nil is open
@param high inclusive; nil is open
@treturn[1] {number,...} positions in the list given to `ranges`, in the order of keys
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` */
static int ranges_span(lua_State *L)
{
    const ranges *r = check_ranges(L);
    luna_key bounds[2][LUNA_KEY_MAX_COLUMNS];
    luna_err err;
    size_t first;
    lua_settop(L, 3);
    for (int i = 0; i < 2; i++) {
        if (!lua_isnil(L, 2 + i) && luna_read_key(L, 2 + i, &r->spec, bounds[i], &err) != LUNA_OK)
            return luna_push_err(L, &err);
    }
    size_t n = luna_range_span(&r->set, lua_isnil(L, 2) ? NULL : bounds[0],
                               lua_isnil(L, 3) ? NULL : bounds[1], &first);
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        lua_pushinteger(L, (lua_Integer)r->set.ranges[first + i].index + 1);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

static int ranges_gc(lua_State *L)
{
    luna_range_set_deinit(&check_ranges(L)->set);
    return 0;
}

void luna_placement_open_range(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "find", ranges_find },
        { "find_many", ranges_find_many },
        { "span", ranges_span },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", ranges_gc },
        { NULL, NULL },
    };
    luna_bind_type(L, RANGES_TYPE, methods, meta);
    lua_pushcfunction(L, placement_ranges);
    lua_setfield(L, -2, "ranges");
}
