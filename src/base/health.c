#include "health.h"

/* Weight of the newest sample in the moving averages: about the last 20 count. */
#define WEIGHT 0.1

/* Halving for ever would end in denormal numbers, which are slow. */
#define NOTHING 1e-9

void luna_health_init(luna_health *health, unsigned limit)
{
    *health = (luna_health){ .limit = limit };
}

static bool health_set(luna_health *health, luna_health_status status, luna_circuit circuit)
{
    if (health->status == status && health->circuit == circuit)
        return false;
    health->status = status;
    health->circuit = circuit;
    return true;
}

static bool set_unhealthy(luna_health *health)
{
    return health_set(health, LUNA_HEALTH_UNHEALTHY, LUNA_CIRCUIT_OPEN);
}

/* It answered: does that end a bad time? */
static bool ascend(luna_health *health)
{
    health->failures = 0;
    switch (health->status) {
    case LUNA_HEALTH_HEALTHY:
    case LUNA_HEALTH_UNHEALTHY: return false;
    case LUNA_HEALTH_UNCHECKED: break;
    case LUNA_HEALTH_DEGRADED:
        if (++health->successes < LUNA_HEALTH_STEADY || health->error_rate > LUNA_HEALTH_FEW)
            return false;
        break;
    case LUNA_HEALTH_RECOVERING:
        if (++health->successes < LUNA_HEALTH_STEADY)
            return false;
        break;
    }
    return health_set(health, LUNA_HEALTH_HEALTHY, LUNA_CIRCUIT_CLOSED);
}

static void count_success(luna_health *health, double seconds)
{
    if (health->error_rate > 0) {
        double rate = health->error_rate * (1 - WEIGHT);
        health->error_rate = rate > NOTHING ? rate : 0;
    }
    if (seconds >= 0 && health->latency > 0)
        health->latency += WEIGHT * (seconds - health->latency);
    else if (seconds >= 0)
        health->latency = seconds;
}

static void count_failure(luna_health *health)
{
    health->failures++;
    health->successes = 0;
    health->error_rate += WEIGHT * (1 - health->error_rate);
}

bool luna_health_success(luna_health *health, double seconds)
{
    count_success(health, seconds);
    if (health->status == LUNA_HEALTH_UNHEALTHY && !health->probed) { /* nobody else will tell */
        health->failures = 0;
        health->successes = 1;
        return health_set(health, LUNA_HEALTH_RECOVERING, LUNA_CIRCUIT_CLOSED);
    }
    if (health->status == LUNA_HEALTH_UNHEALTHY) /* a late answer */
        return false;
    return ascend(health);
}

bool luna_health_failure(luna_health *health)
{
    count_failure(health);
    bool enough = health->failures >= health->limit;
    switch (health->status) {
    case LUNA_HEALTH_UNHEALTHY: return false;
    case LUNA_HEALTH_UNCHECKED:
    case LUNA_HEALTH_RECOVERING:
        /* with probes: failures of before may be reported late */
        return enough && !health->probed ? set_unhealthy(health) : false;
    case LUNA_HEALTH_HEALTHY:
    case LUNA_HEALTH_DEGRADED: break;
    }
    if (enough && (!health->probed || health->probe_failed))
        return set_unhealthy(health);
    if (enough || health->error_rate >= LUNA_HEALTH_TOO_MANY)
        return health_set(health, LUNA_HEALTH_DEGRADED, LUNA_CIRCUIT_CLOSED);
    return false;
}

bool luna_health_probe_begins(luna_health *health)
{
    if (health->circuit == LUNA_CIRCUIT_OPEN)
        return health_set(health, health->status, LUNA_CIRCUIT_HALF_OPEN);
    return false;
}

bool luna_health_probe_success(luna_health *health, double seconds)
{
    health->probed = true;
    health->probe_failed = false;
    count_success(health, seconds);
    if (health->status == LUNA_HEALTH_UNHEALTHY) {
        health->failures = 0;
        health->successes = 1;
        return health_set(health, LUNA_HEALTH_RECOVERING, LUNA_CIRCUIT_CLOSED);
    }
    return ascend(health);
}

bool luna_health_probe_failure(luna_health *health, bool certain)
{
    health->probed = true;
    health->probe_failed = true;
    count_failure(health);
    if (certain || health->failures >= health->limit || health->status == LUNA_HEALTH_UNHEALTHY ||
        health->status == LUNA_HEALTH_RECOVERING)
        return set_unhealthy(health);
    if (health->status == LUNA_HEALTH_UNCHECKED)
        return false;
    return health_set(health, LUNA_HEALTH_DEGRADED, LUNA_CIRCUIT_CLOSED);
}

bool luna_health_probe_refused(luna_health *health)
{
    if (health->status == LUNA_HEALTH_UNCHECKED || health->status == LUNA_HEALTH_UNHEALTHY)
        return luna_health_probe_failure(health, true);
    health->probed = true;
    health->probe_failed = false;
    health->successes = 0;
    if (health->status == LUNA_HEALTH_RECOVERING)
        return false;
    return health_set(health, LUNA_HEALTH_DEGRADED, LUNA_CIRCUIT_CLOSED);
}
