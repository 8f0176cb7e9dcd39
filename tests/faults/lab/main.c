/* fault_lab: what tests/faults/run starts.
 *
 *   fault_lab load MNT BOARD NAME SEED WORKERS FIRST   WORKERS workers in MNT/NAME.wK with the journals BOARD/NAME.wK, numbers from
 *                                            FIRST on, and two that take locks in MNT/locks, until BOARD/stop is there
 *   fault_lab check MNT JOURNAL WORKER forgot|kept [SEEN]    compares MNT/(the journal's name) with JOURNAL
 *   fault_lab again SEEN                     compares with what an earlier check saw
 *
 * BOARD/violations and BOARD/errors get a line for each. Exit code 1: differences. A thread for each worker, which share
 * nothing but these files. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lab.h"

uint32_t random_below(struct random *r, uint32_t below)
{
    r->x += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = r->x;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32) % below;
}

uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void put_line(const struct board *b, const char *file, const char *text)
{
    char path[PATH_MAX], line[1024];
    snprintf(path, sizeof path, "%s/%s", b->dir, file);
    int n =
        snprintf(line, sizeof line, "%llu %s %s\n", (unsigned long long)wall_ms(), b->name, text);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0 || write(fd, line, (size_t)n) != n)
        abort();
    close(fd);
}

void board_violation(const struct board *b, const char *fmt, ...)
{
    char text[900];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    put_line(b, "violations", text);
}

void board_error(const struct board *b, const char *what, int error)
{
    char text[200];
    snprintf(text, sizeof text, "%s: %s", strerrorname_np(error) ? strerrorname_np(error) : "?",
             what);
    put_line(b, "errors", text);
}

int board_has(const struct board *b, const char *file)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", b->dir, file);
    return access(path, F_OK) == 0;
}

int board_stopped(const struct board *b)
{
    return board_has(b, "stop");
}

/* -- load ------------------------------------------------------------------------------------------ */
struct thread {
    pthread_t id;
    const struct board *board;
    char root[PATH_MAX], journal[PATH_MAX]; /* journal: of the witness for locks */
    uint32_t worker;                        /* 0: locks */
    uint64_t seed;
};

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    if (t->worker)
        work_run(t->board, t->root, t->journal, t->worker, t->seed);
    else
        locks_run(t->board, t->root, t->journal, t->seed);
    return NULL;
}

static int load(char **argv)
{
    const char *mnt = argv[0], *dir = argv[1], *name = argv[2];
    struct board board = {dir, name};
    uint64_t seed = strtoull(argv[3], NULL, 10);
    uint32_t workers = (uint32_t)atoi(argv[4]), first = (uint32_t)atoi(argv[5]), n = workers + 2;
    struct thread *all = calloc(n, sizeof *all);
    if (!all)
        return 2;
    for (uint32_t i = 0; i < n; i++) {
        struct thread *t = &all[i];
        t->board = &board;
        t->seed = seed + i;
        if (i < workers) {
            t->worker = first + i;
            snprintf(t->root, sizeof t->root, "%s/%s.w%u", mnt, name, t->worker);
            snprintf(t->journal, sizeof t->journal, "%s/%s.w%u", dir, name, t->worker);
        } else {
            snprintf(t->root, sizeof t->root, "%s/locks", mnt);
            snprintf(t->journal, sizeof t->journal, "%s/witness", dir);
        }
        if (pthread_create(&t->id, NULL, thread_main, t))
            abort();
    }
    for (uint32_t i = 0; i < n; i++)
        pthread_join(all[i].id, NULL);
    free(all);
    return 0;
}

static int check(int argc, char **argv)
{
    char root[PATH_MAX], copy[PATH_MAX];
    FILE *seen = argc > 4 ? fopen(argv[4], "a") : NULL;
    snprintf(copy, sizeof copy, "%s", argv[1]);
    snprintf(root, sizeof root, "%s/%s", argv[0], basename(copy));
    int wrong =
        check_run(root, argv[1], (uint32_t)atoi(argv[2]), strcmp(argv[3], "forgot") == 0, seen);
    if (seen)
        fclose(seen);
    return wrong ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 8 && strcmp(argv[1], "load") == 0)
        return load(argv + 2);
    if (argc >= 6 && strcmp(argv[1], "check") == 0)
        return check(argc - 2, argv + 2);
    if (argc == 3 && strcmp(argv[1], "again") == 0)
        return check_again(argv[2]) ? 1 : 0;
    fprintf(stderr, "fault_lab load|check|again: see main.c\n");
    return 2;
}
