/*** Texts.
@classmod lunashard.core.pool.text */
#include "shape.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "values.h"

static const char TEXT_TYPE[] = "lunashard.text";

/* What the userdata's environment holds: the keys of rows, and what answers share.  Keys are apart,
 * for whoever changes a shared list against all advice must not change rows. */
enum { KEYS = 1, NAMES, TYPES, COMMAND };

typedef struct text_handle {
    const char *type;
    luna_text *text;
    luna_columns *columns;  /* NULL before the first answer */
    luna_decoder *decoders; /* of each */
    char tag[32];           /* of the answer whose COMMAND is kept, counts included; "": none is */
    double affected;
} text_handle;

/*** A statement's text, to be given to `execute` again and again.
@function text
@string sql
@treturn userdata text */
int luna_shape_new_text(lua_State *L)
{
    size_t len;
    const char *sql = luaL_checklstring(L, 1, &len);
    luaL_argcheck(L, strlen(sql) == len, 1, "SQL cannot hold a NUL byte");
    luaL_argcheck(L, len < LUNA_MESSAGE_MAX - 64, 1, "SQL of 1 GiB or more");
    text_handle *handle = luna_bind_new(L, sizeof(*handle), TEXT_TYPE);
    handle->text = luna_text_new(sql, len);
    return 1;
}

luna_text *luna_shape_text(lua_State *L, int idx)
{
    text_handle *handle = luna_bind_check(L, idx, TEXT_TYPE);
    return handle->text;
}

luna_text *luna_shape_opt_text(lua_State *L, int idx)
{
    return lua_type(L, idx) == LUA_TUSERDATA ? luna_shape_text(L, idx) : NULL;
}

static void shape_clear(text_handle *handle)
{
    luna_columns_unref(handle->columns);
    free(handle->decoders);
    handle->columns = NULL;
    handle->decoders = NULL;
    handle->tag[0] = '\0'; /* the command goes with the environment */
}

static bool fits_result(const luna_columns *columns, const PGresult *res)
{
    if (columns == NULL || PQnfields(res) != columns->n)
        return false;
    for (int c = 0; c < columns->n; c++)
        if (PQftype(res, c) != columns->at[c].type ||
            strcmp(PQfname(res, c), columns->at[c].name) != 0)
            return false;
    return true;
}

static luna_columns *columns_of_result(const PGresult *res)
{
    luna_columns *columns = luna_columns_new(PQnfields(res));
    for (int c = 0; c < columns->n; c++)
        luna_columns_set(columns, c, PQfname(res, c), PQftype(res, c));
    return columns;
}

/* Takes `columns`. */
static void shape_learn(lua_State *L, int idx, text_handle *handle, luna_columns *columns)
{
    int n = columns->n;
    shape_clear(handle);
    handle->columns = columns;
    handle->decoders = calloc((size_t)n + 1, sizeof(*handle->decoders));
    if (handle->decoders == NULL)
        abort();
    lua_createtable(L, COMMAND, 0);
    for (int list = KEYS; list <= TYPES; list++)
        lua_createtable(L, n, 0);
    for (int c = 0; c < n; c++) {
        handle->decoders[c] = luna_decoder_of(columns->at[c].type);
        lua_pushstring(L, columns->at[c].name);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -5, c + 1);
        lua_rawseti(L, -3, c + 1);
        luna_push_type_name(L, columns->at[c].type);
        lua_rawseti(L, -2, c + 1);
    }
    for (int list = TYPES; list >= KEYS; list--)
        lua_rawseti(L, -1 - list, list);
    lua_setfenv(L, idx);
}

/* The count at the end of a command tag; those of commands that count nothing have none. */
static bool count_of(const char *tag, double *count)
{
    const char *last = strrchr(tag, ' ');
    if (last == NULL || last[1] < '0' || last[1] > '9')
        return false;
    *count = strtod(last + 1, NULL);
    return true;
}

/* The command and its count.  An answer of the same tag has the same. */
static void push_command(lua_State *L, int shared, text_handle *handle, const char *tag,
                         size_t n_rows)
{
    if (handle->tag[0] == '\0' || strcmp(tag, handle->tag) != 0) {
        size_t len = strlen(tag);
        luna_push_command(L, tag);
        lua_rawseti(L, shared, COMMAND);
        bool counts = count_of(tag, &handle->affected);
        if (!counts)
            handle->affected = (double)n_rows;
        handle->tag[0] = '\0';
        if (counts && len < sizeof(handle->tag))
            memcpy(handle->tag, tag, len + 1);
    }
    lua_pushnumber(L, handle->affected);
    lua_rawgeti(L, shared, COMMAND);
}

