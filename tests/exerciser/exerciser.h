/* Random operations on a file system, each compared with a model in memory. What the parts of the
 * program share; main.c tells how they play together. Nothing here knows replfs: the same program
 * runs on any file system. */
#ifndef EXERCISER_H
#define EXERCISER_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

#define FILES 2u       /* under test; copies go between them */
#define MOUNTS_MAX 2u  /* of one file system */
#define EVENTS_MAX 32u /* commands to run on the way */
#define PAGE 4096u     /* alignment of direct I/O and of aligned ranges */
#define NAME_BYTES 64u

/* A file as it should be, and the handles it is tested through. */
struct xfile {
    char name[NAME_BYTES]; /* in the directory; "" when unlinked */
    uint64_t size;
    uint8_t *model;        /* max bytes; all zero from size on */
    int fd, append_fd;     /* O_RDWR; O_WRONLY | O_APPEND */
    uint8_t *map;          /* shared mapping of max bytes, kept over operations, or NULL */
    bool map_dirty;        /* written through a mapping since the last msync */
    struct timespec mtime; /* last seen */
};

/* A command of the user, run when operation `at` is reached. */
struct event {
    uint64_t at;
    bool closed; /* all files are closed meanwhile, and it is waited for */
    const char *command;
};

struct options {
    uint64_t seed, ops, replay, size, log;
    const char *dirs[MOUNTS_MAX];
    unsigned mounts;
    const char *only, *weights, *concurrent;
    bool require_all, list;
    struct event events[EVENTS_MAX];
    unsigned nevents;
    uint64_t records, record_size; /* of the concurrent mode */
    unsigned writers;
    int argc;
    char **argv; /* to print how to repeat a failure */
};

struct record { /* of the log */
    uint64_t op;
    const char *what;
    unsigned file, mount;
    uint64_t a, b, c, before, after;
};

struct exerciser {
    struct options o;
    struct xfile file[FILES];
    uint64_t op, total; /* operation under way (from 1), and how many there will be */
    uint64_t rnd;       /* state of this operation's random numbers */
    unsigned mount;     /* through which all is done now */
    unsigned serial;    /* of names */
    uint8_t *buf;       /* max bytes and a page, page-aligned */
    struct record *log; /* ring of o.log */
    unsigned weight_sum;
};

/* ---- main.c ---- */
uint64_t mix(uint64_t x);
/* A random number below n (n > 0) from the operation's own sequence. */
uint64_t below(struct exerciser *x, uint64_t n);
/* True once in n. */
bool one_in(struct exerciser *x, uint64_t n);

/* ---- model.c: what files should contain ---- */
void model_init(struct exerciser *x);
/* The bytes that operation op writes at off: every aligned word names both, so that foreign bytes
 * can be told apart. */
void pattern(uint8_t *out, uint64_t op, uint64_t off, uint64_t len);
void model_write(struct xfile *f, const uint8_t *data, uint64_t off, uint64_t len);
/* Zeros in [off, off + len) up to the end of the file. */
void model_zero(struct xfile *f, uint64_t off, uint64_t len);
void model_resize(struct xfile *f, uint64_t size);
void model_copy(struct xfile *to, uint64_t to_off, const struct xfile *from, uint64_t off,
                uint64_t len);
/* Ends the program with a report unless the n bytes at got are what the file has at off. */
void model_check(struct exerciser *x, struct xfile *f, const char *how, const uint8_t *got,
                 uint64_t off, uint64_t n);

/* ---- report.c: the log, and the end when something is wrong ---- */
void note(struct exerciser *x, const struct xfile *f, const char *what, uint64_t a, uint64_t b,
          uint64_t c);
/* Prints the message, the last operations and how to repeat; exits with 1. */
_Noreturn void fail(struct exerciser *x, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* As fail, with the error of a system call. */
_Noreturn void fail_errno(struct exerciser *x, const struct xfile *f, const char *call);
/* Prints where and how got differs from want, and whose bytes got has. */
void show_difference(const uint8_t *got, const uint8_t *want, uint64_t off, uint64_t n);

/* ---- handles.c: names and open files ---- */
void file_path(struct exerciser *x, const struct xfile *f, char *out, size_t size);
/* Opens the file (made when it has no name) through the current mount. */
void file_open(struct exerciser *x, struct xfile *f);
void file_close(struct exerciser *x, struct xfile *f);
/* A handle of its own for one operation, also of a file without name. -1 when direct I/O is
 * refused. */
int file_open_again(struct exerciser *x, struct xfile *f, int flags);
void file_check_stat(struct exerciser *x, struct xfile *f);
/* Reads the whole file through fd and compares. */
void file_check_all(struct exerciser *x, struct xfile *f, int fd, const char *how);
void op_reopen(struct exerciser *x, struct xfile *f);
void op_rename(struct exerciser *x, struct xfile *f);
void op_rename_over(struct exerciser *x, struct xfile *f);
void op_unlink(struct exerciser *x, struct xfile *f);
void op_stat(struct exerciser *x, struct xfile *f);
void op_check(struct exerciser *x, struct xfile *f);
void op_forget(struct exerciser *x, struct xfile *f);
void op_switch(struct exerciser *x, struct xfile *f);

/* ---- io.c: bytes in and out ---- */
struct range {
    uint64_t off, len;
};
/* A range that ends within the greatest size; len > 0. */
struct range pick_range(struct exerciser *x, const struct xfile *f, bool aligned);
void op_read(struct exerciser *x, struct xfile *f);
void op_pread(struct exerciser *x, struct xfile *f);
void op_write(struct exerciser *x, struct xfile *f);
void op_pwrite(struct exerciser *x, struct xfile *f);
void op_append(struct exerciser *x, struct xfile *f);
void op_map_read(struct exerciser *x, struct xfile *f);
void op_map_write(struct exerciser *x, struct xfile *f);
void op_direct_read(struct exerciser *x, struct xfile *f);
void op_direct_write(struct exerciser *x, struct xfile *f);
void op_fsync(struct exerciser *x, struct xfile *f);
void op_fdatasync(struct exerciser *x, struct xfile *f);

/* ---- space.c: sizes, holes and copies ---- */
void op_truncate(struct exerciser *x, struct xfile *f);
void op_reserve(struct exerciser *x, struct xfile *f);
void op_keep_size(struct exerciser *x, struct xfile *f);
void op_punch(struct exerciser *x, struct xfile *f);
void op_zero(struct exerciser *x, struct xfile *f);
void op_copy(struct exerciser *x, struct xfile *f);
void op_seek(struct exerciser *x, struct xfile *f);

/* ---- table.c: which operations there are, and which the file system has ---- */
struct operation {
    const char *name;
    unsigned weight;
    void (*run)(struct exerciser *x, struct xfile *f);
    /* Tries it in a scratch file: 0, or the errno that says it is not there. NULL: always there. */
    int (*probe)(struct exerciser *x, int fd);
    bool off; /* not there: a pread is done in its place, so that the rest of the sequence stays */
};
/* Applies --only and --weights, probes; returns false after saying what is wrong. */
bool table_prepare(struct exerciser *x);
const struct operation *table_pick(struct exerciser *x);
void table_list(void);

/* ---- concurrent.c: several processes at once ---- */
int concurrent_run(struct exerciser *x);

/* ---- listing.c: one lists a directory while others change it ---- */
int listing_run(struct exerciser *x);
#endif
