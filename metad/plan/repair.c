/* The repair planner. For one chunk at a time, by rules in this order:
 *
 *   1. being written               -> LATER
 *   2. doubtful copy in reach      -> VERIFY it (short: its length, doubted by a reader: every
 *                                     byte)
 *   3. a copy that is to go at once, another one in reach -> VERIFY that one, then DROP
 *   4. fewer good copies that stay -> COPY to a new computer; else over a bad copy in place; else,
 *      than goal, or awake ones       unless all that is missing are those that are to leave, to a
 *      than min_copies                computer that has one already; else DROP one that is to be shed
 *                                     and not needed for min_copies; else WAIT. No source: KEEP the
 *                                     longest good beginning, else WAIT or LOST
 *   5. two good ones on a computer -> COPY to another that could take it (a move: 6 ends it)
 *   6. more than goal, or bad ones -> VERIFY the ones that stay (every byte of two of them, of the
 *      or such as are to leave        others the length), then DROP: bad ones first, then those that
 *      left over                      are to leave, those sharing a computer, those that flap, the fullest
 *   7. copies on dead chunkds      -> FORGET (they count again when their chunkd reports them; not while it does)
 *
 * What counts: a copy on a suspect chunkd is there for reading and for the goal, but is no source,
 * is not deleted and does not justify deleting another; a copy on a dead chunkd or a failed disk
 * counts for nothing. One on a disk that can only be read is a source, as long as that lasts, and is
 * never deleted; it counts for nothing else, so that its chunk is copied from it.
 *
 * A copy that is to leave (its chunkd drains, its disk has to hold less) is a source like any other, and counts for
 * readers, but for no goal; it goes when the goal is reached without it. A chunkd that is paused counts like a suspect
 * one, also while it is still there, and longer than that; of the copies that are awake there must be min_copies though,
 * and a copy that is to leave may go while others of the goal are only asleep. One that is overdue (it flaps: flap.h) counts
 * like a paused one that nobody announced.
 *
 * Invariants: DROP is decided only when at least goal (hence one) other copies are good, in reach
 * (for what is to leave: or announced to come back; of what is to be shed min_copies, of what is to go at once one is enough)
 * and verified in this round, two of them (or all, when fewer stay) byte for byte: a length tells
 * nothing of rot, and what is dropped may be the last good copy. Each act brings the chunk
 * nearer to its goal and no rule undoes another (a move is dropped from the crowded computer, never
 * from the new one; what is to leave gets no new copy), so a chunk left alone settles after at most 2 * (copies + goal) acts. */
#include "repair.h"

#include <assert.h>
#include <string.h>

#define HEADROOM (64ull << 20)
#define PROVEN_MIN 2u /* copies read in full, of those that stay, before one is dropped */

const char *const repair_kind_name[REPAIR_KINDS] = {"repair", "move", "drop", "verify", "drain"};
const char repair_why_hosts[] = "the goal needs more computers than are left";

enum reach { UP, SUSPECT, RESCUE, GONE };

static enum reach reach(const struct repair_ctx *x, const struct repair_copy *p)
{
    const struct placement_node *n = placement_node(&x->t, p->chunkd);
    if (!n || (n->failed_disks >> (p->disk & 63) & 1))
        return GONE;
    switch (n->state) {
    case REPLFS__NODE_STATE__NODE_UP:
    case REPLFS__NODE_STATE__NODE_DRAINING:
        return n->ro_disks >> (p->disk & 63) & 1 ? RESCUE : UP;
    case REPLFS__NODE_STATE__NODE_SUSPECT:
        return n->ro_disks >> (p->disk & 63) & 1 ? GONE : SUSPECT;
    default:
        return GONE;
    }
}

static bool good(const struct repair_ctx *x, const struct repair_copy *p)
{
    enum reach r = reach(x, p);
    return p->state == REPAIR_OK && (r == UP || r == SUSPECT);
}

static bool good_up(const struct repair_ctx *x, const struct repair_copy *p)
{
    return p->state == REPAIR_OK && reach(x, p) == UP;
}

