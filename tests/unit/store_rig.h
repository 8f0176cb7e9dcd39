/* Shared by the store's tests: a directory with an identity, blocking forms of the asynchronous
 * calls, and data that says by itself where it belongs. */
#ifndef TESTS_STORE_RIG_H
#define TESTS_STORE_RIG_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/hash.h"
#include "chunkd/store/store.h"
#include "tests/unit/tree.h"
#include "wait.h"

#define STORE_RIG_CLUSTER "0f8fad5b-d9cb-469f-a165-70867728950e"
#define KIB 1024u
#define MIB (1024u * 1024u)

struct store_rig {
    char dir[64];
    struct store_config cfg;
    struct store *s;
};

struct store_rig_waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned left;
    int code; /* the first that was not 0 */
};

static inline void store_rig_wait_init(struct store_rig_waiter *w, unsigned n)
{
    *w = (struct store_rig_waiter){PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, n, 0};
}

static inline void store_rig_done(void *arg, int code)
{
    struct store_rig_waiter *w = arg;
    pthread_mutex_lock(&w->lock);
    if (code && !w->code)
        w->code = code;
    if (--w->left == 0)
        pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

static inline int store_rig_wait(struct store_rig_waiter *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->left > 0)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
    return w->code;
}

/* ---- directories ---- */

static inline int store_rig_open(struct store_rig *r)
{
    return store_open(&r->cfg, &r->s);
}

static inline void store_rig_close(struct store_rig *r)
{
    store_close(r->s);
    r->s = NULL;
}

static inline void store_rig_reopen(struct store_rig *r)
{
    store_rig_close(r);
    assert_int_equal(store_rig_open(r), 0);
}

static inline int store_rig_setup(void **state)
{
    struct store_rig *r = calloc(1, sizeof *r);
    if (!tree_make(r->dir, sizeof r->dir, "/tmp", "store"))
        return -1;
    struct store_id id = {.cluster = STORE_RIG_CLUSTER, .chunkd = 3, .disk = 1};
    r->cfg = (struct store_config){.dir = r->dir, .cluster = STORE_RIG_CLUSTER, .chunkd = 3};
    r->cfg.segment_size = 4 * MIB;
    r->cfg.checkpoint_ms = 100;
    *state = r;
    return store_id_write(r->dir, &id) || store_rig_open(r) ? -1 : 0;
}

static inline int store_rig_teardown(void **state)
{
    struct store_rig *r = *state;
    store_rig_close(r);
    umount2(r->dir, MNT_DETACH); /* left over by a failed test of a full disk */
    tree_remove(r->dir);
    free(r);
    return 0;
}

/* Number and path of segments; path of the last one if not NULL. */
static inline int store_rig_segments(const struct store_rig *r, char *first, char *last,
                                     size_t size)
{
    DIR *d = opendir(r->dir);
    struct dirent *e;
    int n = 0;
    char lo[256] = "", hi[256] = "";
    while (d && (e = readdir(d))) {
        if (strncmp(e->d_name, "seg-", 4))
            continue;
        n++;
        if (!lo[0] || strcmp(e->d_name, lo) < 0)
            snprintf(lo, sizeof lo, "%s", e->d_name);
        if (strcmp(e->d_name, hi) > 0)
            snprintf(hi, sizeof hi, "%s", e->d_name);
    }
    if (d)
        closedir(d);
    if (first)
        snprintf(first, size, "%s/%.200s", r->dir, lo);
    if (last)
        snprintf(last, size, "%s/%.200s", r->dir, hi);
    return n;
}

static inline void store_rig_flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    uint8_t b;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &b, 1, at), 1);
    b ^= 0x10;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
    close(fd);
}

/* ---- data ---- */

/* The byte at one place of one chunk; salt makes different contents for the same place. */
static inline void store_rig_fill(uint8_t *p, uint64_t chunk, uint32_t off, uint32_t len,
                                  uint64_t salt)
{
    for (uint32_t i = 0; i < len; i++) {
        uint64_t w = hash_u64(chunk * 1000003 + (off + i) / 8 + salt * 7919);
        p[i] = (uint8_t)(w >> (8 * ((off + i) % 8)));
    }
}

static inline struct buf *store_rig_buf(uint64_t chunk, uint32_t off, uint32_t len, uint64_t salt,
                                        uint8_t *crcs)
{
    struct buf *b = buf_new(len);
    b->len = len;
    store_rig_fill(b->data, chunk, off, len, salt);
    crc_blocks_make(b->data, len, crcs);
    return b;
}

