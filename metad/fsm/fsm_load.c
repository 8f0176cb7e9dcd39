/* Reading a checkpoint (format: fsm_format.h) into an empty state machine, trusting nothing in it.
 *
 * Each section's checksums are verified before its records are looked at; each record is decoded
 * with explicit bounds and refused when it names something that is not there, twice there, or out
 * of range. What the file does not store is computed on the way: reference counts and live bytes
 * from extents, parents and subdirectory counts from entries. load_finish() then checks what only the
 * whole can show: names against nlink, every directory connected to the root, no chunk without a
 * reference.
 *
 * Failure modes: -ERR_CORRUPT or -ERR_VERSION and one line that names section and offset; the state
 * machine is then half filled and only good for fsm_free. Thread context: nobody else knows the fsm
 * yet. */
#include "fsm_format.h"
#include "fsm_internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/crc32c.h"
#include "base/byteorder.h"

struct loader {
    struct fsm *f;
    int fd;
    char *why;
    uint64_t pos;     /* file offset behind what was read */
    uint64_t section; /* file offset of the current section's header */
    uint32_t type;
    uint32_t version; /* of the file */
    uint64_t records, sections;
    const uint8_t *start, *p, *end; /* payload being decoded */
    bool bad;                       /* a record ran over the end of its section */
    uint32_t *names;                /* by inode handle: dentries seen */
    uint32_t names_cap;
    uint64_t last_ino, last_end; /* extents: where the previous one ended */
    bool root_seen;
    uint8_t *buf;
};

static const char *type_name(uint32_t type)
{
    switch (type) {
    case CKPT_META:
        return "meta";
    case CKPT_SESSION:
        return "sessions";
    case CKPT_ANSWER:
        return "answers";
    case CKPT_MEMBER:
        return "members";
    case CKPT_INODE:
        return "inodes";
    case CKPT_DENTRY:
        return "dentries";
    case CKPT_CHUNK:
        return "chunks";
    case CKPT_EXTENT:
        return "extents";
    case CKPT_XATTR:
        return "extended attributes";
    case CKPT_QUOTA:
        return "quotas";
    case CKPT_INCARNATION:
        return "incarnations";
    case CKPT_FUTURE:
    case CKPT_FOREIGN:
    case CKPT_DOUBT:
        return "other futures";
    case CKPT_CLUSTER:
        return "cluster";
    case CKPT_METAD:
        return "metads";
    case CKPT_SETTING:
        return "settings";
    case CKPT_END:
        return "end";
    default:
        return "unknown";
    }
}

/* Damage in the section being read; offset of the record when one is being decoded. */
static int corrupt(struct loader *l, const char *what)
{
    uint64_t at = l->p ? l->section + CKPT_SECTION + (uint64_t)(l->start - l->buf) : l->section;
    snprintf(l->why, 256, "section %s at offset %" PRIu64 ": %s", type_name(l->type), at, what);
    return -ERR_CORRUPT;
}

/* 1 when n bytes were read, 0 at a clean end of the file (only when eof_ok), else a code. */
static int read_all(struct loader *l, uint8_t *p, size_t n, bool eof_ok)
{
    size_t got = 0;

    while (got < n) {
        ssize_t r = read(l->fd, p + got, n - got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            int e = errno;
            snprintf(l->why, 256, "reading at offset %" PRIu64 ": %s", l->pos + got, strerror(e));
            return -e;
        }
        if (r == 0)
            break;
        got += (size_t)r;
    }
    l->pos += got;
    if (got == n)
        return 1;
    if (got == 0 && eof_ok)
        return 0;
    snprintf(l->why, 256,
             "section %s at offset %" PRIu64 ": the file ends within it (%" PRIu64 " bytes long)",
             type_name(l->type), l->section, l->pos);
    return -ERR_CORRUPT;
}

/* ---- fields ---- */

