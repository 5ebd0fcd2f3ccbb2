#include "process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* All that the child needs between fork and exec.  Other threads may have held
 * any lock at the fork, so the child makes system calls only: no malloc, no
 * stdio, no name service. */
typedef struct start_plan {
    const luna_process_options *options;
    int fd[3];             /* to become 0, 1 and 2; -1 leaves ours in place */
    int pipe_fd[2];        /* our ends of captured streams, or -1 */
    char **env;            /* owned; its strings are borrowed but for the last `own_env` */
    size_t env_count;      /* strings in env */
    char identity[3][300]; /* HOME=, USER= and LOGNAME= of options->user */
    uid_t uid;
    gid_t gid;
    gid_t groups[64];
    int group_count;
    const char *cwd;
} start_plan;

/* What the child reports through the status pipe when it could not exec. */
typedef struct start_failure {
    int error;
    char step; /* 'd' chdir, 'u' user, 'x' exec */
} start_failure;

static void pipe_close(luna_process *p, luna_process_pipe *pipe)
{
    if (pipe->io.fd < 0)
        return;
    ev_io_stop(p->loop->ev, &pipe->io);
    close(pipe->io.fd);
    pipe->io.fd = -1;
}

static void process_finish_when_quiet(luna_process *p)
{
    if (!p->reaped || p->finished)
        return;
    if (p->pipe[0].io.fd >= 0 || p->pipe[1].io.fd >= 0) {
        if (!ev_is_active(&p->grace))
            ev_timer_start(p->loop->ev, &p->grace);
        return;
    }
    ev_timer_stop(p->loop->ev, &p->grace);
    p->finished = true;
    luna_timer_stop(p->loop, &p->wait_timer);
    luna_op_post(&p->wait, LUNA_OK);
}

/* Read what is there; false at the end of the stream. */
static bool pipe_drain(luna_process_pipe *pipe)
{
    char chunk[16384];
    for (int turn = 0; turn < 16; turn++) { /* a chatty child must not hold up the loop */
        ssize_t n = read(pipe->io.fd, chunk, sizeof(chunk));
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        if (n == 0)
            return false;
        size_t room = pipe->max - pipe->buf.len;
        if ((size_t)n > room)
            pipe->truncated = true;
        luna_buf_add(&pipe->buf, chunk, (size_t)n < room ? (size_t)n : room);
    }
    return true;
}

static void on_pipe(struct ev_loop *ev, ev_io *w, int revents)
{
    (void)ev;
    (void)revents;
    luna_process *p = w->data;
    luna_process_pipe *pipe = LUNA_CONTAINER(w, luna_process_pipe, io);
    if (!pipe_drain(pipe)) {
        pipe_close(p, pipe);
        process_finish_when_quiet(p);
    }
}

static void on_child(struct ev_loop *ev, ev_child *w, int revents)
{
    (void)revents;
    luna_process *p = w->data;
    ev_child_stop(ev, w);
    p->reaped = true;
    p->wait_state = w->rstatus;
    process_finish_when_quiet(p);
}

static void on_grace(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)ev;
    (void)revents;
    luna_process *p = w->data;
    for (int i = 0; i < 2; i++)
        pipe_close(p, &p->pipe[i]);
    process_finish_when_quiet(p);
}

static void on_wait_timer(luna_timer *timer)
{
    luna_op_post(&LUNA_CONTAINER(timer, luna_process, wait_timer)->wait, LUNA_ETIMEOUT);
}

static int is_same_variable(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return n == strcspn(b, "=") && memcmp(a, b, n) == 0;
}

static void plan_set_env(start_plan *plan, const char *entry)
{
    size_t kept = 0;
    for (size_t i = 0; i < plan->env_count; i++)
        if (!is_same_variable(plan->env[i], entry))
            plan->env[kept++] = plan->env[i];
    if (strchr(entry, '=') != NULL)
        plan->env[kept++] = (char *)(uintptr_t)entry;
    plan->env_count = kept;
    plan->env[kept] = NULL;
}

static luna_status plan_user(start_plan *plan, const char *user, luna_err *err)
{
    struct passwd entry, *found = NULL;
    char space[4096];
    int rc = getpwnam_r(user, &entry, space, sizeof(space), &found);
    if (found == NULL)
        return luna_err_set(err, LUNA_EINVAL, "cannot run as %s: %s", user,
                            rc != 0 ? strerror(rc) : "no such user");
    plan->uid = entry.pw_uid;
    plan->gid = entry.pw_gid;
    plan->group_count = (int)(sizeof(plan->groups) / sizeof(plan->groups[0]));
    if (getgrouplist(user, entry.pw_gid, plan->groups, &plan->group_count) < 0) {
        plan->groups[0] = entry.pw_gid;
        plan->group_count = 1;
    }
    static const char *const names[] = { "HOME", "USER", "LOGNAME" };
    for (int i = 0; i < 3; i++) {
        snprintf(plan->identity[i], sizeof(plan->identity[i]), "%s=%s", names[i],
                 i == 0 ? entry.pw_dir : user);
        plan_set_env(plan, plan->identity[i]);
    }
    return LUNA_OK;
}

