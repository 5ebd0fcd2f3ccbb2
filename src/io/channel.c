#include "channel.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>

#define CHUNK ((size_t)16 << 10)
#define KEPT ((size_t)256 << 10) /* of a buffer that was larger for a while */

void luna_channel_open(luna_channel *channel, int fd, void *ssl)
{
    *channel = (luna_channel){ .fd = fd, .ssl = ssl };
}

void luna_channel_close(luna_channel *channel)
{
    luna_buf_deinit(&channel->in);
    luna_buf_deinit(&channel->out);
    channel->taken = channel->sent = 0;
}

static bool not_now(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* 0: not now; -1: never again. */
static ssize_t ssl_result(const luna_channel *channel, int n)
{
    switch (SSL_get_error(channel->ssl, n)) {
    case SSL_ERROR_NONE: return n;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return 0;
    default: return -1;
    }
}

static ssize_t channel_send(const luna_channel *channel, const char *bytes, size_t n)
{
    errno = 0;
    if (channel->ssl != NULL) {
        ERR_clear_error();
        return ssl_result(channel, SSL_write(channel->ssl, bytes, n > INT_MAX ? INT_MAX : (int)n));
    }
    ssize_t sent = send(channel->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 && not_now() ? 0 : sent;
}

bool luna_channel_flush(luna_channel *channel)
{
    luna_buf *out = &channel->out;
    while (channel->sent < out->len && !channel->deaf) {
        ssize_t n = channel_send(channel, out->data + channel->sent, out->len - channel->sent);
        if (n == 0)
            return false;
        if (n < 0)
            channel->deaf = true; /* reading tells why */
        else
            channel->sent += (size_t)n;
    }
    channel->sent = 0;
    luna_buf_clear(out);
    if (out->cap > KEPT)
        luna_buf_deinit(out);
    return true;
}

/* -1: the end. */
static ssize_t channel_recv(const luna_channel *channel, char *to, size_t room)
{
    errno = 0;
    if (channel->ssl != NULL) {
        ERR_clear_error();
        return ssl_result(channel, SSL_read(channel->ssl, to, (int)room));
    }
    ssize_t n = recv(channel->fd, to, room, MSG_DONTWAIT);
    if (n < 0)
        return not_now() ? 0 : -1;
    return n > 0 ? n : -1;
}

size_t luna_channel_receive(luna_channel *channel)
{
    luna_buf *in = &channel->in;
    size_t left = in->len - channel->taken;
    if (channel->lost)
        return 0;
    if (left == 0 && in->cap > KEPT)
        luna_buf_deinit(in);
    else if (channel->taken > 0 && left > 0)
        memmove(in->data, in->data + channel->taken, left);
    channel->taken = 0;
    in->len = left;
    size_t room = left > CHUNK ? left : CHUNK; /* a long message: no faster than it comes */
    ssize_t n = channel_recv(channel, luna_buf_reserve(in, room), room);
    if (n < 0) {
        channel->lost = true;
        channel->reason = errno;
        return 0;
    }
    in->len += (size_t)n;
    channel->more = channel->ssl != NULL || (size_t)n == room; /* TLS keeps some to itself */
    return (size_t)n;
}

luna_message_state luna_channel_next(luna_channel *channel, luna_message *message)
{
    size_t size;
    luna_message_state state = luna_message_read(channel->in.data + channel->taken,
                                                 channel->in.len - channel->taken, message, &size);
    if (state == LUNA_MESSAGE_WHOLE)
        channel->taken += size;
    return state;
}

bool luna_channel_is_clear(const luna_channel *channel)
{
    return channel->taken == channel->in.len && channel->out.len == 0;
}
