/* wait.h - an operation that is only a wait: sleep, join, event.  Layer: lua. */
#ifndef LUNA_LUA_WAIT_H
#define LUNA_LUA_WAIT_H

#include "loop.h"

/* A heap-allocated op for luna_task_park that frees itself when done.  It ends
 * with LUNA_ETIMEOUT at `deadline` (luna_loop_clock; 0 is never), or when
 * somebody posts it; the poster may queue it by its `link`. */
luna_op *luna_wait_start(double deadline);
#endif
