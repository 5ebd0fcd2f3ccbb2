/* watch.h - notices when files in a folder change.  Layer: io.
 *
 * What changed is found by comparing what stat says now with what it said before: whatever way an
 * editor has of saving, links that point elsewhere, and a folder that appears, goes or is replaced.
 * inotify says when to look; where it does not see something (a link's target, a network's file
 * system) a look every few seconds does.  Changes that come close together are one.  A file that
 * inotify names counts as changed even if stat sees no difference: its clock is a coarse one. */
#ifndef LUNA_IO_WATCH_H
#define LUNA_IO_WATCH_H

#include "folder.h"
#include "loop.h"
#include "timer.h"

typedef struct luna_watch_dir {
    int wd;
    char *path;
} luna_watch_dir;

typedef struct luna_paths {
    char **list;
    size_t n, room;
} luna_paths;

/* Owned by the caller, at a fixed address from open to close. */
typedef struct luna_watch {
    luna_loop *loop; /* NULL when closed */
    char *path, *suffix;
    luna_folder folder; /* as it was seen last */
    luna_watch_dir *dirs;
    size_t n_dirs, room_dirs;
    int parent; /* wd of the directory that the folder lies in */
    ev_io io;   /* io.fd is -1 without inotify */
    ev_timer quiet, look;
    ev_tstamp first; /* when the changes began that are waited with; 0: there are none */
    luna_paths touched, changed;
    luna_op wait;
    luna_timer wait_timer;
} luna_watch;

/* Watch the files below `path` whose names end in `suffix`, from how they are now.  The folder need
 * not be there. */
void luna_watch_open(luna_watch *watch, luna_loop *loop, const char *path, const char *suffix);

/* Complete watch->wait with LUNA_OK when files have changed since watch->changed was emptied, or at
 * `deadline` (luna_loop_clock; 0 is never) with LUNA_ETIMEOUT.  One wait at a time. */
void luna_watch_wait_start(luna_watch *watch, double deadline, void (*done)(luna_op *op));

/* Forget which files have changed. */
void luna_watch_forget(luna_watch *watch);

/* A wait that is pending ends with LUNA_ECANCELED.  May be called twice. */
void luna_watch_close(luna_watch *watch);
#endif
