/* The client's cache under leases: answers that cross recalls and our own changes, names whose
 * directory was recalled, the end of the term, and a recall that waits for a page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "fuse/client/cache/lease_cache.h"
#include "fuse/client/cache/lease_cache_change.h"
#include "fuse/client/cache/lease_cache_give.h"
#include "limit.h"

#define DIR_INO 10u
#define FILE_INO 20u

static struct lease_cache_rig {
    struct lease_cache *l;
    sem_t page;     /* page invalidation waits for it when pages_wait */
    sem_t at_page;  /* posted when it begins to wait */
    sem_t answered; /* a recall was acknowledged */
    sem_t other;    /* likewise, where a test tells two apart */
    atomic_bool pages_wait;
    atomic_bool flush_waits; /* for page as well; posts at_page before */
    atomic_uint flushes;
    atomic_uint told;
    atomic_uint tells, unknown_to; /* so many times the kernel does not know the file */
    atomic_bool linking, linking_then;
} rig;

static bool on_inval(void *arg, uint64_t ino, unsigned what)
{
    struct lease_cache_rig *r = arg;
    r->linking_then |= r->linking; /* before 'told', by which end_of_listing goes on */
    r->told |= what;
    r->tells++;
    if ((what & LEASE_CACHE_INVAL_PAGES) && r->pages_wait) {
        sem_post(&r->at_page);
        sem_wait(&r->page);
    }
    return ino != FILE_INO || r->tells > r->unknown_to;
}

static void on_forget(void *arg, uint64_t ino, bool flush)
{
    (void)arg, (void)ino;
    rig.flushes += flush;
    if (flush && rig.flush_waits) {
        sem_post(&rig.at_page);
        sem_wait(&rig.page);
    }
}

static void on_done(void *arg)
{
    sem_post(arg);
}

static int setup(void **state)
{
    *state = &rig;
    test_limit_begin();
    rig.l = lease_cache_new(100, on_inval, &rig, on_forget, NULL);
    rig.pages_wait = rig.flush_waits = false;
    rig.told = rig.flushes = rig.tells = rig.unknown_to = 0;
    rig.linking = rig.linking_then = false;
    sem_init(&rig.page, 0, 0);
    sem_init(&rig.at_page, 0, 0);
    sem_init(&rig.answered, 0, 0);
    sem_init(&rig.other, 0, 0);
    lease_cache_set_term(rig.l, 60000);
    lease_cache_renew(rig.l, clock_boot());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig.pages_wait = rig.flush_waits = false;
    for (int i = 0; i < 200; i++) /* who still waits when an assertion failed */
        sem_post(&rig.page);
    lease_cache_free(rig.l);
    sem_destroy(&rig.page);
    sem_destroy(&rig.at_page);
    sem_destroy(&rig.answered);
    sem_destroy(&rig.other);
    test_limit_end();
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
    lease_cache_put_attr(rig.l, begun, &a, 1);
}

static uint64_t change_of(uint64_t ino)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    return lease_cache_getattr(rig.l, ino, &a) ? a.change : 0;
}

static enum lease_cache_found look(const char *name)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    return lease_cache_lookup(rig.l, DIR_INO, name, strlen(name), &a);
}

static void recall(uint64_t ino)
{
    lease_cache_recall(rig.l, ino, on_done, &rig.answered);
    sem_wait(&rig.answered);
}

/* A directory with one name for a file, and one missing name. */
static void fill(void)
{
    uint64_t b = lease_cache_begin(rig.l);
    put(b, DIR_INO, S_IFDIR | 0755, 1);
    put(b, FILE_INO, S_IFREG | 0644, 1);
    lease_cache_put_entry(rig.l, b, DIR_INO, "there", 5, FILE_INO);
    lease_cache_put_entry(rig.l, b, DIR_INO, "missing", 7, 0);
}

