/* Reading: holes are zeros, buffered bytes are copied, the rest comes from chunkds, checked.
 *
 * A read is cut into segments (overlay_next). Chunk segments are asked for in parallel, each
 * from the copy that nodes_order() puts first. A copy that fails, or has a bad CRC, is followed
 * by the next; one that is slow gets company after HEDGE_MS, and the first good answer wins. Bad
 * copies are reported to metad, which has them verified and healed. When no copy of a segment
 * served, the layout is fetched anew (the chunk may have moved, the capability may have expired)
 * and the read begins again, until the mount's time-out; when all copies answered and none is
 * good, twice in a row, it is EIO at once. No byte whose CRC was not checked leaves this file.
 *
 * Nobody waits for an ordinary read (read_later): whoever has an answer goes on with it, one at a
 * time (op->handling), and the last one hands out the bytes; reads_look() finds copies that are slow.
 * What went wrong with every copy once gets a thread of its own, which tries until the time-out.
 *
 * Threads: answers come on loop threads, which only queue them where a reader waits (op_wait). A
 * readop is referenced by its reader, or as long as it is listed, and by each outstanding request. */
#include "internal.h"
#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/wait.h"

#define LOG_MODULE "read"
#define READ_MAX (1u << 20)
#define HEDGE_MS 500
#define TRY_TIMEOUT_MS 10000u

struct span {
    uint32_t off, len;
    const uint8_t *crcs;
};
struct answer {
    struct answer *next;
    struct readop *op;
    size_t seg;
    uint32_t chunkd;
    int64_t started;
    int code;
    struct buf *payload;
    size_t nspans;
    struct span *spans; /* one block with the crcs */
};
struct readseg { /* the reader's, except that `op->mu` protects nothing of it */
    struct cloc loc;
    uint32_t off, len;
    size_t dest; /* in the output */
    uint32_t order[COPIES_MAX];
    uint32_t next; /* of order, to be asked */
    unsigned pending;
    bool done;
    int code;         /* of the last failure */
    bool unreachable; /* some copy did not answer */
    int64_t hedge_at;
};
struct readop {
    struct client *c;
    uint64_t ino, session;
    pthread_mutex_t mu; /* leaf: refs, answers */
    pthread_cond_t cv;
    unsigned refs;
    struct answer *answers;
    size_t nsegs, capsegs;
    struct readseg *segs;
    struct buf *out;
    size_t len;
    unsigned try_ms;
    bool stale; /* a chunk without location */

    /* where nobody waits: */
    cfile_read_fn *done;
    void *arg;
    struct cfile *f; /* referenced */
    uint64_t off, map_gen;
    int64_t deadline;
    bool handling;              /* some thread is at the segments; mu */
    struct readop *prev, *next; /* c->reads.mu */
};

/* ---- readop ---- */

static struct readop *op_new(struct cfile *f)
{
    struct readop *op = calloc(1, sizeof(*op));
    if (!op)
        return NULL;
    op->c = f->c;
    op->ino = f->ino;
    op->session = session_id(f->c);
    op->refs = 1;
    op->try_ms = f->c->cfg.timeout_ms < TRY_TIMEOUT_MS ? f->c->cfg.timeout_ms : TRY_TIMEOUT_MS;
    pthread_mutex_init(&op->mu, NULL);
    cond_init_mono(&op->cv);
    return op;
}

static struct readop *op_ref(struct readop *op)
{
    pthread_mutex_lock(&op->mu);
    op->refs++;
    pthread_mutex_unlock(&op->mu);
    return op;
}

static void answer_free(struct answer *a)
{
    buf_unref(a->payload);
    free(a->spans);
    free(a);
}

static void op_unref(struct readop *op)
{
    pthread_mutex_lock(&op->mu);
    bool last = --op->refs == 0;
    pthread_mutex_unlock(&op->mu);
    if (!last)
        return;
    while (op->answers) {
        struct answer *a = op->answers;
        op->answers = a->next;
        answer_free(a);
    }
    buf_unref(op->out);
    free(op->segs);
    pthread_cond_destroy(&op->cv);
    pthread_mutex_destroy(&op->mu);
    free(op);
}

/* ---- completions ---- */

