/* The lock table: ranges against a byte-wise model, waiting, deadlocks, fairness, resuming. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "metad/coherence/locks.h"

#define SEC NSEC_PER_SEC
#define NEVER INT64_MAX
#define RD LOCKSET_READ
#define WR LOCKSET_WRITE
#define UN LOCKSET_NONE

static struct locks *t;

static int setup(void **state)
{
    (void)state;
    t = locks_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    locks_free(t);
    return 0;
}

static struct lock_req req(uint64_t session, uint64_t owner, uint64_t ino, uint32_t type,
                           uint64_t start, uint64_t end)
{
    return (struct lock_req){.session = session,
                             .owner = owner,
                             .ino = ino,
                             .type = type,
                             .start = start,
                             .end = end,
                             .pid = (uint32_t)owner};
}

static int try_lock(uint64_t session, uint64_t owner, uint64_t ino, uint32_t type, uint64_t start,
                    uint64_t end)
{
    struct lock_req r = req(session, owner, ino, type, start, end);
    return locks_set(t, &r, NULL, 0, 0);
}

/* cookie and id are the same number */
static int wait_at(uint64_t id, int64_t now, int64_t deadline, uint64_t session, uint64_t owner,
                   uint64_t ino, uint32_t type, uint64_t start, uint64_t end)
{
    struct lock_req r = req(session, owner, ino, type, start, end);
    r.id = id;
    return locks_set(t, &r, (void *)(uintptr_t)id, now, deadline);
}

static int wait_lock(uint64_t id, uint64_t session, uint64_t owner, uint64_t ino, uint32_t type,
                     uint64_t start, uint64_t end)
{
    return wait_at(id, 0, NEVER, session, owner, ino, type, start, end);
}

static int flock_at(uint64_t id, uint64_t session, uint64_t owner, uint32_t type)
{
    struct lock_req r = req(session, owner, 1, type, 0, UINT64_MAX);
    r.id = id;
    r.flock = true;
    return locks_set(t, &r, (void *)(uintptr_t)id, 0, NEVER);
}

static void expect_done(uint64_t id, int code)
{
    struct locks_done d;
    assert_true(locks_next_done(t, &d));
    assert_int_equal((uintptr_t)d.cookie, id);
    assert_int_equal(d.code, code);
}

static void expect_quiet(void)
{
    struct locks_done d;
    assert_false(locks_next_done(t, &d));
}

static unsigned detached;

static bool is_it(void *cookie, const void *arg)
{
    detached += cookie == arg;
    return cookie == arg;
}

static unsigned detach(uint64_t id, int64_t now)
{
    detached = 0;
    locks_detach(t, is_it, (const void *)(uintptr_t)id, now);
    return detached;
}

/* ---- ranges ---- */

static void test_lockset_edges(void **state)
{
    struct lockset s = {0};
    (void)state;
    lockset_set(&s, WR, 0, UINT64_MAX);
    lockset_set(&s, UN, 5, 5);
    assert_int_equal(s.n, 2);
    assert_true(lockset_conflict(&s, RD, 4, 4) != NULL);
    assert_null(lockset_conflict(&s, WR, 5, 5));
    assert_true(lockset_conflict(&s, RD, UINT64_MAX, UINT64_MAX) != NULL);
    lockset_set(&s, WR, 5, 5); /* joins all three */
    assert_int_equal(s.n, 1);
    assert_true(lockset_holds(&s, WR, 0, UINT64_MAX));
    lockset_set(&s, RD, UINT64_MAX, UINT64_MAX);
    assert_int_equal(s.n, 2);
    assert_true(lockset_cuts(&s, 1, 2));
    assert_false(lockset_cuts(&s, 0, 2));
    lockset_set(&s, UN, 0, UINT64_MAX);
    assert_int_equal(s.n, 0);
    assert_null(s.v);
}

