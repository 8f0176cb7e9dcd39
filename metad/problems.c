/* What is wrong and what to do about it, for `replfsctl health`. Each check is one function that
 * adds at most a few problems; codes are stable words for scripts. Severity 2: data cannot be read
 * or may be lost; 1: it is whole, but less safe than asked or soon to be. nodes.lock held
 * throughout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "status_int.h"

#define NEARLY_FULL 0.95

void status_problem(struct status_ask *a, unsigned severity, const char *code, const char *what,
                    const char *way_out)
{
    if (a->nproblems == STATUS_PROBLEMS_MAX)
        return;
    Replfs__Problem *p = status_alloc(a, sizeof *p);
    replfs__problem__init(p);
    p->severity = severity;
    p->code = status_text(a, "%s", code);
    p->what = status_text(a, "%s", what);
    p->way_out = status_text(a, "%s", way_out);
    a->problem[a->nproblems++] = p;
}

static void check_chunkd(struct status_ask *a, const struct node *d)
{
    char label[256];
    long long silent = (a->now - d->last_seen) / NSEC_PER_SEC;
    nodes_label(d, label);
    if (d->replaced_by)
        return; /* its place is taken: nothing to be done about it */
    if (d->state == REPLFS__NODE_STATE__NODE_DEAD)
        status_problem(
            a, 1, "chunkd-dead",
            status_text(a,
                        "%s is dead: silent for %lld s; its chunks are being copied from "
                        "others",
                        label, silent),
            "start replfs-chunkd on that computer again; if its disk is gone for good, nothing "
            "needs to be done but to wait for the copies");
    else if (d->state == REPLFS__NODE_STATE__NODE_SUSPECT && d->conn && !d->reported)
        status_problem(a, 1, "chunkd-reporting", status_text(a, "%s is telling what it has", label),
                       "wait a moment");
    else if (d->state == REPLFS__NODE_STATE__NODE_SUSPECT)
        status_problem(
            a, 1, "chunkd-suspect",
            status_text(a, "%s does not answer: %s, silent for %lld s; repair begins after %u s",
                        label, d->conn ? "connected" : "not connected", silent,
                        a->n->cfg.dead_ms / 1000),
            "look whether the computer, its network and replfs-chunkd on it are running");
}

static void check_disk(struct status_ask *a, const struct node *d, const struct node_disk *k)
{
    char label[256];
    nodes_label(d, label);
    if (d->replaced_by)
        return;
    if (k->failed) {
        status_problem(
            a, 1, "disk-failed",
            status_text(a, "disk %s of %s failed: %s", k->path, label, k->error),
            "replace the disk or free the directory, then restart that chunkd with an empty "
            "directory in its place");
        return;
    }
    bool low = k->capacity && (double)k->avail < (1 - NEARLY_FULL) * (double)k->capacity;
    if (low && d->state != REPLFS__NODE_STATE__NODE_DEAD)
        status_problem(a, 1, "disk-full",
                       status_text(a, "disk %s of %s is nearly full: %llu MiB of %llu MiB are left",
                                   k->path, label, (unsigned long long)(k->avail >> 20),
                                   (unsigned long long)(k->capacity >> 20)),
                       "delete files, raise that chunkd's --capacity, or add a chunkd");
}

static void check_nodes(struct status_ask *a)
{
    bool any = false;
    for (uint32_t i = 1; i < a->n->nnodes; i++) {
        const struct node *d = a->n->node[i];
        if (!d)
            continue;
        any = true;
        check_chunkd(a, d);
        for (unsigned k = 0; k < d->ndisks; k++)
            check_disk(a, d, &d->disks[k]);
    }
    if (!any)
        status_problem(
            a, 2, "no-chunkd", "no chunkd has registered yet: files cannot be written",
            "start replfs-chunkd --data DIR --meta ADDRESS on the computers whose disks to use");
}

static void check_lost(struct status_ask *a)
{
    const struct status_count *k = &a->count;
    if (k->lost)
        status_problem(
            a, 2, "chunks-lost",
            status_text(a, "%llu chunks have no good copy left: parts of files cannot be read",
                        (unsigned long long)k->lost),
            "start chunkds that are away, they may still have copies; replfsctl info FILE shows "
            "a file's chunks; restore files that stay unreadable from elsewhere");
    if (k->damaged)
        status_problem(
            a, 2, "chunks-damaged",
            status_text(a, "%llu chunks have bytes that no copy in reach has: %s%s",
                        (unsigned long long)k->damaged, k->damaged_where,
                        k->damaged > 4 ? ", and more" : ""),
            "write these ranges again or restore the files from elsewhere (replfsctl info FILE "
            "names "
            "them; find MOUNT -inum NUMBER finds a file); chunkds that are away may have them");
    if (k->unavailable && !a->n->settling)
        status_problem(
            a, 2, "chunks-unavailable",
            status_text(a, "%llu chunks have all their copies on chunkds that do not answer",
                        (unsigned long long)k->unavailable),
            "start these chunkds: the data is there");
    if (a->n->future_chunks)
        status_problem(
            a, 2, "log-behind",
            status_text(a,
                        "chunkds have %llu chunks numbered beyond what the metadata log knows: "
                        "the log may have lost its end",
                        (unsigned long long)a->n->future_chunks),
            "do not delete anything; compare the metad's data directory with its backups (these "
            "chunks are kept)");
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

static void check_goals(struct status_ask *a)
{
    const struct status_count *k = &a->count;
    unsigned goal = highest_goal(k), hosts = a->n->hosts_up;
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
            status_text(a,
                        "files ask for %u copies, but only %u computers have a chunkd that is up",
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

static int by_severity(const void *x, const void *y)
{
    const Replfs__Problem *a = *(Replfs__Problem *const *)x, *b = *(Replfs__Problem *const *)y;
    if (a->severity != b->severity)
        return a->severity > b->severity ? -1 : 1;
    return strcmp(a->what, b->what);
}

void status_problems(struct status_ask *a, Replfs__StatusReply *r)
{
    check_lost(a);
    check_nodes(a);
    check_goals(a);
    qsort(a->problem, a->nproblems, sizeof *a->problem, by_severity);
    r->problems = a->problem;
    r->n_problems = a->nproblems;
}
