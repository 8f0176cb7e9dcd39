/*
 * data: reading, writing, truncating, at any offset and in any pieces; limits of files; appending by several.
 */
#include "tests/conform/conform.h"

#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define TIB (1LL << 40)
static const long long largest = 16 * TIB - 4096; // of a file of ext4 with blocks of 4 KiB

/* One byte of a pattern that no shift repeats soon. */
static char at(long long offset)
{
    return (char)((offset * 131 + (offset >> 8) * 7 + (offset >> 16)) % 251);
}

static bool pattern(int fd, long long from, size_t n)
{
    char *b = malloc(n);
    bool good = pread(fd, b, n, from) == (ssize_t)n;
    for (size_t i = 0; good && i < n; i++)
        good = b[i] == at(from + (long long)i);
    free(b);
    return good;
}

static long long fill(int fd, long long from, size_t n)
{
    char *b = malloc(n);
    for (size_t i = 0; i < n; i++)
        b[i] = at(from + (long long)i);
    long long r = pwrite(fd, b, n, from);
    free(b);
    return r;
}

static bool zeros(int fd, long long from, size_t n)
{
    char *b = malloc(n);
    bool good = pread(fd, b, n, from) == (ssize_t)n;
    for (size_t i = 0; good && i < n; i++)
        good = b[i] == 0;
    free(b);
    return good;
}

static void sizes(void)
{
    static const size_t t[] = {1,      511,    512,     4095,    4096,    4097,   65536,
                               131071, 131073, 1048575, 1048576, 1048577, 3000001};
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("%zu bytes", t[i]);
        int fd = (int)DO(open("f", O_RDWR | O_CREAT | O_TRUNC, 0644));
        EQ(t[i], fill(fd, 0, t[i]));
        EQ(t[i], st_fd(fd).st_size);
        YES(pattern(fd, 0, t[i]));
        EQ(0, pread(fd, &(char){0}, 1, (off_t)t[i]));
        OK(close(fd));
        fd = (int)DO(open("f", O_RDONLY));
        YES(pattern(fd, 0, t[i]));
        YES(st_fd(fd).st_blocks * 512 >= (long long)t[i]);
        close(fd);
    }
}

static void positions(void)
{
    char b[64];
    put("f", "0123456789");
    int fd = (int)DO(open("f", O_RDWR)), twin = dup(fd), other = (int)DO(open("f", O_RDWR));
    EQ(3, read(fd, b, 3));
    EQ(3, lseek(twin, 0, SEEK_CUR));
    EQ(0, lseek(other, 0, SEEK_CUR));
    EQ(2, write(twin, "ab", 2));
    EQ(5, lseek(fd, 0, SEEK_CUR));
    EQ(4, pread(fd, b, 4, 6));
    EQ(5, lseek(fd, 0, SEEK_CUR));
    EQ(2, pwrite(fd, "yz", 2, 0));
    EQ(5, lseek(fd, 0, SEEK_CUR));
    EQ(10, lseek(fd, 0, SEEK_END));
    EQ(0, read(fd, b, 1));
    EQ(7, lseek(fd, -3, SEEK_END));
    EQ(3, read(fd, b, 64));
    EQ(20, lseek(fd, 10, SEEK_END));
    EQ(0, read(fd, b, 1));
    EQ(10, st_fd(fd).st_size); // seeking alone changes nothing
    ERR(EINVAL, lseek(fd, -1, SEEK_SET));
    ERR(EINVAL, lseek(fd, -21, SEEK_CUR));
    ERR(EINVAL, lseek(fd, 0, 99));
    ERR(EINVAL, lseek(fd, largest + 1, SEEK_SET));
    EQ(largest, lseek(fd, largest, SEEK_SET));
    EQ(0, read(fd, b, 1));
    EQ(20, lseek(fd, 20, SEEK_SET));
    EQ(1, write(fd, "!", 1));
    EQ(21, st_fd(fd).st_size);
    YES(zeros(fd, 10, 10));
    ERR(EINVAL, pread(fd, b, 1, -1));
    ERR(EINVAL, pwrite(fd, b, 1, -1));
    EQ(0, pread(fd, b, 0, 0));
    EQ(0, pwrite(fd, b, 0, 5));
    EQ(21, st_fd(fd).st_size);
    EQ(0, pwrite(fd, b, 0, 500)); // writing nothing past the end makes nothing
    EQ(21, st_fd(fd).st_size);
    pid_t pid;
    DO(lseek(fd, 0, SEEK_SET));
    CHILD(pid)
    {
        DO(read(fd, b, 5));
    }
    JOIN(pid);
    EQ(5, lseek(fd, 0, SEEK_CUR)); // a child shares it
}

