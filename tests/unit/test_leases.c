/* The lease table: who waits, who is asked, in which order; and random requests against the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "metad/coherence/leases.h"

#define A 1u
#define B 2u
#define C 3u

static struct leases_rig {
    struct leases *l;
    struct asked {
        uint64_t session, ino;
        enum lease_mode keep;
        uint64_t nr;
    } asked[4096];
    unsigned nasked;
    uint32_t silent[8];
    uint64_t fenced;
} rig;
struct op {
    struct lease_wait w;
    bool ready;
};

static void on_recall(void *arg, uint64_t session, uint64_t ino, enum lease_mode keep, uint64_t nr)
{
    struct leases_rig *r = arg;
    assert_true(r->nasked < 4096);
    r->asked[r->nasked++] = (struct asked){session, ino, keep, nr};
}

static uint32_t on_silent(void *arg, uint64_t session)
{
    struct leases_rig *r = arg;
    return r->silent[session];
}

static void on_fence(void *arg, uint64_t session)
{
    struct leases_rig *r = arg;
    r->fenced = session;
    leases_drop_session(r->l, session);
}

static void on_ready(struct lease_wait *w)
{
    ((struct op *)w)->ready = true;
}

static uint32_t term(void *arg)
{
    (void)arg;
    return 1000;
}

static int setup(void **state)
{
    memset(&rig, 0, sizeof(rig));
    struct leases_config cfg = {.recall = on_recall,
                                .silent_ms = on_silent,
                                .fence = on_fence,
                                .arg = &rig,
                                .term = term,
                                .patience_ms = 500};
    rig.l = leases_new(&cfg);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    leases_free(rig.l);
    return 0;
}

/* true: went on at once */
static bool enter(struct op *o, uint64_t session, uint64_t ino, bool write)
{
    *o = (struct op){.w = {.session = session, .ready = on_ready}};
    lease_need(&o->w, ino, write);
    return leases_enter(rig.l, &o->w);
}

static enum lease_mode grant(uint64_t session, uint64_t ino, enum lease_mode want)
{
    return leases_grant(rig.l, session, ino, want, NULL);
}

static void test_sharing(void **state)
{
    (void)state;
    struct op o;
    assert_int_equal(grant(A, 10, LEASE_SHARED), LEASE_SHARED);
    assert_int_equal(grant(B, 10, LEASE_SHARED), LEASE_SHARED);
    assert_true(enter(&o, C, 10, false)); /* readers are in nobody's way */
    leases_leave(rig.l, &o.w);
    assert_int_equal(rig.nasked, 0);
    assert_int_equal(grant(A, 10, LEASE_EXCLUSIVE), LEASE_SHARED); /* not alone */
}

/* One that is alive and does not answer: not for ever. */
static void test_stubborn(void **state)
{
    (void)state;
    struct op o;
    assert_int_equal(grant(A, 10, LEASE_SHARED), LEASE_SHARED);
    leases_tick(rig.l, 1000);
    assert_false(enter(&o, B, 10, true));
    for (int64_t now = 1000; now < 1000 + 89000; now += 400) {
        if (o.ready) { /* refused for now, and comes again */
            assert_int_equal(o.w.code, -ERR_BUSY);
            leases_leave(rig.l, &o.w);
            assert_false(enter(&o, B, 10, true));
        }
        leases_tick(rig.l, now);
        assert_int_equal(rig.fenced, 0);
    }
    for (int64_t now = 90000; now < 93000 && rig.fenced == 0; now += 400) {
        if (o.ready) {
            leases_leave(rig.l, &o.w);
            enter(&o, B, 10, true);
        }
        leases_tick(rig.l, now);
    }
    assert_int_equal(rig.fenced, A);
    assert_true(o.ready);
    assert_int_equal(o.w.code, 0);
    leases_leave(rig.l, &o.w);
}

/* One that flushes what it kept back has time. */
static void test_stubborn_or_busy(void **state)
{
    (void)state;
    struct op o, flush;
    assert_int_equal(grant(A, 10, LEASE_EXCLUSIVE), LEASE_EXCLUSIVE);
    leases_tick(rig.l, 1000);
    o = (struct op){.w = {.session = B, .ready = on_ready, .firm = true}};
    lease_need(&o.w, 10, true);
    assert_false(leases_enter(rig.l, &o.w));
    for (int64_t now = 1000; now < 400000; now += 5000) {
        if (now % 50000 == 1000) {
            assert_true(enter(&flush, A, 10, true));
            leases_leave(rig.l, &flush.w);
        }
        leases_tick(rig.l, now);
        assert_int_equal(rig.fenced, 0);
    }
    leases_ack(rig.l, A, 10, LEASE_NONE, 0);
    assert_true(o.ready);
    leases_leave(rig.l, &o.w);
}

