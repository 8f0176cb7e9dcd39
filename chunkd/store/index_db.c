/* LMDB as the index's home. LMDB's copy-on-write commits are atomic, so after a crash it holds
 * exactly one checkpoint; that the log is on stable storage up to the checkpoint's position before
 * the commit is the caller's job (store_maint.c).
 *
 * Locks: `resize` is held shared around every transaction and exclusively while the map grows, as
 * LMDB demands that no transaction runs then. Read transactions are short (a lookup, a slice of a
 * walk), so that old pages are reused.
 *
 * Failure modes: an environment that does not open, has another format, another identity or rows of
 * wrong size is -ERR_CORRUPT: the caller removes and rebuilds it. LMDB reads its file through a map,
 * where a bad sector is not an error code but SIGBUS: every use of the map is inside a guard
 * (map_guard.h), which turns it into -EIO of this index. What LMDB held then is unknown, so nobody
 * calls it again for this environment, not even to close it. */
#include "index_db.h"
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/byteorder.h"
#include "base/lock.h"
#define LOG_MODULE "store"
#include "base/log.h"
#include "map_guard.h"

#define DB_FORMAT 1u
#define CHUNK_ROW 40
#define EXT_ROW 12
#define SEG_ROW 16
#define MARK_ROW 40

struct index_db {
    MDB_env *env;
    MDB_dbi chunks, extents, segments, marks, meta;
    struct rwlock resize;
    size_t map_size;
    bool readonly;
    _Atomic bool broken; /* a page could not be read */
    char data[4200];     /* path of data.mdb */
};

static int db_error(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PANIC:
    case MDB_VERSION_MISMATCH:
    case MDB_INVALID:
    case MDB_BAD_VALSIZE:
    case MDB_INCOMPATIBLE:
        return -ERR_CORRUPT;
    case MDB_MAP_FULL:
        return -EFBIG; /* not the disk: the map must grow */
    default:
        return rc > 0 ? -rc : -EIO;
    }
}

void *delta_grow(void *v, size_t *cap, size_t n, size_t size)
{
    if (n <= *cap)
        return v;
    size_t want = *cap * 2 > n ? *cap * 2 : n < 16 ? 16 : n;
    v = realloc(v, want * size);
    if (!v)
        abort();
    *cap = want;
    return v;
}

void delta_free(struct delta *d)
{
    free(d->chunks);
    free(d->exts);
    free(d->segs);
    free(d->marks);
    memset(d, 0, sizeof(*d));
}

/* ---- keys and rows ---- */

static MDB_val val(const void *p, size_t n)
{
    return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}

static void key_ext(uint8_t *k, uint64_t chunk, uint32_t off)
{
    be_put64(k, chunk);
    be_put32(k + 8, off);
}

/* The chunk or segment that a key begins with; none has number 0. */
static uint64_t key_id(const MDB_val *k)
{
    return k->mv_size >= 8 ? be_get64(k->mv_data) : 0;
}

static int row_decode(const MDB_val *v, struct chunk_row *row)
{
    const uint8_t *p = v->mv_data;
    if (v->mv_size != CHUNK_ROW)
        return -ERR_CORRUPT;
    *row = (struct chunk_row){.gen = le_get64(p),
                              .session = le_get64(p + 8),
                              .lo = le_get64(p + 16),
                              .hi = le_get64(p + 24),
                              .len = le_get32(p + 32)};
    return 0;
}

static int ext_decode(const MDB_val *k, const MDB_val *v, struct ext *e)
{
    if (k->mv_size != 12 || v->mv_size != EXT_ROW)
        return -ERR_CORRUPT;
    const uint8_t *p = v->mv_data;
    *e = (struct ext){.off = be_get32((const uint8_t *)k->mv_data + 8),
                      .len = le_get32(p),
                      .seg = le_get32(p + 4),
                      .pos = le_get32(p + 8)};
    return e->len == 0 || e->off > UINT32_MAX - e->len ? -ERR_CORRUPT : 0;
}

