/* values.h - Lua values to SQL and back.  Layer: lua.
 *
 * Everything travels in PostgreSQL's text formats but bytea parameters, which
 * are binary.  The rules are in the documentation of lunashard.values. */
#ifndef LUNA_LUA_VALUES_H
#define LUNA_LUA_VALUES_H

#include <libpq-fe.h>
#include <lua.h>
#include <stdbool.h>

#include "buf.h"
#include "request.h"

#define LUNA_BYTEA_TYPE "lunashard.bytea"

/* Encoded parameters.  Zero-initialised is none; the arrays point into itself. */
typedef struct luna_params {
    luna_buf bytes, arrays, scratch;
    int n;
    const char **values;
    int *lengths, *formats;
} luna_params;

void luna_params_deinit(luna_params *params);

/* Encode the list at `idx` (nil is none; its `n` counts trailing nils).  Raises
 * on a value that has no SQL form, naming it; `params` then still wants deinit.
 * LUNA_EINVAL when there are more than the protocol can carry. */
luna_status luna_params_encode(lua_State *L, int idx, luna_params *params, luna_err *err);

/* Append any value but NULL as SQL text.  Raises when it has none, beginning with `where`.
 * `scratch` is the caller's, so that a raise leaks nothing. */
void luna_value_encode(lua_State *L, int idx, const char *where, luna_buf *out, luna_buf *scratch);

/* Append rows (a list of lists) at `idx` in COPY's text format.  Raises like
 * luna_params_encode.  `field` and `scratch` are the caller's, so that a raise leaks nothing. */
void luna_copy_encode(lua_State *L, int idx, int n_columns, luna_buf *out, luna_buf *field,
                      luna_buf *scratch);

/* How the values of a column become Lua values. */
typedef struct luna_decoder {
    int how;
    bool is_array;
} luna_decoder;

luna_decoder luna_decoder_of(Oid type);

/* Push a value that is not NULL; the text needs no NUL at its end. */
void luna_push_value(lua_State *L, luna_decoder decoder, const char *text, size_t len);

/* Push the name of a type as `column_types` has it. */
void luna_push_type_name(lua_State *L, Oid type);

/* Push a command tag without its counts: "INSERT 0 1" is INSERT, "CREATE TABLE" stays. */
void luna_push_command(lua_State *L, const char *tag);

/* Push the error object for a server error: what luna_push_err_object gives,
 * with `detail`, `hint`, `position` and the names the server gave. */
void luna_push_sql_error(lua_State *L, const luna_request *request);
#endif
