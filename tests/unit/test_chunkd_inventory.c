/* The chunkd's inventory: the digest that metad compares. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "chunkd/inventory.h"

#define IDS 400u

static uint64_t rnd(uint64_t *s)
{
    return hash_u64(*s += 0x9e3779b97f4a7c15ull);
}

/* What a metad would know: applied in the order taken. */
struct view {
    bool has[IDS + 1];
};

static void view_check(const struct view *v, struct inventory_view *iv)
{
    uint64_t digest = 0, count = 0, told_digest, told_count;
    for (uint64_t i = 1; i <= IDS; i++)
        if (v->has[i]) {
            digest ^= hash_u64(i);
            count++;
        }
    inventory_told(iv, &told_digest, &told_count);
    assert_int_equal(digest, told_digest);
    assert_int_equal(count, told_count);
}

static void digest_follows_what_was_told(void **state)
{
    (void)state;
    struct inventory *inv = inventory_new();
    struct inventory_view *iv = inventory_view_new(inv);
    struct view v = {{false}};
    uint64_t seed = 7;
    for (unsigned round = 0; round < 3000; round++) {
        for (unsigned i = rnd(&seed) % 20; i > 0; i--) {
            uint64_t id = 1 + rnd(&seed) % IDS;
            if (rnd(&seed) % 3)
                inventory_changed(inv, id, 0, true);
            else
                inventory_changed(inv, id, 0, false);
        }
        struct inventory_item it[7];
        size_t n = inventory_take(iv, it, 7); /* often fewer than there are */
        for (size_t i = 0; i < n; i++)
            v.has[it[i].chunk] = it[i].exists;
        view_check(&v, iv);
        if (round % 500 == 499) {
            memset(&v, 0, sizeof v);
            struct inventory_item *all = inventory_snapshot(iv, &n);
            for (size_t i = 0; i < n; i++)
                v.has[all[i].chunk] = true;
            free(all);
            assert_int_equal(n, inventory_count(inv));
            view_check(&v, iv);
            assert_int_equal(inventory_take(iv, it, 7), 0);
        }
    }
    inventory_view_free(iv);
    inventory_free(inv);
}

static void reservations_are_not_told(void **state)
{
    (void)state;
    struct inventory *inv = inventory_new();
    struct inventory_view *iv = inventory_view_new(inv);
    struct inventory_item it[4];
    assert_int_equal(inventory_reserve(inv, 9, 3), 3);
    assert_int_equal(inventory_reserve(inv, 9, 1), 3); /* somebody was first */
    assert_int_equal(inventory_disk(inv, 9), 3);
    assert_int_equal(inventory_count(inv), 0);
    assert_int_equal(inventory_take(iv, it, 4), 0);
    inventory_unreserve(inv, 9);
    assert_int_equal(inventory_disk(inv, 9), INVENTORY_NONE);
    inventory_reserve(inv, 9, 2);
    inventory_changed(inv, 9, 2, true);
    inventory_unreserve(inv, 9); /* too late: bytes are there */
    assert_int_equal(inventory_disk(inv, 9), 2);
    assert_int_equal(inventory_take(iv, it, 4), 1);
    assert_true(it[0].exists);
    inventory_view_free(iv);
    inventory_free(inv);
}

static void a_failed_disk_takes_only_its_own_chunks(void **state)
{
    (void)state;
    struct inventory *inv = inventory_new();
    struct inventory_view *iv = inventory_view_new(inv);
    struct inventory_item it[8];
    for (uint64_t i = 1; i <= 6; i++)
        inventory_changed(inv, i, (uint32_t)(i % 2), true);
    assert_int_equal(inventory_take(iv, it, 8), 6);
    assert_int_equal(inventory_drop_disk(inv, 1), 3);
    assert_true(inventory_overflowed(iv));
    inventory_changed(inv, 1, 0, true); /* repaired onto the other disk meanwhile */
    size_t n;
    struct inventory_item *all = inventory_snapshot(iv, &n);
    assert_int_equal(n, 4);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(all[i].disk, 0);
    free(all);
    assert_false(inventory_overflowed(iv));
    /* a late word about a copy on another disk than the one we name changes nothing */
    inventory_changed(inv, 2, 1, false);
    assert_int_equal(inventory_disk(inv, 2), 0);
    inventory_view_free(iv);
    inventory_free(inv);
}

/* One metad is away while much changes: it is told anew, and the other misses nothing. */
static void a_metad_that_is_away_costs_little(void **state)
{
    (void)state;
    enum { N = 600000, PART = 1000 };
    static struct inventory_item it[PART];
    struct inventory *inv = inventory_new();
    struct inventory_view *here = inventory_view_new(inv), *away = inventory_view_new(inv);
    uint64_t digest[2], count[2];
    size_t n;
    for (uint64_t i = 1; i <= N; i++) {
        inventory_changed(inv, i, 0, true);
        if (i % PART == 0)
            assert_int_equal(inventory_take(here, it, PART), PART);
    }
    assert_false(inventory_overflowed(here));
    assert_true(inventory_overflowed(away));
    assert_int_equal(inventory_take(away, it, PART), 0);
    free(inventory_snapshot(away, &n));
    assert_int_equal(n, N);
    inventory_told(here, &digest[0], &count[0]);
    inventory_told(away, &digest[1], &count[1]);
    assert_true(digest[0] == digest[1] && count[0] == count[1]);
    /* each is told of what comes now */
    inventory_changed(inv, 7, 0, false);
    assert_int_equal(inventory_take(here, it, PART), 1);
    assert_int_equal(inventory_take(here, it, PART), 0);
    assert_int_equal(inventory_take(away, it, PART), 1);
    /* and one that comes later was told of nothing */
    inventory_view_free(away);
    away = inventory_view_new(inv);
    assert_true(inventory_overflowed(away));
    inventory_view_free(away);
    inventory_view_free(here);
    inventory_free(inv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {

        cmocka_unit_test(digest_follows_what_was_told),
        cmocka_unit_test(reservations_are_not_told),
        cmocka_unit_test(a_failed_disk_takes_only_its_own_chunks),
        cmocka_unit_test(a_metad_that_is_away_costs_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
