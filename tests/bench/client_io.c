/* The client library end to end against real daemons, without FUSE: creates a file, writes,
 * fsyncs, reads back and compares; random rewrites against a model in memory; many small files.
 * Prints MB/s and exits non-zero at the first difference.
 *
 *   bench_client_io METAD[,METAD] [mib=64] [goal=0] [random=2000] [small=200] [timeout=60000]
 *       [keep=0] [loop=1] */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "../../fuse/client/client.h"

#define ROOT 1ull
#define MIB (1u << 20)

struct opts {
    unsigned long mib, goal, random, small, timeout, keep, loop;
};
static struct client *cl;

static void must(int rc, const char *what)
{
    if (!rc)
        return;
    fprintf(stderr, "client_io: %s: %s\n", what, err_str(rc));
    exit(1);
}

static void fail(const char *what)
{
    fprintf(stderr, "client_io: %s\n", what);
    exit(1);
}

static uint64_t rnd_state = 88172645463325252ull;

static uint64_t rnd(void)
{
    rnd_state ^= rnd_state << 13;
    rnd_state ^= rnd_state >> 7;
    return rnd_state ^= rnd_state << 17;
}

static void fill(uint8_t *p, size_t n)
{
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t v = rnd();
        memcpy(p + i, &v, 8);
    }
    for (size_t i = n & ~7ul; i < n; i++)
        p[i] = (uint8_t)rnd();
}

static double seconds(int64_t since)
{
    return (double)(clock_mono() - since) / NSEC_PER_SEC;
}

static void create(const char *name, unsigned goal, Replfs__Attr *attr)
{
    Replfs__CreateOp op = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    op.parent = ROOT;
    op.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    op.mode = S_IFREG | 0644;
    meta.op_case = REPLFS__META_OP__OP_CREATE;
    meta.create = &op;
    replfs__attr__init(attr);
    must(client_mutate(cl, &meta, attr, NULL), "create");
    if (!goal)
        return;
    Replfs__SetGoalOp sg = REPLFS__SET_GOAL_OP__INIT;
    sg.n_ino = 1;
    sg.ino = &attr->ino;
    sg.goal = goal;
    meta.op_case = REPLFS__META_OP__OP_SET_GOAL;
    meta.set_goal = &sg;
    must(client_mutate(cl, &meta, NULL, NULL), "set goal");
    must(client_getattr(cl, attr->ino, attr), "getattr");
}

static void unlink_name(const char *name)
{
    Replfs__UnlinkOp op = REPLFS__UNLINK_OP__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    op.parent = ROOT;
    op.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    meta.op_case = REPLFS__META_OP__OP_UNLINK;
    meta.unlink = &op;
    must(client_mutate(cl, &meta, NULL, NULL), "unlink");
}

static void compare(struct cfile *f, const uint8_t *want, size_t size, size_t step,
                    const char *what)
{
    for (size_t at = 0; at < size; at += step) {
        struct buf *b = NULL;
        size_t n = size - at < step ? size - at : step;
        must(cfile_read(f, (off_t)at, n, &b), what);
        if (b->len != n || memcmp(b->data, want + at, n)) {
            fprintf(stderr, "client_io: %s: difference in [%zu, %zu), got %zu bytes\n", what, at,
                    at + n, b->len);
            exit(1);
        }
        buf_unref(b);
    }
    struct buf *b = NULL;
    must(cfile_read(f, (off_t)size, 4096, &b), "read at the end");
    if (b->len)
        fail("bytes behind the end");
    buf_unref(b);
}

