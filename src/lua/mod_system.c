/* mod_system.c - "lunashard.core.system": what Lua's os and io leave out.  Layer: lua.
 *
 * Thin wrappers of system calls.  Like Lua's own io library they return
 * nil, "path: reason", and then the error's name ("ENOENT"), when the system
 * refuses; they raise only for wrong arguments.  All are short and local: none
 * waits for a peer. */
/*** System calls that Lua's `os` and `io` leave out.
@module lunashard.core.system */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "bind.h"

/* nil, "what: reason", "ENAME"; `error` is an errno. */
static int push_errno(lua_State *L, const char *what, int error)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", what, strerror(error));
    const char *name = strerrorname_np(error);
    lua_pushstring(L, name != NULL ? name : "UNKNOWN");
    return 3;
}

/* true, or the failure of a call that returned `rc`. */
static int push_result(lua_State *L, int rc, const char *what)
{
    if (rc < 0)
        return push_errno(L, what, errno);
    lua_pushboolean(L, 1);
    return 1;
}

/*** The real user id of this process.
@function getuid
@treturn number */
static int system_getuid(lua_State *L)
{
    lua_pushnumber(L, getuid());
    return 1;
}

/*** The id of this process.
@function getpid
@treturn number */
static int system_getpid(lua_State *L)
{
    lua_pushinteger(L, getpid());
    return 1;
}

/*** Is a descriptor a terminal?
@function isatty
@tparam number fd 0, 1 or 2
@treturn boolean */
static int system_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty(luaL_checkint(L, 1)));
    return 1;
}

/*** Look up a user.
@function user
@tparam string|number who name or id
@treturn[1] table `name`, `uid`, `gid`, `home`
@treturn[2] nil when there is none */
static int system_user(lua_State *L)
{
    const struct passwd *found = lua_type(L, 1) == LUA_TNUMBER ? getpwuid((uid_t)lua_tonumber(L, 1))
                                                               : getpwnam(luaL_checkstring(L, 1));
    if (found == NULL)
        return 0;
    lua_createtable(L, 0, 4);
    lua_pushstring(L, found->pw_name);
    lua_setfield(L, -2, "name");
    lua_pushnumber(L, found->pw_uid);
    lua_setfield(L, -2, "uid");
    lua_pushnumber(L, found->pw_gid);
    lua_setfield(L, -2, "gid");
    lua_pushstring(L, found->pw_dir);
    lua_setfield(L, -2, "home");
    return 1;
}

static const char *type_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG: return "file";
    case S_IFDIR: return "directory";
    case S_IFLNK: return "link";
    default: return "other";
    }
}

