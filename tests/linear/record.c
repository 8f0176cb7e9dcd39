/* linear_record: clients of a small directory on real mounts, and what they are told, as histories.
 *
 *     linear_record --out DIR [--histories N] [--clients N] [--ops N] [--seconds S] [--seed N]
 *                   [--limit S] MOUNT...
 *
 * For each history a new directory is made through the first mount; client i works in it through mount
 * i % mounts, so that the caches of several mounts take part, and several clients those of one. Each
 * client is a thread: it picks operations at random, does one system call for each (so that each can be
 * one moment; opening by name and asking for attributes are two), and notes CLOCK_MONOTONIC before and
 * behind it. The pauses between are such that the history takes about S seconds, in bursts. When all are
 * done each client looks at everything once more. DIR/history-NNNN gets what history.h describes.
 *
 * Failure modes. An error that leaves open whether the operation happened makes it unknown, and with it all
 * writes through that handle which were not synced: they may be what was lost. The client then waits until
 * the file system answers again: each operation more that may or may not have happened doubles what the
 * checker has to look at. A client that does not
 * come back within --limit seconds leaves its operation unknown, and ends the program with exit code 3
 * once the history is written; 1 is a mount that cannot be used at all.
 *
 * Threads. A client's operations are its own; its mutex guards them against main, which collects them while
 * the client may be stuck. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "history.h"

#define MOUNTS 16u
#define HANDLES 3u
#define READS 8u
#define UNSYNCED 64u
#define PER_CLIENT 100000u /* values of one client */
#define LOOK_AGAIN_US 500

struct options {
    const char *out, *mounts[MOUNTS];
    unsigned nmounts, histories, clients, ops, limit;
    double seconds;
    uint64_t seed;
};
struct handle {
    int fd;
    uint64_t ino;
    size_t unsynced[UNSYNCED]; /* operations of the client */
    unsigned n;
};
struct client {
    const struct options *o;
    unsigned number;
    int dir;
    uint64_t rnd, start;
    pthread_t thread;
    pthread_barrier_t *all_done;
    struct handle handle[HANDLES];
    unsigned handles, values;
    bool unsure; /* an operation became unknown */
    pthread_mutex_t mu;
    struct history did; /* under mu */
    struct op doing;    /* likewise; what is under way */
    bool busy;          /* likewise */
};

/* By client: what its write(2) or ftruncate(2) that is under way puts into the file, TRUNCATING for the latter; 0: none is. */
#define TRUNCATING UINT32_MAX
static _Atomic uint32_t under_way[HISTORY_CLIENTS];

