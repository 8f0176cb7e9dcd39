/* Makes many files in one directory, from one or more processes: each creates, writes and closes its
 * share; or reads them. tests/bench/million and tests/bench/run drive it.
 *
 *   bench_many DIR COUNT PROCESSES [SIZE [read]]     SIZE in bytes, default 0
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

static char block[1 << 20];

static void file_name(char name[32], unsigned long i)
{
    snprintf(name, 32, "file-%08lu", i);
}

static void make(int dir, unsigned long from, unsigned long to, unsigned long size)
{
    char name[32];
    for (unsigned long i = from; i < to; i++) {
        file_name(name, i);
        int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
            die(name);
        for (unsigned long left = size; left;) {
            ssize_t n = write(fd, block, left < sizeof block ? left : sizeof block);
            if (n <= 0)
                die(name);
            left -= (unsigned long)n;
        }
        if (close(fd))
            die(name);
    }
}

static void look(int dir, unsigned long from, unsigned long to, unsigned long size)
{
    char name[32];
    for (unsigned long i = from; i < to; i++) {
        unsigned long got = 0;
        ssize_t n;
        file_name(name, i);
        int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            die(name);
        while ((n = read(fd, block, sizeof block)) > 0)
            got += (unsigned long)n;
        if (n == 0 && got != size)
            errno = EIO;
        if (n < 0 || got != size || close(fd))
            die(name);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 6) {
        fprintf(stderr, "usage: bench_many DIR COUNT PROCESSES [SIZE [read]]\n");
        return 2;
    }
    unsigned long count = strtoul(argv[2], NULL, 10), procs = strtoul(argv[3], NULL, 10);
    unsigned long size = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
    int dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC), status, bad = 0;
    if (dir < 0 || !procs)
        die(argv[1]);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(i * 2654435761u >> 13);
    for (unsigned long p = 0; p < procs; p++) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork");
        if (pid == 0) {
            (argc > 5 ? look : make)(dir, count * p / procs, count * (p + 1) / procs, size);
            return 0;
        }
    }
    while (wait(&status) > 0)
        bad |= status;
    return bad != 0;
}
