/* values.c - see values.h; encoding first, then decoding. */
#include "values.h"

#include <lauxlib.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "pgtext.h"

#define MAX_PARAMS 65535
#define MAX_BYTES (LUNA_MESSAGE_MAX - (1u << 20)) /* leaves room for lengths and formats */
#define MAX_DEPTH 6                               /* PostgreSQL's own limit of array dimensions */

/* ---- Lua to SQL ------------------------------------------------------------------ */

void luna_params_deinit(luna_params *params)
{
    luna_buf_deinit(&params->bytes);
    luna_buf_deinit(&params->arrays);
    luna_buf_deinit(&params->scratch);
}

static bool is_null(lua_State *L, int idx)
{
    return lua_isnoneornil(L, idx) ||
           (lua_islightuserdata(L, idx) && lua_touserdata(L, idx) == NULL);
}

/* The bytes of a lunashard.bytea, or NULL. */
static const char *to_bytea(lua_State *L, int idx, size_t *len)
{
    if (!lua_istable(L, idx) || !lua_getmetatable(L, idx))
        return NULL;
    luaL_getmetatable(L, LUNA_BYTEA_TYPE);
    bool is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (!is)
        return NULL;
    lua_rawgeti(L, idx, 1);
    const char *bytes = lua_tolstring(L, -1, len);
    lua_pop(L, 1); /* the table keeps it */
    return bytes;
}

/* Raise without a position: the caller in Lua is a line of ours, and says nothing. */
static void bad_value(lua_State *L, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    lua_pushvfstring(L, fmt, ap);
    va_end(ap);
    lua_error(L);
}

static void add_text(lua_State *L, int idx, const char *where, luna_buf *out)
{
    size_t len;
    const char *s = lua_tolstring(L, idx, &len);
    if (memchr(s, '\0', len) != NULL)
        bad_value(L, "%s: text cannot hold a NUL byte; wrap bytes in lunashard.bytea(s)", where);
    luna_buf_add(out, s, len);
}

/* A scalar as SQL text; false when it is none. */
static bool add_scalar(lua_State *L, int idx, const char *where, luna_buf *out)
{
    int64_t v;
    int is_unsigned;
    size_t len;
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER:
        luna_buf_reserve(out, LUNA_PG_DOUBLE_MAX);
        out->len += luna_pg_format_double(lua_tonumber(L, idx), out->data + out->len);
        return true;
    case LUA_TSTRING: add_text(L, idx, where, out); return true;
    case LUA_TBOOLEAN: luna_buf_add_str(out, lua_toboolean(L, idx) ? "true" : "false"); return true;
    default: break;
    }
    const char *bytes = to_bytea(L, idx, &len);
    if (bytes != NULL) {
        luna_pg_add_bytea_text(out, bytes, len);
        return true;
    }
    if (!luna_to_int64(L, idx, &v, &is_unsigned))
        return false;
    if (is_unsigned)
        luna_buf_addf(out, "%llu", (unsigned long long)v);
    else
        luna_buf_addf(out, "%lld", (long long)v);
    return true;
}

/* The length of a list, counting what `n` says; raises when it is no list. */
static int list_length(lua_State *L, int idx, const char *where)
{
    double n = (double)lua_objlen(L, idx), last = 0;
    for (lua_pushnil(L); lua_next(L, idx) != 0; lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TNUMBER) {
            double index = lua_tonumber(L, -2);
            last = index < 1 || index != (double)(int)index ? INFINITY : fmax(last, index);
        } else if (lua_type(L, -2) == LUA_TSTRING && strcmp(lua_tostring(L, -2), "n") == 0) {
            n = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
            if (!(n >= 0 && n <= INT_MAX) || n != (double)(int)n)
                bad_value(L, "%s: n, the length of the list, must be a whole number from 0 up",
                          where);
        } else {
            last = INFINITY;
        }
    }
    if (last > n)
        bad_value(L, "%s: a table that is no list is no SQL array; for json use lunashard.json(t)",
                  where);
    return (int)n;
}

