/* scrub: each disk has a thread that goes through its chunks by number, in passes, and reads their bytes in pieces of up to
 * 1 MiB from the disk itself (STORE_SCRUB), with all CRCs checked.
 *
 *   waiting (disks not open) -> running <-> paused (an administrator said so)
 *                                  \-> stopped (the disk failed; for good)
 *
 * A pass begins when the one before is over, or when an administrator says so. How fast it reads is up to
 * scrub_pace.h; where it is, and since when which bytes were not checked, to scrub_state.h, whose file is written every
 * SAVE_NS and survives restarts.
 *
 * A copy with a block that is bad or cannot be read, twice in a row, is noted, and the pass goes on behind the chunk: all
 * of it will be replaced. The heartbeat tells metad (scrub_bad), which treats it like a client's report: verifies,
 * copies a good one here, or drops it. Nothing here changes a chunk. Every LOOK_NS the noted ones are read again from
 * their bad block on: one that is good by now, or gone, was healed. So no answer of metad is needed, and none can be lost.
 *
 * Failure modes: a disk that fails stops its thread alone. A state that cannot be saved is logged once and kept in
 * memory. Descriptors or memory that are short: tried again later. A clock that goes back: scrub_state_clock().
 *
 * Threads: its own; I/O priority idle (where the scheduler of the disk heeds it). Locks: mu guards all that others read
 * or say; nothing of the store is called while it is held. */
#include "scrub.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/compare.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"
#include "scrub_state.h"

#define LOG_MODULE "scrub"
#define PIECE (1u << 20)
#define BLOCK 4096u
#define BATCH 65536u                  /* chunks looked up at once, */
#define FILL_NS (3600 * NSEC_PER_SEC) /* and anew after that time */
#define SAVE_NS (10 * NSEC_PER_SEC)
#define LOOK_NS NSEC_PER_SEC
#define LOOK_MAX 64u /* noted copies read in one turn */
#define IDLE_NS NSEC_PER_SEC
#define RATE_NS (2 * NSEC_PER_SEC)
#define BUSY_NS NSEC_PER_SEC /* so long after a client's bytes */
#define TELL_MAX_NS (3600 * NSEC_PER_SEC)

struct scrub_disk {
    struct scrub *owner;
    struct disk *disk;
    pthread_t tid;
    bool runs;
    /* mu */
    struct scrub_state st; /* changed by the thread alone, and by commands */
    bool known, stopped;
    uint64_t left, rate;
    unsigned asked;               /* commands so far: the thread looks anew */
    bool restart;                 /* a pass is to begin, */
    enum scrub_mode restart_mode; /* in this mode */
    bool dirty;                   /* differs from the file */
    /* the thread's own */
    struct chunk_len {
        uint64_t chunk;
        uint32_t len;
    } * batch;
    size_t nbatch, at;
    bool last; /* nothing is behind the batch */
    uint64_t traffic, rate_bytes;
    int64_t busy_until, saved, looked, rate_at, filled;
    int64_t due; /* of the next piece */
    unsigned look_at, heard;
    bool save_failed;
};
struct scrub {
    struct disks *disks;
    struct lock mu;
    struct cond wake;
    bool stopping;  /* mu */
    uint64_t limit; /* mu */
    int64_t cycle;  /* mu */
    size_t n;
    struct scrub_disk v[];
};

/* ---- small things ---- */

/* Waits until then, or a command or the end. */
static void nap(struct scrub_disk *k, int64_t until)
{
    struct scrub *s = k->owner;
    LOCK_SCOPE(&s->mu);
    unsigned asked = k->asked;
    while (!s->stopping && k->asked == asked && cond_sleep_until(&s->wake, &s->mu, until))
        ;
}

static bool is_stopping(struct scrub *s)
{
    LOCK_SCOPE(&s->mu);
    return s->stopping;
}

/* Linux has no wrapper for it. */
static void io_idle(void)
{
    enum { WHO_PROCESS = 1, CLASS_IDLE = 3, CLASS_SHIFT = 13 };
    syscall(SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE << CLASS_SHIFT);
}

/* When the disk was made, as its identity file tells. */
static int64_t disk_made(const char *dir)
{
    char path[4200];
    struct stat st;
    snprintf(path, sizeof(path), "%s/replfs.id", dir);
    if (stat(path, &st))
        return clock_wall();
    return st.st_mtim.tv_sec * NSEC_PER_SEC + st.st_mtim.tv_nsec;
}

