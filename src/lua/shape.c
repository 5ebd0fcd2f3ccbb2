/*** Texts.
@classmod lunashard.core.pool.text */
#include "shape.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "values.h"

static const char TEXT_TYPE[] = "lunashard.text";

typedef struct shape_column {
    char *name;
    Oid type;
    luna_decoder decoder;
} shape_column;

/* What the userdata's environment holds: the keys of rows, and what answers share.  Keys are apart,
 * for whoever changes a shared list against all advice must not change rows. */
enum { KEYS = 1, NAMES, TYPES, COMMAND };

typedef struct text_handle {
    const char *type;
    luna_text *text;
    int n;
    shape_column *columns;
    char tag[32]; /* of the answer whose COMMAND is kept, counts included; "": none is */
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
    for (int c = 0; c < handle->n; c++)
        free(handle->columns[c].name);
    free(handle->columns);
    handle->columns = NULL;
    handle->n = 0;
    handle->tag[0] = '\0'; /* the command goes with the environment */
}

static bool shape_fits(const text_handle *handle, const PGresult *res)
{
    if (PQnfields(res) != handle->n)
        return false;
    for (int c = 0; c < handle->n; c++)
        if (PQftype(res, c) != handle->columns[c].type ||
            strcmp(PQfname(res, c), handle->columns[c].name) != 0)
            return false;
    return true;
}

static void shape_learn(lua_State *L, int idx, text_handle *handle, const PGresult *res)
{
    int n = PQnfields(res);
    shape_clear(handle);
    lua_createtable(L, COMMAND, 0);
    for (int list = KEYS; list <= TYPES; list++)
        lua_createtable(L, n, 0);
    handle->columns = calloc((size_t)n + 1, sizeof(*handle->columns));
    if (handle->columns == NULL)
        abort();
    for (int c = 0; c < n; c++) {
        shape_column *column = &handle->columns[c];
        column->type = PQftype(res, c);
        column->decoder = luna_decoder_of(column->type);
        if ((column->name = strdup(PQfname(res, c))) == NULL)
            abort();
        handle->n = c + 1;
        lua_pushstring(L, column->name);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -5, c + 1);
        lua_rawseti(L, -3, c + 1);
        luna_push_type_name(L, column->type);
        lua_rawseti(L, -2, c + 1);
    }
    for (int list = TYPES; list >= KEYS; list--)
        lua_rawseti(L, -1 - list, list);
    lua_setfenv(L, idx);
}

/* The command and its count.  An answer of the same tag has the same. */
static void push_command(lua_State *L, int shared, text_handle *handle, PGresult *res)
{
    const char *tag = PQcmdStatus(res), *affected;
    if (handle->tag[0] == '\0' || strcmp(tag, handle->tag) != 0) {
        size_t len = strlen(tag);
        luna_push_command(L, tag);
        lua_rawseti(L, shared, COMMAND);
        affected = PQcmdTuples(res);
        handle->affected = affected[0] != '\0' ? strtod(affected, NULL) : PQntuples(res);
        handle->tag[0] = '\0';
        if (affected[0] != '\0' && len < sizeof(handle->tag))
            memcpy(handle->tag, tag, len + 1);
    }
    lua_pushnumber(L, handle->affected);
    lua_rawgeti(L, shared, COMMAND);
}

static void push_rows(lua_State *L, const text_handle *handle, int names, const PGresult *res)
{
    int n_rows = PQntuples(res), n = handle->n;
    lua_createtable(L, n_rows, 0);
    for (int r = 0; r < n_rows; r++) {
        lua_createtable(L, 0, n);
        for (int c = 0; c < n; c++) {
            if (PQgetisnull(res, r, c))
                continue;
            lua_rawgeti(L, names, c + 1);
            luna_push_value(L, handle->columns[c].decoder, PQgetvalue(res, r, c),
                            (size_t)PQgetlength(res, r, c));
            lua_rawset(L, -3);
        }
        lua_rawseti(L, -2, r + 1);
    }
}

void luna_shape_push(lua_State *L, int idx, PGresult *res)
{
    text_handle *handle = luna_bind_check(L, idx, TEXT_TYPE);
    if (!shape_fits(handle, res) || handle->columns == NULL)
        shape_learn(L, idx, handle, res);
    lua_getfenv(L, idx);
    int shared = lua_gettop(L);
    lua_rawgeti(L, shared, KEYS);
    push_rows(L, handle, shared + 1, res);
    lua_replace(L, shared + 1);
    lua_rawgeti(L, shared, NAMES);
    lua_rawgeti(L, shared, TYPES);
    push_command(L, shared, handle, res);
    lua_remove(L, shared);
}

/*** Say how the text's statements may run.
@function text:share
@string class `alone` (a connection of its own), `share` (with a Sync of its own) or `batch` */
static int text_share(lua_State *L)
{
    static const char *const classes[] = { "alone", "share", "batch", NULL };
    luna_text *text = luna_shape_text(L, 1);
    text->sharing = (luna_sharing)luaL_checkoption(L, 2, NULL, classes);
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
