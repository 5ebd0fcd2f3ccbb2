/* pool_lease.c - the lease userdata of lunashard.core.pool.  Layer: lua. */
/*** Leases.
@classmod lunashard.core.pool.lease */
#include <lauxlib.h>
#include <string.h>

#include "bind.h"
#include "copy.h"
#include "handles.h"
#include "row_source.h"
#include "runtime.h"

#define LEASE_TYPE "lunashard.lease"

typedef struct lease_handle {
    luna_lease lease;
    luna_held held;
} lease_handle;

luna_lease *luna_lease_check(lua_State *L)
{
    lease_handle *handle = luaL_checkudata(L, 1, LEASE_TYPE);
    return &handle->lease;
}

static void on_held_release(luna_held *held)
{
    luna_lease_release(&LUNA_CONTAINER(held, lease_handle, held)->lease);
}

int luna_lease_park(lua_State *L, int idx, luna_pool *pool, double deadline, uint64_t generation)
{
    lease_handle *handle = lua_newuserdata(L, sizeof(*handle));
    memset(handle, 0, sizeof(*handle));
    luna_list_init(&handle->held.link);
    handle->held.release = on_held_release;
    luaL_getmetatable(L, LEASE_TYPE);
    lua_setmetatable(L, -2);
    lua_createtable(L, 1, 0); /* the pool lives as long as the lease */
    lua_pushvalue(L, idx);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    luna_task_hold(&handle->held);
    handle->lease.w.deadline = deadline;
    handle->lease.w.generation = generation;
    luna_op_start(&handle->lease.w.op, &luna_rt.loop, luna_task_wake, luna_waiter_cancel);
    luna_pool_acquire(pool, &handle->lease);
    return luna_task_park(L, &handle->lease.w.op);
}

/*** Did `acquire` get a connection?
@function lease:opened
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] lunashard.error */
static int lease_opened(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    if (lease->w.op.status != LUNA_OK)
        return luna_push_err(L, &lease->w.err);
    lua_pushboolean(L, 1);
    return 1;
}

/*** Run a statement. Yields; arguments and results as for `pool:execute`.
@function lease:execute */
static int lease_execute(lua_State *L)
{
    luna_err err;
    luna_lease *lease = luna_lease_check(L);
    luna_request_handle *handle = luna_request_fill(L, &err);
    if (handle == NULL)
        return luna_push_err(L, &err);
    return luna_request_park_on_lease(L, &handle->request, lease);
}

/* Rows go to the userdata at `rows_idx`, which lives as long as the request on top of L. */
static void request_into(lua_State *L, luna_request *request, int rows_idx)
{
    request->rows = luna_rows_check(L, rows_idx);
    luna_rows_compact(request->rows);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, rows_idx);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
}

/*** Start a query whose rows are fetched piece by piece. Yields.
The request is done with the first rows, whether there are any or not; its result says whether more
may come.
@function lease:stream
@tparam lunashard.core.rows rows
@string sql
@tparam ?table params
@tparam ?number deadline
@treturn userdata request */
static int lease_stream(lua_State *L)
{
    luna_err err;
    luna_lease *lease = luna_lease_check(L);
    luna_rows_check(L, 2);
    luna_request_handle *handle = luna_request_make(L, 3, LUNA_REQUEST_STREAM, &err);
    if (handle == NULL)
        return luna_push_err(L, &err);
    request_into(L, &handle->request, 2);
    return luna_request_park_on_lease(L, &handle->request, lease);
}

/*** Wait for more rows of a stream. Yields.
@function lease:fetch
@tparam lunashard.core.rows rows
@tparam ?number deadline
@treturn userdata request */
static int lease_fetch(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    luna_rows_check(L, 2);
    double deadline = luna_opt_deadline(L, 3);
    luna_task_check(L, "fetch");
    luna_request *request = &luna_request_push(L, LUNA_REQUEST_FETCH)->request;
    request_into(L, request, 2);
    request->read_only = true;
    request->w.queued = luna_loop_clock();
    request->w.deadline = deadline;
    return luna_request_park_on_lease(L, request, lease);
}

