/* mod_pattern.c - "lunashard.core.pattern": Lua's patterns in bounded time.  Layer: lua. */
/*** What `string` has for patterns, in bounded time: a match that takes too many steps raises.
As for all else they do what LuaJIT's do, but a wrong pattern always raises.
@module lunashard.core.pattern */
#include "pattern.h"

#include <math.h>
#include <string.h>

#include "bind.h"
#include "runtime.h"

static luna_pattern *push_pattern(lua_State *L, int idx, bool anchors)
{
    size_t len;
    const char *text = luaL_checklstring(L, idx, &len);
    luna_pattern *pattern = lua_newuserdata(L, luna_pattern_size(len));
    const char *problem = luna_pattern_compile(pattern, text, len, anchors);
    if (problem != NULL)
        luaL_error(L, "%s", problem);
    return pattern;
}

static luna_match begin_match(lua_State *L, int idx)
{
    luna_match m;
    size_t len;
    m.begin = luaL_checklstring(L, idx, &len);
    m.end = m.begin + len;
    m.steps = luna_budget_steps();
    return m;
}

static const char *match_at(lua_State *L, const luna_pattern *pattern, luna_match *m,
                            const char *at)
{
    const char *end = luna_pattern_match(pattern, m, at);
    if (end == NULL && m->steps == 0)
        luaL_error(L, "pattern too costly: gave up after %f steps", (double)luna_budget_steps());
    return end;
}

static void push_capture(lua_State *L, const luna_match *m, int i)
{
    const luna_capture *capture = &m->capture[i];
    if (capture->len == LUNA_CAPTURE_POSITION)
        lua_pushinteger(L, capture->begin - m->begin + 1);
    else
        lua_pushlstring(L, capture->begin, (size_t)capture->len);
}

/* The captures, or where there are none the whole match, unless that is not asked for. */
static int push_captures(lua_State *L, const luna_pattern *pattern, const luna_match *m,
                         const char *begin, const char *end)
{
    luaL_checkstack(L, pattern->n_captures + 1, "too many captures");
    for (int i = 0; i < pattern->n_captures; i++)
        push_capture(L, m, i);
    if (pattern->n_captures > 0 || begin == NULL)
        return pattern->n_captures;
    lua_pushlstring(L, begin, (size_t)(end - begin));
    return 1;
}

/* The place where a search begins, as `string` reads its argument. */
static const char *begin_at(lua_State *L, int idx, const luna_match *m)
{
    lua_Number at = luaL_optnumber(L, idx, 1), len = (lua_Number)(m->end - m->begin);
    if (at < 0)
        at += len + 1;
    return m->begin + (ptrdiff_t)(at > len + 1 ? len : at >= 1 ? at - 1 : 0);
}

static int find_plain(lua_State *L, const luna_match *m, const char *at, int idx)
{
    size_t len;
    const char *text = luaL_checklstring(L, idx, &len);
    const char *found = memmem(at, (size_t)(m->end - at), text, len);
    if (found == NULL) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, found - m->begin + 1);
    lua_pushinteger(L, found - m->begin + (ptrdiff_t)len);
    return 2;
}

static bool is_literal(lua_State *L, int idx)
{
    size_t len;
    const char *text = luaL_checklstring(L, idx, &len);
    for (size_t i = 0; i < len; i++)
        if (text[i] != '\0' && strchr("^$*+?.([%-)", text[i]) != NULL)
            return false;
    return true;
}

static int search(lua_State *L, bool is_find)
{
    luna_match m = begin_match(L, 1);
    const char *at = begin_at(L, 3, &m);
    if (is_find && (lua_toboolean(L, 4) || is_literal(L, 2)))
        return find_plain(L, &m, at, 2);
    const luna_pattern *pattern = push_pattern(L, 2, true);
    for (; at <= m.end; at++) {
        const char *end = match_at(L, pattern, &m, at);
        if (end != NULL && !is_find)
            return push_captures(L, pattern, &m, at, end);
        if (end != NULL) {
            lua_pushinteger(L, at - m.begin + 1);
            lua_pushinteger(L, end - m.begin);
            return 2 + push_captures(L, pattern, &m, NULL, NULL);
        }
        if (pattern->is_anchored)
            break;
    }
    lua_pushnil(L);
    return 1;
}

/*** As `string.find`.
@function find
@string s
@string pattern
@int[opt=1] init
@bool[opt=false] plain
@treturn[1] int where the match begins
@treturn[1] int where it ends
@return[1] its captures
@treturn[2] nil */
static int pattern_find(lua_State *L)
{
    return search(L, true);
}

