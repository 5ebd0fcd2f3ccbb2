/* placement_key.c - routing keys straight from Lua values. */
#include <stdio.h>
#include <string.h>

#include "bind.h"
#include "placement.h"

static luna_key_type check_type(lua_State *L, int arg, int idx)
{
    luna_key_type type = LUNA_KEY_ANY;
    luna_err err;
    if (lua_type(L, idx) != LUA_TSTRING)
        luaL_argerror(L, arg, "key types are names");
    if (luna_key_type_parse(lua_tostring(L, idx), &type, &err) != LUNA_OK)
        luaL_argerror(L, arg, lua_pushfstring(L, "%s", err.msg));
    return type;
}

void luna_check_key_spec(lua_State *L, int arg, luna_key_spec *spec)
{
    spec->columns = 1;
    spec->types[0] = LUNA_KEY_ANY;
    if (lua_isnoneornil(L, arg))
        return;
    if (!lua_istable(L, arg)) {
        spec->types[0] = check_type(L, arg, arg);
        return;
    }
    spec->columns = lua_objlen(L, arg);
    luaL_argcheck(L, spec->columns >= 1 && spec->columns <= LUNA_KEY_MAX_COLUMNS, arg,
                  "a shard key has 1 to 32 columns");
    for (size_t i = 0; i < spec->columns; i++) {
        lua_rawgeti(L, arg, (int)i + 1);
        spec->types[i] = check_type(L, arg, -1);
        lua_pop(L, 1);
    }
}

static luna_status read_column(lua_State *L, int idx, luna_key_type type, luna_key *key,
                               luna_err *err)
{
    size_t len;
    const char *text;
    int64_t number;
    int is_unsigned;

    switch (lua_type(L, idx)) {
    case LUA_TNUMBER: return luna_key_from_double(key, type, lua_tonumber(L, idx), err);
    case LUA_TSTRING:
        text = lua_tolstring(L, idx, &len);
        return luna_key_from_text(key, type, text, len, err);
    case LUA_TNONE:
    case LUA_TNIL: return luna_err_set(err, LUNA_ENULLKEY, "routing key is NULL");
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, idx) == NULL) /* lunashard.null */
            return luna_err_set(err, LUNA_ENULLKEY, "routing key is NULL");
        break;
    case LUA_TBOOLEAN:
        return luna_err_set(err, LUNA_EINVAL, "routing key %s is a boolean, not a number or string",
                            lua_toboolean(L, idx) ? "true" : "false");
    default:
        if (!luna_to_int64(L, idx, &number, &is_unsigned))
            break;
        return is_unsigned ? luna_key_from_uint64(key, type, (uint64_t)number, err)
                           : luna_key_from_int64(key, type, number, err);
    }
    return luna_err_set(err, LUNA_EINVAL, "routing key is a %s, not a number or string",
                        lua_typename(L, lua_type(L, idx)));
}

static luna_status in_column(luna_err *err, size_t column)
{
    luna_err inner = *err;
    return luna_err_set(err, inner.code, "column %zu of the shard key: %.400s", column, inner.msg);
}

luna_status luna_read_key(lua_State *L, int idx, const luna_key_spec *spec,
                          luna_key keys[LUNA_KEY_MAX_COLUMNS], luna_err *err)
{
    if (spec->columns == 1)
        return read_column(L, idx, spec->types[0], &keys[0], err);
    if (lua_isnoneornil(L, idx))
        return luna_err_set(err, LUNA_ENULLKEY, "routing key is NULL");
    if (!lua_istable(L, idx) || lua_objlen(L, idx) > spec->columns)
        return luna_err_set(err, LUNA_EINVAL,
                            "routing key must be a table of %zu values, one for each column",
                            spec->columns);
    for (size_t i = 0; i < spec->columns; i++) {
        lua_rawgeti(L, idx, (int)i + 1);
        luna_status st = read_column(L, lua_gettop(L), spec->types[i], &keys[i], err);
        lua_pop(L, 1); /* the table keeps a text alive */
        if (st != LUNA_OK)
            return in_column(err, i + 1);
    }
    return LUNA_OK;
}

int luna_push_item_err(lua_State *L, const luna_err *err, size_t index)
{
    luna_err item;
    luna_err_set(&item, err->code, "key %zu: %.450s", index, err->msg);
    luna_push_err(L, &item);
    lua_pushinteger(L, (lua_Integer)index);
    lua_setfield(L, -2, "index");
    return 2;
}
