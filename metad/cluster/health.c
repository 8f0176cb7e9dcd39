/* What is wrong and what to do about it, for `replfsctl health`. Each check is one function that
 * adds at most a few problems; codes are stable words for scripts. Severity 2: data cannot be read
 * or may be lost; 1: it is whole, but less safe than asked or soon to be. nodes.mu held
 * throughout. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "status_internal.h"

#define NEARLY_FULL 0.95

void status_problem(struct status_ask *a, unsigned severity, const char *code, const char *what,
                    const char *way_out)
{
    if (a->nproblems == STATUS_PROBLEMS_MAX)
        return;
    Replfs__Problem *p = status_alloc(a, sizeof(*p));
    replfs__problem__init(p);
    p->severity = severity;
    p->code = status_text(a, "%s", code);
    p->what = status_text(a, "%s", what);
    p->way_out = status_text(a, "%s", way_out);
    a->problem[a->nproblems++] = p;
}

static const char *disks_text(const struct node *d, char out[static 512])
{
    size_t at = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < d->nhad && at < 512; i++)
        at += (size_t)snprintf(out + at, 512 - at, "%s%s", i ? ", " : "", d->had[i].path);
    return out;
}

/* Its absence was announced. */
static bool is_expected_back(const struct node *d)
{
    return nodes_paused(d) || (d->stopped && d->state != REPLFS__NODE_STATE__NODE_DEAD);
}

static void check_leaving(struct status_ask *a, const struct node *d)
{
    char label[256], text[256];
    if (!*leave_text(a->n, d, text))
        return;
    if (d->draining)
        status_problem(
            a, 1, "drain-waits",
            status_text(a, "the drain of %s waits: %s", nodes_label(d, label), text),
            status_text(a,
                        "add chunkds on more computers, or lower the goal of these files "
                        "(replfsctl setrepl); or let it be: replfsctl chunkd undrain %u",
                        d->id));
    else if (d->leave.waiting)
        status_problem(
            a, 1, "reclaim-waits",
            status_text(a, "%s holds more than it should, and waits: %s", nodes_label(d, label),
                        text),
            "add chunkds or disks; replfsctl reclaim with --now gives up copies as long as any "
            "other is good");
}

/* How long it may be silent before repair begins. */
static uint64_t dead_s(const struct nodes *n, const struct node *d)
{
    return flap_dead_ms(&d->flap, n->cfg.dead_ms, clock_mono()) / 1000;
}

static void check_flaps(struct status_ask *a, const struct node *d)
{
    unsigned returns = flap_returns(&d->flap, clock_mono());
    char label[256];
    if (returns > 2)
        status_problem(
            a, 1, "chunkd-flaps",
            status_text(
                a,
                "%s was dead and came back %u times lately: it may be silent for %llu s now "
                "before its chunks are copied elsewhere",
                nodes_label(d, label), returns, (unsigned long long)dead_s(a->n, d)),
            "look at its computer's power, network and sleep settings; replfsctl chunkd pause for "
            "computers that sleep");
}

static void check_chunkd(struct status_ask *a, const struct node *d)
{
    char label[256], disks[512];
    long long silent = (a->now - d->last_seen) / NSEC_PER_SEC;
    nodes_label(d, label);
    if (nodes_gone(d))
        return; /* its place is taken: nothing to be done about it */
    check_leaving(a, d);
    check_flaps(a, d);
    if (d->state == REPLFS__NODE_STATE__NODE_DEAD)
        status_problem(
            a, 1, "chunkd-dead",
            status_text(a, "%s is dead: silent for %lld s; %s", label, silent,
                        a->n->held   ? "its chunks are not copied yet: see repair-held"
                        : d->made_up ? "its chunks have been copied from others"
                                     : "its chunks are being copied from others"),
            status_text(a,
                        "start replfs-chunkd on that computer again%s%s; if it is gone for good, "
                        "wait for the copies, then: replfsctl chunkd remove %u",
                        d->nhad ? ", with its disks mounted: " : "", disks_text(d, disks), d->id));
    else if (d->state == REPLFS__NODE_STATE__NODE_SUSPECT && d->conn && !d->reported)
        status_problem(a, 1, "chunkd-reporting",
                       status_text(a, "%s is reporting its chunks", label), "wait a moment");
    else if (d->state == REPLFS__NODE_STATE__NODE_SUSPECT && !is_expected_back(d))
        status_problem(
            a, 1, "chunkd-suspect",
            status_text(a, "%s does not answer: %s, silent for %lld s; repair begins after %llu s",
                        label, d->conn ? "connected" : "not connected", silent,
                        (unsigned long long)dead_s(a->n, d)),
            "look whether the computer, its network and replfs-chunkd on it are running");
}

