/* Quotas of directory trees: limits of bytes and inodes for all that is below a directory.
 *
 * A directory with a quota is the root of a realm, a number from 1 to 4095, the lowest that is
 * free. Every inode carries the number of the realm it is charged to, 0 for none: that of the
 * directory it was made in; a quota root its own. Trees nest: use is charged to the inode's realm
 * and to all around it, and each must have room. Charged are bytes covered by extents (as st_blocks
 * shows; reserved ones included, holes not) and one inode each, the quota root included.
 *
 * Names and values of extended attributes are charged too, but apart (realm.attrs), and no command is
 * refused for them when it is applied: logs of versions that did not count them hold commands that
 * were acknowledged, and must lead to the same state. So it is the leader that looks, before the
 * command is logged (fsm_quota_attrs_fit): setting attributes and inheriting ACLs need room for data
 * and attributes together. What was on its way meanwhile may go past the limit by a little, and a
 * rename into the tree by what it brings; clients are told what both have left (quota_left).
 *
 * Invariants: a named directory's realm is its own when it is a quota root, else its parent's; so
 * a realm's parent is the realm of the directory that holds its root. realm.bytes and .inodes are
 * the sums over the inodes of the realm and of those inside it. A file's realm is in general that
 * of the directory of its names, since links and renames of files with several names do not cross
 * (EXDEV); but where a quota is set on, or a directory moved into, a tree while some file has names
 * inside and outside, the file goes along and stays charged there. Orphans stay with the realm they
 * had until they are reaped.
 *
 * Setting a quota, removing it, and renaming a directory between realms walk the tree in question,
 * inside the command: about 0.1 s for a million inodes, in which nothing else is applied. Removal
 * also looks for inodes that are not in the tree (orphans, names outside) as long as the count says
 * that there are some.
 *
 * A limit may be set below the present use: nothing can be added then, everything else works.
 *
 * Failure modes: EDQUOT, EXDEV, EPERM (not root), ENODATA (none to remove), ENOSPC (4095 there).
 * Thread context: fsm lock. */
#include "fsm_internal.h"
#include <stdlib.h>

static bool is_root_of(const struct fsm *f, const struct fsm_inode *i, unsigned realm)
{
    return realm && f->realms[realm].ino == i->ino;
}

static uint64_t bytes_of(const struct fsm_inode *i)
{
    return S_ISREG(i->mode) ? i->x.alloc : 0;
}

/* ---- charging ---- */

void fsm_realm_charge(struct fsm *f, unsigned realm, int64_t bytes, int64_t inodes)
{
    for (; realm; realm = f->realms[realm].parent) {
        struct fsm_realm *r = &f->realms[realm];
        assert(bytes >= 0 || r->bytes >= -(uint64_t)bytes);
        assert(inodes >= 0 || r->inodes >= -(uint64_t)inodes);
        r->bytes += (uint64_t)bytes;
        r->inodes += (uint64_t)inodes;
    }
}

void fsm_realm_charge_attrs(struct fsm *f, unsigned realm, int64_t bytes)
{
    for (; realm; realm = f->realms[realm].parent) {
        struct fsm_realm *r = &f->realms[realm];
        assert(bytes >= 0 || r->attrs >= -(uint64_t)bytes);
        r->attrs += (uint64_t)bytes;
    }
}

static bool fits(uint64_t used, uint64_t more, uint64_t max)
{
    return !max || !more || (used <= max && more <= max - used);
}

int fsm_realm_room(const struct fsm *f, unsigned realm, uint64_t bytes, uint64_t inodes)
{
    for (; realm; realm = f->realms[realm].parent) {
        const struct fsm_realm *r = &f->realms[realm];
        if (!fits(r->bytes, bytes, r->max_bytes) || !fits(r->inodes, inodes, r->max_inodes))
            return -EDQUOT;
    }
    return 0;
}

void fsm_quota_join(struct fsm *f, uint32_t h, uint32_t dir)
{
    struct fsm_inode *i = fsm_inode_at(f, h);

    i->realm = fsm_inode_at(f, dir)->realm;
    fsm_charge(f, i, 0, 1);
}

