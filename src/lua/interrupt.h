/* interrupt.h - stopping a task that computes.  Layer: lua.
 *
 * Whoever waits is cancelled; a loop that never waits hears of nothing.  So the signal itself sets
 * a hook, which raises at the next instruction and at every one after that, until the task has
 * ended: no pcall holds it up for long.  Compiled code does not see hooks: a line's functions are
 * kept from the compiler (lunashard.repl.evaluate). */
#ifndef LUNA_LUA_INTERRUPT_H
#define LUNA_LUA_INTERRUPT_H

/* Stop the task that runs now, if it may be stopped, and, unless `number` is 0, if it is armed with
 * that number.  To be called by the handler of a signal. */
void luna_interrupt_compute(int number);

/* A task that was stopped has ended. */
void luna_interrupt_end(void);
#endif
