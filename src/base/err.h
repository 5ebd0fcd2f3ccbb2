/* err.h - status codes and error values.  Layer: base.
 *
 * A fallible function returns luna_status.  When the caller needs words as
 * well as a code, the last parameter is luna_err *, owned by the caller and
 * usually on its stack.  Nothing here allocates or prints. */
#ifndef LUNA_BASE_ERR_H
#define LUNA_BASE_ERR_H

#define LUNA_MUSTCHECK __attribute__((warn_unused_result))
#define LUNA_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* One for each error code of the public API; luna_status_name gives its text. */
typedef enum luna_status {
    LUNA_OK = 0,
    LUNA_EINVAL = -1,
    LUNA_ENOSHARD = -2,
    LUNA_ENULLKEY = -3,
    LUNA_ESQL = -4,
    LUNA_ETIMEOUT = -5,
    LUNA_ECANCELED = -6,
    LUNA_EPOOL = -7, /* POOL_EXHAUSTED */
    LUNA_EDOWN = -8, /* SHARD_DOWN */
    LUNA_EAUTH = -9,
    LUNA_EUNKNOWN = -10, /* UNKNOWN_OUTCOME */
    LUNA_ETOOLARGE = -11,
    LUNA_ECLOSED = -12,
    LUNA_ESTALE = -13, /* STALE_MAP */
} luna_status;

typedef struct luna_err {
    luna_status code;
    char sqlstate[6]; /* empty when the server did not say */
    char msg[506];
} luna_err;

/* Fill `err` (may be NULL; the sqlstate is cleared) and return `code`, so that
 * a failing function can end with `return luna_err_set(err, ...)`. */
luna_status luna_err_set(luna_err *err, luna_status code, const char *fmt, ...) LUNA_PRINTF(3, 4);

/* The public name of a status, such as "SHARD_DOWN". */
const char *luna_status_name(luna_status code);
#endif
