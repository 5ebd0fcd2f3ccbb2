/* pool_request.c - the request userdata of lunashard.core.pool.  Layer: lua. */
/*** Requests.
@classmod lunashard.core.pool.request */
#include <lauxlib.h>
#include <string.h>

#include "bind.h"
#include "handles.h"
#include "runtime.h"
#include "shape.h"

static const char REQUEST_TYPE[] = "lunashard.request";

luna_request_handle *luna_request_check(lua_State *L, int idx)
{
    return luna_bind_check(L, idx, REQUEST_TYPE);
}

luna_request_handle *luna_request_push(lua_State *L, luna_request_kind kind)
{
    luna_request_handle *handle = luna_bind_new(L, sizeof(*handle), REQUEST_TYPE);
    handle->request.kind = kind;
    return handle;
}

double luna_opt_deadline(lua_State *L, int idx)
{
    double deadline = luaL_optnumber(L, idx, 0);
    luaL_argcheck(L, deadline == deadline, idx, "deadline is not a number");
    return deadline;
}

uint64_t luna_opt_generation(lua_State *L, int idx)
{
    double generation = luaL_optnumber(L, idx, 0);
    luaL_argcheck(L, generation >= 0, idx, "generation is negative");
    return (uint64_t)generation;
}

static luna_status set_params(lua_State *L, luna_request_handle *handle, int idx, luna_err *err)
{
    luna_request *request = &handle->request;
    luna_status status = luna_params_encode(L, idx, &handle->params, err);
    request->n_params = handle->params.n;
    request->values = handle->params.values;
    request->lengths = handle->params.lengths;
    request->formats = handle->params.formats;
    return status;
}

static void set_sql(lua_State *L, luna_request_handle *handle, int idx)
{
    size_t len;
    const char *sql = lua_tolstring(L, idx, &len);
    luna_buf_add(&handle->bytes, sql, len + 1);
    handle->request.sql = handle->bytes.data;
}

static void check_sql(lua_State *L, int idx)
{
    size_t len;
    const char *sql = luaL_checklstring(L, idx, &len);
    luaL_argcheck(L, strlen(sql) == len, idx, "SQL cannot hold a NUL byte");
}

static void check_params(lua_State *L, int idx)
{
    if (!lua_isnoneornil(L, idx))
        luaL_checktype(L, idx, LUA_TTABLE);
}

luna_request_handle *luna_request_make(lua_State *L, int idx, luna_request_kind kind, luna_err *err)
{
    double deadline = luna_opt_deadline(L, idx + 2);
    check_sql(L, idx);
    check_params(L, idx + 1);
    luna_task_check(L, "execute");
    luna_request_handle *handle = luna_request_push(L, kind);
    if (set_params(L, handle, idx + 1, err) != LUNA_OK)
        return NULL;
    set_sql(L, handle, idx);
    handle->request.w.queued = luna_loop_clock();
    handle->request.w.deadline = deadline;
    return handle;
}

static luna_status set_guard(lua_State *L, luna_request_handle *handle, luna_text *text, int idx,
                             luna_err *err)
{
    luna_params *params = &handle->guard;
    if (text == NULL)
        return LUNA_OK;
    luna_status status = luna_params_encode(L, idx, params, err);
    handle->request.guard = (luna_call){ luna_text_ref(text), params->n, params->values,
                                         params->lengths, params->formats };
    return status;
}

/* What a request keeps for its next use is bounded. */
static void reuse(luna_request_handle *handle)
{
    const size_t most = 64 << 10;
    luna_buf *const bufs[] = { &handle->params.bytes, &handle->params.arrays,
                               &handle->params.scratch, &handle->bytes };
    for (size_t i = 0; i < sizeof(bufs) / sizeof(bufs[0]); i++) {
        if (bufs[i]->cap > most)
            luna_buf_deinit(bufs[i]);
        else
            luna_buf_clear(bufs[i]);
    }
    luna_text_unref(handle->request.text);
    luna_text_unref(handle->request.guard.text);
    luna_request_clear(&handle->request);
    luna_reply reply = handle->request.reply; /* its storage */
    memset(&handle->request, 0, sizeof(handle->request));
    handle->request.reply = reply;
}

