/* When repair waits for a person since too much is dead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "metad/plan/outage.h"

/* Computers with one chunkd each and as many bytes. */
static struct outage even(unsigned hosts, unsigned dead)
{
    return (struct outage){.hosts = hosts,
                           .down_hosts = dead,
                           .down_chunkds = dead,
                           .dead_chunkds = dead,
                           .bytes = hosts * 1000ull,
                           .down_bytes = dead * 1000ull};
}

static bool holds(unsigned hosts, unsigned dead)
{
    struct outage o = even(hosts, dead);
    return outage_holds(&o, 34, 0);
}

static void test_part_of_the_hosts(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 100; n++) {
        assert_false(holds(n, 0));
        assert_false(holds(n, 1)); /* one always may */
    }
    assert_true(holds(3, 2));
    assert_true(holds(5, 2));
    assert_false(holds(6, 2));
    assert_true(holds(6, 3));
    assert_false(holds(100, 34));
    assert_true(holds(100, 35));
}

static void test_part_of_the_bytes(void **state)
{
    struct outage o = even(10, 2);
    (void)state;
    assert_false(outage_holds(&o, 34, 0));
    o.down_bytes = 3401;
    assert_true(outage_holds(&o, 34, 0));
    o.down_hosts = 1; /* the one with most of it */
    o.down_bytes = 9000;
    assert_false(outage_holds(&o, 34, 0));
    o = (struct outage){.hosts = 2, .down_hosts = 2, .down_chunkds = 2, .dead_chunkds = 2};
    assert_true(outage_holds(&o, 34, 0)); /* nothing stored yet */
    assert_false(outage_holds(&o, 100, 0));
}

static void test_accepted(void **state)
{
    struct outage o = even(6, 3);
    (void)state;
    assert_true(outage_holds(&o, 34, 2));
    assert_false(outage_holds(&o, 34, 3));
    o = even(6, 4); /* one more than a person knows of */
    assert_true(outage_holds(&o, 34, 3));
    o = even(6, 3);
    assert_false(outage_holds(&o, 50, 0));
    o = even(6, 5); /* of which two are only silent */
    o.dead_chunkds = 3;
    assert_true(outage_holds(&o, 34, 2));
    assert_false(outage_holds(&o, 34, 3));
    o.dead_chunkds = 0;
    assert_false(outage_holds(&o, 34, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_part_of_the_hosts),
        cmocka_unit_test(test_part_of_the_bytes),
        cmocka_unit_test(test_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
