/* disks: several data directories behind one chunkd.
 *
 * It owns the stores, one a directory, and the inventory that says which of them has a chunk. A
 * directory's identity (cluster, chunkd id, disk number) lives in its replfs.id and never changes; one
 * without is a new disk when somebody has said so (store_id_init), else it is missing: most likely its
 * file system is not mounted. disks_new refuses sets of directories that do not belong together, because
 * serving them would mix up clusters.
 *
 * States of a disk: closed (no identity yet), open, readonly (it takes no writes any more), gone; the
 * last two are `failed`, for good until the daemon is started anew, and get no new bytes. The chunks of a
 * readonly one stay in the inventory, told as endangered: metad has them copied from there. Those of one
 * that is gone leave it; its store stays open for readers, as a failing disk often still gives most of
 * its bytes. What makes a disk fail: the store's own word, a directory whose replfs.id is gone or was never
 * there, a store that does not open while others do. What refuses the start instead: another cluster,
 * another chunkd, a lock held by another process, a format of a newer version: those are mistakes
 * of the operator, not of the disk.
 *
 * A new chunk goes to a disk with a probability proportional to its free space, chosen by a hash of
 * the chunk id so that no state is needed.
 *
 * Locks: disks.mu (free-space estimates, copy slots); inventory's is a leaf below it; never held
 * across calls of a store. Thread context: any; the store's callbacks come on its writer threads.
 */
#include "disks.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/lock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"

#define LOG_MODULE "disks"

struct disk {
    struct disks *owner;
    char *dir;
    struct store_id id; /* chunkd 0: the directory is fresh */
    uint32_t index;
    struct store *store; /* NULL: not open */
    atomic_bool failed;
    atomic_bool gone; /* failed, and what it has cannot be counted on any more */
    bool missing;     /* there is no disk at dir */
    char error[256];  /* owner->mu */
    uint64_t avail;   /* owner->mu: estimate, refreshed by disks_poll */
    uint64_t extra;   /* owner->mu: bytes in dir that the store does not know */
    unsigned copies;  /* owner->mu: being written */
};
struct disks {
    struct disks_config cfg;
    struct inventory *inv;
    struct lock mu;
    struct cond copy_done;
    char cluster[40]; /* mu */
    uint32_t chunkd;  /* mu */
    atomic_bool ready;
    atomic_bool shut;    /* to clients' bytes */
    atomic_uint writers; /* appends of clients under way */
    size_t n;
    struct disk v[];
};

/* ---- identity ---- */

/* Codes that are the operator's to solve: the whole daemon does not start. */
static bool refuses_start(int code)
{
    return code == -ERR_WRONG_CLUSTER || code == -ERR_LOCKED || code == -ERR_VERSION;
}

static int read_identity(struct disk *k)
{
    int rc = store_id_read(k->dir, &k->id);
    if (rc == -ENOENT) {
        memset(&k->id, 0, sizeof(k->id));
        rc = store_id_fresh(k->dir);
        k->missing = rc == -ENOENT;
        return rc;
    }
    if (rc == 0)
        k->index = k->id.disk;
    return rc;
}

/* An empty directory, or none, looks the same whether its disk is new or only not mounted. */
static const char missing_text[] =
    "it holds no replfs disk. Mount the file system that belongs there and start the daemon again; "
    "only for a new disk: replfs-chunkd --init --data=DIR";

/* The directories' identities; those that cannot be used are failed. 0, or why not even one can. */
static int read_identities(struct disks *d)
{
    size_t usable = 0;
    int rc = 0;
    for (size_t i = 0; i < d->n; i++) {
        struct disk *k = &d->v[i];
        int one = read_identity(k);
        usable += one == 0;
        if (one == 0)
            continue;
        const char *why = k->missing ? missing_text : err_str(one);
        rc = one == -ENOENT && rc != 0 ? rc : one; /* what is worse than missing counts */
        log_error("cannot use data directory %s: %s", k->dir, why);
        if (refuses_start(one))
            return one;
        if (d->n > 1)
            disk_fail(k, why, false);
    }
    return usable > 0 ? 0 : rc;
}

