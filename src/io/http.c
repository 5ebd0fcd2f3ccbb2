#include "http.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_stream.h"

#define BACKLOG 128
#define ACCEPT_AT_ONCE 32
#define SWEEP_EVERY 0.5   /* seconds between looks at the deadlines */
#define ACCEPT_PAUSE 0.25 /* seconds without descriptors until the next try */
#define GIVES_WAY 1.0     /* seconds without a request after which one does to a new connection */
#define END_TIMEOUT 5.0   /* seconds that a client has for the end of a stream */

typedef struct connection {
    luna_list link; /* in http->connections */
    luna_http *http;
    int fd;
    double deadline; /* luna_loop_clock; 0 is never */
    double silent;   /* since when it has not been answered */
    bool is_busy;    /* it is being answered */
    bool has_nul;    /* the request's path, which ends there for us and not for others */
    luna_http_request request;
} connection;

static connection *connection_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info->socket_context;
}

static void allow(connection *conn, double seconds)
{
    conn->deadline = luna_loop_clock() + seconds;
}

/* ---- the request ------------------------------------------------------------------ */

typedef struct visit {
    bool (*each)(void *user, const char *name, const char *value);
    void *user;
} visit;

static enum MHD_Result on_header(void *user, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    (void)kind;
    const visit *v = user;
    return v->each(v->user, name, value != NULL ? value : "") ? MHD_YES : MHD_NO;
}

void luna_http_each_header(luna_http_request *request,
                           bool (*each)(void *user, const char *name, const char *value),
                           void *user)
{
    visit v = { each, user };
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, on_header, &v);
}

void luna_http_peer(luna_http_request *request, char *text, size_t n)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    const connection *conn = connection_of(request->connection);
    if (getpeername(conn->fd, (struct sockaddr *)&address, &len) < 0 ||
        getnameinfo((struct sockaddr *)&address, len, text, (socklen_t)n, NULL, 0,
                    NI_NUMERICHOST) != 0)
        text[0] = '\0';
}

