/* route.h - a key of one column to its bucket and shard: one hash, one array read.  Layer: base.
 *
 * The fast half of routing, for keys in the form in which they mostly come.  Pure functions that
 * never fail: what is no good key, or not plain enough, is LUNA_ROUTE_UNKNOWN, and whoever asked
 * takes the way through luna_key, which knows the reason.  Where both answer, they agree.
 *
 * lunashard.strategy.route calls these by FFI from compiled traces, so their names and signatures
 * stand there once more. */
#ifndef LUNA_BASE_ROUTE_H
#define LUNA_BASE_ROUTE_H

#include <stddef.h>
#include <stdint.h>

#include "bucket_map.h"
#include "key.h"

/* Where the keys of one declared type live.  The map may be filled anew between two calls. */
typedef struct luna_route {
    luna_bucket_map map;
    luna_key_type type;
    uint32_t columns; /* of the shard key; only keys of one column are answered here */
} luna_route;

/* An answer is shard << LUNA_ROUTE_SHIFT | bucket, or LUNA_ROUTE_UNKNOWN, the only negative one. */
#define LUNA_ROUTE_UNKNOWN (-1)
#define LUNA_ROUTE_SHIFT 16
#define LUNA_ROUTE_BUCKET UINT32_C(0xffff)

int32_t luna_route_number(const luna_route *route, double key);
int32_t luna_route_int64(const luna_route *route, int64_t key);
int32_t luna_route_text(const luna_route *route, const char *key, size_t len);

/* The shards of `n` int8 keys of one column.  Returns n, or 0 with nothing written when the keys
 * are declared to be of another type or of several columns. */
size_t luna_route_int64s(const luna_route *route, const int64_t *keys, size_t n, uint16_t *shards);
#endif
