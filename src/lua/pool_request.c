/* pool_request.c - the request userdata of lunashard.core.pool.  Layer: lua. */
/*** Requests.
@classmod lunashard.core.pool.request */
#include <lauxlib.h>
#include <string.h>

#include "bind.h"
#include "handles.h"
#include "runtime.h"

#define REQUEST_TYPE "lunashard.request"

luna_request_handle *luna_request_push(lua_State *L, luna_request_kind kind)
{
    luna_request_handle *handle = lua_newuserdata(L, sizeof(*handle));
    memset(handle, 0, sizeof(*handle));
    luaL_getmetatable(L, REQUEST_TYPE);
    lua_setmetatable(L, -2);
    handle->request.kind = kind;
    return handle;
}

double luna_opt_deadline(lua_State *L, int idx)
{
    double deadline = luaL_optnumber(L, idx, 0);
    luaL_argcheck(L, deadline == deadline, idx, "deadline is not a number");
    return deadline;
}

/* Arguments from `idx` on: sql, params, deadline, read_only, max_bytes.  Leaves
 * the request on top; returns NULL with `err` filled when params are too many. */
luna_request_handle *luna_request_make(lua_State *L, int idx, luna_request_kind kind, luna_err *err)
{
    size_t len;
    const char *sql = luaL_checklstring(L, idx, &len);
    double deadline = luna_opt_deadline(L, idx + 2);
    int read_only = lua_toboolean(L, idx + 3);
    double max_bytes = luaL_optnumber(L, idx + 4, 0);
    if (!lua_isnoneornil(L, idx + 1))
        luaL_checktype(L, idx + 1, LUA_TTABLE);
    luaL_argcheck(L, strlen(sql) == len, idx, "SQL cannot hold a NUL byte");
    luna_task_check(L, "execute");
    luna_request_handle *handle = luna_request_push(L, kind);
    luna_request *request = &handle->request;
    if (luna_params_encode(L, idx + 1, &handle->params, err) != LUNA_OK)
        return NULL;
    luna_buf_add(&handle->bytes, sql, len + 1);
    request->sql = handle->bytes.data;
    request->n_params = handle->params.n;
    request->values = handle->params.values;
    request->lengths = handle->params.lengths;
    request->formats = handle->params.formats;
    request->w.deadline = deadline;
    request->read_only = read_only;
    request->max_bytes = (size_t)max_bytes;
    return handle;
}

static int request_park(lua_State *L, luna_request *request, luna_pool *pool, luna_lease *lease)
{
    luna_op_start(&request->w.op, &luna_rt.loop, luna_task_wake, luna_waiter_cancel);
    if (luna_task_is_cancelled()) /* its wait will raise: what it asks for must not happen */
        luna_op_post(&request->w.op, LUNA_ECANCELED);
    else if (lease != NULL)
        luna_lease_submit(lease, request);
    else
        luna_pool_submit(pool, request);
    return luna_task_park(L, &request->w.op);
}

int luna_request_park_on_pool(lua_State *L, luna_request *request, luna_pool *pool)
{
    return request_park(L, request, pool, NULL);
}

int luna_request_park_on_lease(lua_State *L, luna_request *request, luna_lease *lease)
{
    return request_park(L, request, NULL, lease);
}

static int push_failure(lua_State *L, luna_request *request)
{
    lua_pushnil(L);
    if (request->result != NULL && request->w.err.code == LUNA_ESQL)
        luna_push_sql_error(L, &request->w.err, request->result);
    else
        luna_push_err_object(L, &request->w.err);
    return 2;
}

/*** What a request received. Once; frees it.
@function request:take
@treturn[1] table|boolean result, or for `stream` and `fetch` whether more rows may come
@treturn[2] nil
@treturn[2] lunashard.error */
static int request_take(lua_State *L)
{
    luna_request_handle *handle = luaL_checkudata(L, 1, REQUEST_TYPE);
    luna_request *request = &handle->request;
    int n = 1;
    if (request->w.op.state != LUNA_OP_IDLE)
        return luaL_error(L, "the request is under way");
    if (request->w.err.code != LUNA_OK) {
        n = push_failure(L, request);
    } else if (request->rows != NULL) {
        lua_pushboolean(L, request->more);
    } else if (request->kind == LUNA_REQUEST_COPY_READ) {
        lua_pushlstring(L, handle->bytes.data, handle->bytes.len);
        if (!request->more) {
            luna_push_result(L, request->result);
            n = 2;
        }
    } else if (request->result != NULL) {
        luna_push_result(L, request->result);
    } else {
        lua_pushboolean(L, 1);
    }
    luna_request_deinit(request);
    if (request->kind == LUNA_REQUEST_COPY_WRITE || request->kind == LUNA_REQUEST_COPY_READ)
        /* large, and not counted by the collector */
        luna_buf_deinit(&handle->bytes);
    return n;
}

static int request_gc(lua_State *L)
{
    luna_request_handle *handle = luaL_checkudata(L, 1, REQUEST_TYPE);
    luna_waiter_abandon(&handle->request.w);
    luna_request_deinit(&handle->request);
    luna_params_deinit(&handle->params);
    luna_buf_deinit(&handle->bytes);
    luna_buf_deinit(&handle->field);
    return 0;
}

void luna_request_register(lua_State *L)
{
    static const luaL_Reg methods[] = { { "take", request_take }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", request_gc }, { NULL, NULL } };
    luna_bind_type(L, REQUEST_TYPE, methods, meta);
}
