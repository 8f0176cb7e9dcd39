/* Directories and names: lookup, listing, create, unlink, rmdir and link; rename is in
 * fsm_rename.c.
 *
 * An entry (dentry) lives in the arena and hangs in two indexes: one hash over all (directory,
 * name) pairs, and its directory's ordered set by cookie. Cookies are given per directory in order
 * of creation and never reused or moved, so a listing goes on exactly behind the last entry it saw.
 * A rename onto an existing name keeps that entry and its cookie: a listing sees the name once,
 * whatever it refers to.
 *
 * Invariants: the number of dentries of a file equals its nlink; a directory in the tree has
 * exactly one dentry (the root none) and its u.dir.parent is where that is; subdirs counts the
 * directories among the children.
 *
 * Failure modes: errno codes as rename(2), link(2) and so on document them. Thread context: fsm
 * lock. */
#include "fsm_internal.h"
#include <stdlib.h>
#include <string.h>

/* ---- dentries ---- */

static size_t dentry_size(size_t len)
{
    return offsetof(struct fsm_dentry, name) + len;
}

static uint64_t name_hash(const struct fsm *f, uint32_t dir, const uint8_t *name, size_t len)
{
    return fsm_hash_bytes(f->hash_key ^ hash_u64(dir), name, len);
}

static uint32_t *htab_next(void *ctx, uint32_t d)
{
    return &fsm_dentry_at(ctx, d)->next;
}

static uint64_t htab_hash(void *ctx, uint32_t d)
{
    const struct fsm_dentry *e = fsm_dentry_at(ctx, d);
    return name_hash(ctx, e->parent, e->name, e->len);
}

const struct fsm_htab_ops fsm_dentry_htab_ops = {htab_next, htab_hash};

static uint64_t cookie_key(void *ctx, uint32_t d)
{
    return fsm_dentry_cookie(fsm_dentry_at(ctx, d));
}

struct fsm_oset_ops fsm_dentry_ops(struct fsm *f)
{
    return (struct fsm_oset_ops){cookie_key, f, &f->heap};
}

uint32_t fsm_dentry_find(const struct fsm *f, uint32_t dir, const uint8_t *name, size_t len)
{
    uint32_t d = fsm_htab_first(&f->by_name, name_hash(f, dir, name, len));

    while (d) {
        const struct fsm_dentry *e = fsm_dentry_at(f, d);
        if (e->parent == dir && e->len == len && memcmp(e->name, name, len) == 0)
            break;
        d = e->next;
    }
    return d;
}

uint32_t fsm_dentry_add(struct fsm *f, uint32_t dir, const uint8_t *name, size_t len,
                        uint32_t child, uint64_t cookie)
{
    struct fsm_inode *p = fsm_inode_at(f, dir);
    struct fsm_oset_ops ops = fsm_dentry_ops(f);

    if (!cookie)
        cookie = p->x.next_cookie++;
    uint32_t d = fsm_arena_alloc(&f->dentries, dentry_size(len));
    struct fsm_dentry *e = fsm_dentry_at(f, d);
    e->next = 0;
    e->parent = dir;
    e->child = child;
    e->cookie_lo = (uint32_t)cookie;
    e->cookie_hi = (uint16_t)(cookie >> 32);
    e->len = (uint8_t)len;
    memcpy(e->name, name, len);
    if (fsm_oset_insert(&p->u.dir.entries, &ops, d) != 0) {
        fsm_arena_release(&f->dentries, d, dentry_size(len));
        return 0;
    }
    fsm_htab_insert(&f->by_name, &fsm_dentry_htab_ops, f, d);
    return d;
}

void fsm_dentry_drop(struct fsm *f, uint32_t d)
{
    struct fsm_dentry *e = fsm_dentry_at(f, d);
    struct fsm_oset_ops ops = fsm_dentry_ops(f);

    fsm_oset_remove(&fsm_inode_at(f, e->parent)->u.dir.entries, &ops, d);
    fsm_htab_remove(&f->by_name, &fsm_dentry_htab_ops, f, d);
    fsm_arena_release(&f->dentries, d, dentry_size(e->len));
}

int fsm_name_check(const uint8_t *name, size_t len)
{
    if (len == 0)
        return -EINVAL;
    if (len > FSM_NAME_MAX)
        return -ENAMETOOLONG;
    if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
        return -EINVAL;
    if (memchr(name, '/', len) || memchr(name, 0, len))
        return -EINVAL;
    return 0;
}

