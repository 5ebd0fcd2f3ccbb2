#include "watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

/* Seconds: without a change until they are reported, of changes until they are reported in any
 * case, between looks without being told. */
#define QUIET 0.05
#define AT_MOST 0.25
#define LOOK_EVERY 2.0

#define MAX_TOUCHED 1000

#define IN_DIR                                                                                     \
    (IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO |            \
     IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF)
#define IN_PARENT (IN_CREATE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE)

/* ---- lists of paths --------------------------------------------------------------- */

static char *copy_of(const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        abort();
    return copy;
}

static void add_path(luna_paths *paths, const char *path)
{
    for (size_t i = 0; i < paths->n; i++)
        if (strcmp(paths->list[i], path) == 0)
            return;
    if (paths->n == paths->room) {
        paths->room = paths->room > 0 ? 2 * paths->room : 16;
        paths->list = realloc(paths->list, paths->room * sizeof(*paths->list));
        if (paths->list == NULL)
            abort();
    }
    paths->list[paths->n++] = copy_of(path);
}

static void free_paths(luna_paths *paths)
{
    for (size_t i = 0; i < paths->n; i++)
        free(paths->list[i]);
    free(paths->list);
    *paths = (luna_paths){ 0 };
}

/* ---- directories ------------------------------------------------------------------ */

static void enter_dir(void *user, const char *path)
{
    luna_watch *watch = user;
    if (watch->io.fd < 0)
        return;
    int wd = inotify_add_watch(watch->io.fd, path, IN_DIR | IN_ONLYDIR);
    if (wd < 0)
        return;
    if (watch->n_dirs == watch->room_dirs) {
        watch->room_dirs = watch->room_dirs > 0 ? 2 * watch->room_dirs : 8;
        watch->dirs = realloc(watch->dirs, watch->room_dirs * sizeof(*watch->dirs));
        if (watch->dirs == NULL)
            abort();
    }
    watch->dirs[watch->n_dirs++] = (luna_watch_dir){ wd, copy_of(path) };
}

static const char *dir_of(const luna_watch *watch, int wd)
{
    for (size_t i = 0; i < watch->n_dirs; i++)
        if (watch->dirs[i].wd == wd)
            return watch->dirs[i].path;
    return NULL;
}

static void enter_parent(luna_watch *watch)
{
    char *parent = copy_of(watch->path), *slash = strrchr(parent, '/');
    if (slash != NULL)
        slash[slash == parent] = '\0';
    int wd = inotify_add_watch(watch->io.fd, slash != NULL ? parent : ".",
                               IN_PARENT | IN_ONLYDIR | IN_MASK_ADD);
    if (watch->parent >= 0 && watch->parent != wd)
        inotify_rm_watch(watch->io.fd, watch->parent);
    watch->parent = wd;
    free(parent);
}

/* ---- looking ---------------------------------------------------------------------- */

static void on_changed(void *user, const char *path)
{
    add_path(&((luna_watch *)user)->changed, path);
}

/* Directories are entered before they are listed, so that nothing falls in between. */
static void read_folder(luna_watch *watch, luna_folder *folder)
{
    luna_watch_dir *before = watch->dirs;
    size_t n = watch->n_dirs;
    watch->dirs = NULL;
    watch->n_dirs = watch->room_dirs = 0;
    if (watch->io.fd >= 0)
        enter_parent(watch);
    luna_folder_read(folder, watch->path, watch->suffix, enter_dir, watch);
    for (size_t i = 0; i < n; i++) {
        if (dir_of(watch, before[i].wd) == NULL && before[i].wd != watch->parent)
            inotify_rm_watch(watch->io.fd, before[i].wd); /* it was moved away, or is gone */
        free(before[i].path);
    }
    free(before);
}

static void look(luna_watch *watch)
{
    luna_folder now = { 0 };
    read_folder(watch, &now);
    luna_folder_compare(&watch->folder, &now, on_changed, watch);
    for (size_t i = 0; i < watch->touched.n; i++)
        if (luna_folder_has(&now, watch->touched.list[i]))
            add_path(&watch->changed, watch->touched.list[i]);
    free_paths(&watch->touched);
    luna_folder_free(&watch->folder);
    watch->folder = now;
    if (watch->changed.n > 0) {
        luna_timer_stop(watch->loop, &watch->wait_timer);
        luna_op_post(&watch->wait, LUNA_OK);
    }
}

static void on_quiet(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)ev;
    (void)revents;
    luna_watch *watch = w->data;
    watch->first = 0;
    look(watch);
}

static void on_look(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)ev;
    (void)revents;
    luna_watch *watch = w->data;
    if (watch->first == 0)
        look(watch);
}

