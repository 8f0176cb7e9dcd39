/* Quotas as people ask for them: QuotaListReq, and what statfs shows inside a tree with a quota.
 *
 * Each quota is read under its own read lock, since finding a directory's name looks through its
 * parent: nobody waits for a long list. A page ends when it has grown to the soft limit of a reply.
 * Paths that would not fit into one are cut at the front, beginning with "...".
 *
 * What was deleted is charged until it is reaped, moments later. A client that meets EDQUOT asks how
 * many such inodes there are (`freeing`), and tries again when there are none. Threads: rpc. */
#include "service_internal.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

#define QUOTA_BYTES 80u /* about, without path */
#define PATH_PARTS 256u
#define PATH_BYTES (16u << 10)
#define FREEING_MAX 1024u /* counted at most */

/* ---- space ---- */

static uint64_t left_of(uint64_t max, uint64_t used)
{
    return max > used ? max - used : 0;
}

void service_quota_space(struct service *s, uint64_t ino, Replfs__StatfsReply *rep)
{
    struct fsm_quota q;

    for (unsigned r = fsm_quota_realm(s->cfg.fsm, ino); fsm_quota_get(s->cfg.fsm, r, &q);
         r = q.outer) {
        uint64_t bytes = left_of(q.max_bytes, q.bytes + q.attrs),
                 inodes = left_of(q.max_inodes, q.inodes);
        if (q.max_bytes && q.max_bytes < rep->total)
            rep->total = q.max_bytes;
        if (q.max_bytes && bytes < rep->free)
            rep->free = bytes;
        if (q.max_inodes && inodes < rep->files_free) {
            rep->files_free = inodes;
            rep->files = q.inodes;
        }
    }
}

/* ---- lists ---- */

struct quotas {
    struct service *s;
    struct reply_arena arena;
    Replfs__QuotaListReply rep;
    size_t bytes;
};

/* The path of directory ino into q; returns its bytes. Read lock held. */
static size_t put_path(struct quotas *l, uint64_t ino, Replfs__QuotaInfo *q)
{
    ProtobufCBinaryData parts[PATH_PARTS];
    size_t n = 0, bytes = 0, len;
    const uint8_t *name;
    uint64_t parent;

    while (ino != FSM_ROOT_INO && fsm_dir_name(l->s->cfg.fsm, ino, &parent, &name, &len) == 0) {
        bool last = n == PATH_PARTS - 1 || bytes + len > PATH_BYTES;
        if (last) {
            name = (const uint8_t *)"...";
            len = 3;
        }
        parts[n].data = reply_arena_copy(&l->arena, name, len);
        parts[n++].len = len;
        bytes += len;
        if (last)
            break;
        ino = parent;
    }
    q->path = reply_arena_alloc(&l->arena, (n + 1) * sizeof(*q->path));
    q->n_path = n;
    for (size_t i = 0; i < n; i++)
        q->path[i] = parts[n - 1 - i];
    return bytes + 2 * n;
}

static void put_quota(struct quotas *l, unsigned realm, const struct fsm_quota *from)
{
    Replfs__QuotaInfo *q = reply_arena_alloc(&l->arena, sizeof(*q));

    replfs__quota_info__init(q);
    q->ino = from->ino;
    q->max_bytes = from->max_bytes;
    q->max_inodes = from->max_inodes;
    q->bytes = from->bytes + from->attrs;
    q->inodes = from->inodes;
    q->realm = realm;
    l->bytes += QUOTA_BYTES + put_path(l, from->ino, q);
    l->rep.quotas[l->rep.n_quotas++] = q;
}

static bool is_charged(struct fsm *f, uint64_t ino, unsigned realm)
{
    struct fsm_quota q;
    unsigned r = fsm_quota_realm(f, ino);

    while (r != 0 && r != realm && fsm_quota_get(f, r, &q))
        r = q.outer;
    return r != 0 && r == realm;
}

/* Unlinked inodes in the tree of `realm` that nobody has open. Read lock held. */
static uint32_t count_freeing(struct service *s, unsigned realm)
{
    uint32_t n = 0, seen = 0;

    for (uint64_t ino = 0; seen < FREEING_MAX && fsm_orphan_next(s->cfg.fsm, ino, &ino); seen++)
        if (is_charged(s->cfg.fsm, ino, realm) && !sessions_is_open(s->cfg.sessions, ino))
            n++;
    return n == 0 && seen == FREEING_MAX ? 1 : n; /* more may be behind */
}

static int list_of(struct quotas *l, uint64_t ino)
{
    unsigned outermost = 0;
    struct fsm *f = l->s->cfg.fsm;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    struct fsm_quota q;

    fsm_rdlock(f);
    int rc = fsm_getattr(f, ino, &attr);
    for (unsigned r = fsm_quota_realm(f, ino); fsm_quota_get(f, r, &q); r = q.outer) {
        outermost = r;
        if (l->bytes <= SERVICE_REPLY_SOFT_MAX) /* else hundreds, with long names */
            put_quota(l, r, &q);
    }
    if (outermost != 0)
        l->rep.freeing = count_freeing(l->s, outermost);
    fsm_unlock(f);
    return rc;
}

static bool is_below(struct fsm *f, uint64_t ino, uint64_t below)
{
    uint64_t parent;

    while (below != 0 && ino != below) {
        if (fsm_parent(f, ino, &parent) != 0 || parent == ino)
            return false;
        ino = parent;
    }
    return true;
}

static void list_all(struct quotas *l, const Replfs__QuotaListReq *r)
{
    struct fsm *f = l->s->cfg.fsm;
    unsigned realm = r->after < UINT16_MAX ? (unsigned)r->after : UINT16_MAX;
    struct fsm_quota q;

    while (!l->rep.more) {
        fsm_rdlock(f);
        realm = fsm_quota_next(f, realm);
        bool got = fsm_quota_get(f, realm, &q);
        if (got && l->bytes > SERVICE_REPLY_SOFT_MAX)
            l->rep.more = true;
        else if (got && is_below(f, q.ino, r->below))
            put_quota(l, realm, &q);
        fsm_unlock(f);
        if (!got)
            break;
    }
}

static void quotas_free(struct quotas *l)
{
    reply_arena_free(&l->arena);
}

void service_quota_list(struct service *s, struct rpc_req *req)
{
    const Replfs__QuotaListReq *r = req->env->quota_list_req;
    CLEANUP(quotas_free) struct quotas l = {.s = s, .rep = REPLFS__QUOTA_LIST_REPLY__INIT};
    int rc = 0;

    l.rep.quotas = reply_arena_alloc(&l.arena, FSM_QUOTAS_MAX * sizeof(*l.rep.quotas));
    if (r->ino != 0)
        rc = list_of(&l, r->ino);
    else
        list_all(&l, r);
    if (rc != 0) {
        rpc_fail(req, rc, "inode %llu", (unsigned long long)r->ino);
        return;
    }
    RPC_ENVELOPE(env, QUOTA_LIST_REPLY, quota_list_reply, &l.rep);
    rpc_reply(req, &env, NULL);
}