static void sequential(const struct opts *o, const char *name)
{
    size_t size = o->mib * MIB + 12345;
    uint8_t *data = malloc(size);
    Replfs__Attr attr;
    struct cfile *f;
    fill(data, size);
    create(name, (unsigned)o->goal, &attr);
    must(cfile_open_new(cl, &attr, &f), "open new");
    int64_t t = clock_mono();
    for (size_t at = 0; at < size; at += 128 << 10) {
        off_t off = (off_t)at;
        size_t n = size - at < 128 << 10 ? size - at : 128 << 10;
        must(cfile_write(f, data + at, n, &off, 0), "write");
    }
    double written = seconds(t);
    must(cfile_fsync(f), "fsync");
    double synced = seconds(t);
    compare(f, data, size, MIB, "read back");
    cfile_close(f);
    must(cfile_open(cl, attr.ino, false, &attr, &f), "open again");
    if (attr.size != size)
        fail("wrong size after fsync");
    t = clock_mono();
    compare(f, data, size, 128 << 10, "read after opening");
    double readt = seconds(t);
    compare(f, data, size, 300001, "unaligned reads");
    cfile_close(f);
    double mb = (double)size / 1e6;
    printf("write %.0f MB: %.0f MB/s buffered, %.0f MB/s with fsync; read %.0f MB/s\n", mb,
           mb / written, mb / synced, mb / readt);
    if (!o->keep)
        unlink_name(name);
    free(data);
}

/* Random writes, truncates and syncs against a model. */
static void random_io(const struct opts *o, const char *name)
{
    size_t max = 3 * MIB, size = 0;
    uint8_t *model = calloc(1, max), *tmp = malloc(max);
    Replfs__Attr attr;
    struct cfile *f;
    create(name, (unsigned)o->goal, &attr);
    must(cfile_open_new(cl, &attr, &f), "open new");
    int64_t t = clock_mono();
    for (unsigned long i = 0; i < o->random; i++) {
        size_t off = rnd() % (max - 70000), n = 1 + rnd() % (rnd() % 8 ? 5000 : 70000);
        unsigned what = (unsigned)(rnd() % 100);
        if (what < 60) {
            off_t pos = (off_t)off;
            fill(tmp, n);
            must(cfile_write(f, tmp, n, &pos, 0), "random write");
            memcpy(model + off, tmp, n);
            size = off + n > size ? off + n : size;
        } else if (what < 90) {
            struct buf *b = NULL;
            size_t want = off >= size ? 0 : n < size - off ? n : size - off;
            must(cfile_read(f, (off_t)off, n, &b), "random read");
            if (b->len != want || memcmp(b->data, model + off, want)) {
                fprintf(stderr, "client_io: step %lu: difference at %zu+%zu (got %zu)\n", i, off,
                        want, b->len);
                exit(1);
            }
            buf_unref(b);
        } else if (what < 93) {
            must(cfile_truncate(f, off, &attr), "truncate");
            if (off < size)
                memset(model + off, 0, size - off);
            size = off;
        } else if (what < 96) {
            must(cfile_flush(f), "flush");
        } else if (what < 98) {
            must(cfile_fsync(f), "fsync");
        } else {
            cfile_close(f);
            must(cfile_open(cl, attr.ino, true, &attr, &f), "reopen");
            if (attr.size != size)
                fail("wrong size after reopening");
        }
    }
    must(cfile_fsync(f), "last fsync");
    compare(f, model, size, 100000, "whole model");
    cfile_close(f);
    printf("random: %lu steps in %.2f s\n", o->random, seconds(t));
    if (!o->keep)
        unlink_name(name);
    free(model);
    free(tmp);
}

