/* mod_pool.c - lunashard.core.pool: pools.  Layer: lua.
 *
 * Leases and requests are in pool_lease.c and pool_request.c. */
/*** Pools, leases and requests. Scripts use `lunashard.pool`.
@module lunashard.core.pool */
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "handles.h"
#include "runtime.h"
#include "shape.h"

static const char POOL_TYPE[] = "lunashard.pool";
static const char TERM_TYPE[] = "lunashard.term";

typedef struct pool_handle {
    const char *type; /* see luna_bind_check */
    luna_pool *pool;  /* NULL once closed */
} pool_handle;

static luna_pool *check_pool(lua_State *L)
{
    pool_handle *handle = luna_bind_check(L, 1, POOL_TYPE);
    return handle->pool;
}

static int closed_error(lua_State *L)
{
    luna_err err;
    luna_err_set(&err, LUNA_ECLOSED, "the pool is closed");
    return luna_push_err(L, &err);
}

/* ---- making a pool ------------------------------------------------------------- */

static double number_field(lua_State *L, int idx, const char *name)
{
    lua_getfield(L, idx, name);
    double v = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return v;
}

static bool bool_field(lua_State *L, int idx, const char *name)
{
    lua_getfield(L, idx, name);
    bool v = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return v;
}

static char *string_field(lua_State *L, int idx, const char *name)
{
    lua_getfield(L, idx, name);
    char *s = strdup(lua_tostring(L, -1));
    lua_pop(L, 1);
    if (s == NULL)
        abort();
    return s;
}

/* The libpq parameters at `idx`, all strings, as two NULL-terminated arrays. */
static void conninfo(lua_State *L, int idx, luna_conn_config *conn)
{
    size_t n = 0;
    for (lua_pushnil(L); lua_next(L, idx) != 0; lua_pop(L, 1))
        n++;
    char **keywords = calloc(n + 1, sizeof(char *)), **values = calloc(n + 1, sizeof(char *));
    if (keywords == NULL || values == NULL)
        abort();
    n = 0;
    for (lua_pushnil(L); lua_next(L, idx) != 0; lua_pop(L, 1)) {
        keywords[n] = strdup(lua_tostring(L, -2));
        values[n] = strdup(lua_tostring(L, -1));
        if (keywords[n] == NULL || values[n++] == NULL)
            abort();
    }
    conn->keywords = (const char *const *)keywords;
    conn->values = (const char *const *)values;
}

luna_status luna_pool_start_services(luna_err *err)
{
    if (luna_rt.resolver == NULL &&
        (luna_rt.resolver = luna_resolver_new(&luna_rt.loop, err)) == NULL)
        return err->code;
    if (luna_rt.canceler == NULL && (luna_rt.canceler = luna_canceler_new(&luna_rt.loop)) == NULL)
        abort();
    return LUNA_OK;
}

void luna_pool_check_config(lua_State *L, int idx)
{
    static const char *const strings[] = { "host", "endpoint" };
    luaL_checktype(L, idx, LUA_TTABLE);
    for (size_t i = 0; i < 2; i++) {
        lua_getfield(L, idx, strings[i]);
        if (!lua_isstring(L, -1))
            luaL_error(L, "pool: %s is missing", strings[i]);
    }
    lua_settop(L, idx);
    lua_getfield(L, idx, "conninfo");
    luaL_checktype(L, idx + 1, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, idx + 1) != 0; lua_pop(L, 1))
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "pool: conninfo holds strings only");
}

luna_pool_config luna_pool_read_config(lua_State *L, int idx)
{
    luna_pool_config cfg = {
        .conn = {
            .loop = &luna_rt.loop,
            .resolver = luna_rt.resolver,
            .canceler = luna_rt.canceler,
            .connection_timeout = number_field(L, idx, "connection_timeout"),
            .statement_cache = (unsigned)number_field(L, idx, "statement_cache"),
            .slow_statement = number_field(L, idx, "slow_statement"),
        },
        .max_size = (unsigned)number_field(L, idx, "max_size"),
        .min_size = (unsigned)number_field(L, idx, "min_size"),
        .max_waiters = (unsigned)number_field(L, idx, "max_waiters"),
        .idle_timeout = number_field(L, idx, "idle_timeout"),
        .max_lifetime = number_field(L, idx, "max_lifetime"),
        .pipeline = bool_field(L, idx, "pipeline"),
        .read_batches = bool_field(L, idx, "read_batches"),
    };
    cfg.conn.host = string_field(L, idx, "host");
    cfg.conn.endpoint = string_field(L, idx, "endpoint");
    conninfo(L, idx + 1, &cfg.conn);
    return cfg;
}

