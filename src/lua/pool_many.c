/* pool_many.c - one statement with many sets of parameters, for lunashard.core.pool. */
/*** Requests and leases.
@module lunashard.core.pool */
#include <lauxlib.h>
#include <string.h>

#include "bind.h"
#include "handles.h"
#include "runtime.h"
#include "shape.h"

static luna_request_handle *check_free(lua_State *L, int idx)
{
    luna_request_handle *handle = luna_request_check(L, idx);
    if (handle->request.w.op.state != LUNA_OP_IDLE)
        luaL_error(L, "the request is under way");
    return handle;
}

/*** Add a set of parameters for `lease:execute_many`. Raises for a value that has no SQL form.
@function request:add
@tparam table params
@treturn[1] number bytes of all sets so far
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` when there are too many */
static int request_add(lua_State *L)
{
    luna_request_handle *handle = check_free(L, 1);
    luna_params *params = &handle->params;
    luna_err err;
    luaL_checktype(L, 2, LUA_TTABLE);
    luna_buf_clear(&params->bytes);
    if (luna_params_encode(L, 2, params, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    luna_many_add(&handle->many, params->n, params->values, params->lengths, params->formats);
    lua_pushnumber(L, (lua_Number)handle->many.sets.len);
    return 1;
}

/*** Run a statement once for each set that was added, in one exchange. Yields.
@function lease:execute_many
@tparam userdata request
@tparam userdata text
@tparam number started
@tparam ?number deadline
@tparam number max_bytes of one result
@tparam ?number generation of the map by which it was routed, as for `execute`
@treturn userdata request */
static int lease_execute_many(lua_State *L)
{
    luna_lease *lease = luna_lease_check(L);
    luna_request_handle *handle = check_free(L, 2);
    luna_text *text = luna_shape_text(L, 3);
    luna_request *request = &handle->request;
    double started = luaL_checknumber(L, 4), deadline = luna_opt_deadline(L, 5);
    uint64_t generation = luna_opt_generation(L, 7);
    luna_task_check(L, "execute_many");
    request->kind = LUNA_REQUEST_MANY;
    request->many = &handle->many;
    luna_text_unref(request->text);
    request->text = luna_text_ref(text);
    request->sql = text->sql;
    request->w.queued = started;
    request->w.deadline = deadline;
    request->max_bytes = (size_t)luaL_checknumber(L, 6);
    request->w.generation = generation;
    lua_settop(L, 2);
    return luna_request_park_on_lease(L, request, lease);
}

/*** What the sets gave. Once.
@function request:answers
@tparam userdata text
@treturn {table,...} results, of those that were done: `rows`, `columns`, `column_types`,
`row_count`, `command`
@treturn ?lunashard.error why the next one failed */
static int request_answers(lua_State *L)
{
    static const char *const names[] = { "command", "row_count", "column_types", "columns",
                                         "rows" };
    luna_request_handle *handle = check_free(L, 1);
    luna_shape_text(L, 2);
    lua_settop(L, 2);
    int n = luna_many_answered(&handle->many), pushed = 1;
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_createtable(L, 0, 10);
        luna_shape_push(L, 2, luna_many_result(&handle->many, i));
        for (int f = 0; f < 5; f++)
            lua_setfield(L, 4, names[f]);
        lua_rawseti(L, 3, i + 1);
    }
    if (handle->request.w.err.code != LUNA_OK) {
        pushed = 2;
        luna_request_push_failure(L, &handle->request);
        lua_remove(L, -2);
    }
    luna_request_clear(&handle->request);
    luna_many_deinit(&handle->many);
    return pushed;
}

void luna_many_open_request(lua_State *L)
{
    static const luaL_Reg methods[] = { { "add", request_add },
                                        { "answers", request_answers },
                                        { NULL, NULL } };
    luaL_register(L, NULL, methods);
}

void luna_many_open_lease(lua_State *L)
{
    static const luaL_Reg methods[] = { { "execute_many", lease_execute_many }, { NULL, NULL } };
    luaL_register(L, NULL, methods);
}
