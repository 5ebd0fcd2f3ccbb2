/* memory.h - where Lua's objects lie.  Layer: lua. */
#ifndef LUNA_LUA_MEMORY_H
#define LUNA_LUA_MEMORY_H

#include <lua.h>

#include "slab.h"

/* What allocates for a Lua state: small blocks from a slab, all others, and those made before, as
 * ever. */
typedef struct luna_memory {
    luna_slab *slab; /* NULL: none could be had, and nothing was changed */
    lua_Alloc allocate;
    void *data;
} luna_memory;

/* Allocate for `L` from now on.  `memory` outlives the state. */
void luna_memory_open(luna_memory *memory, lua_State *L);

/* After lua_close. */
void luna_memory_close(luna_memory *memory);
#endif