static void small_files(const struct opts *o, unsigned long run)
{
    int64_t t = clock_mono();
    char name[64], text[64];
    for (unsigned long i = 0; i < o->small; i++) {
        Replfs__Attr attr;
        struct cfile *f;
        off_t off = 0;
        snprintf(name, sizeof(name), "small-%d-%lu-%lu", (int)getpid(), run, i);
        int n = snprintf(text, sizeof(text), "contents of small file %lu\n", i);
        create(name, (unsigned)o->goal, &attr);
        must(cfile_open_new(cl, &attr, &f), "open new");
        must(cfile_write(f, text, (size_t)n, &off, 0), "write");
        must(cfile_flush(f), "flush");
        cfile_close(f);
    }
    double made = seconds(t);
    for (unsigned long i = 0; i < o->small; i++) {
        Replfs__Attr attr = REPLFS__ATTR__INIT;
        struct cfile *f;
        snprintf(name, sizeof(name), "small-%d-%lu-%lu", (int)getpid(), run, i);
        int n = snprintf(text, sizeof(text), "contents of small file %lu\n", i);
        must(client_lookup(cl, ROOT, name, &attr), "lookup");
        must(cfile_open(cl, attr.ino, false, &attr, &f), "open");
        compare(f, (uint8_t *)text, (size_t)n, 4096, "small file");
        cfile_close(f);
        if (!o->keep)
            unlink_name(name);
    }
    printf("small: %lu files written at %.0f/s, read and removed at %.0f/s\n", o->small,
           (double)o->small / made, (double)o->small / (seconds(t) - made));
}

static void error_codes(void)
{
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    struct cfile *f;
    if (client_lookup(cl, ROOT, "no such name", &attr) != -ENOENT)
        fail("lookup of a missing name is not ENOENT");
    int rc = cfile_open(cl, 0x7fffffffull, true, &attr, &f);
    if (rc != -ENOENT && rc != -ESTALE)
        fail("open of a missing inode is neither ENOENT nor ESTALE");
    if (client_getattr(cl, 0x7fffffffull, &attr) >= 0)
        fail("getattr of a missing inode succeeds");
}

static void parse(struct opts *o, int argc, char **argv)
{
    static const char *names[] = {
        "mib=", "goal=", "random=", "small=", "timeout=", "keep=", "loop="};
    unsigned long *vars[] = {&o->mib,     &o->goal, &o->random, &o->small,
                             &o->timeout, &o->keep, &o->loop};
    for (int i = 2; i < argc; i++) {
        size_t k = 0;
        while (k < 7 && strncmp(argv[i], names[k], strlen(names[k])))
            k++;
        if (k == 7) {
            fprintf(stderr, "client_io: unknown option %s\n", argv[i]);
            exit(2);
        }
        *vars[k] = strtoul(strchr(argv[i], '=') + 1, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    struct opts o = {64, 0, 2000, 200, 60000, 0, 1};
    if (argc < 2) {
        fprintf(stderr, "usage: bench_client_io METAD[,METAD] [mib=64] [goal=0] [random=2000] "
                        "[small=200] [timeout=60000] [keep=0] [loop=1]\n");
        return 2;
    }
    parse(&o, argc, argv);
    log_init("client_io", LOG_LVL_INFO, NULL);
    char *metads[8];
    size_t n = 0;
    for (char *p = strtok(argv[1], ","); p && n < 8; p = strtok(NULL, ","))
        metads[n++] = p;
    struct client_config cfg = {
        .metads = metads,
        .nmetads = n,
        .name = "client_io",
        .timeout_ms = (unsigned)o.timeout,
        .rpc = {.role = RPC_ROLE_CLIENT, .name = "client_io", .threads = 2, .insecure = false},
    };
    must(client_open(&cfg, &cl), "client_open");
    error_codes();
    for (unsigned long run = 0; run < o.loop; run++) {
        char name[64];
        snprintf(name, sizeof(name), "seq-%d-%lu", (int)getpid(), run);
        if (o.mib)
            sequential(&o, name);
        snprintf(name, sizeof(name), "random-%d-%lu", (int)getpid(), run);
        if (o.random)
            random_io(&o, name);
        if (o.small)
            small_files(&o, run);
    }
    struct client_stat st;
    client_stat(cl, &st);
    printf("sealed early %llu, read retries %llu, bad CRCs %llu, dirty %llu\n",
           (unsigned long long)st.sealed_early, (unsigned long long)st.read_retries,
           (unsigned long long)st.crc_errors, (unsigned long long)st.dirty_bytes);
    client_close(cl);
    return 0;
}
