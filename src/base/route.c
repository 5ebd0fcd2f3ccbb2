/* route.c - keys of one column straight to their shard. */
#include "route.h"

#include <stdbool.h>

#include "hash.h"

#define MAX_EXACT_DOUBLE INT64_C(9007199254740992) /* 2^53 */

static inline bool takes_int8(const luna_route *route)
{
    return route->columns == 1 && (route->type == LUNA_KEY_ANY || route->type == LUNA_KEY_INT8);
}

static inline int32_t answer(const luna_route *route, uint64_t key_hash)
{
    uint32_t bucket = luna_bucket_of(&route->map, luna_hash_combine(0, key_hash));
    return (int32_t)((uint32_t)route->map.owner[bucket] << LUNA_ROUTE_SHIFT | bucket);
}

int32_t luna_route_number(const luna_route *route, double key)
{
    /* The cast is defined for what lies between; NaN does not. */
    if (!takes_int8(route) ||
        !(key >= -(double)MAX_EXACT_DOUBLE && key <= (double)MAX_EXACT_DOUBLE))
        return LUNA_ROUTE_UNKNOWN;
    int64_t number = (int64_t)key;
    if ((double)number != key)
        return LUNA_ROUTE_UNKNOWN;
    return answer(route, luna_hash_partition_int8(number));
}

int32_t luna_route_int64(const luna_route *route, int64_t key)
{
    return takes_int8(route) ? answer(route, luna_hash_partition_int8(key)) : LUNA_ROUTE_UNKNOWN;
}

int32_t luna_route_text(const luna_route *route, const char *key, size_t len)
{
    luna_key read;
    luna_err ignored;
    if (route->columns != 1 ||
        luna_key_from_text(&read, route->type, key, len, &ignored) != LUNA_OK)
        return LUNA_ROUTE_UNKNOWN;
    return answer(route, luna_key_hash(&read));
}

size_t luna_route_int64s(const luna_route *route, const int64_t *keys, size_t n, uint16_t *shards)
{
    if (!takes_int8(route))
        return 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t hash = luna_hash_combine(0, luna_hash_partition_int8(keys[i]));
        shards[i] = route->map.owner[luna_bucket_of(&route->map, hash)];
    }
    return n;
}