/* ---- opening ---- */

static int open_dbis(struct index_db *db, MDB_txn *txn)
{
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } all[] = {{"chunks", &db->chunks},
               {"extents", &db->extents},
               {"segments", &db->segments},
               {"marks", &db->marks},
               {"meta", &db->meta}};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        int rc = mdb_dbi_open(txn, all[i].name, db->readonly ? 0 : MDB_CREATE, all[i].dbi);
        if (rc)
            return db_error(rc);
    }
    return 0;
}

static int meta_get(struct index_db *db, MDB_txn *txn, const char *name, void *out, size_t len)
{
    MDB_val k = val(name, strlen(name)), v;
    int rc = mdb_get(txn, db->meta, &k, &v);
    if (rc)
        return db_error(rc);
    if (v.mv_size != len)
        return -ERR_CORRUPT;
    memcpy(out, v.mv_data, len);
    return 0;
}

static int meta_put(struct index_db *db, MDB_txn *txn, const char *name, const void *p, size_t len)
{
    MDB_val k = val(name, strlen(name)), v = val(p, len);
    return db_error(mdb_put(txn, db->meta, &k, &v, 0));
}

static int check_format(struct index_db *db, MDB_txn *txn, uint32_t identity, bool *fresh)
{
    uint8_t format[4], id[4];
    int rc = meta_get(db, txn, "format", format, 4);
    *fresh = rc == -ENOENT;
    if (*fresh && db->readonly)
        return -ERR_CORRUPT;
    if (*fresh) {
        le_put32(format, DB_FORMAT);
        le_put32(id, identity);
        rc = meta_put(db, txn, "format", format, 4);
        return rc ? rc : meta_put(db, txn, "identity", id, 4);
    }
    if (!rc)
        rc = meta_get(db, txn, "identity", id, 4);
    if (rc)
        return rc == -ENOENT ? -ERR_CORRUPT : rc;
    return le_get32(format) != DB_FORMAT || le_get32(id) != identity ? -ERR_CORRUPT : 0;
}

static int open_env(struct index_db *db, const char *path, uint32_t identity, bool *fresh)
{
    int rc = mdb_env_create(&db->env);
    if (rc)
        return db_error(rc);
    mdb_env_set_maxdbs(db->env, 8);
    mdb_env_set_maxreaders(db->env, 1024);
    mdb_env_set_mapsize(db->env, db->map_size);
    /* NOTLS: a thread may read while it has the write transaction open. Nobody else uses a readonly one:
     * the store has its lock. */
    unsigned how = db->readonly ? MDB_RDONLY | MDB_NOLOCK : 0;
    rc = mdb_env_open(db->env, path, MDB_NOTLS | MDB_NORDAHEAD | how, 0600);
    MDB_txn *txn;
    if (!rc)
        rc = mdb_txn_begin(db->env, NULL, how & MDB_RDONLY, &txn);
    if (rc)
        return db_error(rc);
    rc = open_dbis(db, txn);
    if (!rc)
        rc = check_format(db, txn, identity, fresh);
    if (!rc)
        return db_error(mdb_txn_commit(txn));
    mdb_txn_abort(txn);
    return rc;
}

/* ---- the guard ---- */

/* Begins what uses the map; the caller then has to say: if (sigsetjmp(g.env, 0)) return map_lost(db); */
static int map_enter(struct index_db *db, struct map_guard *g)
{
    if (db->broken)
        return -EIO;
    rwlock_read(&db->resize);
    map_guard_enter(g);
    return 0;
}

static int map_leave(struct index_db *db, struct map_guard *g, int rc)
{
    map_guard_leave(g);
    rwlock_release(&db->resize);
    return rc;
}

/* The guard is left already. */
static int map_lost(struct index_db *db)
{
    db->broken = true;
    rwlock_release(&db->resize);
    log_error("%s: the disk cannot read a page of the index", db->data);
    return -EIO;
}

