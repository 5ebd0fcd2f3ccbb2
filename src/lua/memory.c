#include "memory.h"

#include <string.h>

/* Addresses, not memory. */
#define ADDRESSES ((size_t)16 << 30)

static void *take(luna_memory *memory, size_t n)
{
    void *block = n <= LUNA_SLAB_MAX ? luna_slab_take(memory->slab, n) : NULL;
    return block != NULL ? block : memory->allocate(memory->data, NULL, 0, n);
}

static void give(luna_memory *memory, void *block, size_t n)
{
    if (luna_slab_owns(memory->slab, block))
        luna_slab_give(memory->slab, block);
    else
        memory->allocate(memory->data, block, n, 0);
}

static void *resize(luna_memory *memory, void *block, size_t old, size_t n)
{
    bool is_ours = luna_slab_owns(memory->slab, block);
    if (is_ours && luna_slab_same(old, n))
        return block;
    if (!is_ours && n > LUNA_SLAB_MAX)
        return memory->allocate(memory->data, block, old, n);
    void *moved = take(memory, n);
    if (moved != NULL) {
        memcpy(moved, block, old < n ? old : n);
        give(memory, block, old);
    }
    return moved;
}

/* A lua_Alloc. */
static void *allocate(void *data, void *block, size_t old, size_t n)
{
    if (block == NULL)
        return n > 0 ? take(data, n) : NULL;
    if (n > 0)
        return resize(data, block, old, n);
    give(data, block, old);
    return NULL;
}

void luna_memory_open(luna_memory *memory, lua_State *L)
{
    memory->allocate = lua_getallocf(L, &memory->data);
    memory->slab = luna_slab_new(ADDRESSES);
    if (memory->slab != NULL)
        lua_setallocf(L, allocate, memory);
}

void luna_memory_close(luna_memory *memory)
{
    if (memory->slab != NULL)
        luna_slab_free(memory->slab);
}
