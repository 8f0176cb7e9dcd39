/* Writing the whole state: as a checkpoint file (format: fsm_format.h), or into a digest.
 *
 * One walk produces records; a sink takes them. The file sink collects records of one type into a
 * section of up to 256 KiB, then writes it with its checksums. The digest sink adds up a hash of
 * each record, so the sum does not depend on the order in which handles happened to be given out.
 *
 * fsm_save is made for a child after fork(): it takes no lock, allocates nothing, uses a static
 * buffer and write(2). Failure modes: -errno of write; the caller throws the file away. */
#include "fsm_format.h"
#include "fsm_internal.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/crc32c.h"
#include "base/byteorder.h"

struct sink {
    int fd; /* -1: digest */
    int err;
    uint32_t type;
    size_t used, mark; /* payload bytes; where the current record starts */
    uint64_t records, sections, digest;
    uint8_t *buf; /* section header, then payload */
};

static int write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t r = write(fd, p, n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            return -EIO;
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

static void flush(struct sink *s)
{
    if (s->used == 0)
        return;
    if (s->fd >= 0 && !s->err) {
        le_put32(s->buf, CKPT_MARK);
        le_put32(s->buf + 4, s->type);
        le_put32(s->buf + 8, (uint32_t)s->used);
        le_put32(s->buf + 12, crc32c(0, s->buf + CKPT_SECTION, s->used));
        le_put32(s->buf + 16, crc32c(0, s->buf, 16));
        s->err = write_all(s->fd, s->buf, CKPT_SECTION + s->used);
    }
    s->sections++;
    s->used = 0;
}

/* ---- records ---- */

static size_t record_max(uint32_t type)
{
    return type == CKPT_XATTR ? CKPT_XATTR_RECORD_MAX : CKPT_RECORD_MAX;
}

static void begin(struct sink *s, uint32_t type)
{
    if (s->type != type || s->used + record_max(type) > CKPT_PAYLOAD_MAX)
        flush(s);
    s->type = type;
    s->mark = s->used;
}

static void end(struct sink *s)
{
    const uint8_t *rec = s->buf + CKPT_SECTION + s->mark;

    assert(s->used - s->mark <= record_max(s->type));
    s->records++;
    if (s->fd < 0) {
        s->digest += fsm_hash_bytes(s->type, rec, s->used - s->mark);
        s->used = s->mark;
    }
}

static uint8_t *save_room(struct sink *s, size_t n)
{
    uint8_t *p = s->buf + CKPT_SECTION + s->used;
    s->used += n;
    return p;
}

static void put8(struct sink *s, uint8_t v)
{
    *save_room(s, 1) = v;
}

static void put16(struct sink *s, uint16_t v)
{
    le_put16(save_room(s, 2), v);
}

static void put32(struct sink *s, uint32_t v)
{
    le_put32(save_room(s, 4), v);
}

static void put64(struct sink *s, uint64_t v)
{
    le_put64(save_room(s, 8), v);
}

static void put_str8(struct sink *s, const void *p, size_t n)
{
    assert(n <= 255);
    put8(s, (uint8_t)n);
    memcpy(save_room(s, n), p, n);
}

/* ---- the walk ---- */

static void walk_sessions(const struct fsm *f, struct sink *s)
{
    for (uint32_t k = 0; k < f->nsessions; k++) {
        const struct fsm_session *x = f->sessions[k];
        begin(s, CKPT_SESSION);
        put64(s, x->id);
        put64(s, x->acked);
        put_str8(s, x->name, strlen(x->name));
        put_str8(s, x->host_id, strlen(x->host_id));
        put8(s, x->holds);
        put8(s, x->lapsed);
        put32(s, x->lapses);
        put64(s, (uint64_t)x->lapsed_at);
        put64(s, x->away_from);
        put64(s, x->away_to);
        end(s);
    }
    for (uint32_t k = 0; k < f->nsessions; k++) {
        const struct fsm_session *x = f->sessions[k];
        for (uint32_t j = x->first; j < x->end; j++) {
            begin(s, CKPT_ANSWER);
            put64(s, x->id);
            put64(s, x->answers[j].seq);
            put64(s, x->answers[j].ino);
            put64(s, x->answers[j].parent);
            put32(s, x->answers[j].code);
            put64(s, x->answers[j].value);
            end(s);
        }
    }
    for (uint32_t k = 0; k < f->nmembers; k++) {
        const struct fsm_member *m = &f->members[k];
        begin(s, CKPT_MEMBER);
        put32(s, m->chunkd);
        put_str8(s, m->host_id, strlen(m->host_id));
        put_str8(s, m->host_name, strlen(m->host_name));
        if (fsm_feature_level(f) >= 1)
            put32(s, m->replaced_by);
        end(s);
    }
}

static void put_inode(struct sink *s, const struct fsm_inode *i)
{
    bool extra = S_ISDIR(i->mode) || S_ISCHR(i->mode) || S_ISBLK(i->mode);
    size_t n = S_ISLNK(i->mode) ? i->size : 0;

    begin(s, CKPT_INODE);
    put64(s, i->ino);
    put16(s, i->mode);
    put16(s, i->nlink);
    put32(s, i->uid);
    put32(s, i->gid);
    put8(s, i->goal);
    put64(s, i->change);
    put64(s, (uint64_t)i->mtime);
    put64(s, (uint64_t)i->ctime);
    put64(s, (uint64_t)i->atime);
    put64(s, i->size);
    put64(s, extra ? i->x.rdev : 0);
    put8(s, i->flags & FSM_INODE_TMPFILE ? 1 : 0);
    put16(s, i->realm);
    put16(s, (uint16_t)n);
    if (n)
        memcpy(save_room(s, n), i->u.target, n);
    end(s);
}

static void put_dentries(struct fsm *f, struct sink *s, const struct fsm_inode *i)
{
    struct fsm_opos pos = {0};
    uint32_t d;

    while ((d = fsm_oset_next(&i->u.dir.entries, &pos))) {
        const struct fsm_dentry *e = fsm_dentry_at(f, d);
        begin(s, CKPT_DENTRY);
        put64(s, i->ino);
        put64(s, fsm_inode_at(f, e->child)->ino);
        put64(s, fsm_dentry_cookie(e));
        put_str8(s, e->name, e->len);
        end(s);
    }
}

static void put_extent(struct sink *s, uint64_t ino, const struct ext *e)
{
    begin(s, CKPT_EXTENT);
    put64(s, ino);
    put64(s, e->file_off);
    put64(s, e->chunk);
    put32(s, e->chunk_off);
    put32(s, e->len);
    end(s);
}

static bool save_continues(const struct ext *run, const struct ext *e)
{
    return run->len && run->chunk == e->chunk && run->file_off + run->len == e->file_off &&
           (!e->chunk || run->chunk_off + run->len == e->chunk_off);
}

/* Neighbours that continue each other are written as one: whether a map holds them joined depends
 * on its history, and one filled from this file would join them anyway. Runs of what is reserved
 * are cut where an extent can hold no more, counted from the run's beginning. */
static void put_extents(struct sink *s, const struct fsm_inode *i)
{
    struct ext e, run = {0};

    for (uint64_t off = 0; extmap_find(&i->u.map, off, &e); off = e.file_off + e.len) {
        uint64_t len = e.len;
        if (save_continues(&run, &e)) {
            len += run.len;
        } else {
            if (run.len)
                put_extent(s, i->ino, &run);
            run = e;
        }
        for (; !run.chunk && len > EXTMAP_RESERVED_MAX; len -= EXTMAP_RESERVED_MAX) {
            run.len = EXTMAP_RESERVED_MAX;
            put_extent(s, i->ino, &run);
            run.file_off += EXTMAP_RESERVED_MAX;
        }
        run.len = (uint32_t)len;
    }
    if (run.len)
        put_extent(s, i->ino, &run);
}

static void walk_inodes(struct fsm *f, struct sink *s, uint32_t type)
{
    for (uint32_t h = 1; h <= f->inodes.used && !s->err; h++) {
        const struct fsm_inode *i = fsm_inode_at(f, h);
        if (!i->ino)
            continue;
        if (type == CKPT_INODE)
            put_inode(s, i);
        else if (type == CKPT_DENTRY && S_ISDIR(i->mode))
            put_dentries(f, s, i);
        else if (type == CKPT_EXTENT && S_ISREG(i->mode))
            put_extents(s, i);
    }
}

static void walk_xattrs(const struct fsm *f, struct sink *s)
{
    for (uint32_t h = 1; h <= f->xsets.used && !s->err; h++) {
        const struct fsm_xset *x = fsm_xset_at(f, h);
        for (uint32_t k = 0; x->ino && k < x->n; k++) {
            const struct fsm_xattr *a = x->v[k];
            begin(s, CKPT_XATTR);
            put64(s, x->ino);
            put_str8(s, a->bytes, a->name_len);
            put32(s, a->len);
            memcpy(save_room(s, a->len), a->bytes + a->name_len, a->len);
            end(s);
        }
    }
}

static void walk_past(const struct fsm *f, struct sink *s)
{
    const struct fsm_past *p = &f->past;

    for (uint32_t k = 0; k < p->n; k++) {
        begin(s, CKPT_INCARNATION);
        put64(s, p->v[k].id);
        put64(s, p->v[k].begin);
        put64(s, p->v[k].chunk_from);
        end(s);
    }
    for (uint32_t k = 0; k < p->nfutures; k++) {
        begin(s, CKPT_FUTURE);
        put64(s, p->futures[k].incarnation);
        put64(s, p->futures[k].position);
        put64(s, (uint64_t)p->futures[k].time);
        put8(s, p->futures[k].accepted);
        end(s);
    }
    for (uint32_t k = 0; k < p->nforeign; k++) {
        begin(s, CKPT_FOREIGN);
        put64(s, p->foreign[k].from);
        put64(s, p->foreign[k].to);
        end(s);
    }
    for (uint32_t k = 0; k < p->ndoubt; k++) {
        begin(s, CKPT_DOUBT);
        put64(s, p->doubt[k]);
        end(s);
    }
}

static void walk_cluster(const struct fsm *f, struct sink *s)
{
    const struct fsm_cluster *c = &f->cluster;

    begin(s, CKPT_CLUSTER);
    put32(s, fsm_feature_level(f));
    put32(s, c->metad_new);
    put64(s, atomic_load(&c->term_was));
    put64(s, c->term_lowered);
    put8(s, c->has_cap_key);
    put64(s, c->cap_key_id);
    memcpy(save_room(s, FSM_CAP_KEY_LEN), c->cap_key, FSM_CAP_KEY_LEN);
    end(s);
    for (uint32_t k = 0; k < c->nmetads; k++) {
        const struct fsm_metad *m = &c->metads[k];
        begin(s, CKPT_METAD);
        put32(s, m->id);
        put_str8(s, m->addr, strlen(m->addr));
        put_str8(s, m->name, strlen(m->name));
        put_str8(s, m->host_id, strlen(m->host_id));
        end(s);
    }
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++) {
        if (!c->is_told[k])
            continue;
        begin(s, CKPT_SETTING);
        put32(s, k);
        put64(s, c->told[k]);
        end(s);
    }
}