/* Copies what the reply says of its spans; rep does not live longer than the callback. */
static int keep_spans(struct answer *a, const Replfs__ReadReply *r)
{
    size_t bytes = 0;
    for (size_t i = 0; i < r->n_spans; i++)
        bytes += r->spans[i]->crcs.len;
    a->spans = malloc(r->n_spans * sizeof(*a->spans) + bytes + 1);
    if (!a->spans)
        return -ENOMEM;
    uint8_t *p = (uint8_t *)(a->spans + r->n_spans);
    for (size_t i = 0; i < r->n_spans; i++) {
        const Replfs__Span *s = r->spans[i];
        if (!s->len || s->crcs.len != 4 * crc_blocks(s->len))
            return -ERR_PROTOCOL;
        a->spans[i] = (struct span){s->chunk_off, s->len, p};
        memcpy(p, s->crcs.data, s->crcs.len);
        p += s->crcs.len;
    }
    a->nspans = r->n_spans;
    return 0;
}

static void later_go_on(struct readop *op, int64_t now);

static void read_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct answer *a = arg;
    struct readop *op = a->op;
    nodes_end(op->c, a->chunkd, a->started, !code);
    a->code = code;
    if (!code && (rep->body_case != REPLFS__ENVELOPE__BODY_READ_REPLY || !payload))
        a->code = -ERR_PROTOCOL;
    if (!a->code)
        a->code = keep_spans(a, rep->read_reply);
    if (!a->code)
        a->payload = buf_ref(payload);
    pthread_mutex_lock(&op->mu);
    a->next = op->answers;
    op->answers = a;
    pthread_cond_signal(&op->cv);
    pthread_mutex_unlock(&op->mu);
    if (op->done)
        later_go_on(op, 0);
    op_unref(op);
}

/* ---- asking ---- */

/* Asks the next copy of a segment; false when there is none left that could be asked. */
static bool ask_next(struct readop *op, size_t i)
{
    struct readseg *s = &op->segs[i];
    struct client *c = op->c;
    while (s->next < s->loc.n) {
        uint32_t id = s->order[s->next++];
        struct rpc_conn *conn = nodes_conn(c, id);
        if (!conn) {
            s->code = -ERR_PEER_GONE;
            s->unreachable = true;
            continue;
        }
        struct answer *a = calloc(1, sizeof(*a));
        if (!a)
            abort();
        *a = (struct answer){.op = op_ref(op), .seg = i, .chunkd = id, .started = clock_mono()};
        Replfs__ReadReq m = REPLFS__READ_REQ__INIT;
        m.chunk = s->loc.chunk;
        m.off = s->off;
        m.len = s->len;
        m.session = op->session;
        m.cap = (ProtobufCBinaryData){s->loc.cap_len, s->loc.cap};
        RPC_ENVELOPE(env, READ_REQ, read_req, &m);
        s->pending++;
        s->hedge_at = clock_mono() + HEDGE_MS * NSEC_PER_MSEC;
        nodes_begin(c, id);
        rpc_call(conn, &env, NULL, op->try_ms, read_done, a);
        rpc_conn_unref(conn);
        return true;
    }
    return false;
}

/* ---- answers ---- */

static void report_bad(struct readop *op, const struct readseg *s, uint32_t chunkd, int code)
{
    char name[256];
    nodes_name(op->c, chunkd, name, sizeof(name));
    log_warn("inode %llu: copy of chunk %llx on %s is bad at %u+%u: %s; reading another",
             (unsigned long long)op->ino, (unsigned long long)s->loc.chunk, name, s->off, s->len,
             err_str(code));
    Replfs__ReportBadReq m = REPLFS__REPORT_BAD_REQ__INIT;
    m.chunk = s->loc.chunk;
    m.chunkd = chunkd;
    m.code = (uint32_t)-code;
    RPC_ENVELOPE(env, REPORT_BAD_REQ, report_bad_req, &m);
    session_tell(op->c, &env);
}

/* Checks every span and copies the wanted range (or hands the payload through). 0, -ERR_CRC,
 * -ERR_PROTOCOL, -ERR_SHORT. */