static void test_answers_while_leased(void **state)
{
    (void)state;
    fill();
    assert_int_equal(look("there"), LEASE_CACHE_NAME);
    assert_int_equal(look("missing"), LEASE_CACHE_NO_NAME);
    assert_int_equal(look("unknown"), LEASE_CACHE_MISS);
    assert_true(lease_cache_ttl(rig.l, FILE_INO) > 0);
    recall(FILE_INO);
    assert_int_equal(rig.told, LEASE_CACHE_INVAL_ATTR | LEASE_CACHE_INVAL_PAGES); /* no directory */
    assert_int_equal(change_of(FILE_INO), 0);
    assert_int_equal(look("there"), LEASE_CACHE_MISS);
    assert_int_equal(look("missing"), LEASE_CACHE_NO_NAME); /* the directory's lease stays */
    recall(DIR_INO);
    assert_true(rig.told & LEASE_CACHE_INVAL_ENTRIES);
    assert_int_equal(look("missing"), LEASE_CACHE_MISS);
    assert_true(lease_cache_ttl(rig.l, DIR_INO) == 0);
}

static void test_names_die_with_the_lease(void **state)
{
    (void)state;
    fill();
    recall(DIR_INO);
    put(lease_cache_begin(rig.l), DIR_INO, S_IFDIR | 0755, 2); /* leased anew */
    assert_int_equal(look("there"), LEASE_CACHE_MISS);
    assert_int_equal(look("missing"), LEASE_CACHE_MISS);
}

static void test_answer_crosses_recall(void **state)
{
    (void)state;
    uint64_t begun = lease_cache_begin(rig.l);
    recall(FILE_INO);
    recall(DIR_INO);
    put(begun, FILE_INO, S_IFREG | 0644, 1);
    lease_cache_put_entry(rig.l, begun, DIR_INO, "there", 5, FILE_INO);
    assert_int_equal(change_of(FILE_INO), 0);
    assert_int_equal(look("there"), LEASE_CACHE_MISS);
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
    lease_cache_mutated(rig.l, begun, &op, known ? &res : NULL);
}

static void test_answer_crosses_own_change(void **state)
{
    (void)state;
    uint64_t asked = lease_cache_begin(rig.l), changing = lease_cache_begin(rig.l);
    mutate(changing, 7, true);
    put(asked, FILE_INO, S_IFREG | 0644, 3); /* from before the change */
    assert_int_equal(change_of(FILE_INO), 7);
    asked = lease_cache_begin(rig.l);
    mutate(asked, 8, false); /* nobody knows what happened */
    assert_int_equal(change_of(FILE_INO), 0);
    put(asked, FILE_INO, S_IFREG | 0644, 7);
    assert_int_equal(change_of(FILE_INO), 0);
}

static void test_held_since(void **state)
{
    (void)state;
    uint64_t before = lease_cache_begin(rig.l);
    fill();
    uint64_t begun = lease_cache_begin(rig.l);
    assert_false(lease_cache_held_since(rig.l, before, FILE_INO));
    assert_true(lease_cache_held_since(rig.l, begun, FILE_INO));
    mutate(begun, 9, true); /* our own change does not end it */
    assert_true(lease_cache_held_since(rig.l, begun, FILE_INO));
    recall(FILE_INO);
    put(lease_cache_begin(rig.l), FILE_INO, S_IFREG | 0644, 11);
    assert_false(lease_cache_held_since(rig.l, begun, FILE_INO));
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
    lease_cache_mutated(rig.l, lease_cache_begin(rig.l), &op, &res);
    assert_int_equal(look("there"), LEASE_CACHE_NO_NAME);
    uint64_t begun = lease_cache_begin(rig.l);
    recall(DIR_INO); /* somebody made it again */
    put(lease_cache_begin(rig.l), DIR_INO, S_IFDIR | 0755, 6);
    lease_cache_mutated(rig.l, begun, &op, &res);
    assert_int_equal(look("there"), LEASE_CACHE_MISS);
}

