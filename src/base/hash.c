/* hash.c - lookup3 with PostgreSQL's seed and width. */
#include "hash.h"

#include <string.h>

typedef struct state {
    uint32_t a, b, c;
} state;

/* One step of lookup3's reversible mix of three words. */
static void step(uint32_t *x, uint32_t *y, uint32_t z, int n)
{
    *x -= *y;
    *x ^= luna_hash_rotate(*y, n);
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

static uint64_t finish(const state *s)
{
    return luna_hash_finish(s->a, s->b, s->c);
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

/* Four bytes, little end first whatever the machine's order. */
static inline uint32_t word_at(const unsigned char *p)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint32_t word;
    memcpy(&word, p, sizeof(word));
    return word;
#else
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
#endif
}

/* Up to four bytes. */
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
        s.a += word_at(p);
        s.b += word_at(p + 4);
        s.c += word_at(p + 8);
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
    state s = start(sizeof(uint32_t), seed);
    s.a += luna_hash_half(value);
    return finish(&s);
}
