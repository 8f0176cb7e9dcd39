/* The disks of chunkds: what they say of them, and which ones each is known to have had.
 *
 * A chunkd tells all its disks in every heartbeat. One whose file system is not mounted has no number
 * (replfs.id is not there to be read), only the path where it should be; one that is no longer named in
 * the configuration is not told at all. Both are missed by comparing with what the chunkd had before. The
 * disks that it ever had are kept in the file `disks` of the metad's directory (as text, chunkd, disk
 * and path a line); losing it costs nothing but that comparison. An entry goes when another disk takes its
 * place at the same path. Thread context: under nodes.lock. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "nodes_int.h"

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
    while (fgets(line, sizeof line, f)) {
        unsigned id, disk;
        int at = 0;
        line[strcspn(line, "\n")] = '\0';
        struct node *d =
            sscanf(line, "%u %u %n", &id, &disk, &at) == 2 && at ? nodes_find(n, id) : NULL;
        if (!d || disk >= NODE_DISK_UNKNOWN || d->nhad == NODE_DISKS_MAX)
            continue;
        struct had_disk *h = &d->had[d->nhad++];
        h->disk = disk;
        snprintf(h->path, sizeof h->path, "%s", line + at);
    }
    fclose(f);
}

static void known_save(const struct nodes *n)
{
    char path[560], tmp[560];
    known_path(n, "", path);
    known_path(n, ".new", tmp);
    FILE *f = n->dir[0] ? fopen(tmp, "we") : NULL;
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
    memmove(d->had + i, d->had + i + 1, (--d->nhad - i) * sizeof *d->had);
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
    snprintf(h->path, sizeof h->path, "%s", k->path);
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
    char label[256];
    unsigned k = 0;
    bool news = false;
    for (size_t i = 0; i < ndisks && k < NODE_DISKS_MAX; i++) {
        const Replfs__DiskStat *s = disks[i];
        struct node_disk *t = &d->disks[k];
        uint32_t number = s->disk < NODE_DISK_UNKNOWN ? s->disk : NODE_DISK_UNKNOWN;
        bool failed_before = k < d->ndisks && t->disk == number && t->failed;
        t->disk = number;
        snprintf(t->path, sizeof t->path, "%s", s->path ? s->path : "");
        snprintf(t->error, sizeof t->error, "%s", s->error ? s->error : "");
        t->capacity = s->capacity;
        t->used = s->used;
        t->avail = s->avail;
        t->chunks = s->chunks;
        t->failed = s->failed;
        t->missing = s->missing;
        if (t->failed && !failed_before) {
            log_warn("disk %s of %s failed: %s; its chunks are copied from other chunkds", t->path,
                     nodes_label(d, label), t->error);
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