/* Add a value to the row on top. */
static inline void add_value(lua_State *L, const text_handle *handle, int keys, int c,
                             const char *text, size_t len)
{
    lua_rawgeti(L, keys, c + 1);
    luna_push_value(L, handle->decoders[c], text, len);
    lua_rawset(L, -3);
}

static void push_result_rows(lua_State *L, const text_handle *handle, int keys, const PGresult *res)
{
    int n_rows = PQntuples(res), n = handle->columns->n;
    lua_createtable(L, n_rows, 0);
    for (int r = 0; r < n_rows; r++) {
        lua_createtable(L, 0, n);
        for (int c = 0; c < n; c++)
            if (!PQgetisnull(res, r, c))
                add_value(L, handle, keys, c, PQgetvalue(res, r, c),
                          (size_t)PQgetlength(res, r, c));
        lua_rawseti(L, -2, r + 1);
    }
}

static void push_reply_rows(lua_State *L, const text_handle *handle, int keys,
                            const luna_reply *reply)
{
    int n_rows = (int)reply->n_rows, n = handle->columns->n;
    const char *p = reply->bytes.data;
    lua_createtable(L, n_rows, 0);
    for (int r = 0; r < n_rows; r++) {
        lua_createtable(L, 0, n);
        p += 2; /* how many columns it has */
        for (int c = 0; c < n; c++) {
            uint32_t len = luna_get32(p);
            p += 4;
            if (len == UINT32_MAX) /* NULL */
                continue;
            add_value(L, handle, keys, c, p, len);
            p += len;
        }
        lua_rawseti(L, -2, r + 1);
    }
}

/* Push what the answers share around the rows, which are on top. */
static void push_rest(lua_State *L, int shared, text_handle *handle, const char *tag, size_t n_rows)
{
    lua_replace(L, shared + 1);
    lua_rawgeti(L, shared, NAMES);
    lua_rawgeti(L, shared, TYPES);
    push_command(L, shared, handle, tag, n_rows);
    lua_remove(L, shared);
}

/* Push the environment and the keys of rows in it. */
static int push_shared(lua_State *L, int idx)
{
    lua_getfenv(L, idx);
    int shared = lua_gettop(L);
    lua_rawgeti(L, shared, KEYS);
    return shared;
}

void luna_shape_push(lua_State *L, int idx, PGresult *res)
{
    text_handle *handle = luna_bind_check(L, idx, TEXT_TYPE);
    if (!fits_result(handle->columns, res))
        shape_learn(L, idx, handle, columns_of_result(res));
    int shared = push_shared(L, idx);
    push_result_rows(L, handle, shared + 1, res);
    push_rest(L, shared, handle, PQcmdStatus(res), (size_t)PQntuples(res));
}

void luna_shape_push_reply(lua_State *L, int idx, const luna_reply *reply)
{
    text_handle *handle = luna_bind_check(L, idx, TEXT_TYPE);
    luna_columns *columns = reply->columns;
    if (handle->columns == NULL || handle->columns != columns) {
        columns = columns != NULL ? luna_columns_ref(columns) : luna_columns_new(0);
        if (handle->columns == NULL || !luna_columns_equal(handle->columns, columns)) {
            shape_learn(L, idx, handle, columns);
        } else { /* so that the next is known at a glance */
            luna_columns_unref(handle->columns);
            handle->columns = columns;
        }
    }
    int shared = push_shared(L, idx);
    push_reply_rows(L, handle, shared + 1, reply);
    push_rest(L, shared, handle, reply->tag, reply->n_rows);
}

/*** Say how the text's statements may run.
@function text:share
@string class `alone` (a connection of its own), `share` (with a Sync of its own) or `batch`
@tparam[opt] boolean repeatable it calls nothing that might have effects after all, so that it may
be run once more */
static int text_share(lua_State *L)
{
    static const char *const classes[] = { "alone", "share", "batch", NULL };
    luna_text *text = luna_shape_text(L, 1);
    text->sharing = (luna_sharing)luaL_checkoption(L, 2, NULL, classes);
    text->repeatable = lua_toboolean(L, 3);
    return 0;
}

static int text_gc(lua_State *L)
{
    text_handle *handle = luna_bind_check(L, 1, TEXT_TYPE);
    shape_clear(handle);
    luna_text_unref(handle->text);
    handle->text = NULL;
    return 0;
}

void luna_shape_register(lua_State *L)
{
    static const luaL_Reg methods[] = { { "share", text_share }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", text_gc }, { NULL, NULL } };
    luna_bind_type(L, TEXT_TYPE, methods, meta);
}
