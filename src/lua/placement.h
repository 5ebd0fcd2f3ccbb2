/* placement.h - what the files of lunashard.core.placement share.  Layer: lua. */
#ifndef LUNA_LUA_PLACEMENT_H
#define LUNA_LUA_PLACEMENT_H

#include <lua.h>

#include "bucket_map.h"
#include "err.h"
#include "key.h"

/* The declared types of a shard key's columns; one column of LUNA_KEY_ANY when none were declared.
 */
typedef struct luna_key_spec {
    luna_key_type types[LUNA_KEY_MAX_COLUMNS];
    size_t columns;
} luna_key_spec;

/* Read key types from argument `arg`: nil, a name, or a list of names.  Raises on any other. */
void luna_check_key_spec(lua_State *L, int arg, luna_key_spec *spec);

/* Read the Lua value at `idx` as a key: one value, or a list with one for each of several columns.
 * Texts are borrowed from the value, which must stay reachable.  Never raises. */
LUNA_MUSTCHECK luna_status luna_read_key(lua_State *L, int idx, const luna_key_spec *spec,
                                         luna_key keys[LUNA_KEY_MAX_COLUMNS], luna_err *err);

/* The bucket map at argument `arg`, which lives as long as that value, and the types of its keys.
 * Raises for any other value. */
const luna_bucket_map *luna_check_bucket_map(lua_State *L, int arg, luna_key_spec *spec);

/* Push nil and `err` as the failure of item number `index` of a list: its message says so, and
 * the error object has an `index`.  Returns 2. */
int luna_push_item_err(lua_State *L, const luna_err *err, size_t index);

/* Define the types of each file and add its functions to the module table on top of the stack. */
void luna_placement_open_range(lua_State *L);
void luna_placement_open_id(lua_State *L);
#endif
