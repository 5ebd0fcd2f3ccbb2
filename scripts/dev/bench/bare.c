/* bare.c - what the servers give to anybody: a client that does nothing but send and receive.
 *
 *   bare reads SECONDS IN_FLIGHT KEYS CONNINFO...
 *       point reads; those that are answered together are sent anew together
 *   bare syncs SECONDS IN_FLIGHT KEYS CONNINFO...
 *       the same, each with a Sync of its own
 *   bare rows SQL CONNINFO...
 *       all rows of a query on each server
 *
 * libpq connects and prepares; then the protocol is spoken here.  Of what comes only the headers
 * are looked at: no row is taken apart, nothing is merged, nobody is waited for.  What a client
 * that hands out rows can reach on the same machine is less.  Prints one line of JSON. */
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define MAX_SERVERS 16
#define BATCHES 2 /* under way on a connection: the server has the next when it has done one */
#define READ "SELECT * FROM users_local WHERE user_id = $1"
#define WARM_UP 0.3

typedef struct server {
    PGconn *pg;
    int fd;
    char in[1 << 16], out[1 << 16];
    size_t n_in, n_out;
    unsigned rows, group; /* answered, of the group that is being answered */
    bool done;
} server;

static server servers[MAX_SERVERS];
static struct pollfd fds[MAX_SERVERS];
static int n_servers;
static uint64_t seed = 88172645463325252u;
static unsigned long long total;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void connect_all(int n, char **conninfo)
{
    if (n < 1 || n > MAX_SERVERS)
        die("bare: 1 to %d servers", MAX_SERVERS);
    n_servers = n;
    for (int i = 0; i < n; i++) {
        server *s = &servers[i];
        s->pg = PQconnectdb(conninfo[i]);
        if (PQstatus(s->pg) != CONNECTION_OK)
            die("bare: %s", PQerrorMessage(s->pg));
        if (PQsslInUse(s->pg))
            die("bare: speaks to servers without TLS alone");
        s->fd = PQsocket(s->pg);
        fds[i] = (struct pollfd){ .fd = s->fd, .events = POLLIN };
    }
}

/* ---- what is sent ------------------------------------------------------------- */

static void add(server *s, const void *bytes, size_t n)
{
    if (sizeof(s->out) - s->n_out < n)
        die("bare: too much at once");
    memcpy(s->out + s->n_out, bytes, n);
    s->n_out += n;
}

static void add32(server *s, uint32_t value)
{
    value = htonl(value);
    add(s, &value, 4);
}

static void flush(server *s)
{
    for (size_t at = 0; at < s->n_out;) {
        ssize_t n = send(s->fd, s->out + at, s->n_out - at, MSG_NOSIGNAL);
        if (n >= 0)
            at += (size_t)n;
        else if (poll(&(struct pollfd){ .fd = s->fd, .events = POLLOUT }, 1, -1) < 0)
            die("bare: the connection was lost");
    }
    s->n_out = 0;
}

static void add_read(server *s, uint64_t keys)
{
    static const char bind[] = "\0bare\0" /* portal, statement */
                               "\0\1\0\1" /* the parameters are binary */
                               "\0\1\0\0\0\10";
    static const char execute[] = "\0\0\0\0";
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    add(s, "B", 1);
    add32(s, 4 + sizeof(bind) - 1 + 8 + 2);
    add(s, bind, sizeof(bind) - 1);
    add32(s, 0);
    add32(s, (uint32_t)(seed % keys) + 1);
    add(s, "\0\0", 2); /* and the results text */
    add(s, "E", 1);
    add32(s, 4 + sizeof(execute));
    add(s, execute, sizeof(execute));
}

static void add_sync(server *s)
{
    add(s, "S", 1);
    add32(s, 4);
}

static void add_reads(server *s, unsigned n, uint64_t keys, bool own_syncs)
{
    for (unsigned i = 0; i < n; i++) {
        add_read(s, keys);
        if (own_syncs || i + 1 == n)
            add_sync(s);
    }
}

/* ---- what comes ---------------------------------------------------------------- */

