/* hash.c - lookup3 with PostgreSQL's seed and width. */
#include "hash.h"

typedef struct state {
    uint32_t a, b, c;
} state;

static uint32_t rotate(uint32_t x, int n)
{
    return (x << n) | (x >> (32 - n));
}

/* One step of lookup3's reversible mix of three words. */
static void step(uint32_t *x, uint32_t *y, uint32_t z, int n)
{
    *x -= *y;
    *x ^= rotate(*y, n);
    *y += z;
}

static void mix(state *s)
{
    step(&s->a, &s->c, s->b, 4);
    step(&s->b, &s->a, s->c, 6);
    step(&s->c, &s->b, s->a, 8);
    step(&s->a, &s->c, s->b, 16);
    step(&s->b, &s->a, s->c, 19);
    step(&s->c, &s->b, s->a, 4);
}

static void fold(uint32_t *x, uint32_t y, int n)
{
    *x ^= y;
    *x -= rotate(y, n);
}

static uint64_t finish(state *s)
{
    fold(&s->c, s->b, 14);
    fold(&s->a, s->c, 11);
    fold(&s->b, s->a, 25);
    fold(&s->c, s->b, 16);
    fold(&s->a, s->c, 4);
    fold(&s->b, s->a, 14);
    fold(&s->c, s->b, 24);
    return (uint64_t)s->b << 32 | s->c;
}

static state start(size_t len, uint64_t seed)
{
    uint32_t word = UINT32_C(0x9e3779b9) + (uint32_t)len + UINT32_C(3923095);
    state s = { word, word, word };
    if (seed != 0) {
        s.a += (uint32_t)(seed >> 32);
        s.b += (uint32_t)seed;
        mix(&s);
    }
    return s;
}

/* Up to four bytes, little end first whatever the machine's order. */
static uint32_t word_of(const unsigned char *p, size_t n)
{
    uint32_t word = 0;
    for (size_t i = 0; i < n; i++)
        word |= (uint32_t)p[i] << (8 * i);
    return word;
}

uint64_t luna_hash_bytes(const void *bytes, size_t len, uint64_t seed)
{
    const unsigned char *p = bytes;
    state s = start(len, seed);
    for (; len >= 12; len -= 12, p += 12) {
        s.a += word_of(p, 4);
        s.b += word_of(p + 4, 4);
        s.c += word_of(p + 8, 4);
        mix(&s);
    }
    s.a += word_of(p, len < 4 ? len : 4);
    if (len > 4)
        s.b += word_of(p + 4, len < 8 ? len - 4 : 4);
    /* The low byte of c stands for the length, so the tail starts at the second. */
    if (len > 8)
        s.c += word_of(p + 8, len - 8) << 8;
    return finish(&s);
}

uint64_t luna_hash_int8(int64_t value, uint64_t seed)
{
    uint32_t low = (uint32_t)value;
    uint32_t high = (uint32_t)((uint64_t)value >> 32);
    /* A value that fits four bytes hashes as those: the other half is 0 or ~0. */
    low ^= value >= 0 ? high : ~high;
    state s = start(sizeof(low), seed);
    s.a += low;
    return finish(&s);
}