/* The directories must agree about cluster and chunkd, and differ in their disk numbers. */
static int check_identities(struct disks *d)
{
    const struct disk *first = NULL;
    for (size_t i = 0; i < d->n; i++) {
        const struct disk *k = &d->v[i];
        if (k->id.chunkd == 0)
            continue;
        if (k->index >= INVENTORY_DISKS) {
            log_error("%s/replfs.id names disk %u, at most %u are possible", k->dir, k->index,
                      INVENTORY_DISKS - 1);
            return -ERR_CORRUPT;
        }
        if (!first)
            first = k;
        if (strcmp(first->id.cluster, k->id.cluster) != 0) {
            log_error(
                "%s belongs to cluster %s, but %s to cluster %s: give --data only directories "
                "of one cluster",
                first->dir, first->id.cluster, k->dir, k->id.cluster);
            return -ERR_WRONG_CLUSTER;
        }
        if (first->id.chunkd != k->id.chunkd) {
            log_error("%s belongs to chunkd %u, but %s to chunkd %u: run one chunkd for each",
                      first->dir, first->id.chunkd, k->dir, k->id.chunkd);
            return -ERR_WRONG_CLUSTER;
        }
        for (size_t j = 0; j < i; j++)
            if (d->v[j].id.chunkd != 0 && d->v[j].index == k->index) {
                log_error("%s and %s both are disk %u of chunkd %u: one is a copy of the other, or "
                          "the same directory was given twice",
                          d->v[j].dir, k->dir, k->index, k->id.chunkd);
                return -ERR_WRONG_CLUSTER;
            }
    }
    if (first) {
        snprintf(d->cluster, sizeof(d->cluster), "%s", first->id.cluster);
        d->chunkd = first->id.chunkd;
    }
    return 0;
}

/* A number for a new disk. Those of missing ones are not known, but are most likely below the count. */
static uint32_t free_index(const struct disks *d)
{
    bool missing = false;
    for (size_t i = 0; i < d->n; i++)
        missing |= d->v[i].missing;
    for (uint32_t idx = missing ? (uint32_t)d->n : 0;; idx++) {
        bool taken = false;
        for (size_t i = 0; i < d->n; i++)
            taken |= d->v[i].index == idx;
        if (!taken)
            return idx;
    }
}

/* ---- failing ---- */

bool disk_failed(const struct disk *k)
{
    return atomic_load(&((struct disk *)k)->failed);
}

void disk_fail(struct disk *k, const char *why, bool readable)
{
    struct disks *d = k->owner;
    lock_acquire(&d->mu);
    bool first = !atomic_exchange(&k->failed, true);
    bool goes = !readable && !atomic_exchange(&k->gone, true);
    if (first || goes)
        snprintf(k->error, sizeof(k->error), "%s", why);
    lock_release(&d->mu);
    size_t lost = goes && k->index != DISK_NO_INDEX ? inventory_drop_disk(d->inv, k->index) : 0;
    if (k->missing && first)
        log_error("%s is left out; its chunks will be copied from other chunkds", k->dir);
    else if (goes)
        log_error("%s is taken out: %s. Its %zu chunks will be copied from other chunkds; replace "
                  "the disk and start the daemon again",
                  k->dir, why, lost);
    else if (first)
        log_error("%s takes no more data: %s. Its chunks are served and will be copied from it; "
                  "then replace the disk and start the daemon again",
                  k->dir, why);
}

static void on_changed(void *arg, uint64_t chunk, uint32_t len, uint64_t session)
{
    struct disk *k = arg;
    (void)session;
    if (!disk_failed(k))
        inventory_changed(k->owner->inv, chunk, k->index, len > 0);
}

static void on_failed(void *arg, const char *why, bool readable)
{
    disk_fail(arg, why, readable);
}

/* ---- opening ---- */

static bool load_chunk(void *arg, uint64_t chunk, uint32_t len, uint64_t session)
{
    struct disk *k = arg;
    struct disks *d = k->owner;
    uint32_t other = inventory_disk(d->inv, chunk);
    if (other != INVENTORY_NONE && other != k->index) {
        uint32_t other_len = 0;
        bool dying = false;
        for (size_t i = 0; i < d->n; i++)
            if (d->v[i].index == other && d->v[i].store) {
                store_chunk_len(d->v[i].store, chunk, &other_len, &session);
                dying = disk_failed(&d->v[i]);
            }
        if (other_len > len || (other_len == len && !dying))
            return true; /* a second copy, from before a disk was taken out: the longer one counts,
                            or that on the better disk */
    }
    inventory_changed(d->inv, chunk, k->index, true);
    return true;
}

