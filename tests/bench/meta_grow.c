/* What an operation costs metad as its namespace grows: one metad is filled to the first size of the
 * list and stays there, another one grows to each size in turn; at every size both are measured in
 * alternating rounds, so that a machine that drifts slows both. tests/bench/run --scale drives it.
 *
 *   bench_meta_grow META-THAT-STAYS META-THAT-GROWS SIZE,SIZE,... [ROUNDS]
 *
 * Files are empty, 10,000 a directory. Each round creates files in random directories, asks for
 * random inodes' attributes, lists the first 1,000 entries of random directories with attributes, and
 * removes what it created, from 8 threads over one session. For each size and operation a line
 * "SIZE OPERATION US US": wall microseconds an operation, medians of the rounds, of the one that stays
 * and of the one that grows. Exit 1 with a message when anything fails. */
#include "base/clock.h"
#include "base/log.h"
#include "meta_ops.h"
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

#define PER_DIR 10000u
#define THREADS 8u
#define FILLERS 32u
#define MAX_ROUNDS 100u
#define OPS 500u  /* a thread and round */
#define PAGES 10u /* readdir requests likewise */

enum verb { CREATE, GETATTR, READDIR, UNLINK, VERBS };
static const char *const verb_names[] = {"create", "getattr", "readdir", "unlink"};
static const unsigned verb_ops[] = {OPS, OPS, PAGES, OPS};

struct space {
    struct client *client;
    uint64_t *dirs, *files;
    unsigned nfiles;
    double us[VERBS][MAX_ROUNDS];
};

struct work {
    struct space *space;
    unsigned thread, from, to;
    enum verb verb;
    uint64_t dir[OPS]; /* where this thread's file went */
    uint64_t seed;
    pthread_t id;
};

static unsigned pick(struct work *w, unsigned n)
{
    w->seed = w->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)((w->seed >> 33) % n);
}

static void together(struct work *w, unsigned n, void *(*run)(void *))
{
    for (unsigned t = 0; t < n; t++)
        if (pthread_create(&w[t].id, NULL, run, &w[t]))
            die("pthread_create", -EAGAIN);
    for (unsigned t = 0; t < n; t++)
        pthread_join(w[t].id, NULL);
}

/* ---- growing ---- */
static void *fill(void *arg)
{
    struct work *w = arg;
    char name[32];

    for (unsigned i = w->from + w->thread; i < w->to; i += FILLERS) {
        snprintf(name, sizeof name, "file-%07u", i);
        w->space->files[i] =
            bench_make(w->space->client, w->space->dirs[i / PER_DIR], name, S_IFREG | 0644);
    }
    return NULL;
}

static void grow(struct space *s, unsigned to)
{
    struct work w[FILLERS];
    char name[32];

    for (unsigned d = (s->nfiles + PER_DIR - 1) / PER_DIR; d < (to + PER_DIR - 1) / PER_DIR; d++) {
        snprintf(name, sizeof name, "dir-%05u", d);
        s->dirs[d] = bench_make(s->client, 1, name, S_IFDIR | 0755);
    }
    for (unsigned t = 0; t < FILLERS; t++)
        w[t] = (struct work){.space = s, .thread = t, .from = s->nfiles, .to = to};
    together(w, FILLERS, fill);
    s->nfiles = to;
}

/* ---- measuring ---- */
static void list_page(struct client *c, uint64_t dir)
{
    Replfs__ReaddirReq ask = REPLFS__READDIR_REQ__INIT;
    struct rpc_result res;

    ask.ino = dir;
    ask.max_entries = 1000;
    ask.plus = true;
    RPC_ENVELOPE(q, READDIR_REQ, readdir_req, &ask);
    int rc = client_ask(c, &q, &res);
    if (rc < 0 || res.rep->body_case != REPLFS__ENVELOPE__BODY_READDIR_REPLY ||
        !res.rep->readdir_reply->n_entries)
        die("readdir", rc < 0 ? rc : -ERR_PROTOCOL);
    rpc_result_free(&res);
}