_Noreturn static void give_up(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn static void give_up(const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "linear_record: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, ": %s\n", strerror(errno));
    exit(1);
}

static uint64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t random_below(struct client *c, uint64_t n)
{
    c->rnd += 0x9e3779b97f4a7c15ull;
    uint64_t v = c->rnd;
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
    return (v ^ (v >> 31)) % n;
}

/* ---- noting ---- */

static void op_begin(struct client *c, struct op *op)
{
    op->client = (uint8_t)c->number;
    pthread_mutex_lock(&c->mu);
    op->invoked = monotonic() - c->start;
    c->doing = *op;
    c->busy = true;
    pthread_mutex_unlock(&c->mu);
}

/* error: an errno, or 0. Returns the operation's number. */
static size_t op_end(struct client *c, struct op *op, int error)
{
    op->returned = monotonic() - c->start;
    op->error = error;
    if (error == EIO || error == ETIMEDOUT || error == ENOTCONN || error == EINTR ||
        error == ECONNABORTED || error == EHOSTDOWN) {
        op->unknown = true;
        op->error = 0;
        op->returned = HISTORY_NEVER;
        c->unsure = true;
    }
    pthread_mutex_lock(&c->mu);
    history_add(&c->did, op);
    c->busy = false;
    size_t i = c->did.n - 1;
    pthread_mutex_unlock(&c->mu);
    return i;
}

/* What was answered last turns out otherwise. */
static void op_amend(struct client *c, size_t i, const struct op *op)
{
    pthread_mutex_lock(&c->mu);
    c->did.ops[i] = *op;
    pthread_mutex_unlock(&c->mu);
}

/* Writes through a handle are safe once it was synced, and nobody knows once that failed. */
static void handle_settle(struct client *c, struct handle *h, bool failed)
{
    for (unsigned k = 0; failed && k < h->n; k++) {
        struct op op = c->did.ops[h->unsynced[k]];
        op.unknown = true;
        op.returned = HISTORY_NEVER;
        op_amend(c, h->unsynced[k], &op);
    }
    h->n = 0;
}

/* ---- by handle ---- */

static void do_fstat(struct client *c, struct handle *h)
{
    struct op op = {.kind = OP_FSTAT, .ino = h->ino};
    struct stat st = {0};
    op_begin(c, &op);
    int error = fstat(h->fd, &st) ? errno : 0;
    op.nlink = (uint32_t)st.st_nlink;
    op.size = (uint32_t)st.st_size;
    op_end(c, &op, error);
}

static void do_write(struct client *c, struct handle *h, enum history_kind kind)
{
    struct op op = {
        .kind = kind, .ino = h->ino, .value = (c->number + 1) * PER_CLIENT + ++c->values};
    uint64_t data[HISTORY_SIZE / 8];
    for (size_t k = 0; k < HISTORY_SIZE / 8; k++)
        data[k] = op.value;
    op_begin(c, &op);
    atomic_store(&under_way[c->number], op.value);
    ssize_t n = pwrite(h->fd, data, sizeof data, 0);
    atomic_store(&under_way[c->number], 0);
    int error = n < 0 ? errno : n != sizeof data ? EIO : 0;
    if (!error && kind == OP_SYNCED && fsync(h->fd))
        error = errno;
    size_t i = op_end(c, &op, error);
    if (error || kind == OP_SYNCED)
        handle_settle(c, h, error != 0);
    else if (h->n < UNSYNCED)
        h->unsynced[h->n++] = i;
}

static void do_empty(struct client *c, struct handle *h)
{
    struct op op = {.kind = OP_EMPTY, .ino = h->ino};
    op_begin(c, &op);
    atomic_store(&under_way[c->number], TRUNCATING);
    int error = ftruncate(h->fd, 0) ? errno : 0;
    atomic_store(&under_way[c->number], 0);
    size_t i = op_end(c, &op, error);
    if (h->n < UNSYNCED)
        h->unsynced[h->n++] = i;
}

static bool is_zeros(const uint64_t *data, ssize_t n)
{
    for (ssize_t k = 0; k < n / 8; k++)
        if (data[k])
            return false;
    return n > 0;
}

static uint32_t value_of(const uint64_t *data, ssize_t n)
{
    if (n != HISTORY_SIZE || !data[0] || data[0] >= HISTORY_TORN)
        return n > 0 ? HISTORY_TORN : 0;
    for (size_t k = 1; k < HISTORY_SIZE / 8; k++)
        if (data[k] != data[0])
            return HISTORY_TORN;
    return (uint32_t)data[0];
}

/* A call that puts this into a file is under way on the client's mount. */
static bool is_under_way(const struct client *c, uint32_t what)
{
    for (unsigned i = c->number % c->o->nmounts; i < c->o->clients; i += c->o->nmounts)
        if (atomic_load(&under_way[i]) == what)
            return true;
    return false;
}

/* What Linux shows by itself, and not the file system, is looked at again: a read takes so long then.
 *
 * At the end of a file the size is asked for, too. The kernel reads only up to the size that it knows, and drops
 * a newer one that comes as the answer to a question from before the file system's last message to forget it:
 * on a file that others lengthen read(2) may meet the former end once more, fstat(2) never does.
 *
 * A read beside a truncation on the same mount may get the zeros that the kernel fills a page with behind the file's
 * new end, as long as it does not know that end (a plain pass-through of libfuse does so most of the time). And while a
 * truncation is under way the kernel takes no other size either (FUSE_I_SIZE_UNSTABLE).
 *
 * The kernel puts the bytes of a write(2) into the page cache and then sends them: others on the same mount read them while
 * the call is under way, however long it waits and whatever comes of it (with a pass-through that is stopped meanwhile, too). */
static void do_read(struct client *c, struct handle *h)
{
    struct op op = {.kind = OP_READ, .ino = h->ino};
    uint64_t data[HISTORY_SIZE / 8 + 1];
    struct stat st = {0};
    ssize_t n;
    op_begin(c, &op);
    for (unsigned k = 0;;) {
        bool truncating = is_under_way(c, TRUNCATING);
        n = pread(h->fd, data, sizeof data, 0);
        op.value = value_of(data, n);
        if (n < 0 || (op.value && op.value != HISTORY_TORN && !is_under_way(c, op.value)))
            break;
        bool at_end = n == 0 && (fstat(h->fd, &st) || st.st_size == 0);
        if (at_end || (n > 0 && op.value == HISTORY_TORN && !is_zeros(data, n)))
            break;
        bool waits = truncating || (n > 0 && op.value != HISTORY_TORN);
        if (!waits && ++k == READS)
            break;
        if (waits)
            usleep(LOOK_AGAIN_US);
    }
    op_end(c, &op, n < 0 ? errno : 0);
}

static void do_link(struct client *c, struct handle *h, unsigned name)
{
    struct op op = {.kind = OP_LINK, .ino = h->ino, .name = {(uint8_t)name}};
    char from[64], to[2] = {(char)('a' + name), 0};
    snprintf(from, sizeof from, "/proc/self/fd/%d", h->fd);
    op_begin(c, &op);
    op_end(c, &op, linkat(AT_FDCWD, from, c->dir, to, AT_SYMLINK_FOLLOW) ? errno : 0);
}

static void handle_close(struct client *c, struct handle *h)
{
    bool failed = close(h->fd) != 0;
    handle_settle(c, h, failed);
    *h = c->handle[--c->handles];
}

/* ---- by name ---- */

/* op is an open or a create with descriptor fd and number i: asks whose it is and keeps it. */
static void keep_handle(struct client *c, struct op *op, size_t i, int fd)
{
    struct stat st = {0};
    struct op look = {.kind = OP_FSTAT};
    if (c->handles == HANDLES)
        handle_close(c, &c->handle[random_below(c, HANDLES)]);
    op_begin(c, &look);
    int error = fstat(fd, &st) ? errno : 0;
    op->ino = look.ino = error ? 0 : st.st_ino;
    op->unknown = op->unknown || (error && op->kind == OP_OPEN); /* a file, nobody knows which */
    if (op->unknown)
        op->returned = HISTORY_NEVER;
    op_amend(c, i, op);
    look.nlink = (uint32_t)st.st_nlink;
    look.size = (uint32_t)st.st_size;
    look.unknown = error != 0;
    op_end(c, &look, error ? EIO : 0);
    if (error)
        close(fd);
    else
        c->handle[c->handles++] = (struct handle){.fd = fd, .ino = op->ino};
}

static void do_open(struct client *c, enum history_kind kind, unsigned name)
{
    struct op op = {.kind = kind, .name = {(uint8_t)name}};
    char path[2] = {(char)('a' + name), 0};
    op_begin(c, &op);
    int fd =
        openat(c->dir, path, (kind == OP_CREATE ? O_CREAT | O_EXCL : 0) | O_RDWR | O_CLOEXEC, 0644);
    size_t i = op_end(c, &op, fd < 0 ? errno : 0);
    if (fd >= 0)
        keep_handle(c, &op, i, fd);
}

static void do_stat(struct client *c, unsigned name)
{
    struct op op = {.kind = OP_STAT, .name = {(uint8_t)name}};
    char path[2] = {(char)('a' + name), 0};
    struct stat st = {0};
    op_begin(c, &op);
    int error = fstatat(c->dir, path, &st, AT_SYMLINK_NOFOLLOW) ? errno : 0;
    op.ino = st.st_ino;
    op_end(c, &op, error);
}

static void do_unlink(struct client *c, unsigned name)
{
    struct op op = {.kind = OP_UNLINK, .name = {(uint8_t)name}};
    char path[2] = {(char)('a' + name), 0};
    op_begin(c, &op);
    op_end(c, &op, unlinkat(c->dir, path, 0) ? errno : 0);
}

static void do_rename(struct client *c, enum history_kind kind, unsigned from, unsigned to)
{
    struct op op = {.kind = kind, .name = {(uint8_t)from, (uint8_t)to}};
    char a[2] = {(char)('a' + from), 0}, b[2] = {(char)('a' + to), 0};
    unsigned flags = kind == OP_MOVE ? RENAME_NOREPLACE : kind == OP_SWAP ? RENAME_EXCHANGE : 0;
    op_begin(c, &op);
    op_end(c, &op, renameat2(c->dir, a, c->dir, b, flags) ? errno : 0);
}

/* ---- a client ---- */

static void by_name(struct client *c)
{
    unsigned name = (unsigned)random_below(c, HISTORY_NAMES);
    unsigned other = (name + 1 + (unsigned)random_below(c, HISTORY_NAMES - 1)) % HISTORY_NAMES;
    switch (random_below(c, 12)) {
    case 0:
    case 1:
    case 2:
        do_open(c, OP_CREATE, name);
        break;
    case 3:
    case 4:
        do_open(c, OP_OPEN, name);
        break;
    case 5:
    case 6:
        do_stat(c, name);
        break;
    case 7:
        do_unlink(c, name);
        break;
    case 8:
    case 9:
        do_rename(c, OP_RENAME, name, other);
        break;
    case 10:
        do_rename(c, OP_MOVE, name, other);
        break;
    default:
        do_rename(c, OP_SWAP, name, other);
    }
}

static void by_handle(struct client *c)
{
    struct handle *h = &c->handle[random_below(c, c->handles)];
    switch (random_below(c, 12)) {
    case 0:
    case 1:
        do_write(c, h, OP_SYNCED);
        break;
    case 2:
    case 3:
        do_write(c, h, OP_WRITE);
        break;
    case 4:
        do_empty(c, h);
        break;
    case 5:
    case 6:
    case 7:
        do_read(c, h);
        break;
    case 8:
    case 9:
        do_fstat(c, h);
        break;
    case 10:
        do_link(c, h, (unsigned)random_below(c, HISTORY_NAMES));
        break;
    default:
        handle_close(c, h);
    }
}

/* Bursts: seven of ten operations follow at once. */
static void pause_some(struct client *c, unsigned ops)
{
    double mean = c->o->seconds / (ops ? ops : 1) / 0.3;
    uint64_t ns = (uint64_t)(mean * 1e9 * (double)random_below(c, 2000) / 1000);
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    if (random_below(c, 10) >= 7)
        nanosleep(&t, NULL);
}

/* By changes that need metad, under a name of its own. */
static void await_answers(struct client *c)
{
    static const struct timespec pause = {.tv_nsec = 20000000};
    char name[32];
    snprintf(name, sizeof name, "probe.%u", c->number);
    for (unsigned k = 0; k < 3000; k++) {
        bool made = !mkdirat(c->dir, name, 0755) || errno == EEXIST;
        if (made && !unlinkat(c->dir, name, AT_REMOVEDIR) && !fsync(c->dir))
            break;
        nanosleep(&pause, NULL);
    }
    c->unsure = false;
}

static void *client_run(void *arg)
{
    struct client *c = arg;
    unsigned ops = c->o->ops / c->o->clients;
    for (unsigned k = 0; k < ops; k++) {
        pause_some(c, ops);
        if (c->unsure)
            await_answers(c);
        if (c->handles && random_below(c, 2))
            by_handle(c);
        else
            by_name(c);
    }
    pthread_barrier_wait(c->all_done);
    for (unsigned k = 0; k < c->handles; k++)
        do_read(c, &c->handle[k]);
    while (c->handles)
        handle_close(c, &c->handle[0]);
    for (unsigned k = 0; k < HISTORY_NAMES; k++) {
        do_stat(c, k);
        do_open(c, OP_OPEN, k);
        if (c->handles)
            do_read(c, &c->handle[0]);
        while (c->handles)
            handle_close(c, &c->handle[0]);
    }
    return NULL;
}

/* ---- a history ---- */

static void write_history(const struct options *o, unsigned number, struct history *h)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/history-%04u", o->out, number);
    FILE *out = fopen(path, "w");
    if (!out)
        give_up("%s", path);
    history_sort(h);
    fprintf(out, "# %u clients on %u mounts, seed %" PRIu64 "\n", o->clients, o->nmounts, o->seed);
    history_write(h, out);
    if (fclose(out))
        give_up("%s", path);
}

