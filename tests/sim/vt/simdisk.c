/* See simdisk.h. A store has one thread that does what it is told in order. A chunk is a list of records, each with
 * the client's own CRCs, of which the first `synced` are on stable storage. */
#include "simdisk.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "chunkd/store/store.h"
#include "fiber.h"

#define DISKS 32u

struct record {
    uint32_t off, len;
    uint8_t *data, *crcs;
};
struct chunk {
    uint64_t id, session;
    uint32_t len;
    struct record *v;
    size_t n, synced;
    bool gone;
};
struct disk {
    char dir[200];
    struct chunk **v;
    size_t n;
};
enum what { DO_APPEND, DO_SYNC, DO_DELETE, DO_COPY_APPEND, DO_COPY_FINISH };
struct job {
    struct job *next;
    enum what what;
    struct store_append a;
    uint64_t *chunks, token;
    size_t n;
    uint32_t seen;
    store_done *done;
    void *arg;
};
struct copy {
    uint64_t token;
    struct chunk *chunk;
    struct copy *next;
};
struct store {
    struct store_config cfg;
    struct disk *disk;
    pthread_t thread;
    struct vt_queue work;
    struct job *head, **tail;
    bool closing;
    struct copy *copies;
    uint64_t tokens;
};

static struct {
    struct simdisk_config cfg;
    struct disk disk[DISKS];
    unsigned n;
    uint64_t appends;
} all;

void simdisk_init(const struct simdisk_config *cfg)
{
    all.cfg = *cfg;
}

uint64_t simdisk_appends(void)
{
    return all.appends;
}

/* ---- chunks ---- */

static struct disk *disk_of(const char *dir)
{
    for (unsigned i = 0; i < all.n; i++)
        if (!strcmp(all.disk[i].dir, dir))
            return &all.disk[i];
    if (all.n == DISKS)
        abort();
    struct disk *d = &all.disk[all.n++];
    snprintf(d->dir, sizeof(d->dir), "%s", dir);
    return d;
}

static struct chunk *find(const struct disk *d, uint64_t id)
{
    for (size_t i = d->n; i--;)
        if (d->v[i]->id == id && !d->v[i]->gone)
            return d->v[i];
    return NULL;
}

static struct chunk *chunk_new(uint64_t id, uint64_t session)
{
    struct chunk *c = calloc(1, sizeof(*c));
    if (!c)
        abort();
    c->id = id;
    c->session = session;
    return c;
}

static void disk_put(struct disk *d, struct chunk *c)
{
    d->v = realloc(d->v, (d->n + 1) * sizeof(struct chunk *));
    if (!d->v)
        abort();
    d->v[d->n++] = c;
}

static void record_free(struct record *r)
{
    free(r->data);
    free(r->crcs);
}

void simdisk_power_cut(const char *dir)
{
    struct disk *d = disk_of(dir);
    for (size_t i = 0; i < d->n; i++) {
        struct chunk *c = d->v[i];
        size_t keep = c->synced + (c->n > c->synced ? vt_below(c->n - c->synced + 1) : 0);
        while (c->n > keep)
            record_free(&c->v[--c->n]);
        c->len = c->n ? c->v[c->n - 1].off + c->v[c->n - 1].len : 0;
        c->gone |= !c->n;
    }
}

/* Bytes [off, off + len) are here, and are these. */
static bool same(const struct chunk *c, uint32_t off, const uint8_t *data, uint32_t len)
{
    for (size_t i = 0; i < c->n && len; i++) {
        const struct record *r = &c->v[i];
        if (r->off + r->len <= off)
            continue;
        uint32_t skip = off - r->off, part = r->len - skip < len ? r->len - skip : len;
        if (memcmp(r->data + skip, data, part))
            return false;
        off += part;
        data += part;
        len -= part;
    }
    return !len;
}

static int append_to(struct chunk *c, const struct store_append *a)
{
    uint32_t len = (uint32_t)a->data->len;
    if (c->session != a->session)
        return -ERR_SESSION;
    if (a->chunk_off < c->len)
        return a->chunk_off + len <= c->len && same(c, a->chunk_off, a->data->data, len)
                   ? 0
                   : -ERR_OFFSET;
    if (a->chunk_off != c->len)
        return -ERR_OFFSET;
    struct record r = {a->chunk_off, len, malloc(len), malloc(4 * crc_blocks(len))};
    c->v = realloc(c->v, (c->n + 1) * sizeof(*c->v));
    if (!c->v || !r.data || !r.crcs)
        abort();
    memcpy(r.data, a->data->data, len);
    memcpy(r.crcs, a->crcs, 4 * crc_blocks(len));
    c->v[c->n++] = r;
    c->len += len;
    return 0;
}

/* ---- the store's thread ---- */

static void changed(struct store *s, const struct chunk *c, uint32_t len)
{
    if (s->cfg.changed)
        s->cfg.changed(s->cfg.arg, c->id, len, c->session);
}