static void state_load(struct scrub_disk *k)
{
    struct scrub *s = k->owner;
    char cluster[40];
    const char *dir = disk_dir(k->disk);
    struct scrub_state *t = malloc(sizeof(*t));
    if (!t)
        abort();
    scrub_state_init(t, disks_identity(s->disks, cluster), disk_index(k->disk), disk_made(dir));
    int rc = scrub_state_load(t, dir);
    if (rc != 0 && rc != -ENOENT)
        log_warn("%s/replfs.scrub cannot be used (%s): the scrub of this disk begins anew", dir,
                 err_str(rc));
    scrub_state_clock(t, clock_wall());
    LOCK_SCOPE(&s->mu);
    k->st = *t;
    k->known = true;
    free(t);
}

static void state_save(struct scrub_disk *k, bool now)
{
    struct scrub *s = k->owner;
    if (!now && clock_mono() - k->saved < SAVE_NS)
        return;
    k->saved = clock_mono();
    struct scrub_state *t = malloc(sizeof(*t));
    if (!t)
        return;
    lock_acquire(&s->mu);
    bool dirty = k->known && k->dirty;
    *t = k->st;
    k->dirty = false;
    lock_release(&s->mu);
    int rc = dirty && !disk_failed(k->disk) ? scrub_state_save(t, disk_dir(k->disk)) : 0;
    if (rc != 0 && !k->save_failed)
        log_warn("%s/replfs.scrub cannot be written: %s; after a restart the scrub goes on from "
                 "an earlier place",
                 disk_dir(k->disk), err_str(rc));
    k->save_failed = rc != 0;
    free(t);
}

/* ---- checking ---- */

enum verdict { VERDICT_GOOD, VERDICT_BAD, VERDICT_GONE, VERDICT_LATER };

static enum verdict read_once(struct store *store, uint64_t chunk, uint32_t off, uint32_t len)
{
    struct store_read r;
    int rc = store_read(store, chunk, off, len, STORE_SCRUB, &r);
    if (rc == 0) {
        buf_unref(r.data);
        free(r.spans);
        return VERDICT_GOOD;
    }
    if (rc == -ERR_NO_CHUNK || rc == -ERR_SHORT)
        return VERDICT_GONE; /* or replaced by one that is shorter */
    return rc == -ERR_CRC || rc == -EIO ? VERDICT_BAD : VERDICT_LATER;
}

/* Reads [off, off + len); of a bad range *bad is the first block that stays bad. */
static enum verdict check_range(struct scrub_disk *k, uint64_t chunk, uint32_t off, uint32_t len,
                                uint32_t *bad)
{
    struct store *store = disk_store(k->disk);
    uint32_t step = len, pos = off, end = off + len;
    while (pos < end) {
        uint32_t n = end - pos < step ? end - pos : step;
        enum verdict v = read_once(store, chunk, pos, n);
        if (disk_failed(k->disk))
            return VERDICT_LATER; /* it says nothing of the copy */
        if (v == VERDICT_GOOD)
            pos += n;
        else if (v == VERDICT_BAD && step > BLOCK)
            step = step / 2 > BLOCK ? step / 2 / BLOCK * BLOCK : BLOCK;
        else if (v != VERDICT_BAD)
            return v;
        else if (read_once(store, chunk, pos, n) == VERDICT_BAD) { /* once more: sure */
            *bad = pos;
            return VERDICT_BAD;
        }
    }
    return VERDICT_GOOD;
}

static void note_bad(struct scrub_disk *k, uint64_t chunk, uint32_t off)
{
    uint32_t len;
    uint64_t session;
    if (store_chunk_len(disk_store(k->disk), chunk, &len, &session) != 0)
        return;
    LOCK_SCOPE(&k->owner->mu);
    if (!scrub_state_bad(&k->st, chunk, session, off))
        return;
    k->dirty = true;
    log_warn("%s: the copy of chunk %016llx is bad at byte %u of %u: metad is told",
             disk_dir(k->disk), (unsigned long long)chunk, off, len);
}

