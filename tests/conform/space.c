/*
 * space: statfs, limits, and what is taken and given back.
 */
#include "tests/conform/conform.h"

#include <sys/statfs.h>
#include <sys/statvfs.h>

static struct statvfs fs(void)
{
    struct statvfs s;
    DO(statvfs(".", &s));
    return s;
}

static void figures(void)
{
    struct statvfs s = fs();
    YES(s.f_bsize >= 512 && s.f_bsize <= 16 << 20);
    YES(s.f_frsize >= 512 && (s.f_frsize & (s.f_frsize - 1)) == 0);
    YES(s.f_blocks > 0);
    YES(s.f_bfree <= s.f_blocks);
    YES(s.f_bavail <= s.f_bfree);
    YES(s.f_files > 0);
    YES(s.f_ffree <= s.f_files);
    YES(s.f_favail <= s.f_files);
    EQ(255, s.f_namemax);
    YES(!(s.f_flag & ST_RDONLY));
    struct statfs k;
    OK(statfs(".", &k));
    YES(k.f_type != 0);
    EQ(255, k.f_namelen);
    int fd = (int)DO(open(".", O_RDONLY | O_DIRECTORY)), p = (int)DO(open(".", O_PATH));
    OK(fstatvfs(fd, &s));
    OK(fstatfs(p, &k)); // also by O_PATH
    put("f", "");
    struct statvfs t;
    OK(statvfs("f", &t));
    EQ(s.f_blocks, t.f_blocks);
    EQ(s.f_fsid, t.f_fsid);
    DO(symlink("none", "s"));
    ERR(ENOENT, statvfs("s", &t));
    ERR(EBADF, fstatvfs(999, &t));
    AS(BOB)
    {
        OK(statvfs("f", &t));
        YES(t.f_bavail > 0);
    }
}

static void path_limits(void)
{
    EQ(255, pathconf(".", _PC_NAME_MAX));
    EQ(4096, pathconf(".", _PC_PATH_MAX));
    EQ(4096, pathconf(".", _PC_PIPE_BUF));
    EQ(1, pathconf(".", _PC_NO_TRUNC));
    EQ(1, pathconf(".", _PC_CHOWN_RESTRICTED));
    EQ(64, pathconf(".", _PC_FILESIZEBITS));
    EQ(65000, pathconf(".", _PC_LINK_MAX));
}

static void given_back(void)
{
    // the blocks of a file follow what is written and truncated, and statfs moves in the right direction
    static char b[1 << 20];
    memset(b, 'b', sizeof(b));
    int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644));
    for (int i = 0; i < 8; i++)
        DO(write(fd, b, sizeof(b)));
    OK(fsync(fd));
    struct stat st = st_fd(fd);
    YES(st.st_blocks * 512 >= 8 << 20 && st.st_blocks * 512 < 9 << 20);
    OK(ftruncate(fd, 1 << 20));
    OK(fsync(fd));
    st = st_fd(fd);
    YES(st.st_blocks * 512 >= 1 << 20 && st.st_blocks * 512 < 2 << 20);
    OK(ftruncate(fd, 0));
    EQ(0, st_fd(fd).st_blocks);
}

static void full(void)
{
    // more than there is: refused with ENOSPC, at the latest by fsync or close; nothing else is harmed
    struct statvfs s = fs();
    put("kept", "kept");
    int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644));
    long long more = (long long)s.f_blocks * (long long)s.f_frsize + (1LL << 30);
    if (more < 16LL << 40)
        ERR(ENOSPC, fallocate(fd, 0, 0, more));
    OK(ftruncate(fd, 0));
    EQ(0, st_fd(fd).st_size);
    YES(holds("kept", "kept"));
    OK(pwrite(fd, "x", 1, 0));
    OK(close(fd));
}

static void many_open_files(void)
{
    // a thousand descriptors at once
    static int fds[1000];
    int good = 0;
    char name[16];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "f%d", i % 250);
        fds[i] = open(name, O_RDWR | O_CREAT, 0644);
        good += fds[i] >= 0;
    }
    EQ(1000, good);
    good = 0;
    for (int i = 0; i < 1000; i++)
        good += pwrite(fds[i], &(char){(char)i}, 1, i / 250) == 1;
    EQ(1000, good);
    good = 0;
    for (int i = 0; i < 1000; i++) {
        char c = 0;
        good += pread(fds[(i + 250) % 1000], &c, 1, i / 250) == 1 && c == (char)i;
    }
    EQ(1000, good);
    for (int i = 0; i < 1000; i++)
        good -= close(fds[i]) == 0;
    EQ(0, good);
    EQ(4, size_of("f249"));
}

AREA(space, {"figures", figures}, {"path-limits", path_limits}, {"given-back", given_back},
     {"full", full}, {"many-open-files", many_open_files});
