/* shape.h - a statement's text as Lua holds it, and the form of its answers.  Layer: lua.
 *
 * The answers of one text have the same columns nearly always, so that names and
 * types are looked up once; each answer is compared with what is remembered. */
#ifndef LUNA_LUA_SHAPE_H
#define LUNA_LUA_SHAPE_H

#include <libpq-fe.h>
#include <lua.h>

#include "reply.h"
#include "text.h"

/* Push a new text userdata for `sql`; the position is raised for NUL bytes. */
int luna_shape_new_text(lua_State *L);

/* The text of the userdata at `idx`; raises for anything else.  NULL instead when `or_null`. */
luna_text *luna_shape_text(lua_State *L, int idx);
luna_text *luna_shape_opt_text(lua_State *L, int idx);

/* Push rows (a list of tables), columns and column_types (lists of names), row_count and
 * command of `res`, an answer of the text at `idx`.  The lists of names are the same for all its
 * answers. */
void luna_shape_push(lua_State *L, int idx, PGresult *res);
void luna_shape_push_reply(lua_State *L, int idx, const luna_reply *reply);

void luna_shape_register(lua_State *L);
#endif