/* While our own change is under way, others may see it done: what we know under shared leases is asked for again, also
 * when it was asked for before metad did it. */
static void test_change_under_way(void **state)
{
    (void)state;
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    struct lease_change change = {0};
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &u;
    u.parent = DIR_INO;
    u.name = (ProtobufCBinaryData){5, (uint8_t *)(uintptr_t) "there"};
    fill();
    Replfs__Attr file = attr_of(FILE_INO, S_IFREG | 0644, 1);
    assert_true(lease_cache_give_attr(rig.l, &file) > 0);
    assert_true(lease_cache_give_name(rig.l, DIR_INO, "there", 5, FILE_INO) > 0);
    lease_cache_change_begin(rig.l, &change, &op);
    assert_int_equal(rig.told, LEASE_CACHE_INVAL_ATTR | LEASE_CACHE_INVAL_ENTRIES);
    assert_int_equal(look("there"), LEASE_CACHE_MISS);
    assert_int_equal(look("missing"), LEASE_CACHE_MISS);
    assert_int_equal(change_of(FILE_INO), 0);
    uint64_t b = lease_cache_begin(rig.l);
    put(b, FILE_INO, S_IFREG | 0644, 2);
    lease_cache_put_entry(rig.l, b, DIR_INO, "late", 4, FILE_INO);
    assert_int_equal(change_of(FILE_INO), 0);
    assert_true(lease_cache_ttl(rig.l, DIR_INO) == 0);
    assert_true(lease_cache_give_attr(rig.l, &file) == 0);
    assert_true(lease_cache_give_name(rig.l, DIR_INO, "there", 5, FILE_INO) == 0);
    lease_cache_change_end(rig.l, &change); /* it was refused: all is as before */
    assert_int_equal(look("there"), LEASE_CACHE_NAME);
    assert_int_equal(look("missing"), LEASE_CACHE_NO_NAME);
    assert_int_equal(look("late"), LEASE_CACHE_MISS);
    assert_int_equal(change.n, 0);
}

/* What is ours alone nobody else sees. */
static void test_change_of_ours_alone(void **state)
{
    (void)state;
    Replfs__SetattrOp set = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    struct lease_change change = {0};
    Replfs__Attr a = attr_of(FILE_INO, S_IFREG | 0644, 1);
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &set;
    set.ino = FILE_INO;
    lease_cache_put_attr(rig.l, lease_cache_begin(rig.l), &a, 2);
    lease_cache_change_begin(rig.l, &change, &op);
    assert_int_equal(change_of(FILE_INO), 1);
    assert_int_equal(rig.told, 0);
    lease_cache_change_end(rig.l, &change);
}

/* A rename of one name of a file to another name of it does nothing: both stay. Somebody else may have made
 * the second name in the same moment, so nothing on this side knew. */
static void test_rename_to_itself(void **state)
{
    (void)state;
    Replfs__RenameOp r = REPLFS__RENAME_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__MutationResult res = REPLFS__MUTATION_RESULT__INIT;
    Replfs__Attr dir = attr_of(DIR_INO, S_IFDIR | 0755, 5), file = attr_of(FILE_INO, S_IFREG, 5);
    op.op_case = REPLFS__META_OP__OP_RENAME;
    op.rename = &r;
    r.parent = r.new_parent = DIR_INO;
    r.name = (ProtobufCBinaryData){5, (uint8_t *)(uintptr_t) "there"};
    r.new_name = (ProtobufCBinaryData){5, (uint8_t *)(uintptr_t) "other"};
    res.attr = &file;
    res.parent = &dir;
    res.lease = res.parent_lease = 1;
    res.value = FILE_INO; /* what "other" was before */
    fill();
    lease_cache_mutated(rig.l, lease_cache_begin(rig.l), &op, &res);
    assert_int_equal(look("there"), LEASE_CACHE_NAME);
    assert_int_not_equal(look("other"), LEASE_CACHE_NO_NAME);
    assert_int_equal(change_of(FILE_INO), 5);
    res.value = 0; /* there was none */
    lease_cache_mutated(rig.l, lease_cache_begin(rig.l), &op, &res);
    assert_int_equal(look("there"), LEASE_CACHE_NO_NAME);
    assert_int_equal(look("other"), LEASE_CACHE_NAME);
}