/* Whether the noted copy, all of it from its bad block on, is good by now. */
static enum verdict look_again(struct scrub_disk *k, const struct scrub_bad *b)
{
    uint32_t len = 0, bad;
    uint64_t session = 0;
    int rc = store_chunk_len(disk_store(k->disk), b->chunk, &len, &session);
    if (rc == -ERR_NO_CHUNK || (rc == 0 && (session != b->session || len <= b->off)))
        return VERDICT_GONE;
    if (rc != 0)
        return VERDICT_LATER;
    enum verdict v = VERDICT_GOOD;
    for (uint32_t pos = b->off; v == VERDICT_GOOD && pos < len && !is_stopping(k->owner);) {
        uint32_t n = pos == b->off && len - pos > BLOCK ? BLOCK : len - pos;
        n = n < PIECE ? n : PIECE;
        v = check_range(k, b->chunk, pos, n, &bad);
        pos += n;
    }
    return is_stopping(k->owner) ? VERDICT_LATER : v;
}

/* Some of the noted copies each time. */
static void look_at_bad(struct scrub_disk *k)
{
    struct scrub *s = k->owner;
    if (clock_mono() - k->looked < LOOK_NS)
        return;
    k->looked = clock_mono();
    for (unsigned i = 0; i < LOOK_MAX; i++) {
        lock_acquire(&s->mu);
        unsigned n = k->st.nbad;
        k->look_at = k->look_at < n ? k->look_at : 0;
        struct scrub_bad b = n ? k->st.bad[k->look_at] : (struct scrub_bad){0};
        lock_release(&s->mu);
        if (i >= n)
            break;
        enum verdict v = look_again(k, &b);
        lock_acquire(&s->mu);
        if (v == VERDICT_GOOD || v == VERDICT_GONE) {
            scrub_state_good(&k->st, k->look_at);
            k->dirty = true;
            log_info("%s: the bad copy of chunk %016llx is %s", disk_dir(k->disk),
                     (unsigned long long)b.chunk, v == VERDICT_GOOD ? "healed" : "gone");
        } else {
            k->look_at++;
        }
        lock_release(&s->mu);
    }
}

/* ---- which chunk is next ---- */

/* The BATCH lowest chunks from a number on, in a heap whose root is the highest of them. */
struct gather {
    struct chunk_len *v;
    size_t n;
    uint64_t from, upto, bytes, highest;
    bool more;
};

static void sift(struct chunk_len *v, size_t n, size_t i)
{
    for (size_t c = 2 * i + 1; c < n; i = c, c = 2 * i + 1) {
        if (c + 1 < n && v[c + 1].chunk > v[c].chunk)
            c++;
        if (v[i].chunk >= v[c].chunk)
            return;
        struct chunk_len t = v[i];
        v[i] = v[c];
        v[c] = t;
    }
}

static bool gather_chunk(void *arg, uint64_t chunk, uint32_t len, uint64_t session)
{
    struct gather *g = arg;
    (void)session;
    if (chunk < g->from || chunk > g->upto)
        return true;
    g->bytes += len;
    g->highest = chunk > g->highest ? chunk : g->highest;
    if (g->n < BATCH) {
        g->v[g->n++] = (struct chunk_len){chunk, len};
        for (size_t i = g->n / 2; g->n == BATCH && i-- > 0;)
            sift(g->v, g->n, i);
        return true;
    }
    g->more = true;
    if (chunk < g->v[0].chunk) {
        g->v[0] = (struct chunk_len){chunk, len};
        sift(g->v, g->n, 0);
    }
    return true;
}

static int by_number(const void *a, const void *b)
{
    const struct chunk_len *x = a, *y = b;
    return compare_u64(&x->chunk, &y->chunk);
}

/* What of the pass is still to come. Done again every hour, so that copies that came meanwhile are not passed over. */
static void batch_fill(struct scrub_disk *k, unsigned asked)
{
    struct scrub *s = k->owner;
    struct gather g = {.v = k->batch};
    lock_acquire(&s->mu);
    g.from = k->st.chunk;
    g.upto = k->st.upto ? k->st.upto : UINT64_MAX;
    uint32_t off = k->st.off;
    lock_release(&s->mu);
    store_walk(disk_store(k->disk), gather_chunk, &g);
    qsort(g.v, g.n, sizeof(*g.v), by_number);
    k->nbatch = g.n;
    k->at = 0;
    k->last = !g.more;
    k->filled = clock_mono();
    LOCK_SCOPE(&s->mu);
    if (k->st.upto == 0 && k->asked == asked)
        k->st.upto = g.highest;
    bool inside = g.n && g.v[0].chunk == k->st.chunk && g.v[0].len > off;
    k->left = g.bytes - (inside ? off : 0);
}

