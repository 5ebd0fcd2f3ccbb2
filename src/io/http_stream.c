#include "http_stream.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Bytes that the library takes at a time. */
#define BLOCK 16384

luna_http_stream *luna_http_stream_new(size_t limit)
{
    luna_http_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        abort();
    luna_list_init(&stream->link);
    stream->limit = limit;
    stream->holders = 1;
    return stream;
}

static void let_go(luna_http_stream *stream)
{
    if (--stream->holders > 0)
        return;
    luna_buf_deinit(&stream->buf);
    free(stream);
}

static void go_on(luna_http_stream *stream)
{
    if (!stream->is_suspended)
        return;
    stream->is_suspended = false;
    MHD_resume_connection(stream->connection);
    luna_loop_at_turn_end(stream->http->loop, &stream->http->turn); /* it does not say so itself */
}

/* The library asks for bytes; without any it waits until it is told to go on. */
static ssize_t on_read(void *user, uint64_t pos, char *to, size_t max)
{
    (void)pos;
    luna_http_stream *stream = user;
    size_t n = stream->buf.len - stream->sent;
    if (n == 0 && stream->is_ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n == 0) {
        stream->is_suspended = true;
        MHD_suspend_connection(stream->connection);
        return 0;
    }
    if (n > max)
        n = max;
    memcpy(to, stream->buf.data + stream->sent, n);
    stream->sent += n;
    if (stream->sent == stream->buf.len) {
        luna_buf_clear(&stream->buf);
        stream->sent = 0;
    }
    return (ssize_t)n;
}

static void on_response_freed(void *user)
{
    let_go(user);
}

struct MHD_Response *luna_http_stream_start(luna_http_stream *stream, luna_http *http,
                                            struct MHD_Connection *connection)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, BLOCK, on_read, stream, on_response_freed);
    if (response == NULL)
        return NULL;
    stream->http = http;
    stream->connection = connection;
    luna_list_push(&http->streams, &stream->link);
    stream->holders += 2;
    return response;
}

void luna_http_stream_gone(luna_http_stream *stream)
{
    luna_list_del(&stream->link);
    stream->connection = NULL;
    stream->is_suspended = false;
    stream->is_ended = true;
    let_go(stream);
}

void luna_http_stream_drop(luna_http_stream *stream)
{
    stream->is_ended = true;
    luna_buf_clear(&stream->buf);
    stream->sent = 0;
    go_on(stream);
}

static void cut_off(luna_http_stream *stream)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(stream->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info != NULL)
        shutdown(info->connect_fd, SHUT_RDWR);
    luna_http_stream_drop(stream);
}

/* What was taken makes room when that is at least as much as what is to be moved. */
static void make_room(luna_http_stream *stream)
{
    size_t left = stream->buf.len - stream->sent;
    if (stream->sent < left)
        return;
    memmove(stream->buf.data, stream->buf.data + stream->sent, left);
    stream->buf.len = left;
    stream->sent = 0;
}

bool luna_http_stream_send(luna_http_stream *stream, const char *text, size_t len)
{
    if (!luna_http_stream_is_open(stream))
        return false;
    if (stream->buf.len - stream->sent + len > stream->limit) {
        cut_off(stream);
        return false;
    }
    if (stream->sent > 0)
        make_room(stream);
    luna_buf_add(&stream->buf, text, len);
    go_on(stream);
    return true;
}

void luna_http_stream_end(luna_http_stream *stream)
{
    stream->is_ended = true;
    go_on(stream);
}

void luna_http_stream_free(luna_http_stream *stream)
{
    luna_http_stream_end(stream);
    let_go(stream);
}

bool luna_http_stream_is_open(const luna_http_stream *stream)
{
    return stream->connection != NULL && !stream->is_ended;
}
