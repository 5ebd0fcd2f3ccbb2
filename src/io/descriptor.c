#include "descriptor.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 16

static void stop_waiting(luna_descriptor *d)
{
    ev_io_stop(d->loop->ev, &d->io);
    luna_timer_stop(d->loop, &d->wait_timer);
}

static void on_ready(struct ev_loop *ev, ev_io *w, int revents)
{
    (void)ev;
    (void)revents;
    luna_descriptor *d = w->data;
    stop_waiting(d);
    luna_op_post(&d->wait, LUNA_OK);
}

static void on_timer(luna_timer *timer)
{
    luna_descriptor *d = LUNA_CONTAINER(timer, luna_descriptor, wait_timer);
    stop_waiting(d);
    luna_op_post(&d->wait, LUNA_ETIMEOUT);
}

static void wait_cancel(luna_op *op)
{
    stop_waiting(LUNA_CONTAINER(op, luna_descriptor, wait));
    luna_op_post(op, LUNA_ECANCELED);
}

void luna_descriptor_open(luna_descriptor *d, luna_loop *loop, int fd, bool is_owned)
{
    *d = (luna_descriptor){ .loop = loop, .fd = fd, .is_owned = is_owned };
    ev_io_init(&d->io, on_ready, fd, EV_READ);
    d->io.data = d;
}

void luna_descriptor_wait_start(luna_descriptor *d, int events, double deadline,
                                void (*done)(luna_op *op))
{
    luna_op_start(&d->wait, d->loop, done, wait_cancel);
    ev_io_set(&d->io, d->fd, events);
    ev_io_start(d->loop->ev, &d->io);
    luna_timer_start(d->loop, &d->wait_timer, deadline, on_timer);
}

void luna_descriptor_close(luna_descriptor *d)
{
    if (d->loop == NULL)
        return;
    luna_op_cancel(&d->wait);
    stop_waiting(d);
    if (d->is_owned)
        close(d->fd);
    d->loop = NULL;
}

/* ---- local sockets ---------------------------------------------------------------- */

static int local_socket(const char *path, struct sockaddr_un *address)
{
    size_t n = strlen(path);
    *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (n == 0 || n >= sizeof(address->sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address->sun_path, path, n);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int fail(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

int luna_local_connect(const char *path)
{
    struct sockaddr_un address;
    int fd = local_socket(path, &address);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return fail(fd);
    return fd;
}

/* A program that was killed leaves its socket behind, which nobody answers at. */
static bool is_left_behind(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = luna_local_connect(path);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == ECONNREFUSED;
}

int luna_local_listen(const char *path)
{
    struct sockaddr_un address;
    int fd = local_socket(path, &address);
    if (fd < 0)
        return -1;
    mode_t before = umask(0177); /* from the moment it is there nobody else may connect */
    int rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
    int error = errno;
    if (rc < 0 && error == EADDRINUSE && is_left_behind(path) && unlink(path) == 0) {
        rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
        error = errno;
    }
    umask(before);
    errno = error;
    if (rc < 0 || listen(fd, BACKLOG) < 0)
        return fail(fd);
    return fd;
}

int luna_local_accept(int listener, uid_t *uid)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return -1;
    struct ucred peer;
    socklen_t n = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
        return fail(fd);
    *uid = peer.uid;
    return fd;
}