static int do_append(struct store *s, const struct store_append *a)
{
    struct chunk *c = find(s->disk, a->chunk);
    all.appends++;
    if (!c) {
        if (a->chunk_off)
            return -ERR_OFFSET;
        c = chunk_new(a->chunk, a->session);
        disk_put(s->disk, c);
    }
    uint32_t before = c->len;
    int rc = append_to(c, a);
    if (!rc && c->len != before)
        changed(s, c, c->len);
    return rc;
}

static void sync_all(struct store *s)
{
    vt_sleep_until(vt_now() + vt_between(0, all.cfg.sync_max));
    for (size_t i = 0; i < s->disk->n; i++)
        s->disk->v[i]->synced = s->disk->v[i]->n;
}

static struct copy **copy_of(struct store *s, uint64_t token)
{
    struct copy **p = &s->copies;
    while (*p && (*p)->token != token)
        p = &(*p)->next;
    return p;
}

static int copy_finish(struct store *s, const struct job *j)
{
    struct copy **p = copy_of(s, j->token);
    if (!*p)
        return -EINVAL;
    struct chunk *new = (*p)->chunk, *old = find(s->disk, new->id);
    if (old && old->len > new->len && old->len > j->seen)
        return -EAGAIN;
    vt_sleep_until(vt_now() + vt_between(0, all.cfg.sync_max));
    p = copy_of(s, j->token);
    struct copy *k = *p;
    if (old)
        old->gone = true;
    new->synced = new->n;
    disk_put(s->disk, new);
    *p = k->next;
    free(k);
    changed(s, new, new->len);
    return 0;
}

static int run_job(struct store *s, struct job *j)
{
    int rc = 0;
    vt_sleep_until(vt_now() + vt_between(0, all.cfg.write_max));
    switch (j->what) {
    case DO_APPEND:
        rc = do_append(s, &j->a);
        if (!rc && j->a.sync)
            sync_all(s);
        break;
    case DO_SYNC:
        sync_all(s);
        break;
    case DO_DELETE:
        for (size_t i = 0; i < j->n; i++) {
            struct chunk *c = find(s->disk, j->chunks[i]);
            if (!c)
                continue;
            c->gone = true;
            changed(s, c, 0);
        }
        break;
    case DO_COPY_APPEND:
        rc = *copy_of(s, j->token) ? append_to((*copy_of(s, j->token))->chunk, &j->a) : -EINVAL;
        break;
    case DO_COPY_FINISH:
        rc = copy_finish(s, j);
        break;
    }
    return rc;
}

static void *store_main(void *arg)
{
    struct store *s = arg;
    for (;;) {
        while (!s->head && !s->closing)
            vt_wait(&s->work, INT64_MAX, "work for the disk");
        struct job *j = s->head;
        if (!j)
            return NULL;
        int rc = run_job(s, j);
        s->head = j->next;
        if (!s->head)
            s->tail = &s->head;
        j->done(j->arg, rc);
        buf_unref(j->a.data);
        free((void *)(uintptr_t)j->a.crcs);
        free(j->chunks);
        free(j);
    }
}

static void submit(struct store *s, struct job j)
{
    struct job *n = malloc(sizeof(*n));
    if (!n)
        abort();
    *n = j;
    n->next = NULL;
    *s->tail = n;
    s->tail = &n->next;
    vt_wake_all(&s->work);
}

/* ---- store.h ---- */

int store_open(const struct store_config *cfg, struct store **out)
{
    struct store *s = calloc(1, sizeof(*s));
    if (!s)
        abort();
    s->cfg = *cfg;
    s->disk = disk_of(cfg->dir);
    s->tail = &s->head;
    s->thread = (pthread_t)vt_spawn(vt_proc(), "store", store_main, s);
    *out = s;
    return 0;
}

void store_close(struct store *s)
{
    s->closing = true;
    vt_wake_all(&s->work);
    vt_join((struct fiber *)s->thread);
}

static struct job append_job(enum what what, const struct store_append *a, uint64_t token,
                             store_done *done, void *arg)
{
    struct job j = {.what = what, .a = *a, .token = token, .done = done, .arg = arg};
    uint8_t *crcs = malloc(4 * crc_blocks((uint32_t)a->data->len));
    if (!crcs)
        abort();
    memcpy(crcs, a->crcs, 4 * crc_blocks((uint32_t)a->data->len));
    j.a.crcs = crcs;
    buf_ref(a->data);
    return j;
}

void store_append(struct store *s, const struct store_append *a, store_done *done, void *arg)
{
    if (crc_blocks_check(a->data->data, a->data->len, a->crcs) >= 0)
        done(arg, -ERR_CRC);
    else
        submit(s, append_job(DO_APPEND, a, 0, done, arg));
}

void store_sync(struct store *s, store_done *done, void *arg)
{
    submit(s, (struct job){.what = DO_SYNC, .done = done, .arg = arg});
}

void store_delete(struct store *s, const uint64_t *chunks, size_t n, store_done *done, void *arg)
{
    struct job j = {.what = DO_DELETE, .n = n, .done = done, .arg = arg};
    j.chunks = malloc((n + 1) * sizeof(*j.chunks));
    if (!j.chunks)
        abort();
    memcpy(j.chunks, chunks, n * sizeof(*chunks));
    submit(s, j);
}

