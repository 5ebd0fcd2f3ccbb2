/* mod_pool.c - lunashard.core.pool: pools, leases and requests.  Layer: lua.
 *
 * A request is a userdata: it holds everything an exchange needs, is parked on,
 * and gives its result to `request:take()` back in the task. */
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "pool.h"
#include "runtime.h"
#include "values.h"

#define POOL_TYPE "lunashard.pool"
#define LEASE_TYPE "lunashard.lease"
#define REQUEST_TYPE "lunashard.request"

typedef struct pool_handle {
    luna_pool *pool; /* NULL once closed */
} pool_handle;

typedef struct lease_handle {
    luna_lease lease;
    luna_held held;
} lease_handle;

typedef struct request_handle {
    luna_request request;
    luna_params params;
    luna_buf bytes, field; /* COPY data */
} request_handle;

static luna_pool *check_pool(lua_State *L)
{
    pool_handle *handle = luaL_checkudata(L, 1, POOL_TYPE);
    return handle->pool;
}

static luna_lease *check_lease(lua_State *L)
{
    lease_handle *handle = luaL_checkudata(L, 1, LEASE_TYPE);
    return &handle->lease;
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

static luna_status start_services(luna_err *err)
{
    if (luna_rt.resolver == NULL &&
        (luna_rt.resolver = luna_resolver_new(&luna_rt.loop, err)) == NULL)
        return err->code;
    if (luna_rt.canceler == NULL && (luna_rt.canceler = luna_canceler_new(&luna_rt.loop)) == NULL)
        abort();
    return LUNA_OK;
}

/*** Make a pool. Checked and called by `lunashard.pool`.
@function new
@tparam table options `name host endpoint max_size min_size max_waiters connection_timeout
  idle_timeout max_lifetime statement_cache`, and `conninfo`: libpq parameters as strings
@treturn[1] userdata
@treturn[2] nil
@treturn[2] lunashard.error */
static int pool_new(lua_State *L)
{
    static const char *const strings[] = { "name", "host", "endpoint" };
    luaL_checktype(L, 1, LUA_TTABLE);
    for (size_t i = 0; i < 3; i++) {
        lua_getfield(L, 1, strings[i]);
        if (!lua_isstring(L, -1))
            return luaL_error(L, "pool: %s is missing", strings[i]);
    }
    lua_settop(L, 1);
    lua_getfield(L, 1, "conninfo");
    luaL_checktype(L, 2, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, 2) != 0; lua_pop(L, 1))
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            return luaL_error(L, "pool: conninfo holds strings only");
    luna_err err;
    if (start_services(&err) != LUNA_OK)
        return luna_push_err(L, &err);

    pool_handle *handle = lua_newuserdata(L, sizeof(*handle));
    handle->pool = NULL;
    luaL_getmetatable(L, POOL_TYPE);
    lua_setmetatable(L, -2);
    luna_pool_config cfg = {
        .conn = {
            .loop = &luna_rt.loop,
            .resolver = luna_rt.resolver,
            .canceler = luna_rt.canceler,
            .connection_timeout = number_field(L, 1, "connection_timeout"),
            .statement_cache = (unsigned)number_field(L, 1, "statement_cache"),
        },
        .max_size = (unsigned)number_field(L, 1, "max_size"),
        .min_size = (unsigned)number_field(L, 1, "min_size"),
        .max_waiters = (unsigned)number_field(L, 1, "max_waiters"),
        .idle_timeout = number_field(L, 1, "idle_timeout"),
        .max_lifetime = number_field(L, 1, "max_lifetime"),
    };
    cfg.name = string_field(L, 1, "name");
    cfg.conn.host = string_field(L, 1, "host");
    cfg.conn.endpoint = string_field(L, 1, "endpoint");
    conninfo(L, 2, &cfg.conn);
    handle->pool = luna_pool_new(&cfg);
    return 1;
}

/* ---- requests -------------------------------------------------------------------- */

static request_handle *push_request(lua_State *L, luna_request_kind kind)
{
    request_handle *handle = lua_newuserdata(L, sizeof(*handle));
    memset(handle, 0, sizeof(*handle));
    luaL_getmetatable(L, REQUEST_TYPE);
    lua_setmetatable(L, -2);
    handle->request.kind = kind;
    return handle;
}

static double opt_deadline(lua_State *L, int idx)
{
    double deadline = luaL_optnumber(L, idx, 0);
    luaL_argcheck(L, deadline == deadline, idx, "deadline is not a number");
    return deadline;
}

