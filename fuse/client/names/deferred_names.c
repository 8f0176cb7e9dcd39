/* Names that are made and removed before metad knows.
 *
 * In a directory that is ours alone nobody else can see or take a name, so a file, directory or link
 * made there needs no answer of metad: its inode number is one of those that metad gave us
 * beforehand, what it inherits is known, and the change is queued (queue.c) in front of whatever
 * follows for it. The lease cache shows it from now on as if metad had answered (lease_cache_created).
 *
 * Likewise what is removed: a file, link or empty directory that is ours alone as well, has no other
 * name and is not open. What was there before is ours for the asking while nobody else keeps
 * anything of it (ask_for_children), a thousand names per question.
 *
 * Left to metad: what it alone can decide (quotas, default ACLs, the end of the numbers given) and
 * what is not certain (a name that may exist).
 *
 * A recall of the directory waits for what is queued of it, and none is queued between (the hold);
 * fsync of the directory or of what is in it waits as well. Should metad refuse the name after all,
 * or the session be lost with it, the log tells directory and name, what is known of the directory
 * is forgotten, and the file, when open, fails.
 *
 * Thread context: any but a loop thread; results on the sender's. */
#include "client/names/deferred_names.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_cache_change.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/file/open_told.h"
#include "client/internal.h"
#include "client/queue/queue.h"
#include "client/session/ask.h"
#include "client/session/closes.h"
#include "client/session/mutation.h"
#include "client/session/session.h"

#define LOG_MODULE "names"
#define INOS_AT_ONCE 1024u
#define TARGET_MAX 4095u

struct name_job {
    struct queue_op o;
    struct client *c;
    Replfs__MetaOp op;
    Replfs__CreateOp create; /* one of the two */
    Replfs__UnlinkOp unlink;
    ProtobufCBinaryData name;
    uint8_t bytes[]; /* name, target */
};

void deferred_names_init(struct client *c)
{
    lock_init(&c->inos.mu, LOCK_INODE_NUMBERS);
    cond_init(&c->inos.asked);
}

void deferred_names_free(struct client *c)
{
    cond_destroy(&c->inos.asked);
    lock_destroy(&c->inos.mu);
}

/* ---- inode numbers ---- */

/* Numbers for the session, from *first on; so many, 0: none to be had. No lock held. */
static uint64_t inos_ask(struct client *c, uint64_t session, int64_t deadline, uint64_t *first)
{
    Replfs__InosReq m = REPLFS__INOS_REQ__INIT;
    RPC_ENVELOPE(env, INOS_REQ, inos_req, &m);
    struct rpc_result res;
    uint64_t count = 0;
    m.count = INOS_AT_ONCE;
    int rc = session_ask(c, &env, deadline, &res);
    if (!rc && res.rep->body_case == REPLFS__ENVELOPE__BODY_INOS_REPLY) {
        *first = res.rep->inos_reply->first;
        count = res.rep->inos_reply->count;
    }
    rpc_result_free(&res);
    return session == session_id(c) ? count : 0;
}

/* More numbers for the session, by this thread; no other asks meanwhile. inos.mu held, dropped while metad is
 * asked. */
static void inos_refill(struct client *c, uint64_t session, int64_t deadline)
{
    uint64_t first = 0;
    c->inos.asking = true;
    lock_release(&c->inos.mu);
    uint64_t count = inos_ask(c, session, deadline, &first);
    lock_acquire(&c->inos.mu);
    c->inos.asking = false;
    c->inos.next = first;
    c->inos.upto = first + count;
    c->inos.session = session;
    cond_broadcast(&c->inos.asked);
}

/* 0: none to be had. */
static uint64_t ino_take(struct client *c, uint64_t *session)
{
    int64_t deadline = client_deadline(c); /* of all that wait here, not of one after the other */
    LOCK_SCOPE(&c->inos.mu);
    for (bool asked = false;;) {
        *session = session_id(c);
        if (c->inos.session == *session && c->inos.next < c->inos.upto)
            return c->inos.next++;
        if (asked || clock_mono() >= deadline)
            return 0;
        asked = !c->inos.asking;
        if (asked)
            inos_refill(c, *session, deadline);
        else
            cond_wait_until(&c->inos.asked, &c->inos.mu, deadline);
    }
}

/* ---- changes on their way ---- */