static void test_many_needs(void **state)
{
    (void)state;
    struct op o = {.w = {.session = B, .ready = on_ready}};
    for (uint64_t ino = 100; ino < 600; ino++)
        assert_int_equal(grant(A, ino, LEASE_SHARED), LEASE_SHARED);
    for (uint64_t ino = 100; ino < 600; ino++)
        lease_need(&o.w, ino, true);
    lease_need(&o.w, 599, true); /* counts once */
    assert_int_equal(o.w.n, 500);
    assert_false(leases_enter(rig.l, &o.w));
    assert_int_equal(rig.nasked, 500); /* all at once, not one after the other */
    for (uint64_t ino = 100; ino < 600; ino++) {
        assert_false(o.ready);
        leases_ack(rig.l, A, ino, LEASE_NONE, 0);
    }
    assert_true(o.ready);
    assert_int_equal(grant(A, 350, LEASE_SHARED), LEASE_NONE); /* about to change */
    leases_leave(rig.l, &o.w);
    assert_int_equal(grant(A, 350, LEASE_SHARED), LEASE_SHARED);
}

static void test_own_lease_is_no_obstacle(void **state)
{
    (void)state;
    struct op o;
    assert_int_equal(grant(A, 10, LEASE_EXCLUSIVE), LEASE_EXCLUSIVE);
    assert_true(enter(&o, A, 10, true));
    assert_int_equal(leases_grant(rig.l, A, 10, LEASE_EXCLUSIVE, &o.w), LEASE_EXCLUSIVE);
    leases_leave(rig.l, &o.w);
    assert_int_equal(rig.nasked, 0);
}

static void test_writer_recalls_readers(void **state)
{
    (void)state;
    struct op o;
    grant(A, 10, LEASE_SHARED);
    grant(B, 10, LEASE_SHARED);
    grant(C, 10, LEASE_SHARED);
    assert_false(enter(&o, C, 10, true));
    assert_int_equal(rig.nasked, 2); /* not the writer itself */
    assert_int_equal(rig.asked[0].keep, LEASE_NONE);
    assert_int_equal(grant(A, 10, LEASE_SHARED), LEASE_NONE); /* none while one waits to write */
    leases_ack(rig.l, A, 10, LEASE_NONE, 0);
    assert_false(o.ready);
    leases_ack(rig.l, B, 10, LEASE_NONE, 0);
    assert_true(o.ready);
    assert_int_equal(grant(A, 10, LEASE_SHARED), LEASE_NONE); /* nor while it writes */
    leases_leave(rig.l, &o.w);
    assert_int_equal(grant(A, 10, LEASE_SHARED), LEASE_SHARED);
}

static void test_reader_lowers_exclusive(void **state)
{
    (void)state;
    struct op r, flush;
    assert_int_equal(grant(A, 10, LEASE_EXCLUSIVE), LEASE_EXCLUSIVE);
    assert_false(enter(&r, B, 10, false));
    assert_int_equal(rig.asked[0].keep, LEASE_SHARED);
    assert_true(enter(&flush, A, 10, true)); /* what the reader waits for must pass it */
    leases_leave(rig.l, &flush.w);
    leases_ack(rig.l, A, 10, LEASE_SHARED, 0);
    assert_true(r.ready);
    leases_leave(rig.l, &r.w);
    assert_int_equal(grant(B, 10, LEASE_SHARED), LEASE_SHARED);
}

