/* bind.h - helpers for the mod_<name>.c files.  Layer: lua. */
#ifndef LUNA_LUA_BIND_H
#define LUNA_LUA_BIND_H

#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>

#include "err.h"

/* Create the metatable `tname` with `methods` as its __index and `meta` (may be
 * NULL) beside it.  Leaves nothing on the stack. */
void luna_bind_type(lua_State *L, const char *tname, const luaL_Reg *methods, const luaL_Reg *meta);

/* luaL_checkudata without looking the type's name up: for userdata that begin with a pointer to
 * `tname`, one array for the type, which luna_bind_new puts there. */
void *luna_bind_check(lua_State *L, int idx, const char *tname);

/* Push a new userdata of that kind, otherwise zero. */
void *luna_bind_new(lua_State *L, size_t size, const char *tname);

/* Push nil and an error object for `err`; returns 2, to be returned by the binding. */
int luna_push_err(lua_State *L, const luna_err *err);

/* Push the error object alone: `{ code, message, sqlstate, retryable }` with the
 * metatable of lunashard.errors. */
void luna_push_err_object(lua_State *L, const luna_err *err);

/* Push an int64: a number when |v| <= 2^53, otherwise int64_t cdata. */
void luna_push_int64(lua_State *L, int64_t v);

/* Is the value at `idx` int64_t or uint64_t cdata?  Then give its bits and sign. */
int luna_to_int64(lua_State *L, int idx, int64_t *v, int *is_unsigned);

/* Every binding; called through package.preload. */
int luaopen_lunashard_core_task(lua_State *L);
int luaopen_lunashard_core_pool(lua_State *L);
int luaopen_lunashard_core_rows(lua_State *L);
int luaopen_lunashard_core_placement(lua_State *L);
int luaopen_lunashard_core_decimal(lua_State *L);
int luaopen_lunashard_core_copy(lua_State *L);
int luaopen_lunashard_core_process(lua_State *L);
int luaopen_lunashard_core_sql(lua_State *L);
int luaopen_lunashard_core_health(lua_State *L);
int luaopen_lunashard_core_probe(lua_State *L);
int luaopen_lunashard_core_system(lua_State *L);
int luaopen_lunashard_core_budget(lua_State *L);
int luaopen_lunashard_core_pattern(lua_State *L);
int luaopen_lunashard_core_watch(lua_State *L);
int luaopen_lunashard_core_http(lua_State *L);
int luaopen_lunashard_core_signal(lua_State *L);
int luaopen_lunashard_core_text(lua_State *L);
int luaopen_lunashard_core_descriptor(lua_State *L);
int luaopen_lunashard_core_terminal(lua_State *L);
int luaopen_lunashard_core_history(lua_State *L);
int luaopen_lunashard_core_interrupt(lua_State *L);
#endif
