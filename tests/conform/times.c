/*
 * times: what each operation on data and names does to the times of the file and of the directories.
 */
#include "tests/conform/conform.h"

#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static int rw; // the file of the case, open for both

static void scene(const char *text)
{
    put("f", text);
    rw = (int)DO(open("f", O_RDWR));
}

static void writing(void)
{
    char page[4096];
    memset(page, 'p', sizeof(page));
    struct iovec v[2] = {{page, 10}, {page, 20}};
    scene("some text");
    EFFECT("f=mc .=", pwrite(rw, "x", 1, 0));
    EFFECT("f=mc .=", pwrite(rw, "x", 1, 0)); // the same bytes
    EFFECT("f=mc .=", write(rw, page, sizeof(page)));
    EFFECT("f=mc .=", writev(rw, v, 2));
    EFFECT("f=mc .=", pwritev(rw, v, 2, 100000));
    EFFECT("f= .=", pwrite(rw, "", 0, 0));
    EFFECT("f=", lseek(rw, 1000, SEEK_SET));
    EFFECT("f=", fsync(rw));
    EFFECT("f=", fdatasync(rw));
    EFFECT("f=", close(rw));
    int a = (int)DO(open("f", O_WRONLY | O_APPEND));
    EFFECT("f=mc", write(a, "x", 1));
    EFFECT("f=", close(a));
    int s = (int)DO(open("f", O_WRONLY | O_SYNC));
    EFFECT("f=mc", write(s, "x", 1));
}

static void same_times(void)
{
    // one operation gives one time to all that it changes
    scene("x");
    conform_tick();
    DO(pwrite(rw, "y", 1, 0));
    struct stat f = st_fd(rw);
    EQ(0, conform_time_cmp(f.st_mtim, f.st_ctim));
    close(rw);
    f = st_of("f");
    EQ(0, conform_time_cmp(f.st_mtim, f.st_ctim));
    conform_tick();
    DO(mkdir("d", 0755));
    struct stat d = st_of("d");
    YES(!conform_time_cmp(d.st_mtim, d.st_ctim) && !conform_time_cmp(d.st_mtim, d.st_atim));
    // seen through descriptor, path and another link alike
    DO(link("f", "g"));
    f = st_of("f");
    struct stat g = st_of("g");
    EQ(0, conform_time_cmp(f.st_ctim, g.st_ctim));
    EQ(0, conform_time_cmp(f.st_mtim, g.st_mtim));
}

static void stable_after_close(void)
{
    // times that were shown do not move when the data reach the disk later
    scene("");
    static char buffer[300000];
    DO(pwrite(rw, buffer, sizeof(buffer), 0));
    struct stat shown = st_fd(rw);
    conform_tick();
    DO(fsync(rw));
    struct stat now = st_fd(rw);
    EQ(0, conform_time_cmp(shown.st_mtim, now.st_mtim));
    EQ(0, conform_time_cmp(shown.st_ctim, now.st_ctim));
    DO(pwrite(rw, "x", 1, 5));
    shown = st_of("f");
    conform_tick();
    DO(close(rw));
    now = st_of("f");
    EQ(0, conform_time_cmp(shown.st_mtim, now.st_mtim));
    EQ(0, conform_time_cmp(shown.st_ctim, now.st_ctim));
    // a time set by hand survives the data written before it
    rw = (int)DO(open("f", O_RDWR));
    DO(pwrite(rw, buffer, sizeof(buffer), 0));
    struct timespec set[2] = {{1111111111, 111}, {1222222222, 222}};
    DO(futimens(rw, set));
    DO(fsync(rw));
    EQ(1222222222, st_of("f").st_mtim.tv_sec);
    DO(close(rw));
    EQ(1222222222, st_of("f").st_mtim.tv_sec);
    EQ(222, st_of("f").st_mtim.tv_nsec);
    EQ(1111111111, st_of("f").st_atim.tv_sec);
}

static void truncating(void)
{
    scene("some text");
    EFFECT("f=mc .=", ftruncate(rw, 4));
    EFFECT("f=mc .=", ftruncate(rw, 40));
    EFFECT("f=mc .=", ftruncate(rw, 40)); // no change of length: ext4 counts it
    EFFECT("f=mc .=", truncate("f", 4));
    EFFECT("f=mc .=", truncate("f", 4));
    EFFECT("f=mc .=", truncate("f", 400));
    EFFECT("f=mc .=", shut(open("f", O_WRONLY | O_TRUNC)));
    EFFECT("f=mc .=", shut(open("f", O_WRONLY | O_TRUNC))); // even when empty
    EFFECT("f=mc .=", shut(open("f", O_WRONLY | O_CREAT | O_TRUNC, 0644)));
    REFUSED("f", EINVAL, ftruncate(rw, -1));
    REFUSED("f", EINVAL, truncate("f", -1));
    EFFECT("f=mc", fallocate(rw, 0, 0, 10000));
}

