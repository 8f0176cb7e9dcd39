/* The lease cache and our own changes: what a change that metad answered leaves known, and changes
 * of directories that are ours alone, which are known before metad is asked (deferred_names.c).
 *
 * Of the latter each inode concerned counts the answers that are missing (`pending`): until the
 * last has come, its attributes are ours and metad's are older. Thread context: any. */
#include "client/cache/lease_cache_change.h"
#include <sys/stat.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/hash.h"
#include "client/base/attr.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_table.h"
#include "metaop.h"

static bool fence(struct lease_cache *l, uint64_t begun, uint64_t ino)
{
    uint64_t *f = lfence_of(l, ino);
    bool crossed = *f > begun;
    *f = ++l->gen;
    return crossed;
}

/* An exclusive lease is not forgotten: metad relies on us. */
static void node_unknown(struct lease_cache *l, uint64_t ino)
{
    struct lnode *n = *lnode_slot(l, ino);
    if (n && n->exclusive)
        n->has_attr = false;
    else
        lnode_drop(l, ino);
}

/* An inode that was changed: attributes when the answer has them, else nothing is known of it. */
static bool attr_changed(struct lease_cache *l, uint64_t begun, uint64_t ino, const Replfs__Attr *a,
                         uint32_t lease)
{
    if (!ino)
        return false;
    bool crossed = fence(l, begun, ino);
    if (a && a->ino == ino)
        lnode_put_attr(l, crossed || !lease, a, lease);
    else
        node_unknown(l, ino);
    return crossed;
}

/* crossed: the directory was recalled meanwhile; what it has under this name now is not known. */
static void name_changed(struct lease_cache *l, uint64_t parent, const ProtobufCBinaryData *name,
                         uint64_t ino, bool crossed)
{
    struct lnode *dir = *lnode_slot(l, parent);
    if (!dir || name->len > UINT8_MAX)
        return;
    if (!crossed) {
        lentry_put(l, dir, name->data, name->len, ino);
        return;
    }
    struct lentry **slot =
        lentry_slot(l, parent, name->data, name->len, lname_hash(parent, name->data, name->len));
    dir->complete = false;
    if (*slot)
        lentry_drop(l, slot);
}

/* What the name refers to as far as known, 0: unknown or nothing. */
static uint64_t name_ino(struct lease_cache *l, uint64_t parent, const ProtobufCBinaryData *name)
{
    const struct lnode *dir = *lnode_slot(l, parent);
    const struct lentry *e =
        *lentry_slot(l, parent, name->data, name->len, lname_hash(parent, name->data, name->len));
    return dir && e && e->gen == dir->gen ? e->ino : 0;
}

static void renamed(struct lease_cache *l, uint64_t begun, const Replfs__RenameOp *r,
                    const Replfs__MutationResult *res)
{
    /* both before any of the directories is forgotten, and with it the names in it */
    uint64_t moved = res && res->attr ? res->attr->ino : name_ino(l, r->parent, &r->name);
    uint64_t gone = res && res->value ? res->value : name_ino(l, r->new_parent, &r->new_name);
    bool known = res && res->attr && !r->flags;
    if (known && res->value == res->attr->ino) { /* both are names of one file: they stay */
        attr_changed(l, begun, res->attr->ino, res->attr, res->lease);
        return;
    }
    attr_changed(l, begun, gone, NULL, 0);
    if (r->parent != r->new_parent)
        attr_changed(l, begun, r->parent, NULL, 0);
    bool crossed = attr_changed(l, begun, r->new_parent, res ? res->parent : NULL,
                                res ? res->parent_lease : 0);
    if (!known) { /* exchanged, or nobody knows */
        attr_changed(l, begun, moved, NULL, 0);
        lnode_drop(l, r->parent);
        lnode_drop(l, r->new_parent);
        return;
    }
    attr_changed(l, begun, res->attr->ino, res->attr, res->lease);
    name_changed(l, r->parent, &r->name, 0, crossed);
    name_changed(l, r->new_parent, &r->new_name, res->attr->ino, crossed);
}

