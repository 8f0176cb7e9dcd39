/* Names that are made and removed before metad knows: what the client shows meanwhile, what metad has in the
 * end, and when it is left to metad. */
#include "client_rig_names.h"

enum { MANY = 100 };

static void test_made(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    uint64_t dir = client_rig_mkdir("dir");
    client_rig_set(hold, true);
    assert_true(client_rig_create_deferred(dir, "a", &a));
    client_rig_wait(client_rig.nheld == 1);
    assert_int_equal(client_rig_shown(dir, "a"), a.ino);
    assert_int_equal(client_rig_lookup(dir, "a"), 0);
    client_rig_release();
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_rig_lookup(dir, "a"), a.ino);
    Replfs__Attr b = client_rig_attr(a.ino);
    assert_int_equal(b.mode, a.mode);
    assert_int_equal(b.goal, a.goal);
    assert_true(b.mtime_ns == a.mtime_ns && b.ctime_ns == a.ctime_ns);
}

static void test_removed(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    uint64_t dir = client_rig_mkdir("dir");
    assert_true(client_rig_create_deferred(dir, "a", &a));
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    client_rig_set(hold, true);
    assert_true(client_rig_remove_deferred(dir, "a"));
    client_rig_wait(client_rig.nheld == 1);
    assert_int_equal(client_rig_shown(dir, "a"), 0);
    assert_int_equal(client_rig_lookup(dir, "a"), a.ino);
    client_rig_release();
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_rig_lookup(dir, "a"), 0);
    assert_int_equal(client_rig_get(unlinked), a.ino);
}

/* metad hears of all that was done with one name, in that order. */
static void test_order_of_one_name(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT, b = REPLFS__ATTR__INIT;
    uint64_t dir = client_rig_mkdir("dir");
    client_rig_set(hold, true);
    assert_true(client_rig_create_deferred(dir, "a", &a));
    assert_true(client_rig_remove_deferred(dir, "a"));
    assert_true(client_rig_create_deferred(dir, "a", &b));
    assert_int_not_equal(a.ino, b.ino);
    client_rig_release();
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_rig_lookup(dir, "a"), b.ino);
    assert_int_equal(client_rig_get(creates), 2);
    assert_int_equal(client_rig_get(unlinks), 1);
    assert_int_equal(client_lost(client_rig.cl), 0);
}

/* A name that is there, a file that is open, a directory in which others have looked: metad decides. */
static void test_left_to_metad(void **st)
{
    (void)st;
    struct cfile *f = NULL;
    Replfs__Attr a = REPLFS__ATTR__INIT, b = REPLFS__ATTR__INIT;
    uint64_t dir = client_rig_mkdir("dir");
    assert_true(client_rig_create_deferred(dir, "a", &a));
    assert_false(client_rig_create_deferred(dir, "a", &b));
    assert_int_equal(cfile_open_new(client_rig.cl, &a, &f), 0);
    assert_false(client_rig_remove_deferred(dir, "a"));
    cfile_close(f);
    client_rig_recall(dir);
    client_rig_wait(client_rig.recalled);
    assert_int_equal(client_rig_get(creates), 1); /* known to whoever looked */
    assert_false(client_rig_create_deferred(dir, "b", &b));
}

/* Another's name in the same directory is seen, and not made over. */
static void test_anothers_name(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    uint64_t dir = client_rig_mkdir("dir");
    assert_int_equal(client_rig_shown(dir, "b"), 0);
    struct one_result other = make_name(dir, "b", S_IFREG | 0644);
    assert_int_equal(other.code, 0);
    assert_int_equal(client_rig_shown(dir, "b"), other.ino);
    assert_false(client_rig_create_deferred(dir, "b", &a));
}

static void test_numbers_are_asked_for_once(void **st)
{
    (void)st;
    uint64_t last = 0, dir = client_rig_mkdir("dir");
    char name[16];
    for (unsigned i = 0; i < MANY; i++) {
        Replfs__Attr a = REPLFS__ATTR__INIT;
        snprintf(name, sizeof name, "f%u", i);
        assert_true(client_rig_create_deferred(dir, name, &a));
        assert_true(a.ino > last);
        last = a.ino;
    }
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_rig_get(asked[REPLFS__ENVELOPE__BODY_INOS_REQ]), 1);
    assert_int_equal(client_rig_get(creates), MANY);
    assert_int_equal(client_lost(client_rig.cl), 0);
    assert_int_equal(client_rig_lookup(dir, name), last);
}

/* The answer is lost on the way, with the connection: the name is made once all the same. */
static void test_answer_is_lost(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    uint64_t dir = client_rig_mkdir("dir");
    client_rig_set(drop_replies, 1);
    assert_true(client_rig_create_deferred(dir, "a", &a));
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_lost(client_rig.cl), 0);
    assert_int_equal(client_rig_lookup(dir, "a"), a.ino);
    assert_int_equal(client_rig_get(creates), 1);
}

/* One that waits for metad tells, as its session goes on, that there may be an open file of which it does not know. */
static void test_unanswered_is_told(void **st)
{
    (void)st;
    uint64_t dir = client_rig_mkdir("dir");
    unsigned sessions = client_rig_get(sessions);
    assert_int_equal(client_rig_get(unanswered), 0);
    client_rig_set(drop_replies, 1);
    client_rig_create(dir, "a", S_IFREG | 0644);
    assert_true(client_rig_get(sessions) > sessions);
    assert_int_equal(client_rig_get(unanswered), 1);
    assert_int_equal(client_rig_get(creates), 1);
    sessions = client_rig_get(sessions);
    client_rig_set(drop_replies, 1);
    client_rig_create(dir, "d",
                      S_IFDIR | 0755); /* of which nobody would ever say that it is closed */
    assert_true(client_rig_get(sessions) > sessions);
    assert_int_equal(client_rig_get(unanswered), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, client_rig_leased_setup, client_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_made),
        T(test_removed),
        T(test_order_of_one_name),
        T(test_left_to_metad),
        T(test_anothers_name),
        T(test_numbers_are_asked_for_once),
        T(test_answer_is_lost),
        T(test_unanswered_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
