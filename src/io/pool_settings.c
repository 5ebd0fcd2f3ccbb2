#include "pool_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Seconds in which connections are replaced whose parameters have changed: not all at once, for to
 * connect is dear on both sides. */
#define RECYCLE_WITHIN 30.0

/* Seconds that a connection stays idle in a pool that is being drained. */
#define DRAINED_IDLE 0.2

void luna_conn_config_deinit(const luna_conn_config *cfg)
{
    for (int i = 0; cfg->keywords[i] != NULL; i++) {
        char *value = (char *)(uintptr_t)cfg->values[i];
        explicit_bzero(value, strlen(value)); /* one of them is the password */
        free(value);
        free((void *)(uintptr_t)cfg->keywords[i]);
    }
    free((void *)(uintptr_t)cfg->keywords);
    free((void *)(uintptr_t)cfg->values);
    free((void *)(uintptr_t)cfg->host);
    free((void *)(uintptr_t)cfg->endpoint);
}

static const char *parameter(const luna_conn_config *cfg, const char *keyword)
{
    for (int i = 0; cfg->keywords[i] != NULL; i++)
        if (strcmp(cfg->keywords[i], keyword) == 0)
            return cfg->values[i];
    return NULL;
}

static bool has_all_of(const luna_conn_config *cfg, const luna_conn_config *other)
{
    for (int i = 0; other->keywords[i] != NULL; i++) {
        const char *value = parameter(cfg, other->keywords[i]);
        if (value == NULL || strcmp(value, other->values[i]) != 0)
            return false;
    }
    return true;
}

static void expire_within(luna_pool *pool, luna_list *list, double seconds)
{
    double now = luna_loop_clock();
    LUNA_LIST_EACH (list, it) {
        luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        double at = now + seconds * luna_pool_random(pool);
        if (conn->expires_at == 0 || at < conn->expires_at)
            conn->expires_at = at;
    }
}

static void limit_lifetime(luna_pool *pool, luna_list *list)
{
    LUNA_LIST_EACH (list, it) {
        luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        double at = conn->opened_at + pool->cfg.max_lifetime * (0.9 + 0.2 * luna_pool_random(pool));
        if (conn->expires_at == 0 || at < conn->expires_at)
            conn->expires_at = at;
    }
}

/* Idle connections go at once, the others when they come free; a lane never does under load. */
static void shrink(luna_pool *pool)
{
    LUNA_LIST_EACH (&pool->idle, it)
        if (luna_pool_size(pool) > pool->cfg.max_size)
            luna_pool_retire(LUNA_CONTAINER(it, luna_conn, link), "max_size");
    unsigned size = luna_pool_size(pool);
    LUNA_LIST_EACH (&pool->busy, it) {
        luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        if (size > pool->cfg.max_size && conn->lane.kind != LUNA_LANE_NONE) {
            conn->lane.closing = true;
            size--;
        }
    }
}

void luna_pool_reconfigure(luna_pool *pool, const luna_pool_config *cfg)
{
    luna_pool_config before = pool->cfg;
    pool->cfg = *cfg;
    pool->cfg.conn.cancels = &pool->stats.cancels;
    /* connections that resolve the host's name now hold on to it */
    pool->cfg.conn.host = before.conn.host;
    pool->cfg.conn.endpoint = before.conn.endpoint;
    before.conn.host = cfg->conn.host;
    before.conn.endpoint = cfg->conn.endpoint;
    if (!has_all_of(&before.conn, &cfg->conn) || !has_all_of(&cfg->conn, &before.conn)) {
        expire_within(pool, &pool->idle, RECYCLE_WITHIN);
        expire_within(pool, &pool->busy, RECYCLE_WITHIN);
        pool->in_doubt = false; /* what failed may work now */
        pool->backoff = pool->retry_at = 0;
    }
    if (cfg->max_lifetime > 0 && cfg->max_lifetime != before.max_lifetime) {
        limit_lifetime(pool, &pool->idle);
        limit_lifetime(pool, &pool->busy);
    }
    luna_conn_config_deinit(&before.conn);
    shrink(pool);
    luna_pool_schedule_maintenance(pool);
    luna_pool_serve_soon(pool);
}

void luna_pool_drain(luna_pool *pool)
{
    pool->cfg.min_size = 0;
    pool->cfg.idle_timeout = DRAINED_IDLE;
    expire_within(pool, &pool->busy, 0);
    LUNA_LIST_EACH (&pool->idle, it)
        luna_pool_retire(LUNA_CONTAINER(it, luna_conn, link), "the endpoint was removed");
    luna_pool_schedule_maintenance(pool);
}

unsigned luna_pool_load(const luna_pool *pool)
{
    unsigned load = pool->n_waiters;
    for (luna_list *it = pool->busy.next; it != &pool->busy; it = it->next) {
        const luna_conn *conn = LUNA_CONTAINER(it, luna_conn, link);
        load += conn->lane.kind != LUNA_LANE_NONE ? conn->lane.depth : 1;
    }
    return load;
}