static bool stays(const struct repair_copy *p)
{
    return p->leave == REPAIR_STAYS;
}

static bool asleep(const struct repair_ctx *x, const struct repair_copy *p)
{
    const struct placement_node *n = placement_node(&x->t, p->chunkd);
    return n && (n->paused || n->overdue);
}

static bool announced(const struct repair_ctx *x, const struct repair_copy *p)
{
    const struct placement_node *n = placement_node(&x->t, p->chunkd);
    return n && n->paused;
}

/* In reach, and to be counted on when another is dropped. */
static bool stays_up(const struct repair_ctx *x, const struct repair_copy *p)
{
    return good_up(x, p) && stays(p) && !asleep(x, p);
}

/* Copies that must not be given up, whatever is wanted of a chunkd. */
static unsigned least(const struct repair_ctx *x, const struct repair_chunk *c)
{
    unsigned min = x->min_copies ? x->min_copies : 1;
    return min < c->goal ? min : c->goal;
}

static bool to_rescue(const struct repair_ctx *x, const struct repair_copy *p)
{
    return (p->state == REPAIR_OK || p->state == REPAIR_DOOMED) && reach(x, p) == RESCUE;
}

static bool waste(const struct repair_copy *p)
{
    return (p->state == REPAIR_BAD && !p->precious) || p->state == REPAIR_DOOMED;
}

/* Of the bad copies in reach. */
static uint32_t longest_good(const struct repair_ctx *x, const struct repair_chunk *c)
{
    uint32_t best = 0;
    for (unsigned i = 0; i < c->n; i++)
        if (c->copy[i].state == REPAIR_BAD && reach(x, &c->copy[i]) == UP &&
            c->copy[i].good_len > best)
            best = c->copy[i].good_len;
    return best;
}

/* It counts for nothing, and when it comes back its chunkd tells of it. */
static bool forgettable(const struct repair_ctx *x, const struct repair_copy *p)
{
    const struct placement_node *n = placement_node(&x->t, p->chunkd);
    return !n || (n->state == REPLFS__NODE_STATE__NODE_DEAD && !p->told);
}

static uint32_t host_of(const struct repair_ctx *x, const struct repair_copy *p)
{
    const struct placement_node *n = placement_node(&x->t, p->chunkd);
    return n ? n->host : 0;
}

/* Computers of the good copies, or of those that stay, each once. */
static unsigned good_hosts(const struct repair_ctx *x, const struct repair_chunk *c, bool staying,
                           uint32_t out[REPAIR_COPIES_MAX])
{
    unsigned n = 0;
    for (unsigned i = 0; i < c->n; i++) {
        if (!good(x, &c->copy[i]) || (staying && !stays(&c->copy[i])))
            continue;
        uint32_t h = host_of(x, &c->copy[i]);
        unsigned j = 0;
        while (j < n && out[j] != h)
            j++;
        if (j == n)
            out[n++] = h;
    }
    return n;
}

static void tally_good(const struct repair_ctx *x, const struct repair_copy *p,
                       struct repair_tally *t)
{
    bool up = good_up(x, p), away = asleep(x, p);
    t->good++;
    t->good_up += up;
    t->awake += !away;
    if (stays(p)) {
        t->stay++;
        t->stay_awake += !away;
        t->stay_up += stays_up(x, p);
        t->stay_sure += up || announced(x, p);
    } else {
        t->leave += up;
    }
}

void repair_tally(const struct repair_ctx *x, const struct repair_chunk *c, struct repair_tally *t)
{
    uint32_t hosts[REPAIR_COPIES_MAX];
    assert(c->n <= REPAIR_COPIES_MAX);
    memset(t, 0, sizeof(*t));
    t->hosts = good_hosts(x, c, false, hosts);
    t->stay_hosts = good_hosts(x, c, true, hosts);
    for (unsigned i = 0; i < c->n; i++) {
        const struct repair_copy *p = &c->copy[i];
        enum reach r = reach(x, p);
        if (good(x, p))
            tally_good(x, p, t);
        t->waste += waste(p) && r == UP;
        t->rescue += to_rescue(x, p);
        t->unsure +=
            (p->state == REPAIR_SHORT || p->state == REPAIR_CHECKING) && (r == UP || r == RESCUE);
        t->away += p->state != REPAIR_BAD && !good(x, p) && (r == SUSPECT || r == GONE);
        t->forgettable += forgettable(x, p);
    }
}

