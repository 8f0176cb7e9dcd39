/* Compaction of a chunk: its live ranges, which metad names, become another chunk of this chunkd.
 *
 * No byte goes over the network: each chunkd reads its own copy, with all checksums checked, and appends what it was told to
 * a fresh chunk, in records of COMPACTION_PIECE bytes with checksums of their own. The order says everything, so the copies
 * that several chunkds make are equal byte for byte and record for record. The new chunk takes its place as a whole, synced,
 * before the order is answered (store_copy_finish); whatever was there under its number is replaced, so that an order that
 * is repeated does no harm. The former chunk stays: metad deletes it when no file shows it any more.
 *
 * Reads are of windows that may span short dead ranges; where such a window cannot be read, what is live in it may be:
 * then the live range is read alone. A live byte that cannot be read ends the order, and metad hears why.
 *
 * Thread context: pool threads of orders.c, which may block. */
#include "compaction.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "store_wait.h"

#define LOG_MODULE "orders"
#define COMPACTION_PIECE (1u << 20) /* of one record: an append's limit */
#define CHUNK_BYTES_MAX (64u << 20)
#define GAP_MAX (64u << 10) /* dead bytes that are read along rather than skipped */

int compaction_check(const Replfs__CompactOrder *o)
{
    uint64_t end = 0;
    if (!o->chunk || !o->to || o->chunk == o->to || !o->n_off || o->n_off != o->n_len)
        return -ERR_PROTOCOL;
    for (size_t i = 0; i < o->n_off; i++) {
        if (o->off[i] < end || !o->len[i])
            return -ERR_PROTOCOL;
        end = (uint64_t)o->off[i] + o->len[i];
        if (end > CHUNK_BYTES_MAX)
            return -ERR_PROTOCOL;
    }
    return 0;
}

struct compaction {
    struct service *s;
    const Replfs__CompactOrder *o;
    struct store *from, *to;
    uint64_t token;
    size_t range;       /* that is being copied */
    uint32_t done;      /* bytes of it that were */
    uint32_t pos;       /* bytes of the new chunk */
    uint32_t win, wlen; /* what of the old chunk is in window */
    uint8_t window[COMPACTION_PIECE];
};

/* The window becomes [off, off + len) of the old chunk. */
static int window_read(struct compaction *c, uint32_t off, uint32_t len)
{
    struct store_read r;
    c->wlen = 0;
    int rc = store_read(c->from, c->o->chunk, off, len, STORE_VERIFY, &r);
    if (rc != 0)
        return rc;
    const uint8_t *at = r.data->data;
    for (size_t i = 0; i < r.n; at += r.spans[i++].len) { /* spans begin and end at blocks */
        const struct store_span *sp = &r.spans[i];
        uint32_t lo = sp->chunk_off > off ? sp->chunk_off : off;
        uint32_t end = sp->chunk_off + sp->len, hi = end < off + len ? end : off + len;
        if (lo < hi)
            memcpy(c->window + (lo - off), at + (lo - sp->chunk_off), hi - lo);
    }
    buf_unref(r.data);
    free(r.spans);
    c->win = off;
    c->wlen = len;
    return 0;
}

/* Has [off, off + len), which is at the place reached in the present range, in the window, with as much behind it as is
 * worth reading at once. */
static int window_need(struct compaction *c, uint32_t off, uint32_t len)
{
    if (off >= c->win && off - c->win <= c->wlen && len <= c->wlen - (off - c->win))
        return 0;
    uint64_t limit = (uint64_t)off + COMPACTION_PIECE, end = off + len;
    for (size_t i = c->range; i < c->o->n_off && c->o->off[i] <= end + GAP_MAX; i++) {
        uint64_t to = (uint64_t)c->o->off[i] + c->o->len[i];
        if (c->o->off[i] >= limit)
            break;
        end = to < limit ? to : limit;
    }
    int rc = window_read(c, off, (uint32_t)(end - off));
    return rc == 0 ? 0 : window_read(c, off, len);
}

