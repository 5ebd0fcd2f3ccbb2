/* cancel.c - a small thread pool around PQcancel.
 *
 * What a thread works on is a `request` of its own, which may outlive the
 * caller's luna_cancel: PQcancel waits for the server to close the connection,
 * for ever when that server is stopped, and there is no way to interrupt it.
 * A request that takes too long is given up: its caller is told, and whoever
 * ends last, thread or loop, frees the request.  For the same reason the
 * canceler's own memory is freed by the last thread to leave.
 *
 * `mutex` guards all of luna_canceler but `loop`, `timer` and `open`, which
 * belong to the loop's thread. */
#include "cancel.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "timer.h"

enum {
    THREADS_MAX = 16,
    PER_SERVER_MAX = 2, /* so that a stopped server leaves threads to the others */
    STACK_BYTES = 256 * 1024,
};

typedef enum request_state { REQUEST_QUEUED, REQUEST_RUNNING, REQUEST_FINISHED } request_state;

typedef struct request {
    luna_list link;      /* in canceler->queue, running or finished */
    luna_list open_link; /* in canceler->open while `owner` waits */
    luna_cancel *owner;  /* NULL: given up */
    PGcancel *handle;
    request_state state;
    double deadline;
    bool ok;
    char server[128];
    char reason[256];
} request;

struct luna_canceler {
    luna_loop *loop;
    ev_async async;
    luna_timer timer;
    luna_list open; /* requests with an owner, oldest first */

    pthread_mutex_t mutex;
    pthread_cond_t wake;  /* the queue has grown, a server has room, or `stopping` */
    pthread_cond_t ended; /* a thread has left */
    luna_list queue, running, finished;
    bool stopping;
    int queued;
    int waiting; /* threads with nothing to do, some of them perhaps just woken */
    int nthreads;
    int references; /* the loop's side and each thread */
    struct {
        pthread_t id;
        bool ended;
    } threads[THREADS_MAX];
};

static void request_free(request *r)
{
    PQfreeCancel(r->handle);
    free(r);
}

static void canceler_destroy(luna_canceler *canceler)
{
    pthread_cond_destroy(&canceler->ended);
    pthread_cond_destroy(&canceler->wake);
    pthread_mutex_destroy(&canceler->mutex);
    free(canceler);
}

/* ---- threads, all under the mutex but PQcancel itself ------------------ */

static request *canceler_next(luna_canceler *canceler)
{
    LUNA_LIST_EACH (&canceler->queue, it) {
        request *r = LUNA_CONTAINER(it, request, link);
        int busy = 0;
        LUNA_LIST_EACH (&canceler->running, other) {
            busy += strcmp(LUNA_CONTAINER(other, request, link)->server, r->server) == 0;
        }
        if (busy < PER_SERVER_MAX)
            return r;
    }
    return NULL;
}

static void canceler_work(luna_canceler *canceler, request *r)
{
    luna_list_del(&r->link);
    canceler->queued--;
    luna_list_push(&canceler->running, &r->link);
    r->state = REQUEST_RUNNING;

    pthread_mutex_unlock(&canceler->mutex);
    bool ok = PQcancel(r->handle, r->reason, (int)sizeof(r->reason)) == 1;
    pthread_mutex_lock(&canceler->mutex);

    luna_list_del(&r->link);
    if (r->owner == NULL) {
        request_free(r);
    } else {
        r->ok = ok;
        r->state = REQUEST_FINISHED;
        luna_list_push(&canceler->finished, &r->link);
        if (!canceler->stopping)
            ev_async_send(canceler->loop->ev, &canceler->async);
    }
    pthread_cond_broadcast(&canceler->wake); /* this server has room again */
}

