/* mod_placement.c - "lunashard.core.placement": bucket maps, and the hashes under them.  Layer:
 * lua.
 *
 * A bucket map is a userdata whose environment is the list of its shards' ids, so that routing a
 * key is one call from Lua.  Key ranges and ids are in placement_range.c and placement_id.c. */
/*** Bucket maps, hashes, key ranges and ids. Scripts use `lunashard.strategy` and `lunashard.ids`.
@module lunashard.core.placement */
#include <string.h>

#include "bind.h"
#include "placement.h"
#include "route.h"

#define MAP_TYPE "lunashard.bucket_map"
#define MAX_VIRTUAL_NODES 100000

typedef struct bucket_map {
    luna_route route; /* first: FFI passes the userdata as a luna_route */
    luna_key_spec spec;
} bucket_map;

static bucket_map *check_map(lua_State *L)
{
    return luaL_checkudata(L, 1, MAP_TYPE);
}

const luna_bucket_map *luna_check_bucket_map(lua_State *L, int arg, luna_key_spec *spec)
{
    const bucket_map *m = luaL_checkudata(L, arg, MAP_TYPE);
    *spec = m->spec;
    return &m->route.map;
}

/* Check the list of shards at `arg` and return them as an array that lives in a userdata, left on
 * the stack below a new list of their ids. */
static luna_weighted_shard *check_shards(lua_State *L, int arg, size_t *n)
{
    luaL_checktype(L, arg, LUA_TTABLE);
    *n = lua_objlen(L, arg);
    luaL_argcheck(L, *n >= 1 && *n <= LUNA_MAX_SHARDS + 1, arg, "there must be 1 to 1024 shards");
    luna_weighted_shard *shards = lua_newuserdata(L, *n * sizeof(*shards));
    lua_createtable(L, (int)*n, 0);
    for (size_t i = 0; i < *n; i++) {
        lua_rawgeti(L, arg, (int)i + 1);
        luaL_argcheck(L, lua_istable(L, -1), arg, "shards must be tables");
        lua_getfield(L, -1, "weight");
        luaL_argcheck(L, lua_isnil(L, -1) || lua_type(L, -1) == LUA_TNUMBER, arg,
                      "weights must be numbers");
        shards[i].weight = luaL_optnumber(L, -1, 1.0);
        lua_getfield(L, -2, "shard_id");
        luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, arg, "shards must have a shard_id");
        shards[i].shard_id = lua_tostring(L, -1);
        lua_rawseti(L, -4, (int)i + 1); /* the list of ids keeps the text alive */
        lua_pop(L, 2);
    }
    return shards;
}

/* Push a new, empty map whose environment is the list of ids on top of the stack. */
static bucket_map *map_new(lua_State *L, const luna_key_spec *spec)
{
    bucket_map *m = lua_newuserdata(L, sizeof(*m));
    memset(&m->route, 0, sizeof(m->route));
    m->route.type = spec->types[0];
    m->route.columns = (uint32_t)spec->columns;
    m->spec = *spec;
    luaL_getmetatable(L, MAP_TYPE);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -2);
    lua_setfenv(L, -2);
    return m;
}