static void test_split_merge_convert(void **state)
{
    struct lock_req out, q;
    (void)state;
    assert_int_equal(try_lock(1, 1, 7, WR, 0, 99), 0);
    assert_int_equal(try_lock(1, 1, 7, RD, 40, 59), 0); /* downgrade of the middle */
    assert_int_equal(locks_count(t), 3);
    assert_int_equal(try_lock(2, 1, 7, RD, 45, 50), 0); /* the same owner number elsewhere */
    assert_int_equal(try_lock(2, 1, 7, RD, 39, 45), -EAGAIN);
    assert_int_equal(try_lock(1, 1, 7, WR, 50, 50), -EAGAIN); /* upgrade against a reader */
    q = req(2, 1, 7, WR, 30, 200);
    assert_true(locks_test(t, &q, &out));
    assert_int_equal(out.start, 0);
    assert_int_equal(out.end, 39);
    assert_int_equal(out.type, WR);
    assert_int_equal(out.session, 1);
    q = req(2, 1, 7, WR, 100, 200);
    assert_false(locks_test(t, &q, &out));
    q = req(2, 1, 8, WR, 0, 200); /* another file */
    assert_false(locks_test(t, &q, &out));
    assert_int_equal(try_lock(1, 1, 7, UN, 0, UINT64_MAX), 0);
    assert_int_equal(try_lock(1, 1, 7, UN, 0, UINT64_MAX), 0); /* again: nothing */
    assert_int_equal(locks_count(t), 1);
    locks_drop_session(t, 2, 0);
    assert_int_equal(locks_count(t), 0);
    assert_int_equal(try_lock(1, 1, 7, 3, 0, 1), -EINVAL);
    assert_int_equal(try_lock(1, 1, 7, RD, 2, 1), -EINVAL);
    assert_int_equal(try_lock(0, 1, 7, RD, 0, 1), -EINVAL);
}

static void test_limits(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < LOCKS_PER_SESSION; i++)
        assert_int_equal(try_lock(1, 1, 7, RD, 4 * i, 4 * i + 2), 0);
    assert_int_equal(try_lock(1, 2, 7, RD, 0, 0), -ENOLCK);
    assert_int_equal(try_lock(1, 1, 7, UN, 1, 1), -ENOLCK); /* would make one more */
    assert_int_equal(try_lock(2, 2, 7, RD, 0, 0), 0);       /* others are not concerned */
    assert_int_equal(try_lock(1, 1, 7, UN, 0, 2), 0);
    assert_int_equal(try_lock(1, 2, 7, RD, 0, 0), 0);
    assert_int_equal(try_lock(1, 1, 8, WR, 0, 0), -ENOLCK);
    locks_drop_session(t, 1, 0);
    for (uint64_t ino = 8; ino < 11; ino++)
        assert_int_equal(try_lock(1, 1, ino, WR, 0, 0), 0);
    for (uint64_t i = 1; i <= LOCKS_WAIT_PER_SESSION; i++)
        assert_int_equal(wait_lock(i, 2, i, 8 + i % 2, WR, 0, 0), LOCKS_QUEUED);
    assert_int_equal(wait_lock(99999, 2, 99999, 10, WR, 0, 0), -ENOLCK);
    locks_drop_session(t, 2, 0);
    for (uint64_t i = LOCKS_WAIT_PER_SESSION; i > 0; i--)
        expect_done(i, -ERR_SESSION);
}

/* ---- waiting ---- */

static void test_wait_and_grant(void **state)
{
    (void)state;
    assert_int_equal(try_lock(1, 1, 7, WR, 0, 9), 0);
    assert_int_equal(wait_lock(11, 2, 1, 7, RD, 0, 4), LOCKS_QUEUED);
    assert_int_equal(wait_lock(12, 2, 2, 7, RD, 5, 9), LOCKS_QUEUED);
    assert_int_equal(wait_lock(13, 2, 3, 7, WR, 0, 9), LOCKS_QUEUED);
    expect_quiet();
    assert_int_equal(try_lock(1, 1, 7, RD, 0, 4), 0); /* a downgrade lets the first in */
    expect_done(11, 0);
    expect_quiet();
    locks_unlock_all(t, 1, 7, 1, false, 0);
    expect_done(12, 0);
    expect_quiet();
    assert_int_equal(try_lock(2, 1, 7, UN, 0, 9), 0);
    assert_int_equal(try_lock(2, 2, 7, UN, 0, 9), 0);
    expect_done(13, 0);
    assert_int_equal(locks_waiting(t), 0);
    assert_int_equal(wait_lock(14, 1, 1, 7, WR, 0, 0), LOCKS_QUEUED);
    assert_true(locks_cancel(t, 1, 14, 0));
    expect_done(14, -EINTR);
    assert_false(locks_cancel(t, 1, 14, 0));
    locks_drop_session(t, 2, 0);
    assert_int_equal(locks_count(t), 0);
}