luna_request_handle *luna_request_fill(lua_State *L, luna_err *err)
{
    luna_request_handle *handle = luna_request_check(L, 2);
    luna_text *text = luna_shape_opt_text(L, 3);
    luna_text *guard = lua_isnoneornil(L, 12) ? NULL : luna_shape_text(L, 12);
    double started = luaL_checknumber(L, 5), deadline = luna_opt_deadline(L, 6);
    uint64_t generation = luna_opt_generation(L, 10);
    if (text == NULL)
        check_sql(L, 3);
    luaL_argcheck(L, guard == NULL || text != NULL, 12, "a guard goes with a prepared statement");
    check_params(L, 4);
    luna_task_check(L, "execute");
    if (handle->request.w.op.state != LUNA_OP_IDLE)
        luaL_error(L, "the request is under way");
    reuse(handle);
    luna_request *request = &handle->request;
    if (set_params(L, handle, 4, err) != LUNA_OK || set_guard(L, handle, guard, 13, err) != LUNA_OK)
        return NULL;
    if (text != NULL) {
        request->kind = LUNA_REQUEST_QUERY;
        request->text = luna_text_ref(text);
        request->sql = text->sql;
    } else {
        request->kind = LUNA_REQUEST_SIMPLE;
        set_sql(L, handle, 3);
    }
    request->w.queued = started;
    request->w.deadline = deadline;
    request->read_only = lua_toboolean(L, 7);
    request->max_bytes = (size_t)lua_tonumber(L, 8);
    request->alone = lua_toboolean(L, 9);
    request->w.generation = generation;
    request->late = (luna_late_answer)luaL_optinteger(L, 11, LUNA_LATE_KEPT);
    lua_settop(L, 2);
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

int luna_request_push_failure(lua_State *L, luna_request *request)
{
    lua_pushnil(L);
    if (request->w.err.code == LUNA_ESQL)
        luna_push_sql_error(L, request);
    else
        luna_push_err_object(L, &request->w.err);
    return 2;
}

/*** The answer to a statement. Once; the request can be used again.
@function request:answer
@tparam userdata text the statement's, or another whose columns may be forgotten
@treturn[1] {table,...} rows
@treturn[1] {string,...} columns
@treturn[1] {string,...} column_types
@treturn[1] number row_count
@treturn[1] string command
@treturn[1] number seconds from when it was handed in
@treturn[2] nil
@treturn[2] lunashard.error */
static int request_answer(lua_State *L)
{
    luna_request_handle *handle = luna_request_check(L, 1);
    luna_request *request = &handle->request;
    luna_shape_text(L, 2);
    if (request->w.op.state != LUNA_OP_IDLE)
        return luaL_error(L, "the request is under way");
    const luna_reply *reply = &request->reply;
    bool on_lane = reply->kind == LUNA_REPLY_ROWS;
    if (request->w.err.code != LUNA_OK || (request->result == NULL && !on_lane)) {
        luna_request_push_failure(L, request);
        luna_request_clear(request);
        return 2;
    }
    lua_settop(L, 2);
    if (on_lane)
        luna_shape_push_reply(L, 2, reply);
    else
        luna_shape_push(L, 2, request->result);
    lua_pushnumber(L, request->answered - request->w.queued);
    luna_request_clear(request);
    return 6;
}

/*** What a request received. Once; frees it.
@function request:take
@treturn[1] boolean|string true, bytes of `copy_read`, or for `stream` and `fetch` whether more rows
may come
@treturn[1] ?boolean of `copy_read`: whether there are more; after the last, `answer` has the result
@treturn[2] nil
@treturn[2] lunashard.error */
static int request_take(lua_State *L)
{
    luna_request_handle *handle = luna_request_check(L, 1);
    luna_request *request = &handle->request;
    int n = 1;
    if (request->w.op.state != LUNA_OP_IDLE)
        return luaL_error(L, "the request is under way");
    if (request->w.err.code != LUNA_OK) {
        n = luna_request_push_failure(L, request);
    } else if (request->rows != NULL) {
        lua_pushboolean(L, request->more);
    } else if (request->kind == LUNA_REQUEST_COPY_READ) {
        lua_pushlstring(L, handle->bytes.data, handle->bytes.len);
        lua_pushboolean(L, request->more);
        n = 2;
    } else {
        lua_pushboolean(L, 1);
    }
    bool is_last = request->kind == LUNA_REQUEST_COPY_READ && !request->more;
    if (!is_last || request->w.err.code != LUNA_OK)
        luna_request_clear(request);
    if (request->kind == LUNA_REQUEST_COPY_WRITE || request->kind == LUNA_REQUEST_COPY_READ)
        /* large, and not counted by the collector */
        luna_buf_deinit(&handle->bytes);
    return n;
}

static int request_gc(lua_State *L)
{
    luna_request_handle *handle = luna_request_check(L, 1);
    luna_waiter_abandon(&handle->request.w);
    luna_text_unref(handle->request.text);
    luna_text_unref(handle->request.guard.text);
    handle->request.text = handle->request.guard.text = NULL;
    luna_request_deinit(&handle->request);
    luna_params_deinit(&handle->params);
    luna_params_deinit(&handle->guard);
    luna_buf_deinit(&handle->bytes);
    luna_buf_deinit(&handle->field);
    luna_many_deinit(&handle->many);
    return 0;
}

/*** A request for `execute`, to be used any number of times, one after the other.
@function request
@treturn userdata */
int luna_request_new(lua_State *L)
{
    luna_request_push(L, LUNA_REQUEST_QUERY);
    return 1;
}

void luna_request_register(lua_State *L)
{
    static const luaL_Reg methods[] = { { "take", request_take },
                                        { "answer", request_answer },
                                        { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", request_gc }, { NULL, NULL } };
    luna_bind_type(L, REQUEST_TYPE, methods, meta);
    luaL_getmetatable(L, REQUEST_TYPE);
    lua_getfield(L, -1, "__index");
    luna_many_open_request(L);
    lua_pop(L, 2);
}