static int take(struct readop *op, const struct readseg *s, const struct answer *a)
{
    size_t at = 0;
    uint32_t pos = s->off, end = s->off + s->len;
    bool whole = op->nsegs == 1 && s->len == op->len && a->nspans == 1 &&
                 a->spans[0].off == s->off && a->spans[0].len == s->len &&
                 a->payload->len == s->len;
    for (size_t i = 0; i < a->nspans; i++) {
        const struct span *sp = &a->spans[i];
        if (sp->len > a->payload->len - at)
            return -ERR_PROTOCOL;
        const uint8_t *data = a->payload->data + at;
        if (crc_blocks_check(data, sp->len, sp->crcs) >= 0)
            return -ERR_CRC;
        uint64_t sp_end = (uint64_t)sp->off + sp->len;
        if (!whole && sp->off <= pos && sp_end > pos) {
            uint32_t n = (uint32_t)(sp_end < end ? sp_end : end) - pos;
            memcpy(op->out->data + s->dest + (pos - s->off), data + (pos - sp->off), n);
            pos += n;
        }
        at += sp->len;
    }
    if (whole) {
        buf_unref(op->out);
        op->out = buf_ref(a->payload);
        return 0;
    }
    return pos == end ? 0 : -ERR_SHORT;
}

static void handle(struct readop *op, struct answer *a)
{
    struct readseg *s = &op->segs[a->seg];
    s->pending--;
    if (s->done)
        return;
    int code = a->code;
    if (!code)
        code = take(op, s, a);
    if (!code) {
        s->done = true;
        s->code = 0;
        return;
    }
    if (code == -ERR_CRC)
        atomic_fetch_add(&op->c->crc_errors, 1);
    atomic_fetch_add(&op->c->read_retries, 1);
    if (code == -ERR_CRC || code == -ERR_NO_CHUNK || code == -ERR_SHORT || code == -EIO)
        report_bad(op, s, a->chunkd, code);
    else if (code != -ERR_CAP && code != -ERR_CAP_EXPIRED)
        s->unreachable = true;
    s->code = code;
    if (!ask_next(op, a->seg) && !s->pending)
        s->done = true;
}

/* Asks for all segments. */
static void op_start(struct readop *op)
{
    for (size_t i = 0; i < op->nsegs; i++) {
        struct readseg *s = &op->segs[i];
        memcpy(s->order, s->loc.chunkds, sizeof(s->order));
        nodes_order(op->c, s->loc.chunk, s->order, s->loc.n);
        if (!ask_next(op, i)) {
            s->done = true;
            s->code = s->code ? s->code : -ERR_NO_CHUNK;
            s->unreachable = true;
        }
    }
}

/* How many segments are not done; those that have waited long are asked of another copy, too. *wake
 * becomes when that will be due next, if that is sooner. */
static size_t op_left(struct readop *op, int64_t now, int64_t *wake)
{
    size_t left = 0;
    for (size_t i = 0; i < op->nsegs; i++) {
        struct readseg *s = &op->segs[i];
        if (s->done)
            continue;
        left++;
        if (s->next < s->loc.n && now >= s->hedge_at && ask_next(op, i))
            atomic_fetch_add(&op->c->read_retries, 1);
        if (s->next < s->loc.n && s->hedge_at < *wake)
            *wake = s->hedge_at;
    }
    return left;
}

static void handle_all(struct readop *op, struct answer *list)
{
    while (list) {
        struct answer *a = list;
        list = a->next;
        handle(op, a);
        answer_free(a);
    }
}

/* 0 or the worst code, of segments that are done. */
static int op_code(const struct readop *op)
{
    for (size_t i = 0; i < op->nsegs; i++) {
        if (op->segs[i].code)
            return op->segs[i].code;
    }
    return 0;
}

/* Waits until each segment is done, well or not. 0 or the worst code. */
static int op_wait(struct readop *op)
{
    for (;;) {
        int64_t now = clock_mono(), wake = now + NSEC_PER_SEC;
        if (!op_left(op, now, &wake))
            return op_code(op);
        pthread_mutex_lock(&op->mu);
        if (!op->answers)
            cond_wait_until(&op->cv, &op->mu, wake);
        struct answer *list = op->answers;
        op->answers = NULL;
        pthread_mutex_unlock(&op->mu);
        handle_all(op, list);
    }
}

