/* mod_sql.c - lunashard.core.sql: PostgreSQL's own parser, from libpg_query.  Layer: lua. */
/*** PostgreSQL's own parser.
@module lunashard.core.sql */
#include <lauxlib.h>
#include <lua.h>
#include <pg_query.h>
#include <string.h>

#include "bind.h"

/* libpg_query writes its tree by recursion without bound: 65,000 levels of `1+1+1...`, two bytes
 * each, fill a stack of 8 MiB.  Its scanner needs quadratic time for nested comments.  Only the
 * length of a text keeps both away. */
#define MAX_TEXT 32768

static int push_syntax_error(lua_State *L, const PgQueryError *error)
{
    luna_err err;
    luna_err_set(&err, LUNA_ESQL, "%s", error->message);
    memcpy(err.sqlstate, "42601", sizeof("42601"));
    luna_push_err(L, &err);
    if (error->cursorpos > 0) {
        lua_pushinteger(L, error->cursorpos);
        lua_setfield(L, -2, "position");
    }
    return 2;
}

static int refuse(lua_State *L, const char *why)
{
    luna_err err;
    luna_err_set(&err, LUNA_EINVAL, "%s", why);
    return luna_push_err(L, &err);
}

static const char *refusal(const char *sql, size_t len)
{
    if (len > MAX_TEXT)
        return "a text of more than 32 KiB is not parsed";
    return memchr(sql, '\0', len) != NULL ? "SQL cannot contain a NUL byte" : NULL;
}

/*** Parse a text that holds any number of statements.
Beware of integer constants in the tree: one that is not above 0 is there without its value.
@function parse
@string sql
@treturn[1] string the parse tree as JSON
@treturn[2] nil
@treturn[2] lunashard.error `SQL` with `sqlstate` 42601 and `position` in characters; `INVALID` when
it has a NUL byte or more than 32 KiB */
static int sql_parse(lua_State *L)
{
    size_t len;
    const char *sql = luaL_checklstring(L, 1, &len);
    const char *why = refusal(sql, len);
    if (why != NULL)
        return refuse(L, why);
    PgQueryParseResult result = pg_query_parse(sql);
    if (result.error == NULL)
        lua_pushstring(L, result.parse_tree);
    int n_values = result.error == NULL ? 1 : push_syntax_error(L, result.error);
    pg_query_free_parse_result(result);
    return n_values;
}

/*** A text with most of its constants replaced by `$1`, `$2`, ...
Comments stay, and so do constants of some statements (EXECUTE, COMMENT, ALTER SYSTEM, ...).
@function normalize
@string sql
@treturn[1] string
@treturn[2] nil
@treturn[2] lunashard.error as `parse` */
static int sql_normalize(lua_State *L)
{
    size_t len;
    const char *sql = luaL_checklstring(L, 1, &len), *why = refusal(sql, len);
    if (why != NULL)
        return refuse(L, why);
    PgQueryNormalizeResult result = pg_query_normalize(sql);
    if (result.error == NULL)
        lua_pushstring(L, result.normalized_query);
    int n_values = result.error == NULL ? 1 : push_syntax_error(L, result.error);
    pg_query_free_normalize_result(result);
    return n_values;
}

int luaopen_lunashard_core_sql(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "parse", sql_parse },
        { "normalize", sql_normalize },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
