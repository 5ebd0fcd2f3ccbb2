/* wire.h - rows of a stream, read from the socket past libpq.  Layer: io.
 *
 * libpq makes a PGresult of every row that is read one at a time: 200 ns of malloc, which is more
 * than receiving and decoding it takes.  So the rows of a stream are read here.  The bytes of the
 * socket are peeked at; messages that only bring rows are taken out, and at the first message of
 * another kind (the end, an error, COPY) the reading is libpq's again, which has not seen any of
 * the rows and needs not: all that decides about the session, it reads itself.
 *
 * It takes a connection without encryption, on which libpq has nothing left of what it read: the
 * answer must begin with ParseComplete.  Everything else libpq reads row by row, as ever. */
#ifndef LUNA_IO_WIRE_H
#define LUNA_IO_WIRE_H

#include <libpq-fe.h>

#include "rows.h"

typedef struct luna_wire {
    luna_frames frames;
    bool on;    /* what comes next is read here */
    bool begun; /* the answer has begun as it must */
} luna_wire;

typedef enum luna_wire_state {
    LUNA_WIRE_MORE,   /* there was nothing else: wait for more */
    LUNA_WIRE_LIBPQ,  /* what comes next is for libpq; `on` is false now */
    LUNA_WIRE_BROKEN, /* no server says such a thing: the connection is of no use any more */
} luna_wire_state;

/* A query was sent, on whose answer libpq has not read anything yet. */
void luna_wire_start(luna_wire *wire, PGconn *pg);

/* Read what has arrived, up to about LUNA_ROWS_CHUNK, into `rows`; NULL drops it. */
luna_wire_state luna_wire_read(luna_wire *wire, PGconn *pg, luna_rows *rows);
#endif