/* ---- cutting a read into segments (f->mu held) ---- */

static int add_seg(struct readop *op, const struct cloc *l, uint32_t off, uint32_t len, size_t dest)
{
    while (len) {
        uint32_t part = len < READ_MAX ? len : READ_MAX;
        if (op->nsegs == op->capsegs) {
            size_t cap = op->capsegs ? op->capsegs * 2 : 4;
            struct readseg *s = realloc(op->segs, cap * sizeof(*s));
            if (!s)
                return -ENOMEM;
            op->segs = s;
            op->capsegs = cap;
        }
        op->segs[op->nsegs++] = (struct readseg){.loc = *l, .off = off, .len = part, .dest = dest};
        off += part;
        len -= part;
        dest += part;
    }
    return 0;
}

static int add_piece(struct cfile *f, struct readop *op, const struct seg *s, size_t dest)
{
    struct abuf *a = s->kind == SEG_BUFFER ? idmap_get(&f->abufs, s->id) : NULL;
    assert(s->kind != SEG_BUFFER || a);
    if (s->kind == SEG_HOLE || s->kind == SEG_RESERVED) {
        memset(op->out->data + dest, 0, s->len);
        return 0;
    }
    if (a && a->buf) {
        memcpy(op->out->data + dest, a->buf->data + s->at, s->len);
        return 0;
    }
    if (a)
        return add_seg(op, &a->wc->loc, a->chunk_off + s->at, (uint32_t)s->len, dest);
    struct cloc *l = idmap_get(&f->locs, s->id);
    if (!l || !l->n) {
        op->stale = true;
        return 0;
    }
    return add_seg(op, l, s->at, (uint32_t)s->len, dest);
}

/* Fills op for [off, off+len), shortened at the end of the file. mu held, dropped while metad is
 * asked. */
static int op_plan(struct cfile *f, struct readop *op, uint64_t off, size_t len, int64_t deadline)
{
    uint64_t size = cfile_size(f);
    uint64_t end = off >= size ? off : len < size - off ? off + len : size;
    int rc = layout_need(f, end, deadline);
    if (rc)
        return rc;
    if (cfile_size(f) < end) /* learnt meanwhile */
        end = cfile_size(f) > off ? cfile_size(f) : off;
    op->len = end - off;
    op->out = buf_new(op->len ? op->len : 1);
    op->out->len = op->len;
    for (uint64_t pos = off; pos < end && !rc;) {
        struct seg s;
        overlay_next(&f->over, &f->base, pos, end, &s);
        rc = add_piece(f, op, &s, pos - off);
        pos += s.len;
    }
    return rc;
}

/* ---- the whole read ---- */

static bool all_answered(const struct readop *op)
{
    for (size_t i = 0; i < op->nsegs; i++) {
        if (op->segs[i].code && op->segs[i].unreachable)
            return false;
    }
    return !op->stale;
}

static void log_failed(const struct readop *op, int rc)
{
    for (size_t i = 0; i < op->nsegs; i++) {
        const struct readseg *s = &op->segs[i];
        char who[600] = "";
        size_t at = 0;
        if (!s->code)
            continue;
        for (uint32_t k = 0; k < s->loc.n && at + 130 < sizeof(who); k++) {
            char name[128];
            nodes_name(op->c, s->loc.chunkds[k], name, sizeof(name));
            at += (size_t)snprintf(who + at, sizeof(who) - at, "%s%s", k ? ", " : "", name);
        }
        log_error("inode %llu: chunk %llx cannot be read at %u+%u: %s; copies: %s",
                  (unsigned long long)op->ino, (unsigned long long)s->loc.chunk, s->off, s->len,
                  err_str(rc), *who ? who : "none known");
        return;
    }
    log_error("inode %llu: cannot be read: %s; no copy of a chunk is known",
              (unsigned long long)op->ino, err_str(rc));
}

/* What metad said of the file before gen did not serve. */
static void distrust(struct cfile *f, uint64_t gen)
{
    pthread_mutex_lock(&f->mu);
    if (f->map_gen == gen)
        layout_drop(f);
    pthread_mutex_unlock(&f->mu);
}