bool repair_satisfied(const struct repair_ctx *x, const struct repair_chunk *c)
{
    struct repair_tally t;
    repair_tally(x, c, &t);
    bool all = t.good == c->goal && t.hosts == c->goal;
    bool staying = t.stay == c->goal && t.stay_hosts == c->goal;
    return (all || staying) && !t.unsure && !t.waste;
}

/* It has the copies that it must have; that some of them are to leave is no danger. */
static bool is_whole(const struct repair_ctx *x, const struct repair_chunk *c,
                     const struct repair_tally *t)
{
    return t->good >= c->goal && t->awake >= least(x, c);
}

/* It needs another copy. */
static bool lacks_one(const struct repair_ctx *x, const struct repair_chunk *c,
                      const struct repair_tally *t)
{
    return t->stay < c->goal || t->stay_awake < least(x, c);
}

static bool has_at_once(const struct repair_ctx *x, const struct repair_chunk *c)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->copy[i].leave == REPAIR_AT_ONCE && good_up(x, &c->copy[i]))
            return true;
    return false;
}

/* Urgency and kind of a chunk that needs another copy. */
static void classify_lack(const struct repair_ctx *x, const struct repair_chunk *c,
                          const struct repair_tally *t, unsigned *prio, enum repair_kind *kind,
                          uint64_t *bytes)
{
    unsigned asleep_lack = t->stay_awake < least(x, c) ? least(x, c) - t->stay_awake : 0;
    unsigned lack = t->stay < c->goal ? c->goal - t->stay : 0;
    bool whole = is_whole(x, c, t);
    *kind = whole ? REPAIR_KIND_DRAIN : REPAIR_KIND_REPAIR;
    *prio = whole ? REPAIR_PRIO_MAX - 2 : t->awake < t->good ? t->awake : t->good;
    *bytes = (uint64_t)c->len * (lack > asleep_lack ? lack : asleep_lack);
    if (has_at_once(x, c) && *prio > 1)
        *prio = 1; /* its owner waits for the space */
}

bool repair_classify(const struct repair_ctx *x, const struct repair_chunk *c, unsigned *prio,
                     enum repair_kind *kind, uint64_t *bytes)
{
    struct repair_tally t;
    repair_tally(x, c, &t);
    *bytes = 0;
    *prio = REPAIR_PRIO_MAX - 1;
    if (t.unsure) {
        *kind = REPAIR_KIND_VERIFY;
        *prio = t.good < c->goal ? t.good : REPAIR_PRIO_MAX - 1;
    } else if (lacks_one(x, c, &t)) {
        classify_lack(x, c, &t, prio, kind, bytes);
        if (!t.good && !t.waste && !t.rescue && !longest_good(x, c))
            return false; /* nothing to copy from, nothing to revive or to keep */
    } else if (t.stay_hosts < c->goal && t.stay_hosts < x->hosts_up) {
        *kind = REPAIR_KIND_MOVE;
        *prio = REPAIR_PRIO_MAX - 2;
        *bytes = c->len;
    } else if (t.leave) {
        *kind = REPAIR_KIND_DRAIN;
        *prio = has_at_once(x, c) ? 1 : REPAIR_PRIO_MAX - 2;
    } else if (t.stay > c->goal || t.waste || t.forgettable) {
        *kind = REPAIR_KIND_DROP;
    } else {
        return false;
    }
    return true;
}

/* ---- acts ---- */

static void decide(struct repair_decision *d, enum repair_act act, const char *why)
{
    d->act = act;
    d->why = why;
}