static void test_deadline_keeps_place(void **state)
{
    (void)state;
    assert_int_equal(try_lock(1, 1, 7, WR, 0, 9), 0);
    assert_int_equal(wait_at(21, 0, 5 * SEC, 2, 1, 7, WR, 0, 9), LOCKS_QUEUED);
    assert_int_equal(wait_at(22, 0, 50 * SEC, 3, 1, 7, WR, 0, 9), LOCKS_QUEUED);
    locks_tick(t, 4 * SEC);
    expect_quiet();
    locks_tick(t, 5 * SEC);
    expect_done(21, -ERR_TIMEOUT);
    assert_int_equal(locks_waiting(t), 2);
    assert_int_equal(wait_at(21, 5 * SEC, 50 * SEC, 2, 1, 7, WR, 0, 9), LOCKS_QUEUED);
    assert_int_equal(locks_waiting(t), 2);
    assert_int_equal(try_lock(1, 1, 7, UN, 0, 9), 0);
    expect_done(21, 0); /* still first */
    expect_quiet();
    /* a request whose connection went is not granted, and forgotten in the end */
    assert_int_equal(detach(22, 6 * SEC), 1);
    assert_int_equal(try_lock(2, 1, 7, UN, 0, 9), 0);
    expect_quiet();
    assert_int_equal(locks_count(t), 0);
    locks_tick(t, 60 * SEC);
    expect_quiet();
    assert_int_equal(locks_waiting(t), 0);
    /* the same request twice: the former copy is told to ask again */
    assert_int_equal(try_lock(1, 1, 7, WR, 0, 9), 0);
    struct lock_req r = req(2, 1, 7, WR, 0, 9);
    r.id = 23;
    assert_int_equal(locks_set(t, &r, (void *)1, 0, NEVER), LOCKS_QUEUED);
    assert_int_equal(locks_set(t, &r, (void *)2, 0, NEVER), LOCKS_QUEUED);
    expect_done(1, -ERR_TIMEOUT);
    r.end = 10;
    assert_int_equal(locks_set(t, &r, (void *)3, 0, NEVER), -EINVAL);
    locks_unlock_all(t, 1, 7, 1, false, 0);
    assert_int_equal(detach(2, 0), 0); /* its answer is due */
    expect_done(2, 0);
}

static void test_fair(void **state)
{
    (void)state;
    assert_int_equal(try_lock(1, 1, 7, RD, 0, 9), 0);
    assert_int_equal(wait_at(31, 0, NEVER, 2, 1, 7, WR, 0, 9), LOCKS_QUEUED);
    /* at first readers pass the writer, as on a local file system */
    assert_int_equal(wait_at(32, SEC / 2, NEVER, 2, 2, 7, RD, 0, 9), 0);
    /* then no longer, but for those who do not wait and those who are not in its way */
    assert_int_equal(wait_at(33, 2 * SEC, NEVER, 2, 3, 7, RD, 5, 9), LOCKS_QUEUED);
    assert_int_equal(wait_at(34, 2 * SEC, NEVER, 2, 4, 7, RD, 10, 19), 0);
    struct lock_req r = req(2, 5, 7, RD, 5, 9);
    assert_int_equal(locks_set(t, &r, NULL, 2 * SEC, 0), 0);
    locks_tick(t, 11 * SEC);
    expect_quiet();
    locks_tick(t, 12 * SEC); /* patience has an end: no deadlocks by fairness */
    expect_done(33, 0);
    assert_int_equal(wait_at(35, 12 * SEC, NEVER, 2, 6, 7, RD, 5, 9), LOCKS_QUEUED);
    assert_true(locks_cancel(t, 2, 31, 13 * SEC));
    expect_done(31, -EINTR);
    expect_done(35, 0);
}

/* ---- deadlocks ---- */