static void add_array(lua_State *L, int idx, const char *where, int depth,
                      luna_pg_array_writer *writer, luna_buf *scratch)
{
    if (depth > MAX_DEPTH)
        bad_value(L, "%s: arrays have at most %d dimensions", where, MAX_DEPTH);
    luaL_checkstack(L, 4, "array too deep");
    int n = list_length(L, idx, where);
    luna_pg_array_begin(writer);
    for (int i = 1; i <= n; i++) {
        size_t len;
        lua_rawgeti(L, idx, i);
        int at = lua_gettop(L);
        luna_buf_clear(scratch);
        if (is_null(L, at))
            luna_pg_array_null(writer);
        else if (lua_istable(L, at) && to_bytea(L, at, &len) == NULL)
            add_array(L, at, where, depth + 1, writer, scratch);
        else if (add_scalar(L, at, where, scratch))
            luna_pg_array_element(writer, scratch->data, scratch->len);
        else
            bad_value(L, "%s: element %d is a %s, which has no SQL form", where, i,
                      luaL_typename(L, at));
        lua_pop(L, 1);
    }
    luna_pg_array_end(writer);
}

void luna_value_encode(lua_State *L, int idx, const char *where, luna_buf *out, luna_buf *scratch)
{
    if (add_scalar(L, idx, where, out))
        return;
    if (!lua_istable(L, idx))
        bad_value(L, "%s: a %s has no SQL form", where, luaL_typename(L, idx));
    luna_pg_array_writer writer = { .out = out };
    add_array(L, idx, where, 1, &writer, scratch);
}

/* Its format: 0 is text, 1 binary. */
static int add_param(lua_State *L, int idx, int number, luna_params *params)
{
    char where[32];
    size_t len;
    const char *bytes = to_bytea(L, idx, &len);
    if (bytes != NULL) {
        luna_buf_add(&params->bytes, bytes, len);
        return 1;
    }
    snprintf(where, sizeof(where), "params[%d]", number);
    luna_value_encode(L, idx, where, &params->bytes, &params->scratch);
    return 0;
}

luna_status luna_params_encode(lua_State *L, int idx, luna_params *params, luna_err *err)
{
    params->n = 0;
    if (lua_isnoneornil(L, idx))
        return LUNA_OK;
    int n = list_length(L, idx, "params");
    if (n > MAX_PARAMS)
        return luna_err_set(
            err, LUNA_EINVAL,
            "%d parameters: a statement takes at most %d; pass an array and unnest it", n,
            MAX_PARAMS);
    size_t count = (size_t)n;
    luna_buf_reserve(&params->arrays, count * (sizeof(char *) + 2 * sizeof(int)) + 1);
    params->values = (const char **)(void *)params->arrays.data;
    params->lengths = (int *)(void *)(params->values + count);
    params->formats = params->lengths + count;

    /* the buffer moves as it grows: keep offsets first, -1 for NULL */
    for (int i = 0; i < n; i++) {
        size_t start = params->bytes.len;
        lua_rawgeti(L, idx, i + 1);
        int at = lua_gettop(L);
        params->formats[i] = 0;
        if (lua_type(L, at) == LUA_TNUMBER)
            add_scalar(L, at, NULL, &params->bytes);
        else if (!is_null(L, at))
            params->formats[i] = add_param(L, at, i + 1, params);
        params->lengths[i] = is_null(L, at) ? -1 : (int)(params->bytes.len - start);
        luna_buf_add_char(&params->bytes, '\0');
        params->values[i] = (const char *)start; /* NOLINT: an offset until below */
        lua_pop(L, 1);
    }
    for (int i = 0; i < n; i++)
        params->values[i] =
            params->lengths[i] < 0 ? NULL : params->bytes.data + (size_t)params->values[i];
    params->n = n;
    if (params->bytes.len > MAX_BYTES)
        return luna_err_set(err, LUNA_EINVAL,
                            "the parameters have %zu bytes; the protocol can carry 1 GiB at most",
                            params->bytes.len);
    return LUNA_OK;
}

