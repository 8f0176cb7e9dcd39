/* See simlog.h. A batch is written (then a kill does not lose it), synced (then a power cut does not), applied, and
 * answered: a process that dies between two of these leaves changes that are in the log and that nobody was told. */
#include "simlog.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "fiber.h"

#define BATCH_MAX 256u

struct proposal {
    struct proposal *next;
    mlog_applied *fn;
    mlog_after *after;
    void *arg;
    size_t len;
    uint8_t bytes[];
};
struct mlog {
    struct mlog_config cfg;
    pthread_t thread;
    struct vt_queue work, done;
    struct proposal *head, **tail;
    bool closing, over;
    uint64_t applied;
};
struct record { /* a command */
    uint64_t index;
    unsigned place;
    size_t len;
    uint8_t *bytes;
};

static struct {
    struct simlog_config cfg;
    struct record *v;
    size_t n, cap, synced;
    size_t applied; /* by the metad that runs */
    uint64_t index;
    int checkpoint; /* a memory file; 0: none */
    size_t checkpoint_n;
} disk;

void simlog_init(const struct simlog_config *cfg)
{
    disk.cfg = *cfg;
}

static void disk_add(uint64_t index, unsigned place, const uint8_t *bytes, size_t len)
{
    if (disk.n == disk.cap) {
        disk.cap = disk.cap ? 2 * disk.cap : 1024;
        disk.v = realloc(disk.v, disk.cap * sizeof(*disk.v));
    }
    uint8_t *copy = malloc(len + 1);
    if (!disk.v || !copy)
        abort();
    memcpy(copy, bytes, len);
    disk.v[disk.n++] = (struct record){index, place, len, copy};
}

void simlog_power_cut(void)
{
    size_t keep = disk.synced;
    if (disk.n > disk.synced)
        keep += vt_below(disk.n - disk.synced + 1);
    while (disk.n > keep)
        free(disk.v[--disk.n].bytes);
}

static void execute(struct fsm *fsm, const struct record *r, struct fsm_result *res)
{
    Replfs__Command *cmd = replfs__command__unpack(NULL, r->len, r->bytes);
    if (!cmd)
        vt_fail("a command in the log cannot be unpacked");
    memset(res, 0, sizeof(*res));
    fsm_apply(fsm, r->index << 8 | r->place, cmd, res);
    replfs__command__free_unpacked(cmd, NULL);
}

/* ---- checkpoints ---- */

static void checkpoint(struct mlog *m)
{
    int fd = memfd_create("checkpoint", MFD_CLOEXEC);
    if (fd < 0)
        return;
    fsm_rdlock(m->cfg.fsm);
    int rc = fsm_save(m->cfg.fsm, fd);
    fsm_unlock(m->cfg.fsm);
    if (rc)
        vt_fail("the state cannot be saved: %s", err_str(rc));
    if (disk.checkpoint)
        close(disk.checkpoint);
    disk.checkpoint = fd;
    disk.checkpoint_n = disk.n;
}

/* Fills an empty state machine; from: of the log's records, those already in it. */
static size_t restore(struct fsm *fsm)
{
    char why[256];
    if (!disk.checkpoint)
        return 0;
    lseek(disk.checkpoint, 0, SEEK_SET);
    int rc = fsm_load(fsm, disk.checkpoint, why);
    if (rc)
        vt_fail("the state cannot be loaded: %s", why);
    return disk.checkpoint_n;
}

void simlog_check(struct fsm *fsm)
{
    struct fsm *again;
    struct fsm_result res;
    if (fsm_new(&again))
        abort();
    fsm_wrlock(again);
    for (size_t i = 0; i < disk.applied; i++)
        execute(again, &disk.v[i], &res);
    uint64_t a = fsm_digest(again), b = fsm_digest(fsm);
    fsm_unlock(again);
    if (a != b)
        vt_fail("the log, executed again, leads to another state");
    fsm_free(again);
}

uint64_t simlog_commands(void)
{
    return disk.n;
}

/* ---- the log's thread ---- */

static void complete(struct proposal *p, int code)
{
    while (p) {
        struct proposal *next = p->next;
        if (code && p->fn)
            p->fn(p->arg, code, NULL);
        if (p->after)
            p->after(p->arg);
        free(p);
        p = next;
    }
}

static struct proposal *take_batch(struct mlog *m)
{
    struct proposal *first = m->head, *p = first;
    for (unsigned i = 1; i < BATCH_MAX && p->next; i++)
        p = p->next;
    m->head = p->next;
    if (!m->head)
        m->tail = &m->head;
    p->next = NULL;
    return first;
}