static void name_done(struct mutation *m, int code, const Replfs__MutationResult *r)
{
    struct name_job *j = (struct name_job *)m;
    struct client *c = j->c;
    struct cfile *f = cfile_get(c, j->o.ino);
    bool lost = code && !(code == -ENOENT && j->op.op_case == REPLFS__META_OP__OP_UNLINK);
    if (f) {
        lock_acquire(&f->mu);
        if (lost)
            cfile_fail(f, -EIO);
        else if (r && r->attr && r->attr->size == f->attr.size && r->attr->change > f->attr.change)
            attr_copy(&f->attr, r->attr);
        lock_release(&f->mu);
        cfile_unref(f);
    }
    if (lost) {
        atomic_fetch_add(&c->lost, 1);
        log_error("directory %llu: \"%.*s\" (inode %llu) was %s, and metad did not do it: %s",
                  (unsigned long long)j->o.dir, (int)j->name.len, (const char *)j->name.data,
                  (unsigned long long)j->o.ino,
                  j->op.op_case == REPLFS__META_OP__OP_CREATE ? "made" : "removed", err_str(code));
    }
    if (code) {
        lease_cache_forget_now(c->leases, j->o.ino);
        lease_cache_forget_now(c->leases, j->o.dir);
    } else {
        lease_cache_settled(c->leases, r);
    }
    free(j);
}

static struct name_job *job_new(struct client *c, uint64_t session, uint64_t dir, uint64_t ino,
                                const ProtobufCBinaryData *name, size_t more)
{
    struct name_job *j = calloc(1, sizeof(*j) + name->len + more);
    if (!j)
        abort();
    j->c = c;
    j->name = (ProtobufCBinaryData){name->len, j->bytes};
    memcpy(j->bytes, name->data, name->len);
    replfs__meta_op__init(&j->op);
    j->o.m = (struct mutation){.op = &j->op, .need = session, .done = name_done, .known = true};
    j->o.dir = dir;
    j->o.ino = ino;
    return j;
}

/* When it happens: later than what was last seen of the directory. */
static int64_t stamp(struct client *c, const Replfs__Attr *dir)
{
    int64_t now = client_now(c);
    return now > dir->ctime_ns ? now : dir->ctime_ns + 1;
}

/* ---- making ---- */

/* As metad will make it (fsm_op_create). dir: as it is, then as it will be. */
static void inherit(const Replfs__CreateOp *op, int64_t now, Replfs__Attr *dir, Replfs__Attr *a)
{
    uint32_t type = op->mode & S_IFMT ? op->mode & S_IFMT : S_IFREG;
    replfs__attr__init(a);
    a->ino = op->ino;
    a->mode = type | (op->mode & 07777 & (type == S_IFLNK ? 07777 : ~op->umask));
    a->nlink = type == S_IFDIR ? 2 : 1;
    a->uid = op->uid;
    a->gid = op->gid;
    if (dir->mode & S_ISGID) {
        a->gid = dir->gid;
        a->mode |= type == S_IFDIR ? S_ISGID : 0;
    }
    a->size = type == S_IFDIR ? 4096 : type == S_IFLNK ? op->target.len : 0;
    a->rdev = type == S_IFCHR || type == S_IFBLK ? op->rdev : 0;
    a->goal = dir->goal;
    a->change = 1; /* older than any that metad gives */
    a->mtime_ns = a->ctime_ns = a->atime_ns = now;
    dir->mtime_ns = dir->ctime_ns = now;
    dir->nlink += type == S_IFDIR;
}

static bool sure(const Replfs__CreateOp *op, const Replfs__Attr *dir)
{
    uint32_t undecided = REPLFS__ATTR_FLAG__ATTR_XATTR | REPLFS__ATTR_FLAG__ATTR_QUOTA;
    return dir->nlink && !(dir->flags & undecided) && op->target.len <= TARGET_MAX;
}

static void deferred_names_put(struct client *c, struct name_job *j)
{
    queue_wrote(c, j->o.dir); /* a time set before is over */
    queue_put(c, &j->o);
}