/* The next bytes of the new chunk, up to COMPACTION_PIECE. */
static int piece_fill(struct compaction *c, struct buf *b)
{
    const Replfs__CompactOrder *o = c->o;
    while (c->range < o->n_off && b->len < COMPACTION_PIECE) {
        uint32_t off = o->off[c->range] + c->done, left = o->len[c->range] - c->done;
        uint32_t room = COMPACTION_PIECE - (uint32_t)b->len, n = left < room ? left : room;
        int rc = window_need(c, off, n);
        if (rc != 0)
            return rc;
        memcpy(b->data + b->len, c->window + (off - c->win), n);
        b->len += n;
        c->done += n;
        if (c->done == o->len[c->range]) {
            c->range++;
            c->done = 0;
        }
    }
    return 0;
}

static int piece_copy(struct compaction *c)
{
    struct buf *b = buf_new(COMPACTION_PIECE);
    b->len = 0;
    int rc = piece_fill(c, b);
    if (rc == 0) {
        CLEANUP(free_ptr) uint8_t *crcs = malloc(crc_blocks((uint32_t)b->len) * 4);
        struct store_wait w = STORE_WAIT_INIT;
        if (!crcs)
            abort();
        crc_blocks_make(b->data, (uint32_t)b->len, crcs);
        struct store_append a = {.chunk = c->o->to,
                                 .session = c->o->to_session,
                                 .chunk_off = c->pos,
                                 .data = b,
                                 .crcs = crcs};
        store_wait_add(&w);
        store_copy_append(c->to, c->token, &a, store_wait_done, &w);
        rc = store_wait_end(&w);
        c->pos += (uint32_t)b->len;
    }
    buf_unref(b);
    return rc;
}

/* 0, or why the order cannot be about what is here: a number that was given twice is not the chunk that is meant, and what
 * another wrote under the new one's number stays. */
static int compaction_writers(const struct compaction *c)
{
    uint64_t session;
    uint32_t len;
    int rc = store_chunk_len(c->from, c->o->chunk, &len, &session);
    if (rc != 0)
        return rc;
    if (session != c->o->session)
        return -ERR_NO_CHUNK;
    rc = store_chunk_len(c->to, c->o->to, &len, &session);
    if (rc == -ERR_NO_CHUNK)
        return 0;
    return rc == 0 && session != c->o->to_session ? -EEXIST : rc;
}

static int compaction_all(struct compaction *c)
{
    struct store_wait w = STORE_WAIT_INIT;
    int rc = compaction_writers(c);
    if (rc == 0)
        rc = store_copy_begin(c->to, c->o->to, c->o->to_session, &c->token);
    if (rc != 0)
        return rc;
    while (rc == 0 && c->range < c->o->n_off)
        rc = serve_stopping(c->s) ? -ERR_SHUTDOWN : piece_copy(c);
    if (rc == 0) {
        store_wait_add(&w);
        store_copy_finish(c->to, c->token, UINT32_MAX, store_wait_done, &w);
        rc = store_wait_end(&w);
    }
    if (rc != 0)
        store_copy_abort(c->to, c->token);
    return rc;
}

static uint32_t compaction_bytes(const Replfs__CompactOrder *o)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < o->n_len; i++)
        sum += o->len[i];
    return sum;
}

void compaction_run(struct service *s, struct rpc_req *req)
{
    const Replfs__CompactOrder *o = req->env->order_req->compact;
    CLEANUP(free_ptr) struct compaction *c = calloc(1, sizeof(*c));
    struct disk *from = disks_find(serve_disks(s), o->chunk, false), *to = NULL;
    if (!c)
        abort();
    c->s = s;
    c->o = o;
    int rc =
        from ? disks_copy_enter(serve_disks(s), o->to, compaction_bytes(o), &to) : -ERR_NO_CHUNK;
    if (rc == 0) {
        c->from = disk_store(from);
        c->to = disk_store(to);
        rc = compaction_all(c);
        disks_copy_leave(serve_disks(s), to);
    }
    if (rc != 0) {
        serve_fail(s, req, rc, 0, "compacting chunk %llx to %llx: %s", (unsigned long long)o->chunk,
                   (unsigned long long)o->to, err_str(rc));
        return;
    }
    log_debug("compacted chunk %llx to %llx, %u bytes", (unsigned long long)o->chunk,
              (unsigned long long)o->to, c->pos);
    Replfs__OrderReply r = REPLFS__ORDER_REPLY__INIT;
    r.bytes = r.len = c->pos;
    r.disk = disk_index(to);
    RPC_ENVELOPE(env, ORDER_REPLY, order_reply, &r);
    serve_reply(s, req, &env, NULL);
}
