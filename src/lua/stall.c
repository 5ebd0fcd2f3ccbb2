#include "stall.h"

#include <stdio.h>

#include "runtime.h"

/* Seconds between lines on stderr. */
#define EVERY 10.0

/* Is there anybody that had to wait? */
static bool is_harmful(void)
{
    return luna_rt.resolver != NULL || luna_rt.tasks.next != luna_rt.tasks.prev;
}

static void say(luna_stalls *stalls)
{
    double now = luna_loop_clock();
    if (stalls->said_at > 0 && now - stalls->said_at < EVERY) {
        stalls->unsaid++;
        return;
    }
    char line[sizeof(stalls->last) + 64], more[64] = "";
    if (stalls->unsaid > 0)
        snprintf(more, sizeof(more), " (and %llu times since the last such line)",
                 (unsigned long long)stalls->unsaid);
    snprintf(line, sizeof(line), "%s%s", stalls->last, more);
    luna_runtime_say(line);
    stalls->said_at = now;
    stalls->unsaid = 0;
}

void luna_stall_note(luna_loop *loop, double seconds)
{
    luna_stalls *stalls = &luna_rt.stalls;
    bool one = loop->work.longest > seconds / 2;
    stalls->count++;
    stalls->seconds += seconds;
    if (seconds > stalls->longest)
        stalls->longest = seconds;
    snprintf(stalls->last, sizeof(stalls->last),
             "everything stood still for %.0f ms: %s%s, %.0f ms", seconds * 1000,
             one ? "" : "many things to do, the longest ", loop->work.what,
             loop->work.longest * 1000);
    if (is_harmful())
        say(stalls);
}