/* One round: 0, or a code; *again: worth fetching the layout and trying once more; *answered:
 * all copies did. */
static int round_once(struct cfile *f, uint64_t off, size_t len, int64_t deadline, bool log,
                      struct buf **out, bool *again, bool *answered)
{
    *again = *answered = false;
    struct readop *op = op_new(f);
    if (!op)
        return -ENOMEM;
    pthread_mutex_lock(&f->mu);
    uint64_t gen = f->map_gen;
    int rc = op_plan(f, op, off, len, deadline);
    pthread_mutex_unlock(&f->mu);
    if (!rc) {
        rc = -ERR_NO_CHUNK;
        if (!op->stale) {
            op_start(op);
            rc = op_wait(op);
        }
        *again = rc != 0;
        *answered = rc && all_answered(op);
    }
    if (!rc) {
        *out = op->out;
        op->out = NULL;
    } else if (log) {
        log_failed(op, rc);
    }
    if (*again)
        distrust(f, gen);
    op_unref(op);
    return rc;
}

static int read_until(struct cfile *f, uint64_t off, size_t len, int64_t deadline, struct buf **out)
{
    unsigned hopeless = 0, pause_ms = 20;
    for (;;) {
        bool again, answered;
        bool last = hopeless == 2 || clock_mono() + pause_ms * NSEC_PER_MSEC >= deadline;
        int rc = round_once(f, off, len, deadline, last, out, &again, &answered);
        if (!rc || !again)
            return rc;
        if (last)
            return -EIO;
        hopeless = answered ? hopeless + 1 : 0;
        pthread_mutex_lock(&f->mu);
        cond_wait_until(&f->cv, &f->mu, clock_mono() + pause_ms * NSEC_PER_MSEC);
        pthread_mutex_unlock(&f->mu);
        pause_ms = pause_ms < 400 ? pause_ms * 2 : 500;
        nodes_refresh(f->c);
    }
}

int read_range(struct cfile *f, uint64_t off, size_t len, struct buf **out)
{
    return read_until(f, off, len, client_deadline(f->c), out);
}

struct readop *read_start(struct cfile *f, size_t len, unsigned try_ms)
{
    struct readop *op = op_new(f);
    if (!op)
        return NULL;
    op->try_ms = try_ms;
    pthread_mutex_lock(&f->mu);
    int rc = op_plan(f, op, 0, len, clock_mono());
    pthread_mutex_unlock(&f->mu);
    if (rc || op->stale) {
        op_unref(op);
        return NULL;
    }
    op_start(op);
    return op;
}

int read_wait(struct readop *op, struct buf **out)
{
    int rc = op_wait(op);
    if (!rc) {
        *out = op->out;
        op->out = NULL;
    }
    op_unref(op);
    return rc;
}

/* ---- reads that nobody waits for ---- */

static void later_list(struct client *c, struct readop *op)
{
    later_begin(c);
    LOCK_SCOPE(&c->reads.mu);
    op->next = c->reads.first;
    if (op->next)
        op->next->prev = op;
    c->reads.first = op;
    c->reads.n++;
}

static void later_unlist(struct client *c, struct readop *op)
{
    LOCK_SCOPE(&c->reads.mu);
    *(op->prev ? &op->prev->next : &c->reads.first) = op->next;
    if (op->next)
        op->next->prev = op->prev;
    c->reads.n--;
}

static void later_over(struct readop *op, int rc, struct buf *b)
{
    struct client *c = op->c;
    op->done(op->arg, rc, b);
    cfile_unref(op->f);
    op_unref(op);
    later_done(c);
}

static void *try_again(void *arg)
{
    struct readop *op = arg;
    struct buf *b = NULL;
    distrust(op->f, op->map_gen);
    int rc = read_until(op->f, op->off, op->len, op->deadline, &b);
    later_over(op, rc, b);
    buf_unref(b);
    return NULL;
}

static void later_end(struct readop *op)
{
    later_unlist(op->c, op);
    int rc = op_code(op);
    if (!rc || !later_thread(try_again, op))
        later_over(op, rc ? -EIO : 0, rc ? NULL : op->out);
}

