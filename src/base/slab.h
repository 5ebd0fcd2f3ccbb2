/* slab.h - memory for many small blocks.  Layer: base.
 *
 * One range of addresses is reserved once and handed out in chunks, each of which
 * holds blocks of one size; a block carries nothing beside its bytes, and what a
 * chunk is for lies in a table apart.  To allocate and to free are a few
 * instructions each.  A chunk whose blocks have all been freed serves any size, and
 * its memory goes back to the system when more than a few are empty.
 *
 * Not for threads. */
#ifndef LUNA_BASE_SLAB_H
#define LUNA_BASE_SLAB_H

#include <stdbool.h>
#include <stddef.h>

/* The largest block. */
#define LUNA_SLAB_MAX 1024

typedef struct luna_slab luna_slab;

/* `size` is how many bytes there are at the most.  NULL when the system has no such range below
 * 2^47, where LuaJIT wants its objects. */
luna_slab *luna_slab_new(size_t size);
void luna_slab_free(luna_slab *slab);

/* `n` bytes, from 1 to LUNA_SLAB_MAX, aligned to 16; NULL when the range is used up. */
void *luna_slab_take(luna_slab *slab, size_t n);

/* Give a block back. */
void luna_slab_give(luna_slab *slab, void *block);

/* Does this address lie in the range? */
bool luna_slab_owns(const luna_slab *slab, const void *block);

/* Would blocks of these sizes take the same room? */
static inline bool luna_slab_same(size_t a, size_t b)
{
    return (a + 15) / 16 == (b + 15) / 16;
}

/* Chunks that hold blocks, and empty ones that keep their memory. */
void luna_slab_chunks(const luna_slab *slab, size_t *used, size_t *empty);
#endif
