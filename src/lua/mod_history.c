/* mod_history.c - "lunashard.core.history": a file of lines that several programs add to.  Layer:
 * lua.
 *
 * Each addition is one write at the end, so that none is lost or mixed with another; a lock is held
 * meanwhile for the sake of who shortens the file.  Nobody waits for long: a program that was
 * stopped with the lock in its hands must not stop the others. */
/*** A file of lines that several programs add to at the same time.
@module lunashard.core.history */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bind.h"
#include "buf.h"

#define MODE 0600
#define LOCK_TRIES 50 /* of 2 ms each */

static bool lock(int fd)
{
    struct timespec pause = { .tv_nsec = 2000000 };
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* A regular file of ours that nobody else may read; -1 with errno. */
static int open_own(const char *path, int flags, struct stat *st)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, MODE);
    if (fd < 0)
        return -1;
    int error = 0;
    if (fstat(fd, st) < 0)
        error = errno;
    else if (!S_ISREG(st->st_mode))
        error = S_ISDIR(st->st_mode) ? EISDIR : EINVAL;
    else if ((st->st_mode & 077) != 0 && fchmod(fd, MODE) < 0)
        error = errno;
    if (error == 0)
        return fd;
    close(fd);
    errno = error;
    return -1;
}

static int push_reason(lua_State *L, const char *path, int error)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, strerror(error));
    return 2;
}

/*** Add a line.
@function append
@string path a file that is made with mode 0600, or given it
@string line without the newline
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string reason */
static int history_append(lua_State *L)
{
    size_t len;
    const char *path = luaL_checkstring(L, 1), *line = luaL_checklstring(L, 2, &len);
    luaL_argcheck(L, memchr(line, '\n', len) == NULL, 2, "more than one line");
    struct stat st;
    int fd = open_own(path, O_WRONLY | O_APPEND | O_CREAT, &st);
    if (fd < 0)
        return push_reason(L, path, errno);
    luna_buf buf = { 0 };
    luna_buf_add(&buf, line, len);
    luna_buf_add_char(&buf, '\n');
    (void)lock(fd);
    ssize_t n = write(fd, buf.data, buf.len);
    int error = n < 0 ? errno : (size_t)n < buf.len ? ENOSPC : 0;
    close(fd);
    luna_buf_deinit(&buf);
    if (error != 0)
        return push_reason(L, path, error);
    lua_pushboolean(L, 1);
    return 1;
}

/* The last bytes of the file, whole lines.  `size` is the file's. */
static bool read_tail(int fd, off_t size, size_t keep, luna_buf *buf)
{
    off_t from = size > (off_t)keep ? size - (off_t)keep : 0;
    char *bytes = luna_buf_reserve(buf, keep);
    ssize_t n = pread(fd, bytes, keep, from);
    if (n < 0)
        return false;
    buf->len = (size_t)n;
    const char *first = from > 0 ? memchr(bytes, '\n', buf->len) : NULL;
    size_t skip = first != NULL ? (size_t)(first + 1 - bytes) : 0;
    memmove(bytes, bytes + skip, buf->len - skip);
    buf->len -= skip;
    return true;
}

/* Leave only the last lines in a file that has grown much larger. */
static void shorten(const char *path, size_t keep)
{
    struct stat st;
    luna_buf buf = { 0 };
    int fd = open_own(path, O_RDWR, &st);
    if (fd < 0)
        return;
    if (lock(fd) && fstat(fd, &st) == 0 && st.st_size > (off_t)(4 * keep) &&
        read_tail(fd, st.st_size, keep, &buf) &&
        pwrite(fd, buf.data, buf.len, 0) == (ssize_t)buf.len)
        (void)!ftruncate(fd, (off_t)buf.len);
    luna_buf_deinit(&buf);
    close(fd);
}

/*** The last lines. A file of more than four times as many bytes is shortened to them.
@function read
@string path
@number keep bytes at the most
@treturn[1] string whole lines; empty when there is no file
@treturn[2] nil
@treturn[2] string reason */
static int history_read(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    double keep = luaL_checknumber(L, 2);
    luaL_argcheck(L, keep >= 1 && keep <= 1e9, 2, "must be a number of bytes");
    struct stat st;
    int fd = open_own(path, O_RDONLY, &st);
    if (fd < 0 && errno == ENOENT) {
        lua_pushliteral(L, "");
        return 1;
    } else if (fd < 0) {
        return push_reason(L, path, errno);
    }
    luna_buf buf = { 0 };
    bool ok = read_tail(fd, st.st_size, (size_t)keep, &buf);
    int error = errno;
    close(fd);
    if (ok && st.st_size > (off_t)(4 * keep))
        shorten(path, (size_t)keep);
    if (ok)
        lua_pushlstring(L, buf.data, buf.len);
    luna_buf_deinit(&buf);
    return ok ? 1 : push_reason(L, path, error);
}

int luaopen_lunashard_core_history(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "append", history_append },
        { "read", history_read },
        { NULL, NULL },
    };
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