static luna_status plan_env(start_plan *plan, luna_err *err)
{
    const luna_process_options *options = plan->options;
    size_t ours = 0, more = 0;
    while (environ[ours] != NULL)
        ours++;
    while (options->env != NULL && options->env[more] != NULL)
        more++;
    plan->env = malloc((ours + more + 4) * sizeof(char *));
    if (plan->env == NULL)
        abort();
    memcpy(plan->env, environ, (ours + 1) * sizeof(char *));
    plan->env_count = ours;
    if (options->user != NULL && plan_user(plan, options->user, err) != LUNA_OK)
        return LUNA_EINVAL;
    for (size_t i = 0; i < more; i++)
        plan_set_env(plan, options->env[i]);
    return LUNA_OK;
}

/* Input goes through an anonymous file: nothing to write later, no SIGPIPE. */
static luna_status plan_input(start_plan *plan, luna_err *err)
{
    const luna_process_options *options = plan->options;
    if (options->inherit_input)
        return LUNA_OK;
    if (options->input == NULL) {
        plan->fd[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    } else {
        plan->fd[0] = memfd_create("input", MFD_CLOEXEC);
        size_t done = 0;
        while (plan->fd[0] >= 0 && done < options->input_len) {
            ssize_t n = write(plan->fd[0], options->input + done, options->input_len - done);
            if (n < 0)
                return luna_err_set(err, LUNA_EINVAL, "cannot hold a child's input: %s",
                                    strerror(errno));
            done += (size_t)n;
        }
    }
    if (plan->fd[0] < 0 || (options->input != NULL && lseek(plan->fd[0], 0, SEEK_SET) < 0))
        return luna_err_set(err, LUNA_EINVAL, "cannot open a child's input: %s", strerror(errno));
    return LUNA_OK;
}

static luna_status plan_output(start_plan *plan, int which, luna_err *err)
{
    const luna_process_options *options = plan->options;
    const char *path = "/dev/null";
    switch (options->output[which]) {
    case LUNA_PROCESS_INHERIT: return LUNA_OK;
    case LUNA_PROCESS_CAPTURE: {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0)
            return luna_err_set(err, LUNA_EINVAL, "cannot make a pipe: %s", strerror(errno));
        plan->pipe_fd[which] = fds[0];
        plan->fd[which + 1] = fds[1];
        fcntl(fds[0], F_SETFL, O_NONBLOCK);
        return LUNA_OK;
    }
    case LUNA_PROCESS_FILE: path = options->file[which]; break;
    case LUNA_PROCESS_DISCARD: break;
    }
    plan->fd[which + 1] = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (plan->fd[which + 1] < 0)
        return luna_err_set(err, LUNA_EINVAL, "cannot write to %s: %s", path, strerror(errno));
    return LUNA_OK;
}

static void plan_deinit(start_plan *plan)
{
    for (int i = 0; i < 3; i++)
        if (plan->fd[i] >= 0)
            close(plan->fd[i]);
    for (int i = 0; i < 2; i++)
        if (plan->pipe_fd[i] >= 0)
            close(plan->pipe_fd[i]);
    free(plan->env);
}

static _Noreturn void child_fail(int status_fd, char step)
{
    start_failure failure = { .error = errno, .step = step };
    ssize_t ignored = write(status_fd, &failure, sizeof(failure));
    (void)ignored;
    _exit(127);
}

static _Noreturn void child_run(const start_plan *plan, int status_fd)
{
    const luna_process_options *options = plan->options;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL); /* exec resets handlers, but keeps what is ignored */
    signal(SIGINT, SIG_DFL);
    if (!options->foreground)
        setpgid(0, 0);
    for (int i = 0; i < 3; i++)
        if (plan->fd[i] >= 0 && dup2(plan->fd[i], i) < 0)
            child_fail(status_fd, 'x');
    /* Lua's io library opens files without O_CLOEXEC. */
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    if (options->user != NULL && (setgroups((size_t)plan->group_count, plan->groups) < 0 ||
                                  setgid(plan->gid) < 0 || setuid(plan->uid) < 0))
        child_fail(status_fd, 'u');
    /* However we end, a child of ours does not go on alone; a change of user would clear this. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (plan->cwd != NULL && chdir(plan->cwd) < 0)
        child_fail(status_fd, 'd');
    execvpe(options->argv[0], (char *const *)(uintptr_t)options->argv, plan->env);
    child_fail(status_fd, 'x');
}

static luna_status failure_explain(const luna_process_options *options,
                                   const start_failure *failure, luna_err *err)
{
    const char *reason = strerror(failure->error);
    if (failure->step == 'u')
        return luna_err_set(err, LUNA_EINVAL, "cannot become user %s: %s", options->user, reason);
    if (failure->step == 'd')
        return luna_err_set(err, LUNA_EINVAL, "cannot run %s in directory %s: %s", options->argv[0],
                            options->cwd != NULL ? options->cwd : "/", reason);
    return luna_err_set(err, LUNA_EINVAL, "cannot run %s: %s", options->argv[0], reason);
}

/* Fork, and wait until the child has called exec: a matter of a millisecond,
 * for which the caller gets a plain answer. */
