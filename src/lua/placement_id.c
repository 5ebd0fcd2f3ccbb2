/* placement_id.c - unique ids for lunashard.core.placement. */
/*** Unique ids.
@classmod lunashard.core.placement.ids */
#include <time.h>

#include "bind.h"
#include "id.h"
#include "placement.h"

#define GENERATOR_TYPE "lunashard.id_generator"

static luna_id_generator *check_generator(lua_State *L)
{
    return luaL_checkudata(L, 1, GENERATOR_TYPE);
}

static uint32_t check_uint(lua_State *L, int arg)
{
    lua_Number n = luaL_checknumber(L, arg);
    luaL_argcheck(L, n >= 0 && n <= UINT32_MAX && n == (uint32_t)n, arg,
                  "must be a whole number, 0 or more");
    return (uint32_t)n;
}

static int64_t check_int64(lua_State *L, int arg)
{
    int64_t value = 0;
    int is_unsigned;
    if (luna_to_int64(L, arg, &value, &is_unsigned))
        return value;
    lua_Number n = luaL_checknumber(L, arg);
    luaL_argcheck(L, n >= -9007199254740992.0 && n <= 9007199254740992.0 && n == (double)(int64_t)n,
                  arg, "must be a whole number");
    return (int64_t)n;
}

/*** A generator of unique ids.
@function id_generator
@tparam number width 64 or 53 bits
@tparam number epoch_ms Unix time of id 0
@tparam number shard
@tparam number worker
@tparam number worker_bits
@treturn[1] id_generator
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` when a part does not fit its bits */
static int placement_id_generator(lua_State *L)
{
    luna_err err;
    uint32_t width = check_uint(L, 1);
    luaL_argcheck(L, width == 64 || width == 53, 1, "must be 64 or 53");
    luna_id_options options = {
        .layout = width == 64 ? LUNA_ID_64 : LUNA_ID_53,
        .epoch_ms = check_int64(L, 2),
        .shard = check_uint(L, 3),
        .worker = check_uint(L, 4),
        .worker_bits = check_uint(L, 5),
    };
    luna_id_generator *gen = lua_newuserdata(L, sizeof(*gen));
    if (luna_id_init(gen, &options, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    luaL_getmetatable(L, GENERATOR_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

/*** The next id.
@function id_generator:next
@tparam[opt] number now_ms Unix time; the system's by default
@treturn[1] number|int64
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` when the time lies outside the epoch's 34.8 years */
static int generator_next(lua_State *L)
{
    luna_id_generator *gen = check_generator(L);
    luna_err err;
    int64_t now_ms, id;
    if (lua_isnoneornil(L, 2)) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    } else {
        now_ms = check_int64(L, 2);
    }
    if (luna_id_next(gen, now_ms, &id, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    luna_push_int64(L, id);
    return 1;
}

/*** Make no id at or below this one from now on.
@function id_generator:advance
@tparam number|int64 id */
static int generator_advance(lua_State *L)
{
    luna_id_advance(check_generator(L), check_int64(L, 2));
    return 0;
}

/*** The parts of an id.
@function id_generator:decode
@tparam number|int64 id
@treturn number Unix time in ms
@treturn number shard
@treturn number worker
@treturn number sequence */
static int generator_decode(lua_State *L)
{
    const luna_id_generator *gen = check_generator(L);
    luna_id_parts parts = luna_id_decode(&gen->options, check_int64(L, 2));
    lua_pushnumber(L, (lua_Number)parts.time_ms);
    lua_pushnumber(L, parts.shard);
    lua_pushnumber(L, parts.worker);
    lua_pushnumber(L, parts.sequence);
    return 4;
}

void luna_placement_open_id(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "next", generator_next },
        { "advance", generator_advance },
        { "decode", generator_decode },
        { NULL, NULL },
    };
    luna_bind_type(L, GENERATOR_TYPE, methods, NULL);
    lua_pushcfunction(L, placement_id_generator);
    lua_setfield(L, -2, "id_generator");
}