/*** Map of PostgreSQL's own hash partitioning: bucket mod number of shards.
@function hash_map
@tparam ?string|{string,...} types of the shard key's columns
@tparam {table,...} shards each with `shard_id`
@treturn bucket_map */
static int placement_hash_map(lua_State *L)
{
    luna_key_spec spec;
    luna_err err;
    size_t n;
    luna_check_key_spec(L, 1, &spec);
    check_shards(L, 2, &n);
    bucket_map *m = map_new(L, &spec);
    if (luna_bucket_map_hash(&m->route.map, n, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    return 1;
}

/*** Map of a consistent hash ring.
@function ring_map
@tparam ?string|{string,...} types of the shard key's columns
@tparam {table,...} shards each with `shard_id` and `weight` (default 1)
@tparam number virtual_nodes of a shard of weight 1
@treturn[1] bucket_map
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` or `RESULT_TOO_LARGE` */
static int placement_ring_map(lua_State *L)
{
    luna_key_spec spec;
    luna_err err;
    size_t n;
    luna_check_key_spec(L, 1, &spec);
    lua_Number nodes = luaL_checknumber(L, 3);
    luaL_argcheck(L, nodes >= 1 && nodes <= MAX_VIRTUAL_NODES, 3, "must be 1 to 100000");
    const luna_weighted_shard *shards = check_shards(L, 2, &n);
    bucket_map *m = map_new(L, &spec);
    if (luna_bucket_map_ring(&m->route.map, shards, n, (unsigned)nodes, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    return 1;
}

/*** Map of weighted rendezvous hashing.
@function rendezvous_map
@tparam ?string|{string,...} types of the shard key's columns
@tparam {table,...} shards each with `shard_id` and `weight` (default 1)
@treturn[1] bucket_map
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` */
static int placement_rendezvous_map(lua_State *L)
{
    luna_key_spec spec;
    luna_err err;
    size_t n;
    luna_check_key_spec(L, 1, &spec);
    const luna_weighted_shard *shards = check_shards(L, 2, &n);
    bucket_map *m = map_new(L, &spec);
    if (luna_bucket_map_rendezvous(&m->route.map, shards, n, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    return 1;
}

/*** Map whose owners are given.
@function owner_map
@tparam ?string|{string,...} types of the shard key's columns
@tparam {table,...} shards each with `shard_id`
@tparam {number,...} owners of the buckets from 0 on: numbers of shards, from 1
@treturn[1] bucket_map
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` */
static int placement_owner_map(lua_State *L)
{
    luna_key_spec spec;
    luna_err err;
    size_t n;
    luna_check_key_spec(L, 1, &spec);
    luaL_checktype(L, 3, LUA_TTABLE);
    check_shards(L, 2, &n);
    size_t buckets = lua_objlen(L, 3);
    luaL_argcheck(L, buckets <= LUNA_MAX_BUCKETS, 3, "too many buckets");
    uint16_t *owner = lua_newuserdata(L, (buckets + 1) * sizeof(*owner));
    for (size_t b = 0; b < buckets; b++) {
        lua_rawgeti(L, 3, (int)b + 1);
        lua_Number number = lua_tonumber(L, -1); /* 0 for what is none */
        owner[b] = number >= 1 && number <= (lua_Number)n ? (uint16_t)(number - 1) : UINT16_MAX;
        lua_pop(L, 1);
    }
    lua_insert(L, -2); /* the list of ids on top */
    bucket_map *m = map_new(L, &spec);
    if (luna_bucket_map_owners(&m->route.map, owner, buckets, n, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    return 1;
}

static int32_t plain_route(lua_State *L, int idx, const bucket_map *m)
{
    size_t len;
    const char *text;
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER: return luna_route_number(&m->route, lua_tonumber(L, idx));
    case LUA_TSTRING:
        text = lua_tolstring(L, idx, &len);
        return luna_route_text(&m->route, text, len);
    default: return LUNA_ROUTE_UNKNOWN;
    }
}

static luna_status read_bucket(lua_State *L, int idx, const bucket_map *m, uint32_t *bucket,
                               luna_err *err)
{
    int32_t found = plain_route(L, idx, m);
    if (found != LUNA_ROUTE_UNKNOWN) {
        *bucket = (uint32_t)found & LUNA_ROUTE_BUCKET;
        return LUNA_OK;
    }
    luna_key keys[LUNA_KEY_MAX_COLUMNS];
    luna_status st = luna_read_key(L, idx, &m->spec, keys, err);
    if (st == LUNA_OK)
        *bucket = luna_bucket_of(&m->route.map, luna_key_row_hash(keys, m->spec.columns));
    return st;
}

/*** Where a key lives.
@function bucket_map:route
@param key
@treturn[1] string shard_id
@treturn[1] number bucket
@treturn[2] nil
@treturn[2] lunashard.error `NULL_KEY` or `INVALID` */
static int map_route(lua_State *L)
{
    const bucket_map *m = check_map(L);
    uint32_t bucket;
    luna_err err;
    if (read_bucket(L, 2, m, &bucket, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, m->route.map.owner[bucket] + 1);
    lua_pushinteger(L, (lua_Integer)bucket);
    return 2;
}

/*** The bucket of a key.
@function bucket_map:bucket
@param key
@treturn[1] number
@treturn[2] nil
@treturn[2] lunashard.error `NULL_KEY` or `INVALID` */
static int map_bucket(lua_State *L)
{
    uint32_t bucket;
    luna_err err;
    if (read_bucket(L, 2, check_map(L), &bucket, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    lua_pushinteger(L, (lua_Integer)bucket);
    return 1;
}

/*** The shard of a bucket.
@function bucket_map:owner
@tparam number bucket
@treturn ?string shard_id, or nil when there is no such bucket */
static int map_owner(lua_State *L)
{
    const bucket_map *m = check_map(L);
    lua_Number bucket = luaL_checknumber(L, 2);
    if (!(bucket >= 0 && bucket < m->route.map.buckets) || bucket != (uint32_t)bucket)
        return 0;
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, m->route.map.owner[(uint32_t)bucket] + 1);
    return 1;
}

/*** How many buckets there are.
@function bucket_map:buckets
@treturn number */
static int map_buckets(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check_map(L)->route.map.buckets);
    return 1;
}

/* Push a table shard_id -> counts[i], for the ids in the map's environment. */
static void push_counts(lua_State *L, const bucket_map *m, const double *counts)
{
    lua_getfenv(L, 1);
    lua_createtable(L, 0, (int)m->route.map.shards);
    for (uint32_t i = 0; i < m->route.map.shards; i++) {
        lua_rawgeti(L, -2, (int)i + 1);
        lua_pushnumber(L, counts[i]);
        lua_rawset(L, -3);
    }
}

static double *new_counts(lua_State *L, const bucket_map *m)
{
    double *counts = lua_newuserdata(L, m->route.map.shards * sizeof(*counts));
    for (uint32_t i = 0; i < m->route.map.shards; i++)
        counts[i] = 0;
    return counts;
}

/*** How many of the given keys each shard owns.
@function bucket_map:count
@tparam table keys a list
@treturn[1] table shard_id -> number, zeros included
@treturn[2] nil
@treturn[2] lunashard.error of the first bad key, with its `index` */
static int map_count(lua_State *L)
{
    const bucket_map *m = check_map(L);
    luna_err err;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    size_t n = lua_objlen(L, 2);
    double *counts = new_counts(L, m);
    for (size_t i = 1; i <= n; i++) {
        uint32_t bucket;
        lua_rawgeti(L, 2, (int)i);
        if (read_bucket(L, 4, m, &bucket, &err) != LUNA_OK)
            return luna_push_item_err(L, &err, i);
        counts[m->route.map.owner[bucket]]++;
        lua_settop(L, 3);
    }
    push_counts(L, m, counts);
    return 1;
}

/*** How many buckets each shard owns.
@function bucket_map:shares
@treturn table shard_id -> number, zeros included */
static int map_shares(lua_State *L)
{
    const bucket_map *m = check_map(L);
    double *counts = new_counts(L, m);
    for (uint32_t b = 0; b < m->route.map.buckets; b++)
        counts[m->route.map.owner[b]]++;
    push_counts(L, m, counts);
    return 1;
}

static int map_gc(lua_State *L)
{
    luna_bucket_map_deinit(&check_map(L)->route.map);
    return 0;
}

static void push_canonical(lua_State *L, const luna_key *key, int idx)
{
    char buf[LUNA_KEY_FORMAT_MAX];
    size_t len = luna_key_format(key, buf, sizeof(buf));
    if (key->type == LUNA_KEY_TEXT)
        lua_pushlstring(L, key->text, key->len);
    else if (key->type == LUNA_KEY_INT8)
        luna_push_int64(L, key->number);
    else
        lua_pushlstring(L, buf, len);
    if (idx > 0)
        lua_rawseti(L, -2, idx);
}

/*** The canonical form of a key: a number (int64 beyond 2^53), a text, a lower-case UUID,
YYYY-MM-DD; a list of these for several columns.
@function canonical
@tparam ?string|{string,...} types
@param key
@return[1] the key
@treturn[2] nil
@treturn[2] lunashard.error `NULL_KEY` or `INVALID` */
static int placement_canonical(lua_State *L)
{
    luna_key_spec spec;
    luna_key keys[LUNA_KEY_MAX_COLUMNS];
    luna_err err;
    luna_check_key_spec(L, 1, &spec);
    lua_settop(L, 2);
    if (luna_read_key(L, 2, &spec, keys, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    if (spec.columns == 1) {
        push_canonical(L, &keys[0], 0);
        return 1;
    }
    lua_createtable(L, (int)spec.columns, 0);
    for (size_t i = 0; i < spec.columns; i++)
        push_canonical(L, &keys[i], (int)i + 1);
    return 1;
}

/*** The row hash of a key, as PostgreSQL's hash partitioning computes it, as a signed int8.
@function row_hash
@tparam ?string|{string,...} types
@param key
@treturn[1] number|int64
@treturn[2] nil
@treturn[2] lunashard.error `NULL_KEY` or `INVALID` */
static int placement_row_hash(lua_State *L)
{
    luna_key_spec spec;
    luna_key keys[LUNA_KEY_MAX_COLUMNS];
    luna_err err;
    luna_check_key_spec(L, 1, &spec);
    lua_settop(L, 2);
    if (luna_read_key(L, 2, &spec, keys, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    luna_push_int64(L, (int64_t)luna_key_row_hash(keys, spec.columns));
    return 1;
}

int luaopen_lunashard_core_placement(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "route", map_route }, { "bucket", map_bucket },
        { "owner", map_owner }, { "buckets", map_buckets },
        { "count", map_count }, { "shares", map_shares },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", map_gc },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "hash_map", placement_hash_map },
        { "ring_map", placement_ring_map },
        { "rendezvous_map", placement_rendezvous_map },
        { "owner_map", placement_owner_map },
        { "canonical", placement_canonical },
        { "row_hash", placement_row_hash },
        { NULL, NULL },
    };
    luna_bind_type(L, MAP_TYPE, methods, meta);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    luna_placement_open_range(L);
    luna_placement_open_id(L);
    return 1;
}
