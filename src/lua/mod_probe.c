/* mod_probe.c - lunashard.core.probe: looking at endpoints.  Layer: lua. */
/*** Probes. Used by `lunashard.manager.probe`.
@module lunashard.core.probe */
#include "probe.h"

#include <math.h>

#include "bind.h"
#include "handles.h"
#include "runtime.h"

#define PROBE_TYPE "lunashard.probe"
#define LOOK_TYPE "lunashard.look"

static luna_probe **check_probe(lua_State *L)
{
    return luaL_checkudata(L, 1, PROBE_TYPE);
}

/*** Make a probe. It connects with its first look.
@function new
@tparam table options as for `lunashard.core.pool.new`; those of the connection and `max_lifetime`
count
@treturn[1] userdata
@treturn[2] nil
@treturn[2] lunashard.error */
static int probe_new(lua_State *L)
{
    luna_err err;
    lua_settop(L, 1);
    luna_pool_check_config(L, 1);
    if (luna_pool_start_services(&err) != LUNA_OK)
        return luna_push_err(L, &err);
    luna_probe **handle = lua_newuserdata(L, sizeof(*handle));
    *handle = NULL;
    luaL_getmetatable(L, PROBE_TYPE);
    lua_setmetatable(L, -2);
    luna_pool_config cfg = luna_pool_read_config(L, 1);
    *handle = luna_probe_new(&cfg.conn, cfg.max_lifetime);
    return 1;
}

/*** Connect with other parameters from now on; does nothing when closed.
@function probe:reconfigure
@tparam table options as for `new` */
static int probe_reconfigure(lua_State *L)
{
    luna_probe **handle = check_probe(L);
    lua_settop(L, 2);
    luna_pool_check_config(L, 2);
    if (*handle != NULL) {
        luna_pool_config cfg = luna_pool_read_config(L, 2);
        luna_probe_reconfigure(*handle, &cfg.conn, cfg.max_lifetime);
    }
    return 0;
}

/*** Look at the endpoint. Yields; called through `lunashard.manager.probe`.
@function probe:look
@number deadline on the clock of `lunashard.now`
@treturn[1] userdata to be asked for its `report`
@treturn[2] nil
@treturn[2] lunashard.error */
static int probe_look(lua_State *L)
{
    luna_probe **handle = check_probe(L);
    double deadline = luaL_checknumber(L, 2);
    luaL_argcheck(L, deadline > 0, 2, "a deadline is needed");
    if (*handle == NULL) {
        luna_err err;
        luna_err_set(&err, LUNA_ECLOSED, "the probe is closed");
        return luna_push_err(L, &err);
    }
    luna_task_check(L, "look");
    luna_look *look = lua_newuserdata(L, sizeof(*look));
    *look = (luna_look){ 0 };
    luaL_getmetatable(L, LOOK_TYPE);
    lua_setmetatable(L, -2);
    luna_probe_look(*handle, look, deadline, luna_task_wake);
    return luna_task_park(L, &look->op);
}

/*** Close the connection; a look that is under way ends with `CLOSED`. Any number of times.
@function probe:close */
static int probe_close(lua_State *L)
{
    luna_probe **handle = check_probe(L);
    luna_probe *probe = *handle;
    *handle = NULL;
    if (probe != NULL)
        luna_probe_free(probe);
    return 0;
}

static void set_number(lua_State *L, const char *name, double value)
{
    if (!isnan(value)) {
        lua_pushnumber(L, value);
        lua_setfield(L, -2, name);
    }
}

static void set_bool(lua_State *L, const char *name, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

static void set_text(lua_State *L, const char *name, const char *value)
{
    if (value[0] != '\0') {
        lua_pushstring(L, value);
        lua_setfield(L, -2, name);
    }
}

/*** What was seen.
@function look:report
@treturn[1] table `latency in_recovery streaming managed`, and as far as the server said it
`timeline lsn received replay_age system_identifier started server_encoding`
@treturn[2] nil
@treturn[2] lunashard.error */
static int look_report(lua_State *L)
{
    const luna_look *look = luaL_checkudata(L, 1, LOOK_TYPE);
    if (look->err.code != LUNA_OK)
        return luna_push_err(L, &look->err);
    const luna_report *report = &look->report;
    lua_createtable(L, 0, 13);
    set_number(L, "latency", report->latency);
    set_bool(L, "in_recovery", report->in_recovery);
    set_bool(L, "streaming", report->streaming);
    set_bool(L, "managed", report->managed);
    set_number(L, "timeline", report->timeline);
    set_number(L, "lsn", report->lsn);
    set_number(L, "received", report->received);
    set_number(L, "replay_age", report->replay_age);
    set_text(L, "system_identifier", report->system_identifier);
    set_text(L, "started", report->started);
    set_text(L, "server_encoding", report->encoding);
    return 1;
}

static int look_gc(lua_State *L)
{
    luna_look_abandon(luaL_checkudata(L, 1, LOOK_TYPE));
    return 0;
}

int luaopen_lunashard_core_probe(lua_State *L)
{
    static const luaL_Reg probe_methods[] = {
        { "look", probe_look },
        { "reconfigure", probe_reconfigure },
        { "close", probe_close },
        { NULL, NULL },
    };
    static const luaL_Reg probe_meta[] = { { "__gc", probe_close }, { NULL, NULL } };
    static const luaL_Reg look_methods[] = { { "report", look_report }, { NULL, NULL } };
    static const luaL_Reg look_meta[] = { { "__gc", look_gc }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "new", probe_new }, { NULL, NULL } };
    luna_bind_type(L, PROBE_TYPE, probe_methods, probe_meta);
    luna_bind_type(L, LOOK_TYPE, look_methods, look_meta);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