static void test_term(void **state)
{
    (void)state;
    fill();
    lease_cache_drop_all(rig.l);
    fill();
    assert_int_equal(look("there"), LEASE_CACHE_MISS); /* until metad answers again */
    lease_cache_renew(rig.l, clock_boot() - 61 * NSEC_PER_SEC);
    assert_int_equal(look("there"), LEASE_CACHE_MISS);
    /* by our clock a moment is left; metad's may run a thousandth faster */
    lease_cache_renew(rig.l, clock_boot() - 59940 * NSEC_PER_MSEC);
    assert_int_equal(look("there"), LEASE_CACHE_MISS);
    lease_cache_renew(rig.l, clock_boot());
    assert_int_equal(look("there"), LEASE_CACHE_NAME);
}

static void test_bounded(void **state)
{
    (void)state;
    struct lease_cache_stat st;
    char name[16];
    put(lease_cache_begin(rig.l), DIR_INO, S_IFDIR | 0755, 1);
    for (unsigned i = 0; i < 5000; i++) {
        uint64_t b = lease_cache_begin(rig.l);
        int n = snprintf(name, sizeof(name), "n%u", i);
        put(b, 1000 + i, S_IFREG | 0644, 1);
        lease_cache_put_entry(rig.l, b, DIR_INO, name, (size_t)n, 1000 + i);
    }
    lease_cache_stat(rig.l, &st);
    assert_int_equal(st.nodes, 100);
    assert_int_equal(st.entries, 200);
    assert_int_equal(look("n4999"), LEASE_CACHE_NAME);
}

/* What had no room may not be flushed yet when it is recalled: that waits as well. */
static void test_recall_of_evicted(void **state)
{
    (void)state;
    Replfs__Attr a = attr_of(FILE_INO, S_IFREG | 0644, 1);
    lease_cache_put_attr(rig.l, lease_cache_begin(rig.l), &a, 2);
    rig.flush_waits = true;
    for (unsigned i = 0; i < 100; i++)
        put(lease_cache_begin(rig.l), 1000 + i, S_IFREG | 0644, 1);
    sem_wait(&rig.at_page);
    lease_cache_recall(rig.l, FILE_INO, on_done, &rig.at_page);
    sem_wait(&rig.at_page);
    unsigned flushes = rig.flushes;
    sem_post(&rig.page);
    sem_post(&rig.page);
    assert_int_equal(flushes, 2); /* it was not answered, but flushing too */
    sem_wait(&rig.at_page);
}

/* A page is being written by a call that waits for metad: the recall is acknowledged without it. */
static void test_page_waits_for_change(void **state)
{
    (void)state;
    struct lease_request asker;
    fill();
    rig.pages_wait = true;
    lease_cache_recall(rig.l, FILE_INO, on_done, &rig.answered);
    sem_wait(&rig.at_page);
    assert_int_equal(sem_trywait(&rig.answered), -1);
    assert_true(rig.told & LEASE_CACHE_INVAL_ATTR);
    lease_cache_ask_begin(rig.l, &asker, FILE_INO); /* recalled before the change begins */
    sem_wait(&rig.answered);
    lease_cache_recall(rig.l, FILE_INO, on_done, &rig.answered); /* and while it is under way */
    sem_wait(&rig.at_page);
    sem_wait(&rig.answered);
    lease_cache_recall(rig.l, FILE_INO + 1, on_done,
                       &rig.answered); /* another file's still waits */
    sem_wait(&rig.at_page);
    assert_int_equal(sem_trywait(&rig.answered), -1);
    lease_cache_ask_end(rig.l, &asker);
    for (int i = 0; i < 3; i++)
        sem_post(&rig.page);
    sem_wait(&rig.answered);
}

