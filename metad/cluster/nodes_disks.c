/* The disks of chunkds: what they say of them, and which ones each is known to have had.
 *
 * A chunkd tells all its disks in every heartbeat. One whose file system is not mounted has no number
 * (replfs.id is not there to be read), only the path where it should be; one that is no longer named in
 * the configuration is not told at all. Both are missed by comparing with what the chunkd had before. The
 * disks that it ever had are kept in the file `disks` of the metad's directory (as text, chunkd, disk
 * and path a line); losing it costs nothing but that comparison. An entry goes when another disk takes its
 * place at the same path.
 *
 * Space is what can be stored at a goal, not the sum of free bytes: a copy of everything must fit beside
 * the others, on a computer of its own, and directories on one file system have its space once. Thread
 * context: under nodes.mu, but for nodes_space. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/private.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"

/* ---- the file ---- */

static void known_path(const struct nodes *n, const char *suffix, char out[static 560])
{
    snprintf(out, 560, "%s/disks%s", n->dir, suffix);
}

void nodes_disks_load(struct nodes *n)
{
    char path[560], line[256];
    known_path(n, "", path);
    FILE *f = n->dir[0] ? fopen(path, "re") : NULL;
    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        unsigned id, disk;
        int at = 0;
        line[strcspn(line, "\n")] = '\0';
        struct node *d =
            sscanf(line, "%u %u %n", &id, &disk, &at) == 2 && at ? nodes_find(n, id) : NULL;
        if (!d || disk >= NODE_DISK_UNKNOWN || d->nhad == NODE_DISKS_MAX)
            continue;
        struct had_disk *h = &d->had[d->nhad++];
        h->disk = disk;
        snprintf(h->path, sizeof(h->path), "%s", line + at);
    }
    fclose(f);
}

static void known_save(const struct nodes *n)
{
    char path[560], tmp[560];
    known_path(n, "", path);
    known_path(n, ".new", tmp);
    FILE *f = n->dir[0] ? private_create(tmp) : NULL;
    if (!f)
        return;
    for (uint32_t i = 1; i < n->nnodes; i++)
        for (unsigned k = 0; n->node[i] && k < n->node[i]->nhad; k++)
            fprintf(f, "%u %u %s\n", i, n->node[i]->had[k].disk, n->node[i]->had[k].path);
    bool bad = fflush(f) || fsync(fileno(f));
    if (fclose(f) || bad || rename(tmp, path))
        log_warn("%s cannot be written: %s", path, err_str(-errno));
}

/* ---- comparing ---- */

static void forget(struct node *d, unsigned i)
{
    memmove(d->had + i, d->had + i + 1, (--d->nhad - i) * sizeof(*d->had));
}

/* Notes a disk that is here. True when that is news. */
static bool note_disk(struct node *d, const struct node_disk *k)
{
    struct had_disk *h = NULL;
    bool news = false;
    for (unsigned i = 0; i < d->nhad; i++) {
        if (d->had[i].disk == k->disk)
            h = &d->had[i];
        else if (!strcmp(d->had[i].path, k->path)) {
            forget(d, i--); /* its place is taken by this one */
            news = true;
        }
    }
    if (!h && d->nhad == NODE_DISKS_MAX)
        return news;
    news |= !h || strcmp(h->path, k->path) != 0;
    if (!h) {
        h = &d->had[d->nhad++];
        h->disk = k->disk;
    }
    snprintf(h->path, sizeof(h->path), "%s", k->path);
    h->chunks = k->failed ? h->chunks : k->chunks;
    return news;
}

bool nodes_disk_unnamed(const struct node *d, const struct had_disk *h)
{
    for (unsigned i = 0; i < d->ndisks; i++)
        if (d->disks[i].disk == h->disk || !strcmp(d->disks[i].path, h->path))
            return false;
    return d->ndisks > 0;
}

const struct had_disk *nodes_disk_had(const struct node *d, const char *path)
{
    for (unsigned i = 0; i < d->nhad; i++)
        if (!strcmp(d->had[i].path, path))
            return &d->had[i];
    return NULL;
}

void nodes_disks_set(struct nodes *n, struct node *d, Replfs__DiskStat **disks, size_t ndisks)
{
    lock_assert_held(&n->mu);
    char label[256];
    unsigned k = 0;
    bool news = false;
    for (size_t i = 0; i < ndisks && k < NODE_DISKS_MAX; i++) {
        const Replfs__DiskStat *s = disks[i];
        struct node_disk *t = &d->disks[k];
        uint32_t number = s->disk < NODE_DISK_UNKNOWN ? s->disk : NODE_DISK_UNKNOWN;
        bool failed_before = k < d->ndisks && t->disk == number && t->failed;
        t->disk = number;
        snprintf(t->path, sizeof(t->path), "%s", s->path ? s->path : "");
        snprintf(t->error, sizeof(t->error), "%s", s->error ? s->error : "");
        t->capacity = s->capacity;
        t->used = s->used;
        t->avail = s->avail;
        t->chunks = s->chunks;
        t->failed = s->failed;
        t->missing = s->missing;
        bool changed = failed_before && t->readonly != s->readonly;
        t->readonly = s->readonly;
        t->dead = s->dead;
        t->fs = s->fs;
        t->fs_capacity = s->fs_capacity;
        t->fs_avail = s->fs_avail;
        nodes_scrub_disk(t, s->scrub);
        t->shortage = s->shortage;
        if (t->failed && (!failed_before || changed)) {
            log_warn("disk %s of %s failed: %s; its chunks are copied from %s", t->path,
                     nodes_label(d, label), t->error,
                     t->readonly ? "it, while it can be read" : "other chunkds");
            nodes_start_walk(n);
        }
        if (number != NODE_DISK_UNKNOWN)
            news |= note_disk(d, t);
        k++;
    }
    d->ndisks = k;
    if (news)
        known_save(n);
    nodes_refresh(n, d);
}