static int open_guarded(struct index_db *db, const char *path, uint32_t identity, bool *fresh)
{
    struct map_guard g;
    int rc = map_enter(db, &g);
    if (rc)
        return rc;
    if (sigsetjmp(g.env, 0))
        return map_lost(db);
    return map_leave(db, &g, open_env(db, path, identity, fresh));
}

int index_db_open(const char *dir, uint32_t identity, uint64_t map_size, bool readonly, bool *fresh,
                  struct index_db **out)
{
    char path[4128];
    if (snprintf(path, sizeof(path), "%s/index", dir) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    map_guard_init();
    if (!readonly && mkdir(path, 0700) && errno != EEXIST)
        return -errno;
    struct index_db *db = calloc(1, sizeof(*db));
    if (!db)
        return -ENOMEM;
    rwlock_init(&db->resize, LOCK_INDEX_RESIZE, false);
    db->map_size = map_size;
    db->readonly = readonly;
    snprintf(db->data, sizeof(db->data), "%s/data.mdb", path);
    int rc = open_guarded(db, path, identity, fresh);
    if (rc) {
        index_db_close(db);
        return rc;
    }
    *out = db;
    return 0;
}

void index_db_close(struct index_db *db)
{
    if (!db)
        return;
    if (db->env && !db->broken)
        mdb_env_close(db->env);
    rwlock_destroy(&db->resize);
    free(db);
}

int index_db_remove(const char *dir)
{
    static const char *const files[] = {"index/data.mdb", "index/lock.mdb"};
    char path[4128];
    for (size_t i = 0; i < 2; i++) {
        if (snprintf(path, sizeof(path), "%s/%s", dir, files[i]) >= (int)sizeof(path))
            return -ENAMETOOLONG;
        if (unlink(path) && errno != ENOENT)
            return -errno;
    }
    return 0;
}

/* ---- committing ---- */

/* Removes all keys that start with the 8 bytes of id. */
static int del_prefix(MDB_txn *txn, MDB_dbi dbi, uint64_t id)
{
    uint8_t key[12];
    MDB_cursor *cur;
    key_ext(key, id, 0);
    int rc = mdb_cursor_open(txn, dbi, &cur);
    if (rc)
        return db_error(rc);
    MDB_val k = val(key, sizeof(key)), v;
    rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
    while (!rc && key_id(&k) == id) {
        rc = mdb_cursor_del(cur, 0);
        if (!rc) /* the cursor stands on the successor already, and NEXT knows */
            rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : db_error(rc);
}

static int db_put(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t klen, const void *p,
                  size_t len)
{
    MDB_val k = val(key, klen), v = val(p, len);
    return db_error(mdb_put(txn, dbi, &k, &v, 0));
}

static int del(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t klen)
{
    MDB_val k = val(key, klen);
    int rc = mdb_del(txn, dbi, &k, NULL);
    return rc == MDB_NOTFOUND ? 0 : db_error(rc);
}

static int commit_chunk(struct index_db *db, MDB_txn *txn, const struct delta *d,
                        const struct delta_chunk *c)
{
    uint8_t key[12], row[CHUNK_ROW] = {0};
    int rc = 0;
    key_ext(key, c->chunk, 0);
    if (c->gone || c->rewrite)
        rc = del_prefix(txn, db->extents, c->chunk);
    if (rc || c->gone)
        return rc ? rc : del(txn, db->chunks, key, 8);
    le_put64(row, c->row.gen);
    le_put64(row + 8, c->row.session);
    le_put64(row + 16, c->row.lo);
    le_put64(row + 24, c->row.hi);
    le_put32(row + 32, c->row.len);
    rc = db_put(txn, db->chunks, key, 8, row, sizeof(row));
    for (uint32_t i = 0; i < c->n && !rc; i++) {
        const struct ext *e = &d->exts[c->first + i];
        uint8_t v[EXT_ROW];
        key_ext(key, c->chunk, e->off);
        le_put32(v, e->len);
        le_put32(v + 4, e->seg);
        le_put32(v + 8, e->pos);
        rc = db_put(txn, db->extents, key, sizeof(key), v, sizeof(v));
    }
    return rc;
}

static int commit_segment(struct index_db *db, MDB_txn *txn, const struct segment_row *s)
{
    uint8_t key[8], v[SEG_ROW];
    be_put64(key, s->id);
    if (s->gone) {
        int rc = del(txn, db->segments, key, sizeof(key));
        return rc ? rc : del_prefix(txn, db->marks, s->id);
    }
    le_put64(v, s->size);
    le_put64(v + 8, s->live);
    return db_put(txn, db->segments, key, sizeof(key), v, sizeof(v));
}

static int commit_mark(struct index_db *db, MDB_txn *txn, const struct mark *m)
{
    uint8_t key[12], v[MARK_ROW];
    key_ext(key, m->seg, m->pos);
    le_put64(v, m->type);
    le_put64(v + 8, m->chunk);
    le_put64(v + 16, m->gen);
    le_put64(v + 24, m->lo);
    le_put64(v + 32, m->hi);
    return db_put(txn, db->marks, key, sizeof(key), v, sizeof(v));
}

static int commit_all(struct index_db *db, MDB_txn *txn, const struct delta *d)
{
    int rc = 0;
    for (size_t i = 0; i < d->n_chunks && !rc; i++)
        rc = commit_chunk(db, txn, d, &d->chunks[i]);
    for (size_t i = 0; i < d->n_marks && !rc; i++)
        rc = commit_mark(db, txn, &d->marks[i]);
    for (size_t i = 0; i < d->n_segs && !rc; i++)
        rc = commit_segment(db, txn, &d->segs[i]);
    uint8_t pos[16], gen[8];
    le_put64(pos, d->pos.seg);
    le_put64(pos + 8, d->pos.pos);
    le_put64(gen, d->next_gen);
    if (!rc)
        rc = meta_put(db, txn, "position", pos, sizeof(pos));
    return rc ? rc : meta_put(db, txn, "generation", gen, sizeof(gen));
}

static int db_grow(struct index_db *db)
{
    if (db->broken)
        return -EIO;
    rwlock_write(&db->resize);
    size_t want = db->map_size * 2;
    int rc = mdb_env_set_mapsize(db->env, want);
    if (!rc)
        db->map_size = want;
    rwlock_release(&db->resize);
    return db_error(rc);
}

static int commit_once(struct index_db *db, const struct delta *d)
{
    struct map_guard g;
    MDB_txn *txn;
    int rc = map_enter(db, &g);
    if (rc)
        return rc;
    if (sigsetjmp(g.env, 0))
        return map_lost(db);
    rc = db_error(mdb_txn_begin(db->env, NULL, 0, &txn));
    if (!rc) {
        rc = commit_all(db, txn, d);
        if (!rc)
            rc = db_error(mdb_txn_commit(txn));
        else
            mdb_txn_abort(txn);
    }
    return map_leave(db, &g, rc);
}

int index_db_commit(struct index_db *db, const struct delta *d)
{
    int rc;
    while ((rc = commit_once(db, d)) == -EFBIG)
        if ((rc = db_grow(db)))
            break;
    return rc;
}

/* ---- reading ---- */

/* Calls fn in a read transaction. */
static int reading(struct index_db *db, int (*fn)(struct index_db *db, MDB_txn *txn, void *arg),
                   void *arg)
{
    struct map_guard g;
    MDB_txn *txn;
    int rc = map_enter(db, &g);
    if (rc)
        return rc;
    if (sigsetjmp(g.env, 0))
        return map_lost(db);
    rc = db_error(mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn));
    if (!rc) {
        rc = fn(db, txn, arg);
        mdb_txn_abort(txn);
    }
    return map_leave(db, &g, rc);
}

struct position {
    uint8_t pos[16], gen[8];
};

static int get_position(struct index_db *db, MDB_txn *txn, void *arg)
{
    struct position *p = arg;
    int rc = meta_get(db, txn, "position", p->pos, sizeof(p->pos));
    return rc ? rc : meta_get(db, txn, "generation", p->gen, sizeof(p->gen));
}

int index_db_position(struct index_db *db, struct log_pos *pos, uint64_t *next_gen)
{
    struct position p;
    int rc = reading(db, get_position, &p);
    if (rc)
        return rc;
    *pos = (struct log_pos){le_get64(p.pos), le_get64(p.pos + 8)};
    *next_gen = le_get64(p.gen);
    return 0;
}

static int count_chunks(struct index_db *db, MDB_txn *txn, void *arg)
{
    return db_error(mdb_stat(txn, db->chunks, arg));
}

uint64_t index_db_chunks(struct index_db *db)
{
    MDB_stat st = {0};
    return !db || reading(db, count_chunks, &st) ? 0 : st.ms_entries;
}

uint64_t index_db_alloc(struct index_db *db)
{
    struct stat st;
    return !db || stat(db->data, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static int read_extents(struct index_db *db, MDB_txn *txn, uint64_t chunk, uint32_t from,
                        uint32_t to, struct extents *x)
{
    MDB_cursor *cur;
    uint8_t key[12] = {0}; /* gcc warns without optimization */
    MDB_val k = val(key, sizeof(key)), v;
    struct ext e;
    key_ext(key, chunk, from);
    int rc = db_error(mdb_cursor_open(txn, db->extents, &cur));
    if (rc)
        return rc;
    rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
    /* The extent before may reach into the range. */
    if (from > 0 && (rc || k.mv_size != 12 || memcmp(k.mv_data, key, sizeof(key)))) {
        rc = mdb_cursor_get(cur, &k, &v, rc ? MDB_LAST : MDB_PREV);
        if (!rc && (key_id(&k) != chunk || ext_decode(&k, &v, &e) || e.off + e.len <= from))
            rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
    }
    while (!rc && key_id(&k) == chunk) {
        if (ext_decode(&k, &v, &e)) {
            rc = MDB_CORRUPTED;
            break;
        }
        if (e.off >= to)
            break;
        if (x->n && x->v[x->n - 1].off + x->v[x->n - 1].len > e.off) {
            rc = MDB_CORRUPTED;
            break;
        }
        extents_push(x, &e);
        rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : db_error(rc);
}

struct lookup {
    uint64_t chunk;
    uint32_t from, to;
    struct chunk_row *row;
    struct extents *x;
};

static int look_up(struct index_db *db, MDB_txn *txn, void *arg)
{
    const struct lookup *l = arg;
    uint8_t key[8];
    be_put64(key, l->chunk);
    MDB_val k = val(key, sizeof(key)), v;
    int rc = db_error(mdb_get(txn, db->chunks, &k, &v));
    if (rc == -ENOENT)
        return -ERR_NO_CHUNK;
    if (!rc)
        rc = row_decode(&v, l->row);
    if (!rc && l->x)
        rc = read_extents(db, txn, l->chunk, l->from, l->to, l->x);
    return rc;
}

int index_db_lookup(struct index_db *db, uint64_t chunk, uint32_t from, uint32_t to,
                    struct chunk_row *row, struct extents *x)
{
    struct lookup l = {chunk, from, to, row, x};
    return db ? reading(db, look_up, &l) : -ERR_NO_CHUNK;
}

struct slice {
    uint64_t after, *chunks;
    struct chunk_row *rows;
    size_t max, n;
};

static int get_slice(struct index_db *db, MDB_txn *txn, void *arg)
{
    struct slice *s = arg;
    MDB_cursor *cur;
    uint8_t key[8];
    int rc = mdb_cursor_open(txn, db->chunks, &cur);
    if (rc)
        return db_error(rc);
    be_put64(key, s->after + 1);
    MDB_val k = val(key, sizeof(key)), v;
    rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
    while (!rc && s->n < s->max) {
        if (k.mv_size != 8 || row_decode(&v, &s->rows[s->n])) {
            rc = MDB_CORRUPTED;
            break;
        }
        s->chunks[s->n] = be_get64(k.mv_data);
        if (++s->n < s->max)
            rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : db_error(rc);
}

long index_db_slice(struct index_db *db, uint64_t after, uint64_t *chunks, struct chunk_row *rows,
                    size_t max)
{
    struct slice s = {.after = after, .chunks = chunks, .rows = rows, .max = max};
    if (!db || after == UINT64_MAX)
        return 0;
    int rc = reading(db, get_slice, &s);
    return rc ? rc : (long)s.n;
}

struct rows {
    MDB_dbi dbi;
    const uint8_t *key;
    size_t klen;
    int (*fn)(void *arg, const MDB_val *k, const MDB_val *v);
    void *arg;
};

static int walk_rows(struct index_db *db, MDB_txn *txn, void *arg)
{
    const struct rows *r = arg;
    MDB_cursor *cur;
    (void)db;
    int rc = db_error(mdb_cursor_open(txn, r->dbi, &cur));
    if (rc)
        return rc;
    MDB_val k = val(r->key, r->klen), v;
    int m = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
    for (; !m && !rc; m = mdb_cursor_get(cur, &k, &v, MDB_NEXT))
        rc = r->fn(r->arg, &k, &v);
    if (!rc && m != MDB_NOTFOUND)
        rc = db_error(m);
    mdb_cursor_close(cur);
    return rc;
}

/* Calls fn(row) for every row whose key is >= key, until it returns non-zero. */
static int each_row(struct index_db *db, MDB_dbi dbi, const uint8_t *key, size_t klen,
                    int (*fn)(void *arg, const MDB_val *k, const MDB_val *v), void *arg)
{
    struct rows r = {dbi, key, klen, fn, arg};
    return reading(db, walk_rows, &r);
}

struct each_arg {
    int (*seg_fn)(void *arg, const struct segment_row *row);
    int (*mark_fn)(void *arg, const struct mark *m);
    uint64_t seg;
    void *arg;
};

static int each_segment(void *arg, const MDB_val *k, const MDB_val *v)
{
    struct each_arg *a = arg;
    const uint8_t *p = v->mv_data;
    if (k->mv_size != 8 || v->mv_size != SEG_ROW)
        return -ERR_CORRUPT;
    struct segment_row row = {
        .id = be_get64(k->mv_data), .size = le_get64(p), .live = le_get64(p + 8)};
    return a->seg_fn(a->arg, &row);
}

int index_db_segments(struct index_db *db, int (*fn)(void *arg, const struct segment_row *row),
                      void *arg)
{
    struct each_arg a = {.seg_fn = fn, .arg = arg};
    uint8_t key[8] = {0};
    return each_row(db, db->segments, key, sizeof(key), each_segment, &a);
}

#define EACH_STOP 1

static int each_mark(void *arg, const MDB_val *k, const MDB_val *v)
{
    struct each_arg *a = arg;
    const uint8_t *p = v->mv_data;
    if (k->mv_size != 12 || v->mv_size != MARK_ROW)
        return -ERR_CORRUPT;
    struct mark m = {.seg = be_get64(k->mv_data),
                     .pos = be_get32((const uint8_t *)k->mv_data + 8),
                     .type = (uint8_t)le_get64(p),
                     .chunk = le_get64(p + 8),
                     .gen = le_get64(p + 16),
                     .lo = le_get64(p + 24),
                     .hi = le_get64(p + 32)};
    if (a->seg && m.seg != a->seg)
        return EACH_STOP;
    return a->mark_fn(a->arg, &m);
}

int index_db_marks(struct index_db *db, uint64_t seg, int (*fn)(void *arg, const struct mark *m),
                   void *arg)
{
    struct each_arg a = {.mark_fn = fn, .seg = seg, .arg = arg};
    uint8_t key[12];
    key_ext(key, seg, 0);
    int rc = each_row(db, db->marks, key, sizeof(key), each_mark, &a);
    return rc == EACH_STOP ? 0 : rc;
}
