/*
 * orphan: files and directories that lost their last name while open.
 */
#include "tests/conform/conform.h"

#include <dirent.h>
#include <sys/mman.h>

static void unlinked(void)
{
    char b[64], path[64];
    put("f", "text");
    int fd = (int)DO(open("f", O_RDWR)), reader = (int)DO(open("f", O_RDONLY));
    struct stat before = st_fd(fd);
    OK(unlink("f"));
    YES(!there("f"));
    EQ(0, st_fd(fd).st_nlink);
    EQ(before.st_ino, st_fd(fd).st_ino);
    EQ(4, st_fd(fd).st_size);
    EQ(4, pread(fd, b, sizeof(b), 0));
    OK(pwrite(fd, "more text", 9, 4));
    EQ(13, pread(reader, b, sizeof(b), 0));
    YES(!memcmp(b, "textmore text", 13));
    OK(ftruncate(fd, 2));
    EQ(2, st_fd(reader).st_size);
    OK(ftruncate(fd, 100000));
    EQ(100000, st_fd(reader).st_size);
    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(fchmod(fd, 0600));
    OK(fchown(fd, 5, 6));
    EQ(0600, st_fd(fd).st_mode & 0777);
    EQ(5, st_fd(fd).st_uid);
    OK(futimens(fd, NULL));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ERR(ENOENT, linkat(AT_FDCWD, path, AT_FDCWD, "back", AT_SYMLINK_FOLLOW));
    ERR(ENOENT, linkat(fd, "", AT_FDCWD, "back", AT_EMPTY_PATH));
    int again = (int)OK(open(path, O_RDWR)); // by /proc it can be opened again
    EQ(2, pread(again, b, 2, 0));
    OK(close(fd));
    OK(pwrite(again, "x", 1, 0));
    EQ(1, pread(reader, b, 1, 0));
    EQ('x', b[0]);
    OK(close(again));
    OK(close(reader));
    OK(shut(open("f", O_WRONLY | O_CREAT | O_EXCL, 0644)));
    EQ(0, size_of("f"));
}

static void written_after(void)
{
    // all of a file's life happens without a name
    static char b[300000], c[300000];
    for (size_t i = 0; i < sizeof(b); i++)
        b[i] = (char)(i % 247);
    int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644));
    DO(unlink("f"));
    EQ(sizeof(b), write(fd, b, sizeof(b)));
    EQ(sizeof(b), pread(fd, c, sizeof(c), 0));
    YES(!memcmp(b, c, sizeof(b)));
    DO(fsync(fd));
    memset(c, 0, sizeof(c));
    EQ(sizeof(b), pread(fd, c, sizeof(c), 0));
    YES(!memcmp(b, c, sizeof(b)));
    char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    YES(m != MAP_FAILED);
    m[0] = 'M';
    EQ(1, pread(fd, c, 1, 0));
    EQ('M', c[0]);
    OK(close(fd));
    EQ(1, m[1]);
    OK(munmap(m, 4096));
}

static void replaced(void)
{
    char b[16];
    put("old", "old");
    put("new", "new");
    int fd = (int)DO(open("old", O_RDWR));
    OK(rename("new", "old"));
    EQ(0, st_fd(fd).st_nlink);
    EQ(3, pread(fd, b, 8, 0));
    YES(!memcmp(b, "old", 3));
    OK(pwrite(fd, "OLD", 3, 0));
    YES(holds("old", "new"));
    EQ(3, pread(fd, b, 8, 0));
    YES(!memcmp(b, "OLD", 3));
    OK(close(fd));
    // many times, with all kept open
    int fds[50], bad = 0;
    for (int i = 0; i < 50; i++) {
        char text[8];
        snprintf(text, sizeof(text), "%d", i);
        put("new", text);
        fds[i] = (int)DO(open("new", O_RDONLY));
        DO(rename("new", "old"));
    }
    for (int i = 0; i < 50; i++) {
        char text[8] = "";
        DO(pread(fds[i], text, 7, 0));
        bad += atoi(text) != i || st_fd(fds[i]).st_nlink != (i == 49);
        DO(close(fds[i]));
    }
    EQ(0, bad);
}

static void other_names(void)
{
    put("f", "text");
    DO(link("f", "g"));
    int fd = (int)DO(open("f", O_RDWR));
    OK(unlink("f"));
    EQ(1, st_fd(fd).st_nlink);
    OK(pwrite(fd, "more", 4, 4));
    YES(holds("g", "textmore"));
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, path, AT_FDCWD, "f",
              AT_SYMLINK_FOLLOW)); // still linked somewhere: may be again
    EQ(2, nlink_of("g"));
    OK(unlink("g"));
    OK(unlink("f"));
    EQ(0, st_fd(fd).st_nlink);
}