static void walk_chunkds(const struct fsm *f, struct sink *s)
{
    for (uint32_t k = 0; k < f->nmembers; k++) {
        const struct fsm_decided *d = &f->members[k].decided;
        if (!fsm_decided_any(d))
            continue;
        begin(s, CKPT_CHUNKD);
        put32(s, f->members[k].chunkd);
        put8(s, d->draining);
        put64(s, d->pause_ms);
        put64(s, (uint64_t)d->paused_at);
        put8(s, (uint8_t)d->nlimits);
        for (uint32_t i = 0; i < d->nlimits; i++) {
            put32(s, d->limits[i].disk);
            put64(s, d->limits[i].bytes);
            put8(s, d->limits[i].now);
        }
        end(s);
    }
}

static void walk(struct fsm *f, struct sink *s)
{
    begin(s, CKPT_META);
    put64(s, f->change);
    put64(s, f->chunk_upto);
    put64(s, f->ino_upto);
    end(s);
    walk_sessions(f, s);
    walk_inodes(f, s, CKPT_INODE);
    walk_inodes(f, s, CKPT_DENTRY);
    for (uint32_t h = 1; h <= f->chunks.used && !s->err; h++) {
        const struct fsm_chunk *c = fsm_chunk_at(f, h);
        if (!c->id)
            continue;
        begin(s, CKPT_CHUNK);
        put64(s, c->id);
        put64(s, c->session);
        put32(s, c->len);
        end(s);
    }
    walk_inodes(f, s, CKPT_EXTENT);
    walk_xattrs(f, s);
    for (uint32_t r = 1; r < f->nrealms; r++) {
        if (!f->realms[r].ino)
            continue;
        begin(s, CKPT_QUOTA);
        put16(s, (uint16_t)r);
        put64(s, f->realms[r].ino);
        put64(s, f->realms[r].max_bytes);
        put64(s, f->realms[r].max_inodes);
        end(s);
    }
    walk_past(f, s);
    if (fsm_feature_level(f) >= 1) /* before that there is nothing in it */
        walk_cluster(f, s);
    walk_chunkds(f, s); /* nothing below level 2 */
}

