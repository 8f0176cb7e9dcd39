/* Commits.
 *
 * A commit takes the acknowledged buffers at the head of the file's list, in the order of
 * writing, and tells metad their extents; then they leave the list and the overlay, and the
 * committed map has them. One commit per file at a time (JOB_COMMIT). Bytes first, map
 * second: nothing unacknowledged is ever committed.
 *
 * It is queued (queue.c) where nobody needs metad to know at once; else by the calling thread. What must not be
 * committed before it is on a disk waits for that (write_order.c). */
#include "client/writeback/commit.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/extmap.h"
#include "base/log.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "client/base/limits.h"
#include "client/cache/lease_cache.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/committed_map.h"
#include "client/file/file_check.h"
#include "client/file/file_table.h"
#include "client/file/overlay.h"
#include "client/file/wchunk.h"
#include "client/internal.h"
#include "client/queue/queue.h"
#include "client/session/mutation.h"
#include "client/writeback/quota.h"
#include "client/writeback/write_order.h"

#define LOG_MODULE "flush"
#define COMMIT_BUFS_MAX 1024u

struct batch {
    struct abuf **bufs;
    uint64_t *chunks;
    size_t n;
    struct ext *exts;
    size_t nexts;
    uint64_t session;
    uint64_t begun; /* of lease_cache_begin */
    bool append;    /* its places count from the end of the file */
    unsigned life;  /* of the oldest buffer */
    uint64_t over;  /* moved bytes: see CommitOp */
    int64_t over_shift;
};

static void batch_free(struct batch *b)
{
    free(b->bufs);
    free(b->chunks);
    free(b->exts);
}

static uint64_t batch_bytes(const struct batch *b)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < b->nexts; i++)
        sum += b->exts[i].len;
    return sum;
}

static bool same_kind(const struct abuf *a, const struct abuf *b)
{
    return a->append == b->append && a->over == b->over && a->over_shift == b->over_shift;
}

/* Takes the acknowledged buffers at the head, written under one session, all at their places, all
 * at the end of the file, or all moved by one way. 0 with b->n == 0: none. */
static int batch_take(struct cfile *f, struct batch *b)
{
    size_t n = 0, used = 0;
    *b = (struct batch){0};
    bool append = f->head && f->head->append;
    for (struct abuf *a = f->head; a && a->state == ABUF_ACKED && n < COMMIT_BUFS_MAX;
         a = a->next) {
        if (!same_kind(a, f->head) || order_needed(f, a))
            break;
        n++;
    }
    if (!n)
        return 0;
    b->bufs = calloc(n, sizeof(*b->bufs));
    b->chunks = calloc(n, sizeof(*b->chunks));
    if (!b->bufs || !b->chunks)
        return -ENOMEM;
    b->session = f->head->wc->session;
    b->life = f->head->life;
    b->append = append;
    b->over = f->head->over;
    b->over_shift = f->head->over_shift;
    size_t i = 0;
    for (struct abuf *a = f->head; i < n && a->wc->session == b->session; a = a->next, i++) {
        b->bufs[i] = a;
        b->chunks[i] = a->wc->loc.chunk;
    }
    if (append)
        abuf_place(b->bufs, i);
    b->exts = overlay_extents(b->bufs, i, b->chunks, COMMIT_EXTENTS_MAX, &b->nexts, &used);
    if (!b->exts)
        return -ENOMEM;
    b->n = used;
    for (i = 0; i < used; i++)
        b->bufs[i]->state = ABUF_COMMITTING;
    return 0;
}

/* ---- the message ---- */

struct commit_msg {
    Replfs__MetaOp op;
    Replfs__CommitOp commit;
    Replfs__Extent *exts, **ext_list;
    Replfs__ChunkCopies *copies, **copy_list;
    uint32_t (*chunkds)[COPIES_MAX];
    uint64_t (*registrations)[COPIES_MAX];
};

static void msg_free(struct commit_msg *m)
{
    free(m->exts);
    free(m->ext_list);
    free(m->copies);
    free(m->copy_list);
    free(m->chunkds);
    free(m->registrations);
}