/*** Wait until a notification has come for the session, which LISTENs. Yields. Whoever is cancelled
here loses the connection.
@function lease:notified
@treturn userdata request */
static int lease_notified(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    luna_task_check(L, "notified");
    luna_request *request = &luna_request_push(L, LUNA_REQUEST_NOTIFIED)->request;
    request->read_only = true;
    request->w.queued = luna_loop_clock();
    return luna_request_park_on_lease(L, request, lease);
}

/*** End a stream before its last row: cancels it on the server.
@function lease:abandon */
static int lease_abandon(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    if (lease->w.conn != NULL && lease->w.conn->state == LUNA_CONN_STREAMING)
        luna_conn_abandon(lease->w.conn);
    return 0;
}

static int start_copy(lua_State *L, luna_request_kind kind)
{
    luna_err err;
    luna_lease *lease = luna_lease_check(L);
    double deadline = luna_opt_deadline(L, 3);
    lua_settop(L, 2);
    lua_pushnil(L);
    lua_pushnumber(L, deadline);
    luna_request_handle *handle = luna_request_make(L, 2, kind, &err);
    return luna_request_park_on_lease(L, &handle->request, lease);
}

/*** Start COPY ... FROM STDIN. Yields.
@function lease:copy_in
@string sql
@tparam ?number deadline
@treturn userdata request */
static int lease_copy_in(lua_State *L)
{
    return start_copy(L, LUNA_REQUEST_COPY_IN);
}

/*** Start COPY ... TO STDOUT. Yields.
@function lease:copy_out
@string sql
@tparam ?number deadline
@treturn userdata request */
static int lease_copy_out(lua_State *L)
{
    return start_copy(L, LUNA_REQUEST_COPY_OUT);
}

/*** Read whole rows of COPY data. Yields.
@function lease:copy_read
@tparam ?number deadline
@treturn userdata request; it gives bytes, and with the last ones the result */
static int lease_copy_read(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    double deadline = luna_opt_deadline(L, 2);
    luna_task_check(L, "copy_read");
    luna_request_handle *handle = luna_request_push(L, LUNA_REQUEST_COPY_READ);
    handle->request.received = &handle->bytes;
    handle->request.read_only = true;
    handle->request.w.queued = luna_loop_clock();
    handle->request.w.deadline = deadline;
    return luna_request_park_on_lease(L, &handle->request, lease);
}

/*** Send COPY data: bytes, or rows to be written in the text format. Yields.
@function lease:copy_write
@tparam string|table|buffer data a buffer of `lunashard.core.copy` is empty afterwards
@tparam ?int n_columns for rows
@tparam ?number deadline
@treturn userdata request */
static int lease_copy_write(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    double deadline = luna_opt_deadline(L, 4);
    int n_columns = luaL_optint(L, 3, 0);
    luna_buf *ready = luna_to_copy_buffer(L, 2);
    if (ready == NULL && lua_type(L, 2) != LUA_TSTRING)
        luaL_checktype(L, 2, LUA_TTABLE);
    luna_task_check(L, "copy_write");
    luna_request_handle *handle = luna_request_push(L, LUNA_REQUEST_COPY_WRITE);
    luna_request *request = &handle->request;
    if (ready != NULL) {
        luna_buf empty = handle->bytes;
        handle->bytes = *ready;
        luna_buf_clear(&empty);
        *ready = empty;
    } else if (lua_type(L, 2) == LUA_TSTRING) {
        size_t len;
        const char *bytes = lua_tolstring(L, 2, &len);
        luna_buf_add(&handle->bytes, bytes, len);
    } else {
        luna_copy_encode(L, 2, n_columns, &handle->bytes, &handle->field, &handle->params.scratch);
    }
    request->bytes = handle->bytes.data;
    request->n_bytes = handle->bytes.len;
    request->w.queued = luna_loop_clock();
    request->w.deadline = deadline;
    return luna_request_park_on_lease(L, request, lease);
}