static void named(struct lease_cache *l, uint64_t begun, uint64_t parent,
                  const ProtobufCBinaryData *name, uint64_t ino, bool there,
                  const Replfs__MutationResult *res)
{
    const Replfs__Attr *a = res ? res->attr : NULL;
    bool crossed =
        attr_changed(l, begun, parent, res ? res->parent : NULL, res ? res->parent_lease : 0);
    attr_changed(l, begun, a ? a->ino : ino, a, res ? res->lease : 0);
    if (!res)
        lnode_drop(l, parent);
    else if (!there || a)
        name_changed(l, parent, name, there ? a->ino : 0, crossed);
}

/* Nothing is in it yet. */
static void made_dir(struct lease_cache *l, uint64_t begun, uint64_t ino)
{
    struct lnode *n = *lnode_slot(l, ino);
    if (n && n->gen > begun) /* of this very answer */
        n->complete = true;
}

/* A quota was set: what is below it is not known here. */
static void doubt(struct lease_cache *l)
{
    for (struct lnode *n = l->newest; n; n = n->older)
        if (S_ISDIR(n->attr.mode))
            n->has_attr = false;
}

void lease_cache_doubt(struct lease_cache *l)
{
    LOCK_SCOPE(&l->mu);
    doubt(l);
}

struct touching {
    struct lease_cache *l;
    uint64_t begun;
    const Replfs__Attr *a;
    uint32_t lease;
};

static void touched(void *arg, const struct metaop_touch *t)
{
    const struct touching *x = arg;
    struct lnode *n;
    switch (t->how) {
    case METAOP_CHANGES:
    case METAOP_COMMITS:
        attr_changed(x->l, x->begun, t->ino, x->a, x->lease);
        break;
    case METAOP_SEES:
        fence(x->l, x->begun, t->ino);
        n = *lnode_slot(x->l, t->ino);
        if (n && n->has_attr && n->attr.atime_ns < t->atime_ns)
            n->attr.atime_ns = t->atime_ns;
        break;
    case METAOP_READS:
    case METAOP_MAKES: /* of names: by those that know both ends */
    case METAOP_REMOVES:
    case METAOP_REPLACES:
    case METAOP_BEGINS:
    case METAOP_ENDS:
        break;
    }
}

void lease_cache_mutated(struct lease_cache *l, uint64_t begun, const Replfs__MetaOp *op,
                         const Replfs__MutationResult *res)
{
    LOCK_SCOPE(&l->mu);
    const Replfs__Attr *a = res ? res->attr : NULL;
    uint32_t lease = res ? res->lease : 0;
    if (res && res->code)
        return; /* nothing happened */
    switch (metaop_of(op)) {
    case METAOP_CREATE:
        if (op->create->tmpfile)
            break; /* without a name: its directory did not change */
        named(l, begun, op->create->parent, &op->create->name, 0, true, res);
        if (a && lease && S_ISDIR(a->mode))
            made_dir(l, begun, a->ino);
        break;
    case METAOP_UNLINK:
        named(l, begun, op->unlink->parent, &op->unlink->name,
              name_ino(l, op->unlink->parent, &op->unlink->name), false, res);
        break;
    case METAOP_LINK:
        named(l, begun, op->link->parent, &op->link->name, op->link->ino, true, res);
        break;
    case METAOP_RENAME:
        renamed(l, begun, op->rename, res);
        break;
    case METAOP_SETATTR: /* inodes, and no names */
    case METAOP_COMMIT:
    case METAOP_XATTR:
    case METAOP_CLONE:
    case METAOP_FALLOCATE:
    case METAOP_QUOTA:
    case METAOP_SET_GOAL:
    case METAOP_ATIME:
        metaop_visit(op, touched, &(struct touching){l, begun, a, lease});
        if (metaop_below(op) == METAOP_BELOW_ALL)
            doubt(l);
        break;
    case METAOP_SESSION_CLOSE: /* nothing that is cached */
    case METAOP_NONE:
        METAOP_CASES_LEADER
        break;
    }
}

/* ---- under way ---- */

struct beginning {
    struct lease_cache *l;
    struct lease_change *change;
    uint64_t tell[LEASE_CHANGE_MAX]; /* the kernel, */
    unsigned what[LEASE_CHANGE_MAX]; /* ... of this */
    unsigned ntell;
};