static void run_batch(struct mlog *m, struct proposal *first)
{
    uint64_t index = ++disk.index;
    unsigned place = 0;
    size_t from = disk.n;
    vt_sleep_until(vt_now() + vt_between(0, disk.cfg.write_max));
    for (struct proposal *p = first; p; p = p->next)
        disk_add(index, place++, p->bytes, p->len);
    vt_sleep_until(vt_now() + vt_between(0, disk.cfg.sync_max));
    disk.synced = disk.n;
    fsm_wrlock(m->cfg.fsm);
    for (struct proposal *p = first; p; p = p->next) {
        struct fsm_result res;
        execute(m->cfg.fsm, &disk.v[from++], &res);
        if (p->fn)
            p->fn(p->arg, 0, &res);
    }
    disk.applied = from;
    fsm_unlock(m->cfg.fsm);
    m->applied = index;
    complete(first, 0);
    if (vt_chance(disk.cfg.checkpoint_one_in))
        checkpoint(m);
}

static void *log_main(void *arg)
{
    struct mlog *m = arg;
    for (;;) {
        while (!m->head && !m->closing)
            vt_wait(&m->work, INT64_MAX, "commands");
        if (!m->head)
            break;
        run_batch(m, take_batch(m));
    }
    m->over = true;
    vt_wake_all(&m->done);
    return NULL;
}

/* ---- mlog.h ---- */

int mlog_open(const struct mlog_config *cfg, unsigned timeout_ms, struct mlog **out)
{
    struct mlog *m = calloc(1, sizeof(*m));
    struct fsm_result res;
    (void)timeout_ms;
    if (!m)
        abort();
    m->cfg = *cfg;
    m->tail = &m->head;
    fsm_wrlock(cfg->fsm);
    for (size_t i = restore(cfg->fsm); i < disk.n; i++)
        execute(cfg->fsm, &disk.v[i], &res);
    fsm_unlock(cfg->fsm);
    disk.synced = disk.applied = disk.n;
    disk.index++;
    m->thread = (pthread_t)vt_spawn(vt_proc(), "mlog", log_main, m);
    *out = m;
    return 0;
}

void mlog_stop(struct mlog *m)
{
    m->closing = true;
    vt_wake_all(&m->work);
    while (!m->over)
        vt_wait(&m->done, INT64_MAX, "the log's end");
}

void mlog_close(struct mlog *m)
{
    if (m)
        mlog_stop(m);
    free(m);
}

const char *mlog_uuid(struct mlog *m)
{
    (void)m;
    return "00000000-0000-4000-8000-000000000001";
}

void mlog_propose(struct mlog *m, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                  void *arg)
{
    if (!cmd->time_ns)
        cmd->time_ns = clock_wall();
    size_t len = replfs__command__get_packed_size(cmd);
    struct proposal *p = malloc(sizeof(*p) + len);
    if (!p)
        abort();
    *p = (struct proposal){.fn = fn, .after = after, .arg = arg, .len = len};
    replfs__command__pack(cmd, p->bytes);
    if (m->closing) {
        complete(p, -ERR_SHUTDOWN);
        return;
    }
    *m->tail = p;
    m->tail = &p->next;
    vt_wake_all(&m->work);
    vt_maybe_yield();
}

struct waiting {
    struct vt_queue q;
    bool done;
    int code;
    struct fsm_result res;
};

static void wait_applied(void *arg, int code, const struct fsm_result *res)
{
    struct waiting *w = arg;
    w->code = code;
    if (res)
        w->res = *res;
}

static void wait_after(void *arg)
{
    struct waiting *w = arg;
    w->done = true;
    vt_wake_all(&w->q);
}

int mlog_propose_wait(struct mlog *m, Replfs__Command *cmd, struct fsm_result *res)
{
    struct waiting w = {0};
    mlog_propose(m, cmd, wait_applied, wait_after, &w);
    while (!w.done)
        vt_wait(&w.q, INT64_MAX, "a command");
    if (res)
        *res = w.res;
    return w.code;
}

bool mlog_is_leader(struct mlog *m)
{
    return !m->closing;
}

void mlog_status(struct mlog *m, struct mlog_status *out)
{
    *out = (struct mlog_status){.leader = true, .term = 1, .applied = m->applied};
}

int mlog_checkpoint(struct mlog *m)
{
    (void)m;
    return 0;
}
