/* Repair planner: each rule of repair.c once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "metad/plan/repair.h"

#define GIB (1ull << 30)
#define NMAX 16
#define UP REPLFS__NODE_STATE__NODE_UP
#define SUSPECT REPLFS__NODE_STATE__NODE_SUSPECT
#define DEAD REPLFS__NODE_STATE__NODE_DEAD

static struct placement_node node[NMAX];
static struct repair_ctx x;
static struct repair_chunk c;
static struct repair_decision d;

/* n chunkds on computers of their own, a chunk with the given goal and no copies. */
static void make(unsigned n, unsigned goal)
{
    memset(node, 0, sizeof node);
    for (unsigned i = 1; i <= n; i++)
        node[i] = (struct placement_node){.host = i,
                                          .state = UP,
                                          .room = 10 * GIB,
                                          .avail = 10 * GIB,
                                          .capacity = 20 * GIB,
                                          .max_jobs = 4};
    x = (struct repair_ctx){.t = {node, n + 1}, .hosts_up = n, .seed = 1};
    c = (struct repair_chunk){.len = 1000, .goal = (uint8_t)goal};
}

static void copy(uint32_t chunkd, enum repair_state s)
{
    c.copy[c.n++] = (struct repair_copy){.chunkd = chunkd, .state = (uint8_t)s};
}

static enum repair_act decide(void)
{
    x.hosts_up = placement_hosts_up(&x.t);
    repair_decide(&x, &c, &d);
    assert_non_null(d.why);
    return d.act;
}

static void content(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_NONE);
    assert_true(repair_satisfied(&x, &c));
    unsigned prio;
    enum repair_kind kind;
    uint64_t bytes;
    assert_false(repair_classify(&x, &c, &prio, &kind, &bytes));
}

static void copies_when_a_chunkd_is_dead(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    node[2].state = SUSPECT;
    assert_int_equal(decide(), REPAIR_NONE); /* not yet */
    node[2].state = DEAD;
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 3);
    assert_int_equal(d.nsrc, 1);
    assert_int_equal(d.src[0], 1);
    copy(3, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_FORGET);
    assert_int_equal(d.target, 2);
    c.copy[1].told = true; /* it is back, and has not told of everything yet */
    assert_int_equal(decide(), REPAIR_NONE);
}

static void readonly_disk_is_a_source(void **state)
{
    (void)state;
    make(3, 1);
    copy(1, REPAIR_OK);
    c.copy[0].disk = 5;
    node[1].ro_disks = 1u << 5;
    unsigned prio;
    enum repair_kind kind;
    uint64_t bytes;
    assert_true(repair_classify(&x, &c, &prio, &kind, &bytes));
    assert_int_equal(prio, 0);
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_not_equal(d.target, 1);
    assert_int_equal(d.nsrc, 1);
    assert_int_equal(d.src[0], 1);
    /* nobody else has room: to another disk of its own */
    node[2].room = node[3].room = 0;
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 1);
    assert_true(d.in_place);
    /* a doubted one can be read, too */
    c.copy[0].state = REPAIR_CHECKING;
    assert_int_equal(decide(), REPAIR_VERIFY);
    c.copy[0].state = REPAIR_OK;
    /* once copied it is left alone: nothing can be deleted there */
    copy(2, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_NONE);
    assert_true(repair_satisfied(&x, &c));
    /* it goes with its chunkd */
    c.n = 1;
    node[1].state = SUSPECT;
    assert_int_equal(decide(), REPAIR_WAIT);
}

static void failed_disk_does_not_count(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    c.copy[1].disk = 5;
    node[2].failed_disks = 1u << 5;
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 3);
}

static void waits_with_a_reason_when_no_host_is_left(void **state)
{
    (void)state;
    make(2, 3);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_WAIT);
    assert_true(d.why[0]);
    make(1, 2);
    copy(1, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_WAIT);
}

static void shares_a_host_when_it_must_and_moves_when_it_can(void **state)
{
    (void)state;
    make(3, 2);
    node[2].host = 1;
    node[3].state = DEAD;
    copy(1, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 2);
    copy(2, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_NONE); /* misplaced, nothing to be done */
    assert_false(repair_satisfied(&x, &c));
    node[3].state = UP;
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.kind, REPAIR_KIND_MOVE);
    assert_int_equal(d.target, 3);
    copy(3, REPAIR_OK);
    c.copy[2].verified = c.copy[2].proven = true; /* just written there */
    node[2].avail = GIB;                          /* fuller than 1: goes */
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 1);
    assert_false(d.quick);
    c.copy[0].proven = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 2);
    c.copy[1] = c.copy[2];
    c.n = 2;
    assert_int_equal(decide(), REPAIR_NONE);
    assert_true(repair_satisfied(&x, &c));
}