static int open_one(struct disks *d, struct disk *k)
{
    if (k->id.chunkd == 0) {
        struct store_id id = {.chunkd = d->chunkd};
        snprintf(id.cluster, sizeof(id.cluster), "%s", d->cluster);
        id.disk = k->index = free_index(d);
        if (id.disk >= INVENTORY_DISKS)
            return -ENOSPC;
        int rc = store_id_write(k->dir, &id);
        if (rc != 0)
            return rc;
        k->id = id;
        log_info("%s is now disk %u of chunkd %u, cluster %s", k->dir, id.disk, id.chunkd,
                 id.cluster);
    }
    struct store_config sc = {
        .dir = k->dir,
        .cluster = d->cluster,
        .chunkd = d->chunkd,
        .capacity = d->cfg.capacity,
        .reserve = d->cfg.reserve,
        .reserve_percent = d->cfg.reserve_percent,
        .segment_size = d->cfg.segment_size,
        .rebuild_index = d->cfg.rebuild_index,
        .changed = on_changed,
        .failed = on_failed,
        .arg = k,
    };
    int rc = store_open(&sc, &k->store);
    if (rc != 0) {
        k->store = NULL;
        return rc;
    }
    struct store_stat st;
    store_stat(k->store, &st);
    if (st.failed)
        disk_fail(k, st.error, st.readable);
    store_walk(k->store, load_chunk, k);
    k->avail = st.avail;
    return 0;
}

/* Two directories on one file system are one disk: nothing is gained, and both fail together. */
static void warn_shared(const struct disks *d)
{
    uint64_t fs[INVENTORY_DISKS] = {0};
    struct store_stat st;
    for (size_t i = 0; i < d->n; i++) {
        if (!d->v[i].store)
            continue;
        store_stat(d->v[i].store, &st);
        fs[i] = st.fs;
        for (size_t j = 0; j < i && st.fs; j++)
            if (fs[j] == st.fs) {
                log_warn("%s and %s are on one file system: its space is counted once, and they "
                         "fail together; is one not mounted where it should be?",
                         d->v[j].dir, d->v[i].dir);
                break;
            }
    }
}

static int open_all(struct disks *d)
{
    size_t usable = 0;
    int last = -EIO;
    for (size_t i = 0; i < d->n; i++) {
        struct disk *k = &d->v[i];
        int rc = disk_failed(k) ? -EIO : open_one(d, k);
        if (rc != 0 && refuses_start(rc))
            return rc;
        if (rc == 0)
            usable++;
        else {
            last = rc;
            disk_fail(k, err_str(rc), false);
        }
    }
    if (usable == 0) {
        log_error("no usable data directory (%s has: %s)", d->v[0].dir, d->v[0].error);
        return last;
    }
    warn_shared(d);
    atomic_store(&d->ready, true);
    return 0;
}

int disks_new(const struct disks_config *cfg, struct disks **out)
{
    assert(cfg->ndirs > 0 && cfg->ndirs <= INVENTORY_DISKS);
    struct disks *d = calloc(1, sizeof(*d) + cfg->ndirs * sizeof(d->v[0]));
    if (!d)
        return -ENOMEM;
    d->cfg = *cfg;
    d->n = cfg->ndirs;
    d->inv = inventory_new();
    lock_init(&d->mu, LOCK_DISKS);
    cond_init(&d->copy_done);
    int rc = 0;
    for (size_t i = 0; i < d->n; i++) {
        struct disk *k = &d->v[i];
        k->owner = d;
        k->index = DISK_NO_INDEX;
        k->dir = strdup(cfg->dirs[i]);
        rc = k->dir ? rc : -ENOMEM;
    }
    if (rc == 0)
        rc = read_identities(d);
    if (rc == 0)
        rc = check_identities(d);
    if (rc == 0 && d->chunkd != 0)
        rc = open_all(d);
    if (rc != 0) {
        disks_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

int disks_adopt(struct disks *d, const char *cluster, uint32_t chunkd)
{
    if (d->chunkd != 0) {
        if (d->chunkd == chunkd && strcmp(d->cluster, cluster) == 0)
            return 0;
        log_error(
            "%s belongs to chunkd %u of cluster %s, but metad calls us chunkd %u of cluster %s: "
            "check --meta and --data",
            d->v[0].dir, d->chunkd, d->cluster, chunkd, cluster);
        return -ERR_WRONG_CLUSTER;
    }
    lock_acquire(&d->mu);
    snprintf(d->cluster, sizeof(d->cluster), "%s", cluster);
    d->chunkd = chunkd;
    lock_release(&d->mu);
    return open_all(d);
}

void disks_free(struct disks *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->n; i++) {
        if (d->v[i].store)
            store_close(d->v[i].store);
        free(d->v[i].dir);
    }
    inventory_free(d->inv);
    cond_destroy(&d->copy_done);
    lock_destroy(&d->mu);
    free(d);
}

uint32_t disks_identity(struct disks *d, char *cluster)
{
    LOCK_SCOPE(&d->mu);
    memcpy(cluster, d->cluster, sizeof(d->cluster));
    return d->chunkd;
}

bool disks_ready(struct disks *d)
{
    return atomic_load(&d->ready);
}

struct inventory *disks_inventory(struct disks *d)
{
    return d->inv;
}

/* ---- finding and placing ---- */

static struct disk *by_index(struct disks *d, uint32_t index)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].index == index)
            return &d->v[i];
    return NULL;
}

