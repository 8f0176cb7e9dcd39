/* The client's cache under leases: answers that cross recalls and our own changes, names whose
 * directory was recalled, the end of the term, and a recall that waits for a page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "fuse/client/lcache.h"

#define DIR_INO 10u
#define FILE_INO 20u

static struct rig {
    struct lcache *l;
    sem_t page;     /* page invalidation waits for it when pages_wait */
    sem_t at_page;  /* posted when it begins to wait */
    sem_t answered; /* a recall was acknowledged */
    atomic_bool pages_wait;
    atomic_uint told;
} rig;

static void on_inval(void *arg, uint64_t ino, unsigned what)
{
    struct rig *r = arg;
    (void)ino;
    r->told |= what;
    if ((what & LCACHE_INVAL_PAGES) && r->pages_wait) {
        sem_post(&r->at_page);
        sem_wait(&r->page);
    }
}

static void on_forget(void *arg, uint64_t ino, bool flush)
{
    (void)arg, (void)ino, (void)flush;
}

static void on_done(void *arg)
{
    sem_post(&((struct rig *)arg)->answered);
}

static int setup(void **state)
{
    *state = &rig;
    rig.l = lcache_new(100, on_inval, &rig, on_forget, NULL);
    rig.pages_wait = false;
    rig.told = 0;
    sem_init(&rig.page, 0, 0);
    sem_init(&rig.at_page, 0, 0);
    sem_init(&rig.answered, 0, 0);
    lcache_set_term(rig.l, 60000);
    lcache_renew(rig.l, clock_mono());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lcache_free(rig.l);
    sem_destroy(&rig.page);
    sem_destroy(&rig.at_page);
    sem_destroy(&rig.answered);
    return 0;
}

static Replfs__Attr attr_of(uint64_t ino, uint32_t mode, uint64_t change)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    a.ino = ino;
    a.mode = mode;
    a.change = change;
    return a;
}

static void put(uint64_t begun, uint64_t ino, uint32_t mode, uint64_t change)
{
    Replfs__Attr a = attr_of(ino, mode, change);
    lcache_put_attr(rig.l, begun, &a, 1);
}

static uint64_t change_of(uint64_t ino)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    return lcache_getattr(rig.l, ino, &a) ? a.change : 0;
}

static enum lcache_found look(const char *name)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    return lcache_lookup(rig.l, DIR_INO, name, strlen(name), &a);
}

static void recall(uint64_t ino)
{
    lcache_recall(rig.l, ino, on_done, &rig);
    sem_wait(&rig.answered);
}

/* A directory with one name for a file, and one missing name. */
static void fill(void)
{
    uint64_t b = lcache_begin(rig.l);
    put(b, DIR_INO, S_IFDIR | 0755, 1);
    put(b, FILE_INO, S_IFREG | 0644, 1);
    lcache_put_entry(rig.l, b, DIR_INO, "there", 5, FILE_INO);
    lcache_put_entry(rig.l, b, DIR_INO, "missing", 7, 0);
}

static void test_answers_while_leased(void **state)
{
    (void)state;
    fill();
    assert_int_equal(look("there"), LCACHE_NAME);
    assert_int_equal(look("missing"), LCACHE_NO_NAME);
    assert_int_equal(look("unknown"), LCACHE_MISS);
    assert_true(lcache_ttl(rig.l, FILE_INO) > 0);
    recall(FILE_INO);
    assert_int_equal(rig.told, LCACHE_INVAL_ATTR | LCACHE_INVAL_PAGES); /* no directory */
    assert_int_equal(change_of(FILE_INO), 0);
    assert_int_equal(look("there"), LCACHE_MISS);
    assert_int_equal(look("missing"), LCACHE_NO_NAME); /* the directory's lease stays */
    recall(DIR_INO);
    assert_true(rig.told & LCACHE_INVAL_ENTRIES);
    assert_int_equal(look("missing"), LCACHE_MISS);
    assert_true(lcache_ttl(rig.l, DIR_INO) == 0);
}

static void test_names_die_with_the_lease(void **state)
{
    (void)state;
    fill();
    recall(DIR_INO);
    put(lcache_begin(rig.l), DIR_INO, S_IFDIR | 0755, 2); /* leased anew */
    assert_int_equal(look("there"), LCACHE_MISS);
    assert_int_equal(look("missing"), LCACHE_MISS);
}

static void test_answer_crosses_recall(void **state)
{
    (void)state;
    uint64_t begun = lcache_begin(rig.l);
    recall(FILE_INO);
    recall(DIR_INO);
    put(begun, FILE_INO, S_IFREG | 0644, 1);
    lcache_put_entry(rig.l, begun, DIR_INO, "there", 5, FILE_INO);
    assert_int_equal(change_of(FILE_INO), 0);
    assert_int_equal(look("there"), LCACHE_MISS);
}

static void mutate(uint64_t begun, uint64_t change, bool known)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__MutationResult res = REPLFS__MUTATION_RESULT__INIT;
    Replfs__Attr a = attr_of(FILE_INO, S_IFREG | 0600, change);
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    s.ino = FILE_INO;
    res.attr = &a;
    res.lease = 1;
    lcache_mutated(rig.l, begun, &op, known ? &res : NULL);
}