/* A reader, then a writer want what A has; A's answer for the reader comes when A has another lease. */
static void test_late_answer(void **state)
{
    (void)state;
    struct op r, w, w2;
    grant(A, 10, LEASE_EXCLUSIVE);
    assert_false(enter(&r, B, 10, false));
    assert_false(enter(&w, C, 10, true));
    assert_int_equal(rig.nasked, 2);
    leases_ack(rig.l, A, 10, LEASE_NONE, rig.asked[1].nr);
    assert_true(r.ready && w.ready);
    leases_leave(rig.l, &r.w);
    leases_leave(rig.l, &w.w);
    assert_int_equal(grant(A, 10, LEASE_SHARED), LEASE_SHARED);
    leases_ack(rig.l, A, 10, LEASE_NONE, rig.asked[0].nr);
    assert_false(enter(&w2, B, 10, true)); /* A still has it */
    assert_int_equal(rig.nasked, 3);
    leases_ack(rig.l, A, 10, LEASE_NONE, rig.asked[2].nr);
    assert_true(w2.ready);
    leases_leave(rig.l, &w2.w);
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    struct op w, r1, r2;
    grant(A, 10, LEASE_EXCLUSIVE);
    assert_false(enter(&w, B, 10, true));
    assert_false(enter(&r1, C, 10, false));
    leases_ack(rig.l, A, 10, LEASE_SHARED,
               0); /* enough for the reader, not for the writer before it */
    assert_false(w.ready);
    assert_false(r1.ready);
    leases_ack(rig.l, A, 10, LEASE_NONE, 0);
    assert_true(w.ready && r1.ready);
    leases_leave(rig.l, &w.w);
    leases_leave(rig.l, &r1.w);
    assert_true(enter(&r2, C, 10, false));
    leases_leave(rig.l, &r2.w);
}

static void test_two_inodes(void **state)
{
    (void)state;
    struct op o = {.w = {.session = C, .ready = on_ready}};
    grant(A, 10, LEASE_SHARED);
    grant(B, 11, LEASE_SHARED);
    lease_need(&o.w, 10, true);
    lease_need(&o.w, 11, true);
    lease_need(&o.w, 10, false); /* counts once, the stronger */
    assert_int_equal(o.w.n, 2);
    assert_false(leases_enter(rig.l, &o.w));
    leases_ack(rig.l, A, 10, LEASE_NONE, 0);
    assert_false(o.ready);
    leases_ack(rig.l, B, 11, LEASE_NONE, 0);
    assert_true(o.ready);
    leases_leave(rig.l, &o.w);
}

static void test_silent_holder(void **state)
{
    (void)state;
    struct op o;
    grant(A, 10, LEASE_SHARED);
    assert_false(enter(&o, B, 10, true));
    rig.silent[A] = 999;
    leases_tick(rig.l, 1);
    assert_false(o.ready);
    rig.silent[A] = 1000;
    leases_tick(rig.l, 1);
    assert_true(o.ready);
    assert_int_equal(rig.fenced, 0); /* it had nothing to lose */
    leases_leave(rig.l, &o.w);
    grant(A, 11, LEASE_EXCLUSIVE);
    assert_false(enter(&o, B, 11, true));
    leases_tick(rig.l, 1);
    assert_int_equal(rig.fenced, A);
    assert_true(o.ready);
    leases_leave(rig.l, &o.w);
}

static void test_session_ends(void **state)
{
    (void)state;
    struct op o;
    struct leases_stat st;
    for (uint64_t ino = 1; ino < 3000; ino++)
        grant(A, ino, ino % 2 ? LEASE_SHARED : LEASE_EXCLUSIVE);
    assert_false(enter(&o, B, 7, true));
    leases_drop_session(rig.l, A);
    assert_true(o.ready);
    leases_leave(rig.l, &o.w);
    leases_stat(rig.l, &st);
    assert_int_equal(st.leases, 0);
}

/* A holder that is no more, found before its leases were dropped (or given one after that). */
static void test_holder_gone(void **state)
{
    (void)state;
    struct op o;
    grant(A, 10, LEASE_EXCLUSIVE);
    assert_false(enter(&o, B, 10, true));
    rig.silent[A] = UINT32_MAX;
    leases_tick(rig.l, 1);
    assert_true(o.ready);
    assert_int_equal(rig.fenced, 0);
    leases_leave(rig.l, &o.w);
}