static void disk_missing(struct status_ask *a, const char *label, const struct node *d,
                         const struct node_disk *k)
{
    const struct had_disk *h = nodes_disk_had(d, k->path);
    char chunks[48] = "";
    if (h && h->chunks)
        snprintf(chunks, sizeof(chunks), ", which had %llu chunks,", (unsigned long long)h->chunks);
    status_problem(
        a, 2, "disk-missing",
        status_text(a, "disk %s of %s%s is missing: its directory holds no replfs disk", k->path,
                    label, chunks),
        "mount the file system that belongs there and restart that chunkd; when the disk is gone "
        "for good, make a new one there (replfs-chunkd --init --data=DIR), or take the directory "
        "out of its configuration");
}

/* Disks that a chunkd had and is no longer started with: the operator's decision, unless it is not,
 * which shows as long as copies are missed. */
static void check_unnamed(struct status_ask *a, const struct node *d)
{
    char label[256];
    const struct status_count *c = &a->count;
    for (unsigned i = 0; i < d->nhad && !d->replaced_by && c->below + c->lost > 0; i++)
        if (nodes_disk_unnamed(d, &d->had[i]))
            status_problem(
                a, 1, "disk-removed",
                status_text(a,
                            "%s runs without disk %s, which it had before, while chunks have "
                            "fewer copies than their goal",
                            nodes_label(d, label), d->had[i].path),
                "if it was left out by mistake, start that chunkd with --data for it, too; else "
                "wait until its chunks are copied from others");
}

static void check_disk(struct status_ask *a, const struct node *d, const struct node_disk *k)
{
    char label[256];
    nodes_label(d, label);
    if (nodes_gone(d))
        return;
    if (k->missing) {
        disk_missing(a, label, d, k);
        return;
    }
    if (k->failed && k->readonly) {
        status_problem(
            a, 1, "disk-readonly",
            status_text(a,
                        "disk %s of %s takes no writes any more: %s; its %llu chunks are served, "
                        "and copied from it",
                        k->path, label, k->error, (unsigned long long)k->chunks),
            "wait until no chunk is below its goal, then replace the disk, make the new one known "
            "with replfs-chunkd --init --data=DIR, and restart that chunkd; when only its file "
            "system stopped itself, check it (fsck), mount it again and restart that chunkd");
        return;
    }
    if (k->failed) {
        status_problem(
            a, 1, "disk-failed",
            status_text(a, "disk %s of %s failed: %s", k->path, label, k->error),
            "replace the disk, make the new one known with replfs-chunkd --init --data=DIR, and "
            "restart that chunkd");
        return;
    }
    if (k->shortage && d->state != REPLFS__NODE_STATE__NODE_DEAD)
        status_problem(a, 1, "disk-short",
                       status_text(a,
                                   "the file system of disk %s of %s has %llu MiB less free than "
                                   "the reserve: copies leave it",
                                   k->path, label, (unsigned long long)(k->shortage >> 20) + 1),
                       "free space there, or add disks or chunkds");
    bool told = k->shortage || d->limits[k->disk & 63].limited; /* said above, or wanted so */
    bool low = !told && k->capacity && (double)k->avail < (1 - NEARLY_FULL) * (double)k->capacity;
    if (low && d->state != REPLFS__NODE_STATE__NODE_DEAD)
        status_problem(a, 1, "disk-full",
                       status_text(a, "disk %s of %s is nearly full: %llu MiB of %llu MiB are left",
                                   k->path, label, (unsigned long long)(k->avail >> 20),
                                   (unsigned long long)(k->capacity >> 20)),
                       "delete files, raise that chunkd's --capacity, or add a chunkd");
}

#define SCRUB_PAUSED_S (24ull * 3600)

/* A disk whose bytes have waited for longer than the cycle and a quarter of it; not while its first pass may still be
 * under way. */
