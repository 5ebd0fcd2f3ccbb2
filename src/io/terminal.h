/* terminal.h - the terminal's settings, for a line editor.  Layer: io.
 *
 * A terminal is raw only while a line is edited, so that what a line runs finds it as the shell
 * left it.  However the program ends, luna_terminal_restore is to be called. */
#ifndef LUNA_IO_TERMINAL_H
#define LUNA_IO_TERMINAL_H

#include <signal.h>
#include <stdbool.h>
#include <termios.h>

#include "err.h"

typedef struct luna_terminal {
    int fd;
    struct termios saved; /* as it was when a line was edited first */
    volatile sig_atomic_t is_known, is_raw;
} luna_terminal;

/* Have keys as they are typed, and pastes marked as such.  False with errno, and nothing is
 * changed.  Does nothing when it is so already. */
LUNA_MUSTCHECK bool luna_terminal_edit(luna_terminal *terminal, int fd);

/* Everything as it was at first, whatever a program that had the terminal meanwhile has left on.
 * Does nothing before the first edit, and when the terminal is another's now.  May be called in a
 * signal. */
void luna_terminal_restore(luna_terminal *terminal);

/* False when `fd` is no terminal, or one that does not know. */
LUNA_MUSTCHECK bool luna_terminal_size(int fd, int *columns, int *rows);

/* Stop as Ctrl-Z does; returns when the program goes on. */
void luna_terminal_stop(void);
#endif