uint64_t fsm_file_holes(const struct fsm_inode *i, uint64_t off, uint64_t end)
{
    return extmap_holes(&i->u.map, off, end);
}

static int by_off(const void *a, const void *b)
{
    const struct ext *x = a, *y = b;
    return x->file_off < y->file_off ? -1 : x->file_off > y->file_off;
}

/* Only near the limit it matters what a commit replaces, and whether its own extents overlap. */
int fsm_quota_commit(const struct fsm *f, const struct fsm_inode *i, const Replfs__CommitOp *op,
                     uint64_t shift, uint64_t sum)
{
    if (!fsm_quota_room(f, i, sum, 0))
        return 0;
    struct ext *v = fsm_xmalloc(op->n_extents * sizeof(*v));
    uint64_t grow = 0, done = 0;
    for (size_t k = 0; k < op->n_extents; k++)
        v[k] =
            (struct ext){.file_off = op->extents[k]->file_off + shift, .len = op->extents[k]->len};
    qsort(v, op->n_extents, sizeof(*v), by_off);
    for (size_t k = 0; k < op->n_extents; k++) {
        uint64_t from = v[k].file_off > done ? v[k].file_off : done;
        uint64_t end = v[k].file_off + v[k].len;
        if (end <= from)
            continue;
        grow += fsm_file_holes(i, from, end);
        done = end;
    }
    free(v);
    return fsm_quota_room(f, i, grow, 0);
}

/* ---- walking a tree ---- */

typedef void tree_fn(void *arg, uint32_t h);

/* fn for directory `top` and all below it. Quota roots inside are shown but not entered. */
static void tree_walk(const struct fsm *f, uint32_t top, tree_fn *fn, void *arg)
{
    uint32_t *stack = fsm_xmalloc(sizeof(*stack)), d;
    size_t n = 0, cap = 1;

    for (stack[n++] = top; n;) {
        uint32_t h = stack[--n];
        fn(arg, h);
        struct fsm_opos pos = {0};
        while ((d = fsm_oset_next(&fsm_inode_at(f, h)->u.dir.entries, &pos))) {
            uint32_t c = fsm_dentry_at(f, d)->child;
            const struct fsm_inode *i = fsm_inode_at(f, c);
            if (!S_ISDIR(i->mode) || is_root_of(f, i, i->realm)) {
                fn(arg, c);
                continue;
            }
            if (n == cap)
                stack = fsm_xrealloc(stack, (cap *= 2) * sizeof(*stack));
            stack[n++] = c;
        }
    }
    free(stack);
}

struct shift {
    struct fsm *f;
    unsigned from, to;
};

static void shift_inode(struct fsm *f, struct fsm_inode *i, unsigned to)
{
    int64_t bytes = (int64_t)bytes_of(i), attrs = fsm_xattr_bytes(f, i);

    fsm_charge(f, i, -bytes, -1);
    fsm_charge_attrs(f, i, -attrs);
    i->realm = to & FSM_REALM_MAX;
    fsm_charge(f, i, bytes, 1);
    fsm_charge_attrs(f, i, attrs);
}

static void shift_realm(struct fsm *f, unsigned realm, unsigned to)
{
    struct fsm_realm *r = &f->realms[realm];

    fsm_realm_charge(f, r->parent, -(int64_t)r->bytes, -(int64_t)r->inodes);
    fsm_realm_charge_attrs(f, r->parent, -(int64_t)r->attrs);
    r->parent = (uint16_t)to;
    fsm_realm_charge(f, r->parent, (int64_t)r->bytes, (int64_t)r->inodes);
    fsm_realm_charge_attrs(f, r->parent, (int64_t)r->attrs);
}

/* A file with several names is met several times, and shifted once. */
static void shift_one(void *arg, uint32_t h)
{
    const struct shift *s = arg;
    struct fsm_inode *i = fsm_inode_at(s->f, h);

    if (!is_root_of(s->f, i, i->realm)) {
        if (i->realm == s->from)
            shift_inode(s->f, i, s->to);
    } else if (s->f->realms[i->realm].parent == s->from) {
        shift_realm(s->f, i->realm, s->to);
    }
}

/* ---- setting and removing ---- */

