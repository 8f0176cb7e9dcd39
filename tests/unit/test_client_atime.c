/* Which reads set the access time: relatime, strictatime, noatime, nodiratime. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fuse/client/internal.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relatime),
        cmocka_unit_test(directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
