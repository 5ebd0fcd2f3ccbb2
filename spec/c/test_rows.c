/* Rows of the protocol: the same whatever the pieces they come in, and nothing else is taken for
 * them. */
#include "rows.h"
#include "test.h"

static void add_message(luna_buf *out, char type, const void *body, size_t n)
{
    size_t len = n + 4;
    char head[] = { type, (char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len };
    luna_buf_add(out, head, sizeof(head));
    luna_buf_add(out, body, n);
}

static void add_description(luna_buf *out)
{
    static const char body[] = "\0\2id\0\0\0\0\0\0\0\0\0\0\24\0\10\377\377\377\377\0\0"
                               "note\0\0\0\0\0\0\0\0\0\0\31\377\377\377\377\377\377\0\0";
    add_message(out, 'T', body, sizeof(body) - 1);
}

/* Two columns: `id` and `note`, which is NULL when it is none. */
static void add_row(luna_buf *out, const char *id, const char *note)
{
    luna_buf body = { 0 };
    luna_buf_add(&body, "\0\2\0\0\0", 5);
    luna_buf_add_char(&body, (char)strlen(id));
    luna_buf_add_str(&body, id);
    if (note == NULL) {
        luna_buf_add(&body, "\377\377\377\377", 4);
    } else {
        luna_buf_add(&body, "\0\0", 2);
        luna_buf_add_char(&body, (char)(strlen(note) >> 8));
        luna_buf_add_char(&body, (char)strlen(note));
        luna_buf_add_str(&body, note);
    }
    add_message(out, 'D', body.data, body.len);
    luna_buf_deinit(&body);
}

static void add_answer(luna_buf *out, int n_rows)
{
    char id[16], note[600];
    add_message(out, '1', "", 0);
    add_message(out, '2', "", 0);
    add_description(out);
    for (int i = 0; i < n_rows; i++) {
        snprintf(id, sizeof(id), "%d", i);
        memset(note, 'a' + i % 26, sizeof(note));
        note[i * 7 % 599] = '\0';
        add_row(out, id, i % 5 == 0 ? NULL : note);
        if (i % 17 == 3)
            add_message(out, 'N', "SNOTICE\0\0", 9);
        if (i % 31 == 5)
            add_message(out, 'S', "a\0D\0", 4);
    }
}

/* Put bytes in as a socket would give them; how many were taken. */
static size_t put(luna_rows *rows, luna_frames *frames, const char *bytes, size_t n)
{
    size_t room;
    char *to = luna_rows_reserve(rows, frames, &room);
    if (n > room)
        n = room;
    memcpy(to, bytes, n);
    return luna_rows_take(rows, frames, n);
}

static int check_rows(luna_rows *rows, int next)
{
    luna_field fields[2];
    char id[16];
    while (luna_rows_next(rows, fields)) {
        snprintf(id, sizeof(id), "%d", next);
        CHECK(fields[0].len == (int)strlen(id) && memcmp(fields[0].text, id, strlen(id)) == 0);
        CHECK_INT(next % 5 == 0 ? -1 : next * 7 % 599, fields[1].len);
        if (fields[1].len > 0)
            CHECK(fields[1].text[fields[1].len - 1] == 'a' + next % 26);
        next++;
    }
    return next;
}

static void in_any_pieces(uint64_t *random)
{
    enum { N = 300 };
    luna_buf answer = { 0 };
    add_answer(&answer, N);
    size_t end = answer.len;
    add_message(&answer, 'C', "SELECT 300\0", 11);
    for (int round = 0; round < 50; round++) {
        luna_rows rows = { 0 };
        luna_frames frames = { 0 };
        size_t at = 0;
        int next = 0;
        while (at < end) {
            size_t most = test_random(random) % 4 == 0 ? 5 : 2000;
            size_t n = 1 + test_random(random) % most;
            if (n > answer.len - at)
                n = answer.len - at;
            at += put(&rows, &frames, answer.data + at, n);
            if (test_random(random) % 2) {
                next = check_rows(&rows, next);
                luna_rows_compact(&rows);
            }
        }
        next = check_rows(&rows, next);
        CHECK_INT(N, next);
        CHECK_INT((int64_t)end, (int64_t)at);
        CHECK_INT(0, put(&rows, &frames, answer.data + at, answer.len - at));
        CHECK_INT(2, rows.n_columns);
        CHECK_STR("note", rows.columns[1].name);
        CHECK_INT(25, rows.columns[1].type);
        CHECK(!rows.malformed);
        luna_rows_deinit(&rows);
    }
    luna_buf_deinit(&answer);
}

/* Whoever drops an answer finds the same end. */
static void dropped(void)
{
    luna_buf answer = { 0 };
    luna_frames frames = { 0 };
    add_answer(&answer, 40);
    size_t end = answer.len, at = 0;
    add_message(&answer, 'E', "SERROR\0\0", 8);
    while (at < answer.len) {
        size_t n = answer.len - at < 7 ? answer.len - at : 7;
        size_t taken = luna_frames_take(&frames, answer.data + at, n);
        at += taken;
        if (taken < n)
            break;
    }
    CHECK_INT((int64_t)end, (int64_t)at);
    luna_buf_deinit(&answer);
}

static void received_by_others(void)
{
    luna_rows rows = { 0 };
    luna_field fields[2];
    luna_rows_column(&rows, "a", 23);
    luna_rows_column(&rows, "b", 25);
    for (int i = 0; i < 3; i++) {
        luna_rows_begin(&rows);
        luna_rows_field(&rows, "12", 2);
        luna_rows_field(&rows, NULL, i == 1 ? -1 : 0);
        luna_rows_end(&rows);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(luna_rows_next(&rows, fields));
        CHECK(fields[0].len == 2 && memcmp(fields[0].text, "12", 2) == 0);
        CHECK_INT(i == 1 ? -1 : 0, fields[1].len);
        luna_rows_compact(&rows);
    }
    CHECK(!luna_rows_next(&rows, fields));
    luna_rows_deinit(&rows);
}

/* Put a whole message in; true when it leaves no row and says that it is malformed. */
static bool is_refused(const char *bytes, size_t n)
{
    luna_rows rows = { 0 };
    luna_frames frames = { 0 };
    luna_field fields[2];
    luna_buf description = { 0 };
    add_description(&description);
    put(&rows, &frames, description.data, description.len);
    put(&rows, &frames, bytes, n);
    bool row = luna_rows_next(&rows, fields), refused = rows.malformed;
    luna_rows_deinit(&rows);
    luna_buf_deinit(&description);
    return refused && !row;
}

static void nonsense(void)
{
    CHECK(is_refused("D\0\0\0\3", 5));                               /* no such length */
    CHECK(is_refused("D\377\377\377\377", 5));                       /* nor such */
    CHECK(is_refused("D\0\0\0\6\0\1", 7));                           /* one column */
    CHECK(is_refused("D\0\0\0\6\0\2", 7));                           /* no fields */
    CHECK(is_refused("D\0\0\0\16\0\2\377\377\377\377\0\0\0\1", 15)); /* ends in a field */
    CHECK(is_refused("D\0\0\0\16\0\2\177\377\377\377\0\0\0\0", 15)); /* a field beyond all */
    CHECK(is_refused("D\0\0\0\17\0\2\377\377\377\377\377\377\377\377x", 16)); /* more than fields */
    CHECK(is_refused("T\0\0\0\7\0\1a", 8));                                   /* an endless name */
    CHECK(is_refused("T\0\0\0\5\0", 6));
}

/* However many rows pile up, there is room for many more. */
static void many_rows(void)
{
    luna_rows rows = { 0 };
    luna_frames frames = { 0 };
    luna_buf answer = { 0 };
    size_t room;
    add_answer(&answer, 2000);
    for (int i = 0; i < 10; i++) {
        for (size_t at = 0; at < answer.len;)
            at += put(&rows, &frames, answer.data + at, answer.len - at);
        luna_rows_reserve(&rows, &frames, &room);
        CHECK(room >= LUNA_ROWS_CHUNK / 2);
    }
    CHECK_INT(20000, (int64_t)rows.ready);
    luna_rows_deinit(&rows);
    luna_buf_deinit(&answer);
}

/* A long row grows the room as it comes, and gives it back. */
static void long_row(void)
{
    enum { LEN = 3000000 };
    luna_rows rows = { 0 };
    luna_frames frames = { 0 };
    luna_field field;
    luna_buf message = { 0 };
    char *body = calloc(1, LEN + 6);
    body[1] = 1;
    body[2] = (char)(LEN >> 24), body[3] = (char)(LEN >> 16), body[4] = (char)(LEN >> 8);
    body[5] = (char)LEN;
    add_message(&message, 'D', body, LEN + 6);
    luna_rows_column(&rows, "a", 25);
    for (size_t at = 0; at < message.len;) {
        CHECK(rows.bytes.cap <= 2 * at + 4 * LUNA_ROWS_CHUNK);
        at += put(&rows, &frames, message.data + at, message.len - at);
        luna_rows_compact(&rows);
    }
    CHECK(luna_rows_next(&rows, &field));
    CHECK_INT(LEN, field.len);
    luna_rows_compact(&rows);
    CHECK(rows.bytes.cap <= 4 * LUNA_ROWS_CHUNK);
    luna_rows_deinit(&rows);
    luna_buf_deinit(&message);
    free(body);
}

int main(void)
{
    uint64_t random = test_seed();
    in_any_pieces(&random);
    dropped();
    received_by_others();
    nonsense();
    many_rows();
    long_row();
    return test_report();
}