static void *canceler_thread(void *arg)
{
    luna_canceler *canceler = arg;
    pthread_mutex_lock(&canceler->mutex);
    for (;;) {
        request *r = canceler_next(canceler);
        if (r != NULL) {
            canceler_work(canceler, r);
        } else if (canceler->stopping) {
            break;
        } else {
            canceler->waiting++;
            pthread_cond_wait(&canceler->wake, &canceler->mutex);
            canceler->waiting--;
        }
    }
    for (int i = 0; i < canceler->nthreads; i++)
        if (pthread_equal(canceler->threads[i].id, pthread_self()))
            canceler->threads[i].ended = true;
    pthread_cond_signal(&canceler->ended);
    bool last = --canceler->references == 0;
    pthread_mutex_unlock(&canceler->mutex);
    if (last)
        canceler_destroy(canceler);
    return NULL;
}

/* Signals belong to the loop's thread.  A failure is no harm while there is
 * another thread, and otherwise the request's own timeout reports it. */
static void canceler_add_thread(luna_canceler *canceler)
{
    sigset_t all, before;
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) != 0)
        return;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&canceler->threads[canceler->nthreads].id, &attr, canceler_thread,
                       canceler) == 0) {
        canceler->nthreads++;
        canceler->references++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
}

/* ---- the loop's side --------------------------------------------------- */

static void canceler_rearm(luna_canceler *canceler);

/* The caller's side of a request ends; the request itself is left alone. */
static void request_complete(luna_canceler *canceler, request *r, luna_status status,
                             const char *reason)
{
    luna_cancel *cancel = r->owner;
    r->owner = NULL;
    luna_list_del(&r->open_link);
    if (luna_list_empty(&canceler->open))
        ev_unref(canceler->loop->ev);
    cancel->impl = NULL;
    if (status != LUNA_OK)
        luna_err_set(&cancel->err, status, "the cancel request did not reach %s: %s", r->server,
                     reason);
    luna_op_post(&cancel->op, status);
}

static void canceler_collect(luna_canceler *canceler)
{
    luna_list batch;
    pthread_mutex_lock(&canceler->mutex);
    luna_list_take(&batch, &canceler->finished);
    pthread_mutex_unlock(&canceler->mutex);
    LUNA_LIST_EACH (&batch, it) {
        request *r = LUNA_CONTAINER(it, request, link);
        r->reason[strcspn(r->reason, "\n")] = '\0';
        request_complete(canceler, r, r->ok ? LUNA_OK : LUNA_EDOWN, r->reason);
        request_free(r);
    }
    canceler_rearm(canceler);
}

static void on_async(struct ev_loop *ev, ev_async *w, int revents)
{
    (void)ev;
    (void)revents;
    canceler_collect(w->data);
}

/* Tell the owner, and free what no thread holds.  A finished request is left
 * to canceler_collect. */
static void canceler_give_up(luna_canceler *canceler, request *r, luna_status status,
                             const char *reason)
{
    pthread_mutex_lock(&canceler->mutex);
    request_state state = r->state;
    if (state != REQUEST_FINISHED)
        request_complete(canceler, r, status, reason);
    if (state == REQUEST_QUEUED) {
        luna_list_del(&r->link);
        canceler->queued--;
        request_free(r);
    }
    pthread_mutex_unlock(&canceler->mutex);
}

static void on_overdue(luna_timer *timer)
{
    luna_canceler *canceler = LUNA_CONTAINER(timer, luna_canceler, timer);
    double now = luna_loop_clock();
    LUNA_LIST_EACH (&canceler->open, it) {
        request *r = LUNA_CONTAINER(it, request, open_link);
        if (r->deadline > now)
            break;
        canceler_give_up(canceler, r, LUNA_EDOWN, "the server did not answer");
    }
    canceler_collect(canceler);
}

/* All requests wait equally long, so the oldest is due first. */
static void canceler_rearm(luna_canceler *canceler)
{
    luna_timer_stop(canceler->loop, &canceler->timer);
    if (luna_list_empty(&canceler->open))
        return;
    request *oldest = LUNA_CONTAINER(canceler->open.next, request, open_link);
    luna_timer_start(canceler->loop, &canceler->timer, oldest->deadline, on_overdue);
}