static void change_add(struct beginning *b, uint64_t ino, unsigned what)
{
    struct lease_change *c = b->change;
    const struct lnode *n = ino ? *lnode_slot(b->l, ino) : NULL;

    if (!ino || c->n == LEASE_CHANGE_MAX)
        return;
    c->ino[c->n++] = ino;
    b->l->changing[hash_u64(ino) % CHANGING]++;
    if (n && !n->exclusive) {
        b->tell[b->ntell] = ino;
        b->what[b->ntell++] = what;
    }
}

static void will_touch(void *arg, const struct metaop_touch *t)
{
    struct beginning *b = arg;

    if (t->how == METAOP_CHANGES)
        change_add(b, t->ino, LEASE_CACHE_INVAL_ATTR);
    if (t->how == METAOP_REMOVES || t->how == METAOP_REPLACES)
        change_add(b, name_ino(b->l, t->ino, t->name), LEASE_CACHE_INVAL_ATTR);
    if (t->how == METAOP_MAKES || t->how == METAOP_REMOVES || t->how == METAOP_REPLACES)
        change_add(b, t->ino, LEASE_CACHE_INVAL_ATTR | LEASE_CACHE_INVAL_ENTRIES);
}

void lease_cache_change_begin(struct lease_cache *l, struct lease_change *change,
                              const Replfs__MetaOp *op)
{
    struct beginning b = {.l = l, .change = change};

    lock_acquire(&l->mu);
    metaop_visit(op, will_touch, &b);
    bool told = l->inval && !l->stop;
    lock_release(&l->mu);
    for (unsigned i = 0; told && i < b.ntell; i++)
        l->inval(l->inval_arg, b.tell[i], b.what[i]);
}

void lease_cache_change_end(struct lease_cache *l, struct lease_change *change)
{
    LOCK_SCOPE(&l->mu);
    while (change->n > 0)
        l->changing[hash_u64(change->ino[--change->n]) % CHANGING]--;
}

/* ---- known before metad is asked ---- */

bool lease_cache_crossed(struct lease_cache *l, uint64_t begun, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    return *lfence_of(l, ino) > begun;
}

bool lease_cache_contested(struct lease_cache *l, uint64_t dir)
{
    LOCK_SCOPE(&l->mu);
    int64_t at = l->contested[hash_u64(dir) % CONTESTED];
    return at && clock_mono() - at < CONTESTED_NS;
}

bool lease_cache_hold_new(struct lease_cache *l, struct lease_request *h, uint64_t dir,
                          const void *name, size_t len, Replfs__Attr *attr)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *d = lease_cache_in_term(l) ? lnode_find(l, dir) : NULL;
    if (!d || !d->exclusive || !d->has_attr || len > UINT8_MAX)
        return false;
    const struct lentry *e = *lentry_slot(l, dir, name, len, lname_hash(dir, name, len));
    if (e && e->gen == d->gen ? e->ino != 0 : !d->complete)
        return false; /* there is one, or may be */
    attr_copy(attr, &d->attr);
    *h = (struct lease_request){l->holders, dir};
    l->holders = h;
    return true;
}

bool lease_cache_hold(struct lease_cache *l, struct lease_request *h, uint64_t begun, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = lease_cache_in_term(l) ? *lnode_slot(l, ino) : NULL;
    if (!n || n->gen > begun)
        return false;
    *h = (struct lease_request){l->holders, ino};
    l->holders = h;
    return true;
}

void lease_cache_unhold(struct lease_cache *l, struct lease_request *h)
{
    LOCK_SCOPE(&l->mu);
    lease_request_remove(&l->holders, h);
    cond_broadcast(&l->unheld);
}

enum lease_cache_hold lease_cache_hold_old(struct lease_cache *l, struct lease_request *h,
                                           uint64_t dir, const void *name, size_t len, bool is_dir,
                                           Replfs__Attr *attr, uint64_t *ino, uint64_t *cookie)
{
    LOCK_SCOPE(&l->mu);
    struct lnode *d = lease_cache_in_term(l) ? lnode_find(l, dir) : NULL;
    if (!d || !d->has_attr || len > UINT8_MAX)
        return LEASE_CACHE_HOLD_NO;
    const struct lentry *e = *lentry_slot(l, dir, name, len, lname_hash(dir, name, len));
    const struct lnode *n = e && e->gen == d->gen && e->ino ? lnode_find(l, e->ino) : NULL;
    if (!n || !n->has_attr || !S_ISDIR(n->attr.mode) != !is_dir)
        return LEASE_CACHE_HOLD_NO;
    if (!d->exclusive || !n->exclusive) {
        *cookie = d->cookie;
        return d->asked && !d->cookie ? LEASE_CACHE_HOLD_NO : LEASE_CACHE_HOLD_ASK;
    }
    if (is_dir ? !n->complete || n->names : n->attr.nlink != 1)
        return LEASE_CACHE_HOLD_NO;
    attr_copy(attr, &d->attr);
    *ino = e->ino;
    *h = (struct lease_request){l->holders, dir};
    l->holders = h;
    return LEASE_CACHE_HOLD_YES;
}