/* Makes sure that the table has this number. */
static void realms_grow(struct fsm *f, unsigned realm)
{
    uint32_t n = realm < 8 ? 8 : 2 * realm;

    if (realm < f->nrealms)
        return;
    f->realms = fsm_xrealloc(f->realms, n * sizeof(*f->realms));
    for (uint32_t k = f->nrealms; k < n; k++)
        f->realms[k] = (struct fsm_realm){0};
    f->heap += (n - f->nrealms) * sizeof(*f->realms);
    f->nrealms = n;
}

/* The lowest free number, 0: none. */
static unsigned realm_new(struct fsm *f)
{
    unsigned realm = 1;

    while (realm < f->nrealms && f->realms[realm].ino)
        realm++;
    if (realm > FSM_REALM_MAX)
        return 0;
    realms_grow(f, realm);
    return realm;
}

/* Directory h is no quota root any more: what its realm had goes to the one around it. */
static void realm_drop(struct fsm *f, uint32_t h)
{
    unsigned realm = fsm_inode_at(f, h)->realm;
    struct fsm_realm *r = &f->realms[realm];
    struct shift s = {f, realm, r->parent};
    struct fsm_opos pos = {0};
    uint32_t o;

    r->ino = 0; /* so that h counts as any other directory */
    tree_walk(f, h, shift_one, &s);
    while (r->inodes && (o = fsm_oset_next(&f->orphans, &pos)))
        shift_one(&s, o);
    for (o = 1; r->inodes && o <= f->inodes.used; o++)
        if (fsm_inode_at(f, o)->ino)
            shift_one(&s, o);
    assert(!r->inodes && !r->bytes && !r->attrs);
    *r = (struct fsm_realm){0};
}

void fsm_quota_dir_gone(struct fsm *f, uint32_t h)
{
    const struct fsm_inode *i = fsm_inode_at(f, h);

    if (is_root_of(f, i, i->realm))
        realm_drop(f, h);
}

int fsm_op_quota(struct fsm *f, const Replfs__QuotaOp *op, struct fsm_result *res)
{
    int code;

    if (op->uid != 0)
        return -EPERM;
    uint32_t h = fsm_dir_find(f, op->ino, &code);
    if (!h)
        return code;
    const struct fsm_inode *i = fsm_inode_at(f, h);
    bool has = is_root_of(f, i, i->realm);
    res->ino = op->ino;
    if (!op->max_bytes && !op->max_inodes) {
        if (!has)
            return -ENODATA;
        realm_drop(f, h);
        return 0;
    }
    unsigned realm = has ? i->realm : realm_new(f);
    if (!realm)
        return -ENOSPC;
    struct fsm_realm *r = &f->realms[realm];
    r->max_bytes = op->max_bytes;
    r->max_inodes = op->max_inodes;
    if (!has) {
        struct shift s = {f, i->realm, realm};
        r->ino = op->ino;
        r->parent = i->realm;
        tree_walk(f, h, shift_one, &s);
    }
    return 0;
}

/* ---- renaming ---- */

/* What is charged to realm `from` in one moved file or tree. */
struct tally {
    const struct fsm *f;
    unsigned from;
    uint64_t bytes, inodes;
    uint32_t *links; /* files with several names, perhaps met again */
    size_t nlinks, cap;
};

static void tally_add(struct tally *t, const struct fsm_inode *i)
{
    t->bytes += bytes_of(i);
    t->inodes++;
}

static void tally_one(void *arg, uint32_t h)
{
    struct tally *t = arg;
    const struct fsm_inode *i = fsm_inode_at(t->f, h);

    if (is_root_of(t->f, i, i->realm)) {
        const struct fsm_realm *r = &t->f->realms[i->realm];
        t->bytes += r->parent == t->from ? r->bytes : 0;
        t->inodes += r->parent == t->from ? r->inodes : 0;
        return;
    }
    if (i->realm != t->from)
        return;
    if (i->nlink < 2) {
        tally_add(t, i);
        return;
    }
    if (t->nlinks == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->links = fsm_xrealloc(t->links, t->cap * sizeof(*t->links));
    }
    t->links[t->nlinks++] = h;
}

