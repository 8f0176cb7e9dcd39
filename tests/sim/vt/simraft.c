/* See simraft.h. As libraft's own disk side does it:
 *
 * - terms and votes are stored before the call returns
 * - entries are written in the order of the calls, what waits is written together; the callbacks come in that order
 * - a truncation, and a snapshot that replaces the log, wait for the writes before them, and later writes wait for them
 * - a snapshot of our own is written beside all that; old entries go when it is stored
 *
 * A process that dies leaves what was stored, and of what was under way a beginning. Entries of one call are stored
 * together or not at all, as the checksum of a batch makes it.
 *
 * Two disks never hold different entries of one index and term: that ends the run. */
#include "simraft.h"

#include <fcntl.h>
#include <inttypes.h>
#include <raft.h>
#include <raft/uv.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "fiber.h"
#include "metad/log/mlog_internal.h"
#include "simraft_internal.h"
#include "simuv.h"

struct simraft_all simraft_all;

void simraft_init(const struct simraft_config *cfg)
{
    simraft_all.cfg = *cfg;
}

uint64_t simraft_entries(void)
{
    return simraft_all.entries;
}

uint64_t simraft_snapshots(void)
{
    return simraft_all.stamp;
}

static void *take(const void *p, size_t n)
{
    void *q = malloc(n + 1);
    if (!q)
        abort();
    if (n)
        memcpy(q, p, n);
    return q;
}

static void *raft_take(const void *p, size_t n)
{
    void *q = raft_malloc(n + 1);
    if (!q)
        abort();
    if (n)
        memcpy(q, p, n);
    return q;
}

