/* stall.h - turns of the loop that took too long: counted, and said on stderr.  Layer: lua. */
#ifndef LUNA_LUA_STALL_H
#define LUNA_LUA_STALL_H

#include <stdint.h>

#include "loop.h"

typedef struct luna_stalls {
    uint64_t count;
    double seconds, longest; /* in all; of one */
    double said_at;
    uint64_t unsaid; /* since */
    char last[400];  /* the last one in words, empty when there was none */
} luna_stalls;

/* The loop's `stalled`. */
void luna_stall_note(luna_loop *loop, double seconds);
#endif