/* ---- a directory that is ours alone ---- */

static Replfs__Attr dir_attr(uint64_t change, int64_t mtime)
{
    Replfs__Attr a = attr_of(DIR_INO, S_IFDIR | 0755, change);
    a.mtime_ns = mtime;
    return a;
}

static void alone(void)
{
    Replfs__Attr d = dir_attr(5, 50);
    lease_cache_put_attr(rig.l, lease_cache_begin(rig.l), &d, 2);
}

static bool hold(struct lease_request *h, const char *name, Replfs__Attr *d)
{
    return lease_cache_hold_new(rig.l, h, DIR_INO, name, strlen(name), d);
}

/* As deferred_names.c does it. */
static void create(const char *name, uint64_t ino, uint32_t mode, int64_t now)
{
    struct lease_request h;
    Replfs__Attr d = REPLFS__ATTR__INIT, a = attr_of(ino, mode, 1);
    ProtobufCBinaryData n = {strlen(name), (uint8_t *)(uintptr_t)name};
    assert_true(hold(&h, name, &d));
    d.mtime_ns = now;
    lease_cache_created(rig.l, &n, &d, &a);
    lease_cache_unhold(rig.l, &h);
}

static void metad_did(uint64_t ino, uint32_t mode, uint64_t change, int64_t now)
{
    Replfs__Attr a = attr_of(ino, mode, change), d = dir_attr(change, now);
    Replfs__MutationResult r = REPLFS__MUTATION_RESULT__INIT;
    r.attr = &a;
    r.parent = &d;
    r.lease = r.parent_lease = 2;
    lease_cache_settled(rig.l, &r);
}

static int64_t dir_mtime(void)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    return lease_cache_getattr(rig.l, DIR_INO, &a) ? a.mtime_ns : -1;
}

static void test_only_names_known_to_be_missing(void **state)
{
    (void)state;
    struct lease_request h;
    Replfs__Attr d;
    fill();
    assert_false(hold(&h, "missing", &d)); /* shared */
    alone();
    assert_false(hold(&h, "unknown", &d));
    assert_false(hold(&h, "there", &d));
    create("missing", 30, S_IFREG | 0644, 60);
    assert_false(hold(&h, "missing", &d)); /* there is one now */
    assert_int_equal(look("missing"), LEASE_CACHE_NAME);
    assert_true(lease_cache_exclusive(rig.l, 30));
}

/* Answers to former changes, and answers from before, do not undo what was shown since. */
static void test_shown_until_the_last_answer(void **state)
{
    (void)state;
    alone();
    lease_cache_put_entry(rig.l, lease_cache_begin(rig.l), DIR_INO, "a", 1, 0);
    lease_cache_put_entry(rig.l, lease_cache_begin(rig.l), DIR_INO, "b", 1, 0);
    uint64_t before = lease_cache_begin(rig.l);
    create("a", 30, S_IFREG | 0644, 60);
    create("b", 31, S_IFDIR | 0755, 70);
    assert_int_equal(dir_mtime(), 70);
    metad_did(30, S_IFREG | 0644, 6, 60);
    assert_int_equal(dir_mtime(), 70);
    Replfs__Attr old = dir_attr(6, 60);
    assert_true(lease_cache_overlay(rig.l, &old));
    assert_int_equal(old.mtime_ns, 70);
    old = dir_attr(6, 60);
    lease_cache_put_attr(rig.l, before, &old, 1);
    assert_int_equal(dir_mtime(), 70);
    metad_did(31, S_IFDIR | 0755, 7, 70);
    assert_int_equal(dir_mtime(), 70);
    assert_false(lease_cache_overlay(rig.l, &old));
    assert_int_equal(change_of(31), 7);
    /* what we made is known wholly */
    Replfs__Attr a = REPLFS__ATTR__INIT;
    assert_int_equal(lease_cache_lookup(rig.l, 31, "x", 1, &a), LEASE_CACHE_NO_NAME);
}