/* Arguments from `idx` on: sql, params, deadline, read_only, max_bytes.  Leaves
 * the request on top; returns NULL with `err` filled when params are too many. */
static request_handle *make_query(lua_State *L, int idx, luna_request_kind kind, luna_err *err)
{
    size_t len;
    const char *sql = luaL_checklstring(L, idx, &len);
    double deadline = opt_deadline(L, idx + 2);
    int read_only = lua_toboolean(L, idx + 3);
    double max_bytes = luaL_optnumber(L, idx + 4, 0);
    if (!lua_isnoneornil(L, idx + 1))
        luaL_checktype(L, idx + 1, LUA_TTABLE);
    luaL_argcheck(L, strlen(sql) == len, idx, "SQL cannot hold a NUL byte");
    luna_task_check(L, "execute");
    request_handle *handle = push_request(L, kind);
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

static int park(lua_State *L, luna_request *request)
{
    return luna_task_park(L, &request->w.op);
}

static void start(luna_request *request)
{
    luna_op_start(&request->w.op, &luna_rt.loop, luna_task_wake, luna_waiter_cancel);
}

/*** Run a statement in autocommit. Yields; called through `lunashard.pool`.
@function pool:execute
@string sql
@tparam ?table params
@tparam ?number deadline
@tparam ?boolean read_only
@tparam ?number max_bytes of the result
@tparam ?boolean simple the simple protocol, without parameters
@treturn[1] userdata request, to be asked with `take`
@treturn[2] nil
@treturn[2] lunashard.error */
static int pool_execute(lua_State *L)
{
    luna_err err;
    luna_pool *pool = check_pool(L);
    if (pool == NULL)
        return closed_error(L);
    luna_request_kind kind = lua_toboolean(L, 7) ? LUNA_REQUEST_SIMPLE : LUNA_REQUEST_QUERY;
    request_handle *handle = make_query(L, 2, kind, &err);
    if (handle == NULL)
        return luna_push_err(L, &err);
    start(&handle->request);
    luna_pool_submit(pool, &handle->request);
    return park(L, &handle->request);
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
@treturn[1] table result, or for `fetch` rows and whether those were the last
@treturn[2] nil
@treturn[2] lunashard.error */
static int request_take(lua_State *L)
{
    request_handle *handle = luaL_checkudata(L, 1, REQUEST_TYPE);
    luna_request *request = &handle->request;
    int n = 1;
    if (request->w.op.state != LUNA_OP_IDLE)
        return luaL_error(L, "the request is under way");
    if (request->w.err.code != LUNA_OK) {
        n = push_failure(L, request);
    } else if (request->kind == LUNA_REQUEST_FETCH) {
        luna_push_rows(L, request->rows, request->n_rows);
        lua_pushboolean(L, request->n_rows < request->max_rows);
        n = 2;
    } else if (request->result != NULL) {
        luna_push_result(L, request->result);
    } else {
        lua_pushboolean(L, 1);
    }
    luna_request_deinit(request);
    return n;
}

static int request_gc(lua_State *L)
{
    request_handle *handle = luaL_checkudata(L, 1, REQUEST_TYPE);
    luna_waiter_abandon(&handle->request.w);
    luna_request_deinit(&handle->request);
    luna_params_deinit(&handle->params);
    luna_buf_deinit(&handle->bytes);
    luna_buf_deinit(&handle->field);
    return 0;
}

/* ---- leases ------------------------------------------------------------------------ */

static void on_held_release(luna_held *held)
{
    luna_lease_release(&LUNA_CONTAINER(held, lease_handle, held)->lease);
}

/*** Wait for a connection of one's own. Yields; called through `lunashard.pool`.
It is given back when the task ends, at the latest.
@function pool:acquire
@tparam ?number deadline
@treturn userdata lease, to be asked with `opened` */
static int pool_acquire(lua_State *L)
{
    luna_pool *pool = check_pool(L);
    double deadline = opt_deadline(L, 2);
    if (pool == NULL)
        return closed_error(L);
    luna_task_check(L, "acquire");
    lease_handle *handle = lua_newuserdata(L, sizeof(*handle));
    memset(handle, 0, sizeof(*handle));
    luna_list_init(&handle->held.link);
    handle->held.release = on_held_release;
    luaL_getmetatable(L, LEASE_TYPE);
    lua_setmetatable(L, -2);
    lua_createtable(L, 1, 0); /* the pool lives as long as the lease */
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    luna_task_hold(&handle->held);
    handle->lease.w.deadline = deadline;
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
    luna_lease *lease = check_lease(L);
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
    luna_lease *lease = check_lease(L);
    luna_request_kind kind = lua_toboolean(L, 7) ? LUNA_REQUEST_SIMPLE : LUNA_REQUEST_QUERY;
    request_handle *handle = make_query(L, 2, kind, &err);
    if (handle == NULL)
        return luna_push_err(L, &err);
    start(&handle->request);
    luna_lease_submit(lease, &handle->request);
    return park(L, &handle->request);
}

/*** Start a query whose rows are fetched piece by piece. Yields.
@function lease:stream
@string sql
@tparam ?table params
@tparam ?number deadline
@treturn userdata request; its result holds the first row, if there is any */
static int lease_stream(lua_State *L)
{
    luna_err err;
    luna_lease *lease = check_lease(L);
    request_handle *handle = make_query(L, 2, LUNA_REQUEST_STREAM, &err);
    if (handle == NULL)
        return luna_push_err(L, &err);
    start(&handle->request);
    luna_lease_submit(lease, &handle->request);
    return park(L, &handle->request);
}

/*** The next rows of a stream. Yields.
@function lease:fetch
@int max_rows at least 1
@tparam ?number deadline
@treturn userdata request */
static int lease_fetch(lua_State *L)
{
    luna_lease *lease = check_lease(L);
    int max_rows = luaL_checkint(L, 2);
    double deadline = opt_deadline(L, 3);
    luaL_argcheck(L, max_rows >= 1 && max_rows <= 1000000, 2, "max_rows must be from 1 to 1000000");
    luna_task_check(L, "fetch");
    luna_request *request = &push_request(L, LUNA_REQUEST_FETCH)->request;
    request->rows = calloc((size_t)max_rows, sizeof(PGresult *));
    if (request->rows == NULL)
        abort();
    request->max_rows = max_rows;
    request->read_only = true;
    request->w.deadline = deadline;
    start(request);
    luna_lease_submit(lease, request);
    return park(L, request);
}

/*** End a stream before its last row: cancels it on the server.
@function lease:abandon */
static int lease_abandon(lua_State *L)
{
    luna_lease *lease = check_lease(L);
    if (lease->w.conn != NULL && lease->w.conn->state == LUNA_CONN_STREAMING &&
        lease->w.conn->request == NULL)
        luna_conn_abandon(lease->w.conn);
    return 0;
}

/*** Start COPY ... FROM STDIN. Yields.
@function lease:copy_in
@string sql
@tparam ?number deadline
@treturn userdata request */
static int lease_copy_in(lua_State *L)
{
    luna_err err;
    luna_lease *lease = check_lease(L);
    double deadline = opt_deadline(L, 3);
    lua_settop(L, 2);
    lua_pushnil(L);
    lua_pushnumber(L, deadline);
    request_handle *handle = make_query(L, 2, LUNA_REQUEST_COPY_IN, &err);
    start(&handle->request);
    luna_lease_submit(lease, &handle->request);
    return park(L, &handle->request);
}

/*** Send COPY data: bytes, or rows to be written in the text format. Yields.
@function lease:copy_write
@tparam string|table data
@tparam ?int n_columns for rows
@tparam ?number deadline
@treturn userdata request */
static int lease_copy_write(lua_State *L)
{
    luna_lease *lease = check_lease(L);
    double deadline = opt_deadline(L, 4);
    int n_columns = luaL_optint(L, 3, 0);
    if (lua_type(L, 2) != LUA_TSTRING)
        luaL_checktype(L, 2, LUA_TTABLE);
    luna_task_check(L, "copy_write");
    request_handle *handle = push_request(L, LUNA_REQUEST_COPY_WRITE);
    luna_request *request = &handle->request;
    if (lua_type(L, 2) == LUA_TSTRING) {
        size_t len;
        const char *bytes = lua_tolstring(L, 2, &len);
        luna_buf_add(&handle->bytes, bytes, len);
    } else {
        luna_copy_encode(L, 2, n_columns, &handle->bytes, &handle->field, &handle->params.scratch);
    }
    request->bytes = handle->bytes.data;
    request->n_bytes = handle->bytes.len;
    request->w.deadline = deadline;
    start(request);
    luna_lease_submit(lease, request);
    return park(L, request);
}

/*** End COPY, or abort it for a reason. Yields.
@function lease:copy_end
@tparam ?string reason
@tparam ?number deadline
@treturn userdata request */
static int lease_copy_end(lua_State *L)
{
    luna_lease *lease = check_lease(L);
    size_t len = 0;
    const char *reason = luaL_optlstring(L, 2, NULL, &len);
    double deadline = opt_deadline(L, 3);
    luna_task_check(L, "copy_end");
    request_handle *handle = push_request(L, LUNA_REQUEST_COPY_END);
    if (reason != NULL) {
        luna_buf_add(&handle->bytes, reason, len + 1);
        handle->request.bytes = handle->bytes.data;
    }
    handle->request.w.deadline = deadline;
    start(&handle->request);
    luna_lease_submit(lease, &handle->request);
    return park(L, &handle->request);
}

/*** Give the connection back; an open transaction is rolled back. Any number of times.
@function lease:release */
static int lease_release(lua_State *L)
{
    luna_lease_release(check_lease(L));
    return 0;
}

/*** Close the connection.
@function lease:discard
@string[opt] reason */
static int lease_discard(lua_State *L)
{
    luna_lease_discard(check_lease(L), luaL_optstring(L, 2, "discarded"));
    return 0;
}

/*** Make the running task the one whose end gives the connection back.
@function lease:attach */
static int lease_attach(lua_State *L)
{
    check_lease(L);
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
    const luna_conn *conn = check_lease(L)->w.conn;
    PGTransactionStatusType tx = conn != NULL ? PQtransactionStatus(conn->pg) : PQTRANS_UNKNOWN;
    lua_pushstring(L, names[tx <= PQTRANS_UNKNOWN ? tx : PQTRANS_UNKNOWN]);
    if (conn == NULL)
        return 1;
    lua_pushinteger(L, PQbackendPID(conn->pg));
    return 2;
}

static int lease_gc(lua_State *L)
{
    luna_lease *lease = check_lease(L);
    lease_handle *handle = lua_touserdata(L, 1);
    luna_list_del(&handle->held.link);
    luna_waiter_abandon(&lease->w);
    luna_lease_release(lease);
    return 0;
}

/* ---- the pool's other methods ---------------------------------------------------------- */

/*** What the pool is doing.
@function pool:stats
@treturn ?table `size used idle connecting waiting max_size min_size queries errors connects
  connect_failures wait_time last_error`; nil when closed */
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
    };
    lua_createtable(L, 0, 16);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        lua_pushnumber(L, fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
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
    pool_handle *handle = luaL_checkudata(L, 1, POOL_TYPE);
    if (handle->pool != NULL)
        luna_pool_free(handle->pool);
    handle->pool = NULL;
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

int luaopen_lunashard_core_pool(lua_State *L)
{
    static const luaL_Reg pool_methods[] = {
        { "execute", pool_execute },
        { "acquire", pool_acquire },
        { "stats", pool_stats },
        { "close", pool_close },
        { NULL, NULL },
    };
    static const luaL_Reg pool_meta[] = { { "__gc", pool_close }, { NULL, NULL } };
    static const luaL_Reg lease_methods[] = {
        { "opened", lease_opened },
        { "execute", lease_execute },
        { "stream", lease_stream },
        { "fetch", lease_fetch },
        { "abandon", lease_abandon },
        { "copy_in", lease_copy_in },
        { "copy_write", lease_copy_write },
        { "copy_end", lease_copy_end },
        { "release", lease_release },
        { "discard", lease_discard },
        { "attach", lease_attach },
        { "transaction_status", lease_transaction_status },
        { NULL, NULL },
    };
    static const luaL_Reg lease_meta[] = { { "__gc", lease_gc }, { NULL, NULL } };
    static const luaL_Reg request_methods[] = { { "take", request_take }, { NULL, NULL } };
    static const luaL_Reg request_meta[] = { { "__gc", request_gc }, { NULL, NULL } };
    static const luaL_Reg no_methods[] = { { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "new", pool_new },
        { "bytea", new_bytea },
        { NULL, NULL },
    };
    luna_bind_type(L, POOL_TYPE, pool_methods, pool_meta);
    luna_bind_type(L, LEASE_TYPE, lease_methods, lease_meta);
    luna_bind_type(L, REQUEST_TYPE, request_methods, request_meta);
    luna_bind_type(L, LUNA_BYTEA_TYPE, no_methods, NULL);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}