static void test_answer_crosses_own_change(void **state)
{
    (void)state;
    uint64_t asked = lcache_begin(rig.l), changing = lcache_begin(rig.l);
    mutate(changing, 7, true);
    put(asked, FILE_INO, S_IFREG | 0644, 3); /* from before the change */
    assert_int_equal(change_of(FILE_INO), 7);
    asked = lcache_begin(rig.l);
    mutate(asked, 8, false); /* nobody knows what happened */
    assert_int_equal(change_of(FILE_INO), 0);
    put(asked, FILE_INO, S_IFREG | 0644, 7);
    assert_int_equal(change_of(FILE_INO), 0);
}

static void test_held_since(void **state)
{
    (void)state;
    uint64_t before = lcache_begin(rig.l);
    fill();
    uint64_t begun = lcache_begin(rig.l);
    assert_false(lcache_held_since(rig.l, before, FILE_INO));
    assert_true(lcache_held_since(rig.l, begun, FILE_INO));
    mutate(begun, 9, true); /* our own change does not end it */
    assert_true(lcache_held_since(rig.l, begun, FILE_INO));
    recall(FILE_INO);
    put(lcache_begin(rig.l), FILE_INO, S_IFREG | 0644, 11);
    assert_false(lcache_held_since(rig.l, begun, FILE_INO));
}

/* unlink, create: late answers must not put names into a directory that was recalled meanwhile */
static void test_late_name(void **state)
{
    (void)state;
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__MutationResult res = REPLFS__MUTATION_RESULT__INIT;
    Replfs__Attr dir = attr_of(DIR_INO, S_IFDIR | 0755, 5), file = attr_of(FILE_INO, S_IFREG, 5);
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &u;
    u.parent = DIR_INO;
    u.name = (ProtobufCBinaryData){5, (uint8_t *)(uintptr_t) "there"};
    res.attr = &file;
    res.parent = &dir;
    res.lease = res.parent_lease = 1;
    fill();
    lcache_mutated(rig.l, lcache_begin(rig.l), &op, &res);
    assert_int_equal(look("there"), LCACHE_NO_NAME);
    uint64_t begun = lcache_begin(rig.l);
    recall(DIR_INO); /* somebody made it again */
    put(lcache_begin(rig.l), DIR_INO, S_IFDIR | 0755, 6);
    lcache_mutated(rig.l, begun, &op, &res);
    assert_int_equal(look("there"), LCACHE_MISS);
}

static void test_term(void **state)
{
    (void)state;
    fill();
    lcache_drop_all(rig.l);
    fill();
    assert_int_equal(look("there"), LCACHE_MISS); /* until metad answers again */
    lcache_renew(rig.l, clock_mono() - 61 * NSEC_PER_SEC);
    assert_int_equal(look("there"), LCACHE_MISS);
    lcache_renew(rig.l, clock_mono());
    assert_int_equal(look("there"), LCACHE_NAME);
}

static void test_bounded(void **state)
{
    (void)state;
    struct lcache_stat st;
    char name[16];
    put(lcache_begin(rig.l), DIR_INO, S_IFDIR | 0755, 1);
    for (unsigned i = 0; i < 5000; i++) {
        uint64_t b = lcache_begin(rig.l);
        int n = snprintf(name, sizeof(name), "n%u", i);
        put(b, 1000 + i, S_IFREG | 0644, 1);
        lcache_put_entry(rig.l, b, DIR_INO, name, (size_t)n, 1000 + i);
    }
    lcache_stat(rig.l, &st);
    assert_int_equal(st.nodes, 100);
    assert_int_equal(st.entries, 200);
    assert_int_equal(look("n4999"), LCACHE_NAME);
}

/* A page is being written by a call that waits for metad: the recall is acknowledged without it. */
static void test_page_waits_for_change(void **state)
{
    (void)state;
    struct lasker asker;
    fill();
    rig.pages_wait = true;
    lcache_recall(rig.l, FILE_INO, on_done, &rig);
    sem_wait(&rig.at_page);
    assert_int_equal(sem_trywait(&rig.answered), -1);
    assert_true(rig.told & LCACHE_INVAL_ATTR);
    lcache_ask_begin(rig.l, &asker, FILE_INO); /* recalled before the change begins */
    sem_wait(&rig.answered);
    lcache_recall(rig.l, FILE_INO, on_done, &rig); /* and while it is under way */
    sem_wait(&rig.at_page);
    sem_wait(&rig.answered);
    lcache_recall(rig.l, FILE_INO + 1, on_done, &rig); /* another file's still waits */
    sem_wait(&rig.at_page);
    assert_int_equal(sem_trywait(&rig.answered), -1);
    lcache_ask_end(rig.l, &asker);
    for (int i = 0; i < 3; i++)
        sem_post(&rig.page);
    sem_wait(&rig.answered);
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_answers_while_leased),
        T(test_names_die_with_the_lease),
        T(test_answer_crosses_recall),
        T(test_answer_crosses_own_change),
        T(test_held_since),
        T(test_late_name),
        T(test_term),
        T(test_bounded),
        T(test_page_waits_for_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
