/* http_stream.h - what http.c and http_stream.c know of a stream.  Layer: io. */
#ifndef LUNA_IO_HTTP_STREAM_H
#define LUNA_IO_HTTP_STREAM_H

#include "buf.h"
#include "http.h"

/* Held by its maker, by the response that sends it and by the request that it answers: freed by
 * whoever lets go last. */
struct luna_http_stream {
    luna_list link;                    /* in http->streams while it is sent */
    luna_http *http;                   /* as long */
    struct MHD_Connection *connection; /* NULL but while it is sent */
    luna_buf buf;
    size_t sent, limit; /* of buf, bytes that the library has taken */
    unsigned holders;
    bool is_ended;     /* nothing is added any more */
    bool is_suspended; /* the library waits to be told that there is more */
};

/* A response on this connection that reads from the stream, which the caller holds as well; NULL
 * when memory is gone. */
struct MHD_Response *luna_http_stream_start(luna_http_stream *stream, luna_http *http,
                                            struct MHD_Connection *connection);

/* The request has ended: there is no connection any more. */
void luna_http_stream_gone(luna_http_stream *stream);

/* Send nothing more, not even what waits. */
void luna_http_stream_drop(luna_http_stream *stream);
#endif