static void checks_before_dropping_surplus(void **state)
{
    (void)state;
    make(3, 1);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    copy(3, REPAIR_OK);
    node[2].avail = GIB;
    c.copy[0].verified = c.copy[2].verified = true; /* right length: of the bytes it says nothing */
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 1);
    assert_false(d.quick);
    c.copy[0].proven = true;
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 3);
    assert_false(d.quick);
    c.copy[2].proven = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 2);
}

/* Every byte of two of those that stay; of more, the length is enough. */
static void last_copies_are_read_before_a_drop(void **state)
{
    (void)state;
    make(4, 3);
    for (uint32_t i = 1; i <= 4; i++)
        copy(i, REPAIR_OK);
    node[4].avail = GIB;
    c.copy[0].proven = true;
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 2);
    assert_false(d.quick);
    c.copy[1].proven = true;
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 3);
    assert_true(d.quick);
    c.copy[2].verified = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 4);
    /* a bad one goes only after the same checks, and one that rotted is never what justifies it */
    make(3, 1);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_BAD);
    c.copy[0].verified = true;
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 1);
    assert_false(d.quick);
    c.copy[0].proven = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 2);
}

static void suspect_copy_justifies_no_drop(void **state)
{
    (void)state;
    make(3, 2);
    for (uint32_t i = 1; i <= 3; i++) {
        copy(i, REPAIR_OK);
        c.copy[i - 1].proven = true;
    }
    node[3].state = SUSPECT;
    assert_int_equal(decide(), REPAIR_WAIT);
    node[3].state = UP;
    assert_int_equal(decide(), REPAIR_DROP);
}

static void bad_copy_replaced_elsewhere_or_in_place(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_BAD);
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 3);
    assert_false(d.in_place);
    node[3].state = DEAD;
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 2);
    assert_true(d.in_place);
    assert_int_equal(d.src[0], 1);
}

static void bad_copy_dropped_once_goal_is_reached(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_BAD);
    copy(3, REPAIR_OK);
    c.copy[0].proven = c.copy[2].proven = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 2);
}

static void doubts_are_checked_first(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_SHORT);
    copy(2, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 1);
    assert_true(d.quick);
    c.copy[0].state = REPAIR_CHECKING;
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_false(d.quick);
}

static void lost_and_unavailable_differ(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    node[1].state = DEAD;
    assert_int_equal(decide(), REPAIR_WAIT);
    c.n = 0;
    assert_int_equal(decide(), REPAIR_LOST);
    x.unreported = true;
    assert_int_equal(decide(), REPAIR_WAIT);
    x.unreported = false;
    copy(2, REPAIR_BAD);
    assert_int_equal(decide(), REPAIR_LOST);
}

static void longest_beginning_is_kept(void **state)
{
    (void)state;
    make(4, 2);
    copy(1, REPAIR_BAD);
    copy(2, REPAIR_BAD);
    c.copy[0].good_len = 300;
    c.copy[1].good_len = 700;
    assert_int_equal(decide(), REPAIR_KEEP);
    assert_int_equal(d.keep_len, 700);
    node[2].state = SUSPECT; /* known to be bad: what it has is no reason to wait */
    assert_int_equal(decide(), REPAIR_KEEP);
    assert_int_equal(d.keep_len, 300);
    node[2].state = UP;
    copy(3, REPAIR_SHORT);
    node[3].state = SUSPECT; /* may be whole, and may be back in a moment */
    assert_int_equal(decide(), REPAIR_WAIT);
    node[3].state = DEAD;
    assert_int_equal(decide(), REPAIR_KEEP);
    x.incomplete = true;
    assert_int_equal(decide(), REPAIR_WAIT);
    /* kept: the first may have good bytes behind its bad place and stays */
    make(4, 2);
    copy(1, REPAIR_BAD);
    copy(2, REPAIR_OK);
    c.copy[0].precious = true;
    assert_int_equal(decide(), REPAIR_COPY);
    assert_true(d.target == 3 || d.target == 4);
    copy(3, REPAIR_OK);
    c.copy[1].proven = c.copy[2].proven = true;
    assert_int_equal(decide(), REPAIR_NONE);
    node[3].state = node[4].state = DEAD;
    assert_int_equal(decide(), REPAIR_WAIT); /* not over it */
    c.copy[0].precious = false;
    assert_int_equal(decide(), REPAIR_COPY);
    assert_true(d.in_place);
}