static void check_scrub(struct status_ask *a, const struct node *d, const struct node_disk *k)
{
    const Replfs__ScrubStat *s = &k->scrub;
    uint64_t cycle = fsm_setting(a->n->cfg.fsm, SETTING_SCRUB_CYCLE) / 1000;
    uint64_t limit = cycle + cycle / 4;
    char label[256];
    if (nodes_gone(d) || k->failed || d->state != REPLFS__NODE_STATE__NODE_UP)
        return;
    if (s->state == REPLFS__SCRUB_STATE__SCRUB_PAUSED && s->paused_s > SCRUB_PAUSED_S)
        status_problem(a, 1, "scrub-paused",
                       status_text(a, "the scrub of disk %s of %s is paused for %llu hours",
                                   k->path, nodes_label(d, label),
                                   (unsigned long long)(s->paused_s / 3600)),
                       status_text(a, "replfsctl scrub resume %u", d->id));
    if (s->state != REPLFS__SCRUB_STATE__SCRUB_NONE && s->age_s > limit && s->since_s > limit)
        status_problem(
            a, 1, "scrub-late",
            status_text(a,
                        "disk %s of %s has bytes that were not checked for %llu hours; the "
                        "cycle is %llu hours",
                        k->path, nodes_label(d, label), (unsigned long long)(s->age_s / 3600),
                        (unsigned long long)(cycle / 3600)),
            "replfsctl scrub status shows how far it is; give it more of the disk (replfsctl "
            "config set scrub-rate), a longer cycle (scrub-cycle), or let it hurry once (replfsctl "
            "scrub start --fast)");
}

/* Two daemons with copies of one data directory: only one of them can be the chunkd. */
static void check_twin(struct status_ask *a, const struct node *d)
{
    char label[256];
    bool there = d->twin_last && a->now - d->twin_last < NODE_TWIN_SILENT;
    if (!there || d->twin_last - d->twin_first < (int64_t)a->n->cfg.suspect_ms * NSEC_PER_MSEC)
        return;
    status_problem(a, 1, "chunkd-twice",
                   status_text(a,
                               "another daemon (%s, %s) says that it is %s: its data directory is "
                               "a copy of that one's",
                               d->twin_name, d->twin_addr, nodes_label(d, label)),
                   "stop one of the two; a computer whose disk was cloned gets an empty data "
                   "directory, with which its "
                   "chunkd joins as a new one");
}

static bool one_host_id_two_computers(const struct node *x, const struct node *y)
{
    if (!x->conn || !y->conn || strcmp(x->host_id, y->host_id))
        return false;
    if (x->boot_id[0] && y->boot_id[0] && strcmp(x->boot_id, y->boot_id))
        return true;
    return x->host_name[0] && y->host_name[0] && strcmp(x->host_name, y->host_name);
}

/* Computers made from one image: they would count as one, and their copies as sharing it. */
static void check_host_ids(struct status_ask *a)
{
    for (uint32_t i = 1; i < a->n->nnodes; i++) {
        const struct node *x = a->n->node[i], *y = NULL;
        char lx[256], ly[256];
        bool first = x != NULL;
        for (uint32_t k = 1; first && k < i; k++)
            first = !a->n->node[k] || strcmp(a->n->node[k]->host_id, x->host_id);
        for (uint32_t k = i + 1; first && k < a->n->nnodes && !y; k++)
            if (a->n->node[k] && one_host_id_two_computers(x, a->n->node[k]))
                y = a->n->node[k];
        if (!y)
            continue;
        status_problem(
            a, 1, "same-host-id",
            status_text(
                a, "%s and %s have the same host id (machine-id) %s: they count as one computer",
                nodes_label(x, lx), nodes_label(y, ly), x->host_id),
            "if they are two (made from one image), give one a new machine-id (rm /etc/machine-id; "
            "systemd-machine-id-setup) and restart its chunkd; if they are one, give both the same "
            "--host-name");
    }
}

static void check_nodes(struct status_ask *a)
{
    bool any = false;
    for (uint32_t i = 1; i < a->n->nnodes; i++) {
        const struct node *d = a->n->node[i];
        if (!d || d->removed)
            continue;
        any = true;
        check_chunkd(a, d);
        check_twin(a, d);
        for (unsigned k = 0; k < d->ndisks; k++) {
            check_disk(a, d, &d->disks[k]);
            check_scrub(a, d, &d->disks[k]);
        }
        check_unnamed(a, d);
    }
    if (!any)
        status_problem(a, 2, "no-chunkd", "no chunkd has registered yet: files cannot be written",
                       "on the computers whose disks to use: replfs-chunkd --init --data=DIR, then "
                       "replfs-chunkd --data=DIR --meta=ADDRESS");
}

