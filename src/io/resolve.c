/* resolve.c - c-ares on libev.
 *
 * c-ares tells which sockets it wants watched; each gets an ev_io, and one
 * ev_timer stands for the earliest of its own retransmissions.
 *
 * c-ares cannot give up a single lookup.  What it calls back with is therefore
 * not the caller's luna_resolve but an `attempt`, which may outlive it: on
 * cancel or timeout the attempt is detached and waits for c-ares to return it.
 * As soon as nobody is attached any more, everything in c-ares is cancelled,
 * so that abandoned lookups do not keep the loop alive. */
#include "resolve.h"

#include <ares.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "timer.h"

enum {
    RESEND_MS = 1500, /* short: a caller rarely waits longer than 5 s altogether */
    TRIES = 3,
};

struct luna_resolver {
    luna_loop *loop;
    ares_channel channel;
    struct ares_addr_port_node *system; /* the servers of the system's configuration */
    ev_timer timer;
    luna_list sockets;  /* of resolver_socket */
    luna_list attempts; /* attached ones */
};

typedef struct resolver_socket {
    luna_list link;
    ev_io io;
    luna_resolver *resolver;
} resolver_socket;

typedef struct attempt {
    luna_list link;
    luna_resolver *resolver;
    luna_resolve *lookup; /* NULL: detached */
    luna_timer timer;
    double timeout;
    char host[];
} attempt;

static void resolver_rearm(luna_resolver *resolver)
{
    struct ev_loop *ev = resolver->loop->ev;
    struct timeval tv;
    ev_timer_stop(ev, &resolver->timer);
    if (ares_timeout(resolver->channel, NULL, &tv) != NULL) {
        double after = (double)tv.tv_sec + (double)tv.tv_usec * 1e-6;
        ev_timer_set(&resolver->timer, after, 0.);
        ev_timer_start(ev, &resolver->timer);
    }
}

static void on_resend(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)ev;
    (void)revents;
    luna_resolver *resolver = w->data;
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    resolver_rearm(resolver);
}

static void on_socket(struct ev_loop *ev, ev_io *w, int revents)
{
    (void)ev;
    luna_resolver *resolver = ((resolver_socket *)w->data)->resolver;
    int fd = w->fd; /* c-ares may close the socket, which frees the watcher */
    ares_process_fd(resolver->channel, revents & EV_READ ? fd : ARES_SOCKET_BAD,
                    revents & EV_WRITE ? fd : ARES_SOCKET_BAD);
    resolver_rearm(resolver);
}

static resolver_socket *resolver_find_socket(luna_resolver *resolver, int fd)
{
    LUNA_LIST_EACH (&resolver->sockets, it) {
        resolver_socket *s = LUNA_CONTAINER(it, resolver_socket, link);
        if (s->io.fd == fd)
            return s;
    }
    return NULL;
}

static void on_socket_state(void *data, ares_socket_t fd, int readable, int writable)
{
    luna_resolver *resolver = data;
    struct ev_loop *ev = resolver->loop->ev;
    resolver_socket *s = resolver_find_socket(resolver, fd);
    int events = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0);

    if (s != NULL)
        ev_io_stop(ev, &s->io);
    if (events == 0) {
        if (s != NULL) {
            luna_list_del(&s->link);
            free(s);
        }
        return;
    }
    if (s == NULL) {
        s = calloc(1, sizeof(*s));
        if (s == NULL)
            abort();
        s->resolver = resolver;
        luna_list_push(&resolver->sockets, &s->link);
        ev_init(&s->io, on_socket);
        s->io.data = s;
    }
    ev_io_set(&s->io, fd, events);
    ev_io_start(ev, &s->io);
}