static const uint8_t *load_take(struct loader *l, size_t n)
{
    static const uint8_t zeros[8];

    if ((size_t)(l->end - l->p) < n) {
        l->bad = true;
        l->p = l->end;
        return n <= sizeof(zeros) ? zeros : NULL;
    }
    const uint8_t *p = l->p;
    l->p += n;
    return p;
}

static uint8_t get8(struct loader *l)
{
    return *load_take(l, 1);
}

static uint16_t get16(struct loader *l)
{
    return le_get16(load_take(l, 2));
}

static uint32_t get32(struct loader *l)
{
    return le_get32(load_take(l, 4));
}

static uint64_t get64(struct loader *l)
{
    return le_get64(load_take(l, 8));
}

/* A string for a person, as a C string. */
static void get_str8(struct loader *l, char out[FSM_STRING_MAX + 1])
{
    size_t n = get8(l);
    const uint8_t *p = load_take(l, n);
    if (l->bad)
        n = 0;
    if (n)
        memcpy(out, p, n);
    out[n] = 0;
    if (strlen(out) != n)
        l->bad = true;
}

/* ---- records ---- */

static int load_meta(struct loader *l)
{
    if (l->records)
        return corrupt(l, "second meta record");
    l->f->change = get64(l);
    l->f->chunk_upto = get64(l);
    l->f->ino_upto = get64(l);
    if (l->f->ino_upto <= FSM_ROOT_INO || l->f->change >> FSM_CHANGE_BITS)
        return corrupt(l, "counters out of range");
    return 0;
}

static int load_lapse(struct loader *l, struct fsm_session *s)
{
    uint8_t lapsed = get8(l);

    s->lapses = get32(l);
    s->lapsed_at = (int64_t)get64(l);
    s->away_from = get64(l);
    s->away_to = get64(l);
    if (l->bad || lapsed > 1 || s->away_from > s->away_to || s->away_to > l->f->change)
        return corrupt(l, "malformed session");
    s->lapsed = lapsed;
    l->f->nlapsed += lapsed;
    return 0;
}

static int load_session(struct loader *l)
{
    char name[FSM_STRING_MAX + 1], host[FSM_STRING_MAX + 1];
    uint64_t id = get64(l), acked = get64(l);

    get_str8(l, name);
    get_str8(l, host);
    uint8_t holds = l->version >= 3 ? get8(l) : FSM_HOLDS_ALL;
    if (l->bad || holds > FSM_HOLDS_ALL)
        return corrupt(l, "malformed session");
    struct fsm_session *s = id ? fsm_session_add(l->f, id, name, host) : NULL;
    if (!s)
        return corrupt(l, "session id is 0 or there twice");
    s->acked = acked;
    s->holds = holds;
    return l->version >= 3 ? load_lapse(l, s) : 0;
}

static int load_answer(struct loader *l)
{
    uint64_t id = get64(l);
    struct fsm_answer a = {0};

    a.seq = get64(l);
    a.ino = get64(l);
    a.parent = get64(l);
    a.code = get32(l);
    if (l->version >= 2)
        a.value = get64(l);
    struct fsm_session *s = fsm_session_find(l->f, id);
    if (!s)
        return corrupt(l, "answer for a session that is not there");
    if (a.seq <= s->acked || s->end - s->first >= 2 * FSM_REMEMBER_MAX)
        return corrupt(l, "answer that should be forgotten");
    if (fsm_session_remember(l->f, s, &a) != 0)
        return corrupt(l, "answer twice");
    return 0;
}

static int load_member(struct loader *l)
{
    char host[FSM_STRING_MAX + 1], name[FSM_STRING_MAX + 1];
    uint32_t id = get32(l);

    get_str8(l, host);
    get_str8(l, name);
    if (l->bad || id == 0 || id >= 1u << 20)
        return corrupt(l, "malformed member");
    uint32_t by = l->version >= 4 ? get32(l) : 0;
    if (l->bad || fsm_member_add(l->f, id, host, name) != 0)
        return corrupt(l, "member twice");
    l->f->members[l->f->nmembers - 1].replaced_by = by;
    return 0;
}

