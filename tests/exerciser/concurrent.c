/* Several processes write one file at once, through one mount or two.
 *
 *   append: each appends records of one size with O_APPEND. At the end every record is there,
 *           whole, exactly once, and those of one process are in the order of writing.
 *   blocks: each overwrites runs of aligned blocks. The first half of the file is everybody's, the
 *           rest is cut into a part for each process. At the end each block is wholly one value:
 *           in a private part the last one written; in the shared half the last one of some
 *           process, since what a process wrote later was committed later.
 *
 * The processes share an anonymous mapping in which each notes what it wrote last where. What a
 * reader sees in the middle is not checked: page caches work by pages, on local file systems
 * too. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exerciser.h"

#define BLOCKS 256u
#define RUN_MAX 8u /* blocks of one write */
#define ROUND 50u  /* writes of each process between two checks of the blocks */

struct shared {
    uint32_t last[64][BLOCKS]; /* of each process: the number of its last write of a block, or 0 */
};

static char name[4096];

static const char *file_at(const struct exerciser *x, unsigned mount)
{
    snprintf(name, sizeof name, "%s/exerciser-%s-%llu", x->o.dirs[mount], x->o.concurrent,
             (unsigned long long)x->o.seed);
    return name;
}

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "exerciser: %s: %s: %s\n", name, what, strerror(errno));
    exit(1);
}

/* The content of one record: who, which, where, and the rest follows from those. */
static void fill(uint8_t *out, uint64_t size, uint32_t writer, uint32_t seq, uint64_t block)
{
    uint64_t words[2] = {(uint64_t)(writer + 1) << 32 | seq, block};
    memcpy(out, words, sizeof words);
    for (uint64_t i = sizeof words; i < size; i += 8) {
        uint64_t w = mix(words[0] ^ mix(block * 512 + i));
        memcpy(out + i, &w, sizeof w);
    }
}

/* Whether p is one whole record; says whose. */
static bool whole(const uint8_t *p, uint64_t size, uint32_t *writer, uint32_t *seq, uint64_t *block)
{
    static uint8_t want[1 << 20];
    uint64_t words[2];
    memcpy(words, p, sizeof words);
    *writer = (uint32_t)(words[0] >> 32) - 1;
    *seq = (uint32_t)words[0];
    *block = words[1];
    fill(want, size, *writer, *seq, *block);
    return !memcmp(p, want, size);
}

/* ---- the writers ---- */

static int writer_open(const struct exerciser *x, unsigned w, int flags)
{
    int fd = open(file_at(x, w % x->o.mounts), O_WRONLY | O_CLOEXEC | flags);
    if (fd < 0)
        die("open");
    return fd;
}

static int pause_sometimes(struct exerciser *x, unsigned w, int fd, int flags)
{
    if (one_in(x, 200) && fsync(fd))
        die("fsync");
    if (!one_in(x, 50))
        return fd;
    if (close(fd))
        die("close");
    return writer_open(x, w, flags);
}

static void append_records(struct exerciser *x, unsigned w)
{
    uint8_t *buf = malloc(x->o.record_size);
    int fd = writer_open(x, w, O_APPEND);
    for (uint32_t seq = 1; buf && seq <= x->o.records; seq++) {
        fill(buf, x->o.record_size, w, seq, 0);
        if (write(fd, buf, x->o.record_size) != (ssize_t)x->o.record_size)
            die("append");
        fd = pause_sometimes(x, w, fd, O_APPEND);
    }
    if (close(fd))
        die("close");
    free(buf);
}

static void overwrite_blocks(struct exerciser *x, unsigned w, uint32_t from_seq, struct shared *sh)
{
    uint64_t size = x->o.record_size, part = BLOCKS / 2 / x->o.writers;
    uint8_t *buf = malloc(size * RUN_MAX);
    int fd = writer_open(x, w, 0);
    uint64_t end = 0; /* of the last write: some go on there */
    for (uint32_t seq = from_seq; buf && seq < from_seq + ROUND; seq++) {
        bool own = one_in(x, 2);
        uint64_t from = own ? BLOCKS / 2 + w * part : 0, n = own ? part : BLOCKS / 2;
        uint64_t b = from + below(x, n), run = 1 + below(x, RUN_MAX);
        if (!one_in(x, 3) && end >= from && end < from + n)
            b = end;
        if (run > from + n - b)
            run = from + n - b;
        for (uint64_t i = 0; i < run; i++) {
            fill(buf + i * size, size, w, seq, b + i);
            sh->last[w][b + i] = seq;
        }
        end = b + run;
        if (pwrite(fd, buf, size * run, (off_t)(b * size)) != (ssize_t)(size * run))
            die("pwrite");
        fd = pause_sometimes(x, w, fd, 0);
    }
    if (close(fd))
        die("close");
    free(buf);
}

/* ---- what must have come of it ---- */

static bool read_record(int fd, uint8_t *buf, uint64_t size, uint64_t index)
{
    ssize_t n = pread(fd, buf, size, (off_t)(index * size));
    if (n < 0)
        die("read");
    memset(buf + n, 0, size - (uint64_t)n); /* behind the end: as a hole */
    return n > 0;
}