static enum lease_cache_hold hold_old(const char *name, bool is_dir)
{
    struct lease_request h;
    Replfs__Attr d = REPLFS__ATTR__INIT;
    uint64_t ino, cookie;
    enum lease_cache_hold r =
        lease_cache_hold_old(rig.l, &h, DIR_INO, name, strlen(name), is_dir, &d, &ino, &cookie);
    if (r == LEASE_CACHE_HOLD_YES)
        lease_cache_unhold(rig.l, &h);
    return r;
}

static void remove_it(const char *name, uint64_t ino)
{
    ProtobufCBinaryData n = {strlen(name), (uint8_t *)(uintptr_t)name};
    Replfs__Attr d = dir_attr(5, 90);
    lease_cache_removed(rig.l, &n, &d, ino);
}

/* What may be removed here: with the directory and what is named ours alone, and no other name. */
static void test_what_may_be_removed(void **state)
{
    (void)state;
    fill();
    assert_int_equal(hold_old("missing", false), LEASE_CACHE_HOLD_NO);
    assert_int_equal(hold_old("unknown", false), LEASE_CACHE_HOLD_NO);
    assert_int_equal(hold_old("there", true), LEASE_CACHE_HOLD_NO); /* for metad to refuse */
    assert_int_equal(hold_old("there", false), LEASE_CACHE_HOLD_ASK);
    alone();
    assert_int_equal(hold_old("there", false), LEASE_CACHE_HOLD_ASK);
    uint64_t ino = FILE_INO, before = lease_cache_begin(rig.l);
    Replfs__Attr d = dir_attr(5, 50), f = attr_of(FILE_INO, S_IFREG | 0644, 9);
    Replfs__LeaseReply r = REPLFS__LEASE_REPLY__INIT;
    r.attr = &d;
    r.lease = 2;
    lease_cache_alone(rig.l, before, &r); /* somebody else has the file */
    assert_int_equal(hold_old("there", false), LEASE_CACHE_HOLD_NO);
    r.alone = &ino;
    r.n_alone = 1;
    lease_cache_alone(rig.l, before, &r);
    assert_int_equal(hold_old("there", false), LEASE_CACHE_HOLD_NO); /* links are not 1 */
    f.nlink = 1;
    lease_cache_put_attr(rig.l, lease_cache_begin(rig.l), &f, 1);
    assert_int_equal(hold_old("there", false), LEASE_CACHE_HOLD_YES);
    remove_it("there", FILE_INO);
    assert_int_equal(look("there"), LEASE_CACHE_NO_NAME);
    assert_int_equal(change_of(FILE_INO), 0);
    /* an answer that crossed a recall gives nothing */
    recall(DIR_INO);
    fill();
    lease_cache_alone(rig.l, before, &r);
    assert_false(lease_cache_exclusive(rig.l, DIR_INO));
}

static void test_only_empty_directories(void **state)
{
    (void)state;
    alone();
    lease_cache_listed(rig.l, lease_cache_begin(rig.l), DIR_INO, 0);
    create("d", 30, S_IFDIR | 0755, 60);
    assert_int_equal(hold_old("d", true), LEASE_CACHE_HOLD_YES);
    lease_cache_put_entry(rig.l, lease_cache_begin(rig.l), 30, "x", 1, 31);
    assert_int_equal(hold_old("d", true), LEASE_CACHE_HOLD_NO);
    lease_cache_put_entry(rig.l, lease_cache_begin(rig.l), 30, "x", 1, 0);
    assert_int_equal(hold_old("d", true), LEASE_CACHE_HOLD_YES);
    assert_int_equal(hold_old("d", false), LEASE_CACHE_HOLD_NO);
}

