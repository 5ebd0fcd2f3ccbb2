/* pattern.h - Lua's patterns, with an end in sight.  Layer: base.
 *
 * Lua's own matcher may need time that grows with the subject's length to the power of the
 * repetitions in the pattern, all of it inside one C call that nothing can stop.  This one counts
 * its steps and gives up.  It finds what Lua's finds.
 *
 * What is wrong with a pattern is said when it is compiled, also of parts that no match would
 * reach. */
#ifndef LUNA_BASE_PATTERN_H
#define LUNA_BASE_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LUNA_PATTERN_CAPTURES 32

typedef struct luna_pattern_item {
    uint8_t kind, repeat;
    uint8_t a, b;    /* the bytes of %b, the byte to match, the number of a capture */
    uint32_t set[8]; /* a bit for each byte */
} luna_pattern_item;

typedef struct luna_pattern {
    bool is_anchored; /* began with ^ */
    int n_captures;
    luna_pattern_item items[];
} luna_pattern;

typedef struct luna_capture {
    const char *begin;
    ptrdiff_t len; /* LUNA_CAPTURE_POSITION for () */
} luna_capture;

#define LUNA_CAPTURE_POSITION ((ptrdiff_t)-1)

typedef struct luna_match {
    const char *begin, *end; /* of the subject */
    uint64_t steps;          /* how many may still be taken; 0 after giving up */
    luna_capture capture[LUNA_PATTERN_CAPTURES];
} luna_match;

/* Bytes that a pattern of `len` bytes may take once compiled. */
size_t luna_pattern_size(size_t len);

/* Compile into storage of that size.  With `anchors` a leading ^ is one, otherwise a byte as any.
 * NULL, or what is wrong. */
const char *luna_pattern_compile(luna_pattern *pattern, const char *text, size_t len, bool anchors);

/* Does the pattern match at `at`, which lies in the subject?  Returns the match's end and fills the
 * captures; NULL when it does not, or when match->steps ran out. */
const char *luna_pattern_match(const luna_pattern *pattern, luna_match *match, const char *at);
#endif
