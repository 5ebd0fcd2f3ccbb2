/* http.h - an HTTP server for small, read-only answers, on libmicrohttpd.  Layer: io.
 *
 * The library is driven from outside: one watcher on its epoll descriptor, one timer.  Connections
 * are accepted here and not there, so that no lack of descriptors makes the loop spin, and those
 * beyond the limit take the place of one that asks for nothing, or are told that there is none.
 * Every phase of a connection has a deadline of its own, whatever trickles in meanwhile: that of a
 * request from its first byte, of its answer until the client has taken it, of a silent connection.
 *
 * Each complete GET or HEAD is answered by one call of `answer`, which gives a whole body or a
 * stream: an answer without an end, for server-sent events, to which text is added over time.  A
 * client that does not take it loses the connection, and holds nothing up.  Any other method, and a
 * request that has a body, is refused without asking. */
#ifndef LUNA_IO_HTTP_H
#define LUNA_IO_HTTP_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "list.h"
#include "loop.h"

struct MHD_Daemon;
struct MHD_Connection;
struct MHD_Response;

typedef struct luna_http luna_http;
typedef struct luna_http_stream luna_http_stream;

/* One request while it is answered. */
typedef struct luna_http_request {
    const char *method, *path; /* the path is decoded, and without a query */
    struct MHD_Connection *connection;
    struct MHD_Response *response;
    luna_http_stream *stream; /* the response is one */
    unsigned status;
} luna_http_request;

typedef struct luna_http_options {
    const char *host; /* a numeric address */
    unsigned port;    /* 0: any that is free */
    unsigned max_connections;
    size_t max_request;     /* bytes of a request's line and headers, and of its answer's headers */
    double request_timeout; /* seconds until a request is complete */
    double answer_timeout;  /* seconds until an answer is taken */
    double idle_timeout;    /* seconds between requests of one connection */
    void (*answer)(void *user, luna_http_request *request);
    void (*closed)(void *user); /* the last that is heard: `http` may be freed */
    void *user;
} luna_http_options;

typedef struct luna_http_counts {
    uint64_t accepted, refused, timeouts, requests, failures; /* `failures` to accept */
    unsigned connections, streams;
} luna_http_counts;

/* Owned by the caller, at a fixed address from listen to close; zero is closed. */
struct luna_http {
    luna_loop *loop;
    luna_http_options options;
    struct MHD_Daemon *daemon; /* NULL when closed */
    ev_io listener, io;
    ev_timer due, sweep, pause;
    luna_turn turn;        /* a run that a stream has asked for */
    int spare;             /* a descriptor for refusing when there are no others, or -1 */
    luna_list connections; /* http.c's */
    luna_list streams;
    luna_http_counts counts;
    unsigned port;
    bool is_running, is_closing;
};

/* Listen.  On failure nothing is open, and `err` says which address and why. */
LUNA_MUSTCHECK luna_status luna_http_listen(luna_http *http, luna_loop *loop,
                                            const luna_http_options *options, luna_err *err);

/* Cut all connections and listen no longer.  May be called twice, and from `answer`: then it is
 * done when that has returned. */
void luna_http_close(luna_http *http);

/* ---- within `answer` -------------------------------------------------------------- */

/* Call `each` with every header of the request, until it returns false. */
void luna_http_each_header(luna_http_request *request,
                           bool (*each)(void *user, const char *name, const char *value),
                           void *user);

/* Write the client's address to `text`; empty when it is not known. */
void luna_http_peer(luna_http_request *request, char *text, size_t n);

/* Answer with a body, which is copied, or with a stream, which no other request is answered with.
 * Once. */
void luna_http_answer_body(luna_http_request *request, unsigned status, const char *body,
                           size_t len);
void luna_http_answer_stream(luna_http_request *request, unsigned status, luna_http_stream *stream);

/* Take back what was answered: the client is told of an internal error. */
void luna_http_fail(luna_http_request *request);

/* Then add headers to it.  False: the header cannot be sent. */
LUNA_MUSTCHECK bool luna_http_add_header(luna_http_request *request, const char *name,
                                         const char *value);

/* ---- streams ---------------------------------------------------------------------- */

/* A stream of which `limit` bytes may wait for the client.  The caller's until freed. */
luna_http_stream *luna_http_stream_new(size_t limit);
void luna_http_stream_free(luna_http_stream *stream);

/* Add text.  False when the client has gone, does not take it or was never there. */
bool luna_http_stream_send(luna_http_stream *stream, const char *text, size_t len);

/* End it after what was sent.  May be called twice. */
void luna_http_stream_end(luna_http_stream *stream);

bool luna_http_stream_is_open(const luna_http_stream *stream);
#endif