static inline void store_rig_append_async(struct store_rig *r, uint64_t token, uint64_t chunk,
                                          uint32_t off, uint32_t len, uint64_t salt, bool sync,
                                          struct store_rig_waiter *w)
{
    uint8_t crcs[4 * 256 + 4];
    struct buf *b = store_rig_buf(chunk, off, len, salt, crcs);
    struct store_append a = {.chunk = chunk,
                             .session = 77,
                             .ino = chunk + 5,
                             .file_off = off,
                             .chunk_off = off,
                             .data = b,
                             .crcs = crcs,
                             .sync = sync};
    if (token)
        store_copy_append(r->s, token, &a, store_rig_done, w);
    else
        store_append(r->s, &a, store_rig_done, w);
    buf_unref(b);
}

static inline int store_rig_append_salted(struct store_rig *r, uint64_t chunk, uint32_t off,
                                          uint32_t len, uint64_t salt, bool sync)
{
    struct store_rig_waiter w;
    store_rig_wait_init(&w, 1);
    store_rig_append_async(r, 0, chunk, off, len, salt, sync, &w);
    return store_rig_wait(&w);
}

static inline int store_rig_append(struct store_rig *r, uint64_t chunk, uint32_t off, uint32_t len)
{
    return store_rig_append_salted(r, chunk, off, len, 0, false);
}

static inline int store_rig_copy_append(struct store_rig *r, uint64_t token, uint64_t chunk,
                                        uint32_t off, uint32_t len, uint64_t salt)
{
    struct store_rig_waiter w;
    store_rig_wait_init(&w, 1);
    store_rig_append_async(r, token, chunk, off, len, salt, false, &w);
    return store_rig_wait(&w);
}

static inline int store_rig_finish_seen(struct store_rig *r, uint64_t token, uint32_t seen)
{
    struct store_rig_waiter w;
    store_rig_wait_init(&w, 1);
    store_copy_finish(r->s, token, seen, store_rig_done, &w);
    return store_rig_wait(&w);
}

/* Whatever the copy replaces. */
static inline int store_rig_finish(struct store_rig *r, uint64_t token)
{
    return store_rig_finish_seen(r, token, UINT32_MAX);
}

static inline int store_rig_sync(struct store_rig *r)
{
    struct store_rig_waiter w;
    store_rig_wait_init(&w, 1);
    store_sync(r->s, store_rig_done, &w);
    return store_rig_wait(&w);
}

static inline int store_rig_delete(struct store_rig *r, const uint64_t *chunks, size_t n)
{
    struct store_rig_waiter w;
    store_rig_wait_init(&w, 1);
    store_delete(r->s, chunks, n, store_rig_done, &w);
    return store_rig_wait(&w);
}

/* Reads, verifies checksums and contents. Returns store_read's code. */
static inline int store_rig_read_salted(struct store_rig *r, uint64_t chunk, uint32_t off,
                                        uint32_t len, uint64_t salt)
{
    struct store_read rd;
    int rc = store_read(r->s, chunk, off, len, true, &rd);
    if (rc)
        return rc;
    const uint8_t *p = rd.data->data;
    uint32_t at = 0;
    for (size_t i = 0; i < rd.n; i++) {
        uint8_t *want = malloc(rd.spans[i].len);
        assert_int_equal(crc_blocks_check(p, rd.spans[i].len, rd.spans[i].crcs), -1);
        store_rig_fill(want, chunk, rd.spans[i].chunk_off, rd.spans[i].len, salt);
        assert_memory_equal(p, want, rd.spans[i].len);
        free(want);
        p += rd.spans[i].len;
        assert_true(i == 0 ? rd.spans[i].chunk_off <= off : rd.spans[i].chunk_off == at);
        at = rd.spans[i].chunk_off + rd.spans[i].len;
    }
    assert_true(at >= off + len);
    assert_int_equal(rd.data->len, (size_t)(p - rd.data->data));
    buf_unref(rd.data);
    free(rd.spans);
    return 0;
}

static inline int store_rig_read(struct store_rig *r, uint64_t chunk, uint32_t off, uint32_t len)
{
    return store_rig_read_salted(r, chunk, off, len, 0);
}

static inline long store_rig_len(struct store_rig *r, uint64_t chunk)
{
    uint32_t len;
    int rc = store_chunk_len(r->s, chunk, &len, NULL);
    return rc ? rc : (long)len;
}

#endif