uint32_t fsm_dir_find(const struct fsm *f, uint64_t ino, int *code)
{
    uint32_t h = fsm_inode_find(f, ino);

    *code = 0;
    if (!h)
        *code = -ENOENT;
    else if (!S_ISDIR(fsm_inode_at(f, h)->mode))
        *code = -ENOTDIR;
    else if (fsm_inode_at(f, h)->nlink == 0)
        *code = -ENOENT; /* removed, but somebody's working directory */
    return *code ? 0 : h;
}

bool fsm_dir_is_within(const struct fsm *f, uint32_t dir, uint32_t ancestor)
{
    while (dir != ancestor) {
        uint32_t up = fsm_inode_at(f, dir)->u.dir.parent;
        if (up == dir || up == 0)
            return false;
        dir = up;
    }
    return true;
}

void fsm_inode_unname(struct fsm *f, uint32_t h)
{
    struct fsm_inode *i = fsm_inode_at(f, h);

    assert(i->nlink > 0);
    i->nlink--;
    if (S_ISDIR(i->mode)) {
        i->u.dir.parent = 0;
        fsm_quota_dir_gone(f, h);
    }
    fsm_inode_touch(f, i, false);
    if (i->nlink == 0)
        fsm_inode_orphan(f, h, 0);
}

/* ---- reads ---- */

int fsm_lookup(struct fsm *f, uint64_t parent, const uint8_t *name, size_t len, uint64_t *ino)
{
    uint32_t h = fsm_inode_find(f, parent);

    if (!h)
        return -ENOENT;
    if (!S_ISDIR(fsm_inode_at(f, h)->mode))
        return -ENOTDIR;
    if (len == 1 && name[0] == '.') {
        *ino = parent;
        return 0;
    }
    if (len == 2 && name[0] == '.' && name[1] == '.')
        return fsm_parent(f, parent, ino);
    if (len > FSM_NAME_MAX)
        return -ENAMETOOLONG;
    uint32_t d = len ? fsm_dentry_find(f, h, name, len) : 0;
    if (!d)
        return -ENOENT;
    *ino = fsm_inode_at(f, fsm_dentry_at(f, d)->child)->ino;
    return 0;
}

int fsm_parent(struct fsm *f, uint64_t ino, uint64_t *parent)
{
    int code;
    uint32_t h = fsm_dir_find(f, ino, &code);
    if (!h)
        return code;
    *parent = fsm_inode_at(f, fsm_inode_at(f, h)->u.dir.parent)->ino;
    return 0;
}

int fsm_dir_name(struct fsm *f, uint64_t ino, uint64_t *parent, const uint8_t **name, size_t *len)
{
    int code;
    uint32_t h = fsm_dir_find(f, ino, &code), d;

    if (!h)
        return code;
    const struct fsm_inode *p = fsm_inode_at(f, fsm_inode_at(f, h)->u.dir.parent);
    struct fsm_opos pos = {0};
    *parent = p->ino;
    *name = NULL;
    *len = 0;
    while ((d = fsm_oset_next(&p->u.dir.entries, &pos))) {
        const struct fsm_dentry *e = fsm_dentry_at(f, d);
        if (e->child != h)
            continue;
        *name = e->name;
        *len = e->len;
        break;
    }
    return 0;
}

/* In a large namespace nearly everything about an entry comes from memory, not from a cache, one thing
 * after the other. So the processor is told of many of them at a time: the time of one for all. */
#define CACHE_LINE 64u

static void dir_fetch(const void *p, size_t len)
{
    for (size_t at = 0; at < len; at += CACHE_LINE)
        __builtin_prefetch((const uint8_t *)p + at);
    __builtin_prefetch((const uint8_t *)p + len - 1);
}

/* The next entries at *pos: how many. */
static size_t next_entries(struct fsm *f, const struct fsm_oset *set, struct fsm_opos *pos,
                           struct fsm_dirent out[FSM_DIRENTS_MAX])
{
    uint32_t d[FSM_DIRENTS_MAX];
    size_t n = 0;
    while (n < FSM_DIRENTS_MAX && (d[n] = fsm_oset_next(set, pos)))
        dir_fetch(fsm_dentry_at(f, d[n++]), dentry_size(16));
    for (size_t i = 0; i < n; i++)
        dir_fetch(fsm_inode_at(f, fsm_dentry_at(f, d[i])->child), sizeof(struct fsm_inode));
    for (size_t i = 0; i < n; i++) {
        const struct fsm_dentry *e = fsm_dentry_at(f, d[i]);
        const struct fsm_inode *in = fsm_inode_at(f, e->child);
        out[i] =
            (struct fsm_dirent){e->name, e->len, in->ino, fsm_dentry_cookie(e), in->mode, e->child};
    }
    return n;
}