int store_copy_begin(struct store *s, uint64_t chunk, uint64_t session, uint64_t *token)
{
    struct copy *k = calloc(1, sizeof(*k));
    if (!k)
        abort();
    *token = k->token = ++s->tokens;
    k->chunk = chunk_new(chunk, session);
    k->next = s->copies;
    s->copies = k;
    return 0;
}

void store_copy_append(struct store *s, uint64_t token, const struct store_append *a,
                       store_done *done, void *arg)
{
    submit(s, append_job(DO_COPY_APPEND, a, token, done, arg));
}

void store_copy_finish(struct store *s, uint64_t token, uint32_t seen, store_done *done, void *arg)
{
    submit(s, (struct job){
                  .what = DO_COPY_FINISH, .token = token, .seen = seen, .done = done, .arg = arg});
}

void store_copy_abort(struct store *s, uint64_t token)
{
    struct copy **p = copy_of(s, token), *k = *p;
    if (k) {
        *p = k->next;
        free(k);
    }
}

/* How much of record r a read of [from, to) takes, in whole blocks. */
static uint32_t span_of(const struct record *r, uint32_t from, uint32_t to, uint32_t *skip)
{
    uint32_t end = to < r->off + r->len ? to - r->off : r->len;
    *skip = from > r->off ? (from - r->off) / CRC_BLOCK * CRC_BLOCK : 0;
    end = (end + CRC_BLOCK - 1) / CRC_BLOCK * CRC_BLOCK;
    return (end < r->len ? end : r->len) - *skip;
}

int store_read(struct store *s, uint64_t chunk, uint32_t off, uint32_t len, enum store_read_how how,
               struct store_read *out)
{
    const struct chunk *c = find(s->disk, chunk);
    (void)how;
    memset(out, 0, sizeof(*out));
    if (!c)
        return -ERR_NO_CHUNK;
    out->chunk_len = c->len;
    if (off + len > c->len)
        return -ERR_SHORT;
    size_t bytes = 0, crcs = 0, n = 0;
    uint32_t skip;
    for (size_t i = 0; i < c->n; i++)
        if (c->v[i].off < off + len && c->v[i].off + c->v[i].len > off) {
            uint32_t part = span_of(&c->v[i], off, off + len, &skip);
            bytes += part;
            crcs += 4 * crc_blocks(part);
            n++;
        }
    out->data = buf_new(bytes);
    out->spans = malloc(n * sizeof(*out->spans) + crcs);
    if (!out->spans)
        abort();
    uint8_t *at = (uint8_t *)(out->spans + n);
    for (size_t i = 0; i < c->n; i++) {
        const struct record *r = &c->v[i];
        if (r->off >= off + len || r->off + r->len <= off)
            continue;
        uint32_t part = span_of(r, off, off + len, &skip);
        out->spans[out->n++] = (struct store_span){r->off + skip, part, at};
        memcpy(at, r->crcs + skip / CRC_BLOCK * 4, 4 * crc_blocks(part));
        at += 4 * crc_blocks(part);
        memcpy(out->data->data + out->data->len, r->data + skip, part);
        out->data->len += part;
    }
    return 0;
}

int store_chunk_len(struct store *s, uint64_t chunk, uint32_t *len, uint64_t *session)
{
    const struct chunk *c = find(s->disk, chunk);
    if (!c)
        return -ERR_NO_CHUNK;
    if (len)
        *len = c->len;
    if (session)
        *session = c->session;
    return 0;
}

void store_walk(struct store *s,
                bool (*fn)(void *arg, uint64_t chunk, uint32_t len, uint64_t session), void *arg)
{
    for (size_t i = 0; i < s->disk->n; i++) {
        const struct chunk *c = s->disk->v[i];
        if (!c->gone && !fn(arg, c->id, c->len, c->session))
            return;
    }
}

/* Nobody says whose the bytes are. */
int store_parts(struct store *s, uint64_t chunk, uint32_t from, uint32_t to, struct store_part *out,
                size_t max, size_t *n)
{
    *n = 0;
    if (!find(s->disk, chunk))
        return -ERR_NO_CHUNK;
    if (max > 0 && to > from)
        out[(*n)++] = (struct store_part){.chunk_off = from, .len = to - from};
    return 0;
}

uint64_t store_traffic(const struct store *s)
{
    (void)s;
    return 0;
}

/* No history sets one. */
void store_set_limit(struct store *s, uint64_t bytes)
{
    (void)s;
    (void)bytes;
}

void store_stat(struct store *s, struct store_stat *out)
{
    *out = (struct store_stat){.capacity = 1ull << 40,
                               .avail = 1ull << 39,
                               .fs = 1 + (uint64_t)(s->disk - all.disk),
                               .fs_capacity = 1ull << 40,
                               .fs_avail = 1ull << 39,
                               .readable = true};
    for (size_t i = 0; i < s->disk->n; i++)
        out->chunks += !s->disk->v[i]->gone;
}
