/* Extended attributes, and what POSIX ACLs among them do to an inode.
 *
 * An inode that has attributes carries the flag FSM_INODE_XATTR and has one set (struct fsm_xset)
 * in a table keyed by inode number; the others pay nothing. A set holds its attributes sorted by
 * name, so that a listing is the same on every metad and after every checkpoint. A set is never
 * empty: it goes with its last attribute, and the flag with it.
 *
 * Limits: names up to 255 bytes with their namespace; for one inode, values of up to 64 KiB in all
 * (so one may be as long as Linux allows) and names of up to 64 KiB in all (what listxattr(2) can
 * tell). Past that: ENOSPC, as a full attribute block of ext4.
 *
 * ACLs (posix_acl.c) are stored as attributes, in the form that the kernel shows. Invariants: an
 * access ACL that says no more than the mode is not stored; the stored one's owner, mask (or group)
 * and others are the mode's permission bits, whichever of the two was changed last; default ACLs
 * are on directories only; symbolic links have no ACL.
 *
 * Failure modes: codes of setxattr(2), getxattr(2), acl_set_file(3) as ext4 gives them. Thread
 * context: fsm lock. */
#include "fsm_internal.h"
#include <stdlib.h>
#include <string.h>
#include "base/posix_acl.h"

enum { CREATE = 1, REPLACE = 2 };

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define CAPS "security.capability"

struct name {
    const uint8_t *p;
    size_t n;
};
#define NAME(text) ((struct name){(const uint8_t *)(text), sizeof(text) - 1})

/* ---- the table ---- */

static uint32_t *htab_next(void *ctx, uint32_t h)
{
    return &((struct fsm_xset *)fsm_slab_at(&((struct fsm *)ctx)->xsets, h))->next;
}

static uint64_t htab_hash(void *ctx, uint32_t h)
{
    return hash_u64(fsm_xset_at(ctx, h)->ino);
}

static const struct fsm_htab_ops htab_ops = {htab_next, htab_hash};

static size_t attr_bytes(const struct fsm_xattr *a)
{
    return sizeof(*a) + a->name_len + a->len;
}

static uint32_t set_find(const struct fsm *f, uint64_t ino)
{
    uint32_t h = fsm_htab_first(&f->by_xattr, hash_u64(ino));
    while (h && fsm_xset_at(f, h)->ino != ino)
        h = fsm_xset_at(f, h)->next;
    return h;
}

/* The inode's set, or NULL. */
static struct fsm_xset *set_of(const struct fsm *f, const struct fsm_inode *i)
{
    if (!(i->flags & FSM_INODE_XATTR))
        return NULL;
    uint32_t h = set_find(f, i->ino);
    assert(h);
    return fsm_xset_at(f, h);
}

static struct fsm_xset *set_make(struct fsm *f, struct fsm_inode *i)
{
    struct fsm_xset *s = set_of(f, i);

    if (s)
        return s;
    uint32_t h = fsm_slab_alloc(&f->xsets);
    s = fsm_xset_at(f, h);
    s->ino = i->ino;
    fsm_htab_insert(&f->by_xattr, &htab_ops, f, h);
    i->flags |= FSM_INODE_XATTR;
    return s;
}

static void set_free(struct fsm *f, struct fsm_xset *s)
{
    for (uint32_t k = 0; k < s->n; k++) {
        f->heap -= attr_bytes(s->v[k]);
        free(s->v[k]);
    }
    f->heap -= s->n * sizeof(*s->v);
    free(s->v);
}

uint32_t fsm_xattr_bytes(const struct fsm *f, const struct fsm_inode *i)
{
    const struct fsm_xset *s = set_of(f, i);
    return s ? s->names + s->values : 0;
}

void fsm_xattr_drop_all(struct fsm *f, struct fsm_inode *i)
{
    if (!(i->flags & FSM_INODE_XATTR))
        return;
    fsm_charge_attrs(f, i, -(int64_t)fsm_xattr_bytes(f, i));
    uint32_t h = set_find(f, i->ino);
    assert(h);
    set_free(f, fsm_xset_at(f, h));
    fsm_htab_remove(&f->by_xattr, &htab_ops, f, h);
    fsm_slab_release(&f->xsets, h);
    i->flags &= ~(unsigned)FSM_INODE_XATTR & 3u;
}

void fsm_xattr_fini(struct fsm *f)
{
    for (uint32_t h = 1; h <= f->xsets.used; h++) {
        if (fsm_xset_at(f, h)->ino)
            set_free(f, fsm_xset_at(f, h));
    }
    fsm_htab_fini(&f->by_xattr);
    fsm_slab_fini(&f->xsets);
}