struct disk *disks_find(struct disks *d, uint64_t chunk, bool for_read)
{
    if (!disks_ready(d))
        return NULL;
    uint32_t index = inventory_disk(d->inv, chunk);
    if (index != INVENTORY_NONE)
        return by_index(d, index);
    for (size_t i = 0; for_read && i < d->n; i++) {
        uint32_t len;
        uint64_t session;
        struct disk *k = &d->v[i];
        if (disk_failed(k) && k->store && store_chunk_len(k->store, chunk, &len, &session) == 0)
            return k;
    }
    return NULL;
}

static uint64_t weight(const struct disk *k, uint32_t len)
{
    return !disk_failed(k) && k->store && k->avail > len ? k->avail : 0;
}

/* mu held. */
static int choose(struct disks *d, uint64_t chunk, uint32_t len, struct disk **out)
{
    lock_assert_held(&d->mu);
    uint64_t total = 0;
    bool healthy = false;
    for (size_t i = 0; i < d->n; i++) {
        total += weight(&d->v[i], len);
        healthy |= !disk_failed(&d->v[i]);
    }
    if (total == 0)
        return healthy ? -ENOSPC : -EIO;
    uint64_t x = hash_u64(chunk) % total;
    struct disk *k = d->v;
    while (x >= weight(k, len))
        x -= weight(k++, len);
    k->avail -= len;
    *out = k;
    return 0;
}

int disks_place(struct disks *d, uint64_t chunk, uint32_t len, struct disk **out)
{
    LOCK_SCOPE(&d->mu);
    uint32_t index = inventory_disk(d->inv, chunk);
    if (index == INVENTORY_NONE) {
        struct disk *k;
        int rc = choose(d, chunk, len, &k);
        if (rc != 0)
            return rc;
        index = inventory_reserve(d->inv, chunk, k->index);
    }
    *out = by_index(d, index);
    return *out && !disk_failed(*out) ? 0 : -EIO;
}

void disks_append_failed(struct disks *d, uint64_t chunk, struct disk *k)
{
    uint32_t len;
    uint64_t session;
    if (store_chunk_len(k->store, chunk, &len, &session) == -ERR_NO_CHUNK)
        inventory_unreserve(d->inv, chunk);
}

int disks_copy_enter(struct disks *d, uint64_t chunk, uint32_t len, struct disk **out)
{
    LOCK_SCOPE(&d->mu);
    for (;;) {
        struct disk *k = NULL;
        uint32_t index = inventory_disk(d->inv, chunk);
        if (index != INVENTORY_NONE)
            k = by_index(d, index);
        if (!k || disk_failed(k)) {
            int rc = choose(d, chunk, len, &k);
            if (rc != 0)
                return rc;
        }
        if (k->copies < DISKS_COPIES) {
            k->copies++;
            *out = k;
            return 0;
        }
        cond_wait(&d->copy_done, &d->mu);
    }
}

