/* Changes that are answered before metad has them.
 *
 * Under an exclusive lease nobody else can see a file, so metad need not know at once that its mode
 * was changed or that its bytes were committed. Such changes are queued here and sent in order, as
 * many per message as there are while the last message is on its way, and within 5 ms while nobody
 * waits for them.
 *
 * Queue: commits of bytes (commit.c), names made and removed (deferred_names.c) and attribute changes. Changes
 * of one file's attributes that are not on their way yet become one. Those of a file with bytes not
 * committed are held outside of the queue until the commit that empties the file is in it, since the
 * commit would set mtime anew.
 *
 * What is shown of a file is what metad said with what is held or queued laid over it.
 *
 * A caller that needs metad to know waits: fsync for its file, a recall for the inode, unmounting for all;
 * a change that is sent directly, for those before it of the same inode. The lease may be recalled
 * just while a change is being put: the putter looks at the lease once more behind putting, and
 * waits when it is gone; the recall first forgets the lease, then settles the inode.
 *
 * Failure modes: metad cut off: the queue stands still for as long as that takes, and a caller that waits for it
 * gives up at the mount's time-out (much sooner once it has stood still for as long). This client was
 * suspended, or cut off, and its session has lapsed: the queue goes on as the session comes back; what
 * conflicts with what others did meanwhile fails. The session is lost for good: its changes fail. The log
 * names the inodes, and the fsync of a file that is still open fails. A metad that dies: everything is
 * sent again, executed once; the lease is claimed anew before anybody else is served (session_resume). This
 * client dies: the changes are lost, a few milliseconds' worth.
 *
 * Threads: one sender; any other may put and wait. What the sender calls back (mutation.done) must not: it
 * would wait for itself (quota_refused asks with session_ask_now). */
#include "client/queue/queue.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "base/u64map.h"
#include "client/cache/lease_cache_change.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/internal.h"
#include "client/session/mutation.h"
#include "metaop.h"
#include "request.h"

#define LOG_MODULE "queue"
#define QUEUE_MAX 4096u
#define LINGER_NS (5 * NSEC_PER_MSEC)
#define MODE REPLFS__SETATTR_OP__VALID__MODE
#define UID REPLFS__SETATTR_OP__VALID__UID
#define GID REPLFS__SETATTR_OP__VALID__GID
#define ATIME REPLFS__SETATTR_OP__VALID__ATIME
#define MTIME REPLFS__SETATTR_OP__VALID__MTIME
#define ATIME_NOW REPLFS__SETATTR_OP__VALID__ATIME_NOW
#define MTIME_NOW REPLFS__SETATTR_OP__VALID__MTIME_NOW
#define KILL_SUID REPLFS__SETATTR_OP__VALID__KILL_SUID
#define KILL_SGID REPLFS__SETATTR_OP__VALID__KILL_SGID

struct setattr_job {
    struct queue_op o;
    struct client *c;
    Replfs__MetaOp op;
    Replfs__SetattrOp set;
};

struct queue_ino {
    uint64_t ino;
    size_t queued; /* ops put and not done */
    uint64_t last; /* number of the last one */
    size_t naming; /* of queued, those that name something */
    uint64_t last_naming;
    struct setattr_job *open; /* takes further changes: held, or queued and not on its way */
    bool held;
    unsigned shown; /* which attributes are laid over */
    Replfs__SetattrOp view;
};

/* ---- inodes (mu held) ---- */

static struct queue_ino *ino_get(struct client *c, uint64_t ino)
{
    return u64map_get_ptr(&c->queue.inos, ino);
}

static struct queue_ino *ino_make(struct client *c, uint64_t ino)
{
    struct queue_ino *b = ino_get(c, ino);
    if (b)
        return b;
    b = calloc(1, sizeof(*b));
    if (!b)
        abort();
    b->ino = ino;
    replfs__setattr_op__init(&b->view);
    u64map_put_ptr(&c->queue.inos, ino, b);
    atomic_fetch_add(&c->queue.ninos, 1);
    return b;
}

