/*
 * ranges: copy_file_range, and the calls that flush a range.
 */
#include "tests/conform/conform.h"

enum { N = 300000 };
static char source[N], target[N];
static int in, out;

static void scene(void)
{
    for (int i = 0; i < N; i++)
        source[i] = (char)((i * 31 + i / 253) % 249);
    in = (int)DO(open("in", O_RDWR | O_CREAT | O_TRUNC, 0644));
    out = (int)DO(open("out", O_RDWR | O_CREAT | O_TRUNC, 0644));
    DO(pwrite(in, source, N, 0));
}

/* All of it, although one call may do less. */
static long long copy(int from, off_t a, int to, off_t b, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t r = copy_file_range(from, &a, to, &b, n - done, 0);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        done += (size_t)r;
    }
    return (long long)done;
}

static bool same(int fd, off_t at, const char *want, size_t n)
{
    return pread(fd, target, n, at) == (ssize_t)n && !memcmp(target, want, n);
}

static void copying(void)
{
    static const struct {
        const char *name;
        off_t from, to;
        size_t n, copied;
    } t[] = {
        {"all", 0, 0, N, N},
        {"a part", 4096, 0, 8192, 8192},
        {"unaligned", 777, 12345, 100001, 100001},
        {"up to the end", N - 10, 5, 100, 10},
        {"at the end", N, 0, 10, 0},
        {"past the end", N + 100, 0, 10, 0},
        {"nothing", 0, 0, 0, 0},
        {"far out", 100, 1LL << 33, 1000, 1000},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        scene();
        NOTE("%s", t[i].name);
        EQ(t[i].copied, copy(in, t[i].from, out, t[i].to, t[i].n));
        EQ(t[i].copied ? t[i].to + (off_t)t[i].copied : 0, st_fd(out).st_size);
        YES(same(out, t[i].to, source + (t[i].copied ? t[i].from : 0), t[i].copied));
        EQ(N, st_fd(in).st_size);
        DO(close(out));
        out = (int)DO(open("out", O_RDWR));
        YES(same(out, t[i].to, source + (t[i].copied ? t[i].from : 0), t[i].copied));
        close(in);
        close(out);
    }
}

static void independent(void)
{
    scene();
    NEED(copy(in, 0, out, 0, N));
    DO(pwrite(in, "changed", 7, 1000)); // a copy is a copy
    YES(same(out, 0, source, N));
    DO(pwrite(out, "differently", 11, 50000));
    YES(same(in, 50000, source + 50000, 11));
    DO(ftruncate(in, 0));
    YES(same(out, 100000, source + 100000, 200000));
    DO(unlink("in"));
    DO(close(in));
    YES(same(out, 100000, source + 100000, 200000));
}

static void offsets(void)
{
    scene();
    DO(lseek(in, 100, SEEK_SET));
    DO(lseek(out, 50, SEEK_SET));
    EQ(20, copy_file_range(in, NULL, out, NULL, 20, 0));
    EQ(120, lseek(in, 0, SEEK_CUR));
    EQ(70, lseek(out, 0, SEEK_CUR));
    YES(same(out, 50, source + 100, 20));
    off_t a = 5;
    EQ(20, copy_file_range(in, &a, out, NULL, 20, 0));
    EQ(25, a);
    EQ(120, lseek(in, 0, SEEK_CUR));
    EQ(90, lseek(out, 0, SEEK_CUR));
    off_t b = 1000;
    EQ(20, copy_file_range(in, NULL, out, &b, 20, 0));
    EQ(1020, b);
    EQ(140, lseek(in, 0, SEEK_CUR));
}

static void one_file(void)
{
    scene();
    EQ(1000, copy(in, 0, in, N, 1000));
    EQ(N + 1000, st_fd(in).st_size);
    YES(same(in, N, source, 1000));
    off_t a = 0, b = 500;
    ERR(EINVAL, copy_file_range(in, &a, in, &b, 1000, 0)); // overlaps
    a = 500, b = 0;
    ERR(EINVAL, copy_file_range(in, &a, in, &b, 1000, 0));
    a = 0, b = 1000;
    EQ(1000, copy_file_range(in, &a, in, &b, 1000, 0)); // touches only
    YES(same(in, 1000, source, 1000));
}

static void holes(void)
{
    scene();
    DO(ftruncate(in, 0));
    DO(ftruncate(in, N));
    DO(pwrite(in, source, 100, 200000));
    DO(pwrite(out, source, N, 0));
    EQ(N, copy(in, 0, out, 0, N));
    static char zero[200000];
    YES(same(out, 0, zero, 200000)); // holes overwrite too
    YES(same(out, 200000, source, 100));
    YES(same(out, 200100, zero, N - 200100));
}

static void refusals(void)
{
    scene();
    int reader = (int)DO(open("out", O_RDONLY)), writer = (int)DO(open("in", O_WRONLY)),
        appender = (int)DO(open("out", O_WRONLY | O_APPEND)),
        dir = (int)DO(open(".", O_RDONLY | O_DIRECTORY)), p[2];
    DO(pipe(p));
    ERR(EBADF, copy_file_range(in, NULL, reader, NULL, 10, 0));
    ERR(EBADF, copy_file_range(writer, NULL, out, NULL, 10, 0));
    ERR(EBADF, copy_file_range(in, NULL, appender, NULL, 10, 0));
    ERR(EISDIR, copy_file_range(dir, NULL, out, NULL, 10, 0));
    ERR(EINVAL, copy_file_range(p[0], NULL, out, NULL, 10, 0));
    ERR(EINVAL, copy_file_range(in, NULL, out, NULL, 10, 1));
    off_t minus = -1;
    ERR(EOVERFLOW, copy_file_range(in, &minus, out, NULL, 10, 0));
    off_t far = (16LL << 40) - 4096, zero = 0;
    ERR(EFBIG, copy_file_range(in, &zero, out, &far, 10, 0));
    EQ(0, st_fd(out).st_size);
}

static void flushing(void)
{
    scene();
    OK(sync_file_range(in, 0, 4096, SYNC_FILE_RANGE_WRITE));
    OK(sync_file_range(in, 0, 0,
                       SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                           SYNC_FILE_RANGE_WAIT_AFTER));
    ERR(EINVAL, sync_file_range(in, -1, 10, SYNC_FILE_RANGE_WRITE));
    ERR(EINVAL, sync_file_range(in, 0, 10, 64));
    OK(fsync(in));
    OK(fdatasync(in));
    OK(syncfs(in));
    int dir = (int)DO(open(".", O_RDONLY | O_DIRECTORY));
    OK(fsync(dir));
    OK(fdatasync(dir));
    OK(syncfs(dir));
    int reader = (int)DO(open("in", O_RDONLY));
    OK(fsync(reader));
    int p[2];
    DO(pipe(p));
    ERR(EINVAL, fsync(p[1]));
    ERR(EBADF, fsync(999));
    ERR(EBADF, syncfs(999));
    DO(mkfifo("p", 0644));
    int fifo = (int)DO(open("p", O_RDWR));
    ERR(EINVAL, fsync(fifo));
    DO(unlink("in"));
    OK(fsync(in));
    DO(mkdir("d", 0755));
    int gone = (int)DO(open("d", O_RDONLY | O_DIRECTORY));
    DO(rmdir("d"));
    OK(fsync(gone));
}

AREA(ranges, {"copying", copying}, {"independent", independent}, {"offsets", offsets},
     {"one-file", one_file}, {"holes", holes}, {"refusals", refusals}, {"flushing", flushing});