static uint64_t check_appended(const struct exerciser *x, int fd)
{
    uint64_t bad = 0, size = x->o.record_size, total = x->o.records * x->o.writers;
    uint32_t *next = calloc(x->o.writers, sizeof *next);
    uint8_t *buf = malloc(size);
    off_t end = lseek(fd, 0, SEEK_END);
    if (!next || !buf)
        abort();
    if (end != (off_t)(total * size)) {
        printf("exerciser: %s: %lld bytes, expected %llu\n", name, (long long)end,
               (unsigned long long)(total * size));
        bad++;
    }
    for (uint64_t i = 0; read_record(fd, buf, size, i); i++) {
        uint32_t w, seq;
        uint64_t block;
        if (!whole(buf, size, &w, &seq, &block) || w >= x->o.writers) {
            printf("exerciser: %s: record %llu is torn\n", name, (unsigned long long)i);
            bad++;
        } else if (seq != next[w] + 1) {
            printf("exerciser: %s: record %llu is number %u of writer %u, expected %u\n", name,
                   (unsigned long long)i, seq, w, next[w] + 1);
            bad++;
            next[w] = seq;
        } else {
            next[w] = seq;
        }
        if (bad > 20)
            break;
    }
    free(next);
    free(buf);
    return bad;
}

static bool zeros(const uint8_t *p, uint64_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

static uint64_t check_blocks(const struct exerciser *x, int fd, const struct shared *sh)
{
    uint64_t bad = 0, size = x->o.record_size;
    uint8_t *buf = malloc(size);
    if (!buf)
        abort();
    for (uint64_t b = 0; b < BLOCKS; b++) {
        uint32_t w = 0, seq = 0;
        uint64_t block = 0;
        bool touched = false;
        for (unsigned i = 0; i < x->o.writers; i++)
            touched = touched || sh->last[i][b];
        read_record(fd, buf, size, b);
        if (!touched && zeros(buf, size))
            continue;
        if (!whole(buf, size, &w, &seq, &block) || w >= x->o.writers || block != b)
            printf("exerciser: %s: block %llu is torn or foreign\n", name, (unsigned long long)b);
        else if (sh->last[w][b] != seq)
            printf("exerciser: %s: block %llu is write %u of writer %u, whose last there was %u\n",
                   name, (unsigned long long)b, seq, w, sh->last[w][b]);
        else
            continue;
        bad++;
    }
    free(buf);
    return bad;
}

/* Starts the writers and waits for them; false when one met an error. */
static bool write_all(struct exerciser *x, uint32_t from_seq, struct shared *sh)
{
    pid_t pids[64];
    bool fine = true;
    fflush(stdout);
    for (unsigned i = 0; i < x->o.writers; i++) {
        pids[i] = fork();
        if (pids[i] < 0)
            die("fork");
        if (pids[i])
            continue;
        x->rnd = mix(x->o.seed) ^ mix(i) ^ mix(~from_seq);
        if (sh)
            overwrite_blocks(x, i, from_seq, sh);
        else
            append_records(x, i);
        _exit(0);
    }
    for (unsigned i = 0; i < x->o.writers; i++) {
        int status;
        if (waitpid(pids[i], &status, 0) < 0 || status)
            fine = false;
    }
    return fine;
}

/* Through each mount. */
static uint64_t check_all(const struct exerciser *x, const struct shared *sh)
{
    uint64_t bad = 0;
    for (unsigned m = 0; m < x->o.mounts; m++) {
        int fd = open(file_at(x, m), O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            die("open");
        bad += sh ? check_blocks(x, fd, sh) : check_appended(x, fd);
        close(fd);
    }
    return bad;
}

int concurrent_run(struct exerciser *x)
{
    bool append = !strcmp(x->o.concurrent, "append");
    struct shared *sh = NULL;
    uint64_t bad = 0, rounds = append ? 1 : (x->o.records + ROUND - 1) / ROUND;
    if (!strcmp(x->o.concurrent, "listing"))
        return listing_run(x);
    if (!append && strcmp(x->o.concurrent, "blocks") != 0) {
        fprintf(stderr, "exerciser: --concurrent is append, blocks or listing\n");
        return 2;
    }
    if (!append)
        sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = open(file_at(x, 0), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (sh == MAP_FAILED || fd < 0 || close(fd))
        die("create");
    for (uint64_t r = 0; r < rounds && !bad; r++) {
        bad += !write_all(x, (uint32_t)(r * ROUND + 1), sh);
        bad += check_all(x, sh);
    }
    if (!bad && unlink(file_at(x, 0)))
        die("unlink");
    printf("exerciser: %s: %u writers, %llu records of %llu bytes each: %s\n", x->o.concurrent,
           x->o.writers, (unsigned long long)x->o.records, (unsigned long long)x->o.record_size,
           bad ? "FAILED" : "fine");
    return bad != 0;
}
