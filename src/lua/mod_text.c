/* mod_text.c - lunashard.core.text: texts on a terminal.  Layer: lua. */
/*** Texts on a terminal.
@module lunashard.core.text */
#include <lauxlib.h>
#include <lua.h>

#include "bind.h"
#include "cells.h"

/*** How many cells a text takes: two for wide characters, none for combining ones.
@function width
@string text
@treturn number */
static int text_width(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    lua_pushnumber(L, (lua_Number)luna_cells_width(text, n));
    return 1;
}

/*** The longest beginning of a text that takes at most so many cells.
@function fit
@string text
@number width
@treturn string */
static int text_fit(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    lua_Number width = luaL_checknumber(L, 2);
    luaL_argcheck(L, width >= 0, 2, "must not be negative");
    size_t fit = luna_cells_fit(text, n, width < (lua_Number)n * 2 ? (size_t)width : n * 2);
    lua_pushlstring(L, text, fit);
    return 1;
}

/*** A text as it may be sent to a terminal: what would act there, or not be seen, is escaped.
@function safe
@string text
@tparam[opt] boolean keep_lines leave line ends as they are
@treturn string */
static int text_safe(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    luna_buf out = { 0 };
    luna_cells_add_safe(&out, text, n, lua_toboolean(L, 2));
    lua_pushlstring(L, out.data, out.len);
    luna_buf_deinit(&out);
    return 1;
}

int luaopen_lunashard_core_text(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "width", text_width },
        { "fit", text_fit },
        { "safe", text_safe },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
