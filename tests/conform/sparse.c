/*
 * sparse: holes: what they read, what they take, how they are found, and every mode of fallocate.
 */
#include "tests/conform/conform.h"

#include <linux/falloc.h>
#include <sys/statvfs.h>

enum { K = 1024, UNIT = 65536 };

static int fd;

static void fill(off_t from, size_t n, char with)
{
    char *b = malloc(n);
    memset(b, with, n);
    DO(pwrite(fd, b, n, from));
    free(b);
}

static bool all(off_t from, size_t n, char want)
{
    char *b = malloc(n);
    bool good = pread(fd, b, n, from) == (ssize_t)n;
    for (size_t i = 0; good && i < n; i++)
        good = b[i] == want;
    free(b);
    return good;
}

static void scene(const char *name)
{
    fd = (int)DO(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
}

static long long blocks(void)
{
    DO(fsync(fd));
    return st_fd(fd).st_blocks;
}

static void taking(void)
{
    scene("f");
    EQ(0, st_fd(fd).st_blocks);
    OK(ftruncate(fd, 1LL << 30));
    EQ(0, blocks());
    fill(512 * K, UNIT, 'x');
    YES(blocks() >= UNIT / 512 && blocks() <= 2 * UNIT / 512);
    EQ(1LL << 30, st_fd(fd).st_size);
    YES(all(0, UNIT, 0) && all(512 * K, UNIT, 'x') && all(512 * K + UNIT, UNIT, 0));
    fill(600000 * K, UNIT, 'y');
    YES(blocks() >= 2 * UNIT / 512 && blocks() <= 4 * UNIT / 512);
    OK(ftruncate(fd, 512 * K + UNIT));
    YES(blocks() >= UNIT / 512 && blocks() <= 2 * UNIT / 512);
    fill(512 * K, UNIT, 'z'); // overwriting takes no more
    fill(512 * K, UNIT, 'z');
    YES(blocks() >= UNIT / 512 && blocks() <= 2 * UNIT / 512);
    OK(ftruncate(fd, 0));
    EQ(0, blocks());
}

static void seeking(void)
{
    scene("f");
    ERR(ENXIO, lseek(fd, 0, SEEK_DATA));
    ERR(ENXIO, lseek(fd, 0, SEEK_HOLE)); // an empty file has not even the hole at its end
    DO(ftruncate(fd, 16 * UNIT));
    ERR(ENXIO, lseek(fd, 0, SEEK_DATA));
    EQ(0, lseek(fd, 0, SEEK_HOLE));
    EQ(5, lseek(fd, 5, SEEK_HOLE));
    fill(4 * UNIT, UNIT, 'a');
    fill(8 * UNIT, UNIT, 'b');
    static const struct {
        const char *name;
        off_t from, data, hole;
    } t[] = {
        {"start", 0, 4 * UNIT, 0},
        {"in the first hole", UNIT + 7, 4 * UNIT, UNIT + 7},
        {"just before data", 4 * UNIT - 1, 4 * UNIT, 4 * UNIT - 1},
        {"first of data", 4 * UNIT, 4 * UNIT, 5 * UNIT},
        {"in data", 4 * UNIT + 100, 4 * UNIT + 100, 5 * UNIT},
        {"last of data", 5 * UNIT - 1, 5 * UNIT - 1, 5 * UNIT},
        {"first after data", 5 * UNIT, 8 * UNIT, 5 * UNIT},
        {"second data", 8 * UNIT, 8 * UNIT, 9 * UNIT},
        {"in the last hole", 12 * UNIT, -1, 12 * UNIT},
        {"last byte", 16 * UNIT - 1, -1, 16 * UNIT - 1},
    };
    for (int synced = 0; synced < 2; synced++) {
        for (size_t i = 0; i < COUNT(t); i++) {
            NOTE("%s%s", t[i].name, synced ? ", synced" : "");
            if (t[i].data < 0)
                ERR(ENXIO, lseek(fd, t[i].from, SEEK_DATA));
            else
                EQ(t[i].data, lseek(fd, t[i].from, SEEK_DATA));
            EQ(t[i].hole, lseek(fd, t[i].from, SEEK_HOLE));
        }
        DO(fsync(fd));
    }
    NOTE_END();
    ERR(ENXIO, lseek(fd, 16 * UNIT, SEEK_DATA));
    ERR(ENXIO, lseek(fd, 16 * UNIT, SEEK_HOLE));
    ERR(ENXIO, lseek(fd, -1, SEEK_DATA));
    fill(15 * UNIT, UNIT, 'c');
    EQ(16 * UNIT, lseek(fd, 15 * UNIT, SEEK_HOLE)); // the end is a hole
    EQ(16 * UNIT, lseek(fd, 0, SEEK_CUR));
    int again = (int)DO(open("f", O_RDONLY));
    EQ(8 * UNIT, lseek(again, 6 * UNIT, SEEK_DATA));
    EQ(9 * UNIT, lseek(again, 8 * UNIT, SEEK_HOLE));
}

static void reserve(void)
{
    scene("f");
    OK(fallocate(fd, 0, 0, 10 * UNIT));
    EQ(10 * UNIT, st_fd(fd).st_size);
    YES(blocks() >= 10 * UNIT / 512);
    YES(all(0, 10 * UNIT, 0));
    fill(UNIT, UNIT, 'a');
    YES(all(0, UNIT, 0) && all(UNIT, UNIT, 'a') && all(2 * UNIT, UNIT, 0));
    OK(fallocate(fd, 0, 0, 20 * UNIT)); // over what is there: kept
    YES(all(UNIT, UNIT, 'a'));
    EQ(20 * UNIT, st_fd(fd).st_size);
    OK(fallocate(fd, 0, 100, 200));
    EQ(20 * UNIT, st_fd(fd).st_size);
    long long before = blocks();
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 20 * UNIT, 20 * UNIT));
    EQ(20 * UNIT, st_fd(fd).st_size);
    YES(blocks() >= before + 20 * UNIT / 512);
    EQ(0, pread(fd, &(char){0}, 1, 20 * UNIT));
    fill(20 * UNIT, 100, 'b');
    EQ(20 * UNIT + 100, st_fd(fd).st_size);
    OK(ftruncate(fd, 20 * UNIT + 100)); // the same length gives back what was kept beyond
    OK(ftruncate(fd, UNIT));
    YES(blocks() <= 2 * UNIT / 512);
    OK(posix_fallocate(fd, 0, 3 * UNIT) ? -1 : 0);
    EQ(3 * UNIT, st_fd(fd).st_size);
    OK(ftruncate(fd, 0));
    EQ(0, blocks());
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, UNIT));
    EQ(0, st_fd(fd).st_size);
    YES(blocks() >= UNIT / 512);
    OK(fallocate(fd, 0, 12345, 1)); // any alignment
    EQ(12346, st_fd(fd).st_size);
}