bool client_create_deferred(struct client *c, const Replfs__CreateOp *op, Replfs__Attr *a)
{
    struct lease_request hold;
    Replfs__Attr dir = REPLFS__ATTR__INIT;
    uint64_t session, ino;
    if (c->cfg.sync_all || c->cfg.dirsync || op->tmpfile ||
        !lease_cache_exclusive(c->leases, op->parent))
        return false;
    if (!queue_room(c))
        return false;
    ino = ino_take(c, &session);
    if (!ino ||
        !lease_cache_hold_new(c->leases, &hold, op->parent, op->name.data, op->name.len, &dir))
        return false;
    queue_overlay(c, &dir);
    bool can = sure(op, &dir) && session == session_id(c);
    if (can) {
        struct name_job *j = job_new(c, session, op->parent, ino, &op->name, op->target.len);
        j->create = *op;
        j->create.ino = ino;
        j->create.name = j->name;
        j->create.target.data = j->bytes + op->name.len;
        if (op->target.len)
            memcpy(j->create.target.data, op->target.data, op->target.len);
        j->create.time_ns = stamp(c, &dir);
        j->op.op_case = REPLFS__META_OP__OP_CREATE;
        j->op.create = &j->create;
        inherit(&j->create, j->create.time_ns, &dir, a);
        lease_cache_created(c->leases, &op->name, &dir, a);
        deferred_names_put(c, j);
        if (S_ISREG(a->mode))
            closes_add(c, ino); /* unless cfile_open_new follows */
    }
    lease_cache_unhold(c->leases, &hold);
    return can;
}

/* ---- removing ---- */

/* False: nothing was gained. */
static bool ask_for_children(struct client *c, uint64_t dir, uint64_t cookie)
{
    Replfs__LeaseReq m = REPLFS__LEASE_REQ__INIT;
    RPC_ENVELOPE(env, LEASE_REQ, lease_req, &m);
    struct rpc_result res;
    if (lease_cache_contested(c->leases, dir))
        return false;
    m.ino = dir;
    m.children = true;
    m.cookie = cookie;
    uint64_t begun = lease_cache_begin(c->leases);
    int rc = client_ask(c, &env, &res);
    bool good = !rc && res.rep->body_case == REPLFS__ENVELOPE__BODY_LEASE_REPLY &&
                res.rep->lease_reply->attr;
    if (good)
        lease_cache_alone(c->leases, begun, res.rep->lease_reply);
    rpc_result_free(&res);
    return good;
}

static bool is_open(struct client *c, uint64_t ino)
{
    struct cfile *f = cfile_get(c, ino);
    if (f)
        cfile_unref(f);
    return f != NULL;
}

bool client_remove_deferred(struct client *c, const Replfs__UnlinkOp *op)
{
    struct lease_request hold;
    Replfs__Attr dir = REPLFS__ATTR__INIT;
    uint64_t ino, cookie = 0;
    if (c->cfg.sync_all || c->cfg.dirsync || !queue_room(c))
        return false;
    for (bool asked = false;; asked = true) {
        enum lease_cache_hold h = lease_cache_hold_old(c->leases, &hold, op->parent, op->name.data,
                                                       op->name.len, op->dir, &dir, &ino, &cookie);
        if (h == LEASE_CACHE_HOLD_YES)
            break;
        if (h == LEASE_CACHE_HOLD_NO || asked || !ask_for_children(c, op->parent, cookie))
            return false;
    }
    queue_overlay(c, &dir);
    bool can = !is_open(c, ino) && !(op->dir && cfile_dir_open(c, ino));
    if (can) {
        struct name_job *j = job_new(c, session_id(c), op->parent, ino, &op->name, 0);
        j->unlink = *op;
        j->unlink.name = j->name;
        j->unlink.ino = ino;
        j->unlink.time_ns = stamp(c, &dir);
        j->op.op_case = REPLFS__META_OP__OP_UNLINK;
        j->op.unlink = &j->unlink;
        dir.mtime_ns = dir.ctime_ns = j->unlink.time_ns;
        dir.nlink -= op->dir;
        lease_cache_removed(c->leases, &op->name, &dir, ino);
        cfile_tell_open(c, ino); /* by another thread that was just faster */
        deferred_names_put(c, j);
    }
    lease_cache_unhold(c->leases, &hold);
    return can;
}

int client_settle(struct client *c, uint64_t ino)
{
    return queue_settle(c, ino);
}

unsigned client_lost(struct client *c)
{
    return atomic_load(&c->lost);
}