static bool inode_ok(const struct fsm *f, const struct fsm_inode *i, size_t target_len)
{
    uint32_t type = i->mode & S_IFMT;

    if (type == S_IFDIR ? i->nlink > 1 || i->x.next_cookie == 0 || i->x.next_cookie >> 48
                        : i->nlink > FSM_LINK_MAX)
        return false;
    if (type == S_IFLNK ? target_len == 0 || target_len > FSM_TARGET_MAX || i->size != target_len
                        : target_len != 0)
        return false;
    if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFIFO &&
        type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK)
        return false;
    if ((i->flags & FSM_INODE_TMPFILE) && (type != S_IFREG || i->nlink != 0))
        return false;
    if (i->ino == FSM_ROOT_INO && (type != S_IFDIR || i->nlink != 1))
        return false;
    return i->ino && i->ino < f->ino_upto && i->size <= FSM_SIZE_MAX && i->goal >= 1 &&
           i->goal <= FSM_GOAL_MAX && i->change <= f->change;
}

static void read_inode(struct loader *l, struct fsm_inode *i)
{
    i->ino = get64(l);
    i->mode = get16(l);
    i->nlink = get16(l);
    i->uid = get32(l);
    i->gid = get32(l);
    uint8_t goal = get8(l);
    i->goal = goal <= FSM_GOAL_MAX ? goal : 0;
    uint64_t change = get64(l);
    i->change = change;
    if (change >> FSM_CHANGE_BITS)
        l->bad = true;
    i->mtime = (int64_t)get64(l);
    i->ctime = (int64_t)get64(l);
    i->atime = (int64_t)get64(l);
    i->size = get64(l);
    i->x.rdev = get64(l);
    if (l->version < 2)
        return;
    uint8_t flags = get8(l);
    uint16_t realm = get16(l);
    if (flags > 1 || realm >= 1u << 12)
        l->bad = true;
    i->flags = flags ? FSM_INODE_TMPFILE : 0;
    i->realm = realm & 0xfff;
}

static int load_inode(struct loader *l)
{
    struct fsm *f = l->f;
    struct fsm_inode in = {0};

    read_inode(l, &in);
    size_t n = get16(l);
    const uint8_t *target = load_take(l, n);
    if (l->bad || !inode_ok(f, &in, n))
        return corrupt(l, "malformed inode");
    bool root = in.ino == FSM_ROOT_INO;
    uint32_t h = fsm_inode_find(f, in.ino);
    if (root ? l->root_seen : h != 0)
        return corrupt(l, "inode twice");
    if (root) {
        l->root_seen = true;
    } else {
        uint64_t change = f->change;
        h = fsm_inode_new(f, in.ino, in.mode);
        f->change = change;
    }
    struct fsm_inode *i = fsm_inode_at(f, h);
    in.next = i->next;
    in.u = i->u;
    *i = in;
    if (n) {
        i->u.target = fsm_xmalloc(n);
        memcpy(i->u.target, target, n);
        f->heap += n;
    }
    if (S_ISREG(i->mode))
        i->x.alloc = 0;
    return 0;
}

static void count_name(struct loader *l, uint32_t h)
{
    if (h >= l->names_cap) {
        uint32_t cap = l->f->inodes.used + 1;
        l->names = fsm_xrealloc(l->names, cap * sizeof(*l->names));
        memset(l->names + l->names_cap, 0, (cap - l->names_cap) * sizeof(*l->names));
        l->names_cap = cap;
    }
    l->names[h]++;
}