/* ---- a turn ---- */

static void pass_begin(struct scrub_disk *k, enum scrub_mode mode)
{
    scrub_state_begin(&k->st, clock_wall(), mode);
    k->dirty = true;
    k->nbatch = k->at = 0;
    k->last = false;
}

/* A command that came meanwhile wins. */
static void pass_over(struct scrub_disk *k, unsigned asked)
{
    LOCK_SCOPE(&k->owner->mu);
    if (k->asked != asked)
        return;
    if (k->st.done == 0) { /* an empty disk: its pass has still to begin */
        k->st.begin = k->st.cur[0].time = clock_wall();
        k->st.upto = 0;
        k->last = false;
        return;
    }
    log_debug("%s: pass %llu is over: %llu bytes", disk_dir(k->disk),
              (unsigned long long)k->st.pass, (unsigned long long)k->st.done);
    scrub_state_over(&k->st);
    pass_begin(k, SCRUB_EVEN);
}

static void count_rate(struct scrub_disk *k, uint64_t bytes)
{
    int64_t now = clock_mono(), took = now - k->rate_at;
    k->rate_bytes += bytes;
    if (took < RATE_NS)
        return;
    k->rate = (uint64_t)((double)k->rate_bytes * NSEC_PER_SEC / (double)took);
    k->rate_bytes = 0;
    k->rate_at = now;
}

/* The pass has come to chunk, off, having read n bytes on the way, and passed over some that are not there or not worth it
 * any more. A command that came meanwhile wins. */
static void reached(struct scrub_disk *k, unsigned asked, uint64_t chunk, uint32_t off, uint32_t n,
                    uint32_t over)
{
    LOCK_SCOPE(&k->owner->mu);
    count_rate(k, n);
    if (k->asked != asked)
        return;
    k->st.done += n;
    k->left = k->left > (uint64_t)n + over ? k->left - n - over : 0;
    scrub_state_reached(&k->st, clock_wall(), chunk, off, k->left);
    k->dirty = true;
}

/* Sees to what was asked. False: paused. *asked: so many commands are heeded. */
static bool heed(struct scrub_disk *k, unsigned *asked)
{
    struct scrub *s = k->owner;
    uint64_t traffic = store_traffic(disk_store(k->disk));
    int64_t now = clock_mono(), wall = clock_wall();
    if (traffic != k->traffic)
        k->busy_until = now + BUSY_NS;
    k->traffic = traffic;
    LOCK_SCOPE(&s->mu);
    *asked = k->asked;
    if (k->heard != k->asked)
        k->due = 0;
    k->heard = k->asked;
    if (wall < k->st.begin)
        scrub_state_clock(&k->st, wall);
    if (k->st.pass == 0 || k->restart)
        pass_begin(k, k->restart ? k->restart_mode : SCRUB_EVEN);
    k->restart = false;
    return !k->st.paused;
}

/* After n bytes were read in so long: until when the next ones wait. */
static int64_t next_due(struct scrub_disk *k, uint32_t n, int64_t took)
{
    struct scrub *s = k->owner;
    int64_t now = clock_mono();
    LOCK_SCOPE(&s->mu);
    struct scrub_pace p = {.mode = k->st.mode,
                           .busy = now < k->busy_until,
                           .limit = s->limit,
                           .cycle = s->cycle,
                           .elapsed = clock_wall() - k->st.begin,
                           .left = k->left + n};
    return now + scrub_pace_wait(scrub_pace_rate(&p), n, took);
}

