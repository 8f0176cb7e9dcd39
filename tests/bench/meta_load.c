/* Load generator for metad on the client library, no FUSE: threads create files (empty, or with one
 * extent of a granted chunk each) or ask for attributes, over one session or several, and print
 * JSON with the rate. tests/bench/meta_scale and tests/bench/run drive it.
 *
 *   bench_meta_load META create|behind|getattr|stat FILES THREADS EXTENTS(0|1) [PREFIX [SESSIONS]]
 *
 * Each thread works in a directory of its own, 10,000 files a directory. create waits for the answer to
 * each, which is durable then; behind makes them as a mount does, under the lease of the directory, and
 * counts the time until all are durable. The bytes of extents are not sent to any chunkd: this measures
 * metad. getattr asks for the root's attributes again and again, each thread waiting for its answer; stat
 * for those, and the leases, of 10,000 files in turn, THREADS requests under way at a time without a
 * thread of their own, so that what the generator itself takes is small. Exit 1 with a message when
 * anything fails. */
#include "base/clock.h"
#include "base/log.h"
#include "fuse/client/internal.h"
#include "fuse/client/session/session.h"
#include "meta_ops.h"
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PER_DIR 10000u
#define GRANTS 256u
#define MAX_SESSIONS 64u

static pthread_barrier_t begun; /* each thread has its first directory */

struct work {
    struct client *client;
    unsigned thread, files;
    bool extents, behind;
    const char *prefix;
    uint32_t *took; /* ns of each create, at most 4 s */
    pthread_t id;
};

/* The next chunk of a batch of grants. */
static uint64_t next_chunk(struct client *c, struct rpc_result *batch, size_t *used)
{
    if (!batch->rep || *used == batch->rep->grant_reply->n_grants) {
        Replfs__GrantReq req = REPLFS__GRANT_REQ__INIT;
        RPC_ENVELOPE(env, GRANT_REQ, grant_req, &req);
        rpc_result_free(batch);
        memset(batch, 0, sizeof *batch);
        req.count = GRANTS;
        req.goal = 2;
        int rc = client_ask(c, &env, batch);
        if (rc < 0 || batch->rep->body_case != REPLFS__ENVELOPE__BODY_GRANT_REPLY)
            die("grant", rc ? rc : -ERR_PROTOCOL);
        *used = 0;
    }
    return batch->rep->grant_reply->grants[(*used)++]->chunk;
}

static void commit(struct client *c, uint64_t ino, uint64_t chunk)
{
    Replfs__Extent e = REPLFS__EXTENT__INIT, *list = &e;
    Replfs__CommitOp commit = REPLFS__COMMIT_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    e.chunk = chunk;
    e.len = 4096;
    commit.ino = ino;
    commit.n_extents = 1;
    commit.extents = &list;
    op.op_case = REPLFS__META_OP__OP_COMMIT;
    op.commit = &commit;
    int rc = client_mutate(c, &op, NULL, NULL);
    if (rc < 0)
        die("commit", rc);
}

/* As bench_make, but before metad knows, if that is possible. */
static uint64_t make_behind(struct client *c, uint64_t dir, const char *name)
{
    Replfs__CreateOp create = REPLFS__CREATE_OP__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    create.parent = dir;
    create.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)name};
    create.mode = S_IFREG | 0644;
    return client_create_deferred(c, &create, &attr) ? attr.ino
                                                     : bench_make(c, dir, name, S_IFREG | 0644);
}

static uint64_t make_dir(const struct work *w, unsigned k)
{
    char name[64];
    snprintf(name, sizeof name, "%s-t%u-d%u", w->prefix, w->thread, k);
    return bench_make(w->client, 1, name, S_IFDIR | 0755);
}

static void *create_files(void *arg)
{
    struct work *w = arg;
    struct rpc_result batch = {0};
    size_t used = 0;
    uint64_t dir = make_dir(w, 0);
    char name[64];

    pthread_barrier_wait(&begun);
    for (unsigned i = 0; i < w->files; i++) {
        if (i && i % PER_DIR == 0)
            dir = make_dir(w, i / PER_DIR);
        snprintf(name, sizeof name, "file-%07u", i);
        int64_t begin = clock_mono();
        uint64_t ino = w->behind ? make_behind(w->client, dir, name)
                                 : bench_make(w->client, dir, name, S_IFREG | 0644);
        int64_t took = clock_mono() - begin;
        w->took[i] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
        if (w->extents)
            commit(w->client, ino, next_chunk(w->client, &batch, &used));
    }
    rpc_result_free(&batch);
    return NULL;
}

static void *ask_attributes(void *arg)
{
    struct work *w = arg;
    Replfs__Attr attr = REPLFS__ATTR__INIT;

    pthread_barrier_wait(&begun);
    for (unsigned i = 0; i < w->files; i++) {
        int rc = client_getattr_now(w->client, 1, &attr);
        if (rc < 0)
            die("getattr", rc);
    }
    return NULL;
}

/* ---- stat ---- */

static uint64_t stat_inos[PER_DIR];

/* Requests that follow each other: the answer to one sends the next. */
struct line {
    struct client *client;
    unsigned left, at;
    sem_t *done;
};

static void stat_next(struct line *l);

static void stat_answered(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct line *l = arg;
    (void)payload;
    if (!code && (rep->body_case != REPLFS__ENVELOPE__BODY_GETATTR_REPLY ||
                  !rep->getattr_reply->attr || rep->getattr_reply->attr->ino != stat_inos[l->at]))
        code = -ERR_PROTOCOL;
    if (code)
        die("stat", code);
    l->at = (l->at + 1) % PER_DIR;
    stat_next(l);
}

