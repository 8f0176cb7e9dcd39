/* Touches memory, and gives it back at once: on a virtual machine whose host takes free pages away,
 * the first use of a page is several times slower than the second, which would be charged to
 * whatever happens to be measured first. tests/bench/run does this before it measures.
 *
 *   bench_touch MIB      at most 70 % of the memory that is available
 *
 * Prints nothing. Exit 1 with a message when the memory cannot be had. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static unsigned long available_mib(void)
{
    char line[128];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/meminfo", "re");

    while (f && !kib && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lu kB", &kib) != 1)
            kib = 0;
    if (f)
        fclose(f);
    return kib / 1024;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: bench_touch MIB\n");
        return 64;
    }
    unsigned long mib = strtoul(argv[1], NULL, 10), most = available_mib() * 7 / 10;
    if (mib > most)
        mib = most;
    if (!mib)
        return 0;
    void *p = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "bench_touch: %lu MiB: %s\n", mib, strerror(errno));
        return 1;
    }
    return 0;
}
