/* Many chunkds that die at once, one after the other, and again and again: what the registry and its driver copy then.
 * Chunkds are scripted (nodes_rig.h). */
#include "nodes_rig.h"

static void accept_dead(unsigned n)
{
    uint32_t key = SETTING_DEAD_ACCEPTED;
    uint64_t value = n;
    Replfs__ConfigOp o = REPLFS__CONFIG_OP__INIT;
    o.key = &key;
    o.n_key = 1;
    o.value = &value;
    o.n_value = 1;
    NODES_RIG_OP(op, CONFIG, config, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
}

static uint64_t accepted(void)
{
    return fsm_setting(fx->mlog.fsm, SETTING_DEAD_ACCEPTED);
}

/* A field of node i, read under the lock. */
#define NODE_PEEK(i, field)                                                                        \
    (__extension__({                                                                               \
        lock_acquire(&fx->nodes->mu);                                                              \
        int64_t peeked_ = (int64_t)nodes_find(fx->nodes, fx->chunkd[i].id)->field;                 \
        lock_release(&fx->nodes->mu);                                                              \
        peeked_;                                                                                   \
    }))

static bool is_dead(unsigned i)
{
    return NODE_PEEK(i, state) == REPLFS__NODE_STATE__NODE_DEAD;
}

static void came_back(unsigned i, unsigned times)
{
    LOCK_SCOPE(&fx->nodes->mu);
    nodes_find(fx->nodes, fx->chunkd[i].id)->flap.returns = times;
}

/* A walk is through, and all that it queued was looked at. */
static bool idle(void)
{
    LOCK_SCOPE(&fx->nodes->mu);
    return !fx->nodes->walking && !repair_queue_count(fx->nodes->queue);
}

static uint64_t waiting(void)
{
    LOCK_SCOPE(&fx->nodes->mu);
    return fx->nodes->stat[REPAIR_KIND_REPAIR].nwaiting;
}

static void half_at_once_waits_for_a_person(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(4);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both copies");
    nodes_rig_leave(&fx->chunkd[1]);
    nodes_rig_leave(&fx->chunkd[3]);
    WAIT_UNTIL(is_dead(1) && is_dead(3));
    assert_true(has_problem("repair-held", 2));
    WAIT_UNTIL(idle() && waiting() == 1);
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[2], copies), 0);

    accept_dead(1); /* another died since it was asked */
    WAIT_UNTIL(idle());
    assert_true(has_problem("repair-held", 2));
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[2], copies), 0);

    accept_dead(2);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[2], copies) == 1);
    WAIT_UNTIL(accepted() == 0); /* no chunk lacks a copy: the next outage is asked about anew */
    assert_false(has_problem("repair-held", 2));
}

static void enough_that_come_back_end_it(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(4);
    struct want w = {make_chunk("a", 3, 3, &ino), 3};
    wait_until(really_held, &w, "three copies");
    nodes_rig_leave(&fx->chunkd[0]);
    nodes_rig_leave(&fx->chunkd[1]);
    WAIT_UNTIL(has_problem("repair-held", 2));
    WAIT_UNTIL(is_dead(0) && is_dead(1) && idle());
    nodes_rig_join(&fx->chunkd[0], NODES_RIG_UUID);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[3], copies) == 1);
    assert_false(has_problem("repair-held", 2));
}

/* One dead computer is repaired, and once that is done it is no part of what happens later. */
static void one_after_the_other_is_repaired(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(4);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both copies");
    nodes_rig_leave(&fx->chunkd[0]);
    WAIT_UNTIL(held_by(w.chunk) == 3);
    WAIT_UNTIL(NODE_PEEK(0, made_up));
    nodes_rig_leave(&fx->chunkd[1]);
    WAIT_UNTIL(held_by(w.chunk) == 4);
    assert_false(has_problem("repair-held", 2));
    nodes_rig_join(&fx->chunkd[0], NODES_RIG_UUID);
    wait_up(3);
    assert_false(NODE_PEEK(0, made_up));
}

/* It may be silent for longer each time, unless too few other copies are awake; and is the first to lose what is surplus. */
static void who_flaps_is_waited_for(void **state)
{
    struct nodes_rig_chunkd *k = &fx->chunkd[1];
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want three = {make_chunk("a", 3, 3, &ino), 3}, two = {make_chunk("b", 2, 2, &ino), 2};
    wait_until(really_held, &three, "three copies");
    for (unsigned i = 0; i < 2; i++) {
        nodes_rig_leave(k);
        WAIT_UNTIL(is_dead(1));
        WAIT_UNTIL(NODE_PEEK(1, made_up) || waiting() == 1); /* b has two copies, a cannot have three */
        WAIT_UNTIL(idle());
        nodes_rig_join(k, NODES_RIG_UUID);
        wait_up(3);
        wait_until(really_held, &two, "surplus to be dropped");
    }
    bool has_b = false;
    pthread_mutex_lock(&k->lock);
    has_b = find_held(k, two.chunk) != NULL;
    pthread_mutex_unlock(&k->lock);
    assert_false(has_b);

    struct want c = {make_chunk("c", 2, 2, &ino), 2};
    nodes_rig_join(&fx->chunkd[3], NODES_RIG_UUID);
    wait_up(4);
    assert_int_equal(NODE_PEEK(1, flap.returns), 2);
    came_back(1, 9); /* so that there is time to look */
    nodes_rig_leave(k);
    WAIT_UNTIL(NODE_PEEK(1, overdue));
    WAIT_UNTIL(held_by(c.chunk) == 3); /* only one of its copies was awake */
    WAIT_UNTIL(idle());
    assert_int_equal(held_by(three.chunk), 3);
    came_back(1, 0);
    WAIT_UNTIL(held_by(three.chunk) == 4);
    assert_true(is_dead(1));
    came_back(1, 2);
    nodes_rig_join(k, NODES_RIG_UUID);
    wait_until(really_held, &three, "surplus to be dropped");
    assert_true(has_problem("chunkd-flaps", 1));
    assert_int_equal(NODES_RIG_PEEK(k, nheld), 0);
}

int main(void)
{
#define OUTAGE_TEST(fn)                                                                            \
    cmocka_unit_test_setup_teardown(fn, nodes_rig_setup_newest, nodes_rig_teardown)
    const struct CMUnitTest tests[] = {
        OUTAGE_TEST(half_at_once_waits_for_a_person),
        OUTAGE_TEST(enough_that_come_back_end_it),
        OUTAGE_TEST(one_after_the_other_is_repaired),
        OUTAGE_TEST(who_flaps_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