/*** What a path is. A symbolic link is not followed.
@function stat
@tparam string path
@treturn[1] table `type` (`file`, `directory`, `link`, `other`), `mode` (permission bits), `uid`,
`size`, `mtime` (seconds)
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_stat(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct stat st;
    if (lstat(path, &st) < 0)
        return push_errno(L, path, errno);
    lua_createtable(L, 0, 5);
    lua_pushstring(L, type_name(st.st_mode));
    lua_setfield(L, -2, "type");
    lua_pushinteger(L, st.st_mode & 07777);
    lua_setfield(L, -2, "mode");
    lua_pushnumber(L, st.st_uid);
    lua_setfield(L, -2, "uid");
    lua_pushnumber(L, (lua_Number)st.st_size);
    lua_setfield(L, -2, "size");
    lua_pushnumber(L, (lua_Number)st.st_mtim.tv_sec + (lua_Number)st.st_mtim.tv_nsec * 1e-9);
    lua_setfield(L, -2, "mtime");
    return 1;
}

/*** Make a directory, with exactly this mode whatever the umask.
@function mkdir
@tparam string path
@tparam number mode permission bits
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_mkdir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    mode_t mode = (mode_t)luaL_checkint(L, 2);
    if (mkdir(path, mode & 0700) < 0)
        return push_errno(L, path, errno);
    return push_result(L, chmod(path, mode), path);
}

/*** Change permission bits.
@function chmod
@tparam string path
@tparam number mode
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_chmod(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    return push_result(L, chmod(path, (mode_t)luaL_checkint(L, 2)), path);
}

/*** Give a file or directory to another user; takes root. A symbolic link is not followed.
@function chown
@tparam string path
@tparam number uid
@tparam number gid
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_chown(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    uid_t uid = (uid_t)luaL_checknumber(L, 2);
    gid_t gid = (gid_t)luaL_checknumber(L, 3);
    return push_result(L, lchown(path, uid, gid), path);
}

/*** Remove a file, or a symbolic link.
@function unlink
@tparam string path
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_unlink(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    return push_result(L, unlink(path), path);
}

/*** Remove an empty directory.
@function rmdir
@tparam string path
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_rmdir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    return push_result(L, rmdir(path), path);
}

/*** The names in a directory, without `.` and `..`, in no order.
@function listdir
@tparam string path
@treturn[1] {string,...}
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_listdir(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lua_newtable(L);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return push_errno(L, path, errno);
    int n = 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        lua_pushstring(L, entry->d_name);
        lua_rawseti(L, -2, ++n);
    }
    closedir(dir);
    return 1;
}

/*** The absolute path without symbolic links.
@function realpath
@tparam string path
@treturn[1] string
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_realpath(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    char resolved[PATH_MAX];
    if (realpath(path, resolved) == NULL)
        return push_errno(L, path, errno);
    lua_pushstring(L, resolved);
    return 1;
}

static int write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

/*** Write a whole file at once: a reader sees the old content or the new one, never a part.
The new file is made beside it with `mode` from the start, so that a secret is never readable by
others.
@function write_file
@tparam string path
@tparam string content
@tparam number mode permission bits
@treturn[1] boolean true
@treturn[2] nil, and the old file is untouched
@treturn[2] string reason
@treturn[2] string error name */
static int system_write_file(lua_State *L)
{
    size_t len;
    const char *path = luaL_checkstring(L, 1);
    const char *content = luaL_checklstring(L, 2, &len);
    mode_t mode = (mode_t)luaL_checkint(L, 3);
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    if (n < 0 || (size_t)n >= sizeof(temporary))
        return push_errno(L, path, ENAMETOOLONG);

    int fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600, never an existing file */
    if (fd < 0)
        return push_errno(L, path, errno);
    int error = 0;
    if (write_all(fd, content, len) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0)
        error = errno;
    if (close(fd) < 0 && error == 0)
        error = errno;
    if (error == 0 && rename(temporary, path) < 0)
        error = errno;
    if (error == 0) {
        lua_pushboolean(L, 1);
        return 1;
    }
    unlink(temporary);
    return push_errno(L, path, error);
}

/*** Rename, replacing what is there.
@function rename
@tparam string from
@tparam string to
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_rename(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1);
    return push_result(L, rename(from, luaL_checkstring(L, 2)), from);
}

/*** Send a signal to a process; signal 0 only asks whether there is one.
@function kill
@tparam number pid at least 2: neither a group nor init
@tparam number signal
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name: `ESRCH` when there is none, `EPERM` when it is somebody else's */
static int system_kill(lua_State *L)
{
    int pid = luaL_checkint(L, 1);
    int signal = luaL_checkint(L, 2);
    luaL_argcheck(L, pid >= 2, 1, "not a process id");
    return push_result(L, kill(pid, signal), "kill");
}

/*** A TCP port of 127.0.0.1 that nobody uses just now.
@function free_port
@tparam[opt] number wanted this one or none; any by default
@treturn[1] number
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_free_port(lua_State *L)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    int wanted = luaL_optint(L, 1, 0);
    luaL_argcheck(L, wanted >= 0 && wanted <= 65535, 1, "not a port");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)wanted);
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return push_errno(L, "socket", errno);
    int on = 1; /* servers set it too: connections in TIME_WAIT do not occupy a port */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&address, len) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        int error = errno;
        close(fd);
        return push_errno(L, "bind", error);
    }
    close(fd);
    lua_pushinteger(L, ntohs(address.sin_port));
    return 1;
}