void luna_http_answer_body(luna_http_request *request, unsigned status, const char *body,
                           size_t len)
{
    request->status = status;
    request->response =
        MHD_create_response_from_buffer(len, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
}

void luna_http_answer_stream(luna_http_request *request, unsigned status, luna_http_stream *stream)
{
    luna_http *http = connection_of(request->connection)->http;
    if (stream->connection != NULL)
        return;
    request->status = status;
    request->response = luna_http_stream_start(stream, http, request->connection);
    if (request->response == NULL)
        return;
    request->stream = stream;
    http->counts.streams++;
}

bool luna_http_add_header(luna_http_request *request, const char *name, const char *value)
{
    return request->response != NULL &&
           MHD_add_response_header(request->response, name, value) == MHD_YES;
}

static void end_request(connection *conn)
{
    luna_http_stream *stream = conn->request.stream;
    conn->request = (luna_http_request){ 0 };
    if (stream == NULL)
        return;
    conn->http->counts.streams--;
    luna_http_stream_gone(stream);
}

void luna_http_fail(luna_http_request *request)
{
    luna_http_request before = *request;
    if (request->response != NULL)
        MHD_destroy_response(request->response);
    end_request(connection_of(request->connection));
    request->method = before.method;
    request->path = before.path;
    request->connection = before.connection;
}

/* ---- answering -------------------------------------------------------------------- */

static enum MHD_Result refuse(struct MHD_Connection *mhd, unsigned status, const char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Connection", "close");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, "Allow", "GET, HEAD");
    enum MHD_Result queued = MHD_queue_response(mhd, status, response);
    MHD_destroy_response(response);
    return queued;
}

static bool has_body(struct MHD_Connection *mhd)
{
    const char *length = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Content-Length");
    return (length != NULL && strcmp(length, "0") != 0) ||
           MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Transfer-Encoding") != NULL;
}

/* The path is the client's: nothing of it may look like a line of ours. */
static void describe(luna_loop *loop, const char *path)
{
    snprintf(loop->work.what, sizeof(loop->work.what), "answering %.100s", path);
    for (char *at = loop->work.what; *at != '\0'; at++)
        if (*at < ' ' || *at > '~')
            *at = '?';
}

static enum MHD_Result answer(connection *conn)
{
    luna_http *http = conn->http;
    luna_http_request *request = &conn->request;
    http->counts.requests++;
    conn->is_busy = true;
    allow(conn, http->options.answer_timeout);
    http->options.answer(http->options.user, request);
    if (luna_loop_is_longest(http->loop))
        describe(http->loop, request->path);
    if (request->response == NULL)
        return refuse(request->connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "internal error\n");
    if (request->stream != NULL)
        conn->deadline = 0;
    enum MHD_Result queued =
        MHD_queue_response(request->connection, request->status, request->response);
    MHD_destroy_response(request->response);
    request->response = NULL;
    return queued;
}

/* Called first with the headers, then again when the request is complete. */
static enum MHD_Result on_request(void *user, struct MHD_Connection *mhd, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *len, void **context)
{
    (void)version;
    (void)data;
    (void)user;
    connection *conn = connection_of(mhd);
    if (*context == NULL) {
        *context = conn;
        if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
            return refuse(mhd, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        if (conn->has_nul)
            return refuse(mhd, MHD_HTTP_BAD_REQUEST, "no such path\n");
        if (has_body(mhd))
            return refuse(mhd, MHD_HTTP_CONTENT_TOO_LARGE, "a request has no body here\n");
        return MHD_YES;
    }
    if (*len > 0)
        return MHD_NO;
    conn->request = (luna_http_request){ .method = method, .path = path, .connection = mhd };
    return answer(conn);
}

/* ---- connections ------------------------------------------------------------------ */

static void *on_request_line(void *user, const char *uri, struct MHD_Connection *mhd)
{
    const luna_http *http = user;
    connection *conn = connection_of(mhd);
    conn->has_nul = strstr(uri, "%00") != NULL;
    allow(conn, http->options.request_timeout);
    return NULL;
}

static void on_completed(void *user, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode why)
{
    (void)mhd;
    (void)why;
    const luna_http *http = user;
    connection *conn = *context;
    if (conn == NULL)
        return;
    end_request(conn);
    conn->is_busy = false;
    conn->silent = luna_loop_clock();
    allow(conn, http->options.idle_timeout);
}

static void on_connection(void *user, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    luna_http *http = user;
    connection *conn = *context;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        end_request(conn);
        luna_list_del(&conn->link);
        http->counts.connections--;
        free(conn);
        return;
    }
    conn = calloc(1, sizeof(*conn));
    if (conn == NULL)
        abort();
    conn->http = http;
    conn->silent = luna_loop_clock();
    conn->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    allow(conn, http->options.request_timeout);
    luna_list_push(&http->connections, &conn->link);
    http->counts.connections++;
    *context = conn;
}

static void end_expired(luna_http *http)
{
    double now = luna_loop_clock();
    LUNA_LIST_EACH (&http->connections, it) {
        connection *conn = LUNA_CONTAINER(it, connection, link);
        if (conn->deadline > 0 && conn->deadline <= now) {
            conn->deadline = 0; /* the library sees the end of it, and closes */
            http->counts.timeouts++;
            shutdown(conn->fd, SHUT_RDWR);
        } else if (conn->deadline == 0 && conn->request.stream != NULL &&
                   conn->request.stream->is_ended) {
            allow(conn, END_TIMEOUT);
        }
    }
}

/* ---- the loop --------------------------------------------------------------------- */

static void run(luna_http *http)
{
    http->is_running = true;
    MHD_run(http->daemon);
    http->is_running = false;
    if (http->is_closing) {
        luna_http_close(http);
        return;
    }
    MHD_UNSIGNED_LONG_LONG ms;
    ev_timer_stop(http->loop->ev, &http->due);
    if (MHD_get_timeout(http->daemon, &ms) == MHD_YES) {
        ev_timer_set(&http->due, (double)ms / 1000, 0);
        ev_timer_start(http->loop->ev, &http->due);
    }
}

static void on_io(struct ev_loop *ev, ev_io *w, int revents)
{
    (void)ev;
    (void)revents;
    run(w->data);
}

static void on_turn(luna_turn *turn)
{
    run(LUNA_CONTAINER(turn, luna_http, turn));
}

static void on_due(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)ev;
    (void)revents;
    run(w->data);
}

static void on_sweep(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)revents;
    luna_http *http = w->data;
    if (luna_list_empty(&http->connections))
        ev_timer_stop(ev, w);
    else
        end_expired(http);
}

/* ---- accepting -------------------------------------------------------------------- */

static void on_pause(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)revents;
    luna_http *http = w->data;
    if (http->spare < 0)
        http->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ev_io_start(ev, &http->listener);
}