static void reading(void)
{
    char b[64];
    struct iovec v[1] = {{b, 8}};
    // relatime: the first read after a change moves atime, the next one does not
    scene("some text");
    conform_tick();
    EFFECT("f=a .=", pread(rw, b, 4, 0));
    EFFECT("f=", pread(rw, b, 4, 0));
    DO(pwrite(rw, "x", 1, 0));
    EFFECT("f=a", readv(rw, v, 1));
    DO(pwrite(rw, "x", 1, 0));
    EFFECT("f=a", preadv(rw, v, 1, 0));
    DO(pwrite(rw, "x", 1, 0));
    conform_tick();
    EFFECT("f=", pread(rw, b, 0, 0)); // nothing asked
    EFFECT("f=", stat("f", &(struct stat){0}));
    EFFECT("f=", access("f", R_OK));
    EFFECT("f=", shut(open("f", O_RDONLY)));
    EFFECT("f=a", pread(rw, b, 1, 0));
    DO(pwrite(rw, "x", 1, 0));
    int quiet = (int)DO(open("f", O_RDONLY | O_NOATIME));
    EFFECT("f=", pread(quiet, b, 4, 0));
    int out[2];
    DO(pipe(out));
    off_t at = 0;
    EFFECT("f=a", sendfile(out[1], rw, &at, 4));
    DO(pwrite(rw, "x", 1, 0));
    at = 0;
    EFFECT("f=a", splice(rw, &at, out[1], NULL, 4, 0));
    // a chmod also makes atime older than ctime
    EFFECT("f=c", chmod("f", 0600));
    EFFECT("f=a", pread(rw, b, 4, 0));
    // atime more than a day old
    struct timespec old[2] = {{1000000, 0}, {900000, 0}};
    DO(futimens(rw, old));
    EFFECT("f=a", pread(rw, b, 4, 0));
}

static void reading_directories(void)
{
    DO(mkdir("d", 0755));
    put("d/f", "");
    conform_tick();
    EFFECT("d=", stat("d/f", &(struct stat){0}));
    EFFECT("d=", shut(open("d/f", O_RDONLY)));
    EFFECT("d=", shut(open("d", O_RDONLY | O_DIRECTORY)));
}

static void reading_links(void)
{
    char b[16];
    DO(symlink("to", "s"));
    conform_tick();
    EFFECT("s=a .=", readlink("s", b, sizeof(b)));
    EFFECT("s=", readlink("s", b, sizeof(b)));
}

static void copying(void)
{
    scene("0123456789");
    put("g", "");
    int to = (int)DO(open("g", O_RDWR));
    off_t in = 0, out = 0;
    conform_tick();
    EFFECT("g=mc", copy_file_range(rw, &in, to, &out, 10, 0));
    DO(pwrite(rw, "x", 1, 0));
    in = 0;
    EFFECT("g=mc f=a", sendfile(to, rw, &in, 5));
}

static void mapped(void)
{
    scene("0123456789");
    char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0);
    if (p == MAP_FAILED) {
        YES(p != MAP_FAILED);
        return;
    }
    EFFECT("f=mc .=", (p[0] = 'x', msync(p, 4096, MS_SYNC)));
    EFFECT("f=", msync(p, 4096, MS_SYNC)); // nothing new to write
    char *q = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, rw, 0);
    YES(q != MAP_FAILED);
    EFFECT("f=", (q[0] = 'y', munmap(q, 4096)));
}

static void unlinking(void)
{
    scene("x");
    DO(link("f", "g"));
    EFFECT("f=c .=mc", unlink("g"));
    struct stat before = st_fd(rw);
    conform_tick();
    OK(unlink("f"));
    YES(conform_time_cmp(before.st_ctim, st_fd(rw).st_ctim) < 0);
    EQ(0, conform_time_cmp(before.st_mtim, st_fd(rw).st_mtim));
    before = st_fd(rw);
    conform_tick();
    OK(pwrite(rw, "y", 1, 0));
    YES(conform_time_cmp(before.st_mtim, st_fd(rw).st_mtim) < 0);
    before = st_fd(rw);
    conform_tick();
    OK(fchmod(rw, 0600));
    YES(conform_time_cmp(before.st_ctim, st_fd(rw).st_ctim) < 0);
    DO(mkdir("d", 0755));
    int d = (int)DO(open("d", O_RDONLY | O_DIRECTORY));
    before = st_fd(d);
    conform_tick();
    OK(rmdir("d"));
    YES(conform_time_cmp(before.st_ctim, st_fd(d).st_ctim) < 0);
}

AREA(times, {"writing", writing}, {"same-times", same_times},
     {"stable-after-close", stable_after_close}, {"truncating", truncating}, {"reading", reading},
     {"reading-directories", reading_directories}, {"reading-links", reading_links},
     {"copying", copying}, {"mapped", mapped}, {"unlinking", unlinking});
