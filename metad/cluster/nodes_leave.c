/* Copies that have to leave a chunkd: all of them when it drains, as many as make up the bytes when a disk holds more than
 * its limit, or when less than the reserve is free on its file system.
 *
 * Which copies of a disk with too much are to go is not remembered for each of them: those are chosen whose hash is
 * below a threshold. A walk through all chunks adds up what is chosen; when that is less than what is over, the
 * threshold rises in proportion, and another walk begins. It never falls while anything is over, so that what was chosen
 * stays so; when nothing is over it is zero again, and copies made of what was still chosen are surplus like any other. A
 * new leader begins from zero, and need not choose the same.
 *
 * What is over is computed from what the chunkd tells: bytes used, without those that no chunk needs any more and that it
 * gives back by itself, and less what is being deleted and what was since it told. So a fast deletion does not delete
 * more than was asked for.
 *
 * What is left is known from the walk, and less with each copy that goes. A drain is over when the walk finds no chunk with
 * a copy there, and the chunkd has said in two heartbeats that it takes no more bytes and has nothing: the second was made
 * when everything before the first was told.
 *
 * Thread context: the driver's and rpc threads, fsm lock and nodes.mu held. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/lock.h"
#include "nodes_internal.h"

#define LEAVE_EVERY NSEC_PER_SEC
#define BELOW_ALL UINT64_MAX

static struct leave_disk *disk_of(struct node *d, unsigned disk)
{
    return disk < NODE_LIMITS_MAX ? &d->limits[disk] : NULL;
}

enum repair_leave leave_of(const struct nodes *n, const struct fsm_chunk *c, struct fsm_loc l)
{
    const struct node *d = l.chunkd < n->nnodes ? n->node[l.chunkd] : NULL;
    if (!d)
        return REPAIR_STAYS;
    const struct leave_disk *k = &d->limits[l.disk]; /* 6 bits */
    if (d->limited && k->below && hash_u64(c->id ^ (uint64_t)d->id << 40) < k->below)
        return k->now && k->limited ? REPAIR_AT_ONCE : d->draining ? REPAIR_DRAIN : REPAIR_SHED;
    return d->draining ? REPAIR_DRAIN : REPAIR_STAYS;
}

void leave_reset(struct node *d)
{
    uint64_t done = d->leave.done;
    d->leave = (struct leave){.done = done, .done_mark = done};
}

void leave_forget(struct node *d)
{
    leave_reset(d);
    for (unsigned k = 0; k < NODE_LIMITS_MAX; k++) {
        struct leave_disk *l = &d->limits[k];
        *l = (struct leave_disk){.limited = l->limited, .now = l->now, .limit = l->limit};
    }
}

/* ---- walks ---- */

void leave_walk_begin(struct nodes *n)
{
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *d = n->node[i];
        if (!d || !(d->draining || d->limited))
            continue;
        d->leave.walk_chunks = d->leave.walk_bytes = d->leave.waiting = 0;
        d->leave.why = NULL;
        d->leave.goal = 0;
        d->leave.walking = true;
        for (unsigned k = 0; k < NODE_LIMITS_MAX; k++)
            d->limits[k].walk_chosen = 0;
    }
}

void leave_walk_chunk(struct nodes *n, struct fsm_chunk *c)
{
    const struct fsm_loc *l = fsm_chunk_locs(c);
    for (unsigned i = 0; n->leaving && i < c->nloc; i++) {
        if (leave_of(n, c, l[i]) == REPAIR_STAYS)
            continue;
        struct node *d = n->node[l[i].chunkd];
        d->leave.walk_chunks++;
        d->leave.walk_bytes += c->len;
        d->limits[l[i].disk].walk_chosen += c->len;
    }
}

/* More has to be chosen: threshold and what is left to choose from, in proportion. */
static void choose_more(struct leave_disk *k, const struct node_disk *t)
{
    uint64_t live = t->used > t->dead ? t->used - t->dead : 0;
    uint64_t rest = live > k->chosen ? live - k->chosen : 0, lack = k->over - k->chosen;
    double part = rest > lack ? (double)lack / (double)rest : 1;
    double room = (double)(BELOW_ALL - k->below);
    k->below = part >= 1 ? BELOW_ALL : k->below + (uint64_t)(part * room * 0.999999);
    if (k->below == 0)
        k->below = 1;
}

void leave_walk_end(struct nodes *n)
{
    bool more = false;
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *d = n->node[i];
        if (!d || !d->leave.walking)
            continue;
        d->leave.walking = false;
        d->leave.walked = true;
        d->leave.chunks = d->leave.walk_chunks;
        d->leave.bytes = d->leave.walk_bytes;
        for (unsigned j = 0; j < d->ndisks; j++) {
            struct leave_disk *k = disk_of(d, d->disks[j].disk);
            if (!k)
                continue;
            k->chosen = k->walk_chosen;
            if (k->over <= k->chosen || k->below == BELOW_ALL)
                continue;
            choose_more(k, &d->disks[j]);
            more = true;
        }
    }
    if (more)
        nodes_start_walk(n);
}

