#include "err.h"

#include <stdarg.h>
#include <stdio.h>

luna_status luna_err_set(luna_err *err, luna_status code, const char *fmt, ...)
{
    if (err != NULL) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        err->sqlstate[0] = '\0';
        vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
        va_end(ap);
    }
    return code;
}

const char *luna_status_name(luna_status code)
{
    switch (code) {
    case LUNA_OK: return "OK";
    case LUNA_EINVAL: return "INVALID";
    case LUNA_ENOSHARD: return "NO_SHARD";
    case LUNA_ENULLKEY: return "NULL_KEY";
    case LUNA_ESQL: return "SQL";
    case LUNA_ETIMEOUT: return "TIMEOUT";
    case LUNA_ECANCELED: return "CANCELED";
    case LUNA_EPOOL: return "POOL_EXHAUSTED";
    case LUNA_EDOWN: return "SHARD_DOWN";
    case LUNA_EAUTH: return "AUTH";
    case LUNA_EUNKNOWN: return "UNKNOWN_OUTCOME";
    case LUNA_ETOOLARGE: return "RESULT_TOO_LARGE";
    case LUNA_ECLOSED: return "CLOSED";
    case LUNA_ESTALE: return "STALE_MAP";
    }
    return "UNKNOWN";
}