static void turn_away(luna_http *http, int fd)
{
    static const char text[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                               "Retry-After: 1\r\nConnection: close\r\n\r\n";
    http->counts.refused++;
    if (send(fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        shutdown(fd, SHUT_WR);
    close(fd);
}

/* No descriptor is left: the one kept for this turns away whoever waits, and then there is a pause,
 * for the listening socket stays readable. */
static void without_descriptors(luna_http *http)
{
    http->counts.failures++;
    if (http->spare >= 0) {
        close(http->spare);
        for (int i = 0, fd = 0; i < ACCEPT_AT_ONCE && fd >= 0; i++) {
            fd = accept4(http->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd >= 0)
                turn_away(http, fd);
        }
        http->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    ev_io_stop(http->loop->ev, &http->listener);
    ev_timer_set(&http->pause, ACCEPT_PAUSE, 0);
    ev_timer_start(http->loop->ev, &http->pause);
}

/* There are as many connections as may be: does one give way that asks for nothing?  Then those who
 * only hold connections keep nobody out. */
static bool make_way(luna_http *http)
{
    double before = luna_loop_clock() - GIVES_WAY;
    LUNA_LIST_EACH (&http->connections, it) {
        connection *conn = LUNA_CONTAINER(it, connection, link);
        if (conn->is_busy || conn->deadline == 0 || conn->silent > before)
            continue;
        conn->deadline = 0; /* the library sees the end of it, and closes */
        shutdown(conn->fd, SHUT_RDWR);
        return true;
    }
    return false;
}

static void on_listener(struct ev_loop *ev, ev_io *w, int revents)
{
    (void)revents;
    luna_http *http = w->data;
    for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
        struct sockaddr_storage address;
        socklen_t len = sizeof(address);
        int fd = accept4(w->fd, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
            without_descriptors(http);
        if (fd < 0)
            break;
        if (http->counts.connections >= http->options.max_connections && !make_way(http)) {
            turn_away(http, fd);
            continue;
        }
        http->counts.accepted++;
        MHD_add_connection(http->daemon, fd, (struct sockaddr *)&address, len);
    }
    if (!ev_is_active(&http->sweep))
        ev_timer_again(ev, &http->sweep);
    run(http);
}

/* ---- open and close --------------------------------------------------------------- */

static luna_status open_socket(const luna_http_options *options, int *fd, luna_err *err)
{
    char port[16];
    struct addrinfo *found,
        hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_PASSIVE };
    snprintf(port, sizeof(port), "%u", options->port);
    int rc = getaddrinfo(options->host, port, &hints, &found);
    if (rc != 0)
        return luna_err_set(err, LUNA_EINVAL, "cannot listen on %s: expected a numeric address",
                            options->host);
    int on = 1;
    *fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd >= 0)
        setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (*fd < 0 || bind(*fd, found->ai_addr, found->ai_addrlen) < 0 || listen(*fd, BACKLOG) < 0) {
        luna_err_set(err, LUNA_EINVAL, "cannot listen on port %u of %s: %s", options->port,
                     options->host, strerror(errno));
        if (*fd >= 0)
            close(*fd);
        freeaddrinfo(found);
        return LUNA_EINVAL;
    }
    freeaddrinfo(found);
    return LUNA_OK;
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    char port[16] = "";
    if (getsockname(fd, (struct sockaddr *)&address, &len) == 0)
        getnameinfo((struct sockaddr *)&address, len, NULL, 0, port, sizeof(port), NI_NUMERICSERV);
    return (unsigned)strtoul(port, NULL, 10);
}

static struct MHD_Daemon *start_library(luna_http *http)
{
    const luna_http_options *options = &http->options;
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
        on_request, http, MHD_OPTION_CONNECTION_LIMIT, options->max_connections + ACCEPT_AT_ONCE,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, options->max_request, MHD_OPTION_CONNECTION_TIMEOUT, 0U,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_URI_LOG_CALLBACK, on_request_line, http, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
}

static void watch(luna_http *http, int fd)
{
    struct ev_loop *ev = http->loop->ev;
    int epoll = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    ev_io_init(&http->listener, on_listener, fd, EV_READ);
    ev_io_init(&http->io, on_io, epoll, EV_READ);
    luna_list_init(&http->turn.link);
    http->turn.run = on_turn;
    ev_timer_init(&http->due, on_due, 0, 0);
    ev_timer_init(&http->sweep, on_sweep, 0, SWEEP_EVERY);
    ev_timer_init(&http->pause, on_pause, 0, 0);
    http->listener.data = http->io.data = http;
    http->due.data = http->sweep.data = http->pause.data = http;
    ev_io_start(ev, &http->listener);
    ev_io_start(ev, &http->io);
}

luna_status luna_http_listen(luna_http *http, luna_loop *loop, const luna_http_options *options,
                             luna_err *err)
{
    int fd = -1;
    *http = (luna_http){ .options = *options, .spare = -1 };
    luna_list_init(&http->connections);
    luna_list_init(&http->streams);
    luna_status status = open_socket(options, &fd, err);
    if (status != LUNA_OK)
        return status;
    http->daemon = start_library(http);
    if (http->daemon == NULL) {
        close(fd);
        return luna_err_set(err, LUNA_EINVAL, "cannot serve on %s: %s", options->host,
                            strerror(errno));
    }
    http->loop = loop;
    http->port = port_of(fd);
    http->options.host = NULL; /* the caller's */
    http->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    watch(http, fd);
    return LUNA_OK;
}

void luna_http_close(luna_http *http)
{
    if (http->daemon == NULL)
        return;
    http->is_closing = true;
    if (http->is_running)
        return;
    struct ev_loop *ev = http->loop->ev;
    ev_io_stop(ev, &http->listener);
    ev_io_stop(ev, &http->io);
    ev_timer_stop(ev, &http->due);
    ev_timer_stop(ev, &http->sweep);
    ev_timer_stop(ev, &http->pause);
    close(http->listener.fd);
    if (http->spare >= 0)
        close(http->spare);
    LUNA_LIST_EACH (&http->streams, it) /* the library cannot end while one is suspended */
        luna_http_stream_drop(LUNA_CONTAINER(it, luna_http_stream, link));
    luna_list_del(&http->turn.link);
    MHD_stop_daemon(http->daemon);
    http->daemon = NULL;
    http->options.closed(http->options.user);
}
