/* Listing a directory while others add to it and remove from it.
 *
 * Some names are never touched: every listing must show each of them exactly once, whatever comes
 * and goes around them. Between listings seekdir goes back to places that telldir gave, where the
 * next untouched name must be the one that was there. Other processes create, rename and remove
 * names of their own all the time, through the other mount when there are two. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exerciser.h"

#define UNTOUCHED 4000u
#define COMING 500u /* names of each writer */
#define SEEKS 50u   /* after each listing */

struct listing {
    DIR *dir;
    uint64_t bad;
    uint8_t seen[UNTOUCHED];
    long at[UNTOUCHED]; /* telldir before the name */
    uint32_t order[UNTOUCHED];
    uint32_t n;
};

static char base[4096];

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "exerciser: %s: %s: %s\n", base, what, strerror(errno));
    exit(1);
}

static int open_dir(const struct exerciser *x, unsigned mount)
{
    snprintf(base, sizeof base, "%s/exerciser-listing-%llu", x->o.dirs[mount],
             (unsigned long long)x->o.seed);
    int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die("open");
    return fd;
}

static void make(int dir, const char *name)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || close(fd))
        die(name);
}

static void rename_one(int dir, const char *from)
{
    char to[NAME_BYTES + 16];
    snprintf(to, sizeof to, "%s-renamed", from);
    if (renameat(dir, from, dir, to) && errno != ENOENT)
        die(from);
    if (unlinkat(dir, to, 0) && errno != ENOENT)
        die(to);
}

/* Until told: what a killed one had begun may be done when it has gone (replfs(7)). */
_Noreturn static void come_and_go(struct exerciser *x, unsigned w, const atomic_bool *stop)
{
    int dir = open_dir(x, w % x->o.mounts);
    while (!atomic_load(stop)) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "coming-%u-%llu", w, (unsigned long long)below(x, COMING));
        switch (below(x, 5)) {
        case 0:
            rename_one(dir, name);
            break;
        case 1:
        case 2:
            if (unlinkat(dir, name, 0) && errno != ENOENT)
                die(name);
            break;
        default:
            make(dir, name);
        }
    }
    _exit(0);
}

/* The number of an untouched name, or UNTOUCHED. */
static unsigned number_of(const char *name)
{
    if (strncmp(name, "stays-", 6) != 0)
        return UNTOUCHED;
    unsigned long n = strtoul(name + 6, NULL, 10);
    return n < UNTOUCHED ? (unsigned)n : UNTOUCHED;
}

static void complain(struct listing *l, unsigned n, const char *what)
{
    if (l->bad++ < 20)
        printf("exerciser: %s: stays-%u %s\n", base, n, what);
}

static void list_once(struct listing *l)
{
    struct dirent *e;
    memset(l->seen, 0, sizeof l->seen);
    l->n = 0;
    rewinddir(l->dir);
    for (long at = telldir(l->dir); errno = 0, (e = readdir(l->dir)); at = telldir(l->dir)) {
        unsigned n = number_of(e->d_name);
        if (n == UNTOUCHED)
            continue;
        if (l->seen[n]++) {
            complain(l, n, "was listed twice");
            continue;
        }
        l->at[l->n] = at;
        l->order[l->n++] = n;
    }
    if (errno)
        die("readdir");
    for (unsigned n = 0; n < UNTOUCHED; n++) {
        if (!l->seen[n])
            complain(l, n, "was not listed");
    }
}

static void seek_back(struct exerciser *x, struct listing *l)
{
    for (unsigned i = 0; i < SEEKS && l->n; i++) {
        struct dirent *e;
        uint64_t k = below(x, l->n);
        unsigned n = UNTOUCHED;
        seekdir(l->dir, l->at[k]);
        while (n == UNTOUCHED && (e = readdir(l->dir)))
            n = number_of(e->d_name);
        if (n != l->order[k])
            complain(l, l->order[k], "was not where telldir had seen it");
    }
}

static void remove_all(int dir)
{
    struct dirent *e;
    DIR *d = fdopendir(dup(dir));
    if (!d)
        die("fdopendir");
    rewinddir(d);
    while ((e = readdir(d))) {
        if (e->d_name[0] != '.' && unlinkat(dir, e->d_name, 0))
            die(e->d_name);
    }
    int rc = rmdir(base), err = errno;
    if (rc && err == ENOTEMPTY) {
        rewinddir(d);
        while ((e = readdir(d)))
            if (e->d_name[0] != '.')
                printf("exerciser: %s: %s is there although all was removed\n", base, e->d_name);
    }
    closedir(d);
    errno = err;
    if (rc)
        die("rmdir");
}

int listing_run(struct exerciser *x)
{
    static struct listing l;
    pid_t pids[64];
    char name[NAME_BYTES];
    atomic_bool *stop =
        mmap(NULL, sizeof *stop, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (stop == MAP_FAILED)
        die("mmap");
    snprintf(base, sizeof base, "%s/exerciser-listing-%llu", x->o.dirs[0],
             (unsigned long long)x->o.seed);
    if (mkdir(base, 0755))
        die("mkdir");
    int dir = open_dir(x, 0);
    for (unsigned i = 0; i < UNTOUCHED; i++) {
        snprintf(name, sizeof name, "stays-%u", i);
        make(dir, name);
    }
    fflush(stdout);
    for (unsigned i = 0; i < x->o.writers; i++) {
        pids[i] = fork();
        if (pids[i] < 0)
            die("fork");
        x->rnd = mix(x->o.seed) ^ mix(i);
        if (pids[i] == 0)
            come_and_go(x, i, stop);
    }
    l.dir = fdopendir(dup(dir));
    if (!l.dir)
        die("fdopendir");
    for (uint64_t i = 0; i < x->o.records; i++) {
        list_once(&l);
        seek_back(x, &l);
    }
    closedir(l.dir);
    atomic_store(stop, true);
    for (unsigned i = 0; i < x->o.writers; i++) {
        int status;
        if (waitpid(pids[i], &status, 0) != pids[i] || status != 0)
            l.bad++; /* it met an error, and said so */
    }
    if (!l.bad)
        remove_all(dir);
    close(dir);
    munmap(stop, sizeof *stop);
    printf("exerciser: listing: %llu listings of %u names with %u writers: %s\n",
           (unsigned long long)x->o.records, UNTOUCHED, x->o.writers, l.bad ? "FAILED" : "fine");
    return l.bad != 0;
}