static void test_deadlock_two_ranges(void **state)
{
    (void)state;
    assert_int_equal(try_lock(1, 1, 7, WR, 0, 0), 0);
    assert_int_equal(try_lock(2, 2, 7, WR, 1, 1), 0);
    assert_int_equal(wait_lock(41, 1, 1, 7, WR, 1, 1), LOCKS_QUEUED);
    assert_int_equal(wait_lock(42, 2, 2, 7, WR, 0, 0), -EDEADLK);
    assert_int_equal(try_lock(2, 2, 7, UN, 1, 1), 0);
    expect_done(41, 0);
}

static void test_deadlock_three(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(try_lock(1 + i % 2, 10 + i, 100 + i, WR, 0, 0), 0);
    assert_int_equal(wait_lock(51, 1, 10, 101, RD, 0, 0), LOCKS_QUEUED);
    assert_int_equal(wait_lock(52, 2, 11, 102, RD, 0, 0), LOCKS_QUEUED);
    assert_int_equal(try_lock(1, 12, 100, RD, 0, 0), -EAGAIN); /* not waiting: no deadlock */
    assert_int_equal(wait_lock(53, 1, 12, 100, RD, 0, 0), -EDEADLK);
    locks_unlock_all(t, 1, 102, 12, false, 0);
    expect_done(52, 0);
}

static void test_deadlock_upgrade_and_threads(void **state)
{
    (void)state;
    /* two readers that both want to write */
    assert_int_equal(try_lock(1, 1, 7, RD, 0, 0), 0);
    assert_int_equal(try_lock(2, 1, 7, RD, 0, 0), 0);
    assert_int_equal(wait_lock(61, 1, 1, 7, WR, 0, 0), LOCKS_QUEUED);
    assert_int_equal(wait_lock(62, 2, 1, 7, WR, 0, 0), -EDEADLK);
    locks_unlock_all(t, 2, 7, 1, false, 0);
    expect_done(61, 0);
    locks_unlock_all(t, 1, 7, 1, false, 0);
    /* owner 5 waits in one thread for what 6 has; 6 waits for a range that 5 gets in another
     * thread only then */
    assert_int_equal(try_lock(1, 6, 8, WR, 0, 0), 0);
    assert_int_equal(wait_lock(63, 1, 5, 8, WR, 0, 0), LOCKS_QUEUED);
    assert_int_equal(try_lock(1, 7, 9, WR, 0, 0), 0);
    assert_int_equal(wait_lock(64, 1, 5, 9, RD, 0, 0), LOCKS_QUEUED);
    assert_int_equal(wait_lock(65, 1, 6, 9, WR, 0, 0), LOCKS_QUEUED);
    locks_unlock_all(t, 1, 9, 7, false, 0);
    expect_done(64, 0);
    expect_done(65, -EDEADLK);
}

static void test_flock(void **state)
{
    (void)state;
    assert_int_equal(flock_at(0, 1, 1, RD), 0);
    assert_int_equal(flock_at(0, 2, 1, RD), 0);
    assert_int_equal(try_lock(3, 3, 1, WR, 0, 10), 0); /* the other kind */
    assert_int_equal(flock_at(71, 1, 1, WR), LOCKS_QUEUED);
    /* both convert: no deadlock, since conversion releases first */
    assert_int_equal(flock_at(72, 2, 1, WR), LOCKS_QUEUED);
    expect_done(71, 0);
    assert_int_equal(flock_at(0, 1, 1, WR), 0);
    locks_unlock_all(t, 1, 1, 1, true, 0);
    expect_done(72, 0);
    assert_int_equal(flock_at(0, 1, 1, RD), -EAGAIN);
    assert_int_equal(flock_at(0, 2, 1, RD), 0); /* a downgrade */
    assert_int_equal(flock_at(0, 1, 1, RD), 0);
    assert_int_equal(flock_at(0, 1, 1, WR), -EAGAIN); /* and the former lock is lost */
    assert_int_equal(flock_at(0, 2, 1, WR), 0);
    assert_int_equal(flock_at(0, 2, 1, UN), 0);
    assert_int_equal(locks_count(t), 1);
}

/* ---- resuming ---- */

