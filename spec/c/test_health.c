/* The state machine of endpoints: what makes them unhealthy, what well again, and what does not. */
#include <math.h>

#include "health.h"
#include "test.h"

static luna_health made(unsigned limit)
{
    luna_health health;
    luna_health_init(&health, limit);
    return health;
}

static luna_health probed(unsigned limit)
{
    luna_health health = made(limit);
    CHECK(luna_health_probe_success(&health, 0.001));
    return health;
}

static luna_health down(unsigned limit)
{
    luna_health health = probed(limit);
    CHECK(luna_health_probe_failure(&health, true));
    return health;
}

static void unchecked_is_a_state_of_its_own(void)
{
    luna_health health = made(3);
    CHECK_INT(LUNA_HEALTH_UNCHECKED, health.status);
    CHECK_INT(LUNA_CIRCUIT_CLOSED, health.circuit);
    CHECK(!luna_health_probe_begins(&health));
    CHECK(!luna_health_failure(&health));
    CHECK_INT(LUNA_HEALTH_UNCHECKED, health.status);
    CHECK(luna_health_success(&health, 0.01));
    CHECK_INT(LUNA_HEALTH_HEALTHY, health.status);
}

static void the_first_look_decides(void)
{
    luna_health health = made(3);
    CHECK(luna_health_probe_failure(&health, true));
    CHECK_INT(LUNA_HEALTH_UNHEALTHY, health.status);
    CHECK_INT(LUNA_CIRCUIT_OPEN, health.circuit);
    health = made(3);
    CHECK(luna_health_probe_success(&health, 0.01));
    CHECK_INT(LUNA_HEALTH_HEALTHY, health.status);
}

static void probes_open_the_circuit_at_the_limit(void)
{
    luna_health health = probed(3);
    CHECK(luna_health_probe_failure(&health, false));
    CHECK_INT(LUNA_HEALTH_DEGRADED, health.status);
    CHECK_INT(LUNA_CIRCUIT_CLOSED, health.circuit);
    CHECK(!luna_health_probe_failure(&health, false));
    CHECK(luna_health_probe_failure(&health, false));
    CHECK_INT(LUNA_HEALTH_UNHEALTHY, health.status);
    CHECK_INT(LUNA_CIRCUIT_OPEN, health.circuit);
    CHECK_INT(3, health.failures);
}

static void statements_count_towards_the_limit(void)
{
    luna_health health = probed(3);
    luna_health_failure(&health);
    luna_health_failure(&health);
    CHECK_INT(LUNA_CIRCUIT_CLOSED, health.circuit);
    CHECK(luna_health_probe_failure(&health, false));
    CHECK_INT(LUNA_CIRCUIT_OPEN, health.circuit);
}

static void statements_alone_never_open_what_is_probed(void)
{
    luna_health health = probed(3);
    for (int i = 0; i < 1000; i++)
        luna_health_failure(&health);
    CHECK_INT(LUNA_HEALTH_DEGRADED, health.status);
    CHECK_INT(LUNA_CIRCUIT_CLOSED, health.circuit);
    CHECK_INT(1000, health.failures);
    luna_health_probe_success(&health, 0.001);
    CHECK_INT(0, health.failures);
    CHECK_INT(LUNA_HEALTH_DEGRADED, health.status);
}

static void statements_decide_without_probes(void)
{
    luna_health health = made(3);
    luna_health_success(&health, 0.01);
    luna_health_failure(&health);
    luna_health_failure(&health);
    CHECK(luna_health_failure(&health));
    CHECK_INT(LUNA_HEALTH_UNHEALTHY, health.status);
    CHECK(luna_health_success(&health, 0.01));
    CHECK_INT(LUNA_HEALTH_RECOVERING, health.status);
    CHECK_INT(LUNA_CIRCUIT_CLOSED, health.circuit);
}

static void one_probe_goes_through_a_half_open_circuit(void)
{
    luna_health health = down(3);
    CHECK(luna_health_probe_begins(&health));
    CHECK_INT(LUNA_CIRCUIT_HALF_OPEN, health.circuit);
    CHECK_INT(LUNA_HEALTH_UNHEALTHY, health.status);
    CHECK(!luna_health_probe_begins(&health));
    CHECK(luna_health_probe_failure(&health, false));
    CHECK_INT(LUNA_CIRCUIT_OPEN, health.circuit);
    luna_health_probe_begins(&health);
    CHECK(luna_health_probe_success(&health, 0.001));
    CHECK_INT(LUNA_CIRCUIT_CLOSED, health.circuit);
    CHECK_INT(LUNA_HEALTH_RECOVERING, health.status);
}

static void late_answers_do_not_close_the_circuit(void)
{
    luna_health health = down(3);
    for (int i = 0; i < 100; i++)
        CHECK(!luna_health_success(&health, 0.01));
    CHECK_INT(LUNA_CIRCUIT_OPEN, health.circuit);
    CHECK_INT(LUNA_HEALTH_UNHEALTHY, health.status);
}

static void recovery_takes_some_successes(void)
{
    luna_health health = down(3);
    luna_health_probe_success(&health, 0.001);
    for (int i = 1; i < LUNA_HEALTH_STEADY - 1; i++)
        CHECK(!luna_health_success(&health, 0.001));
    CHECK_INT(LUNA_HEALTH_RECOVERING, health.status);
    CHECK(luna_health_success(&health, 0.001));
    CHECK_INT(LUNA_HEALTH_HEALTHY, health.status);
}