/* A listing makes missing names known, unless something was missed or changed meanwhile. */
static void test_listed(void **state)
{
    (void)state;
    uint64_t begun = lease_cache_begin(rig.l);
    fill();
    lease_cache_listed(rig.l, begun, DIR_INO, 2);
    assert_int_equal(look("unknown"), LEASE_CACHE_MISS);
    lease_cache_listed(rig.l, begun, DIR_INO, 1);
    assert_int_equal(look("unknown"), LEASE_CACHE_NO_NAME);
    recall(DIR_INO);
    fill();
    lease_cache_listed(rig.l, begun, DIR_INO, 1);
    assert_int_equal(look("unknown"), LEASE_CACHE_MISS);
}

/* A recall is answered after whoever is changing the directory. */
static void test_recall_waits_for_the_hold(void **state)
{
    (void)state;
    struct lease_request h, other;
    Replfs__Attr d = REPLFS__ATTR__INIT;
    fill();
    alone();
    assert_true(hold(&h, "missing", &d));
    lease_cache_recall(rig.l, DIR_INO, on_done, &rig.answered);
    assert_false(hold(&other, "missing", &d)); /* not ours any more */
    for (int i = 0; i < 100; i++) {            /* later ones are answered, one after the other */
        lease_cache_recall(rig.l, FILE_INO, on_done, &rig.other);
        sem_wait(&rig.other);
    }
    assert_int_equal(sem_trywait(&rig.answered), -1);
    lease_cache_unhold(rig.l, &h);
    sem_wait(&rig.answered);
    assert_true(lease_cache_contested(rig.l, DIR_INO));
    assert_false(lease_cache_contested(rig.l, DIR_INO + 1));
}

/* ---- what the kernel is given ---- */

static int64_t give(uint64_t ino, uint64_t change)
{
    Replfs__Attr a = attr_of(ino, S_IFREG | 0644, change);
    return lease_cache_give_attr(rig.l, &a);
}

static int64_t give_name(const char *name, uint64_t ino)
{
    return lease_cache_give_name(rig.l, DIR_INO, name, strlen(name), ino);
}

static void test_given_is_the_newest(void **state)
{
    (void)state;
    fill();
    assert_true(give(FILE_INO, 1) > 0);
    assert_true(give_name("there", FILE_INO) > 0);
    assert_true(give_name("missing", 0) > 0);
    assert_int_equal(give_name("there", FILE_INO + 1), 0); /* it named another once */
    assert_int_equal(give_name("there", 0), 0);
    assert_int_equal(give_name("unknown", 0), 0);
    mutate(lease_cache_begin(rig.l), 7, true);
    assert_int_equal(give(FILE_INO, 1), 0); /* an answer from before the change */
    assert_true(give(FILE_INO, 7) > 0);
    recall(FILE_INO);
    put(lease_cache_begin(rig.l), FILE_INO, S_IFREG | 0644, 9); /* leased anew */
    assert_int_equal(give(FILE_INO, 7), 0);
    recall(DIR_INO);
    put(lease_cache_begin(rig.l), DIR_INO, S_IFDIR | 0755, 2);
    assert_int_equal(give_name("there", FILE_INO), 0);
}

/* The answer that was given is taken in after the recall's message. */
static void test_told_until_the_kernel_has_it(void **state)
{
    (void)state;
    fill();
    rig.unknown_to = 5;
    recall(FILE_INO);
    assert_int_equal(rig.tells, 2); /* once, and for the pages: nothing was given */
    fill();
    assert_true(give(FILE_INO, 1) > 0);
    rig.tells = 0;
    recall(FILE_INO);
    assert_true(rig.tells > rig.unknown_to);
    fill();
    assert_true(give(FILE_INO, 1) > 0);
    rig.unknown_to = 1000000; /* it does not want it: not for ever */
    recall(FILE_INO);
}

