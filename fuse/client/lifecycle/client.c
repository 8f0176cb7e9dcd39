/* Opening and closing a client, and the calls that concern no open file in particular.
 *
 * Closing: everything dirty is flushed within the mount's time-out; then the background threads
 * stop, the session is left to expire (metad has no close of a session in the protocol: its
 * lease ends it), the loop closes all connections, which completes what was on its way, and
 * memory goes last. */
#include "client/internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/log.h"
#include "base/machine.h"

#define LOG_MODULE "client"
#define BLOCKS_LOOK_MAX 1024u
#define CACHE_MAX 200000u
#define OVERTAKEN_MAX 3u

static void read_host_id(struct client *c)
{
    if (c->cfg.host_id && *c->cfg.host_id) {
        snprintf(c->host_id, sizeof(c->host_id), "%s", c->cfg.host_id);
        return;
    }
    char id[MACHINE_ID_MAX];
    if (machine_id(id) == 0) /* else no copy is known to be near */
        snprintf(c->host_id, sizeof(c->host_id), "%s", id);
}

static void locks_init(struct client *c)
{
    pthread_mutex_init(&c->session.mu, NULL);
    cond_init_mono(&c->session.cv);
    pthread_mutex_init(&c->grants.mu, NULL);
    cond_init_mono(&c->grants.cv);
    pthread_mutex_init(&c->files.mu, NULL);
    cond_init_mono(&c->files.flush_cv);
    pthread_mutex_init(&c->dirty.mu, NULL);
    cond_init_mono(&c->dirty.cv);
    pthread_mutex_init(&c->queue.mu, NULL);
    cond_init_mono(&c->queue.cv);
    cond_init_mono(&c->queue.done_cv);
    c->queue.tail = &c->queue.head;
    async_reply_init(c);
    nodes_init(c);
    atime_init(c);
    client_locks_start(c);
    names_init(c);
    pthread_mutex_init(&c->prefetch.mu, NULL);
    pthread_cond_init(&c->prefetch.cv, NULL);
    cond_init_mono(&c->prefetch.fetched);
    pthread_mutex_init(&c->dirs.mu, NULL);
    pthread_cond_init(&c->dirs.cv, NULL);
    cond_init_mono(&c->dirs.came);
}

/* Accepts a half-built client. */
static void client_free(struct client *c)
{
    c->stopping = true;
    dirs_stop(c);
    prefetch_stop(c);
    flush_stop(c);
    queue_stop(c);
    grants_stop(c);
    client_locks_stop(c);
    session_stop(c);
    lease_cache_stop(c->leases);
    if (c->loop)
        rpc_loop_free(c->loop); /* completes all calls */
    cfile_free_all(c);
    idmap_clear(&c->queue.inos);
    nodes_free(c);
    atime_free(c);
    client_locks_free(c);
    names_free(c);
    lease_cache_free(c->leases);
    free(c->name);
    free(c);
}

