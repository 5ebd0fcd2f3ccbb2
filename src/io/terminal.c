#include "terminal.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PASTE_ON "\033[?2004h"
#define PASTE_OFF "\033[?2004l\r"

static void say(int fd, const char *text)
{
    ssize_t ignored = write(fd, text, strlen(text));
    (void)ignored;
}

bool luna_terminal_edit(luna_terminal *terminal, int fd)
{
    if (terminal->is_raw)
        return true;
    if (!terminal->is_known && tcgetattr(fd, &terminal->saved) < 0)
        return false;
    terminal->is_known = 1;
    struct termios raw = terminal->saved;
    raw.c_iflag &= (tcflag_t) ~(BRKINT | ICRNL | INLCR | IGNCR | INPCK | ISTRIP | IXON);
    raw.c_lflag &= (tcflag_t) ~(ECHO | ICANON | IEXTEN);
    raw.c_cflag |= CS8;
    raw.c_cc[VINTR] = raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* of the signals only QUIT is left: it
                                                            must work when nobody reads */
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    terminal->fd = fd;
    if (tcsetattr(fd, TCSADRAIN, &raw) < 0)
        return false;
    terminal->is_raw = 1;
    say(fd, PASTE_ON);
    return true;
}

void luna_terminal_restore(luna_terminal *terminal)
{
    int error = errno;
    if (!terminal->is_known || (!terminal->is_raw && tcgetpgrp(terminal->fd) != getpgrp()))
        return;
    if (terminal->is_raw)
        say(terminal->fd, PASTE_OFF);
    terminal->is_raw = 0;
    tcsetattr(terminal->fd, TCSADRAIN, &terminal->saved);
    errno = error;
}

bool luna_terminal_size(int fd, int *columns, int *rows)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
        return false;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return true;
}

void luna_terminal_stop(void)
{
    struct sigaction standard = { .sa_handler = SIG_DFL }, before;
    sigaction(SIGTSTP, &standard, &before);
    kill(0, SIGTSTP);
    sigaction(SIGTSTP, &before, NULL);
}