/* Main's: the clients' operations, and those that never came back. True when all came. */
static bool collect(struct client *c, unsigned n, struct history *all, uint64_t end)
{
    bool whole = true;
    for (unsigned i = 0; i < n; i++) {
        struct timespec until = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
        if (pthread_clockjoin_np(c[i].thread, NULL, CLOCK_MONOTONIC, &until))
            whole = false;
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_mutex_lock(&c[i].mu);
        history_copy(all, &c[i].did);
        if (c[i].busy) {
            c[i].doing.unknown = true;
            c[i].doing.returned = HISTORY_NEVER;
            history_add(all, &c[i].doing);
        }
        pthread_mutex_unlock(&c[i].mu);
    }
    return whole;
}

static bool run_history(const struct options *o, unsigned number)
{
    static struct client clients[HISTORY_CLIENTS];
    pthread_barrier_t all_done;
    struct history all = {0};
    char path[4096];
    uint64_t start = monotonic();
    pthread_barrier_init(&all_done, NULL, o->clients);
    for (unsigned m = 0; m < o->nmounts; m++) {
        snprintf(path, sizeof path, "%s/linear-%" PRIu64 "-%u", o->mounts[m], o->seed, number);
        if (m == 0 && mkdir(path, 0755))
            give_up("%s", path);
        int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
            give_up("%s", path);
        for (unsigned i = m; i < o->clients; i += o->nmounts)
            clients[i] = (struct client){.o = o,
                                         .number = i,
                                         .dir = dup(dir),
                                         .start = start,
                                         .rnd = o->seed * 1000003u + number * 1009u + i,
                                         .all_done = &all_done};
        close(dir);
    }
    for (unsigned i = 0; i < o->clients; i++) {
        pthread_mutex_init(&clients[i].mu, NULL);
        if (clients[i].dir < 0 || pthread_create(&clients[i].thread, NULL, client_run, &clients[i]))
            give_up("client %u", i);
    }
    bool whole = collect(clients, o->clients, &all, monotonic() + o->limit * 1000000000ull);
    write_history(o, number, &all);
    history_free(&all);
    for (unsigned i = 0; whole && i < o->clients; i++) {
        history_free(&clients[i].did);
        pthread_mutex_destroy(&clients[i].mu);
        close(clients[i].dir);
    }
    if (whole)
        pthread_barrier_destroy(&all_done);
    return whole;
}