static int by_handle(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static bool is_inner_root(const struct fsm *f, uint32_t h)
{
    const struct fsm_inode *i = fsm_inode_at(f, h);
    return S_ISDIR(i->mode) && is_root_of(f, i, i->realm);
}

/* The realm that a move takes h out of. */
static unsigned realm_left(const struct fsm *f, uint32_t h)
{
    const struct fsm_inode *i = fsm_inode_at(f, h);
    return is_inner_root(f, h) ? f->realms[i->realm].parent : i->realm;
}

static struct tally tally(const struct fsm *f, uint32_t h)
{
    struct tally t = {.f = f, .from = realm_left(f, h)};

    if (!S_ISDIR(fsm_inode_at(f, h)->mode) || is_inner_root(f, h)) {
        tally_one(&t, h);
    } else {
        tree_walk(f, h, tally_one, &t);
    }
    if (t.nlinks)
        qsort(t.links, t.nlinks, sizeof(*t.links), by_handle);
    for (size_t k = 0; k < t.nlinks; k++)
        if (k == 0 || t.links[k] != t.links[k - 1])
            tally_add(&t, fsm_inode_at(f, t.links[k]));
    free(t.links);
    return t;
}

static bool encloses(const struct fsm *f, unsigned outer, unsigned realm)
{
    while (realm && realm != outer)
        realm = f->realms[realm].parent;
    return realm == outer;
}

static uint64_t above(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* in goes to realm `to`, out leaves the same way back. */
static int move_room(const struct fsm *f, const struct tally *in, const struct tally *out,
                     unsigned to)
{
    for (; to && !encloses(f, to, in->from); to = f->realms[to].parent) {
        const struct fsm_realm *r = &f->realms[to];
        if (!fits(r->bytes, above(in->bytes, out->bytes), r->max_bytes) ||
            !fits(r->inodes, above(in->inodes, out->inodes), r->max_inodes))
            return -EDQUOT;
    }
    return 0;
}

static bool is_tied(const struct fsm *f, uint32_t h, unsigned to)
{
    const struct fsm_inode *i = fsm_inode_at(f, h);
    return !S_ISDIR(i->mode) && i->nlink > 1 && i->realm != to;
}

int fsm_quota_move_check(const struct fsm *f, uint32_t h, uint32_t other, uint32_t from_dir,
                         uint32_t to_dir)
{
    static const struct tally nothing;
    unsigned from = fsm_inode_at(f, from_dir)->realm, to = fsm_inode_at(f, to_dir)->realm;

    if (from == to)
        return 0;
    if (is_tied(f, h, to) || (other && is_tied(f, other, from)))
        return -EXDEV;
    struct tally t = tally(f, h), o = other ? tally(f, other) : nothing;
    bool swap = other && t.from == from && o.from == to; /* each makes room for the other */
    int r = move_room(f, &t, swap ? &o : &nothing, to);
    if (!r && other)
        r = move_room(f, &o, swap ? &t : &nothing, from);
    return r;
}

void fsm_quota_move(struct fsm *f, uint32_t h, uint32_t from_dir, uint32_t to_dir)
{
    struct shift s = {f, realm_left(f, h), fsm_inode_at(f, to_dir)->realm};

    if (fsm_inode_at(f, from_dir)->realm == s.to || s.from == s.to)
        return;
    if (!S_ISDIR(fsm_inode_at(f, h)->mode) || is_inner_root(f, h))
        shift_one(&s, h);
    else
        tree_walk(f, h, shift_one, &s);
}

/* ---- reading ---- */

void fsm_quota_attr(const struct fsm *f, const struct fsm_inode *i, Replfs__Attr *out)
{
    if (!i->realm)
        return;
    out->flags |= REPLFS__ATTR_FLAG__ATTR_QUOTA;
    out->quota_left = UINT64_MAX;
    for (unsigned realm = i->realm; realm; realm = f->realms[realm].parent) {
        const struct fsm_realm *r = &f->realms[realm];
        uint64_t left = above(r->max_bytes, r->bytes + r->attrs);
        if (r->max_bytes && left < out->quota_left)
            out->quota_left = left;
    }
}

unsigned fsm_quota_realm(struct fsm *f, uint64_t ino)
{
    uint32_t h = fsm_inode_find(f, ino);
    return h ? fsm_inode_at(f, h)->realm : 0;
}

unsigned fsm_quota_next(struct fsm *f, unsigned after)
{
    while (++after < f->nrealms)
        if (f->realms[after].ino)
            return after;
    return 0;
}

bool fsm_quota_get(struct fsm *f, unsigned realm, struct fsm_quota *out)
{
    if (!realm || realm >= f->nrealms || !f->realms[realm].ino)
        return false;
    const struct fsm_realm *r = &f->realms[realm];
    *out = (struct fsm_quota){.ino = r->ino,
                              .max_bytes = r->max_bytes,
                              .max_inodes = r->max_inodes,
                              .bytes = r->bytes,
                              .inodes = r->inodes,
                              .attrs = r->attrs,
                              .outer = r->parent};
    return true;
}

bool fsm_has_quotas(const struct fsm *f)
{
    return f->nrealms > 0;
}

int fsm_quota_attrs_fit(struct fsm *f, const Replfs__MetaOp *op)
{
    const struct fsm_inode *i = NULL;
    uint64_t more = 0;

    if (op->op_case == REPLFS__META_OP__OP_XATTR)
        more = fsm_xattr_more(f, op->xattr, &i);
    else if (op->op_case == REPLFS__META_OP__OP_CREATE)
        more = fsm_xattr_inherit_more(f, op->create, &i);
    if (!more)
        return 0;
    for (unsigned realm = i->realm; realm; realm = f->realms[realm].parent) {
        const struct fsm_realm *r = &f->realms[realm];
        if (!fits(r->bytes + r->attrs, more, r->max_bytes))
            return -EDQUOT;
    }
    return 0;
}

/* ---- loading ---- */

bool fsm_quota_load(struct fsm *f, unsigned realm, const struct fsm_realm *r)
{
    uint32_t h = fsm_inode_find(f, r->ino);

    if (!h || !realm || realm > FSM_REALM_MAX || (!r->max_bytes && !r->max_inodes))
        return false;
    const struct fsm_inode *i = fsm_inode_at(f, h);
    if (!S_ISDIR(i->mode) || i->nlink == 0 || i->realm != realm)
        return false;
    realms_grow(f, realm);
    if (f->realms[realm].ino)
        return false;
    f->realms[realm] = *r;
    return true;
}

/* Every directory's realm follows from the quota roots above it; with that true, and all connected
 * to the root, trees nest without cycles. */
static const char *check_inode(const struct fsm *f, const struct fsm_inode *i)
{
    if (i->realm && (i->realm >= f->nrealms || !f->realms[i->realm].ino))
        return "an inode is charged to a quota that is not there";
    if (!S_ISDIR(i->mode) || i->nlink == 0 || is_root_of(f, i, i->realm))
        return NULL;
    if (i->ino == FSM_ROOT_INO ? i->realm != 0
                               : i->realm != fsm_inode_at(f, i->u.dir.parent)->realm)
        return "a directory is charged to another quota than the one around it";
    return NULL;
}

const char *fsm_quota_finish(struct fsm *f)
{
    const char *wrong = NULL;

    for (uint32_t h = 1; h <= f->inodes.used && !wrong; h++)
        if (fsm_inode_at(f, h)->ino)
            wrong = check_inode(f, fsm_inode_at(f, h));
    if (wrong)
        return wrong;
    for (unsigned realm = fsm_quota_next(f, 0); realm; realm = fsm_quota_next(f, realm)) {
        struct fsm_realm *r = &f->realms[realm];
        const struct fsm_inode *i = fsm_inode_at(f, fsm_inode_find(f, r->ino));
        if (i->ino != FSM_ROOT_INO)
            r->parent = fsm_inode_at(f, i->u.dir.parent)->realm;
    }
    for (uint32_t h = 1; h <= f->inodes.used; h++)
        if (fsm_inode_at(f, h)->ino) {
            const struct fsm_inode *i = fsm_inode_at(f, h);
            fsm_charge(f, i, (int64_t)bytes_of(i), 1);
            fsm_charge_attrs(f, i, fsm_xattr_bytes(f, i));
        }
    return NULL;
}