/*** Make a pool. Checked and called by `lunashard.pool`.
@function new
@tparam table options `host endpoint max_size min_size max_waiters connection_timeout
  idle_timeout max_lifetime statement_cache slow_statement pipeline read_batches`, and `conninfo`:
libpq parameters as strings
@treturn[1] userdata
@treturn[2] nil
@treturn[2] lunashard.error */
static int pool_new(lua_State *L)
{
    luna_err err;
    lua_settop(L, 1);
    luna_pool_check_config(L, 1);
    if (luna_pool_start_services(&err) != LUNA_OK)
        return luna_push_err(L, &err);
    pool_handle *handle = luna_bind_new(L, sizeof(*handle), POOL_TYPE);
    luna_pool_config cfg = luna_pool_read_config(L, 1);
    handle->pool = luna_pool_new(&cfg);
    return 1;
}

/*** Use other settings from now on, of the same host; does nothing when closed.
@function pool:reconfigure
@tparam table options as for `new` */
static int pool_reconfigure(lua_State *L)
{
    luna_pool *pool = check_pool(L);
    lua_settop(L, 2);
    luna_pool_check_config(L, 2);
    if (pool != NULL) {
        luna_pool_config cfg = luna_pool_read_config(L, 2);
        luna_pool_reconfigure(pool, &cfg);
    }
    return 0;
}

/*** Close connections as soon as they are free, for no new work will come.
@function pool:drain */
static int pool_drain(lua_State *L)
{
    luna_pool *pool = check_pool(L);
    if (pool != NULL)
        luna_pool_drain(pool);
    return 0;
}

/*** Fail what waits for a connection, with SHARD_DOWN. It was never sent.
@function pool:refuse_waiting
@string why */
static int pool_refuse_waiting(lua_State *L)
{
    luna_pool *pool = check_pool(L);
    const char *why = luaL_checkstring(L, 2);
    if (pool != NULL)
        luna_pool_refuse_waiting(pool, why);
    return 0;
}

/*** Run a statement in autocommit. Yields; called through `lunashard.pool`.
@function pool:execute
@tparam userdata request
@tparam userdata|string text a string goes by the simple protocol, without parameters
@tparam ?table params
@number started when the caller was called, on the clock of `lunashard.now`
@tparam ?number deadline
@tparam ?boolean read_only
@tparam ?number max_bytes of the result
@tparam ?boolean alone not on a shared connection
@tparam ?number generation of the map by which it was routed: it relies on the pool's term
@tparam ?number late what becomes of an answer after the term: 0 kept, 1 asked for again, 2 an
unknown outcome
@tparam ?userdata guard text of what runs before it in the same transaction; not on a lease
@tparam ?table guard_params
@treturn[1] userdata the request, to be asked with `answer`
@treturn[2] nil
@treturn[2] lunashard.error */
static int pool_execute(lua_State *L)
{
    luna_err err;
    luna_pool *pool = check_pool(L);
    if (pool == NULL)
        return closed_error(L);
    luna_request_handle *handle = luna_request_fill(L, &err);
    if (handle == NULL)
        return luna_push_err(L, &err);
    return luna_request_park_on_pool(L, &handle->request, pool);
}

/*** Wait for a connection of one's own. Yields; called through `lunashard.pool`.
It is given back when the task ends, at the latest.
@function pool:acquire
@tparam ?number deadline
@tparam ?number generation as for `execute`; it is counted up to the lease's end
@treturn userdata lease, to be asked with `opened` */
static int pool_acquire(lua_State *L)
{
    luna_pool *pool = check_pool(L);
    double deadline = luna_opt_deadline(L, 2);
    uint64_t generation = luna_opt_generation(L, 3);
    if (pool == NULL)
        return closed_error(L);
    luna_task_check(L, "acquire");
    return luna_lease_park(L, 1, pool, deadline, generation);
}

/* ---- the pool's other methods ---------------------------------------------------------- */

/*** How much there is to do: statements and leases that run or wait.
@function pool:load
@treturn number 0 when closed */
static int pool_load(lua_State *L)
{
    const luna_pool *pool = check_pool(L);
    lua_pushnumber(L, pool != NULL ? luna_pool_load(pool) : 0);
    return 1;
}