/* What answers a change the kernel keeps whatever came meanwhile: it is given no time where others take part. */
static void test_changed_where_others_are(void **state)
{
    (void)state;
    Replfs__Attr a = attr_of(FILE_INO, S_IFREG | 0644, 1);
    fill(); /* shared leases */
    assert_true(lease_cache_give_attr(rig.l, &a) > 0);
    assert_true(lease_cache_give_changed(rig.l, DIR_INO, &a) == 0);
    lease_cache_put_attr(rig.l, lease_cache_begin(rig.l), &a, 2);
    assert_true(lease_cache_give_changed(rig.l, DIR_INO, &a) > 0);
    recall(DIR_INO); /* another mount has looked into the directory */
    assert_true(lease_cache_give_changed(rig.l, DIR_INO, &a) == 0);
    assert_true(lease_cache_give_changed(rig.l, 0, &a) > 0);
    recall(FILE_INO);
    lease_cache_put_attr(rig.l, lease_cache_begin(rig.l), &a, 2);
    assert_true(lease_cache_give_attr(rig.l, &a) > 0);
    assert_true(lease_cache_give_changed(rig.l, 0, &a) == 0);
}

static void *end_of_listing(void *arg)
{
    while (!rig.told) /* the recall is at it */
        sched_yield();
    rig.linking = false;
    lease_cache_linking(rig.l, DIR_INO, false);
    return arg;
}

static void test_told_again_behind_a_listing(void **state)
{
    (void)state;
    pthread_t t;
    fill();
    recall(DIR_INO);
    assert_int_equal(rig.tells, 2);
    fill();
    lease_cache_linking(rig.l, DIR_INO, true);
    rig.tells = rig.told = 0;
    rig.linking = true;
    assert_int_equal(pthread_create(&t, NULL, end_of_listing, NULL), 0);
    recall(DIR_INO);
    pthread_join(t, NULL);
    assert_true(rig.linking_then); /* at once, */
    assert_true(rig.tells > 2);    /* and again */
    lease_cache_linking(rig.l, DIR_INO, true);
    fill();
    recall(DIR_INO); /* a reader that does not come back is not waited for for ever */
    rig.told = 0;
    lease_cache_linking(rig.l, DIR_INO, false); /* it had only been slow */
    while (!(rig.told & LEASE_CACHE_INVAL_ENTRIES))
        sched_yield();
}

/* ---- suspended ---- */

static void test_term_runs_while_suspended(void **state)
{
    (void)state;
    fill();
    assert_int_equal(change_of(FILE_INO), 1);
    clock_pretend_slept(61 * NSEC_PER_SEC);
    assert_int_equal(change_of(FILE_INO), 0);
    assert_int_equal(give(FILE_INO, 1), 0);
    assert_int_equal(lease_cache_ttl(rig.l, DIR_INO), 0);
    rig.told = rig.tells = 0;
    lease_cache_tell_all(rig.l);
    assert_int_equal(rig.tells, 2);
    assert_int_equal(rig.told, LEASE_CACHE_INVAL_ATTR | LEASE_CACHE_INVAL_ENTRIES);
    lease_cache_renew(rig.l, clock_boot());
    assert_int_equal(change_of(FILE_INO), 1);
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
        T(test_change_under_way),
        T(test_change_of_ours_alone),
        T(test_rename_to_itself),
        T(test_term),
        T(test_bounded),
        T(test_recall_of_evicted),
        T(test_page_waits_for_change),
        T(test_only_names_known_to_be_missing),
        T(test_shown_until_the_last_answer),
        T(test_recall_waits_for_the_hold),
        T(test_what_may_be_removed),
        T(test_only_empty_directories),
        T(test_listed),
        T(test_given_is_the_newest),
        T(test_told_until_the_kernel_has_it),
        T(test_changed_where_others_are),
        T(test_told_again_behind_a_listing),
        T(test_term_runs_while_suspended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
