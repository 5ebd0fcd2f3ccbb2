/* process.h - child processes on the event loop.  Layer: io.
 *
 * A child is started without a shell, in a process group of its own (unless it
 * is to have the terminal), so that a Ctrl-C at our terminal does not reach it
 * and one signal reaches all it started.  It is killed when we die; what it left in the background
 * is not. Captured output is gathered in bounded buffers while the loop runs.
 *
 * The process is finished once it was reaped and its captured pipes are at
 * their end; a grandchild that keeps a pipe open delays that by
 * LUNA_PROCESS_GRACE seconds at most. */
#ifndef LUNA_IO_PROCESS_H
#define LUNA_IO_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "buf.h"
#include "timer.h"

#define LUNA_PROCESS_GRACE 1.0

typedef enum luna_process_output {
    LUNA_PROCESS_DISCARD, /* to /dev/null */
    LUNA_PROCESS_CAPTURE,
    LUNA_PROCESS_INHERIT,
    LUNA_PROCESS_FILE, /* appended to a file, created with mode 0600 */
} luna_process_output;

/* How to start a child; everything pointed to is needed during the start only. */
typedef struct luna_process_options {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in our PATH */
    const char *const *env;  /* NULL-terminated "NAME=value" additions, "NAME" removes; or NULL */
    const char *cwd;         /* NULL: ours; with `user`, "/" */
    const char *user;        /* run as this user, which takes root; or NULL */
    const char *input;       /* standard input's bytes, or NULL for /dev/null */
    size_t input_len;
    bool inherit_input;
    bool foreground;               /* in our process group: keys of the terminal reach it too */
    luna_process_output output[2]; /* of stdout and stderr */
    const char *file[2];           /* for LUNA_PROCESS_FILE */
    size_t max_output;             /* of each captured stream; what is beyond is read and dropped */
} luna_process_options;

/* A captured stream. */
typedef struct luna_process_pipe {
    ev_io io; /* io.fd is -1 when closed */
    luna_buf buf;
    size_t max;
    bool truncated;
} luna_process_pipe;

/* Owned by the caller, at a fixed address from start to close. */
typedef struct luna_process {
    luna_loop *loop;
    pid_t pid; /* stays set after the end */
    bool foreground;
    bool reaped;    /* the pid means nothing any more */
    bool finished;  /* reaped, and the pipes are closed */
    int wait_state; /* as waitpid gives it; valid once reaped */
    luna_process_pipe pipe[2];
    ev_child child;
    ev_timer grace;
    luna_op wait;
    luna_timer wait_timer;
} luna_process;

/* Start a child.  Returns once the new program runs or could not be run: on
 * failure (LUNA_EINVAL, with the reason in words) nothing is left behind and
 * `process` needs no close. */
luna_status luna_process_start(luna_process *process, luna_loop *loop,
                               const luna_process_options *options, luna_err *err) LUNA_MUSTCHECK;

/* Complete process->wait when the process is finished (LUNA_OK), or at
 * `deadline` (luna_loop_clock; 0 is never) with LUNA_ETIMEOUT, and the child
 * goes on.  One wait at a time; cancelling it leaves the child alone. */
void luna_process_wait_start(luna_process *process, double deadline, void (*done)(luna_op *op));

/* Signal the child's process group, or the child alone.  Does nothing once it was reaped. */
void luna_process_signal(luna_process *process, int signal, bool group);

/* Forget the child and free the buffers.  A child that still runs is killed
 * with its group.  No wait may be pending.  May be called twice. */
void luna_process_close(luna_process *process);
#endif
