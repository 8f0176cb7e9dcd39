/* The checker: reads back all that a worker's journal tells of and names each difference. After a fault that forgets (a power
 * cut, a killed mount) whatever was not synced may be in any state since; what was, may not. A file with bytes
 * that are lost for that reason is removed, so that the cluster can be healthy again. Bytes that cannot be read count
 * as lost when all of them were safe and untouched since. One thread. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab.h"

struct check {
    const char *root;
    uint32_t worker;
    bool forgot;
    FILE *seen;
    struct model model;
    int wrong;
    bool quiet; /* only count */
    uint8_t *data;
    uint32_t units, readable; /* of the file that is looked at */
    uint8_t *bad;             /* for each unit: could not be read */
};

static void differs(struct check *c, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void differs(struct check *c, const char *path, const char *fmt, ...)
{
    va_list args;
    c->wrong++;
    if (c->quiet)
        return;
    printf("%s: ", path);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n");
}

/* -- reading --------------------------------------------------------------------------------------- */
static uint64_t sum_of(const uint8_t *p, size_t n)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static void read_range(struct check *c, int fd, uint32_t from, uint32_t to)
{
    size_t at = (size_t)from * UNIT, end = (size_t)to * UNIT;
    while (at < end) {
        ssize_t n = pread(fd, c->data + at, end - at, (off_t)at);
        if (n <= 0) {
            memset(c->bad + at / UNIT, 1, to - at / UNIT);
            return;
        }
        at += (size_t)n;
    }
}

/* The whole file, or, when some of it cannot be read, 64 units at a time. 0, or -1 when it is not there. */
static int read_file(struct check *c, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -1;
    c->units = 0;
    if (fstat(fd, &st) == 0)
        c->units = (uint32_t)(st.st_size / UNIT);
    if (c->units > MAX_UNITS || st.st_size % UNIT != 0) {
        differs(c, path, "has %lld bytes", (long long)st.st_size);
        c->units = c->units > MAX_UNITS ? MAX_UNITS : c->units;
    }
    memset(c->bad, 0, MAX_UNITS);
    read_range(c, fd, 0, c->units);
    if (c->units && c->bad[c->units - 1]) {
        memset(c->bad, 0, MAX_UNITS);
        for (uint32_t i = 0; i < c->units; i += 64)
            read_range(c, fd, i, i + 64 < c->units ? i + 64 : c->units);
    }
    close(fd);
    return 0;
}

/* -- one file -------------------------------------------------------------------------------------- */
static void compare_unit(struct check *c, const char *path, uint32_t object, uint32_t i,
                         const struct unit *u)
{
    char says[100];
    bool loose = c->forgot || u->doubt, beyond = i >= c->units;
    bool untouched = u->safe == u->newest && !u->zero && !u->doubt;
    if (!beyond && c->bad[i]) {
        if (!c->forgot || untouched)
            differs(c, path, "offset %u: cannot be read, expected version %u", i * UNIT, u->now);
        return;
    }
    int64_t v = beyond ? 0 : unit_version(c->data + (size_t)i * UNIT, c->worker, object, i, says);
    if (v < 0) {
        differs(c, path, "offset %u: %s, expected version %u", i * UNIT, says, u->now);
    } else if (v != u->now && !(loose && (v ? v >= u->safe && v <= u->newest : u->zero))) {
        const char *what = v == 0       ? (beyond ? "lost (the file ends before)" : "lost (zeros)")
                           : v < u->now ? "older"
                                        : "newer";
        differs(c, path, "offset %u: %s: version %" PRId64 " of object %u, expected %u, fsynced %u",
                i * UNIT, what, v, object, u->now, u->safe);
    }
}

/* The file in c->data as this object. */
static void compare_object(struct check *c, const char *path, uint32_t number)
{
    struct object *o = model_object(&c->model, number);
    bool loose = c->forgot || o->doubt;
    if (c->units != o->size && !(loose && c->units >= o->smallest && c->units <= o->largest))
        differs(c, path, "%u units, expected %u (%u to %u since fsync), object %u", c->units,
                o->size, o->smallest, o->largest, number);
    uint32_t end = o->have > c->units ? o->have : c->units;
    for (uint32_t i = 0; i < end; i++) {
        struct unit u = model_unit(o, i);
        compare_unit(c, path, number, i, &u);
    }
}

static bool fits(struct check *c, const char *path, uint32_t number)
{
    int before = c->wrong;
    c->quiet = true;
    compare_object(c, path, number);
    bool fine = c->wrong == before;
    c->wrong = before;
    c->quiet = false;
    return fine;
}

/* What was read as any object that the name may be. */
static void compare_any(struct check *c, const char *path, const struct name *n)
{
    bool loose = c->forgot || n->doubt;
    if (!loose && n->now == 0) {
        differs(c, path, "is there, %u units, although it was removed", c->units);
        return;
    }
    for (int i = 0; loose && i < n->n_was; i++)
        if (n->was[i] && fits(c, path, n->was[i]))
            return;
    for (int i = 0; !n->now && i < n->n_was;
         i++) /* the newest that it might be, to tell the difference */
        if (n->was[i]) {
            compare_object(c, path, n->was[i]);
            return;
        }
    if (n->now)
        compare_object(c, path, n->now);
    else
        differs(c, path, "is there, and never was");
}

static void compare_name(struct check *c, int dir, int name)
{
    const struct name *n = &c->model.names[dir][name];
    bool loose = c->forgot || n->doubt, absent = n->now == 0;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/d%d/n%d", c->root, dir, name);
    for (int i = 0; loose && i < n->n_was; i++)
        absent |= n->was[i] == 0;
    if (read_file(c, path) < 0) {
        if (errno != ENOENT || !absent)
            differs(c, path, "%s: object %u is lost%s", strerror(errno), n->now,
                    n->n_was == 1 ? ", the name was safe" : "");
        return;
    }
    if (c->forgot && memchr(c->bad, 1, c->units)) {
        compare_any(c, path, n);
        if (unlink(path) < 0)
            differs(c, path, "cannot be removed: %s", strerror(errno));
        return;
    }
    if (c->seen)
        fprintf(c->seen, "%016" PRIx64 " %u %s\n", sum_of(c->data, (size_t)c->units * UNIT),
                c->units, path);
    compare_any(c, path, n);
}

static void compare_listing(struct check *c, int dir)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/d%d", c->root, dir);
    DIR *d = opendir(path);
    if (!d) {
        differs(c, path, "%s", strerror(errno));
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        unsigned n = 0, end = 0;
        if (e->d_name[0] == '.')
            continue;
        if (sscanf(e->d_name, "n%u%n", &n, (int *)&end) != 1 || e->d_name[end] || n >= NAMES)
            differs(c, path, "has '%s', which nobody made", e->d_name);
    }
    closedir(d);
}