/*** Unpredictable bytes from the kernel.
@function random_bytes
@tparam number count 1 to 256
@treturn string */
static int system_random_bytes(lua_State *L)
{
    char bytes[256];
    int count = luaL_checkint(L, 1);
    luaL_argcheck(L, count >= 1 && count <= (int)sizeof(bytes), 1, "must be 1 to 256");
    if (getrandom(bytes, (size_t)count, 0) != count)
        return luaL_error(L, "random_bytes: the kernel gives none");
    lua_pushlstring(L, bytes, (size_t)count);
    return 1;
}

/*** Send one datagram to a Unix socket, as systemd's notifications are. Does not wait.
@function send_datagram
@tparam string path of the socket; one that begins with @ is abstract
@tparam string text
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason
@treturn[2] string error name */
static int system_send_datagram(lua_State *L)
{
    size_t n, len;
    const char *path = luaL_checklstring(L, 1, &n), *text = luaL_checklstring(L, 2, &len);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (n == 0 || n >= sizeof(address.sun_path))
        return push_errno(L, path, ENAMETOOLONG);
    memcpy(address.sun_path, path, n);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return push_errno(L, path, errno);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    ssize_t sent = sendto(fd, text, len, MSG_NOSIGNAL, (struct sockaddr *)&address, size);
    int error = errno;
    close(fd);
    if (sent < 0)
        return push_errno(L, path, error);
    lua_pushboolean(L, 1);
    return 1;
}

static void push_base64(lua_State *L, const char *bytes, size_t len)
{
    luaL_Buffer out;
    char block[65];
    luaL_buffinit(L, &out);
    for (size_t at = 0, n; at < len; at += n) {
        n = len - at < 48 ? len - at : 48;
        int written = EVP_EncodeBlock((unsigned char *)block, (const void *)(bytes + at), (int)n);
        luaL_addlstring(&out, block, (size_t)written);
    }
    luaL_pushresult(&out);
}

/*** Bytes in base64.
@function base64
@tparam string bytes
@treturn string */
static int system_base64(lua_State *L)
{
    size_t len;
    const char *bytes = luaL_checklstring(L, 1, &len);
    push_base64(L, bytes, len);
    return 1;
}

/*** The SHA-256 of bytes.
@function sha256
@tparam string bytes
@treturn string in base64 */
static int system_sha256(lua_State *L)
{
    size_t len;
    const char *bytes = luaL_checklstring(L, 1, &len);
    char digest[EVP_MAX_MD_SIZE];
    unsigned n;
    if (EVP_Digest(bytes, len, (unsigned char *)digest, &n, EVP_sha256(), NULL) != 1)
        return luaL_error(L, "sha256: there is none");
    push_base64(L, digest, n);
    return 1;
}

/*** Are two secrets the same? Takes as long wherever they differ.
@function is_same
@tparam string given
@tparam string secret
@treturn boolean */
static int system_is_same(lua_State *L)
{
    size_t n, m;
    const volatile char *given = luaL_checklstring(L, 1, &n);
    const volatile char *secret = luaL_checklstring(L, 2, &m);
    unsigned differ = n != m;
    for (size_t i = 0; i < n; i++)
        differ |= (unsigned)(given[i] ^ secret[m > 0 ? i % m : 0]);
    lua_pushboolean(L, differ == 0);
    return 1;
}

int luaopen_lunashard_core_system(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "getuid", system_getuid },
        { "getpid", system_getpid },
        { "isatty", system_isatty },
        { "user", system_user },
        { "stat", system_stat },
        { "mkdir", system_mkdir },
        { "chmod", system_chmod },
        { "chown", system_chown },
        { "unlink", system_unlink },
        { "rmdir", system_rmdir },
        { "listdir", system_listdir },
        { "realpath", system_realpath },
        { "rename", system_rename },
        { "write_file", system_write_file },
        { "kill", system_kill },
        { "free_port", system_free_port },
        { "random_bytes", system_random_bytes },
        { "send_datagram", system_send_datagram },
        { "base64", system_base64 },
        { "sha256", system_sha256 },
        { "is_same", system_is_same },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