static void vectors(void)
{
    char a[8] = "", b[8] = "", c[8] = "";
    struct iovec out[4] = {{"one", 3}, {NULL, 0}, {"two", 3}, {"three", 5}};
    struct iovec in[3] = {{a, 2}, {b, 6}, {c, 8}};
    int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644));
    EQ(11, writev(fd, out, 4));
    YES(holds("f", "onetwothree"));
    DO(lseek(fd, 0, SEEK_SET));
    EQ(11, readv(fd, in, 3));
    YES(!memcmp(a, "on", 2) && !memcmp(b, "etwoth", 6) && !memcmp(c, "ree", 3));
    EQ(11, lseek(fd, 0, SEEK_CUR));
    EQ(8, preadv(fd, in, 2, 3));
    YES(!memcmp(a, "tw", 2) && !memcmp(b, "othree", 6));
    EQ(11, pwritev(fd, out, 4, 8));
    YES(holds("f", "onetwothonetwothree"));
    EQ(11, lseek(fd, 0, SEEK_CUR));
    EQ(0, writev(fd, out, 0));
    volatile int too_few = -1,
                 too_many = IOV_MAX + 1; // hidden from the compiler, which would refuse them too
    ERR(EINVAL, writev(fd, out, too_few));
    ERR(EINVAL, readv(fd, in, too_many));
    static struct iovec many[IOV_MAX];
    for (int i = 0; i < IOV_MAX; i++)
        many[i] = (struct iovec){"m", 1};
    EQ(IOV_MAX, pwritev(fd, many, IOV_MAX, 0));
    EQ(IOV_MAX, st_fd(fd).st_size);
    EQ(4, pwritev2(fd, (struct iovec[1]){{"tail", 4}}, 1, 0, RWF_APPEND));
    EQ(IOV_MAX + 4, st_fd(fd).st_size);
    EQ(4, pwritev2(fd, (struct iovec[1]){{"head", 4}}, 1, 0, RWF_DSYNC));
    EQ(4, pwritev2(fd, (struct iovec[1]){{"HEAD", 4}}, 1, 0, RWF_SYNC));
    EQ(4, preadv2(fd, (struct iovec[1]){{a, 4}}, 1, 0, 0));
    YES(!memcmp(a, "HEAD", 4));
}

static void offsets(void)
{
    static const long long t[] = {4095,
                                  4096,
                                  65535,
                                  (1LL << 26) - 1,
                                  (1LL << 26),
                                  (1LL << 31) - 1,
                                  1LL << 31,
                                  (1LL << 32) - 1,
                                  1LL << 32,
                                  TIB - 1,
                                  8 * TIB + 12345,
                                  16 * TIB - 8192,
                                  16 * TIB - 4100};
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("offset %lld", t[i]);
        int fd = (int)DO(open("f", O_RDWR | O_CREAT | O_TRUNC, 0644));
        EQ(3, pwrite(fd, "abc", 3, t[i]));
        EQ(t[i] + 3, st_fd(fd).st_size);
        char b[8];
        EQ(3, pread(fd, b, 8, t[i]));
        YES(!memcmp(b, "abc", 3));
        YES(zeros(fd, t[i] - 5, 5));
        YES(zeros(fd, 0, 10));
        YES(st_fd(fd).st_blocks < 1000);
        OK(close(fd));
        fd = (int)DO(open("f", O_RDONLY));
        EQ(3, pread(fd, b, 8, t[i]));
        EQ(0, pread(fd, b, 8, t[i] + 3));
        close(fd);
    }
}

static void far_end(void)
{
    int fd = (int)DO(open("f", O_RDWR | O_CREAT | O_TRUNC, 0644));
    signal(SIGXFSZ, SIG_IGN);
    EQ(2, pwrite(fd, "xy", 2, largest - 2));
    EQ(largest, st_fd(fd).st_size);
    ERR(EFBIG, pwrite(fd, "z", 1, largest));
    EQ(1, pwrite(fd, "zzz", 3, largest - 1)); // what fits
    EQ(largest, st_fd(fd).st_size);
    ERR(EFBIG, pwrite(fd, "z", 1, largest + 4096));
    ERR(EFBIG, ftruncate(fd, largest + 1));
    ERR(EFBIG, truncate("f", LLONG_MAX));
    OK(ftruncate(fd, largest));
    EQ(0, pwrite(fd, "", 0, largest));
    ERR(EINVAL, pwrite(fd, "z", 1, LLONG_MAX));
    OK(ftruncate(fd, 0));
    OK(ftruncate(fd, largest));
    EQ(largest, st_fd(fd).st_size);
    YES(zeros(fd, largest - 100, 100));
    EQ(0, st_fd(fd).st_blocks);
}

