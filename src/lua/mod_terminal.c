/* mod_terminal.c - "lunashard.core.terminal": the terminal, for a line editor.  Layer: lua. */
/*** The terminal, for a line editor. `lunashard.core.text` knows how wide texts are.
@module lunashard.core.terminal */
#include "terminal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "bind.h"
#include "cells.h"
#include "runtime.h"

/*** Have keys as they are typed, until `restore`. A program that ends restores by itself.
@function edit
@number fd of the terminal
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason */
static int terminal_edit(lua_State *L)
{
    if (luna_terminal_edit(&luna_rt.terminal, luaL_checkint(L, 1))) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, strerror(errno));
    return 2;
}

/*** The terminal as it was before `edit`.
@function restore */
static int terminal_restore(lua_State *L)
{
    (void)L;
    luna_terminal_restore(&luna_rt.terminal);
    return 0;
}

/*** How large the terminal is.
@function size
@number fd
@treturn[1] number columns
@treturn[1] number rows
@treturn[2] nil when it is none, or does not know */
static int terminal_size(lua_State *L)
{
    int columns, rows;
    if (!luna_terminal_size(luaL_checkint(L, 1), &columns, &rows))
        return 0;
    lua_pushinteger(L, columns);
    lua_pushinteger(L, rows);
    return 2;
}

/*** Stop as Ctrl-Z does; returns when the program goes on.
@function stop */
static int terminal_stop(lua_State *L)
{
    (void)L;
    luna_terminal_restore(&luna_rt.terminal);
    luna_terminal_stop();
    return 0;
}

/*** Write all of it.
@function write
@number fd
@string bytes
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason */
static int terminal_write(lua_State *L)
{
    int fd = luaL_checkint(L, 1);
    size_t len;
    const char *bytes = luaL_checklstring(L, 2, &len);
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EAGAIN) { /* somebody who shares it has made it so */
            struct pollfd ready = { .fd = fd, .events = POLLOUT };
            poll(&ready, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            lua_pushnil(L);
            lua_pushstring(L, strerror(errno));
            return 2;
        }
        bytes += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/*** What a cursor moves over: characters, each with the marks that are put onto it.
@function characters
@string text
@treturn {string,...}
@treturn {number,...} columns of each; -1 for controls, and bytes that are no character of UTF-8 */
static int terminal_characters(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    lua_settop(L, 1);
    lua_newtable(L);
    lua_newtable(L);
    int count = 0;
    for (size_t at = 0, n; at < len; at += n) {
        luna_cell cell = luna_cells_first(text + at, len - at);
        bool is_control = cell.code < 32 || (cell.code >= 0x7f && cell.code < 0xa0);
        n = cell.len;
        while (!is_control && cell.width > 0 && at + n < len) {
            luna_cell mark = luna_cells_first(text + at + n, len - at - n);
            if (mark.width != 0)
                break;
            n += mark.len;
        }
        lua_pushlstring(L, text + at, n);
        lua_rawseti(L, 2, ++count);
        lua_pushinteger(L, is_control ? -1 : cell.width);
        lua_rawseti(L, 3, count);
    }
    return 2;
}

int luaopen_lunashard_core_terminal(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "edit", terminal_edit },
        { "restore", terminal_restore },
        { "size", terminal_size },
        { "stop", terminal_stop },
        { "write", terminal_write },
        { "characters", terminal_characters },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
