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
#include <stdint.h>

/* The largest block. */
#define LUNA_SLAB_MAX 1024

#define LUNA_SLAB_STEP 16
#define LUNA_SLAB_CHUNK ((size_t)64 << 10)

typedef struct luna_chunk {
    void *free;   /* a list of blocks that were given back */
    char *fresh;  /* from here on no block was taken yet */
    uint32_t n;   /* blocks that are taken */
    uint32_t max; /* blocks that it has */
    uint32_t step;
    struct luna_chunk *next, *prev;
} luna_chunk;

/* Laid open for what is inline below; nobody else looks in. */
typedef struct luna_slab {
    char *base;
    size_t size;
    luna_chunk *chunks;                                    /* of the whole range */
    luna_chunk *roomy[LUNA_SLAB_MAX / LUNA_SLAB_STEP + 1]; /* by size: those with room */
    luna_chunk *empty, *bare;  /* single lists; bare ones have no memory */
    size_t n_chunks, n_opened; /* those from n_opened on were never used */
    size_t n_used, n_empty;
} luna_slab;

/* `size` is how many bytes there are at the most.  NULL when the system has no such range below
 * 2^47, where LuaJIT wants its objects. */
luna_slab *luna_slab_new(size_t size);
void luna_slab_free(luna_slab *slab);

/* Chunks that hold blocks, and empty ones that keep their memory. */
void luna_slab_chunks(const luna_slab *slab, size_t *used, size_t *empty);

/* The seldom parts of what follows: another chunk for blocks of `step` bytes, NULL when there is
 * none; the last block of a chunk was taken; the first of a full one, or the last, was given back.
 */
luna_chunk *luna_slab_open_chunk(luna_slab *slab, size_t step);
void luna_slab_filled(luna_slab *slab, luna_chunk *chunk);
void luna_slab_freed(luna_slab *slab, luna_chunk *chunk);

/* `n` bytes, from 1 to LUNA_SLAB_MAX, aligned to 16; NULL when the range is used up. */
static inline void *luna_slab_take(luna_slab *slab, size_t n)
{
    size_t i = (n + LUNA_SLAB_STEP - 1) / LUNA_SLAB_STEP;
    luna_chunk *chunk = slab->roomy[i];
    if (chunk == NULL && (chunk = luna_slab_open_chunk(slab, i * LUNA_SLAB_STEP)) == NULL)
        return NULL;
    void *block = chunk->free;
    if (block != NULL) {
        chunk->free = *(void **)block;
        __builtin_prefetch(chunk->free, 1); /* it was freed long ago */
    } else {
        block = chunk->fresh;
        chunk->fresh += chunk->step;
    }
    if (++chunk->n == chunk->max)
        luna_slab_filled(slab, chunk);
    return block;
}

/* Does this address lie in the range? */
static inline bool luna_slab_owns(const luna_slab *slab, const void *block)
{
    return (size_t)((const char *)block - slab->base) < slab->size;
}

/* Give a block back. */
static inline void luna_slab_give(luna_slab *slab, void *block)
{
    luna_chunk *chunk = &slab->chunks[(size_t)((char *)block - slab->base) / LUNA_SLAB_CHUNK];
    *(void **)block = chunk->free;
    chunk->free = block;
    if (chunk->n-- == chunk->max || chunk->n == 0)
        luna_slab_freed(slab, chunk);
}

/* Would blocks of these sizes take the same room? */
static inline bool luna_slab_same(size_t a, size_t b)
{
    return (a + LUNA_SLAB_STEP - 1) / LUNA_SLAB_STEP == (b + LUNA_SLAB_STEP - 1) / LUNA_SLAB_STEP;
}
#endif