int client_open(const struct client_config *cfg, struct client **out)
{
    struct client *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->cfg = *cfg;
    atomic_init(&c->life, 1);
    c->cfg.timeout_ms = cfg->timeout_ms ? cfg->timeout_ms : 60000;
    c->cfg.dirty_max = cfg->dirty_max ? cfg->dirty_max : 128ull << 20;
    c->cfg.flush_ms = cfg->flush_ms ? cfg->flush_ms : 1000;
    if (c->cfg.dirty_max < 4 * APPEND_MAX)
        c->cfg.dirty_max = 4 * APPEND_MAX;
    c->leases = lease_cache_new(cfg->cache_max ? cfg->cache_max : CACHE_MAX, cfg->invalidate,
                                cfg->invalidate_arg, recall_forget, c);
    c->name = strdup(cfg->name ? cfg->name : "client");
    read_host_id(c);
    locks_init(c);
    int rc = c->name ? rpc_loop_new(&cfg->rpc, &c->loop) : -ENOMEM;
    if (!rc)
        rc = session_start(c);
    if (!rc)
        rc = nodes_refresh(c);
    if (!rc)
        rc = grants_start(c);
    if (!rc)
        rc = queue_start(c);
    if (!rc)
        rc = flush_start(c);
    if (!rc)
        rc = prefetch_start(c);
    if (!rc)
        rc = dirs_start(c);
    if (rc) {
        client_free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void client_wait_answers(struct client *c)
{
    async_reply_wait(c);
}

void client_close(struct client *c)
{
    struct cfile **list;
    async_reply_wait(c);
    size_t n = cfile_dirty_all(c, &list);
    int rc = 0;
    int64_t until = client_deadline(c); /* of all, should nobody answer */
    for (size_t i = 0; i < n; i++) {
        bool waits = clock_mono() < until || flush_waits(c, rc);
        rc = waits ? flush_file(list[i], FLUSH_COMMIT, true) : rc;
        if (rc)
            log_error("inode %llu: not wholly written at the end: %s",
                      (unsigned long long)list[i]->ino, err_str(rc));
        cfile_unref(list[i]);
    }
    free(list);
    queue_wait(c, 0);
    client_flush_atime(c, 0);
    client_free(c);
}

int client_reload_tls(struct client *c)
{
    return rpc_loop_reload_tls(c->loop);
}

const char *client_cluster(struct client *c)
{
    return c->session.cluster;
}

/* ---- plain calls ---- */

int client_mutate(struct client *c, Replfs__MetaOp *op, Replfs__Attr *attr, Replfs__Attr *parent)
{
    Replfs__Attr got = REPLFS__ATTR__INIT;
    int rc = op->op_case == REPLFS__META_OP__OP_RENAME ? order_rename(c, op->rename) : 0;
    if (rc)
        return rc;
    uint64_t begun = lease_cache_begin(c->leases);
    rc = quota_mutate(c, op, 0, client_deadline(c), &got, parent, NULL);
    if (rc)
        return rc;
    if (op->op_case == REPLFS__META_OP__OP_CREATE && S_ISREG(op->create->mode) && got.ino)
        session_close_ino(c, got.ino); /* unless cfile_open_new follows */
    struct cfile *f = got.ino ? cfile_get(c, got.ino) : NULL;
    if (f) { /* our own change of an open file: its extents are the same unless it was truncated */
        pthread_mutex_lock(&f->mu);
        bool same = got.change >= f->attr.change && got.size == f->attr.size &&
                    lease_cache_held_since(c->leases, begun, got.ino);
        if (same)
            attr_copy(&f->attr, &got);
        else
            cfile_set_attr(f, &got);
        pthread_mutex_unlock(&f->mu);
        cfile_unref(f);
    }
    if (attr) {
        attr_copy(attr, &got);
        client_merge_attr(c, attr);
    }
    return 0;
}

int client_ask(struct client *c, Replfs__Envelope *req, struct rpc_result *out)
{
    return session_ask(c, req, client_deadline(c), out);
}

/* Bytes buffered where the file has none yet, as st_blocks should show them. What lies in a part of
 * the map that is not known counts as there already; of very many stretches, the first. */
static uint64_t unflushed_blocks(const struct cfile *f)
{
    uint64_t sum = 0, at = 0;
    struct ext e;
    for (unsigned k = 0; k < BLOCKS_LOOK_MAX && extmap_find(&f->over, at, &e); k++) {
        at = e.file_off + e.len;
        uint64_t known = f->base_to < f->attr.size ? f->base_to : UINT64_MAX;
        if (e.file_off < known)
            sum += extmap_holes(&f->base, e.file_off, at < known ? at : known);
        if (at > known && at > f->attr.size)
            sum += at - (e.file_off > f->attr.size ? e.file_off : f->attr.size);
    }
    return sum;
}

/* An answer may be older than what a commit of ours has brought since: then ours counts. The kernel would take
 * the former size for the file's end. */
void client_merge_attr(struct client *c, Replfs__Attr *a)
{
    if (S_ISDIR(a->mode) && !lease_cache_overlay(c->leases, a) && queue_naming(c, a->ino)) {
        client_getattr_now(c, a->ino, a); /* what is queued was forgotten: metad tells, after it */
        return;
    }
    atime_overlay(c, a);
    atime_note(c, a);
    struct cfile *f = a->ino ? cfile_get(c, a->ino) : NULL;
    if (!f) {
        queue_overlay(c, a);
        return;
    }
    pthread_mutex_lock(&f->mu);
    cfile_set_attr(f, a);
    if (f->attr.change > a->change) {
        attr_copy(a, &f->attr);
        atime_overlay(c, a);
    }
    if (f->head) {
        if (f->dirty_end > a->size)
            a->size = f->dirty_end;
        a->allocated += unflushed_blocks(f);
        if (f->dirty_mtime) {
            a->mtime_ns = f->dirty_mtime;
            if (a->ctime_ns < f->dirty_mtime)
                a->ctime_ns = f->dirty_mtime;
        }
        if (f->kill_suid)
            a->mode &= ~(uint32_t)(S_ISUID | (a->mode & S_IXGRP ? S_ISGID : 0));
    }
    queue_overlay(c, a);
    pthread_mutex_unlock(&f->mu);
    cfile_unref(f);
}

int64_t client_attr_ttl(struct client *c, const Replfs__Attr *a)
{
    struct cfile *f = cfile_get(c, a->ino);
    if (f) { /* with buffered bytes size and times are ours, not metad's, and change by themselves */
        pthread_mutex_lock(&f->mu);
        bool dirty = f->head != NULL;
        pthread_mutex_unlock(&f->mu);
        cfile_unref(f);
        if (dirty)
            return 0;
    }
    return lease_cache_give_attr(c->leases, a);
}

int64_t client_entry_ttl(struct client *c, uint64_t dir, const char *name, uint64_t ino)
{
    return lease_cache_give_name(c->leases, dir, name, strlen(name), ino);
}

int64_t client_list_ttl(struct client *c, uint64_t dir)
{
    return lease_cache_ttl(c->leases, dir);
}

void client_linking(struct client *c, uint64_t dir, bool begin)
{
    lease_cache_linking(c->leases, dir, begin);
}

uint64_t client_begin(struct client *c)
{
    return lease_cache_begin(c->leases);
}

/* Attributes of a directory in an answer that did not wait for what was queued of it. */
static void dir_as_now(struct client *c, uint64_t begun, Replfs__Attr *a)
{
    if (S_ISDIR(a->mode) &&
        (queue_naming(c, a->ino) || lease_cache_crossed(c->leases, begun, a->ino)))
        client_getattr_now(c, a->ino, a);
}

void client_saw_entries(struct client *c, uint64_t begun, uint64_t dir, bool from_start,
                        const Replfs__ReaddirReply *r)
{
    for (size_t i = 0; i < r->n_entries; i++) {
        const Replfs__Dirent *e = r->entries[i];
        if (e->attr)
            dir_as_now(c, begun, e->attr);
        if (e->lease && e->attr) {
            Replfs__Attr a = REPLFS__ATTR__INIT;
            attr_copy(&a, e->attr);
            client_merge_attr(c, &a); /* an open file hears of a change first */
            lease_cache_put_attr(c->leases, begun, e->attr, e->lease);
        }
        if (r->dir_lease)
            lease_cache_put_entry(c->leases, begun, dir, e->name.data, e->name.len, e->ino);
    }
    prefetch_listed(c, dir, r, from_start);
}

void client_listed(struct client *c, uint64_t begun, uint64_t dir, size_t n)
{
    lease_cache_listed(c->leases, begun, dir, n);
}

/* An answer for ino, which has gone through client_merge_attr, may be older than a change of ours that was told
 * as done before it was asked for: if the file is not open any more, nobody there knew better. So it is asked
 * for again, unless that goes on. begun: before asking. */
static bool overtaken(struct client *c, uint64_t begun, uint64_t ino, unsigned *round)
{
    return lease_cache_crossed(c->leases, begun, ino) && (*round)++ < OVERTAKEN_MAX;
}

static int lookup_now(struct client *c, uint64_t begun, Replfs__LookupReq *m, Replfs__Attr *out)
{
    RPC_ENVELOPE(env, LOOKUP_REQ, lookup_req, m);
    struct rpc_result res;
    int rc = client_ask(c, &env, &res);
    if (!rc && res.rep->body_case != REPLFS__ENVELOPE__BODY_LOOKUP_REPLY)
        rc = -ERR_PROTOCOL;
    if (!rc) {
        const Replfs__LookupReply *r = res.rep->lookup_reply;
        if (r->attr) { /* an open file hears of a change before a lease says that there is none */
            dir_as_now(c, begun, r->attr);
            attr_copy(out, r->attr);
            client_merge_attr(c, out);
        }
        if (r->attr && r->lease)
            lease_cache_put_attr(c->leases, begun, r->attr, r->lease);
        if (r->dir_lease)
            lease_cache_put_entry(c->leases, begun, m->parent, m->name.data, m->name.len,
                                  r->attr ? r->attr->ino : 0);
        rc = r->attr ? 0 : -ENOENT;
    }
    rpc_result_free(&res);
    return rc;
}

int client_lookup(struct client *c, uint64_t parent, const char *name, Replfs__Attr *out)
{
    Replfs__LookupReq m = REPLFS__LOOKUP_REQ__INIT;
    uint64_t begun = lease_cache_begin(c->leases);
    m.parent = parent;
    m.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    m.lease = true;
    switch (lease_cache_lookup(c->leases, parent, m.name.data, m.name.len, out)) {
    case LEASE_CACHE_NAME:
        client_merge_attr(c, out);
        if (!lease_cache_crossed(c->leases, begun, out->ino))
            return 0;
        break;
    case LEASE_CACHE_NO_NAME:
        return -ENOENT;
    case LEASE_CACHE_MISS:
        break;
    }
    int rc;
    unsigned round = 0;
    do {
        begun = lease_cache_begin(c->leases);
        rc = lookup_now(c, begun, &m, out);
    } while (!rc && overtaken(c, begun, out->ino, &round));
    return rc;
}

int client_getattr(struct client *c, uint64_t ino, Replfs__Attr *out)
{
    return client_attr_known(c, ino, out) ? 0 : client_getattr_now(c, ino, out);
}

bool client_attr_known(struct client *c, uint64_t ino, Replfs__Attr *out)
{
    uint64_t begun = lease_cache_begin(c->leases);
    if (!lease_cache_getattr(c->leases, ino, out))
        return false;
    client_merge_attr(c, out);
    return !lease_cache_crossed(c->leases, begun, ino);
}

bool client_dir_same(struct client *c, uint64_t begun, uint64_t dir)
{
    return lease_cache_ttl(c->leases, dir) && lease_cache_held_since(c->leases, begun, dir) &&
           !lease_cache_crossed(c->leases, begun, dir);
}

static int getattr_once(struct client *c, uint64_t begun, uint64_t ino, Replfs__Attr *out)
{
    Replfs__GetattrReq m = REPLFS__GETATTR_REQ__INIT;
    m.ino = ino;
    m.lease = true;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &m);
    struct rpc_result res;
    int rc = client_ask(c, &env, &res);
    if (!rc && (res.rep->body_case != REPLFS__ENVELOPE__BODY_GETATTR_REPLY ||
                !res.rep->getattr_reply->attr))
        rc = -ERR_PROTOCOL;
    if (!rc) {
        const Replfs__GetattrReply *r = res.rep->getattr_reply;
        attr_copy(out, r->attr);
        client_merge_attr(c, out);
        if (r->lease)
            lease_cache_put_attr(c->leases, begun, r->attr, r->lease);
    }
    rpc_result_free(&res);
    return rc;
}

int client_getattr_now(struct client *c, uint64_t ino, Replfs__Attr *out)
{
    uint64_t begun;
    unsigned round = 0;
    int rc;
    do {
        begun = lease_cache_begin(c->leases);
        rc = getattr_once(c, begun, ino, out);
    } while (!rc && overtaken(c, begun, ino, &round));
    return rc;
}

bool client_setattr_deferred(struct client *c, const Replfs__SetattrOp *op, Replfs__Attr *a)
{
    if (c->cfg.sync_all || !lease_cache_exclusive(c->leases, op->ino) ||
        !lease_cache_getattr(c->leases, op->ino, a))
        return false;
    client_merge_attr(c, a);
    struct cfile *f = cfile_get(c, op->ino);
    if (f)
        pthread_mutex_lock(&f->mu);
    bool done = queue_setattr(c, op, a, f && f->head);
    if (f) {
        pthread_mutex_unlock(&f->mu);
        cfile_unref(f);
    }
    if (done && !lease_cache_exclusive(c->leases, op->ino)) /* recalled meanwhile */
        queue_settle(c, op->ino);
    return done;
}

int cfile_truncate(struct cfile *f, uint64_t size, Replfs__Attr *attr)
{
    int rc = flush_file(f, FLUSH_COMMIT, true);
    if (rc)
        return rc;
    Replfs__SetattrOp op = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__Attr got = REPLFS__ATTR__INIT;
    op.ino = f->ino;
    op.valid = REPLFS__SETATTR_OP__VALID__SIZE | REPLFS__SETATTR_OP__VALID__MTIME_NOW;
    op.size = size;
    meta.op_case = REPLFS__META_OP__OP_SETATTR;
    meta.setattr = &op;
    uint64_t begun = lease_cache_begin(f->c->leases);
    rc = session_mutate(f->c, &meta, 0, client_deadline(f->c), &got, NULL);
    if (rc)
        return rc;
    pthread_mutex_lock(&f->mu);
    cfile_changed_since(f, begun);
    if (f->attr.size > size && f->cut < f->attr.size)
        f->cut = f->attr.size;
    extmap_remove(&f->base, size, UINT64_MAX - size, NULL, NULL);
    f->map_gen++;
    if (got.ino)
        attr_copy(&f->attr, &got);
    /* metad may free the chunk with its last extent: nothing more goes there. */
    wchunk_unref(f->c, f->wcur);
    f->wcur = NULL;
    if (attr)
        attr_copy(attr, &f->attr);
    pthread_mutex_unlock(&f->mu);
    return 0;
}

void client_stat(struct client *c, struct client_stat *out)
{
    memset(out, 0, sizeof(*out));
    pthread_mutex_lock(&c->dirty.mu);
    out->dirty_bytes = c->dirty.bytes;
    pthread_mutex_unlock(&c->dirty.mu);
    out->inflight_appends = c->appends;
    out->sealed_early = c->sealed_early;
    out->read_retries = c->read_retries;
    out->crc_errors = c->crc_errors;
    pthread_mutex_lock(&c->session.mu);
    out->connected = c->session.conn && rpc_conn_alive(c->session.conn);
    if (c->session.naddrs)
        snprintf(out->metad, sizeof(out->metad), "%s", c->session.addrs[c->session.cur]);
    pthread_mutex_unlock(&c->session.mu);
}
