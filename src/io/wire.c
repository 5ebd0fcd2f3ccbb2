#include "wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

void luna_wire_start(luna_wire *wire, PGconn *pg)
{
    *wire = (luna_wire){ .on = !PQsslInUse(pg) && !PQgssEncInUse(pg) };
}

static luna_wire_state hand_over(luna_wire *wire)
{
    wire->on = false;
    return LUNA_WIRE_LIBPQ;
}

static bool begins_rightly(const char *bytes, size_t n)
{
    static const char parse_complete[] = { '1', 0, 0, 0, 4 };
    return n >= sizeof(parse_complete) &&
           memcmp(bytes, parse_complete, sizeof(parse_complete)) == 0;
}

luna_wire_state luna_wire_read(luna_wire *wire, PGconn *pg, luna_rows *rows)
{
    char dropped[16384];
    size_t room = sizeof(dropped);
    char *to = rows != NULL ? luna_rows_reserve(rows, &wire->frames, &room) : dropped;
    int fd = PQsocket(pg);
    ssize_t n = recv(fd, to, room, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return LUNA_WIRE_MORE;
    if (n <= 0)
        return hand_over(wire); /* libpq finds the same, and the words for it */
    if (!wire->begun && !begins_rightly(to, (size_t)n))
        return hand_over(wire);
    wire->begun = true;
    size_t ours = rows != NULL ? luna_rows_take(rows, &wire->frames, (size_t)n)
                               : luna_frames_take(&wire->frames, to, (size_t)n);
    if (wire->frames.broken || (ours > 0 && recv(fd, to, ours, MSG_DONTWAIT) != (ssize_t)ours))
        return LUNA_WIRE_BROKEN;
    return ours == (size_t)n ? LUNA_WIRE_MORE : hand_over(wire);
}