/*** As `string.match`.
@function match
@string s
@string pattern
@int[opt=1] init
@return captures, the whole match when there are none, nil without a match */
static int pattern_match(lua_State *L)
{
    return search(L, false);
}

static int next_match(lua_State *L)
{
    luna_match m = begin_match(L, lua_upvalueindex(1));
    const luna_pattern *pattern = lua_touserdata(L, lua_upvalueindex(2));
    const char *at = m.begin + lua_tointeger(L, lua_upvalueindex(3));
    for (; at <= m.end; at++) {
        const char *end = match_at(L, pattern, &m, at);
        if (end == NULL)
            continue;
        lua_pushinteger(L, end - m.begin + (end == at));
        lua_replace(L, lua_upvalueindex(3));
        return push_captures(L, pattern, &m, at, end);
    }
    return 0;
}

/*** As `string.gmatch`.
@function gmatch
@string s
@string pattern
@treturn function the iterator */
static int pattern_gmatch(lua_State *L)
{
    luaL_checkstring(L, 1);
    lua_settop(L, 2);
    lua_pushvalue(L, 1);
    push_pattern(L, 2, false);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_match, 3);
    return 1;
}

/* %0 to %9 and %% in what a match is replaced by. */
static void add_template(lua_State *L, luaL_Buffer *b, const luna_pattern *pattern, luna_match *m,
                         const char *begin, const char *end)
{
    size_t len;
    const char *text = lua_tolstring(L, 3, &len);
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '%' || ++i == len) {
            luaL_addchar(b, text[i < len ? i : len - 1]);
            continue;
        }
        int n = text[i] - '1';
        if (n < -1 || n > 8) {
            luaL_addchar(b, text[i]);
        } else if (n == -1 || (n == 0 && pattern->n_captures == 0)) {
            luaL_addlstring(b, begin, (size_t)(end - begin));
        } else {
            if (n >= pattern->n_captures)
                luaL_error(L, "invalid capture index");
            push_capture(L, m, n);
            luaL_addvalue(b);
        }
    }
}

/* What a table or function says of a match. */
static void add_answer(lua_State *L, luaL_Buffer *b, const luna_pattern *pattern, luna_match *m,
                       const char *begin, const char *end)
{
    int top = lua_gettop(L);
    if (lua_isfunction(L, 3)) {
        lua_pushvalue(L, 3);
        lua_call(L, push_captures(L, pattern, m, begin, end), 1);
    } else {
        push_captures(L, pattern, m, begin, end);
        lua_settop(L, top + 1);
        lua_gettable(L, 3);
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        lua_pushlstring(L, begin, (size_t)(end - begin));
    } else if (!lua_isstring(L, -1)) {
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    }
    luaL_addvalue(b);
}

/*** As `string.gsub`.
@function gsub
@string s
@string pattern
@param replacement a string, table or function
@int[opt] n how many at the most
@treturn string
@treturn int how many were replaced */
static int pattern_gsub(lua_State *L)
{
    luna_match m = begin_match(L, 1);
    int type = lua_type(L, 3);
    luaL_argcheck(L,
                  type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TTABLE ||
                      type == LUA_TFUNCTION,
                  3, "string, function or table expected");
    double most = luaL_optnumber(L, 4, HUGE_VAL);
    lua_settop(L, 3);
    luna_budget_check_stack(L);
    const luna_pattern *pattern = push_pattern(L, 2, true);
    luaL_Buffer b;
    int count = 0;
    luaL_buffinit(L, &b);
    const char *at = m.begin;
    while (count < most) {
        const char *end = match_at(L, pattern, &m, at);
        if (end != NULL) {
            count++;
            if (lua_isstring(L, 3))
                add_template(L, &b, pattern, &m, at, end);
            else
                add_answer(L, &b, pattern, &m, at, end);
        }
        if (end != NULL && end > at)
            at = end;
        else if (at < m.end)
            luaL_addchar(&b, *at++);
        else
            break;
        if (pattern->is_anchored)
            break;
    }
    luaL_addlstring(&b, at, (size_t)(m.end - at));
    luaL_pushresult(&b);
    lua_pushinteger(L, count);
    return 2;
}

int luaopen_lunashard_core_pattern(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "find", pattern_find },
        { "match", pattern_match },
        { "gmatch", pattern_gmatch },
        { "gsub", pattern_gsub },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