static void file_size_limit(void)
{
    pid_t pid;
    CHILD(pid)
    {
        struct rlimit l = {10000, 10000};
        DO(setrlimit(RLIMIT_FSIZE, &l));
        signal(SIGXFSZ, SIG_IGN);
        int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644));
        static char b[20000];
        EQ(10000, write(fd, b, sizeof(b)));
        ERR(EFBIG, write(fd, b, 1));
        ERR(EFBIG, ftruncate(fd, 10001));
        OK(ftruncate(fd, 10000));
        EQ(1, pwrite(fd, b, 1, 9999));
        ERR(EFBIG, fallocate(fd, 0, 9000, 2000));
        EQ(10000, st_fd(fd).st_size);
    }
    JOIN(pid);
    CHILD(pid)
    {
        struct rlimit l = {10, 10};
        DO(setrlimit(RLIMIT_FSIZE, &l));
        pid_t inner;
        if ((inner = fork()) == 0) {
            int fd = open("g", O_RDWR | O_CREAT, 0644);
            _exit(pwrite(fd, "x", 1, 10) == 1);
        }
        siginfo_t info;
        DO(waitid(P_PID, (id_t)inner, &info, WEXITED));
        EQ(CLD_KILLED, info.si_code == CLD_DUMPED ? CLD_KILLED : info.si_code);
        EQ(SIGXFSZ, info.si_status);
    }
    JOIN(pid);
}

static void truncating(void)
{
    int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644));
    DO(fill(fd, 0, 100000));
    OK(ftruncate(fd, 50001));
    EQ(50001, st_fd(fd).st_size);
    YES(pattern(fd, 0, 50001));
    OK(ftruncate(fd, 100000)); // what comes back is zero
    YES(zeros(fd, 50001, 49999));
    YES(pattern(fd, 0, 50001));
    OK(ftruncate(fd, 10));
    OK(ftruncate(fd, 4096));
    YES(zeros(fd, 10, 4086));
    DO(pwrite(fd, "end", 3, 8000));
    YES(zeros(fd, 4096, 3904));
    OK(truncate("f", 0));
    EQ(0, st_fd(fd).st_size);
    EQ(0, pread(fd, &(char){0}, 1, 0));
    EQ(0, st_fd(fd).st_blocks);
    OK(truncate("f", 5));
    YES(zeros(fd, 0, 5));
    DO(close(fd));
    fd = (int)DO(open("f", O_RDWR));
    YES(zeros(fd, 0, 5));
    // unflushed bytes past the new end do not come back
    DO(fill(fd, 0, 30000));
    DO(ftruncate(fd, 7));
    DO(fsync(fd));
    DO(ftruncate(fd, 30000));
    YES(zeros(fd, 7, 29993));
    DO(close(fd));
    fd = (int)DO(open("f", O_RDWR));
    YES(pattern(fd, 0, 7) && zeros(fd, 7, 29993));
    ERR(EINVAL, ftruncate(fd, -5));
    DO(mkdir("d", 0755));
    DO(mkfifo("p", 0644));
    ERR(EISDIR, truncate("d", 0));
    ERR(EINVAL, truncate("p", 0));
    ERR(EINVAL, truncate("f", -1));
    int pipefd[2];
    DO(pipe(pipefd));
    ERR(EINVAL, ftruncate(pipefd[1], 0));
}

static void overwriting(void)
{
    int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644));
    DO(fill(fd, 0, 200000));
    DO(pwrite(fd, "@@@@@", 5, 99998));
    YES(pattern(fd, 0, 99998) && pattern(fd, 100003, 99997));
    DO(fsync(fd));
    char b[16];
    EQ(5, pread(fd, b, 5, 99998));
    YES(!memcmp(b, "@@@@@", 5));
    for (int i = 0; i < 300; i++) // small ones all over
        DO(pwrite(fd, "#", 1, (i * 7919) % 200000));
    DO(close(fd));
    fd = (int)DO(open("f", O_RDONLY));
    int bad = 0;
    for (int i = 0; i < 300; i++)
        bad += pread(fd, b, 1, (i * 7919) % 200000) != 1 || b[0] != '#';
    EQ(0, bad);
    EQ(200000, st_fd(fd).st_size);
    // another reader sees each write at once
    int w = (int)DO(open("f", O_WRONLY));
    for (int i = 0; i < 50; i++) {
        char c = (char)i, d = 99;
        DO(pwrite(w, &c, 1, 1000));
        bad += pread(fd, &d, 1, 1000) != 1 || c != d;
    }
    EQ(0, bad);
}