static void decide_verify(struct repair_decision *d, const struct repair_copy *p, bool quick,
                          const char *why)
{
    decide(d, REPAIR_VERIFY, why);
    d->target = p->chunkd;
    d->quick = quick;
}

/* Good copies in reach, the least busy first. False: all are busy. */
static bool find_sources(const struct repair_ctx *x, const struct repair_chunk *c,
                         struct repair_decision *d)
{
    d->nsrc = 0;
    for (unsigned i = 0; i < c->n; i++) {
        if (!good_up(x, &c->copy[i]) && !to_rescue(x, &c->copy[i]))
            continue;
        const struct placement_node *n = placement_node(&x->t, c->copy[i].chunkd);
        if (n->jobs >= n->max_jobs)
            continue;
        unsigned at = d->nsrc < REPAIR_SOURCES_MAX ? d->nsrc++ : REPAIR_SOURCES_MAX - 1;
        while (at > 0 && placement_node(&x->t, d->src[at - 1])->jobs > n->jobs) {
            d->src[at] = d->src[at - 1];
            at--;
        }
        d->src[at] = c->copy[i].chunkd;
    }
    return d->nsrc > 0;
}

static uint32_t pick_target(const struct repair_ctx *x, const struct repair_chunk *c, bool new_host,
                            bool idle)
{
    uint32_t hosts[REPAIR_COPIES_MAX], ids[REPAIR_COPIES_MAX], target;
    for (unsigned i = 0; i < c->n; i++)
        ids[i] = c->copy[i].chunkd;
    struct placement_req r = {.want = 1,
                              .headroom = HEADROOM * c->goal,
                              .need = c->len,
                              .exclude = ids,
                              .nexclude = c->n,
                              .hosts = hosts,
                              .nhosts = good_hosts(x, c, true, hosts),
                              .new_host_only = new_host,
                              .idle_only = idle,
                              .seed = x->seed};
    return placement_pick(&x->t, &r, &target) ? target : 0;
}

/* A new copy on a chunkd without one. Returns false when there is no chunkd for it; BUSY is an
 * answer. */
static bool copy_fresh(const struct repair_ctx *x, const struct repair_chunk *c, bool new_host,
                       struct repair_decision *d)
{
    uint32_t target = pick_target(x, c, new_host, true);
    if (!target && !pick_target(x, c, new_host, false))
        return false;
    if (!target) {
        decide(d, REPAIR_BUSY,
               "the chunkds that could take a copy have their fill of running jobs");
        return true;
    }
    decide(d, REPAIR_COPY, "copying");
    d->target = target;
    return true;
}

/* Replaces a bad copy where it is. */
static bool copy_in_place(const struct repair_ctx *x, const struct repair_chunk *c,
                          struct repair_decision *d)
{
    for (unsigned i = 0; i < c->n; i++) {
        const struct repair_copy *p = &c->copy[i];
        const struct placement_node *n = placement_node(&x->t, p->chunkd);
        if (p->state != REPAIR_BAD || p->precious || !stays(p) || reach(x, p) != UP ||
            n->room < PLACEMENT_TIGHT + c->len)
            continue;
        if (n->jobs >= n->max_jobs) {
            decide(d, REPAIR_BUSY, "the chunkd with the bad copy has its fill of running jobs");
            return true;
        }
        decide(d, REPAIR_COPY, "replacing the bad copy");
        d->target = p->chunkd;
        d->in_place = true;
        return true;
    }
    return false;
}

/* From a disk that can only be read to another of the same chunkd. */
static bool copy_aside(const struct repair_ctx *x, const struct repair_chunk *c,
                       struct repair_decision *d)
{
    for (unsigned i = 0; i < c->n; i++) {
        const struct repair_copy *p = &c->copy[i];
        if (!to_rescue(x, p) || !stays(p) ||
            placement_node(&x->t, p->chunkd)->room < PLACEMENT_TIGHT + c->len)
            continue;
        decide(d, REPAIR_COPY, "copying from a disk that can only be read");
        d->target = p->chunkd;
        d->in_place = true;
        return true;
    }
    return false;
}