/* By whoever set op->handling, as long as there are answers. now: copies that are slow by then get
 * company. */
static void later_handle(struct readop *op, int64_t now)
{
    int64_t wake = INT64_MAX;
    while (op_left(op, now, &wake)) {
        pthread_mutex_lock(&op->mu);
        struct answer *list = op->answers;
        op->answers = NULL;
        op->handling = list != NULL;
        pthread_mutex_unlock(&op->mu);
        if (!list)
            return;
        handle_all(op, list);
    }
    later_end(op); /* still handling: later answers find nothing to do */
}

static void later_go_on(struct readop *op, int64_t now)
{
    pthread_mutex_lock(&op->mu);
    bool mine = !op->handling;
    op->handling = true;
    pthread_mutex_unlock(&op->mu);
    if (mine)
        later_handle(op, now);
}

void reads_look(struct client *c)
{
    size_t n = 0;
    pthread_mutex_lock(&c->reads.mu);
    struct readop **list = calloc(c->reads.n + 1, sizeof(struct readop *));
    if (!list)
        abort();
    for (struct readop *op = c->reads.first; op; op = op->next)
        list[n++] = op_ref(op);
    pthread_mutex_unlock(&c->reads.mu);
    for (size_t i = 0; i < n; i++) {
        later_go_on(list[i], clock_mono());
        op_unref(list[i]);
    }
    free(list);
}

/* ---- what the outside calls ---- */

/* Bytes that are at hand, 1; or 0: those at chunkds are needed; or an error. */
static int read_local(struct cfile *f, off_t off, size_t len, struct buf **out)
{
    if (off < 0)
        return -EINVAL;
    /* Not every read is preceded by a question for attributes (O_DIRECT, page faults): without a
     * lease another client may have changed the file. */
    if (lcache_term(f->c->lcache) && !lcache_ttl(f->c->lcache, f->ino)) {
        Replfs__Attr now = REPLFS__ATTR__INIT;
        int rc = client_getattr_now(f->c, f->ino, &now);
        if (rc)
            return rc;
    }
    return ahead_read(f, (uint64_t)off, len, out);
}

/* Asks for what is needed: NULL when metad has to be asked first what that is, or cannot be. */
static struct readop *later_plan(struct cfile *f, uint64_t off, size_t len, int64_t deadline)
{
    struct readop *op = op_new(f);
    if (!op)
        abort();
    pthread_mutex_lock(&f->mu);
    op->map_gen = f->map_gen;
    int rc = op_plan(f, op, off, len, deadline);
    pthread_mutex_unlock(&f->mu);
    if (!rc && !op->stale)
        return op;
    op_unref(op);
    return NULL;
}

void cfile_read_later(struct cfile *f, off_t off, size_t len, cfile_read_fn *done, void *arg)
{
    int64_t deadline = client_deadline(f->c);
    struct buf *b = NULL;
    int rc = read_local(f, off, len, &b);
    struct readop *op = rc ? NULL : later_plan(f, (uint64_t)off, len, deadline);
    if (!op) {
        if (!rc)
            rc = read_until(f, (uint64_t)off, len, deadline, &b);
        done(arg, rc < 0 ? rc : 0, b);
        buf_unref(b);
        return;
    }
    op->f = f;
    cfile_ref(f);
    op->done = done;
    op->arg = arg;
    op->off = (uint64_t)off;
    op->deadline = deadline;
    op->handling = true;
    later_list(f->c, op);
    op_start(op);
    later_handle(op, 0);
}

struct waited {
    sem_t over;
    int rc;
    struct buf *b;
};

static void wake(void *arg, int rc, struct buf *b)
{
    struct waited *w = arg;
    w->rc = rc;
    w->b = buf_ref(b);
    sem_post(&w->over);
}

int cfile_read(struct cfile *f, off_t off, size_t len, struct buf **out)
{
    struct waited w = {0};
    sem_init(&w.over, 0, 0);
    cfile_read_later(f, off, len, wake, &w);
    wait_begin();
    while (sem_wait(&w.over)) /* EINTR */
        ;
    sem_destroy(&w.over);
    *out = w.b;
    return w.rc;
}
