/* The operations, how often each is done, and whether the file system under test has them.
 *
 * An operation that the file system refuses as not supported at the start is switched off with a
 * message (an error with --require-all); when its turn comes a pread is done, so that the rest of
 * the sequence is the same on every file system. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exerciser.h"

static int allocate(int fd, int mode)
{
    return fallocate(fd, mode, 0, PAGE) ? errno : 0;
}
static int probe_reserve(struct exerciser *x, int fd)
{
    (void)x;
    return allocate(fd, 0);
}
static int probe_keep_size(struct exerciser *x, int fd)
{
    (void)x;
    return allocate(fd, FALLOC_FL_KEEP_SIZE);
}
static int probe_punch(struct exerciser *x, int fd)
{
    (void)x;
    return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
}
static int probe_zero(struct exerciser *x, int fd)
{
    (void)x;
    return allocate(fd, FALLOC_FL_ZERO_RANGE);
}
static int probe_copy(struct exerciser *x, int fd)
{
    off_t in = 0, out = 2 * (off_t)PAGE;
    (void)x;
    return copy_file_range(fd, &in, fd, &out, PAGE, 0) < 0 ? errno : 0;
}
static int probe_seek(struct exerciser *x, int fd)
{
    (void)x;
    return lseek(fd, 0, SEEK_DATA) < 0 ? errno : 0;
}
static int probe_direct(struct exerciser *x, int fd)
{
    char path[64];
    (void)x;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (again < 0)
        return errno;
    close(again);
    return 0;
}
static int probe_switch(struct exerciser *x, int fd)
{
    (void)fd;
    return x->o.mounts < 2 ? ENODEV : 0;
}

static struct operation table[] = {
    {"read", 100, op_read, NULL, false},
    {"pread", 100, op_pread, NULL, false},
    {"write", 80, op_write, NULL, false},
    {"pwrite", 120, op_pwrite, NULL, false},
    {"append", 40, op_append, NULL, false},
    {"truncate", 60, op_truncate, NULL, false},
    {"map-read", 60, op_map_read, NULL, false},
    {"map-write", 60, op_map_write, NULL, false},
    {"direct-read", 30, op_direct_read, probe_direct, false},
    {"direct-write", 30, op_direct_write, probe_direct, false},
    {"fsync", 5, op_fsync, NULL, false},
    {"fdatasync", 5, op_fdatasync, NULL, false},
    {"reserve", 15, op_reserve, probe_reserve, false},
    {"keep-size", 15, op_keep_size, probe_keep_size, false},
    {"punch", 40, op_punch, probe_punch, false},
    {"zero", 30, op_zero, probe_zero, false},
    {"copy", 60, op_copy, probe_copy, false},
    {"seek", 30, op_seek, probe_seek, false},
    {"stat", 30, op_stat, NULL, false},
    {"check", 15, op_check, NULL, false},
    {"reopen", 30, op_reopen, NULL, false},
    {"switch", 60, op_switch, probe_switch, false},
    {"forget", 3, op_forget, NULL, false},
    {"rename", 10, op_rename, NULL, false},
    {"rename-over", 2, op_rename_over, NULL, false},
    {"unlink", 3, op_unlink, NULL, false},
};
#define OPERATIONS (sizeof table / sizeof table[0])

static struct operation *find(const char *name, size_t len)
{
    for (size_t i = 0; i < OPERATIONS; i++) {
        if (strlen(table[i].name) == len && !strncmp(table[i].name, name, len))
            return &table[i];
    }
    fprintf(stderr, "exerciser: no operation '%.*s'; --list names them\n", (int)len, name);
    return NULL;
}

/* list: NAME=WEIGHT or NAME, with commas between. */
static bool apply(const char *list)
{
    for (const char *s = list; s && *s;) {
        size_t len = strcspn(s, ",="), whole = strcspn(s, ",");
        struct operation *o = find(s, len);
        if (!o)
            return false;
        o->weight = s[len] == '=' ? (unsigned)strtoul(s + len + 1, NULL, 10) : 100;
        s += whole + (s[whole] == ',');
    }
    return true;
}

static bool probe_all(struct exerciser *x)
{
    char path[4096], zeros[2 * PAGE];
    bool fine = true;
    snprintf(path, sizeof path, "%s/exerciser-%llu-probe", x->o.dirs[0],
             (unsigned long long)x->o.seed);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        fprintf(stderr, "exerciser: %s: %s\n", path, strerror(errno));
        return false;
    }
    unlink(path);
    memset(zeros, 1, sizeof zeros);
    if (pwrite(fd, zeros, sizeof zeros, 0) != (ssize_t)sizeof zeros)
        fine = false;
    for (size_t i = 0; i < OPERATIONS; i++) {
        struct operation *o = &table[i];
        int err = o->weight && o->probe ? o->probe(x, fd) : 0;
        o->off = err != 0;
        if (!err || o->run == op_switch)
            continue;
        fprintf(stderr, "exerciser: %s is not there: %s\n", o->name, strerror(err));
        fine = fine && !x->o.require_all;
    }
    return close(fd) == 0 && fine;
}

bool table_prepare(struct exerciser *x)
{
    if (x->o.only) {
        for (size_t i = 0; i < OPERATIONS; i++)
            table[i].weight = 0;
    }
    if (!apply(x->o.only) || !apply(x->o.weights))
        return false;
    x->weight_sum = 0;
    for (size_t i = 0; i < OPERATIONS; i++)
        x->weight_sum += table[i].weight;
    if (!x->weight_sum) {
        fprintf(stderr, "exerciser: no operation has a weight\n");
        return false;
    }
    return probe_all(x);
}

const struct operation *table_pick(struct exerciser *x)
{
    uint64_t at = below(x, x->weight_sum);
    size_t i = 0;
    while (at >= table[i].weight)
        at -= table[i++].weight;
    return &table[i];
}

void table_list(void)
{
    for (size_t i = 0; i < OPERATIONS; i++)
        printf("%-12s %u\n", table[i].name, table[i].weight);
}
