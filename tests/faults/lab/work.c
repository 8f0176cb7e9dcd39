/* One worker: random operations in a folder that is its own, each noted in the journal before and after. What it reads on
 * the way is compared with the model at once, so that what only a cache hides is seen, too.
 *
 * It stops when told to, or when its mount is gone; names and files for which an operation failed are left alone from then
 * on, since the answer may still become true later. One thread for each worker, nothing shared. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab.h"

struct worker {
    const struct board *board;
    const char *root;
    uint32_t id;
    int journal;
    struct random random;
    struct model model;
    uint32_t next_object, next_version;
    int dirs[DIRS]; /* open */
    int fd;         /* of open_object, or -1 */
    uint32_t open_object;
    bool gone; /* the mount */
    char buf[512 * UNIT];
};

static void note(struct worker *w, struct record *r)
{
    r->ms = wall_ms();
    if (write(w->journal, r, sizeof *r) != (ssize_t)sizeof *r)
        abort();
    model_apply(&w->model, r);
}

static const char *op_name(int op)
{
    static const char *const names[] = {"?",     "create", "write",  "truncate",
                                        "fsync", "rename", "unlink", "fsync of a directory"};
    return names[op];
}

/* Notes the answer; rc is of the system call. */
static void answer(struct worker *w, struct record *r, int rc)
{
    int error = rc < 0 ? errno : 0;
    r->phase = error ? PHASE_FAILED : PHASE_DONE;
    r->error = (uint16_t)error;
    note(w, r);
    if (error)
        board_error(w->board, op_name(r->op), error);
    w->gone |= error == ENOTCONN || error == ECONNABORTED;
}

static void ask(struct worker *w, struct record *r)
{
    r->phase = PHASE_ASKED;
    note(w, r);
}

static void close_file(struct worker *w)
{
    if (w->fd >= 0 && close(w->fd) < 0) {
        struct record r = {.op = OP_FSYNC,
                           .object = w->open_object}; /* tells of writes, as fsync does */
        ask(w, &r);
        answer(w, &r, -1);
    }
    w->fd = -1;
    w->open_object = 0;
}

static void path_of(char path[PATH_MAX], const struct worker *w, int dir, int name)
{
    snprintf(path, PATH_MAX, "%s/d%d/n%d", w->root, dir, name);
}

/* -- what to do ------------------------------------------------------------------------------------ */
static void sync_dir(struct worker *w, int dir)
{
    struct record r = {.op = OP_SYNCDIR, .dir = (uint8_t)dir};
    ask(w, &r);
    answer(w, &r, fsync(w->dirs[dir]));
}

/* Whether this name may be worked on; makes room in its history. */
static bool usable(struct worker *w, int dir, int name)
{
    struct name *n = &w->model.names[dir][name];
    if (n->n_was > MAX_WAS - 4)
        sync_dir(w, dir);
    return !n->doubt && n->n_was <= MAX_WAS - 4;
}

static bool open_file(struct worker *w, int dir, int name)
{
    uint32_t object = w->model.names[dir][name].now;
    char path[PATH_MAX];
    if (object == w->open_object)
        return true;
    close_file(w);
    path_of(path, w, dir, name);
    w->fd = open(path, O_RDWR);
    if (w->fd < 0) {
        int error = errno;
        if (error == ENOENT)
            board_violation(w->board, "%s: object %u is missing", path, object);
        board_error(w->board, "open", error);
        w->gone |= error == ENOTCONN || error == ECONNABORTED;
        return false;
    }
    w->open_object = object;
    return true;
}

static void create(struct worker *w, int dir, int name)
{
    struct record r = {
        .op = OP_CREATE, .dir = (uint8_t)dir, .name = (uint8_t)name, .object = ++w->next_object};
    char path[PATH_MAX];
    close_file(w);
    path_of(path, w, dir, name);
    ask(w, &r);
    w->fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
    w->open_object = w->fd < 0 ? 0 : r.object;
    answer(w, &r, w->fd);
}

static void write_some(struct worker *w, bool append)
{
    struct object *o = model_object(&w->model, w->open_object);
    static const uint32_t most[] = {1, 8, 8, 64, 256, 512};
    uint32_t units = 1 + random_below(&w->random, most[random_below(&w->random, 6)]);
    uint32_t unit = append ? o->size : random_below(&w->random, o->size + 16);
    if (unit + units > MAX_UNITS)
        unit = random_below(&w->random, MAX_UNITS - units);
    struct record r = {.op = OP_WRITE,
                       .object = w->open_object,
                       .version = ++w->next_version,
                       .unit = unit,
                       .units = units};
    for (uint32_t i = 0; i < units; i++)
        unit_fill(w->buf + i * UNIT, w->id, r.object, unit + i, r.version);
    ask(w, &r);
    ssize_t n = pwrite(w->fd, w->buf, units * UNIT, (off_t)unit * UNIT);
    if (n >= 0 && n != (ssize_t)(units * UNIT)) {
        n = -1;
        errno = ENOSPC; /* what the rest of it would be told */
    }
    answer(w, &r, (int)n);
}

static void truncate_it(struct worker *w)
{
    struct object *o = model_object(&w->model, w->open_object);
    uint32_t size = random_below(&w->random, 4) ? random_below(&w->random, o->size + 1) : 0;
    struct record r = {.op = OP_TRUNCATE, .object = w->open_object, .unit = size};
    ask(w, &r);
    answer(w, &r, ftruncate(w->fd, (off_t)size * UNIT));
}

