/* hash.h - PostgreSQL's extended hashes.  Layer: base.
 *
 * Bob Jenkins' lookup3 (public domain, burtleburtle.net/bob/c/lookup3.c) with
 * the 64-bit seed and 64-bit result that PostgreSQL gave it (its functions
 * hash_bytes_extended, hash_bytes_uint32_extended, hashint8extended and
 * hash_combine64).  The results are a contract with data on disk: they equal
 * the server's on every platform and never change.  Pure functions. */
#ifndef LUNA_BASE_HASH_H
#define LUNA_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* The seed of PARTITION BY HASH (HASH_PARTITION_SEED). */
#define LUNA_PARTITION_SEED UINT64_C(0x7A5B22367996DCFD)

/* hashtextextended (deterministic collations) and uuid_hash_extended. */
uint64_t luna_hash_bytes(const void *bytes, size_t len, uint64_t seed);

/* hashint8extended; equal to hashint4extended and hashint2extended for values
 * that those types can hold, and to the hash of a date given as its day number. */
uint64_t luna_hash_int8(int64_t value, uint64_t seed);

static inline uint32_t luna_hash_rotate(uint32_t x, int n)
{
    return (x << n) | (x >> (32 - n));
}

/* lookup3's last step. */
static inline uint64_t luna_hash_finish(uint32_t a, uint32_t b, uint32_t c)
{
    c = (c ^ b) - luna_hash_rotate(b, 14);
    a = (a ^ c) - luna_hash_rotate(c, 11);
    b = (b ^ a) - luna_hash_rotate(a, 25);
    c = (c ^ b) - luna_hash_rotate(b, 16);
    a = (a ^ c) - luna_hash_rotate(c, 4);
    b = (b ^ a) - luna_hash_rotate(a, 14);
    c = (c ^ b) - luna_hash_rotate(b, 24);
    return (uint64_t)b << 32 | c;
}

/* A value that fits four bytes hashes as those: the other half is 0 or ~0. */
static inline uint32_t luna_hash_half(int64_t value)
{
    uint32_t high = (uint32_t)((uint64_t)value >> 32);
    return (uint32_t)value ^ (value >= 0 ? high : ~high);
}

/* luna_hash_int8 with LUNA_PARTITION_SEED.  The numbers are lookup3's state for four bytes once the
 * seed has been mixed in, which is half the work. */
static inline uint64_t luna_hash_partition_int8(int64_t value)
{
    return luna_hash_finish(UINT32_C(0xe933553e) + luna_hash_half(value), UINT32_C(0xc5da07a8),
                            UINT32_C(0xfdfd95ed));
}

/* hash_combine64: the row hash `a` so far with one more column's hash `b`. */
static inline uint64_t luna_hash_combine(uint64_t a, uint64_t b)
{
    return a ^ (b + UINT64_C(0x49a0f4dd15e5a8e3) + (a << 54) + (a >> 7));
}
#endif
