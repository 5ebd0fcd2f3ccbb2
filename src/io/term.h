/* term.h - how long, and by which map, statements may be sent without a guard.  Layer: io.
 *
 * A router that has promised its catalog to guard its statements when asked may
 * leave that out meanwhile, up to the end of its term.  What relies on the term says
 * by which generation of the map it was routed: it is not sent once there is
 * another one or the term is over, and a read whose answer outlives the term is to be
 * asked anew.  What relies on it and is under way is counted, for the promise is kept
 * only when nothing is.
 *
 * Pools share a term and hold references to it.  Generations are numbered from 1. */
#ifndef LUNA_IO_TERM_H
#define LUNA_IO_TERM_H

#include <stdbool.h>
#include <stdint.h>

typedef struct luna_term {
    unsigned refs, running;
    double until; /* luna_loop_clock */
    uint64_t generation;
    uint64_t lost; /* what relied on this generation, or an earlier one, has outlived its term */
} luna_term;

/* With one reference, and over.  Never NULL. */
luna_term *luna_term_new(void);
luna_term *luna_term_ref(luna_term *term);
/* NULL is allowed. */
void luna_term_unref(luna_term *term);

/* May something be sent that was routed by this generation? */
static inline bool luna_term_allows(const luna_term *term, uint64_t generation, double now)
{
    return generation == term->generation && now < term->until;
}

/* Has the term held all the time since something was sent? */
static inline bool luna_term_holds(const luna_term *term, uint64_t generation, double now)
{
    return generation > term->lost && now < term->until;
}
#endif
