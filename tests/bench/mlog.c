/* Durable operations a second through the metadata log at several depths: setattr commands on one
 * inode, each answered after its log entry is on disk. usage: bench_mlog [DIR [SECONDS]]; DIR must
 * not exist and is removed afterwards. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "metad/log/mlog.h"
#include "tests/unit/tree.h"

struct item {
    struct load *load;
    int64_t sent;
};
struct load {
    struct mlog *mlog;
    atomic_uint_fast64_t done, sum_ns, worst_ns;
    atomic_int failed;
};

static void applied(void *arg, int code, const struct fsm_result *res)
{
    struct item *it = arg;

    if (code != 0 || res->code != 0)
        atomic_store(&it->load->failed, code != 0 ? code : -res->code);
}

static void after(void *arg)
{
    struct item *it = arg;
    uint64_t ns = (uint64_t)(clock_mono() - it->sent);

    atomic_fetch_add(&it->load->sum_ns, ns);
    if (ns > atomic_load(&it->load->worst_ns))
        atomic_store(&it->load->worst_ns, ns);
    atomic_fetch_add(&it->load->done, 1);
    free(it);
}

/* wait: the caller sleeps until the answer, as a program that does one thing at a time. */
static void propose_one(struct load *l, bool wait)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__SetattrOp set = REPLFS__SETATTR_OP__INIT;
    struct item *it = malloc(sizeof(*it));

    if (it == NULL)
        abort();
    *it = (struct item){.load = l, .sent = clock_mono()};
    set.ino = FSM_ROOT_INO;
    set.valid = REPLFS__SETATTR_OP__VALID__MTIME;
    set.mtime_ns = it->sent;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &set;
    cmd.op = &op;
    if (wait) {
        struct fsm_result res = {0};
        int code = mlog_propose_wait(l->mlog, &cmd, &res);
        applied(it, code, &res);
        after(it);
    } else {
        mlog_propose(l->mlog, &cmd, applied, after, it);
    }
}

static int run(struct mlog *m, unsigned depth, double seconds)
{
    struct load l = {.mlog = m};
    int64_t start = clock_mono(), end = start + (int64_t)(seconds * 1e9);
    uint64_t sent = 0;

    while (clock_mono() < end) {
        while (sent - atomic_load(&l.done) < depth && clock_mono() < end) {
            propose_one(&l, depth == 1);
            sent++;
        }
        if (depth > 1)
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    while (atomic_load(&l.done) < sent)
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    double took = (double)(clock_mono() - start) / 1e9;
    printf("depth %5u: %10.0f durable ops/s, mean %7.1f us, worst %7.1f ms\n", depth,
           (double)sent / took, (double)l.sum_ns / (double)sent / 1e3, (double)l.worst_ns / 1e6);
    return atomic_load(&l.failed);
}

int main(int argc, char **argv)
{
    static const unsigned depths[] = {1, 8, 64, 256, 2048};
    const char *dir = argc > 1 ? argv[1] : "bench-mlog.tmp";
    double seconds = argc > 2 ? atof(argv[2]) : 3;
    struct fsm *fsm;
    struct mlog *mlog;
    char uuid[37];
    int rv = 0;

    log_init("bench_mlog", LOG_LVL_WARN, NULL);
    if (mlog_init_dir(dir, uuid) != 0 || fsm_new(&fsm) != 0)
        return 1;
    struct mlog_config cfg = {.dir = dir, .fsm = fsm};
    if (mlog_open(&cfg, 10000, &mlog) == 0) {
        rv = run(mlog, 64, 0.5); /* warm-up: first segments, first pages; not counted */
        for (size_t i = 0; rv == 0 && i < sizeof(depths) / sizeof(depths[0]); i++)
            rv = run(mlog, depths[i], seconds);
        mlog_close(mlog);
        if (rv != 0)
            fprintf(stderr, "a command failed: %d\n", rv);
    }
    fsm_free(fsm);
    tree_remove(dir);
    return rv != 0;
}