/* Four processes append records; each comes out whole and none is lost. */
static void appending(void)
{
    enum { PROCESSES = 4, RECORDS = 150, LENGTH = 100 };
    put("f", "");
    pid_t pid[PROCESSES];
    for (int k = 0; k < PROCESSES; k++)
        CHILD(pid[k])
        {
            char record[LENGTH + 1];
            int fd = (int)DO(open("f", O_WRONLY | O_APPEND));
            for (int i = 0; i < RECORDS; i++) {
                snprintf(record, sizeof(record), "%d %04d %0*d\n", k, i, LENGTH - 8, i * k);
                if (write(fd, record, LENGTH) != LENGTH)
                    EQ(LENGTH, -1);
            }
            OK(close(fd));
        }
    for (int k = 0; k < PROCESSES; k++)
        JOIN(pid[k]);
    EQ(PROCESSES * RECORDS * LENGTH, size_of("f"));
    FILE *f = fopen("f", "re");
    int next[PROCESSES] = {0}, torn = 0, lost = 0, k, i, v;
    char line[300];
    while (f && fgets(line, sizeof(line), f)) {
        if (strlen(line) != LENGTH || sscanf(line, "%d %d %d", &k, &i, &v) != 3 || k >= PROCESSES ||
            v != i * k) {
            torn++;
            continue;
        }
        lost += next[k]++ != i; // of one process they come in order
    }
    EQ(0, torn);
    EQ(0, lost);
    for (k = 0; k < PROCESSES; k++) {
        NOTE("process %d", k);
        EQ(RECORDS, next[k]);
    }
    if (f)
        fclose(f);
}

static void copying(void)
{
    int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644)),
        to = (int)DO(open("g", O_RDWR | O_CREAT, 0644)), p[2];
    DO(fill(fd, 0, 150000));
    off_t at_off = 1000;
    long long sent = 0, n;
    while (sent < 149000 && (n = sendfile(to, fd, &at_off, (size_t)(149000 - sent))) > 0)
        sent += n;
    EQ(149000, sent);
    EQ(150000, at_off);
    EQ(149000, st_fd(to).st_size);
    char a[100], b[100];
    YES(pread(fd, a, 100, 51000) == 100 && pread(to, b, 100, 50000) == 100 && !memcmp(a, b, 100));
    DO(pipe(p));
    at_off = 777;
    EQ(500, splice(fd, &at_off, p[1], NULL, 500, 0));
    EQ(500, splice(p[0], NULL, to, (off_t[]){0}, 500, 0));
    YES(pread(fd, a, 100, 777) == 100 && pread(to, b, 100, 0) == 100 && !memcmp(a, b, 100));
    OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) ? -1 : 0);
    OK(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL) ? -1 : 0);
    OK(readahead(fd, 0, 100000));
    YES(pattern(fd, 0, 150000));
}

static void many_open(void)
{
    // several descriptors and both kinds of access on one file at the same time
    int fd[20];
    put("f", "");
    for (int i = 0; i < 20; i++)
        fd[i] = (int)DO(open("f", i % 2 ? O_RDWR : O_WRONLY));
    for (int i = 0; i < 20; i++)
        DO(pwrite(fd[i], (char[]){(char)('a' + i)}, 1, i));
    YES(holds("f", "abcdefghijklmnopqrst"));
    for (int i = 0; i < 20; i += 2)
        DO(close(fd[i]));
    char b[21] = "";
    EQ(20, pread(fd[1], b, 20, 0));
    STR("abcdefghijklmnopqrst", b);
    for (int i = 1; i < 20; i += 2)
        DO(close(fd[i]));
    YES(holds("f", "abcdefghijklmnopqrst"));
}

AREA(data, {"sizes", sizes}, {"positions", positions}, {"vectors", vectors}, {"offsets", offsets},
     {"far-end", far_end}, {"file-size-limit", file_size_limit}, {"truncating", truncating},
     {"overwriting", overwriting}, {"appending", appending}, {"copying", copying},
     {"many-open", many_open});