/* A doomed copy is the best there is: have it read; when good it lives. */
static bool revive(const struct repair_ctx *x, const struct repair_chunk *c,
                   struct repair_decision *d)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->copy[i].state == REPAIR_DOOMED && reach(x, &c->copy[i]) == UP) {
            decide_verify(d, &c->copy[i], false, "checking a copy that was about to be dropped");
            return true;
        }
    return false;
}

/* No copy is whole: what is good of the best one is kept, unless a whole one may come back by itself.
 * Nothing is given up by it. */
static bool keep_beginning(const struct repair_ctx *x, const struct repair_chunk *c,
                           const struct repair_tally *t, struct repair_decision *d)
{
    uint32_t len = longest_good(x, c);
    if (!len || t->good || x->incomplete)
        return false;
    for (unsigned i = 0; i < c->n; i++)
        if (c->copy[i].state != REPAIR_BAD && reach(x, &c->copy[i]) == SUSPECT)
            return false;
    decide(d, REPAIR_KEEP, "no copy is whole: keeping what is good of the best one");
    d->keep_len = len;
    return true;
}

static void no_source(const struct repair_ctx *x, const struct repair_chunk *c,
                      const struct repair_tally *t, struct repair_decision *d)
{
    if (revive(x, c, d) || keep_beginning(x, c, t, d))
        return;
    if (t->good || t->away)
        decide(d, REPAIR_WAIT, "its copies are on chunkds that do not answer");
    else if (x->unreported)
        decide(d, REPAIR_WAIT, "chunkds that may have copies have not reported yet");
    else
        decide(d, REPAIR_LOST, "no good copy is left");
}

/* ---- dropping ---- */

static unsigned on_host(const struct repair_ctx *x, const struct repair_chunk *c, uint32_t host)
{
    unsigned n = 0;
    for (unsigned i = 0; i < c->n; i++)
        n += good(x, &c->copy[i]) && host_of(x, &c->copy[i]) == host;
    return n;
}

static double fullness(const struct placement_node *n)
{
    return n->capacity ? 1 - (double)n->avail / (double)n->capacity : 1;
}

/* Higher goes first: waste, what is to leave, then copies sharing a computer, then those on a chunkd that flaps (so that
 * each time less is copied for it), then those on full chunkds. */
static double drop_score(const struct repair_ctx *x, const struct repair_chunk *c,
                         const struct repair_copy *p)
{
    const struct placement_node *n = placement_node(&x->t, p->chunkd);
    if (waste(p))
        return 100;
    if (!stays(p))
        return 50 + p->leave;
    return fullness(n) + (n->flaps ? 5 : 0) + (on_host(x, c, n->host) > 1 ? 10 : 0);
}

/* What is to leave goes when the goal is reached without it, on chunkds that are up or have said when they are back, and
 * enough of these are up. Any other only when more than the goal are up. */
static bool may_go(const struct repair_ctx *x, const struct repair_chunk *c,
                   const struct repair_tally *t, const struct repair_copy *p)
{
    if (waste(p))
        return reach(x, p) == UP && t->stay_up >= c->goal;
    if (!good_up(x, p))
        return false;
    if (!stays(p))
        return t->stay_sure >= c->goal && t->stay_up >= least(x, c);
    return stays_up(x, p) && t->stay_up > c->goal;
}

static const struct repair_copy *
pick_victim(const struct repair_ctx *x, const struct repair_chunk *c, const struct repair_tally *t)
{
    const struct repair_copy *victim = NULL;
    double best = 0;
    for (unsigned i = 0; i < c->n; i++) {
        const struct repair_copy *p = &c->copy[i];
        if (!may_go(x, c, t, p))
            continue;
        double score = drop_score(x, c, p);
        if (!victim || score > best) {
            victim = p;
            best = score;
        }
    }
    return victim;
}