static void punch(void)
{
    int flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    scene("f");
    fill(0, 10 * UNIT, 'x');
    long long before = blocks();
    OK(fallocate(fd, flags, 2 * UNIT, 3 * UNIT));
    EQ(10 * UNIT, st_fd(fd).st_size);
    YES(all(0, 2 * UNIT, 'x') && all(2 * UNIT, 3 * UNIT, 0) && all(5 * UNIT, 5 * UNIT, 'x'));
    YES(blocks() <= before - 3 * UNIT / 512);
    EQ(2 * UNIT, lseek(fd, 0, SEEK_HOLE));
    EQ(5 * UNIT, lseek(fd, 2 * UNIT, SEEK_DATA));
    OK(fallocate(fd, flags, 6 * UNIT + 10, 100)); // parts of a block are cleared
    YES(all(6 * UNIT, 10, 'x') && all(6 * UNIT + 10, 100, 0) && all(6 * UNIT + 110, 100, 'x'));
    OK(fallocate(fd, flags, 7 * UNIT + 10, UNIT));
    YES(all(7 * UNIT, 10, 'x') && all(7 * UNIT + 10, UNIT, 0) && all(8 * UNIT + 10, 100, 'x'));
    OK(fallocate(fd, flags, 9 * UNIT, 100 * UNIT)); // beyond the end
    EQ(10 * UNIT, st_fd(fd).st_size);
    YES(all(9 * UNIT, UNIT, 0));
    OK(fallocate(fd, flags, 50 * UNIT, UNIT));
    EQ(10 * UNIT, st_fd(fd).st_size);
    OK(fallocate(fd, flags, 0, 10 * UNIT));
    YES(all(0, 10 * UNIT, 0));
    EQ(0, blocks());
    ERR(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, UNIT));
    fill(UNIT, UNIT, 'y');
    YES(all(0, UNIT, 0) && all(UNIT, UNIT, 'y') && all(2 * UNIT, UNIT, 0));
    DO(close(fd));
    fd = (int)DO(open("f", O_RDONLY));
    YES(all(0, UNIT, 0) && all(UNIT, UNIT, 'y') && all(2 * UNIT, UNIT, 0));
}