static luna_status plan_execute(const start_plan *plan, pid_t *pid, luna_err *err)
{
    int status_fd[2];
    if (pipe2(status_fd, O_CLOEXEC) < 0)
        return luna_err_set(err, LUNA_EINVAL, "cannot make a pipe: %s", strerror(errno));
    *pid = fork();
    if (*pid == 0)
        child_run(plan, status_fd[1]);
    int fork_errno = errno;
    close(status_fd[1]);
    if (*pid < 0) {
        close(status_fd[0]);
        return luna_err_set(err, LUNA_EINVAL, "cannot fork: %s", strerror(fork_errno));
    }
    start_failure failure;
    ssize_t n;
    do
        n = read(status_fd[0], &failure, sizeof(failure));
    while (n < 0 && errno == EINTR);
    close(status_fd[0]);
    if (n != (ssize_t)sizeof(failure))
        return LUNA_OK;
    waitpid(*pid, NULL, 0);
    return failure_explain(plan->options, &failure, err);
}

static void process_watch(luna_process *p, luna_loop *loop, start_plan *plan)
{
    p->loop = loop;
    p->foreground = plan->options->foreground;
    for (int i = 0; i < 2; i++) {
        luna_process_pipe *pipe = &p->pipe[i];
        pipe->max = plan->options->max_output;
        ev_io_init(&pipe->io, on_pipe, plan->pipe_fd[i], EV_READ);
        pipe->io.data = p;
        plan->pipe_fd[i] = -1;
        if (pipe->io.fd >= 0)
            ev_io_start(loop->ev, &pipe->io);
    }
    ev_child_init(&p->child, on_child, p->pid, 0);
    p->child.data = p;
    ev_child_start(loop->ev, &p->child);
    ev_timer_init(&p->grace, on_grace, LUNA_PROCESS_GRACE, 0.);
    p->grace.data = p;
}

luna_status luna_process_start(luna_process *p, luna_loop *loop,
                               const luna_process_options *options, luna_err *err)
{
    start_plan plan = { .options = options, .fd = { -1, -1, -1 }, .pipe_fd = { -1, -1 } };
    plan.cwd = options->cwd != NULL ? options->cwd : options->user != NULL ? "/" : NULL;
    *p = (luna_process){ .pid = -1 };
    luna_status st = plan_env(&plan, err);
    if (st == LUNA_OK)
        st = plan_input(&plan, err);
    for (int i = 0; i < 2 && st == LUNA_OK; i++)
        st = plan_output(&plan, i, err);
    if (st == LUNA_OK)
        st = plan_execute(&plan, &p->pid, err);
    if (st == LUNA_OK)
        process_watch(p, loop, &plan);
    plan_deinit(&plan);
    return st;
}

static void wait_cancel(luna_op *op)
{
    luna_process *p = LUNA_CONTAINER(op, luna_process, wait);
    luna_timer_stop(p->loop, &p->wait_timer);
    luna_op_post(op, LUNA_ECANCELED);
}

void luna_process_wait_start(luna_process *p, double deadline, void (*done)(luna_op *op))
{
    assert(p->wait.state == LUNA_OP_IDLE);
    luna_op_start(&p->wait, p->loop, done, wait_cancel);
    if (p->finished)
        luna_op_post(&p->wait, LUNA_OK);
    else
        luna_timer_start(p->loop, &p->wait_timer, deadline, on_wait_timer);
}

void luna_process_signal(luna_process *p, int signal, bool group)
{
    if (p->loop != NULL && !p->reaped)
        kill(group && !p->foreground ? -p->pid : p->pid, signal);
}

void luna_process_close(luna_process *p)
{
    if (p->loop == NULL)
        return;
    assert(p->wait.state == LUNA_OP_IDLE);
    luna_process_signal(p, SIGKILL, true);
    /* The default loop reaps every child of ours, watched or not. */
    ev_child_stop(p->loop->ev, &p->child);
    ev_timer_stop(p->loop->ev, &p->grace);
    for (int i = 0; i < 2; i++) {
        pipe_close(p, &p->pipe[i]);
        luna_buf_deinit(&p->pipe[i].buf);
    }
    p->loop = NULL;
}