void lease_cache_alone(struct lease_cache *l, uint64_t begun, const Replfs__LeaseReply *r)
{
    LOCK_SCOPE(&l->mu);
    struct lnode *d = *lnode_slot(l, r->attr->ino);
    if (!d || *lfence_of(l, d->ino) > begun)
        return;
    lnode_put_attr(l, false, r->attr, r->lease);
    d->asked = true;
    d->cookie = r->cookie;
    for (size_t i = 0; i < r->n_alone; i++) {
        struct lnode *n = *lnode_slot(l, r->alone[i]);
        if (n && *lfence_of(l, n->ino) <= begun)
            n->exclusive = true;
    }
}

void lease_cache_listed(struct lease_cache *l, uint64_t begun, uint64_t dir, size_t n)
{
    LOCK_SCOPE(&l->mu);
    struct lnode *d = *lnode_slot(l, dir);
    if (d && *lfence_of(l, dir) <= begun && d->names == n)
        d->complete = true;
}

static struct lnode *put_own(struct lease_cache *l, const Replfs__Attr *a, bool alone)
{
    struct lnode *n = lnode_make(l, a->ino);
    attr_copy(&n->attr, a);
    n->has_attr = true;
    n->exclusive |= alone;
    n->pending++;
    *lfence_of(l, a->ino) = ++l->gen;
    return n;
}

void lease_cache_created(struct lease_cache *l, const ProtobufCBinaryData *name,
                         const Replfs__Attr *dir, const Replfs__Attr *a)
{
    LOCK_SCOPE(&l->mu);
    if (!*lnode_slot(l, dir->ino))
        return; /* being recalled: a caller that looks now waits for the answer */
    put_own(l, a, true)->complete |= S_ISDIR(a->mode);
    if (*lnode_slot(l, dir->ino)) /* one more may have pushed it out */
        lentry_put(l, put_own(l, dir, false), name->data, name->len, a->ino);
}

void lease_cache_removed(struct lease_cache *l, const ProtobufCBinaryData *name,
                         const Replfs__Attr *dir, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    *lfence_of(l, ino) = ++l->gen;
    lnode_drop(l, ino);
    if (*lnode_slot(l, dir->ino))
        lentry_put(l, put_own(l, dir, false), name->data, name->len, 0);
}

static void name_settled(struct lease_cache *l, const Replfs__Attr *a, uint32_t lease)
{
    struct lnode *n = *lnode_slot(l, a->ino);
    *lfence_of(l, a->ino) = ++l->gen; /* answers under way may be from before */
    if (!n)
        return;
    if (n->pending)
        n->pending--; /* else it was forgotten meanwhile, and made anew */
    if (!n->pending && n->has_attr && a->change > n->attr.change)
        attr_copy(&n->attr, a);
    n->attr.flags = a->flags;
    n->attr.quota_left = a->quota_left;
    if (lease != 2)
        n->exclusive = false;
    if (!lease && !n->pending)
        lnode_drop(l, a->ino);
}

void lease_cache_settled(struct lease_cache *l, const Replfs__MutationResult *r)
{
    LOCK_SCOPE(&l->mu);
    if (r->attr)
        name_settled(l, r->attr, r->lease);
    if (r->parent)
        name_settled(l, r->parent, r->parent_lease);
}

bool lease_cache_overlay(struct lease_cache *l, Replfs__Attr *a)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *lnode_slot(l, a->ino);
    bool newer = n && n->pending && n->has_attr && S_ISDIR(n->attr.mode);
    if (newer)
        attr_copy(a, &n->attr);
    return newer;
}