/* Checks the next piece. Bytes read, or more than 0 when there may be more; 0: the pass has no more. */
static uint32_t scrub_piece(struct scrub_disk *k, unsigned asked)
{
    struct scrub *s = k->owner;
    if ((k->at == k->nbatch && !k->last) || clock_mono() - k->filled > FILL_NS)
        batch_fill(k, asked);
    lock_acquire(&s->mu);
    uint64_t chunk = k->st.chunk;
    uint32_t off = k->st.off, len = 0, bad;
    lock_release(&s->mu);
    while (k->at < k->nbatch && k->batch[k->at].chunk < chunk)
        k->at++;
    if (k->at == k->nbatch)
        return k->last ? 0 : 1;
    off = k->batch[k->at].chunk == chunk ? off : 0;
    chunk = k->batch[k->at].chunk;
    if (store_chunk_len(disk_store(k->disk), chunk, &len, NULL) != 0 || off >= len) {
        uint32_t was = k->batch[k->at].len;
        reached(k, asked, chunk + 1, 0, 0, was > off ? was - off : 0); /* gone meanwhile */
        return 1;
    }
    uint32_t n = len - off < PIECE ? len - off : PIECE;
    switch (check_range(k, chunk, off, n, &bad)) {
    case VERDICT_GOOD:
        reached(k, asked, off + n < len ? chunk : chunk + 1, off + n < len ? off + n : 0, n, 0);
        return n;
    case VERDICT_BAD:
        note_bad(k, chunk, bad);
        reached(k, asked, chunk + 1, 0, n, len - off - n);
        return n;
    case VERDICT_GONE: /* it is looked at again, if it is there */
        return 1;
    case VERDICT_LATER:
        break;
    }
    nap(k, clock_mono() + IDLE_NS);
    return 1;
}

static void scrub_turn(struct scrub_disk *k)
{
    unsigned asked;
    bool runs = heed(k, &asked);
    look_at_bad(k);
    state_save(k, false);
    int64_t now = clock_mono();
    if (!runs || now < k->due) {
        nap(k, runs && k->due - now < IDLE_NS ? k->due : now + IDLE_NS);
        return;
    }
    uint32_t n = scrub_piece(k, asked);
    if (n > 0) {
        k->due = next_due(k, n, clock_mono() - now);
        return;
    }
    pass_over(k, asked);
    k->due = now + IDLE_NS; /* not a thousand passes of a disk with a chunk or two */
}

static void *scrub_main(void *arg)
{
    struct scrub_disk *k = arg;
    io_idle();
    while (!is_stopping(k->owner) && !disks_ready(k->owner->disks))
        nap(k, clock_mono() + IDLE_NS / 4);
    if (!is_stopping(k->owner) && disk_store(k->disk) && !disk_failed(k->disk))
        state_load(k);
    k->batch = malloc(BATCH * sizeof(*k->batch));
    if (!k->batch)
        abort();
    while (!is_stopping(k->owner)) {
        bool works = k->known && !disk_failed(k->disk);
        lock_acquire(&k->owner->mu);
        k->stopped = !works;
        lock_release(&k->owner->mu);
        if (works)
            scrub_turn(k);
        else
            nap(k, clock_mono() + IDLE_NS);
    }
    state_save(k, true);
    free(k->batch);
    return NULL;
}

/* ---- what others say and ask ---- */

int scrub_new(struct disks *d, struct scrub **out)
{
    size_t n = disks_count(d);
    struct scrub *s = calloc(1, sizeof(*s) + n * sizeof(s->v[0]));
    if (!s)
        return -ENOMEM;
    s->disks = d;
    s->n = n;
    s->limit = SCRUB_RATE;
    s->cycle = (int64_t)SCRUB_CYCLE_MS * NSEC_PER_MSEC;
    lock_init(&s->mu, LOCK_SCRUB);
    cond_init(&s->wake);
    for (size_t i = 0; i < n; i++) {
        struct scrub_disk *k = &s->v[i];
        k->owner = s;
        k->disk = disks_at(d, i);
        int rc = thread_start(&k->tid, "scrub", scrub_main, k);
        if (rc != 0) {
            scrub_free(s);
            return -rc;
        }
        k->runs = true;
    }
    *out = s;
    return 0;
}

void scrub_free(struct scrub *s)
{
    if (!s)
        return;
    lock_acquire(&s->mu);
    s->stopping = true;
    cond_broadcast(&s->wake);
    lock_release(&s->mu);
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].runs)
            pthread_join(s->v[i].tid, NULL);
    cond_destroy(&s->wake);
    lock_destroy(&s->mu);
    free(s);
}

void scrub_settings(struct scrub *s, uint64_t cycle_ms, uint64_t rate)
{
    if (!s)
        return;
    LOCK_SCOPE(&s->mu);
    int64_t cycle = cycle_ms && cycle_ms < INT64_MAX / NSEC_PER_MSEC
                        ? (int64_t)cycle_ms * NSEC_PER_MSEC
                        : s->cycle;
    rate = rate ? rate : s->limit;
    if (cycle == s->cycle && rate == s->limit)
        return;
    s->cycle = cycle;
    s->limit = rate;
    for (size_t i = 0; i < s->n; i++)
        s->v[i].asked++; /* who waits for long by the former ones */
    cond_broadcast(&s->wake);
}