static void by_another_process(void)
{
    char b[8];
    int to[2], from[2];
    put("f", "text");
    DO(pipe(to));
    DO(pipe(from));
    pid_t pid;
    CHILD(pid)
    {
        int fd = (int)DO(open("f", O_RDWR));
        DO(write(from[1], "o", 1));
        DO(read(to[0], b, 1)); // the parent has removed it
        EQ(0, st_fd(fd).st_nlink);
        EQ(4, pread(fd, b, 8, 0));
        OK(pwrite(fd, "TEXT", 4, 0));
        EQ(4, pread(fd, b, 8, 0));
        YES(!memcmp(b, "TEXT", 4));
    }
    DO(read(from[0], b, 1));
    DO(unlink("f"));
    put("f", "another");
    DO(write(to[1], "r", 1));
    JOIN(pid);
    YES(holds("f", "another"));
}

static void last_close_frees(void)
{
    // an open unlinked file keeps its space, and its inode number is not given to another
    static char b[100000];
    int fd = (int)DO(open("f", O_RDWR | O_CREAT, 0644));
    DO(write(fd, b, sizeof(b)));
    ino_t ino = st_fd(fd).st_ino;
    DO(unlink("f"));
    int clash = 0;
    char name[16];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        put(name, "");
        clash += st_of(name).st_ino == ino;
    }
    EQ(0, clash);
    YES(st_fd(fd).st_blocks >= 100000 / 512);
    OK(close(fd));
}

static void directories(void)
{
    DO(mkdir("d", 0755));
    DO(mkdir("d/e", 0755));
    int d = (int)DO(open("d", O_RDONLY | O_DIRECTORY)),
        e = (int)DO(open("d/e", O_RDONLY | O_DIRECTORY));
    ERR(ENOTEMPTY, rmdir("d"));
    OK(unlinkat(d, "e", AT_REMOVEDIR));
    EQ(0, st_fd(e).st_nlink);
    OK(rmdir("d"));
    EQ(0, st_fd(d).st_nlink);
    ERR(ENOENT, openat(d, "new", O_WRONLY | O_CREAT, 0644));
    ERR(ENOENT, mkdirat(d, "new", 0755));
    ERR(ENOENT, symlinkat("x", d, "new"));
    ERR(ENOENT, openat(d, "e", O_RDONLY));
    OK(fchmod(d, 0711));
    OK(fsync(d));
    OK(openat(d, ".", O_RDONLY));
    EQ(st_of(".").st_ino, ({
           struct stat st = {0};
           fstatat(e, "../..", &st, 0);
           st.st_ino;
       }));
    DIR *dir = fdopendir(d);
    YES(dir != NULL);
    errno = 0;
    YES(dir && readdir(dir) == NULL);
    if (dir)
        closedir(dir);
    // the working directory of a child
    DO(mkdir("w", 0755));
    pid_t pid;
    CHILD(pid)
    {
        DO(chdir("w"));
        DO(rmdir("../w"));
        ERR(ENOENT, shut(open("x", O_WRONLY | O_CREAT, 0644)));
        OK(chdir(".."));
        YES(!there("w"));
    }
    JOIN(pid);
}

static void directories_later(void)
{
    // the same when everybody has had time to forget it: what is open is kept
    DO(mkdir("d", 0755));
    int d = (int)DO(open("d", O_RDONLY | O_DIRECTORY));
    OK(rmdir("d"));
    for (int i = 0; i < 15; i++) {
        usleep(100000);
        EQ(0, st_fd(d).st_nlink);
    }
    OK(fchmod(d, 0711)); // asks whoever keeps it
    EQ(0711, st_fd(d).st_mode & 07777);
    OK(close(d));
}

static void special(void)
{
    char b[8];
    DO(mkfifo("p", 0644));
    int fd = (int)DO(open("p", O_RDWR));
    OK(unlink("p"));
    EQ(0, st_fd(fd).st_nlink);
    EQ(2, write(fd, "ab", 2));
    EQ(2, read(fd, b, 8));
}

static void path_later(void)
{
    // O_PATH is not told to the file system: what it names is there until everybody has forgotten it
    char b[8];
    DO(symlink("to", "s"));
    int s = (int)DO(open("s", O_PATH | O_NOFOLLOW));
    OK(unlink("s"));
    for (int i = 0; i < 50 && readlinkat(s, "", b, sizeof(b)) == 2; i++)
        usleep(100000);
    EQ(2, readlinkat(s, "", b, sizeof(b)));
    OK(close(s));
}

AREA(orphan, {"unlinked", unlinked}, {"written-after", written_after}, {"replaced", replaced},
     {"other-names", other_names}, {"by-another-process", by_another_process},
     {"last-close-frees", last_close_frees}, {"directories", directories},
     {"directories-later", directories_later}, {"special", special}, {"path-later", path_later});