int check_run(const char *root, const char *journal, uint32_t worker, int forgot, FILE *seen)
{
    struct check c = {.root = root, .worker = worker, .forgot = forgot, .seen = seen};
    struct record r;
    FILE *f = fopen(journal, "rb");
    if (!f)
        return -1;
    while (fread(&r, sizeof r, 1, f) == 1)
        model_apply(&c.model, &r);
    fclose(f);
    model_end(&c.model);
    c.data = malloc((size_t)MAX_UNITS * UNIT);
    c.bad = malloc(MAX_UNITS);
    if (!c.data || !c.bad)
        abort();
    for (int dir = 0; dir < DIRS; dir++) {
        compare_listing(&c, dir);
        for (int name = 0; name < NAMES; name++)
            compare_name(&c, dir, name);
    }
    free(c.data);
    free(c.bad);
    model_free(&c.model);
    return c.wrong;
}

int check_again(const char *seen)
{
    struct check c = {.data = malloc((size_t)MAX_UNITS * UNIT), .bad = malloc(MAX_UNITS)};
    FILE *f = fopen(seen, "r");
    char path[PATH_MAX];
    uint64_t sum;
    uint32_t units;
    if (!f || !c.data || !c.bad)
        return -1;
    while (fscanf(f, "%" SCNx64 " %u %4095s\n", &sum, &units, path) == 3) {
        if (read_file(&c, path) < 0)
            differs(&c, path, "%s, it was there at an earlier check", strerror(errno));
        else if (c.units != units || sum_of(c.data, (size_t)units * UNIT) != sum)
            differs(&c, path, "is not what an earlier check read (%u units, now %u%s)", units,
                    c.units, c.units && memchr(c.bad, 1, c.units) ? ", not all can be read" : "");
    }
    fclose(f);
    free(c.data);
    free(c.bad);
    return c.wrong;
}