/* ---- what is over ---- */

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Bytes that are still to go from a disk. */
static uint64_t over_of(const struct node_disk *t, const struct leave_disk *k)
{
    uint64_t soon = t->dead + k->going + k->gone;
    uint64_t limit = k->limited ? minus(minus(t->used, soon), k->limit) : 0;
    uint64_t shortage = minus(t->shortage, soon);
    uint64_t over = limit > shortage ? limit : shortage;
    return t->failed ? 0 : over;
}

/* True: copies of it have to go, or did until now. */
static bool leave_look(struct node *d, bool *begins)
{
    bool any = d->draining;
    d->limited = false;
    for (unsigned j = 0; j < d->ndisks; j++) {
        struct leave_disk *k = disk_of(d, d->disks[j].disk);
        if (!k)
            continue;
        uint64_t over = d->conn ? over_of(&d->disks[j], k) : k->over;
        if (over && !k->over)
            *begins = true;
        if (!over && k->over) { /* the rest of what was chosen stays */
            k->below = k->chosen = 0;
            *begins = true;
        }
        k->over = over;
        d->limited |= over > 0;
    }
    return any || d->limited;
}

static void rate(struct leave *l, double dt)
{
    double r = (double)(l->done - l->done_mark) / dt;
    l->done_mark = l->done;
    l->rate = (uint64_t)(0.7 * (double)l->rate + 0.3 * r);
}

void leave_tick(struct nodes *n, int64_t now)
{
    bool begins = false, any = false;
    int64_t since = now - n->leave_at;
    if (since < LEAVE_EVERY)
        return;
    n->leave_at = now;
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *d = n->node[i];
        if (!d || nodes_gone(d))
            continue;
        bool leaves = leave_look(d, &begins);
        any |= leaves;
        if (leaves)
            rate(&d->leave, (double)since / NSEC_PER_SEC);
        else if (d->leave.walked || d->leave.walking)
            leave_reset(d);
    }
    n->leaving = any;
    if (begins)
        nodes_start_walk(n);
}

void leave_beat(struct node *d)
{
    for (unsigned k = 0; k < NODE_LIMITS_MAX; k++)
        d->limits[k].gone = 0;
}

/* ---- copies that go ---- */

void leave_drop(struct node *d, struct del *e, const struct fsm_chunk *c, unsigned disk)
{
    e->len = c->len;
    e->disk = (uint8_t)disk;
    d->limits[disk].going += c->len;
}

void leave_dropped(struct nodes *n, struct node *d, const struct del *e, bool gone)
{
    struct leave_disk *k = &d->limits[e->disk];
    const struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, e->chunk);
    struct fsm_loc l = {.chunkd = d->id & 0xfffff, .disk = e->disk & 63};
    k->going = minus(k->going, e->len);
    if (!gone)
        return;
    k->gone += e->len;
    if (!c || leave_of(n, c, l) == REPAIR_STAYS)
        return;
    k->chosen = minus(k->chosen, e->len);
    d->leave.chunks = minus(d->leave.chunks, 1);
    d->leave.bytes = minus(d->leave.bytes, e->len);
    d->leave.done += e->len;
}

void leave_waits(struct nodes *n, const struct fsm_chunk *c, const char *why)
{
    const struct fsm_loc *l = fsm_chunk_locs((struct fsm_chunk *)(uintptr_t)c);
    for (unsigned i = 0; n->leaving && i < c->nloc; i++) {
        if (leave_of(n, c, l[i]) == REPAIR_STAYS)
            continue;
        struct leave *k = &n->node[l[i].chunkd]->leave;
        k->waiting++;
        if (c->goal >= k->goal || !k->why) {
            k->goal = c->goal;
            k->why = why;
        }
    }
}

/* ---- for people ---- */

bool leave_removable(const struct node *d)
{
    bool empty = !d->leave.chunks && !d->count && !d->nstrays;
    return d->draining && d->conn && d->reported && d->leave.walked && empty && d->empty_beats >= 2;
}

const char *leave_text(const struct nodes *n, const struct node *d, char out[static 256])
{
    const struct leave *l = &d->leave;
    out[0] = '\0';
    if (leave_removable(d))
        return out;
    if (l->waiting && l->why == repair_why_hosts)
        snprintf(out, 256, "%llu chunks: goal %u needs %u hosts, %u are left",
                 (unsigned long long)l->waiting, l->goal, l->goal, n->hosts_up);
    else if (l->waiting)
        snprintf(out, 256, "%llu chunks: %s", (unsigned long long)l->waiting, l->why);
    else if (d->draining && !d->conn && (l->chunks || !l->walked))
        snprintf(out, 256, "it does not answer");
    else if (d->draining && l->walked && !l->chunks && d->nquarantine)
        snprintf(out, 256, "%u copies are in quarantine (replfsctl quarantine)", d->nquarantine);
    else if (d->draining && l->walked && !l->chunks && d->count)
        snprintf(out, 256, "%llu copies that no file has yet, or any more",
                 (unsigned long long)d->count);
    else if (d->draining && l->walked && !l->chunks && d->conn && !d->refuses)
        snprintf(out, 256, "it has not said yet that it takes no more bytes (a version before?)");
    return out;
}