void luna_copy_encode(lua_State *L, int idx, int n_columns, luna_buf *out, luna_buf *field,
                      luna_buf *scratch)
{
    char where[48];
    int n_rows = (int)lua_objlen(L, idx);
    for (int r = 1; r <= n_rows; r++) {
        lua_rawgeti(L, idx, r);
        int row = lua_gettop(L);
        if (!lua_istable(L, row))
            bad_value(L, "rows[%d]: expected a list of %d values, got %s", r, n_columns,
                      luaL_typename(L, row));
        for (int c = 1; c <= n_columns; c++) {
            if (c > 1)
                luna_buf_add_char(out, '\t');
            lua_rawgeti(L, row, c);
            int at = lua_gettop(L);
            if (is_null(L, at)) {
                luna_pg_add_copy_null(out);
            } else {
                snprintf(where, sizeof(where), "rows[%d][%d]", r, c);
                luna_buf_clear(field);
                luna_value_encode(L, at, where, field, scratch);
                luna_pg_add_copy_field(out, field->data, field->len);
            }
            lua_pop(L, 1);
        }
        luna_buf_add_char(out, '\n');
        lua_pop(L, 1);
    }
}

/* ---- SQL to Lua ------------------------------------------------------------------- */

typedef enum decoder { AS_TEXT, AS_BOOL, AS_INT, AS_INT8, AS_FLOAT, AS_BYTEA } decoder;

typedef struct type_info {
    Oid oid, array_oid;
    const char *name;
    decoder decode;
} type_info;

/* The OIDs of built-in types are fixed (catalog/pg_type.dat of PostgreSQL). */
static const type_info types[] = {
    { 16, 1000, "bool", AS_BOOL },        { 17, 1001, "bytea", AS_BYTEA },
    { 20, 1016, "int8", AS_INT8 },        { 21, 1005, "int2", AS_INT },
    { 23, 1007, "int4", AS_INT },         { 25, 1009, "text", AS_TEXT },
    { 700, 1021, "float4", AS_FLOAT },    { 701, 1022, "float8", AS_FLOAT },
    { 1700, 1231, "numeric", AS_TEXT },   { 1043, 1015, "varchar", AS_TEXT },
    { 1042, 1014, "bpchar", AS_TEXT },    { 2950, 2951, "uuid", AS_TEXT },
    { 1114, 1115, "timestamp", AS_TEXT }, { 1184, 1185, "timestamptz", AS_TEXT },
    { 1082, 1182, "date", AS_TEXT },      { 1083, 1183, "time", AS_TEXT },
    { 1266, 1270, "timetz", AS_TEXT },    { 1186, 1187, "interval", AS_TEXT },
    { 114, 199, "json", AS_TEXT },        { 3802, 3807, "jsonb", AS_TEXT },
    { 19, 1003, "name", AS_TEXT },        { 26, 1028, "oid", AS_TEXT },
    { 18, 1002, "char", AS_TEXT },        { 869, 1041, "inet", AS_TEXT },
    { 650, 651, "cidr", AS_TEXT },        { 829, 1040, "macaddr", AS_TEXT },
    { 790, 791, "money", AS_TEXT },       { 1560, 1561, "bit", AS_TEXT },
    { 1562, 1563, "varbit", AS_TEXT },    { 28, 1011, "xid", AS_TEXT },
    { 5069, 271, "xid8", AS_TEXT },       { 3220, 3221, "pg_lsn", AS_TEXT },
    { 142, 143, "xml", AS_TEXT },         { 2205, 2210, "regclass", AS_TEXT },
    { 2278, 0, "void", AS_TEXT },         { 705, 0, "unknown", AS_TEXT },
};

static const type_info *find_type(Oid oid, bool *is_array)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        *is_array = types[i].array_oid == oid;
        if (types[i].oid == oid || *is_array)
            return &types[i];
    }
    *is_array = false;
    return NULL;
}

static void push_bytea(lua_State *L, const char *text, size_t len)
{
    luna_buf bytes = { 0 };
    if (luna_pg_add_bytea_bytes(&bytes, text,
                                len)) /* only memory can fail between here and deinit */
        lua_pushlstring(L, bytes.data, bytes.len);
    else
        lua_pushlstring(L, text, len);
    luna_buf_deinit(&bytes);
}