luna_resolver *luna_resolver_new(luna_loop *loop, luna_err *err)
{
    luna_resolver *resolver = calloc(1, sizeof(*resolver));
    if (resolver == NULL)
        abort();
    resolver->loop = loop;
    luna_list_init(&resolver->sockets);
    luna_list_init(&resolver->attempts);
    ev_init(&resolver->timer, on_resend);
    resolver->timer.data = resolver;

    int rc = ares_library_init(ARES_LIB_INIT_ALL);
    if (rc == ARES_SUCCESS) {
        struct ares_options options = {
            .timeout = RESEND_MS,
            .tries = TRIES,
            .sock_state_cb = on_socket_state,
            .sock_state_cb_data = resolver,
        };
        rc = ares_init_options(&resolver->channel, &options,
                               ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
        if (rc == ARES_SUCCESS &&
            (rc = ares_get_servers_ports(resolver->channel, &resolver->system)) != ARES_SUCCESS)
            ares_destroy(resolver->channel);
        if (rc == ARES_SUCCESS)
            return resolver;
        ares_library_cleanup();
    }
    luna_err_set(err, LUNA_EDOWN, "the resolver cannot start: %s", ares_strerror(rc));
    free(resolver);
    return NULL;
}

void luna_resolver_free(luna_resolver *resolver)
{
    if (resolver == NULL)
        return;
    ares_destroy(resolver->channel); /* returns every attempt and closes every socket */
    ares_free_data(resolver->system);
    ares_library_cleanup();
    ev_timer_stop(resolver->loop->ev, &resolver->timer);
    free(resolver);
}

/* How many servers are asked now. */
static int resolver_count_servers(luna_resolver *resolver)
{
    struct ares_addr_port_node *servers = NULL;
    int n = 0;
    if (ares_get_servers_ports(resolver->channel, &servers) == ARES_SUCCESS)
        for (struct ares_addr_port_node *node = servers; node != NULL; node = node->next)
            n++;
    ares_free_data(servers);
    return n;
}

luna_status luna_resolver_use(luna_resolver *resolver, const char *servers, luna_err *err)
{
    struct ares_addr_port_node *before = NULL;
    int rc = ares_get_servers_ports(resolver->channel, &before);
    ares_cancel(resolver->channel); /* servers cannot be changed under a query */
    if (rc == ARES_SUCCESS && servers == NULL) {
        rc = ares_set_servers_ports(resolver->channel, resolver->system);
    } else if (rc == ARES_SUCCESS) {
        int given = 1;
        for (const char *p = servers; *p != '\0'; p++)
            given += *p == ',';
        rc = ares_set_servers_ports_csv(resolver->channel, servers);
        if (rc == ARES_SUCCESS && resolver_count_servers(resolver) != given)
            rc = ARES_EBADSTR; /* it passes over what is no address */
    }
    if (rc != ARES_SUCCESS && before != NULL)
        ares_set_servers_ports(resolver->channel, before);
    ares_free_data(before);
    resolver_rearm(resolver);
    if (rc == ARES_SUCCESS)
        return LUNA_OK;
    return luna_err_set(err, LUNA_EINVAL, "\"%.255s\" is not a list of addresses (%s)",
                        servers != NULL ? servers : "", ares_strerror(rc));
}

/* The caller's side of an attempt ends here, whoever ends it. */
static luna_resolve *attempt_detach(attempt *a)
{
    luna_resolve *lookup = a->lookup;
    a->lookup = NULL;
    luna_list_del(&a->link);
    luna_timer_stop(a->resolver->loop, &a->timer);
    lookup->impl = NULL;
    return lookup;
}

static void lookup_abandon(luna_resolve *lookup, luna_status status)
{
    luna_resolver *resolver = ((attempt *)lookup->impl)->resolver;
    attempt_detach(lookup->impl);
    luna_op_post(&lookup->op, status);
    if (luna_list_empty(&resolver->attempts)) {
        ares_cancel(resolver->channel);
        resolver_rearm(resolver);
    }
}

static void on_timeout(luna_timer *timer)
{
    attempt *a = LUNA_CONTAINER(timer, attempt, timer);
    luna_err_set(&a->lookup->err, LUNA_ETIMEOUT, "looking up host \"%.255s\" took longer than %g s",
                 a->host, a->timeout);
    lookup_abandon(a->lookup, LUNA_ETIMEOUT);
}

static void lookup_cancel(luna_op *op)
{
    luna_resolve *lookup = LUNA_CONTAINER(op, luna_resolve, op);
    attempt *a = lookup->impl;
    luna_err_set(&lookup->err, LUNA_ECANCELED, "looking up host \"%.255s\" was cancelled", a->host);
    lookup_abandon(lookup, LUNA_ECANCELED);
}

/* Append the addresses that fit. */
static void lookup_take(luna_resolve *lookup, const struct ares_addrinfo *info)
{
    size_t len = 0;
    for (const struct ares_addrinfo_node *node = info->nodes; node != NULL; node = node->ai_next) {
        char text[NI_MAXHOST];
        if (getnameinfo(node->ai_addr, node->ai_addrlen, text, sizeof(text), NULL, 0,
                        NI_NUMERICHOST) != 0)
            continue;
        size_t n = strlen(text), comma = len > 0;
        if (len + comma + n >= sizeof(lookup->addresses))
            break;
        if (comma)
            lookup->addresses[len++] = ',';
        memcpy(lookup->addresses + len, text, n + 1);
        len += n;
        lookup->count++;
    }
}

/* Also called from inside ares_getaddrinfo, ares_cancel and ares_destroy. */
static void on_answer(void *arg, int rc, int timeouts, struct ares_addrinfo *info)
{
    (void)timeouts;
    attempt *a = arg;
    if (a->lookup != NULL) {
        luna_resolve *lookup = attempt_detach(a);
        luna_status status = LUNA_OK;
        if (rc == ARES_SUCCESS)
            lookup_take(lookup, info);
        if (rc == ARES_EDESTRUCTION)
            status = luna_err_set(&lookup->err, LUNA_ECANCELED,
                                  "looking up host \"%.255s\" was cancelled", a->host);
        else if (lookup->count == 0)
            status = luna_err_set(&lookup->err, LUNA_EDOWN, "no address for host \"%.255s\": %s",
                                  a->host, ares_strerror(rc == ARES_SUCCESS ? ARES_ENODATA : rc));
        luna_op_post(&lookup->op, status);
    }
    if (info != NULL)
        ares_freeaddrinfo(info);
    free(a);
}

/* Whatever libpq would take as hostaddr, "fe80::1%eth0" included. */
static bool is_numeric(const char *host)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *found;
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return false;
    freeaddrinfo(found);
    return true;
}

void luna_resolve_start(luna_resolver *resolver, luna_resolve *lookup, const char *host,
                        double timeout, void (*done)(luna_op *op))
{
    size_t n = strlen(host) + 1;
    lookup->addresses[0] = '\0';
    lookup->count = 0;
    lookup->err = (luna_err){ 0 };
    lookup->impl = NULL;
    luna_op_start(&lookup->op, resolver->loop, done, lookup_cancel);

    if (n <= sizeof(lookup->addresses) && is_numeric(host)) {
        memcpy(lookup->addresses, host, n);
        lookup->count = 1;
        luna_op_post(&lookup->op, LUNA_OK);
        return;
    }

    attempt *a = calloc(1, sizeof(*a) + n);
    if (a == NULL)
        abort();
    memcpy(a->host, host, n);
    a->resolver = resolver;
    a->lookup = lookup;
    a->timeout = timeout;
    lookup->impl = a;
    luna_list_push(&resolver->attempts, &a->link);
    luna_timer_start(resolver->loop, &a->timer, luna_loop_clock() + timeout, on_timeout);

    struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    ares_getaddrinfo(resolver->channel, host, NULL, &hints, on_answer, a);
    resolver_rearm(resolver);
}
