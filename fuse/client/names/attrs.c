/* What is shown of an inode or a name: metad's answer or what the lease cache has, and laid over it what this client
 * did that metad does not know yet: access times, queued changes, buffered bytes.
 *
 * Answers cross with changes of ours: one that may be older than a change that was told as done is asked for again,
 * a few times (overtaken). No state of its own. Thread context: any but a loop thread, where metad is asked; the
 * others any. */
#include "client/names/attrs.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/extmap.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_cache_change.h"
#include "client/cache/lease_cache_give.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/internal.h"
#include "client/names/atime.h"
#include "client/queue/queue.h"
#include "client/session/ask.h"

#define BLOCKS_LOOK_MAX 1024u
#define OVERTAKEN_MAX 3u

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
    lock_acquire(&f->mu);
    cfile_set_attr(f, a);
    if (f->attr.change > a->change) {
        attr_copy(a, &f->attr);
        atime_overlay(c, a);
    }
    if (f->head && cfile_shows(f)) {
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
    lock_release(&f->mu);
    cfile_unref(f);
}

/* With buffered bytes size and times are ours, not metad's, and change by themselves. */
static bool has_buffered(struct client *c, uint64_t ino)
{
    struct cfile *f = cfile_get(c, ino);
    if (!f)
        return false;
    lock_acquire(&f->mu);
    bool dirty = f->head != NULL;
    lock_release(&f->mu);
    cfile_unref(f);
    return dirty;
}

int64_t client_attr_ttl(struct client *c, const Replfs__Attr *a)
{
    return has_buffered(c, a->ino) ? 0 : lease_cache_give_attr(c->leases, a);
}

int64_t client_changed_ttl(struct client *c, uint64_t dir, const Replfs__Attr *a)
{
    return has_buffered(c, a->ino) ? 0 : lease_cache_give_changed(c->leases, dir, a);
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
void attrs_dir_as_now(struct client *c, uint64_t begun, Replfs__Attr *a)
{
    if (S_ISDIR(a->mode) &&
        (queue_naming(c, a->ino) || lease_cache_crossed(c->leases, begun, a->ino)))
        client_getattr_now(c, a->ino, a);
}

void client_listed(struct client *c, uint64_t begun, uint64_t dir, size_t n)
{
    lease_cache_listed(c->leases, begun, dir, n);
}

/* ---- asking ---- */

int client_ask(struct client *c, Replfs__Envelope *req, struct rpc_result *out)
{
    return session_ask(c, req, client_deadline(c), out);
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
            attrs_dir_as_now(c, begun, r->attr);
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

int client_getattr(struct client *c, uint64_t ino, Replfs__Attr *out)
{
    return client_attr_known(c, ino, out) ? 0 : client_getattr_now(c, ino, out);
}