static void trace(const struct disk *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void trace(const struct disk *d, const char *fmt, ...)
{
    va_list ap;
    if (!simraft_all.cfg.trace)
        return;
    va_start(ap, fmt);
    fprintf(stderr, "%12.6f %-8s disk: ", (double)vt_now() / 1e9,
            vt_proc() ? vt_proc()->name : d->dir);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* ---- disks ---- */

/* log_dir: with "/log" at its end. */
static struct disk *disk_of(const char *log_dir)
{
    for (unsigned i = 0; i < simraft_all.n; i++)
        if (!strcmp(simraft_all.disk[i].dir, log_dir))
            return &simraft_all.disk[i];
    if (simraft_all.n == DISKS)
        abort();
    struct disk *d = &simraft_all.disk[simraft_all.n++];
    snprintf(d->dir, sizeof(d->dir), "%s", log_dir);
    d->first = 1;
    d->ops_tail = &d->ops;
    return d;
}

struct disk *simraft_disk(const char *dir)
{
    char path[MLOG_PATH];
    mlog_dir_path(path, dir, "log");
    return disk_of(path);
}

void simraft_drop_from(struct disk *d, uint64_t index)
{
    while (d->n && d->first + d->n > index)
        free(d->v[--d->n].bytes);
}

static void drop_before(struct disk *d, uint64_t index)
{
    size_t k = 0;
    while (k < d->n && d->first + k < index)
        free(d->v[k++].bytes);
    memmove(d->v, d->v + k, (d->n - k) * sizeof(*d->v));
    d->n -= k;
    d->first += k;
}

static void check_same(const struct disk *d, uint64_t index, const struct stored *s)
{
    for (unsigned i = 0; i < simraft_all.n; i++) {
        const struct disk *o = &simraft_all.disk[i];
        if (o == d || index < o->first || index >= o->first + o->n)
            continue;
        const struct stored *t = &o->v[index - o->first];
        if (t->term == s->term &&
            (t->type != s->type || t->len != s->len || memcmp(t->bytes, s->bytes, s->len) != 0))
            vt_fail("two disks hold different entries of index %" PRIu64 " and term %" PRIu64,
                    index, s->term);
    }
}

static void put_entry(struct disk *d, uint64_t index, const struct stored *s)
{
    if (index != d->first + d->n)
        vt_fail("entry %" PRIu64 " is stored behind entry %" PRIu64, index, d->first + d->n - 1);
    if (d->n == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 256;
        d->v = realloc(d->v, d->cap * sizeof(*d->v));
        if (!d->v)
            abort();
    }
    check_same(d, index, s);
    d->v[d->n++] = *s;
    d->v[d->n - 1].bytes = take(s->bytes, s->len);
    simraft_all.entries++;
}

/* ---- snapshots; the descriptor also lies in a file of libraft's name: mlog looks which checkpoints it needs ---- */

static void snap_path(const struct disk *d, const struct snap *s, char out[2 * MLOG_PATH])
{
    snprintf(out, 2 * MLOG_PATH, "%s/snapshot-%" PRIu64 "-%" PRIu64 "-%" PRIu64, d->dir, s->term,
             s->index, s->stamp);
}

void simraft_snap_drop(struct disk *d, struct snap *s)
{
    char path[2 * MLOG_PATH];
    if (!s->index)
        return;
    snap_path(d, s, path);
    unlink(path);
    free(s->conf.base);
    free(s->data.base);
    *s = (struct snap){0};
}

static struct snap snap_copy(const struct raft_snapshot *s)
{
    struct snap c = {.index = s->index, .term = s->term, .conf_index = s->configuration_index};
    struct raft_buffer conf;
    if (raft_configuration_encode(&s->configuration, &conf))
        abort();
    c.conf = (struct raft_buffer){take(conf.base, conf.len), conf.len};
    raft_free(conf.base);
    for (unsigned i = 0; i < s->n_bufs; i++)
        c.data.len += s->bufs[i].len;
    uint8_t *p = c.data.base = malloc(c.data.len + 1);
    if (!p)
        abort();
    for (unsigned i = 0; i < s->n_bufs; p += s->bufs[i++].len)
        memcpy(p, s->bufs[i].base, s->bufs[i].len);
    return c;
}

/* Takes s over. */
static void put_snap(struct disk *d, struct snap *s)
{
    char path[2 * MLOG_PATH];
    if (s->index < d->snap[1].index)
        vt_fail("snapshot %" PRIu64 " is stored after snapshot %" PRIu64, s->index,
                d->snap[1].index);
    s->stamp = ++simraft_all.stamp;
    simraft_snap_drop(d, &d->snap[0]);
    d->snap[0] = d->snap[1];
    d->snap[1] = *s;
    snap_path(d, s, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, s->data.base, s->data.len) != (ssize_t)s->data.len)
        vt_fail("%s cannot be written", path);
    close(fd);
    *s = (struct snap){0};
}

/* ---- what is under way ---- */

static void op_store(struct disk *d, struct op *o)
{
    switch (o->kind) {
    case OP_APPEND:
        for (unsigned i = 0; i < o->n; i++)
            put_entry(d, o->index + i, &o->v[i]);
        trace(d, "entries %" PRIu64 "..%" PRIu64 " stored", o->index, o->index + o->n - 1);
        return;
    case OP_TRUNCATE:
        simraft_drop_from(d, o->index);
        trace(d, "truncated from %" PRIu64, o->index);
        return;
    case OP_INSTALL:
        trace(d, "snapshot %" PRIu64 " installed", o->index);
        put_snap(d, &o->snap);
        simraft_drop_from(d, 0);
        d->first = o->index + 1;
        return;
    }
}

static void op_free(struct op *o)
{
    for (unsigned i = 0; i < o->n; i++)
        free(o->v[i].bytes);
    free(o->v);
    free(o->snap.conf.base);
    free(o->snap.data.base);
    free(o);
}

static struct op *op_take(struct disk *d)
{
    struct op *o = d->ops;
    d->ops = o->next;
    if (!d->ops)
        d->ops_tail = &d->ops;
    return o;
}

/* The process is dead: a beginning of what it did is on the disk. */
void simraft_settle(struct disk *d)
{
    bool lost = d->full;
    for (struct op *o; d->ops; op_free(o)) {
        o = op_take(d);
        lost = lost || vt_chance(3);
        if (lost)
            continue;
        if (o->kind == OP_INSTALL && vt_chance(4)) { /* the old log is still there */
            put_snap(d, &o->snap);
            lost = true;
        } else {
            op_store(d, o);
        }
    }
    if (d->user && d->user->own && !d->full && vt_chance(2))
        put_snap(d, &d->user->own->snap);
    if (simraft_all.cfg.forget_votes && d->user)
        d->vote = 0;
    d->user = NULL;
    d->busy = false;
    d->broken = false;
}

static int64_t write_time(const struct disk *d)
{
    return vt_between(0, simraft_all.cfg.write_max) + vt_between(0, simraft_all.cfg.sync_max) +
           vt_between(0, d->slow);
}

static void next_op(struct impl *u);

static void op_done(void *arg)
{
    struct impl *u = arg;
    struct disk *d = u->disk;
    struct op *done = NULL, **tail = &done;
    if (u->closing || u->stuck)
        return;
    if (d->full) {
        simuv_post(u->loop, vt_now() + RETRY_NS, op_done, u);
        return;
    }
    unsigned batch = 1 + (unsigned)vt_below(8);
    do {
        struct op *o = op_take(d);
        op_store(d, o);
        o->next = NULL;
        *tail = o;
        tail = &o->next;
    } while (--batch && d->ops && d->ops->kind == OP_APPEND && done->kind == OP_APPEND);
    d->busy = false;
    while (done) {
        struct op *o = done;
        done = o->next;
        if (o->append)
            o->append->cb(o->append, 0);
        if (o->put)
            o->put->cb(o->put, 0);
        op_free(o);
    }
    next_op(u);
}

static void write_failed(struct impl *u)
{
    struct raft_tracer_info info = {.version = 1,
                                    .diagnostic = {.level = 1, .message = "retry failed write"}};
    u->stuck = true;
    snprintf(u->io->errmsg, sizeof(u->io->errmsg), "the simulated disk is broken");
    if (u->tracer)
        u->tracer->emit(u->tracer, RAFT_TRACER_DIAGNOSTIC, &info);
}

static void op_begins(void *arg)
{
    struct impl *u = arg;
    if (u->closing)
        return;
    if (u->disk->broken)
        write_failed(u);
    else
        simuv_post(u->loop, vt_now() + write_time(u->disk), op_done, u);
}

static void next_op(struct impl *u)
{
    if (u->disk->busy || !u->disk->ops || u->closing)
        return;
    u->disk->busy = true;
    simuv_post(u->loop, vt_now(), op_begins, u);
}

static struct op *op_new(enum op_kind kind, uint64_t index)
{
    struct op *o = calloc(1, sizeof(*o));
    if (!o)
        abort();
    o->kind = kind;
    o->index = index;
    return o;
}

static void op_queue(struct impl *u, struct op *o)
{
    *u->disk->ops_tail = o;
    u->disk->ops_tail = &o->next;
    next_op(u);
}

/* ---- raft_io ---- */

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io, (void)id, (void)address;
    return 0;
}