static void a_relapse_opens_the_circuit_at_once(void)
{
    luna_health health = down(3);
    luna_health_probe_success(&health, 0.001);
    CHECK(luna_health_probe_failure(&health, false));
    CHECK_INT(LUNA_HEALTH_UNHEALTHY, health.status);
    CHECK_INT(LUNA_CIRCUIT_OPEN, health.circuit);
}

static void late_failures_do_not_end_a_recovery(void)
{
    luna_health health = down(3);
    luna_health_probe_success(&health, 0.001);
    for (int i = 0; i < 100; i++)
        CHECK(!luna_health_failure(&health));
    CHECK_INT(LUNA_HEALTH_RECOVERING, health.status);
    CHECK_INT(LUNA_CIRCUIT_CLOSED, health.circuit);
}

static void many_failures_among_successes_degrade(void)
{
    luna_health health = probed(3);
    for (int i = 0; i < 40; i++) {
        luna_health_failure(&health);
        luna_health_success(&health, 0.001);
    }
    CHECK_INT(LUNA_HEALTH_DEGRADED, health.status);
    CHECK(health.error_rate > 0.3 && health.error_rate < 0.6);
    for (int i = 0; i < LUNA_HEALTH_STEADY; i++)
        luna_health_success(&health, 0.001);
    CHECK_INT(LUNA_HEALTH_DEGRADED, health.status); /* not yet few */
    for (int i = 0; i < 40; i++)
        luna_health_success(&health, 0.001);
    CHECK_INT(LUNA_HEALTH_HEALTHY, health.status);
}

static void a_single_failure_is_forgiven(void)
{
    luna_health health = probed(3);
    CHECK(!luna_health_failure(&health));
    CHECK_INT(LUNA_HEALTH_HEALTHY, health.status);
    CHECK_INT(1, health.failures);
    luna_health_success(&health, 0.001);
    CHECK_INT(0, health.failures);
}

static void a_full_server_is_degraded_but_there(void)
{
    luna_health health = probed(1);
    for (int i = 0; i < 10; i++)
        luna_health_probe_refused(&health);
    CHECK_INT(LUNA_HEALTH_DEGRADED, health.status);
    CHECK_INT(LUNA_CIRCUIT_CLOSED, health.circuit);
    health = down(1); /* nobody is connected to it any more */
    luna_health_probe_refused(&health);
    CHECK_INT(LUNA_CIRCUIT_OPEN, health.circuit);
}

static void averages_follow_slowly(void)
{
    luna_health health = made(3);
    luna_health_success(&health, -1);
    CHECK(health.latency == 0);
    luna_health_success(&health, 0.010);
    CHECK(health.latency == 0.010);
    for (int i = 0; i < 50; i++)
        luna_health_success(&health, 0.010);
    luna_health_success(&health, 1.0);
    CHECK(health.latency > 0.05 && health.latency < 0.15);
    luna_health_failure(&health);
    CHECK(fabs(health.error_rate - 0.1) < 1e-12);
    for (int i = 0; i < 1000; i++)
        luna_health_success(&health, 0.010);
    CHECK(health.error_rate == 0); /* not a denormal number */
}

/* Whatever happens in whatever order, what is said of it agrees. */
static void states_and_circuits_agree(void)
{
    uint64_t seed = test_seed();
    for (int run = 0; run < 200; run++) {
        luna_health health = made(1 + (unsigned)(test_random(&seed) % 4));
        for (int i = 0; i < 200; i++) {
            luna_health before = health;
            bool changed = false;
            switch (test_random(&seed) % 6) {
            case 0: changed = luna_health_success(&health, 0.001); break;
            case 1: changed = luna_health_failure(&health); break;
            case 2: changed = luna_health_probe_begins(&health); break;
            case 3: changed = luna_health_probe_success(&health, 0.001); break;
            case 4: changed = luna_health_probe_failure(&health, false); break;
            case 5: changed = luna_health_probe_refused(&health); break;
            }
            bool differs = before.status != health.status || before.circuit != health.circuit;
            if (changed != differs ||
                (health.status == LUNA_HEALTH_UNHEALTHY) ==
                    (health.circuit == LUNA_CIRCUIT_CLOSED) ||
                health.error_rate < 0 || health.error_rate > 1) {
                CHECK(!"state, circuit and answer agree");
                return;
            }
        }
    }
    CHECK(1);
}

int main(void)
{
    unchecked_is_a_state_of_its_own();
    the_first_look_decides();
    probes_open_the_circuit_at_the_limit();
    statements_count_towards_the_limit();
    statements_alone_never_open_what_is_probed();
    statements_decide_without_probes();
    one_probe_goes_through_a_half_open_circuit();
    late_answers_do_not_close_the_circuit();
    recovery_takes_some_successes();
    a_relapse_opens_the_circuit_at_once();
    late_failures_do_not_end_a_recovery();
    many_failures_among_successes_degrade();
    a_single_failure_is_forgiven();
    a_full_server_is_degraded_but_there();
    averages_follow_slowly();
    states_and_circuits_agree();
    return test_report();
}