static uint32_t save_version(const struct fsm *f)
{
    unsigned level = fsm_feature_level(f);

    return level >= 2 ? CKPT_VERSION : level == 1 ? CKPT_VERSION_LEVEL_1 : CKPT_VERSION_LEVEL_0;
}

int fsm_save(struct fsm *f, int fd)
{
    static uint8_t buf[CKPT_SECTION + CKPT_PAYLOAD_MAX];
    struct sink s = {.fd = fd, .buf = buf};
    uint8_t head[CKPT_HEADER] = CKPT_MAGIC;

    le_put32(head + 8, save_version(f));
    le_put64(head + 16, f->applied);
    le_put32(head + 28, crc32c(0, head, 28));
    s.err = write_all(fd, head, sizeof(head));
    walk(f, &s);
    flush(&s);
    uint64_t records = s.records, sections = s.sections;
    begin(&s, CKPT_END);
    put64(&s, records);
    put64(&s, sections);
    end(&s);
    flush(&s);
    return s.err;
}

uint64_t fsm_digest(struct fsm *f)
{
    uint8_t buf[CKPT_SECTION + CKPT_XATTR_RECORD_MAX]; /* 64 KiB of this thread's stack */
    struct sink s = {.fd = -1, .buf = buf};

    walk(f, &s);
    return hash_u64(s.digest + s.records);
}