/* The next of the copies that stay that has to be checked before victim goes. False: none. */
static bool check_survivors(const struct repair_ctx *x, const struct repair_chunk *c,
                            const struct repair_copy *victim, struct repair_decision *d)
{
    const struct repair_copy *unproven = NULL, *unverified = NULL;
    unsigned proven = 0;
    for (unsigned i = 0; i < c->n; i++) {
        const struct repair_copy *p = &c->copy[i];
        if (p == victim || !stays_up(x, p))
            continue;
        proven += p->proven;
        if (!p->proven && !unproven)
            unproven = p;
        if (!p->proven && !p->verified && !unverified)
            unverified = p;
    }
    bool whole = proven < PROVEN_MIN && unproven;
    if (!whole && !unverified)
        return false;
    decide_verify(d, whole ? unproven : unverified, !whole,
                  "checking the copies that stay before one is dropped");
    return true;
}

/* Space is wanted back of a chunk for whose copy there is no other place: it goes below its goal, never below
 * min_copies. */
static bool shed_down(const struct repair_ctx *x, const struct repair_chunk *c,
                      const struct repair_tally *t, struct repair_decision *d)
{
    const struct repair_copy *victim = NULL;
    for (unsigned i = 0; i < c->n && !victim; i++)
        if (c->copy[i].leave == REPAIR_SHED && good_up(x, &c->copy[i]))
            victim = &c->copy[i];
    if (!victim || t->stay_up < least(x, c) || t->stay_up == 0)
        return false;
    d->kind = REPAIR_KIND_DRAIN;
    d->nsrc = 0;
    if (check_survivors(x, c, victim, d))
        return true;
    decide(d, REPAIR_DROP, "giving space back: the goal cannot be had elsewhere");
    d->target = victim->chunkd;
    return true;
}

/* Space is wanted back at once: one other copy that was read in full is enough, whatever the goal. */
static bool give_back(const struct repair_ctx *x, const struct repair_chunk *c,
                      struct repair_decision *d)
{
    const struct repair_copy *victim = NULL, *other = NULL;
    for (unsigned i = 0; i < c->n; i++) {
        const struct repair_copy *p = &c->copy[i];
        if (!good_up(x, p))
            continue;
        if (p->leave == REPAIR_AT_ONCE)
            victim = victim ? victim : p;
        else if (!asleep(x, p) && (!other || (p->proven && !other->proven)))
            other = p;
    }
    if (!victim || !other)
        return false;
    d->kind = REPAIR_KIND_DRAIN;
    if (!other->proven) {
        decide_verify(d, other, false, "checking the copy that stays before one is dropped");
        return true;
    }
    decide(d, REPAIR_DROP, "giving space back at once");
    d->target = victim->chunkd;
    return true;
}

/* ---- below the goal ---- */

/* A copy that nobody can tell of may make another one unnecessary. */
static bool is_untold(const struct repair_ctx *x, const struct repair_chunk *c,
                      const struct repair_tally *t)
{
    bool dozing = x->dozing && t->stay_awake >= least(x, c);
    return (x->incomplete || dozing) && !t->waste && !t->rescue;
}

/* Another copy of a chunk that has all it must have: since one is to leave, or since one is on a chunkd that is paused.
 * It must not be worse off than before: each on a computer of its own. */
static void copy_of_whole(const struct repair_ctx *x, const struct repair_chunk *c,
                          const struct repair_tally *t, struct repair_decision *d)
{
    if (copy_fresh(x, c, true, d) || copy_in_place(x, c, d) || shed_down(x, c, t, d))
        return;
    decide(d, REPAIR_WAIT,
           x->hosts_up < c->goal
               ? repair_why_hosts
               : "no other computer without a copy has a chunkd that is up, stays "
                 "and has room");
}

