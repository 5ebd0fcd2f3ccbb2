#include "slab.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define STEP 16
#define CHUNK ((size_t)64 << 10)
#define MAX_EMPTY 64 /* chunks that keep their memory */
#define ADDRESS_END ((uintptr_t)1 << 47)

typedef struct chunk {
    void *free;   /* a list of blocks that were given back */
    char *fresh;  /* from here on no block was taken yet */
    uint32_t n;   /* blocks that are taken */
    uint32_t max; /* blocks that it has */
    uint32_t step;
    struct chunk *next, *prev;
} chunk;

struct luna_slab {
    char *base;
    size_t n_chunks, n_opened;              /* those from n_opened on were never used */
    chunk *chunks;                          /* of the whole range */
    chunk *roomy[LUNA_SLAB_MAX / STEP + 1]; /* by size: chunks with room */
    chunk *empty, *bare;                    /* single lists; bare ones have no memory */
    size_t n_used, n_empty;
};

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
    slab->n_chunks = size / CHUNK;
    slab->base = reserve(slab->n_chunks * CHUNK);
    slab->chunks = reserve(slab->n_chunks * sizeof(chunk));
    if (slab->base == NULL || slab->chunks == NULL ||
        (uintptr_t)slab->base + slab->n_chunks * CHUNK > ADDRESS_END) {
        luna_slab_free(slab);
        return NULL;
    }
    return slab;
}

void luna_slab_free(luna_slab *slab)
{
    if (slab->base != NULL)
        munmap(slab->base, slab->n_chunks * CHUNK);
    if (slab->chunks != NULL)
        munmap(slab->chunks, slab->n_chunks * sizeof(chunk));
    free(slab);
}

/* ---- chunks ----------------------------------------------------------------------- */

static void link_first(chunk **list, chunk *c)
{
    c->prev = NULL;
    c->next = *list;
    if (c->next != NULL)
        c->next->prev = c;
    *list = c;
}

static void unlink_from(chunk **list, chunk *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        *list = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
}

/* A chunk without blocks; NULL when there is none left. */
static chunk *get_chunk(luna_slab *slab)
{
    chunk *c = slab->empty != NULL ? slab->empty : slab->bare;
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

static char *memory_of(const luna_slab *slab, const chunk *c)
{
    return slab->base + (size_t)(c - slab->chunks) * CHUNK;
}

static chunk *open_chunk(luna_slab *slab, size_t step)
{
    chunk *c = get_chunk(slab);
    if (c == NULL)
        return NULL;
    c->free = NULL;
    c->fresh = memory_of(slab, c);
    c->step = (uint32_t)step;
    c->n = 0;
    c->max = (uint32_t)(CHUNK / step);
    link_first(&slab->roomy[step / STEP], c);
    slab->n_used++;
    return c;
}

static void close_chunk(luna_slab *slab, chunk *c)
{
    unlink_from(&slab->roomy[c->step / STEP], c);
    slab->n_used--;
    if (slab->n_empty < MAX_EMPTY) {
        c->next = slab->empty;
        slab->empty = c;
        slab->n_empty++;
    } else {
        madvise(memory_of(slab, c), CHUNK, MADV_DONTNEED);
        c->next = slab->bare;
        slab->bare = c;
    }
}

/* ---- blocks ----------------------------------------------------------------------- */

void *luna_slab_take(luna_slab *slab, size_t n)
{
    size_t i = (n + STEP - 1) / STEP;
    chunk *c = slab->roomy[i];
    if (c == NULL && (c = open_chunk(slab, i * STEP)) == NULL)
        return NULL;
    void *block = c->free;
    if (block != NULL) {
        c->free = *(void **)block;
        __builtin_prefetch(c->free, 1); /* it was freed long ago */
    } else {
        block = c->fresh;
        c->fresh += c->step;
    }
    if (++c->n == c->max)
        unlink_from(&slab->roomy[i], c);
    return block;
}

void luna_slab_give(luna_slab *slab, void *block)
{
    chunk *c = &slab->chunks[(size_t)((char *)block - slab->base) / CHUNK];
    *(void **)block = c->free;
    c->free = block;
    if (c->n-- == c->max)
        link_first(&slab->roomy[c->step / STEP], c);
    else if (c->n == 0 && (c->prev != NULL || c->next != NULL)) /* the last one of a size stays */
        close_chunk(slab, c);
}

bool luna_slab_owns(const luna_slab *slab, const void *block)
{
    return (size_t)((const char *)block - slab->base) < slab->n_chunks * CHUNK;
}

void luna_slab_chunks(const luna_slab *slab, size_t *used, size_t *empty)
{
    *used = slab->n_used;
    *empty = slab->n_empty;
}