static int io_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
    struct impl *u = io->impl;
    struct raft_buffer buf;
    if (u->disk->term)
        return RAFT_CANTBOOTSTRAP;
    if (raft_configuration_encode(conf, &buf))
        abort();
    u->disk->term = 1;
    put_entry(u->disk, 1, &(struct stored){1, RAFT_CHANGE, buf.len, buf.base});
    raft_free(buf.base);
    return 0;
}

static int io_recover(struct raft_io *io, const struct raft_configuration *conf)
{
    (void)io, (void)conf;
    return RAFT_IOERR;
}

static struct raft_snapshot *load_snap(const struct snap *s)
{
    struct raft_snapshot *r = raft_calloc(1, sizeof(*r));
    if (!r || !(r->bufs = raft_calloc(1, sizeof(*r->bufs))))
        abort();
    r->index = s->index;
    r->term = s->term;
    r->configuration_index = s->conf_index;
    if (raft_configuration_decode(&s->conf, &r->configuration))
        abort();
    r->bufs[0] = (struct raft_buffer){raft_take(s->data.base, s->data.len), s->data.len};
    r->n_bufs = 1;
    return r;
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                   struct raft_snapshot **snapshot, raft_index *start_index,
                   struct raft_entry **entries, size_t *n)
{
    struct impl *u = io->impl;
    struct disk *d = u->disk;
    const struct snap *s = &d->snap[1];
    *term = d->term;
    *voted_for = d->vote;
    *snapshot = s->index ? load_snap(s) : NULL;
    if (s->index && d->first + d->n <= s->index) { /* all of it is in the snapshot */
        simraft_drop_from(d, 0);
        d->first = s->index + 1;
    }
    *start_index = d->first;
    *n = d->n;
    *entries = d->n ? raft_calloc(d->n, sizeof(**entries)) : NULL;
    for (size_t i = 0; i < d->n; i++) {
        const struct stored *e = &d->v[i];
        struct raft_entry *x = &(*entries)[i];
        *x = (struct raft_entry){.term = e->term, .type = (enum raft_entry_type)e->type};
        x->buf = (struct raft_buffer){raft_take(e->bytes, e->len), e->len};
        x->batch = x->buf.base;
    }
    u->next = d->first + d->n;
    return 0;
}

