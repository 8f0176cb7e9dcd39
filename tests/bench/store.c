/* Measures one chunk store without network: appends of 1 MiB and 4 KiB, synced appends one at a
 * time and 64 at once, random 4 KiB reads, recovery from the log with and without the index.
 *
 *   bench_store [-d DIR] [-m MIB]
 *
 * DIR: where to make the store (default /tmp); MIB: data per phase (1024).
 *
 * Each phase prints one line: name, figure, unit. The first pass over the memory is warm-up and not
 * shown. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"
#include "chunkd/store/store.h"
#include "tests/unit/tree.h"

#define MIB (1u << 20)
#define DEPTH 64
#define CHUNK_MAX (64u * MIB)

struct bench {
    struct store *s;
    struct store_config cfg;
    struct buf *data;
    uint8_t crcs[4 * 256];
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned inflight;
};

static void fail(const char *what, int rc)
{
    fprintf(stderr, "bench_store: %s: %s\n", what, err_str(rc));
    exit(1);
}

static void done(void *arg, int code)
{
    struct bench *b = arg;
    if (code)
        fail("append", code);
    pthread_mutex_lock(&b->lock);
    b->inflight--;
    pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->lock);
}

static void wait_below(struct bench *b, unsigned n)
{
    pthread_mutex_lock(&b->lock);
    while (b->inflight >= n)
        pthread_cond_wait(&b->cond, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

/* count appends of size bytes to chunks from first on (at most chunk_max bytes each), depth under
 * way at once. Returns seconds. */
static double append(struct bench *b, uint64_t first, uint32_t size, uint64_t count,
                     uint32_t chunk_max, unsigned depth, bool sync)
{
    int64_t t0 = clock_mono();
    uint32_t off = 0;
    b->data->len = size;
    crc_blocks_make(b->data->data, size, b->crcs);
    for (uint64_t i = 0; i < count; i++) {
        wait_below(b, depth);
        struct store_append a = {.chunk = first,
                                 .session = 1,
                                 .chunk_off = off,
                                 .data = b->data,
                                 .crcs = b->crcs,
                                 .sync = sync};
        pthread_mutex_lock(&b->lock);
        b->inflight++;
        pthread_mutex_unlock(&b->lock);
        store_append(b->s, &a, done, b);
        off += size;
        if (off + size > chunk_max) {
            off = 0;
            first++;
        }
    }
    wait_below(b, 1);
    return (double)(clock_mono() - t0) / 1e9;
}

static void sync_all(struct bench *b)
{
    pthread_mutex_lock(&b->lock);
    b->inflight++;
    pthread_mutex_unlock(&b->lock);
    store_sync(b->s, done, b);
    wait_below(b, 1);
}

static double reads(struct bench *b, uint64_t first, uint64_t chunks, uint32_t chunk_len,
                    uint64_t n)
{
    int64_t t0 = clock_mono();
    for (uint64_t i = 0; i < n; i++) {
        struct store_read rd;
        uint64_t r = hash_u64(i + 12345);
        uint32_t off = (uint32_t)((r >> 20) % (chunk_len / 4096)) * 4096;
        int rc = store_read(b->s, first + r % chunks, off, 4096, STORE_PLAIN, &rd);
        if (rc)
            fail("read", rc);
        buf_unref(rd.data);
        free(rd.spans);
    }
    return (double)(clock_mono() - t0) / 1e9;
}

static void line(const char *name, double figure, const char *unit)
{
    printf("%-44s %12.1f %s\n", name, figure, unit);
    fflush(stdout);
}

static double reopen(struct bench *b, bool rebuild)
{
    b->cfg.rebuild_index = rebuild;
    int64_t t0 = clock_mono();
    int rc = store_open(&b->cfg, &b->s);
    if (rc)
        fail("open", rc);
    return (double)(clock_mono() - t0) / 1e9;
}

static void run(struct bench *b, uint64_t mib)
{
    append(b, 1, MIB, mib / 4, CHUNK_MAX, 16, false);
    sync_all(b);
    double s = append(b, 1000, MIB, mib, CHUNK_MAX, 16, false);
    line("append 1 MiB, 16 under way", (double)mib / s, "MiB/s");
    int64_t t0 = clock_mono();
    sync_all(b);
    line("  the same until on stable storage",
         (double)mib / (s + (double)(clock_mono() - t0) / 1e9), "MiB/s");
    s = append(b, 5000, 4096, mib * 64, CHUNK_MAX, 256, false);
    line("append 4 KiB, 256 under way, large chunks", (double)mib / 4 / s, "MiB/s");
    s = append(b, 10000, 4096, mib * 64, 4096, 256, false);
    line("append 4 KiB, 256 under way, a chunk each", (double)mib * 64 / s, "chunks/s");
    sync_all(b);
    s = append(b, 1000000, 4096, 2000, 4096, 1, false);
    line("append 4 KiB, one at a time", 2000 / s, "/s");
    s = append(b, 2000000, 4096, 500, 4096, 1, true);
    line("synced append 4 KiB, one at a time", 500 / s, "/s");
    s = append(b, 3000000, 4096, 20000, 4096, DEPTH, true);
    line("synced append 4 KiB, 64 under way", 20000 / s, "/s");
    uint64_t chunks = mib / 64 ? mib / 64 : 1;
    uint32_t len = mib < 64 ? (uint32_t)mib * MIB : CHUNK_MAX;
    s = reads(b, 1000, chunks, len, 200000);
    line("random 4 KiB reads of 1 MiB records, warm", 200000 / s, "/s");
    s = reads(b, 10000, mib * 64, 4096, 200000);
    line("random 4 KiB reads of 4 KiB records, warm", 200000 / s, "/s");
    struct store_stat st;
    store_stat(b->s, &st);
    double gib = (double)st.used / (1u << 30);
    t0 = clock_mono();
    store_close(b->s);
    line("close", (double)(clock_mono() - t0) / 1e6, "ms");
    line("open after a clean close", reopen(b, false) * 1000, "ms");
    store_close(b->s);
    line("rebuild of the index from the log", reopen(b, true) / gib, "s/GiB");
    printf("(%.2f GiB on disk, %llu chunks, %llu fdatasyncs)\n", gib, (unsigned long long)st.chunks,
           (unsigned long long)st.fsyncs);
}

int main(int argc, char **argv)
{
    const char *where = "/tmp";
    uint64_t mib = 1024;
    for (int c; (c = getopt(argc, argv, "d:m:")) != -1;) {
        if (c == 'd')
            where = optarg;
        else if (c == 'm')
            mib = strtoull(optarg, NULL, 10);
        else
            return 2;
    }
    char dir[4096];
    snprintf(dir, sizeof dir, "%.4000s/bench-store.XXXXXX", where);
    struct store_id id = {.cluster = "00000000-0000-0000-0000-000000000001", .chunkd = 1};
    if (mib == 0 || !mkdtemp(dir) || store_id_write(dir, &id))
        fail(dir, errno ? -errno : -EINVAL);
    log_init("bench", LOG_LVL_WARN, NULL);
    struct bench b = {
        .cfg = {.dir = dir}, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    b.data = buf_new(MIB);
    for (uint32_t i = 0; i < MIB; i++)
        b.data->data[i] = (uint8_t)hash_u64(i);
    reopen(&b, false);
    run(&b, mib);
    store_close(b.s);
    buf_unref(b.data);
    tree_remove(dir);
    return 0;
}
