/* copy_bytes.c - rows as bytes in one of COPY's formats for lunashard.core.copy. */
/*** Splitters.
@classmod lunashard.core.copy.splitter */
#include <lauxlib.h>
#include <string.h>

#include "bind.h"
#include "copy.h"

#define LARGE_ROW ((size_t)64 * 1024) /* one that is not whole is not read again at each chunk */

typedef struct line {
    size_t at, len;
} line;

/* Read the values of the row's key at `bytes`.  They stay valid while the row does and until the
 * next call. */
static luna_status read_key_text(luna_splitter *s, const char *bytes, size_t i, const char **value,
                                 size_t *len, luna_err *err)
{
    if (luna_copy_field(&s->reader, bytes, s->key_at[i], &s->values[i], value, len))
        return LUNA_OK;
    return luna_err_set(err, LUNA_ENULLKEY, "the shard key is NULL");
}

static luna_status output_of_text(luna_splitter *s, const char *bytes, size_t *at, luna_err *err)
{
    luna_key keys[LUNA_KEY_MAX_COLUMNS];
    for (size_t i = 0; i < s->n_keys; i++) {
        const char *value;
        size_t len;
        luna_status st = read_key_text(s, bytes, i, &value, &len, err);
        if (st == LUNA_OK)
            st = luna_key_from_text(&keys[i], s->spec.types[i], value, len, err);
        if (st != LUNA_OK)
            return st;
    }
    *at = s->map->owner[luna_bucket_of(s->map, luna_key_row_hash(keys, s->n_keys))];
    return LUNA_OK;
}

static void add_line(luna_splitter *s, size_t at, double row, const char *bytes, size_t len)
{
    luna_buf *out = luna_splitter_output(s, at, row);
    if (s->reader.format == LUNA_COPY_CSV && memchr(bytes, '\n', len - 1) != NULL)
        luna_row_log_lose(&s->outputs[at].rows); /* the server counts lines */
    luna_buf_add(out, bytes, len);
    if (bytes[len - 1] == '\n')
        return;
    if (s->reader.eol == LUNA_EOL_CRLF) /* the last row, without a line end */
        luna_buf_add_char(out, '\r');
    luna_buf_add_char(out, '\n');
}

/* The header must name the columns in their order: 0 when it does, otherwise what to return. */
static int check_header(lua_State *L, luna_splitter *s, const char *bytes)
{
    lua_getfenv(L, 1);
    for (size_t c = 0; c < s->reader.columns; c++) {
        const char *value = "";
        size_t len = 0, name_len;
        luna_copy_field(&s->reader, bytes, c, &s->field, &value, &len);
        lua_rawgeti(L, -1, (int)c + 1);
        const char *name = lua_tolstring(L, -1, &name_len);
        if (len != name_len || memcmp(name, value, len) != 0) {
            luna_err err;
            luna_err_set(&err, LUNA_EINVAL,
                         "the header's column %zu is \"%.*s\", but columns[%zu] is \"%s\"", c + 1,
                         len > 60 ? 60 : (int)len, value, c + 1, name);
            return luna_push_err(L, &err);
        }
        lua_pop(L, 1);
    }
    s->header = false;
    return 0;
}

/* Push a row's key as strings. */
static luna_status push_key_text(lua_State *L, luna_splitter *s, const char *bytes, luna_err *err)
{
    if (s->n_keys > 1)
        lua_createtable(L, (int)s->n_keys, 0);
    for (size_t i = 0; i < s->n_keys; i++) {
        const char *value;
        size_t len;
        luna_status st = read_key_text(s, bytes, i, &value, &len, err);
        if (st != LUNA_OK)
            return st;
        lua_pushlstring(L, value, len);
        if (s->n_keys > 1)
            lua_rawseti(L, -2, (int)i + 1);
    }
    return LUNA_OK;
}

/* What is done with the row of `len` bytes at `bytes`: 0, or what to return. */
static int take_line(lua_State *L, luna_splitter *s, const char *bytes, size_t at, int keys)
{
    luna_err err;
    luna_status st = LUNA_OK;
    size_t to = 0, len = s->reader.len;
    const char *start = bytes + at;
    if (s->header)
        return check_header(L, s, start);
    if (keys != 0) {
        line l = { at, len };
        st = push_key_text(L, s, start, &err);
        if (st == LUNA_OK) {
            luna_buf_add(&s->lines, &l, sizeof(l));
            lua_rawseti(L, keys, (int)(s->lines.len / sizeof(l)));
        }
    } else {
        if (s->map != NULL)
            st = output_of_text(s, start, &to, &err);
        if (st == LUNA_OK)
            add_line(s, to, s->rows + 1, start, len);
    }
    if (st != LUNA_OK)
        return luna_push_row_err(L, s->rows + 1, st, "%s", err.msg);
    s->rows++;
    return 0;
}

