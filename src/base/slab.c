#include "slab.h"

#include <stdlib.h>
#include <sys/mman.h>

#define MAX_EMPTY 64 /* chunks that keep their memory */
#define ADDRESS_END ((uintptr_t)1 << 47)

static void *reserve(size_t n)
{
    void *p =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

luna_slab *luna_slab_new(size_t size)
{
    luna_slab *slab = calloc(1, sizeof(*slab));
    if (slab == NULL)
        abort();
    slab->n_chunks = size / LUNA_SLAB_CHUNK;
    slab->size = slab->n_chunks * LUNA_SLAB_CHUNK;
    slab->base = reserve(slab->size);
    slab->chunks = reserve(slab->n_chunks * sizeof(luna_chunk));
    if (slab->base == NULL || slab->chunks == NULL ||
        (uintptr_t)slab->base + slab->size > ADDRESS_END) {
        luna_slab_free(slab);
        return NULL;
    }
    return slab;
}

void luna_slab_free(luna_slab *slab)
{
    if (slab->base != NULL)
        munmap(slab->base, slab->size);
    if (slab->chunks != NULL)
        munmap(slab->chunks, slab->n_chunks * sizeof(luna_chunk));
    free(slab);
}

/* ---- chunks ----------------------------------------------------------------------- */

static void link_first(luna_chunk **list, luna_chunk *c)
{
    c->prev = NULL;
    c->next = *list;
    if (c->next != NULL)
        c->next->prev = c;
    *list = c;
}

static void unlink_from(luna_chunk **list, luna_chunk *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        *list = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
}

/* A chunk without blocks; NULL when there is none left. */
static luna_chunk *get_chunk(luna_slab *slab)
{
    luna_chunk *c = slab->empty != NULL ? slab->empty : slab->bare;
    if (c == NULL)
        return slab->n_opened < slab->n_chunks ? &slab->chunks[slab->n_opened++] : NULL;
    if (c == slab->empty) {
        slab->empty = c->next;
        slab->n_empty--;
    } else {
        slab->bare = c->next;
    }
    return c;
}

static char *memory_of(const luna_slab *slab, const luna_chunk *c)
{
    return slab->base + (size_t)(c - slab->chunks) * LUNA_SLAB_CHUNK;
}

luna_chunk *luna_slab_open_chunk(luna_slab *slab, size_t step)
{
    luna_chunk *c = get_chunk(slab);
    if (c == NULL)
        return NULL;
    c->free = NULL;
    c->fresh = memory_of(slab, c);
    c->step = (uint32_t)step;
    c->n = 0;
    c->max = (uint32_t)(LUNA_SLAB_CHUNK / step);
    link_first(&slab->roomy[step / LUNA_SLAB_STEP], c);
    slab->n_used++;
    return c;
}

static void close_chunk(luna_slab *slab, luna_chunk *c)
{
    unlink_from(&slab->roomy[c->step / LUNA_SLAB_STEP], c);
    slab->n_used--;
    if (slab->n_empty < MAX_EMPTY) {
        c->next = slab->empty;
        slab->empty = c;
        slab->n_empty++;
    } else {
        madvise(memory_of(slab, c), LUNA_SLAB_CHUNK, MADV_DONTNEED);
        c->next = slab->bare;
        slab->bare = c;
    }
}

void luna_slab_filled(luna_slab *slab, luna_chunk *chunk)
{
    unlink_from(&slab->roomy[chunk->step / LUNA_SLAB_STEP], chunk);
}

void luna_slab_freed(luna_slab *slab, luna_chunk *chunk)
{
    if (chunk->n == chunk->max - 1)
        link_first(&slab->roomy[chunk->step / LUNA_SLAB_STEP], chunk);
    else if (chunk->prev != NULL || chunk->next != NULL) /* the last one of a size stays */
        close_chunk(slab, chunk);
}

void luna_slab_chunks(const luna_slab *slab, size_t *used, size_t *empty)
{
    *used = slab->n_used;
    *empty = slab->n_empty;
}
