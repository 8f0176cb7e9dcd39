/* probes: how long single calls of programs on a mount take, every 50 ms, until it is told to end.
 *
 *     bench_probes DIR OTHER LIST       DIR: a directory; OTHER: the same one through a second mount;
 *                                       LIST: names of files in DIR, one a line, each read once
 *
 * Four kinds, each in a thread of its own:
 *     create   makes a file in DIR/alone, which only this mount uses
 *     shared   makes a file in DIR/shared through DIR and OTHER in turn, so that no mount owns the directory
 *     read     opens and reads the next file of LIST, which nobody has read before
 *     fsync    appends 4 KiB to DIR/log and syncs it
 * Each call is one line on standard output: kind, CLOCK_MONOTONIC in ns before and behind it, errno. A call
 * that takes longer than 50 ms is followed at once by the next. A signal ends it. Lines are written whole by one
 * write(2), so threads need no lock. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EVERY_NS 50000000u
#define PATH_BYTES 4096u

struct probe {
    const char *kind;
    int (*call)(struct probe *p); /* 0, or an errno */
    const char *dir, *other;
    uint64_t n;
    int fd;
    FILE *list;
};

static uint64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int make_file(const char *dir, const char *sub, uint64_t n)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s/%d.%" PRIu64, dir, sub, (int)getpid(), n);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    return close(fd) ? errno : 0;
}

static int probe_create(struct probe *p)
{
    return make_file(p->dir, "alone", p->n);
}

static int probe_shared(struct probe *p)
{
    return make_file(p->n & 1 ? p->dir : p->other, "shared", p->n);
}

static int probe_read(struct probe *p)
{
    char name[256], path[PATH_BYTES], data[4096];
    if (!fgets(name, sizeof name, p->list))
        return ENODATA; /* LIST was too short */
    name[strcspn(name, "\n")] = 0;
    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = read(fd, data, sizeof data) < 0 ? errno : 0;
    close(fd);
    return error;
}

static int probe_fsync(struct probe *p)
{
    static char data[4096];
    if (p->fd < 0) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/log", p->dir);
        p->fd = open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
    }
    if (p->fd < 0 || write(p->fd, data, sizeof data) != sizeof data || fsync(p->fd))
        return errno;
    return 0;
}

static void *probe_run(void *arg)
{
    struct probe *p = arg;
    uint64_t due = monotonic();
    for (;; p->n++) {
        char line[128];
        uint64_t begin = monotonic();
        int error = p->call(p), n;
        uint64_t end = monotonic();
        n = snprintf(line, sizeof line, "%s %" PRIu64 " %" PRIu64 " %d\n", p->kind, begin, end,
                     error);
        if (write(STDOUT_FILENO, line, (size_t)n) != n)
            _exit(1);
        due = due + EVERY_NS > end ? due + EVERY_NS : end;
        if (due > end) {
            struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct probe probes[] = {
        {.kind = "create", .call = probe_create},
        {.kind = "shared", .call = probe_shared},
        {.kind = "read", .call = probe_read},
        {.kind = "fsync", .call = probe_fsync},
    };
    char path[PATH_BYTES];
    pthread_t thread;
    if (argc != 4) {
        fprintf(stderr, "usage: bench_probes DIR OTHER LIST\n");
        return 2;
    }
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", argv[1], i ? "shared" : "alone");
        if (mkdir(path, 0755) && errno != EEXIST) {
            perror(path);
            return 1;
        }
    }
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
        probes[i].dir = argv[1];
        probes[i].other = argv[2];
        probes[i].fd = -1;
        probes[i].list = fopen(argv[3], "r");
        if (!probes[i].list) {
            perror(argv[3]);
            return 1;
        }
        if (pthread_create(&thread, NULL, probe_run, &probes[i]))
            return 1;
    }
    pause(); /* calls that still wait then are not waited for */
    return 0;
}