static int load_dentry(struct loader *l)
{
    struct fsm *f = l->f;
    uint64_t parent = get64(l), child = get64(l), cookie = get64(l);
    size_t n = get8(l);
    const uint8_t *name = load_take(l, n);

    if (l->bad || fsm_name_check(name, n) != 0)
        return corrupt(l, "malformed name");
    uint32_t ph = fsm_inode_find(f, parent), ch = fsm_inode_find(f, child);
    if (!ph || !S_ISDIR(fsm_inode_at(f, ph)->mode) || fsm_inode_at(f, ph)->nlink == 0)
        return corrupt(l, "entry in a directory that is not there");
    if (!ch)
        return corrupt(l, "entry for an inode that is not there");
    struct fsm_inode *p = fsm_inode_at(f, ph), *c = fsm_inode_at(f, ch);
    if (cookie == 0 || cookie >= p->x.next_cookie)
        return corrupt(l, "cookie out of range");
    if (fsm_dentry_find(f, ph, name, n) || !fsm_dentry_add(f, ph, name, n, ch, cookie))
        return corrupt(l, "name or cookie twice in one directory");
    if (S_ISDIR(c->mode)) {
        if (c->u.dir.parent || child == FSM_ROOT_INO)
            return corrupt(l, "directory with two names");
        c->u.dir.parent = ph;
        p->u.dir.subdirs++;
    }
    count_name(l, ch);
    return 0;
}

static int load_chunk(struct loader *l)
{
    uint64_t id = get64(l), session = get64(l);
    uint32_t len = get32(l);

    if (id == 0 || id >= l->f->chunk_upto || session == 0 || len == 0 || len > FSM_CHUNK_MAX)
        return corrupt(l, "malformed chunk");
    if (fsm_chunk_find(l->f, id))
        return corrupt(l, "chunk twice");
    uint32_t h = fsm_chunk_new(l->f, id, session);
    fsm_chunk_at(l->f, h)->len = len;
    return 0;
}

/* Where an extent may lie: bytes within the file and their chunk, reservations anywhere. */
static const char *extent_wrong(struct loader *l, const struct fsm_inode *i, const struct ext *e)
{
    if (!e->chunk) {
        if (l->version < 2)
            return "extent without a chunk";
        return e->len == 0 || e->len > EXTMAP_RESERVED_MAX || e->chunk_off ||
                       e->file_off > FSM_SIZE_MAX - e->len
                   ? "malformed reservation"
                   : NULL;
    }
    if (e->len == 0 || e->len > FSM_CHUNK_MAX || e->file_off > i->size ||
        e->len > i->size - e->file_off)
        return "extent behind the end of its file";
    const struct fsm_chunk *c = fsm_chunk_find(l->f, e->chunk);
    if (!c || e->chunk_off > c->len || e->len > c->len - e->chunk_off)
        return "extent of bytes that its chunk does not have";
    return NULL;
}

static int load_extent(struct loader *l)
{
    struct fsm *f = l->f;
    uint64_t ino = get64(l);
    struct ext e = {0};

    e.file_off = get64(l);
    e.chunk = get64(l);
    e.chunk_off = get32(l);
    e.len = get32(l);
    uint32_t h = fsm_inode_find(f, ino);
    if (!h || !S_ISREG(fsm_inode_at(f, h)->mode))
        return corrupt(l, "extent of a file that is not there");
    struct fsm_inode *i = fsm_inode_at(f, h);
    const char *wrong = extent_wrong(l, i, &e);
    if (wrong)
        return corrupt(l, wrong);
    if (ino == l->last_ino ? e.file_off < l->last_end : extmap_count(&i->u.map) != 0)
        return corrupt(l, "extents overlap or are out of order");
    fsm_file_count(f, h, &e); /* quotas are charged in the end */
    fsm_file_put(f, h, &e);
    l->last_ino = ino;
    l->last_end = e.file_off + e.len;
    return 0;
}

