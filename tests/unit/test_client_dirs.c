/* Pages of directories: one that was listed is given again while nothing changed, and what a walk comes to next
 * is fetched before it is asked for. */
#include "client_rig_names.h"
#include "client/prefetch/dir_pages.h"

enum { SUBDIRS = 6 };

static unsigned listings(void)
{
    return (unsigned)client_rig_get(asked[REPLFS__ENVELOPE__BODY_READDIR_REQ]);
}

/* Lists dir from its start; the number of its entries, and whether it was at hand. */
static size_t list(uint64_t dir, bool *again)
{
    struct dir_page *p = NULL;
    assert_int_equal(client_list(client_rig.cl, dir, 0, true, 0, &p, again), 0);
    assert_true(dir_page_entries(p)->eof);
    size_t n = dir_page_entries(p)->n_entries;
    dir_page_unref(p);
    return n;
}

static uint64_t dir_with_two(void)
{
    uint64_t dir = client_rig_mkdir("dir");
    client_rig_create(dir, "a", S_IFDIR | 0755);
    client_rig_create(dir, "b", S_IFDIR | 0755);
    return dir;
}

static void test_given_again(void **st)
{
    (void)st;
    bool again = true;
    uint64_t dir = dir_with_two();
    assert_int_equal(list(dir, &again), 2);
    assert_false(again);
    unsigned before = listings();
    assert_int_equal(list(dir, &again), 2);
    assert_true(again);
    assert_int_equal(list(dir, &again), 2); /* no walk, either, however often */
    assert_int_equal(listings(), before);
}

static void test_own_change(void **st)
{
    (void)st;
    bool again = false;
    uint64_t dir = dir_with_two();
    list(dir, &again);
    client_rig_create(dir, "c", S_IFDIR | 0755);
    assert_int_equal(list(dir, &again), 3);
    assert_false(again);
}

static void test_anothers_change(void **st)
{
    (void)st;
    bool again = false;
    uint64_t dir = dir_with_two();
    list(dir, &again);
    assert_int_equal(make_name(dir, "c", S_IFDIR | 0755).code, 0);
    assert_int_equal(list(dir, &again), 3);
    assert_false(again);
}

static void test_without_leases(void **st)
{
    (void)st;
    bool again = false;
    uint64_t dir = dir_with_two();
    list(dir, &again);
    list(dir, &again);
    assert_false(again);
}

/* A tree is walked: its second directory is listed, so the others come by themselves. */
static void test_walk(void **st)
{
    (void)st;
    bool again = false;
    uint64_t top = client_rig_mkdir("dir"), sub[SUBDIRS];
    for (unsigned i = 0; i < SUBDIRS; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%u", i);
        sub[i] = client_rig_create(top, name, S_IFDIR | 0755).ino;
        client_rig_create(sub[i], "x", S_IFDIR | 0755);
    }
    unsigned before = listings();
    assert_int_equal(list(top, &again), SUBDIRS);
    assert_int_equal(list(sub[0], &again), 1);
    /* the two listed, what the second named, and then the others that the first did */
    client_rig_wait(client_rig.asked[REPLFS__ENVELOPE__BODY_READDIR_REQ] == before + 2 + SUBDIRS);
    WAIT_UNTIL(!dir_pages_coming(client_rig.cl));
    for (unsigned i = 1; i < SUBDIRS; i++) {
        assert_int_equal(list(sub[i], &again), 1);
        assert_true(again);
    }
}

/* The same tree once more, when another client has changed all of it: fetched ahead as before. */
static void test_walk_again(void **st)
{
    (void)st;
    bool again = false;
    uint64_t top = client_rig_mkdir("dir"),
             other = client_rig_create(FSM_ROOT_INO, "x", S_IFDIR | 0755).ino;
    uint64_t sub[SUBDIRS];
    for (unsigned i = 0; i < SUBDIRS; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%u", i);
        sub[i] = client_rig_create(top, name, S_IFDIR | 0755).ino;
    }
    list(top, &again);
    for (unsigned i = 0; i < SUBDIRS; i++)
        list(sub[i], &again);
    WAIT_UNTIL(!dir_pages_coming(client_rig.cl));
    list(other, &again);
    for (unsigned i = 0; i < SUBDIRS; i++)
        assert_int_equal(make_name(sub[i], "y", S_IFDIR | 0755).code, 0);
    unsigned before = listings();
    list(top, &again);
    assert_int_equal(list(sub[0], &again), 1);
    client_rig_wait(client_rig.asked[REPLFS__ENVELOPE__BODY_READDIR_REQ] > before + SUBDIRS - 1);
}

/* Who lists what nothing named is asked for no more than that. */
static void test_no_walk(void **st)
{
    (void)st;
    bool again = false;
    uint64_t dir = dir_with_two(), other = client_rig_create(FSM_ROOT_INO, "x", S_IFDIR | 0755).ino;
    unsigned before = listings();
    list(dir, &again);
    list(other, &again);
    list(FSM_ROOT_INO, &again);
    assert_int_equal(listings(), before + 3);
}

#define T(f) cmocka_unit_test_setup_teardown(f, client_rig_leased_setup, client_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_given_again),
        T(test_own_change),
        T(test_anothers_change),
        cmocka_unit_test_setup_teardown(test_without_leases, client_rig_setup, client_rig_teardown),
        T(test_walk),
        T(test_walk_again),
        T(test_no_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