void disks_copy_leave(struct disks *d, struct disk *k)
{
    LOCK_SCOPE(&d->mu);
    assert(k->copies > 0);
    k->copies--;
    cond_broadcast(&d->copy_done);
}

struct disk *disks_roomiest(struct disks *d, uint64_t need)
{
    LOCK_SCOPE(&d->mu);
    struct disk *best = NULL;
    for (size_t i = 0; i < d->n; i++) {
        struct disk *k = &d->v[i];
        if (!disk_failed(k) && k->store && k->avail > need && (!best || k->avail > best->avail))
            best = k;
    }
    return best;
}

void disk_set_extra(struct disk *k, uint64_t bytes)
{
    LOCK_SCOPE(&k->owner->mu);
    k->extra = bytes;
}

struct store *disk_store(const struct disk *k)
{
    return k->store;
}

const char *disk_dir(const struct disk *k)
{
    return k->dir;
}

uint32_t disk_index(const struct disk *k)
{
    return k->index;
}

size_t disks_count(const struct disks *d)
{
    return d->n;
}

struct disk *disks_at(struct disks *d, size_t i)
{
    assert(i < d->n);
    return &d->v[i];
}

/* ---- statistics ---- */

/* A directory pulled away under an open store shows first in its identity file. */
static void check_present(struct disk *k)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof(path), "%s/replfs.id", k->dir);
    if (stat(path, &st) == 0 || errno == EACCES || errno == ENOMEM || errno == EINTR)
        return;
    char why[256];
    snprintf(why, sizeof(why), "its replfs.id cannot be found any more: %s", strerror(errno));
    disk_fail(k, why, false);
}

void disks_poll(struct disks *d, struct disk_info *out)
{
    bool ready = disks_ready(d);
    for (size_t i = 0; i < d->n; i++) {
        struct disk *k = &d->v[i];
        struct store_stat st = {0};
        if (ready && k->store && !atomic_load(&k->gone))
            check_present(k);
        if (ready && k->store)
            store_stat(k->store, &st);
        if (ready && st.failed && !disk_failed(k))
            disk_fail(k, st.error, st.readable);
        bool gone = atomic_load(&k->gone);
        struct disk_info *o = &out[i];
        *o = (struct disk_info){.index = k->index,
                                .dir = k->dir,
                                .capacity = st.capacity,
                                .used = st.used,
                                .missing = k->missing,
                                .dead = st.dead_bytes,
                                .fs = st.fs,
                                .fs_capacity = st.fs_capacity,
                                .fs_avail = st.fs_avail,
                                .shortage = st.shortage,
                                .failed = disk_failed(k)};
        o->readonly = o->failed && !gone && k->store;
        o->avail = o->failed ? 0 : st.avail;
        o->chunks = gone ? 0 : st.chunks;
        LOCK_SCOPE(&d->mu);
        o->used += k->extra;
        uint64_t left = o->capacity > o->used ? o->capacity - o->used : 0;
        o->avail = o->avail < left ? o->avail : left;
        k->avail = o->avail;
        memcpy(o->error, k->error, sizeof(o->error));
    }
}

/* ---- what metad says ---- */

void disks_shut(struct disks *d, bool shut)
{
    if (atomic_exchange(&d->shut, shut) != shut)
        log_info("%s", shut ? "this chunkd is being drained: it takes no more bytes of clients"
                            : "this chunkd is not drained any more");
}

/* Counted before it looks: whoever shuts the disks and then sees nobody counted has shut out all that come. */
bool disks_writer_enter(struct disks *d)
{
    atomic_fetch_add(&d->writers, 1);
    if (!atomic_load(&d->shut))
        return true;
    disks_writer_leave(d);
    return false;
}

void disks_writer_leave(struct disks *d)
{
    atomic_fetch_sub(&d->writers, 1);
}

bool disks_are_shut(struct disks *d)
{
    return atomic_load(&d->shut) && atomic_load(&d->writers) == 0;
}

void disks_set_limits(struct disks *d, const struct disk_limit *limits, size_t n)
{
    for (size_t i = 0; disks_ready(d) && i < d->n; i++) {
        uint64_t bytes = UINT64_MAX;
        for (size_t k = 0; k < n; k++)
            if (limits[k].index == d->v[i].index)
                bytes = limits[k].bytes;
        if (d->v[i].store)
            store_set_limit(d->v[i].store, bytes);
    }
}