static void msg_add_copies(struct commit_msg *m, struct wchunk *wc)
{
    size_t k = m->commit.n_copies;
    for (size_t i = 0; i < k; i++) {
        if (m->copies[i].chunk == wc->loc.chunk)
            return;
    }
    Replfs__ChunkCopies *c = &m->copies[k];
    replfs__chunk_copies__init(c);
    c->chunk = wc->loc.chunk;
    c->len = wc->acked;
    memcpy(m->chunkds[k], wc->loc.chunkds, sizeof(wc->loc.chunkds));
    c->n_chunkds = wc->loc.n;
    c->chunkds = m->chunkds[k];
    for (uint32_t i = 0; i < wc->loc.n; i++)
        m->registrations[k][i] = wc->took[i].registration;
    c->n_registrations = wc->loc.n;
    c->registrations = m->registrations[k];
    c->cap = (ProtobufCBinaryData){wc->loc.cap_len, wc->loc.cap};
    m->copy_list[k] = c;
    m->commit.n_copies++;
}

static int msg_build(struct cfile *f, const struct batch *b, struct commit_msg *m)
{
    memset(m, 0, sizeof(*m));
    replfs__meta_op__init(&m->op);
    replfs__commit_op__init(&m->commit);
    m->op.op_case = REPLFS__META_OP__OP_COMMIT;
    m->op.commit = &m->commit;
    m->exts = calloc(b->nexts, sizeof(*m->exts));
    m->ext_list = calloc(b->nexts, sizeof(*m->ext_list));
    m->copies = calloc(b->n, sizeof(*m->copies));
    m->copy_list = calloc(b->n, sizeof(*m->copy_list));
    m->chunkds = calloc(b->n, sizeof(*m->chunkds));
    m->registrations = calloc(b->n, sizeof(*m->registrations));
    if (!m->exts || !m->ext_list || !m->copies || !m->copy_list || !m->chunkds || !m->registrations)
        return -ENOMEM;
    m->commit.ino = f->ino;
    if (!b->over) {
        m->commit.mtime_ns = f->dirty_mtime;
        m->commit.written_then = true;
        m->commit.kill_suid = f->kill_suid;
    }
    m->commit.append = b->append;
    m->commit.over = b->over;
    m->commit.over_shift = b->over_shift;
    for (size_t i = 0; i < b->nexts; i++) {
        Replfs__Extent *x = &m->exts[i];
        replfs__extent__init(x);
        x->file_off = b->exts[i].file_off;
        x->len = b->exts[i].len;
        x->chunk = b->exts[i].chunk;
        x->chunk_off = b->exts[i].chunk_off;
        m->ext_list[i] = x;
    }
    m->commit.extents = m->ext_list;
    m->commit.n_extents = b->nexts;
    for (size_t i = 0; i < b->n; i++)
        msg_add_copies(m, b->bufs[i]->wc);
    m->commit.copies = m->copy_list;
    return 0;
}

/* ---- the answer ---- */

static int lost_code(int rc)
{
    return rc == -ERR_SESSION || rc == -ERR_TIMEOUT || rc == -ESTALE ? -EIO : rc;
}

/* The extents of b are in the committed map now. When the file has another size than they explain,
 * somebody else changed it: then nothing of what we know of it counts. */
static void batch_into_map(struct cfile *f, struct batch *b, const Replfs__Attr *attr)
{
    uint64_t size = f->attr.size;
    cfile_changed_since(f, b->begun);
    if (b->over) { /* where others wrote since, they won: ask */
        map_drop(f);
    }
    for (size_t i = 0; !b->over && i < b->nexts; i++) {
        extmap_insert(&f->base, &b->exts[i], NULL, NULL, NULL);
        if (size < b->exts[i].file_off + b->exts[i].len)
            size = b->exts[i].file_off + b->exts[i].len;
    }
    if (!attr->ino)
        return;
    if (attr->size != size) {
        map_drop(f);
        f->base_synced = false;
    }
    attr_copy(&f->attr, attr);
}

/* The buffers of b leave the list: committed (rc 0) or lost. base: what their places count from. */
static void batch_finish(struct cfile *f, struct batch *b, int rc, const Replfs__Attr *attr,
                         uint64_t base)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < b->nexts; i++)
        b->exts[i].file_off += base;
    if (!rc)
        batch_into_map(f, b, attr);
    for (size_t i = 0; i < b->n; i++) {
        struct abuf *a = b->bufs[i];
        assert(f->head == a && a->state == ABUF_COMMITTING);
        if (!a->append)
            overlay_drop(&f->over, a);
        abuf_answer(a, lost_code(rc), base + a->pieces[0].file_off);
        bytes += a->len;
        f->head = a->next;
        abuf_free(f, a);
    }
    f->uncommitted -= bytes;
    f->map_gen++;
    if (rc) {
        if (rc != -EDQUOT) /* quota_refused said more */
            log_error("inode %llu: %llu bytes are with the chunkds but metad did not take them: %s",
                      (unsigned long long)f->ino, (unsigned long long)bytes, err_str(rc));
        if (rc == -EDQUOT) { /* as told now; the next write asks anew */
            f->attr.flags |= REPLFS__ATTR_FLAG__ATTR_QUOTA;
            f->attr.quota_left = 0;
        }
        cfile_fail(f, lost_code(rc));
    }
    if (!f->head) {
        f->tail = NULL;
        f->dirty_end = 0;
        f->dirty_mtime = 0;
        f->kill_suid = false;
        queue_release(f->c, f->ino);
        cfile_mark_clean(f);
    }
    file_check(f);
}