static void doomed_copy_is_revived_rather_than_lost(void **state)
{
    (void)state;
    make(2, 1);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_DOOMED);
    node[1].state = DEAD;
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 2);
    assert_false(d.quick);
    node[1].state = UP;
    c.copy[0].proven = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 2);
}

static void no_repair_while_reports_are_missing(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    x.incomplete = x.unreported = true;
    assert_int_equal(decide(), REPAIR_WAIT);
    x.incomplete = false;
    assert_int_equal(decide(), REPAIR_COPY);
}

static void bounds_make_it_busy(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    node[1].jobs = 4;
    assert_int_equal(decide(), REPAIR_BUSY); /* source */
    node[1].jobs = 0;
    node[2].jobs = node[3].jobs = 4;
    assert_int_equal(decide(), REPAIR_BUSY); /* targets */
    node[3].jobs = 3;
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 3);
}

static void writer_is_left_alone(void **state)
{
    (void)state;
    make(3, 2);
    copy(1, REPAIR_OK);
    c.writing = true;
    assert_int_equal(decide(), REPAIR_LATER);
}

/* ---- copies that are to leave ---- */

static void leaves(unsigned i, enum repair_leave how)
{
    c.copy[i].leave = (uint8_t)how;
}

static void prove_all(void)
{
    for (unsigned i = 0; i < c.n; i++)
        c.copy[i].proven = true;
}

static void drained_copy_goes_when_others_are_good(void **state)
{
    (void)state;
    unsigned prio;
    enum repair_kind kind;
    uint64_t bytes;
    make(4, 2);
    node[1].draining = true;
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    leaves(0, REPAIR_DRAIN);
    assert_true(repair_classify(&x, &c, &prio, &kind, &bytes));
    assert_int_equal(kind, REPAIR_KIND_DRAIN);
    assert_int_equal(prio, REPAIR_PRIO_MAX - 2); /* nothing is in danger */
    assert_int_equal(bytes, 1000);
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.kind, REPAIR_KIND_DRAIN);
    assert_true(d.target == 3 || d.target == 4);
    assert_int_equal(d.nsrc, 2); /* it is a source like the other */
    copy(3, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_not_equal(d.target, 1);
    assert_false(d.quick);
    c.copy[1].proven = true;
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 3);
    c.copy[2].proven = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 1);
    c.copy[0] = c.copy[2];
    c.n = 2;
    assert_int_equal(decide(), REPAIR_NONE);
}

static void drained_copy_is_a_source_and_in_danger_like_any(void **state)
{
    (void)state;
    unsigned prio;
    enum repair_kind kind;
    uint64_t bytes;
    make(4, 2);
    node[1].draining = true;
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    leaves(0, REPAIR_DRAIN);
    node[2].state = DEAD;
    assert_true(repair_classify(&x, &c, &prio, &kind, &bytes));
    assert_int_equal(kind, REPAIR_KIND_REPAIR);
    assert_int_equal(prio, 1);
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.src[0], 1);
    copy(3, REPAIR_OK);
    prove_all();
    assert_int_equal(decide(), REPAIR_COPY); /* to the fourth: 1 does not count */
    assert_int_equal(d.target, 4);
    /* a suspect one justifies no drop */
    make(3, 2);
    node[1].draining = true;
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    leaves(0, REPAIR_DRAIN);
    prove_all();
    node[3].state = SUSPECT;
    assert_int_equal(decide(), REPAIR_WAIT);
    node[3].state = UP;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 1);
}

static void drain_waits_for_hosts(void **state)
{
    (void)state;
    make(3, 3);
    node[3].draining = true;
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    leaves(2, REPAIR_DRAIN);
    prove_all();
    assert_int_equal(decide(), REPAIR_WAIT);
    assert_ptr_equal(d.why, repair_why_hosts);
    assert_true(repair_satisfied(&x, &c)); /* setrepl --wait need not wait for it */
    /* nor is a worse place a way out */
    make(4, 3);
    node[3].draining = true;
    node[4].host = 1;
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    leaves(2, REPAIR_DRAIN);
    assert_int_equal(decide(), REPAIR_WAIT);
    node[4].host = 3; /* another chunkd of its own computer is as good */
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 4);
}

