/* mod_descriptor.c - "lunashard.core.descriptor": standard input and local sockets.  Layer: lua. */
/*** Standard input and local sockets, as the prompt and `lunashard.attach` use them.
@module lunashard.core.descriptor */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bind.h"
#include "descriptor.h"
#include "runtime.h"

#define DESCRIPTOR_TYPE "lunashard.descriptor"
#define MAX_READ 65536

static luna_descriptor *check_descriptor(lua_State *L, int idx)
{
    luna_descriptor *descriptor = luaL_checkudata(L, idx, DESCRIPTOR_TYPE);
    if (descriptor->loop == NULL)
        luaL_error(L, "the descriptor is closed");
    return descriptor;
}

static int push_reason(lua_State *L)
{
    lua_pushnil(L);
    lua_pushstring(L, strerror(errno));
    return 2;
}

static int push_descriptor(lua_State *L, int fd, bool is_owned)
{
    luna_descriptor *descriptor = lua_newuserdata(L, sizeof(*descriptor));
    luna_descriptor_open(descriptor, &luna_rt.loop, fd, is_owned);
    luaL_getmetatable(L, DESCRIPTOR_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

/*** Standard input. It stays open when this is closed.
@function stdin
@treturn lunashard.descriptor with `wait`, `read`, `close` */
static int descriptor_stdin(lua_State *L)
{
    return push_descriptor(L, STDIN_FILENO, false);
}

/*** Listen at a path, for processes of this user.
@function listen
@string path
@treturn[1] lunashard.descriptor with `wait`, `accept`, `close`
@treturn[2] nil
@treturn[2] string reason */
static int descriptor_listen(lua_State *L)
{
    int fd = luna_local_listen(luaL_checkstring(L, 1));
    return fd < 0 ? push_reason(L) : push_descriptor(L, fd, true);
}

/*** Connect to a path.
@function connect
@string path
@treturn[1] lunashard.descriptor
@treturn[2] nil
@treturn[2] string reason */
static int descriptor_connect(lua_State *L)
{
    int fd = luna_local_connect(luaL_checkstring(L, 1));
    return fd < 0 ? push_reason(L) : push_descriptor(L, fd, true);
}

/*** Another one for the same socket, so that one may wait for reading and one for writing.
@function descriptor:twin
@treturn[1] lunashard.descriptor
@treturn[2] nil
@treturn[2] string reason */
static int descriptor_twin(lua_State *L)
{
    int fd = fcntl(check_descriptor(L, 1)->fd, F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? push_reason(L) : push_descriptor(L, fd, true);
}

/*** Wait until it can be read from. Yields; called through `lunashard.task`.
@function descriptor:wait
@tparam[opt] number deadline on the clock of `lunashard.now`
@tparam[opt=false] boolean writing until it can be written to
@treturn lunashard.descriptor the same
@treturn boolean false when the deadline came first, or `close` */
static int descriptor_wait(lua_State *L)
{
    luna_descriptor *descriptor = check_descriptor(L, 1);
    double deadline = luaL_optnumber(L, 2, 0);
    int events = lua_toboolean(L, 3) ? EV_WRITE : EV_READ;
    if (descriptor->wait.state != LUNA_OP_IDLE)
        return luaL_error(L, "wait: another task waits for this descriptor");
    luna_task_check(L, "wait");
    lua_settop(L, 1);
    luna_descriptor_wait_start(descriptor, events, deadline, luna_task_wake);
    return luna_task_park(L, &descriptor->wait);
}

/*** Read what is there; to be called when `wait` has said that something is.
@function descriptor:read
@treturn[1] string bytes; empty when there are none after all
@treturn[2] nil at the end
@treturn[2] ?string reason, when it is not the end but a failure */
static int descriptor_read(lua_State *L)
{
    luna_descriptor *descriptor = check_descriptor(L, 1);
    char bytes[MAX_READ];
    ssize_t n = read(descriptor->fd, bytes, sizeof(bytes));
    if (n == 0) {
        lua_pushnil(L);
        return 1;
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return push_reason(L);
    }
    lua_pushlstring(L, bytes, n > 0 ? (size_t)n : 0);
    return 1;
}

/*** Write to a socket as much as it takes now.
@function descriptor:write
@string bytes
@number[opt=1] from the first of them to be written
@treturn[1] number how many
@treturn[2] nil
@treturn[2] string reason */
static int descriptor_write(lua_State *L)
{
    luna_descriptor *descriptor = check_descriptor(L, 1);
    size_t len;
    const char *bytes = luaL_checklstring(L, 2, &len);
    double from = luaL_optnumber(L, 3, 1);
    luaL_argcheck(L, from >= 1 && from <= (double)len + 1, 3, "beyond the bytes");
    size_t skipped = (size_t)from - 1;
    ssize_t n = send(descriptor->fd, bytes + skipped, len - skipped, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return push_reason(L);
    lua_pushnumber(L, n > 0 ? (double)n : 0);
    return 1;
}

/*** The next connection. Does not wait.
@function descriptor:accept
@treturn[1] lunashard.descriptor
@treturn[1] number id of the user whose process it is
@treturn[2] nil when there is none */
static int descriptor_accept(lua_State *L)
{
    uid_t uid;
    int fd = luna_local_accept(check_descriptor(L, 1)->fd, &uid);
    if (fd < 0)
        return 0;
    push_descriptor(L, fd, true);
    lua_pushnumber(L, uid);
    return 2;
}

/*** Close it; who waits is cancelled. May be called again.
@function descriptor:close */
static int descriptor_close(lua_State *L)
{
    luna_descriptor_close(luaL_checkudata(L, 1, DESCRIPTOR_TYPE));
    return 0;
}

static int descriptor_gc(lua_State *L)
{
    luna_descriptor *descriptor = luaL_checkudata(L, 1, DESCRIPTOR_TYPE);
    luna_descriptor_close(descriptor);
    luna_op_abandon(&descriptor->wait);
    return 0;
}

int luaopen_lunashard_core_descriptor(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "twin", descriptor_twin },
        { "wait", descriptor_wait },
        { "read", descriptor_read },
        { "write", descriptor_write },
        { "accept", descriptor_accept },
        { "close", descriptor_close },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", descriptor_gc },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "stdin", descriptor_stdin },
        { "listen", descriptor_listen },
        { "connect", descriptor_connect },
        { NULL, NULL },
    };
    luna_bind_type(L, DESCRIPTOR_TYPE, methods, meta);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