struct commit_job {
    struct queue_op o;
    struct cfile *f;
    struct batch b;
    struct commit_msg m;
    struct lease_request asker;
};

static void commit_over(struct commit_job *j, int rc, const Replfs__Attr *attr, uint64_t base)
{
    struct cfile *f = j->f;
    lease_cache_ask_end(f->c->leases, &j->asker);
    msg_free(&j->m);
    if (rc == -EDQUOT)
        quota_refused(f->c, f->ino, batch_bytes(&j->b));
    lock_acquire(&f->mu);
    f->jobs &= ~JOB_COMMIT;
    batch_finish(f, &j->b, rc, attr, j->b.append ? base : 0);
    batch_free(&j->b);
    free(j);
    cond_broadcast(&f->cv);
}

static void committed(struct mutation *m, int code, const Replfs__MutationResult *r)
{
    struct commit_job *j = (struct commit_job *)m;
    struct cfile *f = j->f;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    if (r && r->attr)
        attr_copy(&attr, r->attr);
    commit_over(j, code, &attr, 0);
    commit_eager(f);
    lock_release(&f->mu);
    cfile_unref(f);
}

/* The caller that waited for it does so no more, but its bytes are part of the file as soon as metad is back. */
static void commit_late(struct mutation *m)
{
    struct commit_job *j = (struct commit_job *)m;
    queue_put(j->f->c, &j->o);
}

/* ---- sending ---- */

/* By this thread. mu held, dropped meanwhile. */
static void commit_now(struct commit_job *j)
{
    struct cfile *f = j->f;
    struct client *c = f->c;
    struct mutation *m = &j->o.m;
    cfile_ref(f);
    lock_release(&f->mu);
    if (queue_wait(c, f->ino))
        commit_late(m);
    else
        mutation_run(c, &m, 1, client_deadline(c));
    lock_acquire(&f->mu);
}

/* One commit of what is acknowledged. mu held, dropped while metad works; deferred: it is queued
 * instead (queue.c), and under way until it is done. False when there is nothing to commit, or not before
 * it is on a disk: that is seen to. */
bool commit_some(struct cfile *f, bool deferred)
{
    struct client *c = f->c;
    if (f->head && f->head->state == ABUF_ACKED && order_needed(f, f->head)) {
        order_begin(f);
        return false;
    }
    struct commit_job *j = calloc(1, sizeof(*j));
    if (!j || batch_take(f, &j->b)) /* without memory for a message nothing goes on */
        abort();
    if (!j->b.n) {
        batch_free(&j->b);
        free(j);
        return false;
    }
    if (msg_build(f, &j->b, &j->m))
        abort();
    j->f = f;
    j->b.begun = lease_cache_begin(c->leases);
    lease_cache_ask_begin(c->leases, &j->asker, f->ino);
    f->jobs |= JOB_COMMIT;
    file_check(f);
    j->o = (struct queue_op){.m = {.op = &j->m.op,
                                   .need = j->b.session,
                                   .done = committed,
                                   .late = commit_late,
                                   .life = j->b.life},
                             .ino = f->ino};
    if (deferred && !quota_applies(f) && !j->b.append) {
        bool all = j->b.bufs[j->b.n - 1] == f->tail;
        cfile_ref(f);
        queue_put(c, &j->o);
        if (all)
            queue_release(c, f->ino);
        return true;
    }
    if (!quota_applies(f) && !j->b.append) {
        commit_now(j);
        return true;
    }
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    uint64_t base = 0;
    lock_release(&f->mu);
    int rc = quota_mutate(c, &j->m.op, j->b.session, client_deadline(c), &attr, NULL, &base);
    commit_over(j, rc, &attr, base);
    return true;
}

/* A closed file: nobody else would hurry. */
void commit_eager(struct cfile *f)
{
    const struct abuf *a = f->head;
    if (f->phase == FILE_CLOSED && !(f->jobs & JOB_COMMIT) && a && a->state == ABUF_ACKED &&
        !a->append && !quota_applies(f))
        commit_some(f, true);
}