static int load_xattr(struct loader *l)
{
    uint64_t ino = get64(l);
    size_t n = get8(l);
    const uint8_t *name = load_take(l, n);
    size_t len = get32(l);
    const uint8_t *value = load_take(l, len);
    uint32_t h = fsm_inode_find(l->f, ino);

    if (l->bad)
        return corrupt(l, "malformed extended attribute");
    if (!h)
        return corrupt(l, "extended attribute of an inode that is not there");
    int r = fsm_xattr_load(l->f, h, name, n, value, len);
    if (r)
        return corrupt(l,
                       r == -EEXIST ? "extended attribute twice" : "impossible extended attribute");
    return 0;
}

static int load_quota(struct loader *l)
{
    unsigned realm = get16(l);
    struct fsm_realm r = {.ino = get64(l)};

    r.max_bytes = get64(l);
    r.max_inodes = get64(l);
    if (l->bad || !fsm_quota_load(l->f, realm, &r))
        return corrupt(l, "malformed quota, or there twice");
    return 0;
}

static int load_incarnation(struct loader *l)
{
    struct fsm_incarnation i = {.id = get64(l)};

    i.begin = get64(l);
    i.chunk_from = get64(l);
    if (l->bad || !fsm_past_load(l->f, &i))
        return corrupt(l, "malformed incarnation, out of order, or there twice");
    return 0;
}

static int load_future(struct loader *l)
{
    struct fsm_future u = {.incarnation = get64(l)};
    bool good;

    if (l->type == CKPT_FUTURE) {
        u.position = get64(l);
        u.time = (int64_t)get64(l);
        u.accepted = get8(l) != 0;
        good = fsm_future_load(l->f, &u);
    } else if (l->type == CKPT_FOREIGN) {
        good = fsm_foreign_load(l->f, u.incarnation, get64(l));
    } else {
        good = fsm_doubt_load(l->f, u.incarnation);
    }
    return l->bad || !good ? corrupt(l, "malformed, or there twice") : 0;
}

static int load_cluster(struct loader *l)
{
    uint32_t level = get32(l), metad_new = get32(l);
    uint64_t was = get64(l), lowered = get64(l);
    uint8_t has_key = get8(l);
    uint64_t key_id = get64(l);
    const uint8_t *key = load_take(l, FSM_CAP_KEY_LEN);

    if (level > FSM_FEATURE_MAX) {
        snprintf(l->why, 256,
                 "the metadata are of feature level %" PRIu32 ", this program knows up to %u: use "
                 "the version that wrote them or a newer one",
                 level, FSM_FEATURE_MAX);
        return -ERR_VERSION;
    }
    if (l->bad || has_key > 1 || !fsm_feature_load(l->f, level) ||
        !fsm_metads_load(l->f, metad_new) || !fsm_term_load(l->f, was, lowered))
        return corrupt(l, "malformed, or there twice");
    if (has_key)
        fsm_cap_key_load(l->f, key_id, key);
    return 0;
}

static int load_metad(struct loader *l)
{
    char addr[FSM_STRING_MAX + 1], name[FSM_STRING_MAX + 1], host[FSM_STRING_MAX + 1];
    struct fsm_metad m = {get32(l), addr, name, host, 0};

    get_str8(l, addr);
    get_str8(l, name);
    get_str8(l, host);
    return l->bad || !fsm_metad_load(l->f, &m) ? corrupt(l, "malformed, or there twice") : 0;
}

static int load_setting(struct loader *l)
{
    uint32_t number = get32(l);
    uint64_t value = get64(l);

    return l->bad || !fsm_setting_load(l->f, number, value)
               ? corrupt(l, "unknown, out of range, or there twice")
               : 0;
}

static int load_chunkd(struct loader *l)
{
    struct fsm_limit limits[FSM_DISKS_MAX];
    uint32_t chunkd = get32(l);
    uint8_t draining = get8(l);
    struct fsm_decided d = {.draining = draining, .limits = limits};

    d.pause_ms = get64(l);
    d.paused_at = (int64_t)get64(l);
    d.nlimits = get8(l);
    bool ok = l->version >= 5 && draining <= 1 && d.nlimits <= FSM_DISKS_MAX;
    for (uint32_t i = 0; ok && i < d.nlimits; i++) {
        limits[i].disk = get32(l);
        limits[i].bytes = get64(l);
        uint8_t now = get8(l);
        limits[i].now = now;
        ok = now <= 1;
    }
    return l->bad || !ok || !fsm_decided_load(l->f, chunkd, &d)
               ? corrupt(l, "malformed, or there twice")
               : 0;
}

