/* descriptor.h - a file descriptor that is waited for: standard input, local sockets.  Layer: io.
 *
 * Regular files count as always ready.  A descriptor that others share (standard input is the
 * shell's too) stays as blocking as it was: it is read only after it was found ready.  Sockets are
 * made here and never block. */
#ifndef LUNA_IO_DESCRIPTOR_H
#define LUNA_IO_DESCRIPTOR_H

#include <sys/types.h>

#include "timer.h"

/* Owned by the caller, at a fixed address from open to close. */
typedef struct luna_descriptor {
    luna_loop *loop; /* NULL when closed */
    int fd;
    bool is_owned; /* closed with it */
    ev_io io;
    luna_op wait;
    luna_timer wait_timer;
} luna_descriptor;

/* Take over `fd`; it is closed at the end when `is_owned`. */
void luna_descriptor_open(luna_descriptor *descriptor, luna_loop *loop, int fd, bool is_owned);

/* Complete descriptor->wait with LUNA_OK when `events` (EV_READ, EV_WRITE) can be done, or at
 * `deadline` (luna_loop_clock; 0 is never) with LUNA_ETIMEOUT.  One wait at a time. */
void luna_descriptor_wait_start(luna_descriptor *descriptor, int events, double deadline,
                                void (*done)(luna_op *op));

/* Ends a wait as if it had been cancelled.  May be called twice. */
void luna_descriptor_close(luna_descriptor *descriptor);

/* A listening local socket at `path`, for nobody but this user; a socket there that nobody listens
 * on any more is replaced.  -1 with errno, EADDRINUSE when somebody does listen. */
int luna_local_listen(const char *path) LUNA_MUSTCHECK;

/* A connection to a local socket.  -1 with errno. */
int luna_local_connect(const char *path) LUNA_MUSTCHECK;

/* The next connection and whose process it is; -1 with errno, EAGAIN when there is none. */
int luna_local_accept(int fd, uid_t *uid) LUNA_MUSTCHECK;
#endif
