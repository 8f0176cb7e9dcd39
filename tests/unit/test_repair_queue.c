/* The queue of chunks that wait for repair: its order, and what becomes of it when chunks come again or go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "metad/plan/repair_queue.h"

static struct repair_queue_item item(uint64_t chunk, unsigned prio, int64_t due)
{
    return (struct repair_queue_item){
        .chunk = chunk, .prio = (uint8_t)prio, .due = due, .bytes = 10};
}

static void queue_order(void **state)
{
    (void)state;
    struct repair_queue *q = repair_queue_new();
    struct repair_queue_item it,
        in[] = {item(1, 2, 0), item(2, 1, 0), item(3, 2, 0), item(4, 0, 100)};
    for (unsigned i = 0; i < 4; i++)
        repair_queue_push(q, &in[i]);
    uint64_t n, bytes;
    repair_queue_stat(q, REPAIR_KIND_REPAIR, &n, &bytes);
    assert_int_equal(n, 4);
    assert_int_equal(bytes, 40);
    assert_true(repair_queue_pop(q, 50, &it));
    assert_int_equal(it.chunk, 2);
    repair_queue_unpop(q, &it);
    assert_true(repair_queue_pop(q, 50, &it));
    assert_int_equal(it.chunk, 2);
    assert_true(repair_queue_pop(q, 100, &it));
    assert_int_equal(it.chunk, 4); /* due now, most urgent */
    assert_true(repair_queue_pop(q, 100, &it));
    assert_int_equal(it.chunk, 1);
    assert_true(repair_queue_remove(q, 3));
    assert_false(repair_queue_remove(q, 3));
    assert_false(repair_queue_pop(q, 100, &it));
    repair_queue_stat(q, REPAIR_KIND_REPAIR, &n, &bytes);
    assert_int_equal(n, 0);
    assert_int_equal(bytes, 0);
    repair_queue_free(q);
}

static void queue_updates_in_place(void **state)
{
    (void)state;
    struct repair_queue *q = repair_queue_new();
    struct repair_queue_item a = item(1, 5, 0), b = item(2, 5, 0), out;
    a.since = 7;
    repair_queue_push(q, &a);
    repair_queue_push(q, &b);
    assert_true(repair_queue_pop(q, 0, &out)); /* both are listed now */
    repair_queue_unpop(q, &out);
    a.since = 9;
    a.prio = 5;
    repair_queue_push(q, &a); /* same class: keeps its place */
    b.prio = 1;
    repair_queue_push(q, &b); /* more urgent now */
    assert_int_equal(repair_queue_count(q), 2);
    assert_true(repair_queue_pop(q, 0, &out));
    assert_int_equal(out.chunk, 2);
    assert_true(repair_queue_pop(q, 0, &out));
    assert_int_equal(out.chunk, 1);
    assert_int_equal(out.since, 7);
    repair_queue_free(q);
}

static void queue_of_many(void **state)
{
    (void)state;
    struct repair_queue *q = repair_queue_new();
    struct repair_queue_item it;
    uint64_t r = 1;
    for (uint64_t i = 1; i <= 5000; i++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        it = item(i, (unsigned)(r >> 33) % REPAIR_PRIO_MAX, (int64_t)((r >> 40) % 1000));
        repair_queue_push(q, &it);
    }
    for (uint64_t i = 1; i <= 5000; i += 3)
        assert_true(repair_queue_remove(q, i));
    size_t popped = 0;
    for (int64_t now = 0; now <= 1000; now += 10) {
        unsigned last = 0;
        while (repair_queue_pop(q, now, &it)) {
            assert_true(it.due <= now && it.chunk % 3 != 1 && it.prio >= last);
            last = it.prio;
            popped++;
        }
    }
    assert_int_equal(popped, 5000 - 1667);
    assert_int_equal(repair_queue_count(q), 0);
    repair_queue_free(q);
}

static void backoff_doubles_and_stops(void **state)
{
    (void)state;
    assert_true(repair_queue_backoff(1) == 2 * repair_queue_backoff(0));
    assert_true(repair_queue_backoff(200) == repair_queue_backoff(5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_order),
        cmocka_unit_test(queue_updates_in_place),
        cmocka_unit_test(queue_of_many),
        cmocka_unit_test(backoff_doubles_and_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