static void ino_tidy(struct client *c, struct queue_ino *b)
{
    if (b->queued || b->open)
        return;
    u64map_del_ptr(&c->queue.inos, b->ino);
    atomic_fetch_sub(&c->queue.ninos, 1);
    free(b);
}

static void count(struct client *c, uint64_t ino, bool naming)
{
    struct queue_ino *b = ino_make(c, ino);
    b->queued++;
    b->last = c->queue.put;
    if (!naming)
        return;
    b->naming++;
    b->last_naming = b->last;
    if (b->open && !b->held)
        b->open = NULL; /* a later change must not come before this one */
}

static void uncount(struct client *c, uint64_t ino, bool naming)
{
    struct queue_ino *b = ino_get(c, ino);
    b->queued--;
    b->naming -= naming;
    ino_tidy(c, b);
}

static void change_put(struct client *c, struct queue_op *o)
{
    if (c->queue.put++ == c->queue.done)
        c->queue.moved = clock_mono();
    if (!o->m.life)
        o->m.life = atomic_load(&c->life);
    count(c, o->ino, o->dir != 0);
    if (o->dir)
        count(c, o->dir, true);
    o->next = NULL;
    *c->queue.tail = o;
    c->queue.tail = &o->next;
    if (c->queue.head == o || c->queue.put - c->queue.done == MUTATE_MAX)
        cond_signal(&c->queue.cv);
}

static bool nothing(struct client *c)
{
    return atomic_load(&c->queue.ninos) == 0;
}

/* ---- attributes ---- */

static void setattr_done(struct mutation *m, int code, const Replfs__MutationResult *r)
{
    struct setattr_job *j = (struct setattr_job *)m;
    struct cfile *f = cfile_get(j->c, j->o.ino);
    bool lost = code && code != -ENOENT; /* deleted since */
    if (f) {
        lock_acquire(&f->mu);
        if (r && r->attr && r->attr->size == f->attr.size && r->attr->change > f->attr.change)
            attr_copy(&f->attr, r->attr); /* our own change: the extents are the same */
        else if (r && r->attr)
            cfile_set_attr(f, r->attr);
        if (lost)
            cfile_fail(f, -EIO);
        lock_release(&f->mu);
        cfile_unref(f);
    }
    if (lost) {
        atomic_fetch_add(&j->c->lost, 1);
        log_error("inode %llu: a change of its owner, mode or times was lost: %s",
                  (unsigned long long)j->o.ino, err_str(code));
    }
    free(j);
}

static struct setattr_job *job_new(struct client *c, uint64_t ino)
{
    struct setattr_job *j = calloc(1, sizeof(*j));
    if (!j)
        abort();
    j->c = c;
    j->o.ino = ino;
    j->o.m.op = &j->op;
    j->o.m.done = setattr_done;
    j->o.m.life = atomic_load(&c->life);
    replfs__meta_op__init(&j->op);
    replfs__setattr_op__init(&j->set);
    j->op.op_case = REPLFS__META_OP__OP_SETATTR;
    j->op.setattr = &j->set;
    j->set.ino = ino;
    return j;
}

/* Later values replace former ones. */
static void set_merge(Replfs__SetattrOp *s, const Replfs__SetattrOp *op)
{
    if (op->valid & MODE)
        s->mode = op->mode;
    if (op->valid & UID)
        s->uid = op->uid;
    if (op->valid & GID)
        s->gid = op->gid;
    if (op->valid & ATIME)
        s->atime_ns = op->atime_ns;
    if (op->valid & MTIME)
        s->mtime_ns = op->mtime_ns;
    s->valid |= op->valid;
    s->ctime_ns = op->ctime_ns;
}

static void lay_over(const struct queue_ino *b, Replfs__Attr *a)
{
    const Replfs__SetattrOp *v = &b->view;
    if (b->shown & MODE)
        a->mode = (a->mode & S_IFMT) | (v->mode & 07777);
    if (b->shown & UID)
        a->uid = v->uid;
    if (b->shown & GID)
        a->gid = v->gid;
    if (b->shown & ATIME)
        a->atime_ns = v->atime_ns;
    if (b->shown & MTIME)
        a->mtime_ns = v->mtime_ns;
    if (a->ctime_ns < v->ctime_ns)
        a->ctime_ns = v->ctime_ns;
}

