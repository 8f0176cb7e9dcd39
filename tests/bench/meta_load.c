/* Load generator for metad on the client library, no FUSE: threads create files (empty, or with one
 * extent of a granted chunk each) or ask for attributes, over one session, and print JSON with the
 * rate. tests/bench/meta_scale drives it.
 *
 *   bench_meta_load META create|getattr FILES THREADS EXTENTS(0|1) [PREFIX]
 *
 * Each thread works in a directory of its own, 10,000 files a directory. The bytes of extents are
 * not sent to any chunkd: this measures metad. Exit 1 with a message when anything fails. */
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "fuse/client/client.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PER_DIR 10000u
#define GRANTS 256u

struct work {
    struct client *client;
    unsigned thread, files;
    bool extents, getattr;
    const char *prefix;
    pthread_t id;
};

static void die(const char *what, int code)
{
    fprintf(stderr, "bench_meta_load: %s: %s\n", what, err_str(code));
    exit(1);
}

static uint64_t make(struct client *c, uint64_t parent, const char *name, uint32_t mode)
{
    Replfs__CreateOp create = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;

    create.parent = parent;
    create.name.data = (uint8_t *)name;
    create.name.len = strlen(name);
    create.mode = mode;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &create;
    int rc = client_mutate(c, &op, &attr, NULL);
    if (rc < 0)
        die(name, rc);
    return attr.ino;
}

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

static void *create_files(void *arg)
{
    struct work *w = arg;
    struct rpc_result batch = {0};
    size_t used = 0;
    uint64_t dir = 0;
    char name[64];

    for (unsigned i = 0; i < w->files; i++) {
        if (i % PER_DIR == 0) {
            snprintf(name, sizeof name, "%s-t%u-d%u", w->prefix, w->thread, i / PER_DIR);
            dir = make(w->client, 1, name, S_IFDIR | 0755);
        }
        snprintf(name, sizeof name, "file-%07u", i);
        uint64_t ino = make(w->client, dir, name, S_IFREG | 0644);
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

    for (unsigned i = 0; i < w->files; i++) {
        int rc = client_getattr(w->client, 1, &attr);
        if (rc < 0)
            die("getattr", rc);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: %s META create|getattr FILES THREADS EXTENTS [PREFIX]\n", argv[0]);
        return 64;
    }
    unsigned files = (unsigned)strtoul(argv[3], NULL, 10);
    unsigned threads = (unsigned)strtoul(argv[4], NULL, 10);
    struct client_config cfg = {
        .metads = &argv[1],
        .nmetads = 1,
        .name = "bench_meta_load",
        .rpc = {.role = RPC_ROLE_CLIENT, .name = "bench_meta_load", .threads = 1, .insecure = true},
    };
    struct client *c;

    log_init("bench_meta_load", LOG_LVL_WARN, NULL);
    int rc = client_open(&cfg, &c);
    if (rc < 0)
        die(argv[1], rc);
    struct work *w = calloc(threads ? threads : 1, sizeof *w);
    if (!w || threads == 0)
        die("threads", -EINVAL);
    bool getattr = strcmp(argv[2], "getattr") == 0;
    int64_t start = clock_mono();
    for (unsigned t = 0; t < threads; t++) {
        w[t] = (struct work){.client = c,
                             .thread = t,
                             .files = files / threads,
                             .extents = argv[5][0] == '1',
                             .prefix = argc > 6 ? argv[6] : "load"};
        if (pthread_create(&w[t].id, NULL, getattr ? ask_attributes : create_files, &w[t]))
            die("pthread_create", -EAGAIN);
    }
    for (unsigned t = 0; t < threads; t++)
        pthread_join(w[t].id, NULL);
    double s = (double)(clock_mono() - start) / 1e9;
    printf("{\"verb\": \"%s\", \"operations\": %u, \"threads\": %u, \"extents\": %s, \"seconds\": "
           "%.3f, "
           "\"per_second\": %.0f}\n",
           argv[2], files / threads * threads, threads, argv[5], s, files / threads * threads / s);
    client_close(c);
    free(w);
    return 0;
}
