/* handles.h - what the files of lunashard.core.pool share.  Layer: lua.
 *
 * A request is a userdata: it holds everything an exchange needs, is parked on,
 * and gives its result to `request:take()` back in the task.  A lease is one
 * too, and belongs to the task that acquired it. */
#ifndef LUNA_LUA_HANDLES_H
#define LUNA_LUA_HANDLES_H

#include "many.h"
#include "pool.h"
#include "values.h"

typedef struct luna_request_handle {
    const char *type; /* see luna_bind_check */
    luna_request request;
    luna_params params, guard; /* `guard`: those of the guard */
    luna_buf bytes, field;     /* SQL, COPY data */
    luna_many many;
} luna_request_handle;

/* The optional deadline at `idx`; 0 is none. */
double luna_opt_deadline(lua_State *L, int idx);

/* The optional generation of the map at `idx`; 0 is none. */
uint64_t luna_opt_generation(lua_State *L, int idx);

/* Push a new request. */
luna_request_handle *luna_request_push(lua_State *L, luna_request_kind kind);

/* Push a new request made of the arguments from `idx` on: sql, params, deadline.  NULL with
 * `err` filled when there are too many parameters; raises for wrong types. */
luna_request_handle *luna_request_make(lua_State *L, int idx, luna_request_kind kind,
                                       luna_err *err);

/* Fill the request at index 2, used before or new, with the arguments after it: text (of QUERY)
 * or sql (of SIMPLE), params, started, deadline, read_only, max_bytes, alone, generation,
 * late, guard's text and params.  Leaves the request on top; otherwise as
 * luna_request_make. */
luna_request_handle *luna_request_fill(lua_State *L, luna_err *err);
int luna_request_new(lua_State *L);

/* Hand the request, which is on top of L, in and park on it; to be returned by
 * the binding.  In a cancelled task nothing is sent. */
int luna_request_park_on_pool(lua_State *L, luna_request *request, luna_pool *pool);
int luna_request_park_on_lease(lua_State *L, luna_request *request, luna_lease *lease);

/* Push a new lease on `pool`, whose handle is at `idx`, and park until it has
 * its connection; to be returned by the binding. */
int luna_lease_park(lua_State *L, int idx, luna_pool *pool, double deadline, uint64_t generation);

/* The request at `idx`, the lease at index 1; raise for anything else. */
luna_request_handle *luna_request_check(lua_State *L, int idx);
luna_lease *luna_lease_check(lua_State *L);

/* Push nil and the error of a request that failed; returns 2. */
int luna_request_push_failure(lua_State *L, luna_request *request);

/* pool_many.c: methods for the tables of methods on top of the stack. */
void luna_many_open_request(lua_State *L);
void luna_many_open_lease(lua_State *L);

/* mod_pool.c: start what connections need. */
LUNA_MUSTCHECK luna_status luna_pool_start_services(luna_err *err);

/* Raise unless the options at `idx`, the last on the stack, are complete; leaves conninfo behind.
 */
void luna_pool_check_config(lua_State *L, int idx);

/* Options that were checked so, for a pool (of which a probe is a small one) to take. */
luna_pool_config luna_pool_read_config(lua_State *L, int idx);

void luna_request_register(lua_State *L);
void luna_lease_register(lua_State *L);
#endif