void queue_overlay(struct client *c, Replfs__Attr *a)
{
    if (nothing(c))
        return;
    LOCK_SCOPE(&c->queue.mu);
    const struct queue_ino *b = ino_get(c, a->ino);
    if (b && b->shown)
        lay_over(b, a);
}

/* Setuid bits, ACLs and capabilities change along with others: metad works that out. */
static bool can_wait(const Replfs__SetattrOp *op, const Replfs__Attr *a)
{
    uint32_t special = S_ISUID | S_ISGID;
    if (op->valid & ~(uint32_t)(MODE | UID | GID | ATIME | MTIME | ATIME_NOW | MTIME_NOW |
                                KILL_SUID | KILL_SGID))
        return false;
    return (S_ISREG(a->mode) || S_ISDIR(a->mode)) && !(a->mode & special) &&
           !((op->valid & MODE) && (op->mode & special)) &&
           !(a->flags & REPLFS__ATTR_FLAG__ATTR_XATTR);
}

/* With the times of now filled in, and without what does nothing here. */
static void stamp(struct client *c, Replfs__SetattrOp *s, const Replfs__SetattrOp *op,
                  const Replfs__Attr *a)
{
    int64_t now = client_now(c);
    *s = *op;
    if (now <= a->ctime_ns) /* always later, as with metad's own clock */
        now = a->ctime_ns + 1;
    s->ctime_ns = now;
    if (op->valid & ATIME_NOW)
        s->atime_ns = now;
    if (op->valid & MTIME_NOW)
        s->mtime_ns = now;
    s->valid = op->valid & (MODE | UID | GID);
    if (op->valid & (ATIME | ATIME_NOW))
        s->valid |= ATIME;
    if (op->valid & (MTIME | MTIME_NOW))
        s->valid |= MTIME;
}

bool queue_setattr(struct client *c, const Replfs__SetattrOp *op, Replfs__Attr *a, bool held)
{
    Replfs__SetattrOp s;
    if (!can_wait(op, a))
        return false;
    LOCK_SCOPE(&c->queue.mu);
    struct queue_ino *b = ino_make(c, op->ino);
    if (b->shown)
        lay_over(b, a);
    stamp(c, &s, op, a);
    if (!b->open || (held && !b->held)) { /* one in the queue comes before the bytes */
        b->open = job_new(c, op->ino);
        b->held = held;
        if (!held)
            change_put(c, &b->open->o);
    }
    set_merge(&b->open->set, &s);
    set_merge(&b->view, &s);
    b->shown |= s.valid;
    lay_over(b, a);
    return true;
}

void queue_release(struct client *c, uint64_t ino)
{
    if (nothing(c))
        return;
    LOCK_SCOPE(&c->queue.mu);
    struct queue_ino *b = ino_get(c, ino);
    if (!b || !b->open || !b->held)
        return;
    b->held = false;
    change_put(c, &b->open->o);
}

void queue_accessed(struct client *c, uint64_t ino)
{
    if (nothing(c))
        return;
    LOCK_SCOPE(&c->queue.mu);
    struct queue_ino *b = ino_get(c, ino);
    if (b)
        b->shown &= ~(unsigned)ATIME;
}

void queue_wrote(struct client *c, uint64_t ino)
{
    if (nothing(c))
        return;
    LOCK_SCOPE(&c->queue.mu);
    struct queue_ino *b = ino_get(c, ino);
    if (!b)
        return;
    b->shown &= ~(unsigned)MTIME;
    if (b->open && b->held)
        b->open->set.valid &= ~(uint32_t)MTIME;
}

/* ---- waiting ---- */

void queue_put(struct client *c, struct queue_op *o)
{
    LOCK_SCOPE(&c->queue.mu);
    change_put(c, o);
}