uint64_t fsm_dir_end(struct fsm *f, uint64_t ino)
{
    uint32_t h = fsm_inode_find(f, ino);
    const struct fsm_inode *p = h ? fsm_inode_at(f, h) : NULL;
    return p && S_ISDIR(p->mode) ? p->x.next_cookie : 0;
}

int fsm_readdir(struct fsm *f, uint64_t ino, uint64_t cookie, fsm_dirents_fn *fn, void *arg)
{
    struct fsm_dirent list[FSM_DIRENTS_MAX];
    size_t n;
    uint32_t h = fsm_inode_find(f, ino);

    if (!h)
        return -ENOENT;
    const struct fsm_inode *p = fsm_inode_at(f, h);
    if (!S_ISDIR(p->mode))
        return -ENOTDIR;
    struct fsm_oset_ops ops = fsm_dentry_ops(f);
    struct fsm_opos pos = fsm_oset_seek(&p->u.dir.entries, &ops, cookie);
    do
        n = next_entries(f, &p->u.dir.entries, &pos, list);
    while (n && fn(arg, list, n));
    return 0;
}

void fsm_dirent_attr(struct fsm *f, const struct fsm_dirent *e, Replfs__Attr *out)
{
    fsm_inode_attr(f, fsm_inode_at(f, e->inode), out);
}

/* A directory that a client changed at `then`, and has shown so since. */
static void touch_then(struct fsm *f, struct fsm_inode *p, int64_t then)
{
    int64_t before = p->ctime;

    fsm_inode_touch(f, p, true);
    if (then > before && fsm_time_ok(f, then))
        p->mtime = p->ctime = then;
}

/* ---- create ---- */

/* The name a new inode shall get. */
static int new_name_check(const struct fsm *f, const Replfs__CreateOp *op, uint32_t dir)
{
    uint32_t type = op->mode & S_IFMT;

    if (op->tmpfile)
        return op->name.len || (type && type != S_IFREG) ? -EINVAL : 0;
    int r = fsm_name_check(op->name.data, op->name.len);
    if (r)
        return r;
    return fsm_dentry_find(f, dir, op->name.data, op->name.len) ? -EEXIST : 0;
}

static int create_check(struct fsm *f, const Replfs__CreateOp *op, uint32_t *dir)
{
    int r;
    uint32_t type = op->mode & S_IFMT;

    *dir = fsm_dir_find(f, op->parent, &r);
    if (!*dir)
        return r;
    r = new_name_check(f, op, *dir);
    if (r)
        return r;
    if (op->mode & ~(uint32_t)(S_IFMT | 07777))
        return -EINVAL;
    if (type && type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFIFO &&
        type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK)
        return -EINVAL;
    if (type == S_IFLNK) {
        if (op->target.len == 0)
            return -ENOENT;
        if (op->target.len > FSM_TARGET_MAX)
            return -ENAMETOOLONG;
        if (memchr(op->target.data, 0, op->target.len))
            return -EINVAL;
    }
    /* the leader stamps a fresh id from a reserved range; anything else would one day be given
     * twice */
    if (op->ino <= FSM_ROOT_INO || op->ino >= f->ino_upto || fsm_inode_find(f, op->ino))
        return -EINVAL;
    r = fsm_xattr_inherit_check(f, fsm_inode_at(f, *dir), type);
    return r ? r : fsm_quota_room(f, fsm_inode_at(f, *dir), 0, 1);
}

/* What the new inode gets from its directory: group, goal, ACLs. */
static void inherit(struct fsm *f, const struct fsm_inode *p, struct fsm_inode *i, uint32_t umask)
{
    i->goal = p->goal;
    if (p->mode & S_ISGID) {
        i->gid = p->gid;
        if (S_ISDIR(i->mode))
            i->mode |= S_ISGID;
    }
    fsm_xattr_inherit(f, p, i, umask);
}