static int load_end(struct loader *l)
{
    uint64_t records = get64(l), sections = get64(l);

    if (records != l->records || sections != l->sections)
        return corrupt(l, "sections are missing: the counts differ");
    return 0;
}

static int load_record(struct loader *l)
{
    switch (l->type) {
    case CKPT_META:
        return load_meta(l);
    case CKPT_SESSION:
        return load_session(l);
    case CKPT_ANSWER:
        return load_answer(l);
    case CKPT_MEMBER:
        return load_member(l);
    case CKPT_INODE:
        return load_inode(l);
    case CKPT_DENTRY:
        return load_dentry(l);
    case CKPT_CHUNK:
        return load_chunk(l);
    case CKPT_EXTENT:
        return load_extent(l);
    case CKPT_XATTR:
        return load_xattr(l);
    case CKPT_QUOTA:
        return load_quota(l);
    case CKPT_INCARNATION:
        return load_incarnation(l);
    case CKPT_FUTURE:
    case CKPT_FOREIGN:
    case CKPT_DOUBT:
        return load_future(l);
    case CKPT_CLUSTER:
        return load_cluster(l);
    case CKPT_METAD:
        return load_metad(l);
    case CKPT_SETTING:
        return load_setting(l);
    case CKPT_CHUNKD:
        return load_chunkd(l);
    case CKPT_END:
        return load_end(l);
    default:
        return corrupt(l, "unknown section type");
    }
}

/* ---- the whole ---- */

/* Every named directory hangs below the root: climbing marks what is known to be connected. */
static bool connected(struct fsm *f)
{
    enum { UNKNOWN, CLIMBING, GOOD };
    uint8_t *mark = fsm_xcalloc(f->inodes.used + 1ul, 1);
    bool ok = true;

    mark[fsm_inode_find(f, FSM_ROOT_INO)] = GOOD;
    for (uint32_t h = 1; h <= f->inodes.used && ok; h++) {
        const struct fsm_inode *i = fsm_inode_at(f, h);
        if (!i->ino || !S_ISDIR(i->mode) || i->nlink == 0)
            continue;
        uint32_t up = h;
        while (mark[up] == UNKNOWN) {
            mark[up] = CLIMBING;
            up = fsm_inode_at(f, up)->u.dir.parent;
        }
        ok = mark[up] == GOOD;
        for (up = h; ok && mark[up] == CLIMBING; up = fsm_inode_at(f, up)->u.dir.parent)
            mark[up] = GOOD;
    }
    free(mark);
    return ok;
}

static int load_finish(struct loader *l)
{
    struct fsm *f = l->f;

    l->p = NULL;
    l->section = l->pos;
    if (!l->root_seen)
        return corrupt(l, "no root directory");
    for (uint32_t h = 1; h <= f->inodes.used; h++) {
        const struct fsm_inode *i = fsm_inode_at(f, h);
        uint32_t names = h < l->names_cap ? l->names[h] : 0;
        if (i->ino && i->ino != FSM_ROOT_INO && names != i->nlink)
            return corrupt(l, "an inode's link count differs from its names");
        if (i->ino && i->nlink == 0) {
            struct fsm_oset_ops ops = fsm_orphan_ops(f);
            int r = fsm_oset_insert(&f->orphans, &ops, h);
            assert(r == 0);
        }
    }
    if (!connected(f))
        return corrupt(l, "directories that are not below the root");
    if (l->version >= 4 && (!fsm_feature_level(f) || !f->cluster.nmetads))
        return corrupt(l, "no section that tells of the cluster");
    const char *quota = fsm_quota_finish(f);
    if (quota)
        return corrupt(l, quota);
    for (uint32_t h = 1; h <= f->chunks.used; h++) {
        if (fsm_chunk_at(f, h)->refs == 0)
            return corrupt(l, "a chunk that no file refers to");
    }
    return 0;
}