static void stat_next(struct line *l)
{
    if (!l->left--) {
        sem_post(l->done);
        return;
    }
    Replfs__GetattrReq m = REPLFS__GETATTR_REQ__INIT;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &m);
    struct rpc_conn *conn = session_conn_now(l->client, &m.session);
    if (!conn)
        die("stat", -ERR_PEER_GONE);
    m.ino = stat_inos[l->at];
    m.lease = true;
    rpc_call(conn, &env, NULL, 10000, stat_answered, l);
    rpc_conn_unref(conn);
}

/* By a client that is gone, and its leases with it, before anybody asks. */
static void stat_make_files(char *meta, const char *prefix)
{
    struct client *c = bench_session(meta);
    struct work w = {.client = c, .prefix = prefix};
    char name[32];
    uint64_t dir = make_dir(&w, 0);
    for (unsigned i = 0; i < PER_DIR; i++) {
        snprintf(name, sizeof name, "file-%07u", i);
        stat_inos[i] = make_behind(c, dir, name);
    }
    client_close(c);
}

/* Returns when the first request was sent; all are answered. */
static int64_t stat_files(char *meta, struct work *w, unsigned threads)
{
    sem_t done;
    struct line *lines = calloc(threads, sizeof *lines);
    if (!lines || sem_init(&done, 0, 0))
        die("stat", -ENOMEM);
    stat_make_files(meta, w->prefix);
    int64_t start = clock_mono();
    for (unsigned t = 0; t < threads; t++) {
        lines[t] = (struct line){w[t].client, w[t].files, (unsigned)(t * 7919ull % PER_DIR), &done};
        stat_next(&lines[t]);
    }
    for (unsigned t = 0; t < threads; t++)
        while (sem_wait(&done))
            ;
    free(lines);
    return start;
}

/* Returns when they were let go; all are done. */
static int64_t in_threads(struct work *w, unsigned threads, void *(*fn)(void *))
{
    pthread_barrier_init(&begun, NULL, threads + 1);
    for (unsigned t = 0; t < threads; t++)
        if (pthread_create(&w[t].id, NULL, fn, &w[t]))
            die("pthread_create", -EAGAIN);
    pthread_barrier_wait(&begun);
    int64_t start = clock_mono();
    for (unsigned t = 0; t < threads; t++)
        pthread_join(w[t].id, NULL);
    return start;
}

static int by_size(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* How long the caller waited for a create. */
static void print_latency(const struct work *w, unsigned threads)
{
    size_t n = 0;
    uint32_t *all = malloc((size_t)w->files * threads * sizeof *all);
    if (!all)
        die("latencies", -ENOMEM);
    for (unsigned t = 0; t < threads; t++) {
        memcpy(all + n, w[t].took, w[t].files * sizeof *all);
        n += w[t].files;
    }
    qsort(all, n, sizeof *all, by_size);
    if (n > 0)
        printf("\"p50_us\": %.1f, \"p99_us\": %.1f, ", all[n / 2] / 1e3, all[n * 99 / 100] / 1e3);
    free(all);
}

int main(int argc, char **argv)
{
    bool getattr = argc > 2 && !strcmp(argv[2], "getattr");
    bool behind = argc > 2 && !strcmp(argv[2], "behind");
    bool stat = argc > 2 && !strcmp(argv[2], "stat");
    if (argc < 6 || (!getattr && !behind && !stat && strcmp(argv[2], "create"))) {
        fprintf(
            stderr,
            "usage: %s META create|behind|getattr|stat FILES THREADS EXTENTS [PREFIX [SESSIONS]]\n",
            argv[0]);
        return 64;
    }
    unsigned files = (unsigned)strtoul(argv[3], NULL, 10);
    unsigned threads = (unsigned)strtoul(argv[4], NULL, 10);
    unsigned sessions = argc > 7 ? (unsigned)strtoul(argv[7], NULL, 10) : 1;
    struct client *c[MAX_SESSIONS];

    log_init("bench_meta_load", LOG_LVL_WARN, NULL);
    if (sessions == 0 || sessions > MAX_SESSIONS)
        die("sessions", -EINVAL);
    for (unsigned i = 0; i < sessions; i++)
        c[i] = bench_session(argv[1]);
    struct work *w = calloc(threads ? threads : 1, sizeof *w);
    if (!w || threads == 0)
        die("threads", -EINVAL);
    for (unsigned t = 0; t < threads; t++)
        w[t] = (struct work){.client = c[t % sessions],
                             .thread = t,
                             .files = files / threads,
                             .extents = argv[5][0] == '1',
                             .behind = behind,
                             .prefix = argc > 6 ? argv[6] : "load",
                             .took = calloc(files / threads + 1, sizeof *w->took)};
    for (unsigned t = 0; t < threads; t++)
        if (!w[t].took)
            die("latencies", -ENOMEM);
    int64_t start = stat ? stat_files(argv[1], w, threads)
                         : in_threads(w, threads, getattr ? ask_attributes : create_files);
    for (unsigned i = 0; behind && i < sessions; i++)
        if (client_sync(c[i]) || client_lost(c[i]))
            die("sync", -EIO);
    double s = (double)(clock_mono() - start) / 1e9;
    printf("{\"verb\": \"%s\", ", argv[2]);
    if (!getattr && !stat)
        print_latency(w, threads);
    printf("\"operations\": %u, \"threads\": %u, \"sessions\": %u, "
           "\"extents\": %s, \"seconds\": %.3f, \"per_second\": %.0f}\n",
           files / threads * threads, threads, sessions, argv[5], s, files / threads * threads / s);
    for (unsigned i = 0; i < sessions; i++)
        client_close(c[i]);
    for (unsigned t = 0; t < threads; t++)
        free(w[t].took);
    free(w);
    return 0;
}