/*** What the pool is doing.
@function pool:stats
@treturn ?table `size used idle connecting waiting max_size min_size queries errors connects
  connect_failures wait_time lanes shared batched batches reruns refused cancels cancelling
last_error`, and `waits`: how often work waited up to 2^-13, 2^-11, ... 2^5 seconds, and longer; nil
when closed */
static int pool_stats(lua_State *L)
{
    luna_pool *pool = check_pool(L);
    luna_pool_stats stats;
    if (pool == NULL)
        return 0;
    luna_pool_get_stats(pool, &stats);
    const struct {
        const char *name;
        double value;
    } fields[] = {
        { "size", stats.size },
        { "used", stats.used },
        { "idle", stats.idle },
        { "connecting", stats.connecting },
        { "waiting", stats.waiting },
        { "max_size", stats.max_size },
        { "min_size", stats.min_size },
        { "queries", (double)stats.queries },
        { "errors", (double)stats.errors },
        { "connects", (double)stats.connects },
        { "connect_failures", (double)stats.connect_failures },
        { "wait_time", stats.wait_time },
        { "lanes", stats.lanes },
        { "shared", (double)stats.shared },
        { "batched", (double)stats.batched },
        { "batches", (double)stats.batches },
        { "reruns", (double)stats.reruns },
        { "refused", (double)stats.refused },
        { "cancels", (double)stats.cancels },
        { "cancelling", stats.cancelling },
    };
    lua_createtable(L, 0, 24);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        lua_pushnumber(L, fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
    lua_createtable(L, LUNA_POOL_WAITS, 0);
    for (int i = 0; i < LUNA_POOL_WAITS; i++) {
        lua_pushnumber(L, (double)stats.waits[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "waits");
    if (stats.last_error[0] != '\0') {
        lua_pushstring(L, stats.last_error);
        lua_setfield(L, -2, "last_error");
    }
    return 1;
}

/*** Close every connection; what runs or waits ends with `CLOSED`. Any number of times.
@function pool:close */
static int pool_close(lua_State *L)
{
    pool_handle *handle = luna_bind_check(L, 1, POOL_TYPE);
    if (handle->pool != NULL)
        luna_pool_free(handle->pool);
    handle->pool = NULL;
    return 0;
}

/* ---- terms ----------------------------------------------------------------------------- */

typedef struct term_handle {
    const char *type; /* see luna_bind_check */
    luna_term *term;
} term_handle;

static luna_term *check_term(lua_State *L, int idx)
{
    term_handle *handle = luna_bind_check(L, idx, TERM_TYPE);
    return handle->term;
}

/*** How long, and by which map, statements may be sent without a guard; it is over at first.
@function term
@treturn userdata */
static int term_new(lua_State *L)
{
    term_handle *handle = luna_bind_new(L, sizeof(*handle), TERM_TYPE);
    handle->term = luna_term_new();
    return 1;
}

/*** Set all of a term.
@function term:set
@number generation of the map: what was routed by another one is not sent
@number ends on the clock of `lunashard.now`
@number lost what relied on this generation, or on an earlier one, has outlived its term */
static int term_set(lua_State *L)
{
    luna_term *term = check_term(L, 1);
    uint64_t generation = luna_opt_generation(L, 2), lost = luna_opt_generation(L, 4);
    term->until = luaL_checknumber(L, 3);
    term->generation = generation;
    term->lost = lost;
    return 0;
}

/*** How many statements and leases are under way that rely on the term.
@function term:running
@treturn number */
static int term_running(lua_State *L)
{
    lua_pushnumber(L, check_term(L, 1)->running);
    return 1;
}

static int term_gc(lua_State *L)
{
    term_handle *handle = luna_bind_check(L, 1, TERM_TYPE);
    luna_term_unref(handle->term);
    handle->term = NULL;
    return 0;
}

/*** Let what has a generation rely on a term; once, before anything has.
@function pool:rely
@tparam userdata term */
static int pool_rely(lua_State *L)
{
    luna_pool *pool = check_pool(L);
    luna_term *term = check_term(L, 2);
    if (pool != NULL)
        luna_pool_rely(pool, term);
    return 0;
}

/*** Mark bytes as a bytea parameter.
@function bytea
@string bytes
@treturn table */
static int new_bytea(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    luaL_getmetatable(L, LUNA_BYTEA_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

/*** Ask other DNS servers. Checked and called by `lunashard.dns`.
@function set_dns_servers
@tparam ?string servers numeric addresses with commas between them, each with `:port` or not; nil
for those of the system
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] lunashard.error */
static int set_dns_servers(lua_State *L)
{
    const char *servers = luaL_optstring(L, 1, NULL);
    luna_err err;
    if (luna_pool_start_services(&err) != LUNA_OK ||
        luna_resolver_use(luna_rt.resolver, servers, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

int luaopen_lunashard_core_pool(lua_State *L)
{
    static const luaL_Reg pool_methods[] = {
        { "execute", pool_execute }, { "acquire", pool_acquire },
        { "load", pool_load },       { "reconfigure", pool_reconfigure },
        { "drain", pool_drain },     { "refuse_waiting", pool_refuse_waiting },
        { "rely", pool_rely },       { "stats", pool_stats },
        { "close", pool_close },     { NULL, NULL },
    };
    static const luaL_Reg pool_meta[] = { { "__gc", pool_close }, { NULL, NULL } };
    static const luaL_Reg term_methods[] = { { "set", term_set },
                                             { "running", term_running },
                                             { NULL, NULL } };
    static const luaL_Reg term_meta[] = { { "__gc", term_gc }, { NULL, NULL } };
    static const luaL_Reg no_methods[] = { { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "new", pool_new },
        { "bytea", new_bytea },
        { "request", luna_request_new },
        { "set_dns_servers", set_dns_servers },
        { "text", luna_shape_new_text },
        { "term", term_new },
        { NULL, NULL },
    };
    luna_bind_type(L, POOL_TYPE, pool_methods, pool_meta);
    luna_bind_type(L, TERM_TYPE, term_methods, term_meta);
    luna_lease_register(L);
    luna_request_register(L);
    luna_shape_register(L);
    luna_bind_type(L, LUNA_BYTEA_TYPE, no_methods, NULL);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}