static void check_lost(struct status_ask *a)
{
    const struct status_count *k = &a->count;
    if (k->lost)
        status_problem(
            a, 2, "chunks-lost",
            status_text(a, "%llu chunks have no good copy left: parts of files cannot be read",
                        (unsigned long long)k->lost),
            "start chunkds that are away, they may still have copies; replfsctl damaged names the "
            "files; restore those that stay unreadable from elsewhere");
    if (k->damaged)
        status_problem(
            a, 2, "chunks-damaged",
            status_text(a, "%llu chunks have bytes that no copy in reach has: %s%s",
                        (unsigned long long)k->damaged, k->damaged_where,
                        k->damaged > 4 ? ", and more" : ""),
            "write these ranges again or restore the files from elsewhere (replfsctl damaged names "
            "them); chunkds that are away may have them");
    if (k->unavailable && !a->n->settling)
        status_problem(
            a, 2, "chunks-unavailable",
            status_text(a, "%llu chunks have all their copies on chunkds that do not answer",
                        (unsigned long long)k->unavailable),
            "start these chunkds: the data is there");
    if (k->endangered)
        status_problem(
            a, 2, "chunks-endangered",
            status_text(a,
                        "%llu chunks have their only good copies on disks that take no writes "
                        "any more",
                        (unsigned long long)k->endangered),
            "leave these disks and chunkds running: the chunks are being copied; add a chunkd or "
            "free space when that stands still (replfsctl status)");
}

/* Another copy of metad's directory has run; nodes.mu and a->behind is known. */
static void check_past(struct status_ask *a)
{
    unsigned long long kept = recover_quarantined(a->n);
    if (a->behind)
        status_problem(
            a, 2, "metad-behind",
            status_text(
                a,
                "this metad's data directory is older than what chunkds have seen: a copy of "
                "it was restored or started by mistake, or its log lost its end. Files "
                "written since are missing here; nothing is deleted (%llu copies of unknown "
                "chunks are kept)",
                kept),
            "if the right directory still exists, stop this metad, put that back and start it; "
            "else "
            "replfsctl recover --accept");
    else if (kept)
        status_problem(
            a, 1, "quarantine",
            status_text(
                a,
                "%llu copies of chunks belong to no file that this metad knows, but may have "
                "been written under another copy of it: they are kept",
                kept),
            "replfsctl quarantine lists them; replfsctl quarantine adopt --all PATH makes files of "
            "them in lost+found; when nobody misses anything, replfsctl quarantine drop --all "
            "deletes them");
}

/* Computers that are up, against the highest goal of any chunk. */
static unsigned highest_goal(const struct status_count *k)
{
    for (unsigned g = FSM_GOAL_MAX; g > 0; g--)
        for (unsigned h = 0; h < STATUS_COPIES_MAX; h++)
            if (k->chunks[g][h])
                return g;
    return 0;
}

/* Computers that are up, or whose absence was announced. */
static unsigned hosts_counted(const struct nodes *n)
{
    unsigned hosts = 0;
    for (uint32_t h = 1; h <= n->nhosts; h++) {
        bool any = false;
        for (uint32_t i = 1; i < n->nnodes && !any; i++) {
            const struct node *d = n->node[i];
            any = d && d->host == h && !nodes_gone(d) && !d->draining &&
                  (d->state == REPLFS__NODE_STATE__NODE_UP || is_expected_back(d));
        }
        hosts += any;
    }
    return hosts;
}

static void check_outage(struct status_ask *a)
{
    char text[256];
    if (!a->n->held)
        return;
    status_problem(a, 2, "repair-held",
                   status_text(a, "%s: more than max-dead allows, so repair waits for a person",
                               outage_text(a->n, text)),
                   "look for what they have in common (a switch, power) and bring them back; if "
                   "they stay away: "
                   "replfsctl repair resume");
}

