/* mod_http.c - "lunashard.core.http": the HTTP server.  Layer: lua. */
/*** An HTTP server for small, read-only answers, as `lunashard.serve.http` uses it.
@module lunashard.core.http */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "bind.h"
#include "http.h"
#include "runtime.h"

#define HTTP_TYPE "lunashard.http"
#define STREAM_TYPE "lunashard.http.stream"

/* Bytes of text that may wait for a client of a stream. */
#define STREAM_LIMIT (256 * 1024)

typedef struct http_handle {
    luna_http http;
    int handler; /* registry reference, while it listens */
    int self;    /* keeps the handle alive as long */
} http_handle;

static http_handle *check_http(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, HTTP_TYPE);
}

static luna_http_stream *check_stream(lua_State *L, int idx)
{
    return *(luna_http_stream **)luaL_checkudata(L, idx, STREAM_TYPE);
}

/* ---- a request -------------------------------------------------------------------- */

/* Names in lower case; values of a header that comes several times are joined by commas. */
static bool push_header(void *user, const char *name, const char *value)
{
    lua_State *L = user;
    char lower[128];
    size_t n = 0;
    for (; n < sizeof(lower) && name[n] != '\0'; n++)
        lower[n] = (char)tolower((unsigned char)name[n]);
    lua_pushlstring(L, lower, n);
    lua_pushvalue(L, -1);
    lua_rawget(L, -3);
    if (lua_isstring(L, -1)) {
        lua_pushfstring(L, "%s, %s", lua_tostring(L, -1), value);
        lua_remove(L, -2);
    } else {
        lua_pop(L, 1);
        lua_pushstring(L, value);
    }
    lua_rawset(L, -3);
    return true;
}

static void push_request(lua_State *L, luna_http_request *request)
{
    char peer[128];
    luna_http_peer(request, peer, sizeof(peer));
    lua_createtable(L, 0, 4);
    lua_pushstring(L, request->method);
    lua_setfield(L, -2, "method");
    lua_pushstring(L, request->path);
    lua_setfield(L, -2, "path");
    lua_pushstring(L, peer);
    lua_setfield(L, -2, "peer");
    lua_newtable(L);
    luna_http_each_header(request, push_header, L);
    lua_setfield(L, -2, "headers");
}

static void add_headers(lua_State *L, int idx, luna_http_request *request)
{
    lua_pushnil(L);
    while (lua_next(L, idx) != 0) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING ||
            !luna_http_add_header(request, lua_tostring(L, -2), lua_tostring(L, -1)))
            luaL_error(L, "http: a header that cannot be sent");
        lua_pop(L, 1);
    }
}