static void test_resume(void **state)
{
    (void)state;
    assert_int_equal(try_lock(1, 1, 7, WR, 0, 9), 0);
    assert_int_equal(try_lock(1, 1, 8, WR, 0, 9), 0); /* its answer got lost */
    assert_int_equal(wait_lock(81, 2, 1, 8, WR, 0, 9), LOCKS_QUEUED);
    assert_int_equal(try_lock(2, 1, 9, RD, 0, 9), 0);
    struct lock_req claims[] = {req(0, 1, 7, WR, 0, 9), req(0, 1, 9, WR, 0, 4),
                                req(0, 4, 9, RD, 8, 8)};
    assert_int_equal(locks_resume(t, 1, claims, 3, 0), 0);
    expect_done(81, 0);
    assert_int_equal(try_lock(2, 1, 7, RD, 0, 0), -EAGAIN);
    assert_int_equal(try_lock(2, 2, 9, RD, 0, 4), 0); /* taken back as a read lock */
    assert_int_equal(try_lock(2, 1, 9, WR, 0, 4), -EAGAIN);
    assert_int_equal(try_lock(2, 1, 9, WR, 8, 8), -EAGAIN);
    claims[0].ino = 8;
    assert_int_equal(locks_resume(t, 1, claims, 1, 0), 1); /* 8 is another's by now */
    assert_int_equal(try_lock(2, 1, 7, WR, 0, 9), 0);
    assert_int_equal(locks_resume(t, 1, NULL, 0, 0), 0);
    assert_int_equal(locks_resume(t, 2, NULL, 0, 0), 0);
    assert_int_equal(locks_count(t), 0);
}

static void test_grace(void **state)
{
    struct lock_req claim = req(0, 1, 7, WR, 0, 9);
    (void)state;
    locks_hold(t, true, 0);
    assert_int_equal(try_lock(2, 1, 7, WR, 0, 9), -ERR_BUSY);
    assert_int_equal(wait_lock(91, 2, 1, 7, WR, 0, 9), LOCKS_QUEUED);
    assert_int_equal(wait_lock(92, 2, 2, 6, WR, 0, 9), LOCKS_QUEUED);
    assert_int_equal(locks_resume(t, 1, &claim, 1, 0), 0);
    expect_quiet();
    assert_true(locks_held(t));
    locks_hold(t, false, 0);
    expect_done(92, 0);
    expect_quiet();
    assert_int_equal(try_lock(1, 1, 7, UN, 0, 9), 0);
    expect_done(91, 0);
}

/* ---- random operations against a model of bytes ---- */

#define OWNERS 6u
#define BYTES 24u
#define FILES 2u
static struct model {
    uint8_t held[FILES][OWNERS][BYTES]; /* 0: not, else 1 + type */
    struct {
        bool used;
        uint32_t file, owner, type, start, end;
    } wait[4096];
} model;
static uint64_t next_id;

static bool model_conflict(uint32_t file, uint32_t owner, uint32_t type, uint32_t a, uint32_t b,
                           uint32_t who)
{
    for (uint32_t i = a; i <= b; i++) {
        uint8_t h = model.held[file][who][i];
        if (who != owner && h != 0 && (type == WR || h == 1 + WR))
            return true;
    }
    return false;
}

static bool model_blocked(uint32_t file, uint32_t owner, uint32_t type, uint32_t a, uint32_t b)
{
    for (uint32_t o = 0; o < OWNERS; o++)
        if (model_conflict(file, owner, type, a, b, o))
            return true;
    return false;
}

/* Does `from` wait for `to`, through others? */
static bool model_waits_for(uint32_t from, uint32_t to, unsigned depth)
{
    if (from == to)
        return true;
    for (size_t i = 1; i <= next_id && depth < OWNERS; i++) {
        if (!model.wait[i].used || model.wait[i].owner != from)
            continue;
        for (uint32_t o = 0; o < OWNERS; o++)
            if (model_conflict(model.wait[i].file, from, model.wait[i].type, model.wait[i].start,
                               model.wait[i].end, o) &&
                model_waits_for(o, to, depth + 1))
                return true;
    }
    return false;
}

static void model_set(uint32_t file, uint32_t owner, uint32_t type, uint32_t a, uint32_t b)
{
    for (uint32_t i = a; i <= b; i++)
        model.held[file][owner][i] = type == UN ? 0 : (uint8_t)(1 + type);
}