/* ---- libraft's own requests that are over: their callbacks come from here ---- */

static void fire(struct raft *r)
{
    void **q = r->legacy.requests;
    while (q[0] != (void *)q) {
        void **e = q[0];
        struct raft_apply *a =
            (struct raft_apply *)(void *)((char *)e - offsetof(struct raft_apply, queue));
        q[0] = e[0];
        ((void **)e[0])[1] = q;
        if (a->type == RAFT_COMMAND)
            a->cb(a, a->status, a->result);
        else if (a->type == RAFT_BARRIER)
            ((struct raft_barrier *)a)->cb((struct raft_barrier *)a, a->status);
        else if (a->type == RAFT_CHANGE)
            ((struct raft_change *)a)->cb((struct raft_change *)a, a->status);
        else
            ((struct raft_transfer *)a)->cb((struct raft_transfer *)a);
    }
}

static void before_wait(uv_prepare_t *p)
{
    fire(((struct impl *)p->data)->io->data);
}

static void after_wait(uv_check_t *c)
{
    fire(((struct impl *)c->data)->io->data);
}

static void ticked(uv_timer_t *t)
{
    struct impl *u = t->data;
    u->tick_cb(u->io);
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct impl *u = io->impl;
    (void)recv;
    u->tick_cb = tick;
    u->ticks = true;
    uv_timer_init(u->loop, &u->tick);
    uv_prepare_init(u->loop, &u->before);
    uv_check_init(u->loop, &u->after);
    u->tick.data = u->before.data = u->after.data = u;
    uv_prepare_start(&u->before, before_wait);
    uv_check_start(&u->after, after_wait);
    return uv_timer_start(&u->tick, ticked, msecs, msecs);
}

static int io_set(struct impl *u, uint64_t term, uint64_t vote)
{
    bool early = vt_chance(2);
    for (int i = 0; i < 2; i++) { /* dies it meanwhile, one of both is stored */
        if (i == !early) {
            u->disk->term = term;
            u->disk->vote = vote;
        }
        if (!i)
            vt_sleep_until(vt_now() + write_time(u->disk));
    }
    trace(u->disk, "term %" PRIu64 ", vote for %" PRIu64, term, vote);
    return 0;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    struct impl *u = io->impl;
    if (term < u->disk->term)
        vt_fail("the term goes back from %" PRIu64 " to %llu", u->disk->term, term);
    return io_set(u, term, 0);
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    struct impl *u = io->impl;
    if (u->disk->vote && u->disk->vote != id)
        vt_fail("a second vote in term %" PRIu64 ": for %" PRIu64 ", then for %llu", u->disk->term,
                u->disk->vote, id);
    return io_set(u, u->disk->term, id);
}

static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
                   raft_io_send_cb cb)
{
    (void)io, (void)req, (void)cb;
    vt_fail("a message of type %d to metad %llu: who carries it?", message->type,
            message->server_id);
}

static void said_too_early(void *arg)
{
    struct raft_io_append *req = arg;
    req->cb(req, 0);
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct impl *u = io->impl;
    struct op *o = op_new(OP_APPEND, u->next);
    o->v = calloc(n, sizeof(*o->v));
    if (!o->v)
        abort();
    for (unsigned i = 0; i < n; i++)
        o->v[i] =
            (struct stored){entries[i].term, (unsigned short)entries[i].type, entries[i].buf.len,
                            take(entries[i].buf.base, entries[i].buf.len)};
    o->n = n;
    o->append = req;
    req->cb = cb;
    u->next += n;
    if (simraft_all.cfg.early) {
        o->append = NULL;
        simuv_post(u->loop, vt_now(), said_too_early, req);
    }
    op_queue(u, o);
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    struct impl *u = io->impl;
    if (index >= u->next)
        return 0;
    u->next = index;
    op_queue(u, op_new(OP_TRUNCATE, index));
    return 0;
}

struct own_put {
    struct impl *u;
    unsigned trailing;
};