static void command_disk(struct scrub_disk *k, Replfs__ScrubWhat what)
{
    struct scrub_state *st = &k->st;
    bool starts =
        what == REPLFS__SCRUB_WHAT__SCRUB_START || what == REPLFS__SCRUB_WHAT__SCRUB_START_FAST;
    if (what == REPLFS__SCRUB_WHAT__SCRUB_PAUSE)
        st->paused = st->paused ? st->paused : clock_wall();
    else
        st->paused = 0;
    if (starts) {
        k->restart = true;
        k->restart_mode = what == REPLFS__SCRUB_WHAT__SCRUB_START ? SCRUB_SOON : SCRUB_FAST;
    }
    k->asked++;
    k->dirty = true;
}

int scrub_command(struct scrub *s, Replfs__ScrubWhat what)
{
    if ((unsigned)what > REPLFS__SCRUB_WHAT__SCRUB_RESUME || !s)
        return s ? -EINVAL : -ENOTSUP;
    LOCK_SCOPE(&s->mu);
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].known)
            command_disk(&s->v[i], what);
    cond_broadcast(&s->wake);
    return 0;
}

static uint64_t seconds_since(int64_t then, int64_t now)
{
    return then && now > then ? (uint64_t)(now - then) / NSEC_PER_SEC : 0;
}

void scrub_stat(struct scrub *s, size_t i, Replfs__ScrubStat *out)
{
    int64_t now = clock_wall();
    replfs__scrub_stat__init(out);
    if (!s)
        return;
    LOCK_SCOPE(&s->mu);
    const struct scrub_disk *k = &s->v[i];
    const struct scrub_state *st = &k->st;
    out->state = k->stopped   ? REPLFS__SCRUB_STATE__SCRUB_STOPPED
                 : !st->pass  ? REPLFS__SCRUB_STATE__SCRUB_NONE
                 : st->paused ? REPLFS__SCRUB_STATE__SCRUB_PAUSED
                              : REPLFS__SCRUB_STATE__SCRUB_RUNNING;
    out->fast = st->mode == SCRUB_FAST;
    out->pass = st->pass;
    out->done = st->done;
    out->left = k->left;
    out->age_s = st->pass && st->done + k->left ? seconds_since(scrub_state_oldest(st), now) : 0;
    out->rate = st->paused ? 0 : k->rate;
    out->found = st->found;
    out->healed = st->healed;
    out->open = st->nbad;
    out->paused_s = seconds_since(st->paused, now);
    out->since_s = seconds_since(st->first, now);
    struct scrub_pace p = {st->mode, false, s->limit, s->cycle, now - st->begin, k->left};
    uint64_t rate = scrub_pace_rate(&p);
    rate = rate == UINT64_MAX ? k->rate : rate;
    out->eta_s = !st->paused && rate ? k->left / rate : 0;
}

void scrub_retell(struct scrub *s)
{
    if (!s)
        return;
    LOCK_SCOPE(&s->mu);
    for (size_t i = 0; i < s->n; i++)
        for (unsigned j = 0; j < s->v[i].st.nbad; j++) {
            s->v[i].st.bad[j].tell_at = 0;
            s->v[i].st.bad[j].told = 1;
        }
}

size_t scrub_bad(struct scrub *s, struct scrub_told *out, size_t max)
{
    int64_t now = clock_mono();
    size_t n = 0;
    if (!s)
        return 0;
    LOCK_SCOPE(&s->mu);
    for (size_t i = 0; i < s->n; i++)
        for (unsigned j = 0; j < s->v[i].st.nbad && n < max; j++) {
            struct scrub_bad *b = &s->v[i].st.bad[j];
            if (b->tell_at > now)
                continue;
            int64_t pause = NSEC_PER_SEC << (b->told < 12 ? b->told : 12);
            b->tell_at = now + (pause < TELL_MAX_NS ? pause : TELL_MAX_NS);
            b->told++;
            out[n++] = (struct scrub_told){b->chunk, b->session, b->off};
        }
    return n;
}