/* ---- space ---- */

struct share { /* of one file system */
    uint32_t host, chunkd;
    uint64_t fs, capacity, avail, fs_capacity, fs_avail;
};

static int by_place(const void *x, const void *y)
{
    const struct share *a = x, *b = y;
    if (a->host != b->host)
        return a->host < b->host ? -1 : 1;
    if (a->fs != b->fs)
        return a->fs < b->fs ? -1 : 1;
    return a->chunkd < b->chunkd ? -1 : a->chunkd > b->chunkd;
}

/* All disks of chunkds that are not dead, those on one file system beside each other. */
static struct share *collect_shares(const struct nodes *n, size_t *count)
{
    size_t k = 0, max = 0;
    for (uint32_t i = 1; i < n->nnodes; i++)
        max += n->node[i] ? n->node[i]->ndisks : 0;
    struct share *v = calloc(max + 1, sizeof(*v));
    if (!v)
        abort();
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || n->table[i].state == REPLFS__NODE_STATE__NODE_DEAD || d->draining)
            continue;
        for (unsigned j = 0; j < d->ndisks; j++) {
            const struct node_disk *t = &d->disks[j];
            if (!t->failed)
                v[k++] = (struct share){d->host,  d->id,          t->fs,      t->capacity,
                                        t->avail, t->fs_capacity, t->fs_avail};
        }
    }
    qsort(v, k, sizeof(*v), by_place);
    *count = k;
    return v;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Directories on one file system together have no more than it has: the first of them keeps what all
 * have, the others nothing. Chunkds of one computer may share one, too. */
static void merge_shares(struct share *v, size_t k)
{
    for (size_t i = 1, first = 0; i < k; i++) {
        if (!v[i].fs || v[i].host != v[first].host || v[i].fs != v[first].fs) {
            first = i;
            continue;
        }
        v[first].capacity = least(v[first].capacity + v[i].capacity, v[first].fs_capacity);
        v[first].avail = least(v[first].avail + v[i].avail, v[first].fs_avail);
        v[i].capacity = v[i].avail = 0;
    }
}

static int larger_first(const void *x, const void *y)
{
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return a < b ? 1 : a > b ? -1 : 0;
}

uint64_t nodes_fit(uint64_t *unit, size_t n, unsigned goal)
{
    uint64_t rest = 0;
    if (!n || !goal)
        return 0;
    if (goal > n)
        goal = (unsigned)n;
    qsort(unit, n, sizeof(*unit), larger_first);
    for (size_t i = 0; i < n; i++)
        rest += unit[i];
    /* One with more than all that can be stored holds a copy of everything; the others share the rest. */
    for (size_t i = 0; goal > 1 && unit[i] > rest / goal; i++) {
        rest -= unit[i];
        goal--;
    }
    return rest / goal;
}

/* What fits at this goal: copies on distinct computers, or, with too few of them, on distinct chunkds. */
static uint64_t fit_shares(const struct nodes *n, const struct share *v, size_t k, unsigned goal,
                           bool capacity)
{
    uint64_t *host = calloc(n->nhosts + 1, sizeof(*host)), *chunkd = calloc(n->nnodes + 1, 8);
    uint64_t sum = 0;
    size_t hosts = 0, chunkds = 0;
    if (!host || !chunkd)
        abort();
    for (size_t i = 0; i < k; i++) {
        uint64_t bytes = capacity ? v[i].capacity : v[i].avail;
        sum += bytes;
        host[v[i].host] += bytes;
        chunkd[v[i].chunkd] += bytes;
    }
    for (uint32_t i = 0; i <= n->nhosts; i++)
        if (host[i])
            host[hosts++] = host[i];
    for (uint32_t i = 0; i < n->nnodes; i++)
        if (chunkd[i])
            chunkd[chunkds++] = chunkd[i];
    uint64_t fits = hosts >= goal ? nodes_fit(host, hosts, goal) : nodes_fit(chunkd, chunkds, goal);
    free(host);
    free(chunkd);
    return goal ? fits : sum;
}

void nodes_space(struct nodes *n, unsigned goal, uint64_t *total, uint64_t *avail)
{
    size_t k;
    LOCK_SCOPE(&n->mu);
    struct share *v = collect_shares(n, &k);
    merge_shares(v, k);
    *total = fit_shares(n, v, k, goal, true);
    *avail = fit_shares(n, v, k, goal, false);
    free(v);
}
