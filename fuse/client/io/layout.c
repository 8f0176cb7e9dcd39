/* The committed extents of a file and where their chunks are, as fetched from metad.
 *
 * Known is always a prefix of the file, [0, base_to): reading beyond fetches more. Our own
 * commits and truncates change the map directly and raise map_gen, so that a layout asked for
 * before and answered after is refused instead of bringing old extents back. A foreign change
 * (attr.change differs at open or getattr, or a chunk that is gone) drops the map. All with
 * cfile.mu held; layout_need drops it while it waits. */
#include "client/io/layout.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "client/file/cfile.h"
#include "client/file/committed_map.h"
#include "client/internal.h"
#include "client/io/chunkds.h"
#include "client/session/ask.h"

#define LOG_MODULE "layout"
#define LAYOUT_EXTENTS 2048u

static int layout_fetch(struct cfile *f, int64_t deadline)
{
    Replfs__LayoutReq m = REPLFS__LAYOUT_REQ__INIT;
    m.ino = f->ino;
    m.off = f->base_to;
    m.len = UINT64_MAX - f->base_to;
    m.max_extents = LAYOUT_EXTENTS;
    uint64_t gen = f->map_gen, from = f->base_to;
    f->jobs |= JOB_FETCH;
    lock_release(&f->mu);
    RPC_ENVELOPE(env, LAYOUT_REQ, layout_req, &m);
    struct rpc_result res;
    int rc = session_ask(f->c, &env, deadline, &res);
    if (!rc && res.rep->body_case != REPLFS__ENVELOPE__BODY_LAYOUT_REPLY)
        rc = -ERR_PROTOCOL;
    lock_acquire(&f->mu);
    f->jobs &= ~JOB_FETCH;
    if (!rc) {
        const Replfs__LayoutReply *r = res.rep->layout_reply;
        chunkds_saw_epoch(f->c, r->nodes_epoch);
        map_take(f, r, gen);
        if (gen == f->map_gen) {
            if (r->attr)
                attr_copy(&f->attr, r->attr);
            if (f->base_to == from) /* nothing new: a metad that would make us ask for ever */
                f->base_to = UINT64_MAX;
        }
    }
    cond_broadcast(&f->cv);
    rpc_result_free(&res);
    return rc;
}

int layout_need(struct cfile *f, uint64_t end, int64_t deadline)
{
    while (f->base_to < end) {
        if (clock_mono() >= deadline)
            return -ERR_TIMEOUT;
        if (f->jobs & JOB_FETCH) {
            cond_wait_until(&f->cv, &f->mu, deadline);
            continue;
        }
        int rc = layout_fetch(f, deadline);
        if (rc)
            return rc;
    }
    return 0;
}