static void below_goal(const struct repair_ctx *x, const struct repair_chunk *c,
                       const struct repair_tally *t, struct repair_decision *d)
{
    bool whole = is_whole(x, c, t);
    d->kind = whole ? REPAIR_KIND_DRAIN : REPAIR_KIND_REPAIR;
    if (!t->good_up && !t->rescue) {
        no_source(x, c, t, d);
        return;
    }
    if (is_untold(x, c, t)) {
        decide(d, REPAIR_WAIT, "a chunkd that may have a copy has not reported yet");
        return;
    }
    if (!find_sources(x, c, d)) {
        decide(d, REPAIR_BUSY, "the chunkds with good copies have their fill of running jobs");
        return;
    }
    if (whole) {
        copy_of_whole(x, c, t, d);
        return;
    }
    if (copy_fresh(x, c, true, d) || copy_in_place(x, c, d) || revive(x, c, d) ||
        (t->good < c->goal && copy_fresh(x, c, false, d)) || copy_aside(x, c, d) ||
        shed_down(x, c, t, d))
        return;
    decide(d, REPAIR_WAIT, "no chunkd that is up and has room lacks a copy");
}

/* ---- decisions ---- */

static void above_goal(const struct repair_ctx *x, const struct repair_chunk *c,
                       const struct repair_tally *t, struct repair_decision *d)
{
    d->kind = t->leave ? REPAIR_KIND_DRAIN : REPAIR_KIND_DROP;
    const struct repair_copy *victim = pick_victim(x, c, t);
    if (!victim) {
        decide(d, REPAIR_WAIT,
               "surplus copies stay until the suspect or paused chunkds are back or dead");
        return;
    }
    if (check_survivors(x, c, victim, d))
        return;
    decide(d, REPAIR_DROP, "dropping a copy that is not needed");
    d->target = victim->chunkd;
}

static bool check_doubts(const struct repair_ctx *x, const struct repair_chunk *c,
                         struct repair_decision *d)
{
    for (unsigned i = 0; i < c->n; i++) {
        const struct repair_copy *p = &c->copy[i];
        if ((p->state != REPAIR_SHORT && p->state != REPAIR_CHECKING) ||
            (reach(x, p) != UP && reach(x, p) != RESCUE))
            continue;
        d->kind = REPAIR_KIND_VERIFY;
        decide_verify(d, p, p->state == REPAIR_SHORT, "checking a doubtful copy");
        return true;
    }
    return false;
}

static bool forget(const struct repair_ctx *x, const struct repair_chunk *c,
                   struct repair_decision *d)
{
    for (unsigned i = 0; i < c->n; i++)
        if (forgettable(x, &c->copy[i])) {
            decide(d, REPAIR_FORGET, "its chunkd is dead and the goal is reached without it");
            d->target = c->copy[i].chunkd;
            return true;
        }
    return false;
}

/* Moves a copy off a crowded computer: the new one first. True when decided. */
static bool spread(const struct repair_ctx *x, const struct repair_chunk *c,
                   const struct repair_tally *t, struct repair_decision *d)
{
    if (t->stay_hosts >= c->goal || t->stay_hosts >= x->hosts_up || !t->good_up)
        return false;
    d->kind = REPAIR_KIND_MOVE;
    if (!find_sources(x, c, d)) {
        decide(d, REPAIR_BUSY, "the chunkds with good copies have their fill of running jobs");
        return true;
    }
    return copy_fresh(x, c, true, d);
}

void repair_decide(const struct repair_ctx *x, const struct repair_chunk *c,
                   struct repair_decision *d)
{
    struct repair_tally t;
    memset(d, 0, sizeof(*d));
    decide(d, REPAIR_NONE, "");
    repair_tally(x, c, &t);
    if (c->writing) {
        decide(d, REPAIR_LATER, "its writer is still at it");
        return;
    }
    if (check_doubts(x, c, d) || give_back(x, c, d))
        return;
    if (lacks_one(x, c, &t))
        below_goal(x, c, &t, d);
    else if (spread(x, c, &t, d))
        return;
    else if (t.stay > c->goal || t.waste || t.leave)
        above_goal(x, c, &t, d);
    else if (forget(x, c, d))
        d->kind = REPAIR_KIND_DROP;
}