/*** End COPY, or abort it for a reason. Yields.
@function lease:copy_end
@tparam ?string reason
@tparam ?number deadline
@treturn userdata request */
static int lease_copy_end(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    size_t len = 0;
    const char *reason = luaL_optlstring(L, 2, NULL, &len);
    double deadline = luna_opt_deadline(L, 3);
    luna_task_check(L, "copy_end");
    luna_request_handle *handle = luna_request_push(L, LUNA_REQUEST_COPY_END);
    if (reason != NULL) {
        luna_buf_add(&handle->bytes, reason, len + 1);
        handle->request.bytes = handle->bytes.data;
    }
    handle->request.w.queued = luna_loop_clock();
    handle->request.w.deadline = deadline;
    return luna_request_park_on_lease(L, &handle->request, lease);
}

/*** Give the connection back; an open transaction is rolled back. Any number of times.
@function lease:release */
static int lease_release(lua_State *L)
{
    luna_lease_release(luna_lease_check(L));
    return 0;
}

/*** Close the connection.
@function lease:discard
@string[opt] reason */
static int lease_discard(lua_State *L)
{
    luna_lease_discard(luna_lease_check(L), luaL_optstring(L, 2, "discarded"));
    return 0;
}

/*** Make the running task the one whose end gives the connection back.
@function lease:attach */
static int lease_attach(lua_State *L)
{
    luna_lease_check(L);
    lease_handle *handle = lua_touserdata(L, 1);
    if (handle->lease.w.conn != NULL)
        luna_task_hold(&handle->held);
    return 0;
}

/*** Where the session stands.
@function lease:transaction_status
@treturn string `idle`, `active`, `intransaction`, `inerror`, `unknown`
@treturn ?int the server process's id */
static int lease_transaction_status(lua_State *L)
{
    static const char *const names[] = { "idle", "active", "intransaction", "inerror", "unknown" };
    const luna_conn *conn = luna_lease_check(L)->w.conn;
    PGTransactionStatusType tx = conn != NULL ? PQtransactionStatus(conn->pg) : PQTRANS_UNKNOWN;
    lua_pushstring(L, names[tx <= PQTRANS_UNKNOWN ? tx : PQTRANS_UNKNOWN]);
    if (conn == NULL)
        return 1;
    lua_pushinteger(L, PQbackendPID(conn->pg));
    return 2;
}

static int lease_gc(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    lease_handle *handle = lua_touserdata(L, 1);
    luna_list_del(&handle->held.link);
    luna_waiter_abandon(&lease->w);
    luna_lease_release(lease);
    return 0;
}

/*** The form in which a server keeps a password (SCRAM-SHA-256), so that the password is never
sent.
@function lease:encrypt_password
@string password
@treturn[1] string
@treturn[2] nil
@treturn[2] lunashard.error `INVALID`, `CLOSED` */
static int lease_encrypt_password(lua_State *L)
{
    luna_err err;
    char verifier[256];
    luna_lease *lease = luna_lease_check(L);
    size_t len;
    const char *password = luaL_checklstring(L, 2, &len);
    luaL_argcheck(L, strlen(password) == len, 2, "a password has no NUL byte");
    luna_status status;
    if (lease->w.conn == NULL)
        status = luna_err_set(&err, LUNA_ECLOSED, "the connection is gone");
    else
        status =
            luna_conn_encrypt_password(lease->w.conn, password, verifier, sizeof(verifier), &err);
    if (status != LUNA_OK)
        return luna_push_err(L, &err);
    lua_pushstring(L, verifier);
    return 1;
}

void luna_lease_register(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "opened", lease_opened },
        { "execute", lease_execute },
        { "stream", lease_stream },
        { "fetch", lease_fetch },
        { "notified", lease_notified },
        { "abandon", lease_abandon },
        { "copy_in", lease_copy_in },
        { "copy_write", lease_copy_write },
        { "copy_end", lease_copy_end },
        { "copy_out", lease_copy_out },
        { "copy_read", lease_copy_read },
        { "encrypt_password", lease_encrypt_password },
        { "release", lease_release },
        { "discard", lease_discard },
        { "attach", lease_attach },
        { "transaction_status", lease_transaction_status },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", lease_gc }, { NULL, NULL } };
    luna_bind_type(L, LEASE_TYPE, methods, meta);
    luaL_getmetatable(L, LEASE_TYPE);
    lua_getfield(L, -1, "__index");
    luna_many_open_lease(L);
    lua_pop(L, 2);
}