luna_canceler *luna_canceler_new(luna_loop *loop)
{
    luna_canceler *canceler = calloc(1, sizeof(*canceler));
    if (canceler == NULL)
        return NULL;
    canceler->loop = loop;
    canceler->references = 1;
    luna_list_init(&canceler->open);
    luna_list_init(&canceler->queue);
    luna_list_init(&canceler->running);
    luna_list_init(&canceler->finished);
    pthread_mutex_init(&canceler->mutex, NULL);
    pthread_cond_init(&canceler->wake, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&canceler->ended, &attr);
    pthread_condattr_destroy(&attr);
    ev_async_init(&canceler->async, on_async);
    canceler->async.data = canceler;
    ev_async_start(loop->ev, &canceler->async);
    ev_unref(loop->ev);
    return canceler;
}

/* Join the threads that end within a second, let go of the others. */
static void canceler_stop_threads(luna_canceler *canceler)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    bool late = false;
    pthread_mutex_lock(&canceler->mutex);
    canceler->stopping = true;
    pthread_cond_broadcast(&canceler->wake);
    while (canceler->references > 1 && !late)
        late = pthread_cond_timedwait(&canceler->ended, &canceler->mutex, &until) != 0;
    for (int i = 0; i < canceler->nthreads; i++) {
        if (canceler->threads[i].ended)
            pthread_join(canceler->threads[i].id, NULL);
        else
            pthread_detach(canceler->threads[i].id);
    }
    pthread_mutex_unlock(&canceler->mutex);
}

void luna_canceler_free(luna_canceler *canceler)
{
    if (canceler == NULL)
        return;
    luna_timer_stop(canceler->loop, &canceler->timer);
    canceler_stop_threads(canceler);
    canceler_collect(canceler);
    LUNA_LIST_EACH (&canceler->open, it) {
        request *r = LUNA_CONTAINER(it, request, open_link);
        canceler_give_up(canceler, r, LUNA_ECANCELED, "it was given up at shutdown");
    }
    canceler_collect(canceler); /* what an abandoned thread has finished meanwhile */
    luna_timer_stop(canceler->loop, &canceler->timer);
    ev_ref(canceler->loop->ev);
    ev_async_stop(canceler->loop->ev, &canceler->async);

    pthread_mutex_lock(&canceler->mutex);
    bool last = --canceler->references == 0;
    pthread_mutex_unlock(&canceler->mutex);
    if (last)
        canceler_destroy(canceler);
}

static void cancel_ignore(luna_op *op)
{
    (void)op; /* completes by itself within LUNA_CANCEL_TIMEOUT */
}

void luna_cancel_start(luna_canceler *canceler, luna_cancel *cancel, PGconn *conn,
                       void (*done)(luna_op *op))
{
    cancel->err = (luna_err){ 0 };
    cancel->impl = NULL;
    luna_op_start(&cancel->op, canceler->loop, done, cancel_ignore);
    PGcancel *handle = PQgetCancel(conn);
    if (handle == NULL) {
        luna_err_set(&cancel->err, LUNA_EDOWN, "the connection is not open");
        luna_op_post(&cancel->op, LUNA_EDOWN);
        return;
    }

    request *r = calloc(1, sizeof(*r));
    if (r == NULL)
        abort();
    r->owner = cancel;
    r->handle = handle;
    r->deadline = luna_loop_clock() + LUNA_CANCEL_TIMEOUT;
    const char *address = PQhostaddr(conn), *port = PQport(conn);
    if (address == NULL || *address == '\0')
        address = PQhost(conn);
    snprintf(r->server, sizeof(r->server), "%s:%s", address ? address : "", port ? port : "");
    cancel->impl = r;
    if (luna_list_empty(&canceler->open))
        ev_ref(canceler->loop->ev);
    luna_list_push(&canceler->open, &r->open_link);
    canceler_rearm(canceler);

    pthread_mutex_lock(&canceler->mutex);
    luna_list_push(&canceler->queue, &r->link);
    canceler->queued++;
    if (canceler->waiting < canceler->queued && canceler->nthreads < THREADS_MAX)
        canceler_add_thread(canceler);
    pthread_cond_signal(&canceler->wake);
    pthread_mutex_unlock(&canceler->mutex);
}