bool queue_queued(struct client *c, uint64_t ino)
{
    if (nothing(c))
        return false;
    LOCK_SCOPE(&c->queue.mu);
    const struct queue_ino *b = ino_get(c, ino);
    return b && b->queued;
}

bool queue_naming(struct client *c, uint64_t ino)
{
    if (nothing(c))
        return false;
    LOCK_SCOPE(&c->queue.mu);
    const struct queue_ino *b = ino_get(c, ino);
    return b && b->naming;
}

static bool is_held(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->queue.mu);
    const struct queue_ino *b = ino_get(c, ino);
    return b && b->open && b->held;
}

/* mu held. */
static void hurry_upto(struct client *c, uint64_t upto)
{
    if (c->queue.hurry >= upto)
        return;
    c->queue.hurry = upto;
    cond_signal(&c->queue.cv);
}

/* 0, or -ERR_TIMEOUT: the queue has stood still for the mount's time-out. mu held. */
static int wait_upto(struct client *c, uint64_t upto)
{
    int64_t patience = c->cfg.timeout_ms * NSEC_PER_MSEC, least = clock_mono() + patience / 4;
    hurry_upto(c, upto);
    while (c->queue.done < upto) {
        int64_t until = c->queue.moved + patience;
        until = until > least ? until : least;
        if (clock_mono() >= until)
            return -ERR_TIMEOUT;
        /* a completion (mutation.done) that asks metad would wait for the thread that runs it */
        assert(!pthread_equal(pthread_self(), c->queue.thread));
        cond_wait_until(&c->queue.done_cv, &c->queue.mu, until);
    }
    return 0;
}

void queue_hurry(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->queue.mu);
    const struct queue_ino *b = ino_get(c, ino);
    if (b && b->queued)
        hurry_upto(c, b->last);
}

int queue_wait(struct client *c, uint64_t ino)
{
    if (nothing(c))
        return 0;
    LOCK_SCOPE(&c->queue.mu);
    const struct queue_ino *b = ino ? ino_get(c, ino) : NULL;
    return wait_upto(c, !ino ? c->queue.put : b && b->queued ? b->last : 0);
}

bool queue_room(struct client *c)
{
    LOCK_SCOPE(&c->queue.mu);
    return c->queue.put <= c->queue.done + QUEUE_MAX || !wait_upto(c, c->queue.put - QUEUE_MAX / 2);
}

static int wait_naming(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->queue.mu);
    const struct queue_ino *b = ino_get(c, ino);
    return b && b->naming ? wait_upto(c, b->last_naming) : 0;
}

int queue_before_ask(struct client *c, const Replfs__Envelope *req)
{
    uint64_t ino;
    switch (request_order(req, &ino)) {
    case REQUEST_AFTER_ALL:
        return queue_wait(c, 0);
    case REQUEST_AFTER_CHANGES:
        c->queue.events->flush_ino(c, ino); /* its error belongs to the one that writes the file */
        return ino ? queue_settle(c, ino) : 0;
    case REQUEST_AFTER_NAMES:
        return ino && !nothing(c) ? wait_naming(c, ino) : 0;
    case REQUEST_OVERTAKES:
        break;
    }
    return 0;
}

int queue_settle(struct client *c, uint64_t ino)
{
    if (nothing(c))
        return 0;
    if (is_held(c, ino)) {
        c->queue.events->flush_ino(c, ino);
        queue_release(c, ino); /* should the bytes not have found their way */
    }
    return queue_wait(c, ino);
}

struct before {
    struct client *c;
    bool all; /* it waits for everything anyway */
    int rc;
};

static void before_touch(void *arg, const struct metaop_touch *t)
{
    struct before *b = arg;
    if (b->rc)
        return;
    switch (t->how) {
    case METAOP_READS:
    case METAOP_CHANGES:
        b->rc = queue_settle(b->c, t->ino);
        break;
    case METAOP_COMMITS: /* what is held comes after it */
    case METAOP_SEES:    /* a time set by hand comes first */
        b->rc = queue_wait(b->c, t->ino);
        break;
    case METAOP_MAKES:
    case METAOP_REMOVES:
    case METAOP_REPLACES:
        b->rc = b->all ? 0 : queue_wait(b->c, t->ino);
        break;
    case METAOP_BEGINS:
    case METAOP_ENDS:
        break;
    }
}