static void own_done(void *arg)
{
    struct own_put *p = arg;
    struct impl *u = p->u;
    struct disk *d = u->disk;
    if (u->closing) {
        free(p);
        return;
    }
    if (d->full) {
        simuv_post(u->loop, vt_now() + RETRY_NS, own_done, p);
        return;
    }
    struct op *o = u->own;
    u->own = NULL;
    trace(d, "snapshot %" PRIu64 " stored", o->index);
    put_snap(d, &o->snap);
    /* whole segments go: some more may stay */
    uint64_t keep = p->trailing + vt_below(8);
    if (o->index > keep)
        drop_before(d, o->index - keep);
    free(p);
    o->put->cb(o->put, 0);
    op_free(o);
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct impl *u = io->impl;
    if (u->closing)
        return RAFT_CANCELED;
    struct op *o = op_new(OP_INSTALL, snapshot->index);
    o->snap = snap_copy(snapshot);
    o->put = req;
    req->cb = cb;
    if (!trailing) {
        u->next = snapshot->index + 1;
        op_queue(u, o);
        return 0;
    }
    if (u->own)
        vt_fail("two snapshots are written at a time");
    struct own_put *p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    *p = (struct own_put){u, trailing};
    u->own = o;
    simuv_post(u->loop, vt_now() + 2 * write_time(u->disk), own_done, p);
    return 0;
}

static void got(void *arg)
{
    struct get *g = arg;
    struct impl *u = g->u;
    u->gets--;
    bool there = u->disk->snap[1].index != 0;
    struct raft_snapshot *snap =
        there ? load_snap(&u->disk->snap[1]) : raft_calloc(1, sizeof(*snap));
    if (!snap)
        abort();
    g->cb(g->req, snap, there ? 0 : RAFT_NOTFOUND);
    free(g);
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb)
{
    struct impl *u = io->impl;
    struct get *g = calloc(1, sizeof(*g));
    if (!g)
        abort();
    *g = (struct get){u, req, cb};
    u->gets++;
    simuv_post(u->loop, vt_now() + write_time(u->disk), got, g);
    return 0;
}

static raft_time io_time(struct raft_io *io)
{
    struct impl *u = io->impl;
    return uv_now(u->loop);
}

static int io_random(struct raft_io *io, int min, int max)
{
    (void)io;
    return min + (int)vt_below((uint64_t)(max - min));
}

/* ---- the end ---- */

static void closed(void *arg)
{
    struct impl *u = arg;
    if (u->gets) {
        simuv_post(u->loop, vt_now(), closed, u);
        return;
    }
    struct op *ops = u->disk->ops, *own = u->own;
    u->disk->ops = NULL;
    u->disk->ops_tail = &u->disk->ops;
    u->own = NULL;
    u->disk->user = NULL;
    u->disk->busy = false;
    for (struct op *next; ops; ops = next) {
        next = ops->next;
        if (ops->append)
            ops->append->cb(ops->append, RAFT_CANCELED);
        if (ops->put)
            ops->put->cb(ops->put, RAFT_CANCELED);
        op_free(ops);
    }
    if (own) {
        own->put->cb(own->put, RAFT_CANCELED);
        op_free(own);
    }
    u->close_cb(u->io);
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct impl *u = io->impl;
    u->closing = true;
    u->close_cb = cb;
    if (u->ticks) {
        uv_close((uv_handle_t *)&u->tick, NULL);
        uv_close((uv_handle_t *)&u->before, NULL);
        uv_close((uv_handle_t *)&u->after, NULL);
    }
    simuv_post(u->loop, vt_now(), closed, u);
}

int raft_uv_init(struct raft_io *io, struct uv_loop_s *loop, const char *dir,
                 struct raft_uv_transport *transport)
{
    struct impl *u = calloc(1, sizeof(*u));
    (void)transport;
    if (!u)
        abort();
    u->disk = disk_of(dir);
    simraft_settle(u->disk);
    u->disk->user = u;
    u->io = io;
    u->loop = loop;
    io->impl = u;
    io->capacity = 1;
    io->init = io_init;
    io->close = io_close;
    io->load = io_load;
    io->start = io_start;
    io->bootstrap = io_bootstrap;
    io->recover = io_recover;
    io->set_term = io_set_term;
    io->set_vote = io_set_vote;
    io->send = io_send;
    io->append = io_append;
    io->truncate = io_truncate;
    io->snapshot_put = io_snapshot_put;
    io->snapshot_get = io_snapshot_get;
    io->time = io_time;
    io->random = io_random;
    return 0;
}

void raft_uv_close(struct raft_io *io)
{
    free(io->impl);
    io->impl = NULL;
}

void raft_uv_set_tracer(struct raft_io *io, struct raft_tracer *tracer)
{
    ((struct impl *)io->impl)->tracer = tracer;
}