static void zero(void)
{
    scene("f");
    fill(0, 4 * UNIT, 'x');
    OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, UNIT, UNIT));
    YES(all(0, UNIT, 'x') && all(UNIT, UNIT, 0) && all(2 * UNIT, 2 * UNIT, 'x'));
    OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 3 * UNIT + 5, 100));
    YES(all(3 * UNIT, 5, 'x') && all(3 * UNIT + 5, 100, 0) && all(3 * UNIT + 105, 100, 'x'));
    EQ(4 * UNIT, st_fd(fd).st_size);
    OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 3 * UNIT, 3 * UNIT)); // and longer
    EQ(6 * UNIT, st_fd(fd).st_size);
    YES(all(3 * UNIT, 3 * UNIT, 0));
    YES(blocks() >= 6 * UNIT / 512); // zeroed is reserved
    OK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 5 * UNIT, 5 * UNIT));
    EQ(6 * UNIT, st_fd(fd).st_size);
}

static void collapse_and_insert(void)
{
    scene("f");
    fill(0, 2 * UNIT, 'x');
    fill(2 * UNIT, 2 * UNIT, 'y');
    OK(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, UNIT, 2 * UNIT));
    EQ(2 * UNIT, st_fd(fd).st_size);
    YES(all(0, UNIT, 'x') && all(UNIT, UNIT, 'y'));
    OK(fallocate(fd, FALLOC_FL_INSERT_RANGE, UNIT, UNIT));
    EQ(3 * UNIT, st_fd(fd).st_size);
    YES(all(0, UNIT, 'x') && all(UNIT, UNIT, 0) && all(2 * UNIT, UNIT, 'y'));
}

static void refusals(void)
{
    scene("f");
    fill(0, 100, 'x');
    ERR(EINVAL, fallocate(fd, 0, -1, 10));
    ERR(EINVAL, fallocate(fd, 0, 0, 0));
    ERR(EINVAL, fallocate(fd, 0, 0, -5));
    ERR(EOPNOTSUPP, fallocate(fd, 0x4000, 0, 10));
    ERR(EINVAL, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 0));
    ERR(EOPNOTSUPP,
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 10));
    EQ(100, st_fd(fd).st_size);
    int dir = (int)DO(open(".", O_RDONLY | O_DIRECTORY));
    ERR(EBADF, fallocate(dir, 0, 0, 10));
    int p[2];
    DO(pipe(p));
    ERR(ESPIPE, fallocate(p[1], 0, 0, 10));
    DO(mkfifo("p", 0644));
    int fifo = (int)DO(open("p", O_RDWR));
    ERR(ESPIPE, fallocate(fifo, 0, 0, 10));
    ERR(ESPIPE, lseek(fifo, 0, SEEK_DATA));
    int a = (int)DO(open("f", O_WRONLY | O_APPEND));
    OK(fallocate(a, 0, 0, 200));
    YES(all(0, 100, 'x') && all(100, 100, 0));
    REFUSED("f", EINVAL, fallocate(fd, 0, 0, 0));
}

static void far(void)
{
    scene("f");
    ERR(EFBIG, fallocate(fd, 0, (16LL << 40) - 4096, 4096));
    ERR(EFBIG, fallocate(fd, FALLOC_FL_KEEP_SIZE, (16LL << 40), 4096));
    EQ(0, st_fd(fd).st_size);
}

static void times(void)
{
    scene("f");
    fill(0, UNIT, 'x');
    EFFECT("f=mc .=", fallocate(fd, 0, 0, 2 * UNIT));
    EFFECT("f=mc", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, UNIT));
    EFFECT("f=mc", fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, UNIT));
    EFFECT("f=", lseek(fd, 0, SEEK_HOLE));
}

AREA(sparse, {"taking", taking}, {"seeking", seeking}, {"reserve", reserve}, {"punch", punch},
     {"zero", zero}, {"collapse-and-insert", collapse_and_insert}, {"refusals", refusals},
     {"far", far}, {"times", times});