int queue_before(struct client *c, const Replfs__MetaOp *op)
{
    enum metaop_below below = metaop_below(op);
    struct before b = {c, below != METAOP_BELOW_NOTHING, 0};
    if (metaop_does(op, METAOP_REPLACES))
        c->queue.events->flush_closed(c); /* a new file that replaces one is whole */
    if (below == METAOP_BELOW_ALL)
        lease_cache_doubt(c->leases); /* nothing is put meanwhile that a quota might refuse */
    if (nothing(c))
        return 0;
    metaop_visit(op, before_touch, &b);
    return !b.rc && b.all ? queue_wait(c, 0) : b.rc;
}

void queue_inos(struct client *c, uint64_t **inos, size_t *n)
{
    size_t pos = 0;
    LOCK_SCOPE(&c->queue.mu);
    uint64_t *v = realloc(*inos, (*n + c->queue.inos.n + 1) * sizeof(*v));
    if (!v)
        abort();
    *inos = v;
    for (struct queue_ino *b; (b = u64map_next_ptr(&c->queue.inos, &pos));)
        v[(*n)++] = b->ino;
}

/* ---- the sender ---- */

/* Takes what is there; mu held. */
static size_t sender_take(struct client *c, struct mutation **list, uint64_t (*inos)[2])
{
    size_t n = 0;
    while (c->queue.head && n < MUTATE_MAX) {
        struct queue_op *o = c->queue.head;
        struct queue_ino *b = ino_get(c, o->ino);
        c->queue.head = o->next;
        if (b->open && &b->open->o == o)
            b->open = NULL; /* on its way */
        inos[n][0] = o->ino;
        inos[n][1] = o->dir;
        list[n++] = &o->m;
    }
    if (!c->queue.head)
        c->queue.tail = &c->queue.head;
    return n;
}

/* More may come, and one message for all of it is cheaper; nobody waits yet. mu held. */
static void linger(struct client *c)
{
    int64_t until = clock_mono() + LINGER_NS;
    while (c->queue.hurry <= c->queue.done && !c->queue.stop &&
           c->queue.put - c->queue.done < MUTATE_MAX && clock_mono() < until)
        cond_wait_until(&c->queue.cv, &c->queue.mu, until);
}

static void *sender(void *arg)
{
    struct client *c = arg;
    struct mutation *list[MUTATE_MAX];
    uint64_t inos[MUTATE_MAX][2];
    lock_acquire(&c->queue.mu);
    for (;;) {
        while (!c->queue.head && !c->queue.stop)
            cond_wait(&c->queue.cv, &c->queue.mu);
        linger(c);
        size_t n = sender_take(c, list, inos);
        if (!n)
            break;
        lock_release(&c->queue.mu);
        mutation_run(c, list, n, INT64_MAX); /* or until the session is lost */
        lock_acquire(&c->queue.mu);
        for (size_t i = 0; i < n; i++) {
            uncount(c, inos[i][0], inos[i][1] != 0);
            if (inos[i][1])
                uncount(c, inos[i][1], true);
        }
        c->queue.done += n;
        c->queue.moved = clock_mono();
        cond_broadcast(&c->queue.done_cv);
    }
    lock_release(&c->queue.mu);
    return NULL;
}

int queue_start(struct client *c)
{
    int rc = thread_start(&c->queue.thread, "queue", sender, c);
    c->queue.started = !rc;
    return -rc;
}

void queue_stop(struct client *c)
{
    if (!c->queue.started)
        return;
    lock_acquire(&c->queue.mu);
    c->queue.stop = true;
    cond_signal(&c->queue.cv);
    lock_release(&c->queue.mu);
    pthread_join(c->queue.thread, NULL);
    c->queue.started = false;
}