/* ---- options ---- */

enum { OPT_HISTORIES = 256, OPT_CLIENTS, OPT_OPS, OPT_SECONDS, OPT_SEED, OPT_LIMIT, OPT_OUT };
static const struct argp_option argp_options[] = {
    {"out", OPT_OUT, "DIR", 0, "where the histories go", 0},
    {"histories", OPT_HISTORIES, "N", 0, "how many (default 1)", 0},
    {"clients", OPT_CLIENTS, "N", 0, "threads, spread over the mounts (default 8)", 0},
    {"ops", OPT_OPS, "N", 0, "of a history, roughly (default 240)", 0},
    {"seconds", OPT_SECONDS, "S", 0, "that a history takes, roughly (default 2)", 0},
    {"seed", OPT_SEED, "N", 0, "of what is asked (default 1)", 0},
    {"limit", OPT_LIMIT, "S", 0, "a client that takes longer is stuck (default 120)", 0},
    {0}};

static double number(struct argp_state *state, const char *s, double min, double max)
{
    char *end;
    double n = strtod(s, &end);
    if (end == s || *end || !(n >= min && n <= max))
        argp_error(state, "'%s' is not a number from %g to %g", s, min, max);
    return n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case OPT_OUT:
        o->out = arg;
        break;
    case OPT_HISTORIES:
        o->histories = (unsigned)number(state, arg, 1, 100000);
        break;
    case OPT_CLIENTS:
        o->clients = (unsigned)number(state, arg, 1, HISTORY_CLIENTS);
        break;
    case OPT_OPS:
        o->ops = (unsigned)number(state, arg, 1, HISTORY_OPS / 2);
        break;
    case OPT_SECONDS:
        o->seconds = number(state, arg, 0, 3600);
        break;
    case OPT_SEED:
        o->seed = (uint64_t)number(state, arg, 0, 1e15);
        break;
    case OPT_LIMIT:
        o->limit = (unsigned)number(state, arg, 1, 36000);
        break;
    case ARGP_KEY_ARG:
        if (o->nmounts == MOUNTS)
            argp_error(state, "%u mounts at most", MOUNTS);
        else
            o->mounts[o->nmounts++] = arg;
        break;
    case ARGP_KEY_END:
        if (!o->nmounts || !o->out)
            argp_error(state, "--out and at least one mount are needed");
        if (o->nmounts > o->clients)
            argp_error(state, "more mounts than clients");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        argp_options, parse, "MOUNT...", "Records what clients of a small directory are told.",
        NULL,         NULL,  NULL};
    struct options o = {
        .histories = 1, .clients = 8, .ops = 240, .seconds = 2, .seed = 1, .limit = 120};
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    for (unsigned i = 1; i <= o.histories; i++) {
        if (!run_history(&o, i)) {
            fprintf(stderr, "linear_record: history %u: a client did not come back in %u s\n", i,
                    o.limit);
            fflush(NULL);
            _exit(3); /* its thread would be waited for */
        }
    }
    return 0;
}
