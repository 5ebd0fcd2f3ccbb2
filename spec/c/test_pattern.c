/* What patterns match, what is wrong with some, and where they give up.  Against Lua's own they are
 * compared in spec/unit/plugin/strings_spec.lua. */
#include "pattern.h"
#include "test.h"

static luna_pattern *compile(const char *text)
{
    luna_pattern *pattern = malloc(luna_pattern_size(strlen(text)));
    CHECK(luna_pattern_compile(pattern, text, strlen(text), true) == NULL);
    return pattern;
}

/* Where the match that begins with the subject ends, -1 without one. */
static long end_of(const char *text, const char *subject)
{
    luna_pattern *pattern = compile(text);
    luna_match m = { .begin = subject, .end = subject + strlen(subject), .steps = 100000 };
    const char *end = luna_pattern_match(pattern, &m, subject);
    free(pattern);
    return end != NULL ? (long)(end - subject) : -1;
}

static void matches(void)
{
    CHECK_INT(0, end_of("", "abc"));
    CHECK_INT(3, end_of("%a+", "abc1"));
    CHECK_INT(1, end_of("%a-%f[b]", "abc"));
    CHECK_INT(4, end_of("%b()", "(())) "));
    CHECK_INT(-1, end_of("%b()", "(()"));
    CHECK_INT(4, end_of("(a)(b)%2%1", "abba"));
    CHECK_INT(-1, end_of("(a)(b)%2%1", "abab"));
    CHECK_INT(3, end_of("[^%s]*$", "abc"));
    CHECK_INT(-1, end_of("[^%s]+$", "ab c"));
}

static const char *problem_of(const char *text)
{
    luna_pattern *pattern = malloc(luna_pattern_size(strlen(text)));
    const char *problem = luna_pattern_compile(pattern, text, strlen(text), true);
    free(pattern);
    return problem != NULL ? problem : "none";
}

static void says_what_is_wrong(void)
{
    CHECK_STR("malformed pattern (ends with '%')", problem_of("a%"));
    CHECK_STR("malformed pattern (missing ']')", problem_of("[a"));
    CHECK_STR("malformed pattern (missing ']')", problem_of("[%"));
    CHECK_STR("malformed pattern (missing arguments to '%b')", problem_of("%ba"));
    CHECK_STR("malformed pattern (missing '[' after '%f')", problem_of("%f"));
    CHECK_STR("unfinished capture", problem_of("(a"));
    CHECK_STR("invalid pattern capture", problem_of("a)"));
    CHECK_STR("invalid capture index", problem_of("%0"));
}

static void gives_up(void)
{
    luna_pattern *pattern = compile("a*a*a*a*a*a*a*a*b");
    char subject[1000];
    memset(subject, 'a', sizeof(subject));
    luna_match m = { .begin = subject, .end = subject + sizeof(subject), .steps = 100000 };
    CHECK(luna_pattern_match(pattern, &m, subject) == NULL);
    CHECK_INT(0, m.steps);
    free(pattern);
}

int main(void)
{
    matches();
    says_what_is_wrong();
    gives_up();
    return test_report();
}
