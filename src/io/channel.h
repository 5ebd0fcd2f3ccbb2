/* channel.h - bytes from and to a server, and the messages they are, past libpq.  Layer: io.
 *
 * Of a connection that libpq has opened and on which it has nothing under way and nothing left
 * to read.  Never waits, and never fails half-way: when the connection is lost, reading says so
 * once everything that the server said before was read. */
#ifndef LUNA_IO_CHANNEL_H
#define LUNA_IO_CHANNEL_H

#include "message.h"

typedef struct luna_channel {
    int fd;
    void *ssl;    /* OpenSSL's; NULL where nothing is encrypted */
    luna_buf in;  /* received; up to `taken` the messages were taken out */
    luna_buf out; /* what is to be sent is put here; up to `sent` it was */
    size_t taken, sent;
    bool deaf;  /* what is sent gets nowhere any more */
    bool more;  /* there may be more to receive at once */
    bool lost;  /* reading has met the end */
    int reason; /* errno; 0: the server has closed it */
} luna_channel;

void luna_channel_open(luna_channel *channel, int fd, void *ssl);

/* Free the buffers.  The descriptor belongs to somebody else. */
void luna_channel_close(luna_channel *channel);

/* Send what is in `out`; false when some of it is left, to be tried again when there is room. */
bool luna_channel_flush(luna_channel *channel);

/* Receive a chunk; its size, and 0 when there is nothing now or `lost` is set. */
size_t luna_channel_receive(luna_channel *channel);

/* Take the next message out, valid until the next luna_channel_receive. */
luna_message_state luna_channel_next(luna_channel *channel, luna_message *message);

/* Is nothing half sent or half taken? */
bool luna_channel_is_clear(const luna_channel *channel);
#endif