/* handler(request) -> status, headers, body or stream; protected. */
static int ask_handler(lua_State *L)
{
    http_handle *handle = lua_touserdata(L, 1);
    luna_http_request *request = lua_touserdata(L, 2);
    lua_settop(L, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, handle->handler);
    push_request(L, request);
    lua_call(L, 1, 3);
    unsigned status = (unsigned)luaL_checkint(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t len = 0;
    const char *body = NULL;
    luna_http_stream *stream = NULL;
    if (lua_type(L, 3) == LUA_TSTRING)
        body = lua_tolstring(L, 3, &len);
    else
        stream = check_stream(L, 3);
    luaL_argcheck(L, status >= 200 && status <= 599, 1, "not a status");
    if (stream != NULL)
        luna_http_answer_stream(request, status, stream);
    else
        luna_http_answer_body(request, status, body, len);
    add_headers(L, 2, request);
    return 0;
}

static void on_answer(void *user, luna_http_request *request)
{
    lua_State *L = luna_rt.main;
    int top = lua_gettop(L);
    lua_pushcfunction(L, ask_handler);
    lua_pushlightuserdata(L, user);
    lua_pushlightuserdata(L, request);
    if (lua_pcall(L, 2, 0, 0) != 0)
        luna_http_fail(request);
    lua_settop(L, top);
}

static void on_closed(void *user)
{
    http_handle *handle = user;
    int self = handle->self;
    luaL_unref(luna_rt.main, LUA_REGISTRYINDEX, handle->handler);
    handle->handler = handle->self = LUA_NOREF;
    luaL_unref(luna_rt.main, LUA_REGISTRYINDEX, self);
}

/* ---- the server ------------------------------------------------------------------- */

static double check_option(lua_State *L, const char *name, double least, double most,
                           double otherwise)
{
    lua_getfield(L, 1, name);
    double value = lua_isnil(L, -1) ? otherwise : lua_tonumber(L, -1);
    if (!(value >= least && value <= most) || (!lua_isnil(L, -1) && !lua_isnumber(L, -1)))
        luaL_error(L, "listen: %s must be a number from %f to %f", name, least, most);
    lua_pop(L, 1);
    return value;
}

static void check_option_names(lua_State *L)
{
    static const char *const known[] = { "host",
                                         "port",
                                         "max_connections",
                                         "max_request",
                                         "idle_timeout",
                                         "request_timeout",
                                         "answer_timeout",
                                         NULL };
    lua_pushnil(L);
    while (lua_next(L, 1) != 0) {
        bool found = false;
        for (int i = 0; known[i] != NULL && lua_type(L, -2) == LUA_TSTRING; i++)
            found |= strcmp(lua_tostring(L, -2), known[i]) == 0;
        if (!found)
            luaL_error(L, "listen: unknown option %s",
                       lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "(not a string)");
        lua_pop(L, 1);
    }
}

/*** Answer requests from now on. It does so until `close`, whoever holds the server.
@function listen
@tparam table options `host` (a numeric address), `port` (0: any that is free), `max_connections`
[256; further ones are turned away], `max_request` [16384 bytes of line and headers],
`request_timeout` [10 s until a request is complete], `answer_timeout` [30 s until it is taken],
`idle_timeout` [75 s]
@tparam function handler `handler(request) -> status, headers, body`, called for each complete GET
and HEAD with `method`, `path`, `headers` (names in lower case) and `peer`; `headers` is a table of
strings, `body` a string or a new stream. It must not yield. When it raises the answer is a 500 that
says nothing
@treturn[1] lunashard.http with `port`, `counts`, `close`
@treturn[2] nil
@treturn[2] lunashard.error `INVALID`: the port is in use, or the like */
static int http_listen(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    check_option_names(L);
    lua_getfield(L, 1, "host");
    if (lua_type(L, -1) != LUA_TSTRING)
        return luaL_error(L, "listen: host must be a string");
    luna_http_options options = {
        .host = lua_tostring(L, -1),
        .port = (unsigned)check_option(L, "port", 0, 65535, 0),
        .max_connections = (unsigned)check_option(L, "max_connections", 1, 100000, 256),
        .max_request = (size_t)check_option(L, "max_request", 1024, 1 << 20, 16384),
        .request_timeout = check_option(L, "request_timeout", 0.001, 3600, 10),
        .answer_timeout = check_option(L, "answer_timeout", 0.001, 3600, 30),
        .idle_timeout = check_option(L, "idle_timeout", 0.001, 3600, 75),
        .answer = on_answer,
        .closed = on_closed,
    };
    http_handle *handle = lua_newuserdata(L, sizeof(*handle));
    memset(handle, 0, sizeof(*handle));
    handle->handler = handle->self = LUA_NOREF;
    luaL_getmetatable(L, HTTP_TYPE);
    lua_setmetatable(L, -2);
    options.user = handle;
    luna_err err;
    if (luna_http_listen(&handle->http, &luna_rt.loop, &options, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    lua_pushvalue(L, 2);
    handle->handler = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, -1);
    handle->self = luaL_ref(L, LUA_REGISTRYINDEX);
    return 1;
}

/*** The port that it listens on.
@function server:port
@treturn number */
static int http_port(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check_http(L, 1)->http.port);
    return 1;
}

/*** What has happened.
@function server:counts
@treturn table `accepted`, `refused` (connections beyond the limit), `failures` (no descriptor for
one), `timeouts`, `requests`; and now: `connections`, `streams` */
static int http_counts(lua_State *L)
{
    const luna_http_counts *counts = &check_http(L, 1)->http.counts;
    lua_createtable(L, 0, 7);
    lua_pushnumber(L, (lua_Number)counts->accepted);
    lua_setfield(L, -2, "accepted");
    lua_pushnumber(L, (lua_Number)counts->refused);
    lua_setfield(L, -2, "refused");
    lua_pushnumber(L, (lua_Number)counts->failures);
    lua_setfield(L, -2, "failures");
    lua_pushnumber(L, (lua_Number)counts->timeouts);
    lua_setfield(L, -2, "timeouts");
    lua_pushnumber(L, (lua_Number)counts->requests);
    lua_setfield(L, -2, "requests");
    lua_pushnumber(L, counts->connections);
    lua_setfield(L, -2, "connections");
    lua_pushnumber(L, counts->streams);
    lua_setfield(L, -2, "streams");
    return 1;
}

/*** Cut all connections and listen no longer. May be called again, and by the handler.
@function server:close */
static int http_close(lua_State *L)
{
    luna_http_close(&check_http(L, 1)->http);
    return 0;
}

static int http_gc(lua_State *L)
{
    luna_http_close(&check_http(L, 1)->http);
    return 0;
}

/* ---- streams ---------------------------------------------------------------------- */

/*** An answer without an end, such as server-sent events, for a handler to return as the body.
@function stream
@tparam[opt=262144] number limit bytes that may wait for the client; beyond it the client is cut off
@treturn lunashard.http.stream with `send`, `is_open`, `close` */
static int http_stream(lua_State *L)
{
    double limit = luaL_optnumber(L, 1, STREAM_LIMIT);
    luaL_argcheck(L, limit >= 1 && limit <= 1 << 30, 1, "not a number of bytes");
    luna_http_stream **stream = lua_newuserdata(L, sizeof(*stream));
    *stream = luna_http_stream_new((size_t)limit);
    luaL_getmetatable(L, STREAM_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

/*** Add text. Does not wait.
@function stream:send
@tparam string text
@treturn boolean false when the client has gone, was cut off, or has not been answered with it yet
*/
static int stream_send(lua_State *L)
{
    luna_http_stream *stream = check_stream(L, 1);
    size_t len;
    const char *text = luaL_checklstring(L, 2, &len);
    lua_pushboolean(L, luna_http_stream_send(stream, text, len));
    return 1;
}

/*** Is there a client that reads it?
@function stream:is_open
@treturn boolean */
static int stream_is_open(lua_State *L)
{
    lua_pushboolean(L, luna_http_stream_is_open(check_stream(L, 1)));
    return 1;
}

/*** End it, after what was sent. May be called again.
@function stream:close */
static int stream_close(lua_State *L)
{
    luna_http_stream_end(check_stream(L, 1));
    return 0;
}

static int stream_gc(lua_State *L)
{
    luna_http_stream_free(check_stream(L, 1));
    return 0;
}

int luaopen_lunashard_core_http(lua_State *L)
{
    static const luaL_Reg http_methods[] = {
        { "port", http_port },
        { "counts", http_counts },
        { "close", http_close },
        { NULL, NULL },
    };
    static const luaL_Reg stream_methods[] = {
        { "send", stream_send },
        { "is_open", stream_is_open },
        { "close", stream_close },
        { NULL, NULL },
    };
    static const luaL_Reg http_meta[] = {
        { "__gc", http_gc },
        { NULL, NULL },
    };
    static const luaL_Reg stream_meta[] = {
        { "__gc", stream_gc },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "listen", http_listen },
        { "stream", http_stream },
        { NULL, NULL },
    };
    luna_bind_type(L, HTTP_TYPE, http_methods, http_meta);
    luna_bind_type(L, STREAM_TYPE, stream_methods, stream_meta);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