static void model_done(void)
{
    struct locks_done d;
    while (locks_next_done(t, &d)) {
        uintptr_t id = (uintptr_t)d.cookie;
        assert_true(model.wait[id].used);
        if (d.code == 0) {
            assert_false(model_blocked(model.wait[id].file, model.wait[id].owner,
                                       model.wait[id].type, model.wait[id].start,
                                       model.wait[id].end));
            model_set(model.wait[id].file, model.wait[id].owner, model.wait[id].type,
                      model.wait[id].start, model.wait[id].end);
        } else {
            assert_true(d.code == -EINTR || d.code == -ERR_SESSION || d.code == -EDEADLK);
        }
        model.wait[id].used = false;
    }
    for (size_t i = 1; i <= next_id; i++) /* nobody waits for nothing */
        if (model.wait[i].used)
            assert_true(model_blocked(model.wait[i].file, model.wait[i].owner, model.wait[i].type,
                                      model.wait[i].start, model.wait[i].end));
}

static void random_set(uint32_t file, uint32_t owner, uint32_t a, uint32_t b)
{
    uint32_t type = (uint32_t)rand() % 3;
    bool wait = rand() % 3 == 0 && type != UN && next_id + 1 < 4096;
    uint64_t id = wait ? ++next_id : 0;
    bool stuck = type != UN && model_blocked(file, owner, type, a, b), circle = false;
    for (uint32_t o = 0; wait && o < OWNERS; o++)
        circle |= model_conflict(file, owner, type, a, b, o) && model_waits_for(o, owner, 0);
    int rv = wait_lock(id, 1 + owner % 2, owner, 1 + file, type, a, b);
    if (!stuck) {
        assert_int_equal(rv, 0);
        model_set(file, owner, type, a, b);
    } else {
        assert_int_equal(rv, !wait ? -EAGAIN : circle ? -EDEADLK : LOCKS_QUEUED);
    }
    if (rv == LOCKS_QUEUED) {
        model.wait[id].used = true;
        model.wait[id].file = file;
        model.wait[id].owner = owner;
        model.wait[id].type = type;
        model.wait[id].start = a;
        model.wait[id].end = b;
    }
}

static void random_other(uint32_t file, uint32_t owner, uint32_t a, uint32_t b)
{
    struct lock_req q = req(1 + owner % 2, owner, 1 + file, (uint32_t)rand() % 2, a, b), out;
    uint64_t id;
    switch (rand() % 12) {
    case 0:
        locks_drop_session(t, 1 + owner % 2, 0);
        for (uint32_t o = owner % 2; o < OWNERS; o += 2)
            for (uint32_t f = 0; f < FILES; f++)
                model_set(f, o, UN, 0, BYTES - 1);
        break;
    case 1:
    case 2:
    case 3:
        locks_unlock_all(t, 1 + owner % 2, 1 + file, owner, false, 0);
        model_set(file, owner, UN, 0, BYTES - 1);
        break;
    case 4:
        id = next_id ? 1 + (uint64_t)rand() % next_id : 0;
        assert_int_equal(locks_cancel(t, 1 + model.wait[id].owner % 2, id, 0), model.wait[id].used);
        break;
    default:
        assert_int_equal(locks_test(t, &q, &out), model_blocked(file, owner, q.type, a, b));
    }
}

static void test_model(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 60; seed++) {
        srand(seed);
        memset(&model, 0, sizeof(model));
        next_id = 0;
        t = locks_new();
        for (int step = 0; step < 1500; step++) {
            uint32_t file = (uint32_t)rand() % FILES, owner = (uint32_t)rand() % OWNERS;
            uint32_t a = (uint32_t)rand() % BYTES, b = a + (uint32_t)rand() % (BYTES - a);
            if (rand() % 4)
                random_set(file, owner, a, b);
            else
                random_other(file, owner, a, b);
            model_done();
        }
        locks_free(t);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lockset_edges),
        T(test_split_merge_convert),
        T(test_limits),
        T(test_wait_and_grant),
        T(test_deadline_keeps_place),
        T(test_fair),
        T(test_deadlock_two_ranges),
        T(test_deadlock_three),
        T(test_deadlock_upgrade_and_threads),
        T(test_flock),
        T(test_resume),
        T(test_grace),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