/* Reads what there is and calls `on_message` for the header of each message that has come whole. */
static void receive(server *s, void (*on_message)(server *, char))
{
    ssize_t n = recv(s->fd, s->in + s->n_in, sizeof(s->in) - s->n_in, MSG_DONTWAIT);
    if (n <= 0)
        die("bare: the connection was lost");
    s->n_in += (size_t)n;
    size_t at = 0;
    while (s->n_in - at >= 5) {
        uint32_t len;
        memcpy(&len, s->in + at + 1, 4);
        len = ntohl(len) + 1;
        if (len > sizeof(s->in))
            die("bare: a message of %u bytes", len);
        if (s->n_in - at < len)
            break;
        if (s->in[at] == 'E')
            die("bare: the server refused a statement");
        on_message(s, s->in[at]);
        at += len;
    }
    memmove(s->in, s->in + at, s->n_in - at);
    s->n_in -= at;
}

static void on_reads_message(server *s, char type)
{
    s->rows += type == 'D';
    if (type == 'Z') {
        s->group += s->rows;
        s->rows = 0;
    }
}

static void on_rows_message(server *s, char type)
{
    total += type == 'D';
    s->done |= type == 'Z';
}

/* ---- the work -------------------------------------------------------------------- */

static void wait_for_any(void)
{
    while (poll(fds, (nfds_t)n_servers, -1) < 0)
        ;
}

static void run_reads(double seconds, unsigned in_flight, uint64_t keys, bool own_syncs)
{
    for (int i = 0; i < n_servers; i++) {
        server *s = &servers[i];
        PGresult *res = PQprepare(s->pg, "bare", READ, 0, NULL);
        if (PQresultStatus(res) != PGRES_COMMAND_OK)
            die("bare: %s", PQerrorMessage(s->pg));
        PQclear(res);
        unsigned n =
            in_flight / (unsigned)n_servers + ((unsigned)i < in_flight % (unsigned)n_servers);
        for (unsigned batch = 0; batch < BATCHES; batch++)
            add_reads(s, n / BATCHES + (batch < n % BATCHES), keys, own_syncs);
        flush(s);
    }
    double started = now(), began = 0;
    while (began == 0 || now() < began + seconds) {
        if (began == 0 && now() >= started + WARM_UP) {
            began = now();
            total = 0;
        }
        wait_for_any();
        for (int i = 0; i < n_servers; i++) {
            server *s = &servers[i];
            if (fds[i].revents == 0)
                continue;
            receive(s, on_reads_message);
            add_reads(s, s->group, keys, own_syncs);
            flush(s);
            total += s->group;
            s->group = 0;
        }
    }
    printf("{\"rate\":%.17g}\n", (double)total / (now() - began));
}

static void run_rows(const char *sql)
{
    double began = now();
    int left = n_servers;
    for (int i = 0; i < n_servers; i++) {
        server *s = &servers[i];
        add(s, "Q", 1);
        add32(s, (uint32_t)(4 + strlen(sql) + 1));
        add(s, sql, strlen(sql) + 1);
        flush(s);
    }
    while (left > 0) {
        wait_for_any();
        for (int i = 0; i < n_servers; i++)
            if (fds[i].revents != 0) {
                receive(&servers[i], on_rows_message);
                left -= servers[i].done;
                if (servers[i].done)
                    fds[i].fd = -1;
            }
    }
    printf("{\"rate\":%.17g,\"rows\":%llu}\n", (double)total / (now() - began), total);
}

int main(int argc, char **argv)
{
    bool rows = argc > 3 && strcmp(argv[1], "rows") == 0;
    bool syncs = argc > 5 && strcmp(argv[1], "syncs") == 0;
    if (!rows && !syncs && !(argc > 5 && strcmp(argv[1], "reads") == 0))
        die("usage: bare reads|syncs SECONDS IN_FLIGHT KEYS CONNINFO... | bare rows SQL "
            "CONNINFO...");
    if (rows) {
        connect_all(argc - 3, argv + 3);
        run_rows(argv[2]);
    } else {
        connect_all(argc - 5, argv + 5);
        run_reads(strtod(argv[2], NULL), (unsigned)strtoul(argv[3], NULL, 10),
                  strtoul(argv[4], NULL, 10), syncs);
    }
    return 0;
}
