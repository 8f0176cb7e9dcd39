/* Reading the namespace: answered from memory under the fsm's read lock, on the thread that
 * received the request. What a reply needs is copied out before the lock is released, so that
 * nothing is sent while it is held. */
#include "service_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"

#define READDIR_MAX 4096u
#define READDIR_DEFAULT 1024u
#define DIRENT_BYTES 48u /* about, without name and attributes */
#define ATTR_BYTES 120u
#define INOS_MAX 4096u
#define FILES_MAX (1ull << 40) /* no limit of inodes: what statfs(2) shows as total */

void service_lookup(struct service *s, struct rpc_req *req)
{
    const Replfs__LookupReq *r = req->env->lookup_req;
    Replfs__LookupReply rep = REPLFS__LOOKUP_REPLY__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    uint64_t ino;

    if (!service_session_ok(s, req, r->session, true))
        return;
    fsm_rdlock(s->cfg.fsm);
    int rc = fsm_lookup(s->cfg.fsm, r->parent, r->name.data, r->name.len, &ino);
    if (rc == 0)
        rc = fsm_getattr(s->cfg.fsm, ino, &attr);
    enum lease_mode want = r->lease ? LEASE_SHARED : LEASE_NONE, dir = LEASE_NONE, on = LEASE_NONE;
    if (rc == 0 || rc == -ENOENT)
        dir = leases_grant(s->leases, r->session, r->parent, want, NULL);
    if (rc == 0 && dir != LEASE_ELSEWHERE)
        on = leases_grant(s->leases, r->session, ino, want, NULL);
    fsm_unlock(s->cfg.fsm);
    if (dir == LEASE_ELSEWHERE || on == LEASE_ELSEWHERE) {
        service_again(s, req, r->session, dir == LEASE_ELSEWHERE ? r->parent : ino, service_lookup);
        return;
    }
    rep.dir_lease = (uint32_t)dir;
    rep.lease = (uint32_t)on;
    bool nothing = rc == -ENOENT && rep.dir_lease != LEASE_NONE;
    if (rc != 0 && !nothing) {
        rpc_fail(req, rc, "lookup in directory %llu", (unsigned long long)r->parent);
        return;
    }
    rep.attr = nothing ? NULL : &attr;
    RPC_ENVELOPE(env, LOOKUP_REPLY, lookup_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_getattr(struct service *s, struct rpc_req *req)
{
    const Replfs__GetattrReq *r = req->env->getattr_req;
    Replfs__GetattrReply rep = REPLFS__GETATTR_REPLY__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;

    if (!service_session_ok(s, req, r->session, true))
        return;
    fsm_rdlock(s->cfg.fsm);
    int rc = fsm_getattr(s->cfg.fsm, r->ino, &attr);
    enum lease_mode on = LEASE_NONE;
    if (rc == 0)
        on =
            leases_grant(s->leases, r->session, r->ino, r->lease ? LEASE_SHARED : LEASE_NONE, NULL);
    fsm_unlock(s->cfg.fsm);
    if (on == LEASE_ELSEWHERE) {
        service_again(s, req, r->session, r->ino, service_getattr);
        return;
    }
    rep.lease = (uint32_t)on;
    if (rc != 0) {
        rpc_fail(req, rc, "inode %llu", (unsigned long long)r->ino);
        return;
    }
    rep.attr = &attr;
    RPC_ENVELOPE(env, GETATTR_REPLY, getattr_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_inos(struct service *s, struct rpc_req *req)
{
    const Replfs__InosReq *r = req->env->inos_req;
    Replfs__InosReply rep = REPLFS__INOS_REPLY__INIT;

    if (!service_session_ok(s, req, r->session, false))
        return;
    rep.count = r->count < 1 ? 1 : r->count < INOS_MAX ? r->count : INOS_MAX;
    rep.first = ids_inos(s->cfg.ids, r->session, rep.count);
    if (rep.first == 0) {
        rpc_fail(req, ERR_BUSY, "no inode numbers are reserved just now");
        return;
    }
    RPC_ENVELOPE(env, INOS_REPLY, inos_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_readlink(struct service *s, struct rpc_req *req)
{
    const Replfs__ReadlinkReq *r = req->env->readlink_req;
    Replfs__ReadlinkReply rep = REPLFS__READLINK_REPLY__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};
    const uint8_t *target;
    size_t len;

    if (!service_session_ok(s, req, r->session, true))
        return;
    fsm_rdlock(s->cfg.fsm);
    int rc = fsm_readlink(s->cfg.fsm, r->ino, &target, &len);
    if (rc == 0) {
        rep.target.data = reply_arena_copy(&arena, target, len);
        rep.target.len = len;
    }
    fsm_unlock(s->cfg.fsm);
    if (rc != 0) {
        rpc_fail(req, rc, "inode %llu", (unsigned long long)r->ino);
        return;
    }
    RPC_ENVELOPE(env, READLINK_REPLY, readlink_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* ---- directories ---- */

struct listing {
    struct fsm *fsm;
    struct leases *leases;
    bool lease; /* asked for */
    uint64_t session;
    struct reply_arena *arena;
    Replfs__Dirent **entries;
    size_t n, max, bytes;
    bool plus, full;
};

static uint32_t dirent_type(uint32_t mode)
{
    return (mode & S_IFMT) >> 12; /* DT_* are the type bits */
}

/* How many of the entries the page has room for; their bytes are counted. */
static size_t fitting(struct listing *l, const struct fsm_dirent *list, size_t n)
{
    size_t fit = 0;
    while (fit < n && l->n + fit < l->max) {
        l->bytes += DIRENT_BYTES + list[fit].len + (l->plus ? ATTR_BYTES : 0);
        if (l->bytes > SERVICE_REPLY_SOFT_MAX)
            break;
        fit++;
    }
    return fit;
}

static Replfs__Dirent *dirent(struct listing *l, const struct fsm_dirent *e)
{
    Replfs__Dirent *d = reply_arena_alloc(l->arena, sizeof(*d));
    replfs__dirent__init(d);
    d->name.data = reply_arena_copy(l->arena, e->name, e->len);
    d->name.len = e->len;
    d->ino = e->ino;
    d->type = dirent_type(e->mode);
    d->cookie = e->cookie;
    return d;
}

static bool list_some(void *arg, const struct fsm_dirent *list, size_t n)
{
    struct listing *l = arg;
    size_t fit = fitting(l, list, n);
    enum lease_mode on[FSM_DIRENTS_MAX];
    uint64_t ino[FSM_DIRENTS_MAX];

    for (size_t i = 0; i < fit; i++)
        ino[i] = list[i].ino;
    if (l->plus)
        leases_grant_list(l->leases, l->session, ino, fit, l->lease ? LEASE_SHARED : LEASE_NONE,
                          on);
    for (size_t i = 0; i < fit; i++) {
        Replfs__Dirent *d = dirent(l, &list[i]);
        l->entries[l->n++] = d;
        /* a client that keeps bytes back is not waited for: the reader asks when it wants to know */
        if (!l->plus || on[i] == LEASE_ELSEWHERE)
            continue;
        d->attr = reply_arena_alloc(l->arena, sizeof(*d->attr));
        replfs__attr__init(d->attr);
        fsm_dirent_attr(l->fsm, &list[i], d->attr);
        d->lease = (uint32_t)on[i];
    }
    l->full = fit < n;
    return !l->full;
}

void service_readdir(struct service *s, struct rpc_req *req)
{
    const Replfs__ReaddirReq *r = req->env->readdir_req;
    Replfs__ReaddirReply rep = REPLFS__READDIR_REPLY__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};
    struct listing l = {.fsm = s->cfg.fsm,
                        .leases = s->leases,
                        .lease = r->lease,
                        .session = r->session,
                        .arena = &arena,
                        .plus = r->plus};

    if (!service_session_ok(s, req, r->session, true))
        return;
    l.max = r->max_entries == 0            ? READDIR_DEFAULT
            : r->max_entries < READDIR_MAX ? r->max_entries
                                           : READDIR_MAX;
    l.entries = reply_arena_alloc(&arena, l.max * sizeof(*l.entries));
    fsm_rdlock(s->cfg.fsm);
    enum lease_mode dir = LEASE_NONE;
    uint64_t parent = 0;
    int rc = fsm_parent(s->cfg.fsm, r->ino, &parent);
    if (rc == 0)
        dir =
            leases_grant(s->leases, r->session, r->ino, r->lease ? LEASE_SHARED : LEASE_NONE, NULL);
    if (rc == 0 && dir != LEASE_ELSEWHERE)
        rc = fsm_readdir(s->cfg.fsm, r->ino, r->cookie, list_some, &l);
    rep.end = fsm_dir_end(s->cfg.fsm, r->ino);
    fsm_unlock(s->cfg.fsm);
    if (dir == LEASE_ELSEWHERE) {
        service_again(s, req, r->session, r->ino, service_readdir);
        return;
    }
    if (rc != 0) {
        rpc_fail(req, rc, "directory %llu", (unsigned long long)r->ino);
        return;
    }
    rep.entries = l.entries;
    rep.n_entries = l.n;
    rep.eof = !l.full;
    rep.parent = parent;
    rep.dir_lease = (uint32_t)dir;
    RPC_ENVELOPE(env, READDIR_REPLY, readdir_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* ---- space ---- */

void service_statfs(struct service *s, struct rpc_req *req)
{
    const Replfs__StatfsReq *r = req->env->statfs_req;
    Replfs__StatfsReply rep = REPLFS__STATFS_REPLY__INIT;
    struct fsm_counts counts;
    uint64_t total, avail;

    if (!service_session_ok(s, req, r->session, true))
        return;
    fsm_rdlock(s->cfg.fsm);
    int goal = fsm_goal(s->cfg.fsm, r->ino != 0 ? r->ino : FSM_ROOT_INO);
    if (goal <= 0)
        goal = fsm_goal(s->cfg.fsm, FSM_ROOT_INO);
    fsm_counts(s->cfg.fsm, &counts);
    nodes_space(s->cfg.nodes, goal > 0 ? (unsigned)goal : 1, &total, &avail);
    rep.total = total;
    rep.free = avail;
    rep.files = counts.files + counts.dirs + counts.symlinks + counts.others;
    rep.files_free = FILES_MAX - rep.files;
    service_quota_space(s, r->ino, &rep);
    fsm_unlock(s->cfg.fsm);
    RPC_ENVELOPE(env, STATFS_REPLY, statfs_reply, &rep);
    rpc_reply(req, &env, NULL);
}