/* Who waits too long is told to come again; who stood behind goes on. */
static void test_patience(void **state)
{
    (void)state;
    struct op w, r, firm, again;
    grant(A, 10, LEASE_EXCLUSIVE);
    assert_false(enter(&w, B, 10, true));
    leases_tick(rig.l, 7000); /* seen for the first time */
    assert_false(enter(&r, C, 10, false));
    firm = (struct op){.w = {.session = C, .ready = on_ready, .firm = true}};
    lease_need(&firm.w, 11, true);
    lease_need(&firm.w, 10, true);
    assert_false(leases_enter(rig.l, &firm.w));
    leases_tick(rig.l, 7499);
    assert_false(w.ready || r.ready);
    leases_ack(rig.l, A, 10, LEASE_SHARED, 0); /* enough for the reader, who is not the first */
    assert_false(w.ready || r.ready);
    leases_tick(rig.l, 7500);
    assert_true(w.ready && w.w.code == -ERR_BUSY);
    assert_true(r.ready && r.w.code == 0 && !firm.ready);
    leases_leave(rig.l, &w.w);
    leases_leave(rig.l, &r.w);
    leases_tick(rig.l, 80000);
    assert_false(firm.ready);
    assert_false(enter(&again, B, 10, true));
    assert_int_equal(rig.nasked, 1); /* that was never taken back */
    leases_tick(rig.l, 80100);
    leases_ack(rig.l, A, 10, LEASE_NONE, 0);
    assert_true(firm.ready && firm.w.code == 0 && again.ready && again.w.code == 0);
    leases_leave(rig.l, &firm.w);
    leases_leave(rig.l, &again.w);
    assert_int_equal(grant(B, 10, LEASE_EXCLUSIVE), LEASE_EXCLUSIVE); /* nothing is left behind */
}

static void test_stop(void **state)
{
    (void)state;
    struct op w, firm, late, fine;
    grant(A, 10, LEASE_EXCLUSIVE);
    grant(A, 11, LEASE_SHARED);
    assert_false(enter(&w, B, 10, false));
    firm = (struct op){.w = {.session = B, .ready = on_ready, .firm = true}};
    lease_need(&firm.w, 12, true);
    lease_need(&firm.w, 11, true);
    assert_false(leases_enter(rig.l, &firm.w));
    leases_stop(rig.l, -ERR_SHUTDOWN);
    assert_true(w.ready && w.w.code == -ERR_SHUTDOWN);
    assert_true(firm.ready && firm.w.code == -ERR_SHUTDOWN);
    leases_leave(rig.l, &w.w);
    leases_leave(rig.l, &firm.w);
    assert_true(enter(&late, B, 11, true) && late.w.code == -ERR_SHUTDOWN);
    leases_leave(rig.l, &late.w);
    assert_true(enter(&fine, B, 11, false) && fine.w.code == 0); /* nothing in the way */
    leases_leave(rig.l, &fine.w);
    assert_int_equal(grant(B, 10, LEASE_NONE), LEASE_ELSEWHERE); /* nor is old state shown */
}

static void test_resume(void **state)
{
    (void)state;
    struct op x, y, z;
    uint64_t claims[] = {40, 20, 10, 20, 30};
    grant(A, 10, LEASE_EXCLUSIVE);
    grant(A, 11, LEASE_EXCLUSIVE);
    grant(A, 20, LEASE_EXCLUSIVE);
    grant(A, 30, LEASE_SHARED);
    assert_false(enter(&x, B, 10, true));
    assert_false(enter(&y, B, 11, true));
    assert_false(enter(&z, B, 30, true));
    assert_int_equal(rig.nasked, 3);
    assert_int_equal(leases_resume(rig.l, A, claims, 5), 2);
    assert_true(claims[0] == 10 && claims[1] == 20);
    assert_true(!x.ready && y.ready && z.ready); /* unclaimed, and never exclusive */
    assert_int_equal(rig.nasked, 3);
    leases_remind(rig.l, A);
    assert_int_equal(rig.nasked, 4);
    assert_true(rig.asked[3].ino == 10 && rig.asked[3].keep == LEASE_NONE);
    leases_ack(rig.l, A, 10, LEASE_NONE, 0);
    assert_true(x.ready);
    leases_leave(rig.l, &x.w);
    leases_leave(rig.l, &y.w);
    leases_leave(rig.l, &z.w);
    assert_int_equal(grant(B, 20, LEASE_SHARED), LEASE_ELSEWHERE);
    assert_int_equal(leases_resume(rig.l, A, NULL, 0), 0);
    assert_int_equal(grant(B, 20, LEASE_SHARED), LEASE_SHARED);
}