/* ---- inotify ---------------------------------------------------------------------- */

static const char *name_in_parent(const luna_watch *watch)
{
    const char *slash = strrchr(watch->path, '/');
    return slash != NULL ? slash + 1 : watch->path;
}

static void touch(luna_watch *watch, const char *dir, const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        abort();
    if (watch->touched.n < MAX_TOUCHED)
        add_path(&watch->touched, path);
    free(path);
}

/* Does this event say anything about the folder? */
static bool note(luna_watch *watch, const struct inotify_event *event)
{
    const char *dir = dir_of(watch, event->wd);
    if (dir == NULL)
        return event->wd != watch->parent ||
               (event->len > 0 && strcmp(event->name, name_in_parent(watch)) == 0);
    if (event->len > 0)
        touch(watch, dir, event->name);
    return true;
}

static bool read_events(luna_watch *watch)
{
    _Alignas(struct inotify_event) char buf[4096];
    bool any = false;
    ssize_t n;
    while ((n = read(watch->io.fd, buf, sizeof(buf))) > 0)
        for (char *at = buf; at < buf + n;) {
            const struct inotify_event *event = (const void *)at;
            any |= note(watch, event);
            at += sizeof(*event) + event->len;
        }
    return any;
}

static void on_events(struct ev_loop *ev, ev_io *w, int revents)
{
    (void)revents;
    luna_watch *watch = w->data;
    if (!read_events(watch))
        return;
    double now = luna_loop_clock(), wait = QUIET;
    if (watch->first == 0)
        watch->first = now;
    if (now + wait > watch->first + AT_MOST)
        wait = watch->first + AT_MOST > now ? watch->first + AT_MOST - now : 0;
    ev_timer_stop(ev, &watch->quiet);
    ev_timer_set(&watch->quiet, wait, 0);
    ev_timer_start(ev, &watch->quiet);
}

/* ---- open and close --------------------------------------------------------------- */

static char *without_slash(const char *path)
{
    char *copy = copy_of(path);
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    return copy;
}

void luna_watch_open(luna_watch *watch, luna_loop *loop, const char *path, const char *suffix)
{
    *watch = (luna_watch){
        .loop = loop, .path = without_slash(path), .suffix = copy_of(suffix), .parent = -1
    };
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    ev_io_init(&watch->io, on_events, fd, EV_READ);
    watch->io.data = watch;
    if (fd >= 0)
        ev_io_start(loop->ev, &watch->io);
    ev_timer_init(&watch->quiet, on_quiet, QUIET, 0);
    watch->quiet.data = watch;
    ev_timer_init(&watch->look, on_look, LOOK_EVERY, LOOK_EVERY);
    watch->look.data = watch;
    ev_timer_start(loop->ev, &watch->look);
    read_folder(watch, &watch->folder);
}

static void on_wait_timer(luna_timer *timer)
{
    luna_op_post(&LUNA_CONTAINER(timer, luna_watch, wait_timer)->wait, LUNA_ETIMEOUT);
}

static void wait_cancel(luna_op *op)
{
    luna_watch *watch = LUNA_CONTAINER(op, luna_watch, wait);
    luna_timer_stop(watch->loop, &watch->wait_timer);
    luna_op_post(op, LUNA_ECANCELED);
}

void luna_watch_wait_start(luna_watch *watch, double deadline, void (*done)(luna_op *op))
{
    luna_op_start(&watch->wait, watch->loop, done, wait_cancel);
    if (watch->changed.n > 0)
        luna_op_post(&watch->wait, LUNA_OK);
    else
        luna_timer_start(watch->loop, &watch->wait_timer, deadline, on_wait_timer);
}

void luna_watch_forget(luna_watch *watch)
{
    free_paths(&watch->changed);
}

void luna_watch_close(luna_watch *watch)
{
    if (watch->loop == NULL)
        return;
    luna_op_cancel(&watch->wait);
    luna_timer_stop(watch->loop, &watch->wait_timer);
    ev_timer_stop(watch->loop->ev, &watch->quiet);
    ev_timer_stop(watch->loop->ev, &watch->look);
    if (watch->io.fd >= 0) {
        ev_io_stop(watch->loop->ev, &watch->io);
        close(watch->io.fd);
    }
    for (size_t i = 0; i < watch->n_dirs; i++)
        free(watch->dirs[i].path);
    free(watch->dirs);
    luna_folder_free(&watch->folder);
    free_paths(&watch->touched);
    free_paths(&watch->changed);
    free(watch->path);
    free(watch->suffix);
    watch->loop = NULL;
}