static void shed_copy_goes_down_to_min_copies(void **state)
{
    (void)state;
    make(3, 3);
    x.min_copies = 2;
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    leaves(2, REPAIR_SHED);
    c.copy[0].proven = true;
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 2);
    c.copy[1].proven = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 3);
    /* elsewhere is better */
    make(4, 3);
    x.min_copies = 2;
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    leaves(2, REPAIR_SHED);
    prove_all();
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 4);
    /* never below */
    make(2, 2);
    x.min_copies = 2;
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    leaves(1, REPAIR_SHED);
    prove_all();
    assert_int_equal(decide(), REPAIR_WAIT);
    make(1, 1);
    copy(1, REPAIR_OK);
    leaves(0, REPAIR_SHED);
    prove_all();
    assert_int_equal(decide(), REPAIR_WAIT);
}

static void surplus_goes_where_space_is_wanted(void **state)
{
    (void)state;
    make(3, 2);
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    leaves(1, REPAIR_SHED);
    node[3].avail = 0; /* the fullest */
    prove_all();
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 2);
}

static void at_once_needs_one_other_that_was_read(void **state)
{
    (void)state;
    unsigned prio;
    enum repair_kind kind;
    uint64_t bytes;
    make(2, 2);
    x.min_copies = 2;
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    leaves(0, REPAIR_AT_ONCE);
    assert_true(repair_classify(&x, &c, &prio, &kind, &bytes));
    assert_int_equal(kind, REPAIR_KIND_DRAIN);
    assert_true(prio <= 1);
    assert_int_equal(decide(), REPAIR_VERIFY);
    assert_int_equal(d.target, 2);
    assert_false(d.quick);
    c.copy[1].verified = true; /* the length is not enough */
    assert_int_equal(decide(), REPAIR_VERIFY);
    c.copy[1].proven = true;
    node[2].state = SUSPECT;
    assert_int_not_equal(decide(), REPAIR_DROP);
    node[2].state = UP;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 1);
    /* both: neither is the other's safety; a third comes first */
    make(3, 2);
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    leaves(0, REPAIR_AT_ONCE);
    leaves(1, REPAIR_AT_ONCE);
    prove_all();
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 3);
    node[3].state = DEAD;
    assert_int_equal(decide(), REPAIR_WAIT);
    /* the last one stays */
    make(3, 1);
    copy(1, REPAIR_OK);
    leaves(0, REPAIR_AT_ONCE);
    prove_all();
    assert_int_equal(decide(), REPAIR_COPY);
}

/* ---- pauses ---- */

static void paused_copies_count_as_long_as_enough_are_awake(void **state)
{
    (void)state;
    unsigned prio;
    enum repair_kind kind;
    uint64_t bytes;
    make(4, 3);
    x.min_copies = 2;
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    node[3].state = SUSPECT;
    node[3].paused = true;
    assert_int_equal(decide(), REPAIR_NONE);
    node[2].state = SUSPECT;
    node[2].paused = true; /* one is left awake */
    assert_true(repair_classify(&x, &c, &prio, &kind, &bytes));
    assert_int_equal(kind, REPAIR_KIND_REPAIR);
    assert_int_equal(prio, 1);
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.target, 4);
    copy(4, REPAIR_OK);
    prove_all();
    assert_int_equal(decide(), REPAIR_WAIT); /* surplus stays until they are back */
    node[2].state = node[3].state = UP;      /* still paused: about to go again */
    assert_int_equal(decide(), REPAIR_WAIT);
    node[2].paused = node[3].paused = false;
    assert_int_equal(decide(), REPAIR_DROP);
}

static void copies_are_made_before_it_goes(void **state)
{
    (void)state;
    make(3, 1);
    x.min_copies = 2;
    copy(1, REPAIR_OK);
    node[1].paused = true; /* and still there */
    assert_int_equal(decide(), REPAIR_COPY);
    assert_int_equal(d.src[0], 1);
    assert_int_not_equal(d.target, 1);
    node[1].state = SUSPECT;
    assert_int_equal(decide(), REPAIR_WAIT);
}

