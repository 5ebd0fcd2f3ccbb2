#include "rows.h"

#include <stdlib.h>
#include <string.h>

#include "message.h"

static void add32(luna_buf *buf, uint32_t v)
{
    luna_put32(luna_buf_reserve(buf, 4), v);
    buf->len += 4;
}

/* ---- frames ------------------------------------------------------------------- */

/* ParseComplete, BindComplete, NoData, RowDescription, DataRow; NoticeResponse,
 * ParameterStatus, NotificationResponse. */
static bool is_ours(char type)
{
    switch (type) {
    case '1':
    case '2':
    case 'n':
    case 'T':
    case 'D':
    case 'N':
    case 'S':
    case 'A': return true;
    default: return false;
    }
}

static bool frames_begin(luna_frames *frames)
{
    uint32_t len = luna_get32(frames->head + 1);
    frames->broken = len < 4 || len > LUNA_MESSAGE_MAX;
    frames->body = frames->broken ? 0 : len - 4;
    return !frames->broken;
}

size_t luna_frames_take(luna_frames *frames, const char *bytes, size_t n)
{
    size_t at = 0;
    while (at < n && !frames->broken) {
        if (frames->n_head == 0 && !is_ours(bytes[at]))
            break;
        if (frames->n_head == 0 && n - at >= 5) {
            memcpy(frames->head, bytes + at, 5);
            frames->n_head = 5;
            at += 5;
            if (!frames_begin(frames))
                break;
        } else if (frames->n_head < 5) {
            frames->head[frames->n_head++] = bytes[at++];
            if (frames->n_head < 5 || !frames_begin(frames))
                continue;
        }
        size_t take = frames->body < n - at ? frames->body : n - at;
        at += take;
        frames->body -= take;
        if (frames->body == 0)
            frames->n_head = 0;
    }
    return at;
}

/* ---- in ------------------------------------------------------------------------- */

static void forget_columns(luna_rows *rows)
{
    for (int c = 0; c < rows->n_columns; c++)
        free(rows->columns[c].name);
    free(rows->columns);
    rows->columns = NULL;
    rows->n_columns = 0;
}

void luna_rows_deinit(luna_rows *rows)
{
    luna_buf_deinit(&rows->bytes);
    forget_columns(rows);
    memset(rows, 0, sizeof(*rows));
}

char *luna_rows_reserve(luna_rows *rows, const luna_frames *frames, size_t *room)
{
    luna_buf *bytes = &rows->bytes;
    size_t missing = frames->body + 1, want = LUNA_ROWS_CHUNK;
    if (missing > want && bytes->len > want) /* a long row: no faster than it comes */
        want = missing < bytes->len ? missing : bytes->len;
    else if (bytes->len < want / 2)
        want -= bytes->len;
    *room = want;
    return luna_buf_reserve(bytes, want + 1); /* one byte may be read behind a field */
}

void luna_rows_column(luna_rows *rows, const char *name, uint32_t type)
{
    size_t n = (size_t)rows->n_columns + 1, len = strlen(name) + 1;
    luna_column *columns = realloc(rows->columns, n * sizeof(*columns));
    char *copy = malloc(len);
    if (columns == NULL || copy == NULL)
        abort();
    memcpy(copy, name, len);
    columns[n - 1] = (luna_column){ .name = copy, .type = type };
    rows->columns = columns;
    rows->n_columns = (int)n;
    rows->described = true;
}

/* RowDescription. */
static bool describe(luna_rows *rows, const char *p, const char *end)
{
    forget_columns(rows);
    rows->described = true;
    if (end - p < 2)
        return false;
    unsigned n = luna_get16(p);
    p += 2;
    for (unsigned c = 0; c < n; c++) {
        uint32_t type;
        const char *name = p;
        if ((p = luna_message_column(p, end, &type)) == NULL)
            return false;
        luna_rows_column(rows, name, type);
    }
    return true;
}

/* Look at the messages that have become whole.  `end` is where the next begins, or would. */
static void note_messages(luna_rows *rows, size_t end)
{
    const char *data = rows->bytes.data;
    while (end - rows->whole >= 5) {
        const char *p = data + rows->whole;
        size_t len = luna_get32(p + 1) + (size_t)1;
        if (len > end - rows->whole)
            break;
        if (p[0] == 'D')
            rows->ready++;
        else if (p[0] == 'T' && !describe(rows, p + 5, p + len))
            rows->malformed = true;
        rows->whole += len;
    }
}

size_t luna_rows_take(luna_rows *rows, luna_frames *frames, size_t n)
{
    size_t taken = luna_frames_take(frames, rows->bytes.data + rows->bytes.len, n);
    rows->bytes.len += taken;
    if (frames->broken)
        rows->malformed = true;
    else
        note_messages(rows, rows->bytes.len);
    return taken;
}

void luna_rows_begin(luna_rows *rows)
{
    char head[] = { 'D', 0, 0, 0, 0, (char)(rows->n_columns >> 8), (char)rows->n_columns };
    luna_buf_add(&rows->bytes, head, sizeof(head));
}

void luna_rows_field(luna_rows *rows, const char *text, int len)
{
    add32(&rows->bytes, (uint32_t)len);
    if (len > 0)
        luna_buf_add(&rows->bytes, text, (size_t)len);
}

void luna_rows_end(luna_rows *rows)
{
    luna_put32(rows->bytes.data + rows->whole + 1, (uint32_t)(rows->bytes.len - rows->whole - 1));
    luna_buf_reserve(&rows->bytes, 1);
    rows->whole = rows->bytes.len;
    rows->ready++;
}

/* ---- out ------------------------------------------------------------------------ */

static bool take_fields(const luna_rows *rows, const char *p, const char *end, luna_field *fields)
{
    if (end - p < 2 || (int)luna_get16(p) != rows->n_columns)
        return false;
    p += 2;
    for (int c = 0; c < rows->n_columns; c++) {
        if (end - p < 4)
            return false;
        int32_t len = (int32_t)luna_get32(p);
        p += 4;
        fields[c] = (luna_field){ .text = p, .len = len };
        if (len < 0)
            continue;
        if (len > end - p)
            return false;
        p += len;
    }
    return p == end;
}

bool luna_rows_next(luna_rows *rows, luna_field *fields)
{
    while (rows->ready > 0 && !rows->malformed) {
        const char *p = rows->bytes.data + rows->at;
        size_t len = luna_get32(p + 1) + (size_t)1;
        rows->at += len;
        if (p[0] != 'D')
            continue;
        rows->ready--;
        if (take_fields(rows, p + 5, p + len, fields))
            return true;
        rows->malformed = true;
    }
    return false;
}

void luna_rows_compact(luna_rows *rows)
{
    luna_buf *bytes = &rows->bytes;
    if (rows->ready == 0)
        rows->at = rows->whole; /* nothing but other messages in between */
    size_t left = bytes->len - rows->at;
    if (left == 0 && bytes->cap > 4 * LUNA_ROWS_CHUNK) {
        luna_buf_deinit(bytes); /* a long row has gone */
    } else if (rows->at > 0) {
        memmove(bytes->data, bytes->data + rows->at, left);
        bytes->len = left;
    }
    rows->whole -= rows->at;
    rows->at = 0;
}

void luna_rows_drop(luna_rows *rows)
{
    luna_buf_deinit(&rows->bytes);
    rows->at = rows->whole = rows->ready = 0;
}