/* ---- attributes of one inode ---- */

static int compare(const struct fsm_xattr *a, struct name name)
{
    int r = memcmp(a->bytes, name.p, a->name_len < name.n ? a->name_len : name.n);
    return r ? r : (a->name_len > name.n) - (a->name_len < name.n);
}

/* Position of the first attribute whose name is not below. */
static uint32_t attr_pos(const struct fsm_xset *s, struct name name)
{
    uint32_t lo = 0, hi = s ? s->n : 0;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (compare(s->v[mid], name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct fsm_xattr *attr_find(const struct fsm_xset *s, struct name name)
{
    uint32_t p = attr_pos(s, name);
    return s && p < s->n && compare(s->v[p], name) == 0 ? s->v[p] : NULL;
}

static uint8_t *attr_value(struct fsm_xattr *a)
{
    return a->bytes + a->name_len;
}

/* Whether the inode's limits allow it. */
static int room_for(const struct fsm_xset *s, struct name name, size_t len)
{
    const struct fsm_xattr *old = attr_find(s, name);
    size_t values = (s ? s->values : 0) - (old ? old->len : 0) + len;
    size_t names = (s ? s->names : 0) + (old ? 0 : name.n + 1);

    return values > FSM_XATTR_SIZE_MAX || names > FSM_XATTR_LIST_MAX ? -ENOSPC : 0;
}

/* Sets or replaces; limits were checked. Charged to nobody. */
static void store(struct fsm *f, struct fsm_inode *i, struct name name, const uint8_t *value,
                  size_t len)
{
    struct fsm_xset *s = set_make(f, i);
    uint32_t p = attr_pos(s, name);
    bool fresh = p == s->n || compare(s->v[p], name) != 0;
    struct fsm_xattr *a = fsm_xmalloc(sizeof(*a) + name.n + len);

    a->len = (uint32_t)len;
    a->name_len = (uint8_t)name.n;
    memcpy(a->bytes, name.p, name.n);
    if (len)
        memcpy(attr_value(a), value, len);
    if (fresh) {
        s->v = fsm_xrealloc(s->v, (s->n + 1ul) * sizeof(*s->v));
        memmove(&s->v[p + 1], &s->v[p], (s->n - p) * sizeof(*s->v));
        s->n++;
        s->names += (uint32_t)name.n + 1;
        f->heap += sizeof(*s->v);
    } else {
        f->heap -= attr_bytes(s->v[p]);
        s->values -= s->v[p]->len;
        free(s->v[p]);
    }
    s->v[p] = a;
    s->values += a->len;
    f->heap += attr_bytes(a);
}

static void xattr_put(struct fsm *f, struct fsm_inode *i, struct name name, const uint8_t *value,
                      size_t len)
{
    int64_t before = fsm_xattr_bytes(f, i);

    store(f, i, name, value, len);
    fsm_charge_attrs(f, i, fsm_xattr_bytes(f, i) - before);
}

/* False when there is none of that name. */
static bool drop(struct fsm *f, struct fsm_inode *i, struct name name)
{
    struct fsm_xset *s = set_of(f, i);
    uint32_t p = attr_pos(s, name);

    if (!s || p == s->n || compare(s->v[p], name) != 0)
        return false;
    if (s->n == 1) {
        fsm_xattr_drop_all(f, i);
        return true;
    }
    struct fsm_xattr *a = s->v[p];
    fsm_charge_attrs(f, i, -(int64_t)(a->len + a->name_len + 1u));
    s->values -= a->len;
    s->names -= a->name_len + 1u;
    f->heap -= attr_bytes(a) + sizeof(*s->v);
    free(a);
    s->n--;
    memmove(&s->v[p], &s->v[p + 1], (s->n - p) * sizeof(*s->v));
    s->v = fsm_xrealloc(s->v, s->n * sizeof(*s->v));
    return true;
}

void fsm_xattr_drop_caps(struct fsm *f, struct fsm_inode *i)
{
    drop(f, i, NAME(CAPS));
}

/* ---- names ---- */

static bool is_name(struct name name, struct name what)
{
    return name.n == what.n && memcmp(name.p, what.p, what.n) == 0;
}

static bool is_acl(struct name name)
{
    return is_name(name, NAME(ACL_ACCESS)) || is_name(name, NAME(ACL_DEFAULT));
}

/* 0, or what setting an attribute of this name on an inode of this type yields. */
static int name_check(struct name name, uint16_t mode)
{
    static const struct name spaces[] = {{(const uint8_t *)"user.", 5},
                                         {(const uint8_t *)"trusted.", 8},
                                         {(const uint8_t *)"security.", 9}};
    if (name.n == 0 || name.n > FSM_XATTR_NAME_MAX)
        return -ERANGE;
    if (memchr(name.p, 0, name.n))
        return -EINVAL;
    if (is_acl(name))
        return S_ISLNK(mode) ? -EOPNOTSUPP : 0;
    for (size_t k = 0; k < sizeof(spaces) / sizeof(spaces[0]); k++) {
        if (name.n < spaces[k].n || memcmp(name.p, spaces[k].p, spaces[k].n) != 0)
            continue;
        if (k == 0 && !S_ISREG(mode) && !S_ISDIR(mode))
            return -EPERM;
        return name.n == spaces[k].n ? -EINVAL : 0;
    }
    return -EOPNOTSUPP;
}

/* ---- setting and removing ---- */

/* Sets an ACL, or removes it when it has no entries. flags are ignored, as ext4 does. */
static int set_acl(struct fsm *f, struct fsm_inode *i, const Replfs__XattrOp *op)
{
    struct name name = {op->name.data, op->name.len};
    bool access = is_name(name, NAME(ACL_ACCESS));
    int n = op->remove || !op->value.len ? 0 : posix_acl_count(op->value.data, op->value.len);

    if (n > 0 && !access && !S_ISDIR(i->mode))
        return -EACCES;
    if (n > 0)
        n = posix_acl_check(op->value.data, op->value.len);
    if (n < 0)
        return n;
    if (n == 0) {
        if (drop(f, i, name))
            fsm_inode_touch(f, i, false);
        return 0;
    }
    uint16_t mode = i->mode;
    if (access && posix_acl_to_mode(op->value.data, op->value.len, &mode)) {
        drop(f, i, name);
    } else {
        int r = room_for(set_of(f, i), name, op->value.len);
        if (r)
            return r;
        xattr_put(f, i, name, op->value.data, op->value.len);
        struct fsm_xattr *a = attr_find(set_of(f, i), name);
        posix_acl_tidy(attr_value(a), a->len);
    }
    if (access && op->kill_sgid)
        mode &= (uint16_t)~S_ISGID;
    i->mode = mode;
    fsm_inode_touch(f, i, false);
    return 0;
}

static int set_plain(struct fsm *f, struct fsm_inode *i, const Replfs__XattrOp *op)
{
    struct name name = {op->name.data, op->name.len};
    bool have = attr_find(set_of(f, i), name) != NULL;

    if (op->remove ? !have : !have && (op->flags & REPLACE))
        return -ENODATA;
    if (op->remove) {
        drop(f, i, name);
    } else {
        if (have && (op->flags & CREATE))
            return -EEXIST;
        int r = room_for(set_of(f, i), name, op->value.len);
        if (r)
            return r;
        xattr_put(f, i, name, op->value.data, op->value.len);
    }
    fsm_inode_touch(f, i, false);
    return 0;
}

int fsm_op_xattr(struct fsm *f, const Replfs__XattrOp *op, struct fsm_result *res)
{
    uint32_t h = fsm_inode_find(f, op->ino);
    struct name name = {op->name.data, op->name.len};

    if (!h)
        return -ENOENT;
    struct fsm_inode *i = fsm_inode_at(f, h);
    if (op->flags & ~(uint32_t)(CREATE | REPLACE))
        return -EINVAL;
    int r = name_check(name, i->mode);
    if (r)
        return r;
    if (op->value.len > FSM_XATTR_SIZE_MAX)
        return -E2BIG;
    r = is_acl(name) ? set_acl(f, i, op) : set_plain(f, i, op);
    if (r == 0)
        res->ino = op->ino;
    return r;
}

uint64_t fsm_xattr_more(struct fsm *f, const Replfs__XattrOp *op, const struct fsm_inode **i)
{
    struct name name = {op->name.data, op->name.len};
    uint32_t h = fsm_inode_find(f, op->ino);

    if (!h || op->remove)
        return 0;
    *i = fsm_inode_at(f, h);
    const struct fsm_xattr *old = attr_find(set_of(f, *i), name);
    if (!old)
        return name.n + 1 + op->value.len;
    return op->value.len > old->len ? op->value.len - old->len : 0;
}

uint64_t fsm_xattr_inherit_more(struct fsm *f, const Replfs__CreateOp *op,
                                const struct fsm_inode **i)
{
    int code;
    uint32_t type = op->mode & S_IFMT, dir = fsm_dir_find(f, op->parent, &code);

    if (!dir || type == S_IFLNK ||
        (!op->tmpfile && fsm_dentry_find(f, dir, op->name.data, op->name.len)))
        return 0; /* the last: it is there, or this is the same request once more */
    *i = fsm_inode_at(f, dir);
    const struct fsm_xattr *a = attr_find(set_of(f, *i), NAME(ACL_DEFAULT));
    return a ? (a->len + sizeof(ACL_DEFAULT)) * (type == S_IFDIR ? 2 : 1) : 0;
}

/* ---- ACLs of other operations ---- */

void fsm_xattr_chmod(struct fsm *f, struct fsm_inode *i)
{
    struct fsm_xattr *a = attr_find(set_of(f, i), NAME(ACL_ACCESS));

    if (a)
        posix_acl_chmod(attr_value(a), a->len, i->mode);
}

int fsm_xattr_inherit_check(struct fsm *f, const struct fsm_inode *dir, uint32_t type)
{
    struct fsm_xattr *a = type == S_IFDIR ? attr_find(set_of(f, dir), NAME(ACL_DEFAULT)) : NULL;

    return a && 2 * a->len > FSM_XATTR_SIZE_MAX ? -ENOSPC : 0; /* as default and as access ACL */
}

void fsm_xattr_inherit(struct fsm *f, const struct fsm_inode *dir, struct fsm_inode *i,
                       uint32_t umask)
{
    if (S_ISLNK(i->mode))
        return;
    struct fsm_xattr *a = attr_find(set_of(f, dir), NAME(ACL_DEFAULT));
    if (!a) {
        i->mode &= (uint16_t) ~(umask & 0777);
        return;
    }
    if (S_ISDIR(i->mode))
        xattr_put(f, i, NAME(ACL_DEFAULT), attr_value(a), a->len);
    xattr_put(f, i, NAME(ACL_ACCESS), attr_value(a), a->len);
    uint16_t mode = i->mode;
    struct fsm_xattr *own = attr_find(set_of(f, i), NAME(ACL_ACCESS));
    if (posix_acl_inherit(attr_value(own), own->len, &mode))
        drop(f, i, NAME(ACL_ACCESS));
    i->mode = mode;
}

/* ---- reads, checkpoint ---- */

int fsm_getxattr(struct fsm *f, uint64_t ino, const uint8_t *name, size_t len,
                 const uint8_t **value, size_t *value_len)
{
    uint32_t h = fsm_inode_find(f, ino);
    struct name n = {name, len};

    if (!h)
        return -ENOENT;
    const struct fsm_inode *i = fsm_inode_at(f, h);
    int r = name_check(n, i->mode);
    if (r)
        return r == -EPERM ? -ENODATA : r;
    struct fsm_xattr *a = attr_find(set_of(f, i), n);
    if (!a)
        return -ENODATA;
    *value = attr_value(a);
    *value_len = a->len;
    return 0;
}

int fsm_listxattr(struct fsm *f, uint64_t ino, uint8_t *out, size_t *len)
{
    uint32_t h = fsm_inode_find(f, ino);

    if (!h)
        return -ENOENT;
    const struct fsm_xset *s = set_of(f, fsm_inode_at(f, h));
    *len = s ? s->names : 0;
    for (uint32_t k = 0; out && s && k < s->n; k++) {
        memcpy(out, s->v[k]->bytes, s->v[k]->name_len);
        out += s->v[k]->name_len;
        *out++ = 0;
    }
    return 0;
}

int fsm_xattr_load(struct fsm *f, uint32_t h, const uint8_t *name, size_t name_len,
                   const uint8_t *value, size_t len)
{
    struct fsm_inode *i = fsm_inode_at(f, h);
    struct name n = {name, name_len};
    uint16_t mode = i->mode;

    if (name_check(n, i->mode) || len > FSM_XATTR_SIZE_MAX || room_for(set_of(f, i), n, len))
        return -EINVAL;
    if (attr_find(set_of(f, i), n))
        return -EEXIST;
    if (is_acl(n) && posix_acl_check(value, len) <= 0)
        return -EINVAL;
    if (is_name(n, NAME(ACL_DEFAULT)) && !S_ISDIR(i->mode))
        return -EINVAL;
    if (is_name(n, NAME(ACL_ACCESS)) && posix_acl_to_mode(value, len, &mode))
        return -EINVAL;
    store(f, i, n, value, len); /* quotas are charged in the end */
    return 0;
}