static void sync_file(struct worker *w)
{
    struct record r = {.op = OP_FSYNC, .object = w->open_object};
    ask(w, &r);
    answer(w, &r, random_below(&w->random, 2) ? fsync(w->fd) : fdatasync(w->fd));
}

static void rename_it(struct worker *w, int dir, int name)
{
    int dir2 = (int)random_below(&w->random, DIRS), name2 = (int)random_below(&w->random, NAMES);
    char from[PATH_MAX], to[PATH_MAX];
    struct record r = {.op = OP_RENAME,
                       .dir = (uint8_t)dir,
                       .name = (uint8_t)name,
                       .dir2 = (uint8_t)dir2,
                       .name2 = (uint8_t)name2,
                       .object = w->model.names[dir][name].now};
    if ((dir == dir2 && name == name2) || !usable(w, dir2, name2))
        return;
    path_of(from, w, dir, name);
    path_of(to, w, dir2, name2);
    ask(w, &r);
    answer(w, &r, rename(from, to));
}

static void unlink_it(struct worker *w, int dir, int name)
{
    struct record r = {.op = OP_UNLINK, .dir = (uint8_t)dir, .name = (uint8_t)name};
    char path[PATH_MAX];
    path_of(path, w, dir, name);
    ask(w, &r);
    answer(w, &r, unlink(path));
}

static void read_some(struct worker *w)
{
    struct object *o = model_object(&w->model, w->open_object);
    uint32_t unit = random_below(&w->random, o->size + 1),
             units = 1 + random_below(&w->random, 128);
    char says[100];
    if (o->doubt)
        return;
    ssize_t n = pread(w->fd, w->buf, units * UNIT, (off_t)unit * UNIT);
    if (n < 0) {
        board_error(w->board, "read", errno);
        w->gone |= errno == ENOTCONN || errno == ECONNABORTED;
        return;
    }
    uint32_t want = o->size - unit < units ? o->size - unit : units;
    if (n != (ssize_t)(want * UNIT))
        board_violation(w->board, "%s: object %u of %u units: read of %u at %u gave %zd bytes",
                        w->root, w->open_object, o->size, units, unit, n);
    for (uint32_t i = 0; i < n / UNIT; i++) {
        struct unit u = model_unit(o, unit + i);
        int64_t v = unit_version(w->buf + i * UNIT, w->id, w->open_object, unit + i, says);
        bool right = v == u.now || (u.doubt && (v ? v >= u.safe && v <= u.newest : u.zero));
        if (right)
            continue;
        if (v >= 0)
            snprintf(says, sizeof says, "version %lld", (long long)v);
        board_violation(
            w->board, "%s: object %u, unit %u reads as %s while it is written, expected version %u",
            w->root, w->open_object, unit + i, says, u.now);
        return;
    }
}

static void work_on_file(struct worker *w, int dir, int name)
{
    if (!open_file(w, dir, name))
        return;
    for (uint32_t n = 1 + random_below(&w->random, 4);
         n > 0 && !w->gone && !board_stopped(w->board); n--) {
        uint32_t what = random_below(&w->random, 100);
        if (what < 30)
            write_some(w, true);
        else if (what < 55)
            write_some(w, false);
        else if (what < 61)
            truncate_it(w);
        else if (what < 80)
            sync_file(w);
        else
            read_some(w);
    }
}

static void step(struct worker *w)
{
    int dir = (int)random_below(&w->random, DIRS), name = (int)random_below(&w->random, NAMES);
    uint32_t what = random_below(&w->random, 100);
    if (!usable(w, dir, name))
        return;
    bool there = w->model.names[dir][name].now != 0;
    if (what < 8)
        sync_dir(w, dir);
    else if (!there)
        create(w, dir, name);
    else if (what < 20)
        rename_it(w, dir, name);
    else if (what < 28)
        unlink_it(w, dir, name);
    else
        work_on_file(w, dir, name);
}

/* Its folders, which are safe before the journal says anything. */
static int make_folders(struct worker *w)
{
    char path[PATH_MAX];
    if (mkdir(w->root, 0755) < 0)
        return -1;
    for (int i = 0; i < DIRS; i++) {
        snprintf(path, sizeof path, "%s/d%d", w->root, i);
        if (mkdir(path, 0755) < 0)
            return -1;
        w->dirs[i] = open(path, O_RDONLY | O_DIRECTORY);
        if (w->dirs[i] < 0 || fsync(w->dirs[i]) < 0)
            return -1;
    }
    for (int up = 0; up < 2; up++) {
        snprintf(path, sizeof path, "%s%s", w->root, up ? "/.." : "");
        int fd = open(path, O_RDONLY | O_DIRECTORY);
        int rc = fd < 0 ? -1 : fsync(fd);
        if (fd >= 0)
            close(fd);
        if (rc < 0)
            return -1;
    }
    return 0;
}

int work_run(const struct board *b, const char *root, const char *journal, uint32_t worker,
             uint64_t seed)
{
    struct worker *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->board = b;
    w->root = root;
    w->id = worker;
    w->random.x = seed * 977 + worker;
    w->fd = -1;
    if (make_folders(w) < 0) {
        board_error(b, "mkdir", errno);
        free(w);
        return 1;
    }
    w->journal = open(journal, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0644);
    if (w->journal < 0)
        abort();
    while (!w->gone && !board_stopped(b)) {
        step(w);
        usleep(random_below(&w->random, 4000)); /* the machine has other things to do, too */
    }
    close_file(w);
    for (int i = 0; i < DIRS; i++)
        close(w->dirs[i]);
    close(w->journal);
    model_free(&w->model);
    free(w);
    return 0;
}
