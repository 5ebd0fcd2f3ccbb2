/* mod_health.c - lunashard.core.health: the state machine of health records.  Layer: lua.
 *
 * Statements that succeed are noted by way of the FFI (lunashard.manager.health): they are many. */
/*** The state of an endpoint. Scripts see it as `manager.shard_health`.
@module lunashard.core.health */
#include "health.h"

#include "bind.h"

static const char HEALTH_TYPE[] = "lunashard.health";

/* The state machine comes first: the FFI is given the userdata as a pointer to it. */
static luna_health *check_health(lua_State *L)
{
    return luaL_checkudata(L, 1, HEALTH_TYPE);
}

/*** A state that knows nothing yet.
@function new
@int limit failures in a row that make it unhealthy
@treturn userdata */
static int health_new(lua_State *L)
{
    int limit = luaL_checkint(L, 1);
    luaL_argcheck(L, limit >= 1, 1, "limit must be 1 or more");
    luna_health *health = lua_newuserdata(L, sizeof(*health));
    luna_health_init(health, (unsigned)limit);
    luaL_getmetatable(L, HEALTH_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

/*** So many failures in a row make it unhealthy from now on.
@function health:set_limit
@int limit */
static int health_set_limit(lua_State *L)
{
    luna_health *health = check_health(L);
    int limit = luaL_checkint(L, 2);
    luaL_argcheck(L, limit >= 1, 2, "limit must be 1 or more");
    health->limit = (unsigned)limit;
    return 0;
}

/*** What it is now.
@function health:state
@treturn string `unchecked`, `healthy`, `degraded`, `unhealthy` or `recovering`
@treturn string the circuit: `closed`, `open` or `half_open` */
static int health_state(lua_State *L)
{
    static const char *const statuses[] = { "unchecked", "healthy", "degraded", "unhealthy",
                                            "recovering" };
    static const char *const circuits[] = { "closed", "open", "half_open" };
    const luna_health *health = check_health(L);
    lua_pushstring(L, statuses[health->status]);
    lua_pushstring(L, circuits[health->circuit]);
    return 2;
}

/*** Failures in a row.
@function health:failures
@treturn int */
static int health_failures(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check_health(L)->failures);
    return 1;
}

/*** Moving average of how long answers took.
@function health:latency
@treturn number seconds; 0 before the first */
static int health_latency(lua_State *L)
{
    lua_pushnumber(L, check_health(L)->latency);
    return 1;
}

/*** Moving average of the share of failures.
@function health:error_rate
@treturn number 0 to 1 */
static int health_error_rate(lua_State *L)
{
    lua_pushnumber(L, check_health(L)->error_rate);
    return 1;
}

/*** A statement failed for a reason that speaks against the endpoint.
@function health:failure
@treturn boolean whether that changed the state */
static int health_failure(lua_State *L)
{
    lua_pushboolean(L, luna_health_failure(check_health(L)));
    return 1;
}

/*** A probe is sent off.
@function health:probe_begins
@treturn boolean */
static int health_probe_begins(lua_State *L)
{
    lua_pushboolean(L, luna_health_probe_begins(check_health(L)));
    return 1;
}

/*** It was answered.
@function health:probe_success
@number seconds
@treturn boolean */
static int health_probe_success(lua_State *L)
{
    luna_health *health = check_health(L);
    lua_pushboolean(L, luna_health_probe_success(health, luaL_checknumber(L, 2)));
    return 1;
}

/*** It was not answered.
@function health:probe_failure
@bool[opt] certain unhealthy at once
@treturn boolean */
static int health_probe_failure(lua_State *L)
{
    luna_health *health = check_health(L);
    lua_pushboolean(L, luna_health_probe_failure(health, lua_toboolean(L, 2)));
    return 1;
}

/*** The server is full, but there.
@function health:probe_refused
@treturn boolean */
static int health_probe_refused(lua_State *L)
{
    lua_pushboolean(L, luna_health_probe_refused(check_health(L)));
    return 1;
}

int luaopen_lunashard_core_health(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "set_limit", health_set_limit },
        { "state", health_state },
        { "failures", health_failures },
        { "latency", health_latency },
        { "error_rate", health_error_rate },
        { "failure", health_failure },
        { "probe_begins", health_probe_begins },
        { "probe_success", health_probe_success },
        { "probe_failure", health_probe_failure },
        { "probe_refused", health_probe_refused },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = { { "new", health_new }, { NULL, NULL } };
    luna_bind_type(L, HEALTH_TYPE, methods, NULL);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