static void check_goals(struct status_ask *a)
{
    const struct status_count *k = &a->count;
    unsigned goal = highest_goal(k), hosts = hosts_counted(a->n);
    if (k->below > k->lost + k->unavailable)
        status_problem(a, 1, "chunks-below-goal",
                       status_text(a, "%llu chunks have fewer copies than their goal",
                                   (unsigned long long)(k->below - k->lost - k->unavailable)),
                       hosts < goal
                           ? "start or add chunkds on more computers"
                           : "wait: they are being copied (replfsctl status shows how far)");
    if (k->misplaced)
        status_problem(a, 1, "chunks-misplaced",
                       status_text(a, "%llu chunks have copies that share a computer",
                                   (unsigned long long)k->misplaced),
                       hosts < goal ? "add a chunkd on another computer: they move by themselves"
                                    : "wait: they are being moved");
    if (goal > hosts && !a->n->settling)
        status_problem(
            a, 1, "hosts-below-goal",
            status_text(
                a,
                "files ask for %u copies, but only %u computers have a chunkd that is up and "
                "not being drained",
                goal, hosts),
            "start or add chunkds on more computers, or lower the goal with replfsctl setrepl");
    if (k->bad)
        status_problem(
            a, 1, "copies-bad",
            status_text(a, "%llu copies are damaged and wait for replacement",
                        (unsigned long long)k->bad),
            "wait: they are replaced from good copies; look at that disk's health when it happens "
            "again");
}

/* ---- copies of the names ---- */

#define NAMES_OLD_MS 60000u

static void check_names(struct status_ask *a, const Replfs__StatusReply *r)
{
    char behind[400] = "";
    unsigned good = 0;
    uint64_t newest = UINT64_MAX;

    for (size_t i = 0; i < r->n_names; i++) {
        const Replfs__NamesCopy *c = r->names[i];
        size_t at = strlen(behind);
        good += c->age_ms <= NAMES_OLD_MS;
        if (c->generation && c->age_ms < newest)
            newest = c->age_ms;
        if (c->age_ms > NAMES_OLD_MS)
            snprintf(behind + at, sizeof(behind) - at, "; chunkd %u (%s): %s", c->chunkd,
                     c->host_name, c->error[0] ? c->error : "it gets one");
    }
    if (r->names_unsynced)
        status_problem(a, 2, "names-unsynced",
                       "meta-copies-sync is on, but no chunkd takes changes of the names: they are "
                       "acknowledged all the same, and are lost when metad's disk is lost now",
                       "start chunkds, look at their disks; copying begins again by itself");
    if (good >= r->names_wanted)
        return;
    status_problem(
        a, 1, "names-copies",
        good == 0 ? status_text(a, "no copy of the names outside metad is newer than %llu s%s",
                                newest == UINT64_MAX ? 60ull : (unsigned long long)(newest / 1000),
                                behind)
                  : status_text(a, "%u of %u copies of the names outside metad are up to date%s",
                                good, r->names_wanted, behind),
        "look at these chunkds and their disks; until then metad's own disk counts: replfsctl "
        "backup-meta FILE saves the names elsewhere");
}

/* ---- what others have noted ---- */

void nodes_note(struct nodes *n, unsigned severity, const char *code, const char *way_out,
                const char *fmt, ...)
{
    va_list ap;

    lock_acquire(&n->mu);
    struct nodes_noted *slot = &n->noted[0];
    for (unsigned i = 0; i < NODES_NOTES; i++) {
        struct nodes_noted *p = &n->noted[i];
        if (p->at != 0 && strcmp(p->code, code) == 0) {
            slot = p;
            break;
        }
        if (p->at < slot->at)
            slot = p;
    }
    *slot = (struct nodes_noted){severity, code, way_out, "", clock_mono()};
    va_start(ap, fmt);
    vsnprintf(slot->what, sizeof(slot->what), fmt, ap);
    va_end(ap);
    lock_release(&n->mu);
}

static void check_noted(struct status_ask *a)
{
    for (unsigned i = 0; i < NODES_NOTES; i++) {
        const struct nodes_noted *p = &a->n->noted[i];
        if (p->at != 0 && clock_mono() - p->at < NODES_NOTE_NS)
            status_problem(a, p->severity, p->code, status_text(a, "%s", p->what), p->way_out);
    }
}

static int by_severity(const void *x, const void *y)
{
    const Replfs__Problem *a = *(Replfs__Problem *const *)x, *b = *(Replfs__Problem *const *)y;
    if (a->severity != b->severity)
        return a->severity > b->severity ? -1 : 1;
    return strcmp(a->what, b->what);
}

void status_problems(struct status_ask *a, Replfs__StatusReply *r)
{
    check_past(a);
    check_lost(a);
    check_nodes(a);
    check_host_ids(a);
    clocks_problems(a);
    check_outage(a);
    check_goals(a);
    check_names(a, r);
    check_noted(a);
    qsort(a->problem, a->nproblems, sizeof(*a->problem), by_severity);
    r->problems = a->problem;
    r->n_problems = a->nproblems;
}