/* Every row of `bytes`; how many bytes were used.  What the binding is to return goes to `*failed`,
 * 0 for none.  Keys are put into the table at `keys`, unless that is 0. */
static size_t take_lines(lua_State *L, luna_splitter *s, const char *bytes, size_t n, bool last,
                         int keys, int *failed)
{
    size_t at = 0;
    luna_err err;
    while (at < n) {
        luna_copy_step step =
            s->ended ? LUNA_COPY_BAD : luna_copy_read(&s->reader, bytes + at, n - at, last, &err);
        if (s->ended)
            luna_err_set(&err, LUNA_EINVAL, "there are bytes behind the end marker \\.");
        if (step == LUNA_COPY_MORE)
            break;
        if (step == LUNA_COPY_BAD) {
            *failed = luna_push_row_err(L, s->rows + 1, LUNA_EINVAL, "%s", err.msg);
            break;
        }
        if (step == LUNA_COPY_END)
            s->ended = true;
        else if ((*failed = take_line(L, s, bytes, at, keys)) != 0)
            break;
        at += s->reader.len;
    }
    return at;
}

static void drop(luna_buf *buf, size_t n)
{
    buf->len -= n;
    if (buf->len > 0)
        memmove(buf->data, buf->data + n, buf->len);
}

/* Take bytes in, whose rows go to their outputs or their keys to the table at `keys`. */
static int take_text(lua_State *L, int keys)
{
    luna_splitter *s = luna_check_splitter(L);
    size_t n = 0, used;
    const char *bytes = luaL_optlstring(L, 2, "", &n);
    bool last = lua_isnoneornil(L, 2);
    int failed = 0;
    bool direct = s->rest.len == 0 && keys == 0;
    if (!direct) {
        luna_buf_add(&s->rest, bytes, n);
        bytes = s->rest.data;
        n = s->rest.len;
        if (n < s->retry && !last)
            return 0;
    }
    used = take_lines(L, s, bytes, n, last, keys, &failed);
    if (failed != 0)
        return failed;
    s->retry = n - used > LARGE_ROW ? 2 * (n - used) : 0;
    if (direct)
        luna_buf_add(&s->rest, bytes + used, n - used);
    else if (keys == 0)
        drop(&s->rest, used);
    else
        s->used = used;
    return 0;
}

/*** Take bytes in, which need not end with a row.
@function splitter:text
@tparam ?string bytes nil: there are no more
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] lunashard.error with `index`, the row's number over all calls */
static int splitter_text(lua_State *L)
{
    int failed = take_text(L, 0);
    if (failed != 0)
        return failed;
    lua_pushboolean(L, 1);
    return 1;
}

/*** Take bytes in and tell the keys of their rows; `place` must follow.
@function splitter:keys
@tparam ?string bytes nil: there are no more
@treturn[1] table keys: strings, or lists of them for several columns
@treturn[2] nil
@treturn[2] lunashard.error with `index`, the row's number over all calls */
static int splitter_keys(lua_State *L)
{
    const luna_splitter *s = luna_check_splitter(L);
    luaL_argcheck(L, s->n_keys > 0 && s->lines.len == 0, 1, "no keys, or rows not placed");
    lua_settop(L, 2);
    lua_newtable(L);
    int failed = take_text(L, 3);
    if (failed != 0)
        return failed;
    lua_pushvalue(L, 3);
    return 1;
}

/*** Put the rows whose keys were told where they belong.
@function splitter:place
@tparam {int,...} outputs for each, from 1 */
static int splitter_place(lua_State *L)
{
    luna_splitter *s = luna_check_splitter(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    const line *lines = (const line *)(const void *)s->lines.data;
    size_t n = s->lines.len / sizeof(*lines);
    for (size_t i = 0; i < n; i++)
        add_line(s, luna_named_output(L, s, 2, (int)i + 1), s->rows - (double)(n - i) + 1,
                 s->rest.data + lines[i].at, lines[i].len);
    drop(&s->rest, s->used);
    s->used = 0;
    luna_buf_clear(&s->lines);
    return 0;
}

void luna_copy_open_text(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "text", splitter_text },
        { "keys", splitter_keys },
        { "place", splitter_place },
        { NULL, NULL },
    };
    luaL_register(L, NULL, methods);
}
