/* Makes many empty files in one directory, from one or more processes: each creates and closes its
 * share. tests/bench/million drives it.
 *
 *   bench_many DIR COUNT PROCESSES
 *
 * Exit 1 with a message when anything fails. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "bench_many: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void make(int dir, unsigned long from, unsigned long to)
{
    char name[32];
    for (unsigned long i = from; i < to; i++) {
        snprintf(name, sizeof name, "file-%08lu", i);
        int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0 || close(fd))
            die(name);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: bench_many DIR COUNT PROCESSES\n");
        return 2;
    }
    unsigned long count = strtoul(argv[2], NULL, 10), procs = strtoul(argv[3], NULL, 10);
    int dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC), status, bad = 0;
    if (dir < 0 || !procs)
        die(argv[1]);
    for (unsigned long p = 0; p < procs; p++) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork");
        if (pid == 0) {
            make(dir, count * p / procs, count * (p + 1) / procs);
            return 0;
        }
    }
    while (wait(&status) > 0)
        bad |= status;
    return bad != 0;
}