static int load_header(struct loader *l)
{
    uint8_t h[CKPT_HEADER];
    int r = read_all(l, h, sizeof(h), false);

    if (r < 0) {
        if (r == -ERR_CORRUPT)
            snprintf(l->why, 256, "header at offset 0: the file is only %" PRIu64 " bytes long",
                     l->pos);
        return r;
    }
    if (memcmp(h, CKPT_MAGIC, 8) != 0 || le_get32(h + 28) != crc32c(0, h, 28)) {
        snprintf(l->why, 256, "header at offset 0: %s",
                 memcmp(h, CKPT_MAGIC, 8) ? "not a checkpoint" : "checksum is wrong");
        return -ERR_CORRUPT;
    }
    l->version = le_get32(h + 8);
    if (l->version < CKPT_VERSION_MIN || l->version > CKPT_VERSION) {
        snprintf(l->why, 256,
                 "header at offset 0: format version %" PRIu32
                 ", this program knows %u to %u: use the version that wrote it or a newer one",
                 l->version, CKPT_VERSION_MIN, CKPT_VERSION);
        return -ERR_VERSION;
    }
    l->f->applied = le_get64(h + 16);
    return 0;
}

/* Reads and verifies the next section into buf: 1, or a code. */
static int load_section(struct loader *l)
{
    uint8_t h[CKPT_SECTION];
    uint32_t last = l->type;

    l->p = NULL;
    l->section = l->pos;
    int r = read_all(l, h, sizeof(h), false);
    if (r < 0)
        return r;
    if (le_get32(h + 16) != crc32c(0, h, 16) || le_get32(h) != CKPT_MARK)
        return corrupt(l, "damaged behind this section's predecessor: header checksum is wrong");
    l->type = le_get32(h + 4);
    uint32_t len = le_get32(h + 8);
    if (l->type < last || len == 0 || len > CKPT_PAYLOAD_MAX)
        return corrupt(l, "out of order or of impossible length");
    if ((r = read_all(l, l->buf, len, false)) < 0)
        return r;
    if (crc32c(0, l->buf, len) != le_get32(h + 12))
        return corrupt(l, "checksum is wrong");
    l->start = l->p = l->buf;
    l->end = l->buf + len;
    return 1;
}

static int load_sections(struct loader *l)
{
    do {
        int r = load_section(l);
        if (r < 0)
            return r;
        if (l->sections == 0 && l->type != CKPT_META)
            return corrupt(l, "does not start with meta");
        while (l->p < l->end) {
            l->start = l->p;
            r = load_record(l);
            if (r == 0 && l->bad)
                r = corrupt(l, "record runs over the end");
            if (r < 0)
                return r;
            if (l->type != CKPT_END)
                l->records++;
            else if (l->p < l->end)
                return corrupt(l, "too long");
        }
        l->sections++;
    } while (l->type != CKPT_END);
    uint8_t one;
    l->p = NULL;
    l->section = l->pos;
    int r = read_all(l, &one, 1, true);
    if (r > 0)
        return corrupt(l, "bytes behind the end");
    return r;
}

int fsm_load(struct fsm *f, int fd, char why[256])
{
    struct loader l = {.f = f, .fd = fd, .why = why};

    why[0] = 0;
    assert(f->inodes.count == 1 && f->applied == 0);
    l.buf = fsm_xmalloc(CKPT_PAYLOAD_MAX);
    int r = load_header(&l);
    if (r == 0)
        r = load_sections(&l);
    if (r == 0)
        r = load_finish(&l);
    free(l.names);
    free(l.buf);
    return r;
}