int fsm_op_create(struct fsm *f, uint64_t session, const Replfs__CreateOp *op,
                  struct fsm_result *res)
{
    uint32_t dir;
    int r = create_check(f, op, &dir);
    if (r)
        return r;
    uint32_t type = op->mode & S_IFMT ? op->mode & S_IFMT : S_IFREG;
    uint32_t h = fsm_inode_new(f, op->ino, (uint16_t)(type | (op->mode & 07777)));
    struct fsm_inode *p = fsm_inode_at(f, dir), *i = fsm_inode_at(f, h);
    i->uid = op->uid;
    i->gid = op->gid;
    if (fsm_time_ok(f, op->time_ns))
        i->mtime = i->ctime = i->atime = op->time_ns;
    fsm_quota_join(f, h, dir);
    inherit(f, p, i, op->umask);
    if (type == S_IFDIR) {
        i->u.dir.parent = dir;
        p->u.dir.subdirs++;
    } else if (type == S_IFLNK) {
        i->size = op->target.len;
        i->u.target = fsm_xmalloc(op->target.len);
        memcpy(i->u.target, op->target.data, op->target.len);
        f->heap += op->target.len;
    } else if (type == S_IFCHR || type == S_IFBLK) {
        i->x.rdev = op->rdev;
    }
    res->ino = op->ino;
    if (op->tmpfile) {
        i->flags |= FSM_INODE_TMPFILE;
        fsm_inode_orphan(f, h, session);
        return 0;
    }
    i->nlink = 1;
    uint32_t d = fsm_dentry_add(f, dir, op->name.data, op->name.len, h, 0);
    assert(d);
    touch_then(f, p, op->time_ns);
    res->parent = op->parent;
    return 0;
}

/* ---- unlink, rmdir, link ---- */

int fsm_op_unlink(struct fsm *f, const Replfs__UnlinkOp *op, struct fsm_result *res)
{
    int r;
    uint32_t dir = fsm_dir_find(f, op->parent, &r);
    if (!dir)
        return r;
    r = fsm_name_check(op->name.data, op->name.len);
    if (r)
        return r;
    uint32_t d = fsm_dentry_find(f, dir, op->name.data, op->name.len);
    if (!d)
        return -ENOENT;
    uint32_t h = fsm_dentry_at(f, d)->child;
    struct fsm_inode *i = fsm_inode_at(f, h), *p = fsm_inode_at(f, dir);
    if (op->ino && op->ino != i->ino)
        return -ESTALE;
    if (op->dir && !S_ISDIR(i->mode))
        return -ENOTDIR;
    if (!op->dir && S_ISDIR(i->mode))
        return -EISDIR;
    if (op->dir && i->u.dir.entries.count)
        return -ENOTEMPTY;
    fsm_dentry_drop(f, d);
    if (op->dir)
        p->u.dir.subdirs--;
    touch_then(f, p, op->time_ns);
    fsm_inode_unname(f, h);
    res->ino = i->ino;
    res->parent = op->parent;
    return 0;
}

int fsm_op_link(struct fsm *f, const Replfs__LinkOp *op, struct fsm_result *res)
{
    int r;
    uint32_t h = fsm_inode_find(f, op->ino);
    if (!h)
        return -ENOENT;
    struct fsm_inode *i = fsm_inode_at(f, h);
    if (S_ISDIR(i->mode))
        return -EPERM;
    uint32_t dir = fsm_dir_find(f, op->parent, &r);
    if (!dir)
        return r;
    r = fsm_name_check(op->name.data, op->name.len);
    if (r)
        return r;
    if (fsm_dentry_find(f, dir, op->name.data, op->name.len))
        return -EEXIST;
    if (i->nlink == 0 && !(i->flags & FSM_INODE_TMPFILE))
        return -ENOENT;
    if (i->nlink >= FSM_LINK_MAX)
        return -EMLINK;
    if (i->realm != fsm_inode_at(f, dir)->realm)
        return -EXDEV;
    if (i->nlink == 0)
        fsm_inode_adopt(f, h);
    uint32_t d = fsm_dentry_add(f, dir, op->name.data, op->name.len, h, 0);
    assert(d);
    i->nlink++;
    fsm_inode_touch(f, i, false);
    fsm_inode_touch(f, fsm_inode_at(f, dir), true);
    res->ino = op->ino;
    res->parent = op->parent;
    return 0;
}