static void remove_file(struct client *c, uint64_t dir, const char *name)
{
    Replfs__UnlinkOp unlink = REPLFS__UNLINK_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    unlink.parent = dir;
    unlink.name.data = (uint8_t *)name;
    unlink.name.len = strlen(name);
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &unlink;
    int rc = client_mutate(c, &op, NULL, NULL);
    if (rc < 0)
        die(name, rc);
}

static void *operate(void *arg)
{
    struct work *w = arg;
    struct space *s = w->space;
    unsigned ndirs = (s->nfiles + PER_DIR - 1) / PER_DIR;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    char name[32];

    for (unsigned i = 0; i < verb_ops[w->verb]; i++) {
        snprintf(name, sizeof name, "new-%u-%u", w->thread, i);
        switch (w->verb) {
        case CREATE:
            w->dir[i] = s->dirs[pick(w, ndirs)];
            bench_make(s->client, w->dir[i], name, S_IFREG | 0644);
            break;
        case GETATTR:
            if (client_getattr_now(s->client, s->files[pick(w, s->nfiles)], &attr) < 0)
                die("getattr", -ERR_PROTOCOL);
            break;
        case READDIR:
            list_page(s->client, s->dirs[pick(w, ndirs)]);
            break;
        case UNLINK:
            remove_file(s->client, w->dir[i], name);
            break;
        case VERBS: /* none */
            break;
        }
    }
    return NULL;
}

static void measure(struct space *s, unsigned round)
{
    static struct work w[THREADS];

    for (unsigned t = 0; t < THREADS; t++)
        w[t] = (struct work){.space = s, .thread = t, .seed = round * 1000 + t};
    for (unsigned v = 0; v < VERBS; v++) {
        for (unsigned t = 0; t < THREADS; t++)
            w[t].verb = (enum verb)v;
        int64_t start = clock_mono();
        together(w, THREADS, operate);
        s->us[v][round] = (double)(clock_mono() - start) / 1e3 / (verb_ops[v] * THREADS);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof *v, by_value);
    return v[n / 2];
}

static void open_space(struct space *s, char *meta, unsigned most)
{
    s->client = bench_session(meta);
    s->files = calloc(most, sizeof *s->files);
    s->dirs = calloc(most / PER_DIR + 1, sizeof *s->dirs);
    if (!s->files || !s->dirs)
        die("files", -ENOMEM);
}

static void close_space(struct space *s)
{
    client_close(s->client);
    free(s->files);
    free(s->dirs);
}

int main(int argc, char **argv)
{
    struct space stays = {0}, grows = {0};
    unsigned rounds = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 9;
    unsigned sizes[32], n = 0;

    log_init("bench_meta_grow", LOG_LVL_WARN, NULL);
    for (char *p = argc >= 4 ? argv[3] : NULL; p && *p && n < 32; n++) {
        sizes[n] = (unsigned)strtoul(p, &p, 10);
        if (sizes[n] == 0 || (n && sizes[n] <= sizes[n - 1]) || (*p && *p != ','))
            n = 32;
        p += *p == ',';
    }
    if (n == 0 || n > 32 || rounds == 0 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_meta_grow META META SIZE,SIZE,... [ROUNDS]   (rising)\n");
        return 64;
    }
    open_space(&stays, argv[1], sizes[0]);
    open_space(&grows, argv[2], sizes[n - 1]);
    grow(&stays, sizes[0]);
    for (unsigned i = 0; i < n; i++) {
        grow(&grows, sizes[i]);
        for (unsigned r = 0; r < rounds; r++) {
            measure(r % 2 ? &stays : &grows, r);
            measure(r % 2 ? &grows : &stays, r);
        }
        for (unsigned v = 0; v < VERBS; v++)
            printf("%u %s %.2f %.2f\n", sizes[i], verb_names[v], median(stays.us[v], rounds),
                   median(grows.us[v], rounds));
        fflush(stdout);
    }
    close_space(&stays);
    close_space(&grows);
    return 0;
}