/* After a start nobody holds anything; who comes back in time gets what it claims. */
static void test_claim_anew(void **state)
{
    (void)state;
    struct op o;
    uint64_t a[] = {10, 11, 12}, b[] = {10, 13}, late[] = {14};
    assert_false(leases_claim(rig.l, true));
    assert_true(enter(&o, C, 12, true));                        /* is being changed */
    assert_int_equal(grant(A, 11, LEASE_SHARED), LEASE_SHARED); /* of an earlier connection */
    assert_int_equal(leases_resume(rig.l, A, a, 3), 2);
    assert_true(a[0] == 10 && a[1] == 11);
    assert_int_equal(grant(A, 11, LEASE_NONE), LEASE_EXCLUSIVE);
    assert_int_equal(leases_resume(rig.l, B, b, 2), 1); /* the first to come has it */
    assert_int_equal(b[0], 13);
    leases_leave(rig.l, &o.w);
    assert_true(leases_claim(rig.l, false));
    assert_int_equal(leases_resume(rig.l, C, late, 1), 0);
    assert_int_equal(leases_resume(rig.l, A, a, 2), 2); /* what is held stays */
}

/* Random sessions and inodes; after each step: exclusive means alone, nobody gets a lease while
 * another writes, and in the end everybody who waited has had its turn or was told to come again. */
static void test_random(void **state)
{
    (void)state;
    enum { OPS = 64, INOS = 5, SESSIONS = 5 };
    static struct op ops[OPS];
    bool used[OPS] = {false};
    uint8_t held[SESSIONS + 1][INOS + 1] = {{0}};
    srand(7);
    for (unsigned step = 0; step < 40000; step++) {
        unsigned k = (unsigned)rand() % OPS, s = 1 + (unsigned)rand() % SESSIONS;
        uint64_t ino = 1 + (uint64_t)rand() % INOS;
        if (used[k] && ops[k].ready) {
            leases_leave(rig.l, &ops[k].w);
            used[k] = false;
        } else if (!used[k]) {
            used[k] = true;
            ops[k] = (struct op){.w = {.session = s, .ready = on_ready, .firm = rand() % 2}};
            lease_need(&ops[k].w, ino, rand() % 2);
            lease_need(&ops[k].w, 1 + (uint64_t)rand() % INOS, rand() % 2);
            ops[k].ready = leases_enter(rig.l, &ops[k].w);
        }
        ino = 1 + (uint64_t)rand() % INOS;
        s = 1 + (unsigned)rand() % SESSIONS;
        enum lease_mode m = grant(s, ino, (enum lease_mode)(rand() % 3));
        held[s][ino] = m > held[s][ino] ? (uint8_t)m : held[s][ino];
        for (unsigned x = 1; m && x <= SESSIONS; x++)
            assert_true(x == s || held[x][ino] + held[s][ino] <= 2);
        while (rig.nasked > 0 && rand() % 3) {
            struct asked q = rig.asked[--rig.nasked];
            if (held[q.session][q.ino] > q.keep)
                held[q.session][q.ino] = (uint8_t)q.keep;
            leases_ack(rig.l, q.session, q.ino, q.keep, 0);
        }
        if (step % 8 == 0)
            leases_tick(rig.l, 1 + (int64_t)step * 50);
    }
    for (unsigned round = 0; round < OPS; round++) {
        while (rig.nasked > 0) {
            struct asked q = rig.asked[--rig.nasked];
            leases_ack(rig.l, q.session, q.ino, q.keep, 0);
        }
        for (unsigned k = 0; k < OPS; k++)
            if (used[k] && ops[k].ready) {
                leases_leave(rig.l, &ops[k].w);
                used[k] = false;
            }
    }
    for (unsigned k = 0; k < OPS; k++)
        assert_false(used[k]);
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_sharing),
        T(test_stubborn),
        T(test_stubborn_or_busy),
        T(test_many_needs),
        T(test_own_lease_is_no_obstacle),
        T(test_writer_recalls_readers),
        T(test_reader_lowers_exclusive),
        T(test_late_answer),
        T(test_first_come_first_served),
        T(test_two_inodes),
        T(test_silent_holder),
        T(test_session_ends),
        T(test_holder_gone),
        T(test_patience),
        T(test_stop),
        T(test_resume),
        T(test_claim_anew),
        T(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