static void push_scalar(lua_State *L, decoder decode, const char *text, size_t len)
{
    int64_t v;
    switch (decode) {
    case AS_BOOL: lua_pushboolean(L, text[0] == 't'); return;
    case AS_INT:
    case AS_INT8:
        if (luna_pg_parse_int8(text, len, &v)) {
            luna_push_int64(L, v);
            return;
        }
        break;
    case AS_FLOAT: lua_pushnumber(L, strtod(text, NULL)); return;
    case AS_BYTEA: push_bytea(L, text, len); return;
    case AS_TEXT: break;
    }
    lua_pushlstring(L, text, len);
}

static void push_array(lua_State *L, decoder decode, const char *text, size_t len)
{
    luna_pg_array array;
    char element[64];
    if (luna_pg_array_open(&array, text, len) != LUNA_PG_ARRAY_FLAT) {
        luna_pg_array_close(&array);
        lua_pushlstring(L, text, len);
        return;
    }
    lua_newtable(L);
    for (int i = 1; luna_pg_array_next(&array); i++) {
        if (array.is_null) {
            lua_pushlightuserdata(L, NULL); /* lunashard.null keeps #t right */
        } else if (decode == AS_FLOAT && array.len < sizeof(element)) {
            memcpy(element, array.element, array.len); /* strtod wants the NUL */
            element[array.len] = '\0';
            push_scalar(L, decode, element, array.len);
        } else {
            push_scalar(L, decode, array.element, array.len);
        }
        lua_rawseti(L, -2, i);
    }
    luna_pg_array_close(&array);
}

luna_decoder luna_decoder_of(Oid type)
{
    luna_decoder made;
    const type_info *info = find_type(type, &made.is_array);
    made.how = info != NULL ? (int)info->decode : AS_TEXT;
    return made;
}

void luna_push_value(lua_State *L, luna_decoder made, const char *text, size_t len)
{
    char copy[64];
    if (made.is_array) {
        push_array(L, (decoder)made.how, text, len);
    } else if (made.how == AS_FLOAT && len < sizeof(copy)) {
        memcpy(copy, text, len); /* strtod wants the NUL */
        copy[len] = '\0';
        push_scalar(L, AS_FLOAT, copy, len);
    } else {
        push_scalar(L, (decoder)made.how, text, len);
    }
}

void luna_push_type_name(lua_State *L, Oid type)
{
    bool is_array;
    const type_info *info = find_type(type, &is_array);
    if (info == NULL)
        lua_pushfstring(L, "oid:%d", (int)type);
    else
        lua_pushfstring(L, is_array ? "%s[]" : "%s", info->name);
}

void luna_push_command(lua_State *L, const char *tag)
{
    size_t len = strlen(tag);
    while (len > 0 && ((tag[len - 1] >= '0' && tag[len - 1] <= '9') || tag[len - 1] == ' '))
        len--;
    lua_pushlstring(L, tag, len);
}

void luna_push_sql_error(lua_State *L, const luna_request *request)
{
    static const struct {
        int field;
        const char *name;
    } fields[] = {
        { PG_DIAG_MESSAGE_PRIMARY, "message" }, { PG_DIAG_MESSAGE_DETAIL, "detail" },
        { PG_DIAG_MESSAGE_HINT, "hint" },       { PG_DIAG_CONTEXT, "context" },
        { PG_DIAG_SCHEMA_NAME, "schema_name" }, { PG_DIAG_TABLE_NAME, "table_name" },
        { PG_DIAG_COLUMN_NAME, "column_name" }, { PG_DIAG_CONSTRAINT_NAME, "constraint_name" },
        { PG_DIAG_DATATYPE_NAME, "type_name" },
    };
    const luna_err *err = &request->w.err;
    luna_push_err_object(L, err);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        const char *value = luna_request_error_field(request, fields[i].field);
        if (value != NULL) {
            lua_pushstring(L, value);
            lua_setfield(L, -2, fields[i].name);
        }
    }
    const char *position = luna_request_error_field(request, PG_DIAG_STATEMENT_POSITION);
    if (position != NULL) {
        lua_pushnumber(L, strtod(position, NULL));
        lua_setfield(L, -2, "position");
    }
    if (strcmp(err->sqlstate, "40001") == 0 || strcmp(err->sqlstate, "40P01") == 0) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "retryable");
    }
}