static void drain_goes_by_those_that_come_back(void **state)
{
    (void)state;
    make(4, 3);
    x.min_copies = 2;
    for (uint32_t i = 1; i <= 4; i++)
        copy(i, REPAIR_OK);
    prove_all();
    node[1].draining = true;
    leaves(0, REPAIR_DRAIN);
    node[4].state = SUSPECT;
    assert_int_equal(decide(), REPAIR_WAIT);
    node[4].paused = true; /* two are awake, the third comes back */
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 1);
}

/* It is waited for like a paused one as long as enough others are there, but justifies no drop. */
static void overdue_copies_count_less(void **state)
{
    (void)state;
    make(4, 3);
    x.min_copies = 2;
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    node[3].state = SUSPECT;
    node[3].overdue = true;
    assert_int_equal(decide(), REPAIR_NONE);
    node[1].state = DEAD;
    node[2].state = SUSPECT;
    assert_int_equal(decide(), REPAIR_WAIT); /* no source, and one awake is too few */
    node[2].state = UP;
    assert_int_equal(decide(), REPAIR_COPY);

    make(4, 3);
    x.min_copies = 2;
    for (uint32_t i = 1; i <= 4; i++)
        copy(i, REPAIR_OK);
    prove_all();
    node[1].draining = true;
    leaves(0, REPAIR_DRAIN);
    node[4].state = SUSPECT;
    node[4].overdue = true; /* nobody said that it comes back */
    assert_int_equal(decide(), REPAIR_WAIT);
}

static void surplus_goes_from_those_that_flap(void **state)
{
    (void)state;
    make(3, 2);
    for (uint32_t i = 1; i <= 3; i++)
        copy(i, REPAIR_OK);
    prove_all();
    node[3].avail = 0; /* the fullest */
    node[2].flaps = true;
    assert_int_equal(decide(), REPAIR_DROP);
    assert_int_equal(d.target, 2);
}

static void who_dozes_may_have_a_copy(void **state)
{
    (void)state;
    make(4, 3);
    x.min_copies = 2;
    x.dozing = x.unreported = true;
    copy(1, REPAIR_OK);
    copy(2, REPAIR_OK);
    assert_int_equal(decide(), REPAIR_WAIT);
    c.n = 1;
    assert_int_equal(decide(), REPAIR_COPY); /* too few are awake, whatever it has */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content),
        cmocka_unit_test(copies_when_a_chunkd_is_dead),
        cmocka_unit_test(failed_disk_does_not_count),
        cmocka_unit_test(readonly_disk_is_a_source),
        cmocka_unit_test(waits_with_a_reason_when_no_host_is_left),
        cmocka_unit_test(shares_a_host_when_it_must_and_moves_when_it_can),
        cmocka_unit_test(checks_before_dropping_surplus),
        cmocka_unit_test(last_copies_are_read_before_a_drop),
        cmocka_unit_test(suspect_copy_justifies_no_drop),
        cmocka_unit_test(bad_copy_replaced_elsewhere_or_in_place),
        cmocka_unit_test(bad_copy_dropped_once_goal_is_reached),
        cmocka_unit_test(doubts_are_checked_first),
        cmocka_unit_test(lost_and_unavailable_differ),
        cmocka_unit_test(longest_beginning_is_kept),
        cmocka_unit_test(doomed_copy_is_revived_rather_than_lost),
        cmocka_unit_test(no_repair_while_reports_are_missing),
        cmocka_unit_test(bounds_make_it_busy),
        cmocka_unit_test(drained_copy_goes_when_others_are_good),
        cmocka_unit_test(drained_copy_is_a_source_and_in_danger_like_any),
        cmocka_unit_test(drain_waits_for_hosts),
        cmocka_unit_test(shed_copy_goes_down_to_min_copies),
        cmocka_unit_test(surplus_goes_where_space_is_wanted),
        cmocka_unit_test(at_once_needs_one_other_that_was_read),
        cmocka_unit_test(paused_copies_count_as_long_as_enough_are_awake),
        cmocka_unit_test(copies_are_made_before_it_goes),
        cmocka_unit_test(drain_goes_by_those_that_come_back),
        cmocka_unit_test(overdue_copies_count_less),
        cmocka_unit_test(surplus_goes_from_those_that_flap),
        cmocka_unit_test(who_dozes_may_have_a_copy),
        cmocka_unit_test(writer_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
