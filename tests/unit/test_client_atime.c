/* Which reads set the access time: relatime, strictatime, noatime, nodiratime; and whose clock the times
 * come from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "client_internals.h"
#include "base/log.h"
#include "base/clock.h"

#define DAY (24 * 3600 * NSEC_PER_SEC)
#define NOW (100 * DAY)

struct read_case {
    int64_t atime, mtime, ctime;
    bool counts;
};

static Replfs__Attr attr(uint32_t mode, const struct read_case *r)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    a.mode = mode;
    a.atime_ns = r->atime;
    a.mtime_ns = r->mtime;
    a.ctime_ns = r->ctime;
    return a;
}

static void relatime(void **state)
{
    static const struct read_case cases[] = {
        {NOW - 10, NOW - 20, NOW - 20, false}, /* read since it was changed */
        {NOW - 10, NOW - 10, NOW - 20, true},  /* changed in the same moment */
        {NOW - 10, NOW - 20, NOW - 10, true},  /* likewise its attributes */
        {NOW - 10, NOW - 5, NOW - 20, true},   /* changed since */
        {NOW - DAY + 1, 0, 0, false},          /* not quite a day ago */
        {NOW - DAY, 0, 0, true},               /* a day ago */
        {NOW + 10, NOW + 5, NOW + 5, false},   /* in the future: another computer's clock */
        {-10, -5, -5, true},                   /* before 1970 */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Replfs__Attr a = attr(S_IFREG | 0644, &cases[i]);
        assert_int_equal(atime_counts(CLIENT_ATIME_RELATIME, true, &a, NOW), cases[i].counts);
        assert_int_equal(atime_counts(CLIENT_ATIME_RELATIME, false, &a, NOW), cases[i].counts);
        assert_true(atime_counts(CLIENT_ATIME_ALWAYS, true, &a, NOW));
        assert_false(atime_counts(CLIENT_ATIME_NEVER, true, &a, NOW));
    }
}

static void directories(void **state)
{
    static const struct read_case changed = {1, 2, 2, true};
    Replfs__Attr dir = attr(S_IFDIR | 0755, &changed), link = attr(S_IFLNK | 0777, &changed);
    (void)state;
    assert_true(atime_counts(CLIENT_ATIME_RELATIME, true, &dir, NOW));
    assert_false(atime_counts(CLIENT_ATIME_RELATIME, false, &dir, NOW));
    assert_false(atime_counts(CLIENT_ATIME_ALWAYS, false, &dir, NOW));
    assert_true(atime_counts(CLIENT_ATIME_RELATIME, false, &link, NOW));
}

#define HOUR_S 3600

/* Seconds that the client's time is ahead of this computer's. */
static int64_t ahead(struct client *c)
{
    int64_t off = client_now(c) - clock_wall();
    return (off + (off < 0 ? -1 : 1) * NSEC_PER_SEC / 2) / NSEC_PER_SEC;
}

/* Far from metad's clock its time counts; what is told of nonsense or not at all changes nothing. */
static void metads_time(void **state)
{
    struct client *c = calloc(1, sizeof *c);
    uint64_t now_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    (void)state;
    log_init("test", LOG_LVL_ERROR, NULL);
    assert_int_equal(ahead(c), 0);
    client_told_time(c, now_ms - 2ull * HOUR_S * 1000);
    assert_int_equal(ahead(c), -2 * HOUR_S);
    client_told_time(c, 0);
    client_told_time(c, UINT64_MAX);
    assert_int_equal(ahead(c), -2 * HOUR_S);
    client_told_time(c, now_ms + 300ull * 1000);
    assert_int_equal(ahead(c), 300);
    client_told_time(c, now_ms + 2000); /* near enough */
    assert_int_equal(ahead(c), 0);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relatime),
        cmocka_unit_test(directories),
        cmocka_unit_test(metads_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
