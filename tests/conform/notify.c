/*
 * notify: what the kernel tells about files: inotify, /proc/self/fd, statx, handles, flags of files.
 */
#include "tests/conform/conform.h"

#include <linux/fs.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* The events that came, as words: "create:f modify:f". */
static const char *events(int fd)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        {IN_ACCESS, "access"},           {IN_MODIFY, "modify"},
        {IN_ATTRIB, "attrib"},           {IN_CLOSE_WRITE, "written"},
        {IN_CLOSE_NOWRITE, "closed"},    {IN_OPEN, "open"},
        {IN_MOVED_FROM, "from"},         {IN_MOVED_TO, "to"},
        {IN_CREATE, "create"},           {IN_DELETE, "delete"},
        {IN_DELETE_SELF, "delete-self"}, {IN_MOVE_SELF, "move-self"},
        {IN_IGNORED, "ignored"},         {IN_UNMOUNT, "unmount"},
        {IN_Q_OVERFLOW, "overflow"},
    };
    static char text[2048];
    char b[8192] __attribute__((aligned(8)));
    size_t at = 0;
    text[0] = 0;
    ssize_t n = read(fd, b, sizeof(b));
    for (ssize_t i = 0; i < n;) {
        const struct inotify_event *e = (const struct inotify_event *)(const void *)(b + i);
        for (size_t k = 0; k < COUNT(names); k++)
            if (e->mask & names[k].bit)
                at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s%s%s%s", at ? " " : "",
                                       names[k].name, e->len ? ":" : "", e->len ? e->name : "",
                                       e->mask & IN_ISDIR ? "/" : "");
        i += (ssize_t)(sizeof(*e) + e->len);
    }
    return text;
}

static void watching(void)
{
    DO(mkdir("d", 0755));
    int n = (int)NEED(inotify_init1(IN_NONBLOCK));
    OK(inotify_add_watch(n, "d", IN_ALL_EVENTS));
    STR("", events(n));
    int fd = (int)DO(open("d/f", O_RDWR | O_CREAT, 0644));
    STR("create:f open:f", events(n));
    DO(write(fd, "x", 1));
    STR("modify:f", events(n));
    DO(pread(fd, &(char){0}, 1, 0));
    STR("access:f", events(n));
    DO(close(fd));
    STR("written:f", events(n));
    DO(chmod("d/f", 0600));
    STR("attrib:f", events(n));
    DO(truncate("d/f", 0));
    STR("modify:f", events(n));
    DO(utimensat(AT_FDCWD, "d/f", NULL, 0));
    STR("attrib:f", events(n));
    DO(rename("d/f", "d/g"));
    STR("from:f to:g", events(n));
    DO(rename("d/g", "out"));
    STR("from:g", events(n));
    DO(rename("out", "d/in"));
    STR("to:in", events(n));
    DO(link("d/in", "d/in2"));
    STR("create:in2", events(n));
    DO(unlink("d/in2"));
    STR("delete:in2", events(n));
    DO(mkdir("d/sub", 0755));
    STR("create:sub/", events(n));
    DO(symlink("x", "d/s"));
    STR("create:s", events(n));
    DO(mkfifo("d/p", 0644));
    STR("create:p", events(n));
    DO(rmdir("d/sub"));
    STR("delete:sub/", events(n));
    DO(shut(open("d/in", O_RDONLY)));
    STR("open:in closed:in", events(n));
    DO(chmod("d", 0711));
    STR("attrib/", events(n));
    DO(rename("d", "e"));
    STR("move-self", events(n));
    conform_remove("e/in");
    conform_remove("e/s");
    conform_remove("e/p");
    (void)events(n);
    DO(rmdir("e"));
    STR("delete-self ignored", events(n));
}

static void watching_a_file(void)
{
    put("f", "");
    int n = (int)NEED(inotify_init1(IN_NONBLOCK));
    int w =
        (int)OK(inotify_add_watch(n, "f", IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF));
    put("f", "text");
    STR("modify", events(n)); // two alike in a row are one
    DO(link("f", "g"));
    STR("attrib", events(n));
    DO(rename("f", "h"));
    STR("move-self", events(n));
    pid_t pid;
    CHILD(pid)
    {
        put("g", "by another");
    }
    JOIN(pid);
    STR("modify", events(n));
    DO(unlink("g"));
    STR("attrib", events(n));
    int fd = (int)DO(open("h", O_RDONLY));
    DO(unlink("h"));
    STR("attrib", events(n));
    DO(close(fd));
    STR("delete-self ignored", events(n)); // with the last use
    ERR(EINVAL, inotify_rm_watch(n, w));
    ERR(ENOENT, inotify_add_watch(n, "f", IN_MODIFY));
    put("f", "");
    ERR(ENOTDIR, inotify_add_watch(n, "f", IN_MODIFY | IN_ONLYDIR));
    DO(chmod("f", 0));
    AS(BOB)
    {
        ERR(EACCES, inotify_add_watch(n, "f", IN_MODIFY));
    }
}

static void proc_links(void)
{
    char path[64], b[4200], cwd[4000];
    put("f", "text");
    YES(getcwd(cwd, sizeof(cwd)) != NULL);
    int fd = (int)DO(open("f", O_RDONLY));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
#define SHOWN() (b[readlink(path, b, sizeof(b) - 1)] = 0, b + strlen(cwd))
    STR("/f", SHOWN());
    DO(rename("f", "g"));
    STR("/g", SHOWN());
    DO(mkdir("d", 0755));
    DO(rename("g", "d/g"));
    STR("/d/g", SHOWN());
    DO(rename("d", "e"));
    STR("/e/g", SHOWN());
    DO(unlink("e/g"));
    STR("/e/g (deleted)", SHOWN());
#undef SHOWN
    int dir = (int)DO(open("e", O_RDONLY | O_DIRECTORY));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", dir);
    put("e/x", "in");
    strcat(path, "/x");
    YES(holds(path, "in"));
}

static void statx_fields(void)
{
    struct statx x;
    put("f", "0123456789");
    DO(chown("f", 12, 34));
    DO(chmod("f", 0641));
    DO(link("f", "g"));
    OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
    struct stat st = st_of("f");
    EQ(STATX_BASIC_STATS, x.stx_mask & STATX_BASIC_STATS);
    EQ(st.st_mode, x.stx_mode);
    EQ(st.st_nlink, x.stx_nlink);
    EQ(st.st_uid, x.stx_uid);
    EQ(st.st_gid, x.stx_gid);
    EQ(st.st_ino, x.stx_ino);
    EQ(st.st_size, x.stx_size);
    EQ(st.st_blocks, x.stx_blocks);
    EQ(st.st_blksize, x.stx_blksize);
    EQ(major(st.st_dev), x.stx_dev_major);
    EQ(minor(st.st_dev), x.stx_dev_minor);
    EQ(st.st_mtim.tv_sec, x.stx_mtime.tv_sec);
    EQ(st.st_mtim.tv_nsec, x.stx_mtime.tv_nsec);
    EQ(st.st_ctim.tv_nsec, x.stx_ctime.tv_nsec);
    EQ(st.st_atim.tv_nsec, x.stx_atime.tv_nsec);
    OK(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC, STATX_SIZE, &x));
    EQ(10, x.stx_size);
    OK(statx(AT_FDCWD, "f", AT_STATX_DONT_SYNC, STATX_SIZE, &x));
    ERR(EINVAL, statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_SIZE, &x));
    ERR(EINVAL, statx(AT_FDCWD, "f", 0, 0x80000000U, &x));
    DO(symlink("f", "s"));
    OK(statx(AT_FDCWD, "s", AT_SYMLINK_NOFOLLOW, STATX_TYPE | STATX_MODE, &x));
    EQ(S_IFLNK, x.stx_mode & S_IFMT);
    int fd = (int)DO(open("f", O_PATH));
    OK(statx(fd, "", AT_EMPTY_PATH, STATX_INO, &x));
    EQ(st.st_ino, x.stx_ino);
}

static void birth_time(void)
{
    struct statx x;
    struct timespec before, after;
    clock_gettime(CLOCK_REALTIME_COARSE, &before);
    put("f", "");
    conform_tick();
    clock_gettime(CLOCK_REALTIME, &after);
    DO(chmod("f", 0600));
    OK(statx(AT_FDCWD, "f", 0, STATX_BTIME, &x));
    YES(x.stx_mask & STATX_BTIME);
    YES(x.stx_btime.tv_sec >= before.tv_sec && x.stx_btime.tv_sec <= after.tv_sec);
}

static void file_flags(void)
{
    int flags = 0;
    put("f", "");
    int fd = (int)DO(open("f", O_RDONLY));
    OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    flags |= FS_IMMUTABLE_FL;
    OK(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    ERR(EPERM, shut(open("f", O_WRONLY)));
    flags &= ~FS_IMMUTABLE_FL;
    OK(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    OK(shut(open("f", O_WRONLY)));
}

static void foreign_ioctl(void)
{
    int n = 0;
    put("f", "0123456789");
    int fd = (int)DO(open("f", O_RDWR));
    ERR(ENOTTY, ioctl(fd, 0x5401, &n)); // TCGETS: isatty asks this of every file
    YES(!isatty(fd));
    ERR(ENOTTY, ioctl(fd, _IO(0x9a, 77), 0));
    int dir = (int)DO(open(".", O_RDONLY | O_DIRECTORY));
    ERR(ENOTTY, ioctl(dir, 0x5401, &n));
    OK(ioctl(fd, FIONREAD, &n));
    EQ(10, n);
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    EQ(1, poll(&p, 1, 0)); // files are always ready
    EQ(POLLIN | POLLOUT, p.revents);
}

static void handles(void)
{
    struct {
        struct file_handle h;
        unsigned char space[128];
    } h = {.h = {.handle_bytes = 128}};
    int mount, again;
    put("f", "by handle");
    OK(name_to_handle_at(AT_FDCWD, "f", &h.h, &mount, 0));
    int base = (int)DO(open(".", O_RDONLY | O_DIRECTORY));
    again = (int)OK(open_by_handle_at(base, &h.h, O_RDONLY));
    if (again >= 0)
        EQ(st_of("f").st_ino, st_fd(again).st_ino);
    close(again);
}

static void descriptors(void)
{
    put("f", "");
    int fd = (int)DO(open("f", O_RDWR | O_NONBLOCK)), twin = dup(fd);
    YES(fcntl(fd, F_GETFL) & O_NONBLOCK);
    OK(fcntl(fd, F_SETFL, O_APPEND));
    YES(fcntl(twin, F_GETFL) & O_APPEND); // of the description
    OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
    EQ(0, fcntl(twin, F_GETFD)); // of the descriptor
    int third = (int)OK(fcntl(fd, F_DUPFD_CLOEXEC, 100));
    YES(third >= 100);
    EQ(FD_CLOEXEC, fcntl(third, F_GETFD));
    OK(dup2(fd, third));
    OK(close(fd));
    ERR(EBADF, write(fd, "x", 1));
    EQ(1, write(third, "x", 1));
    OK(close(third));
    OK(close(twin));
    ERR(EBADF, close(twin));
    EQ(1, size_of("f"));
}

AREA(notify, {"watching", watching}, {"watching-a-file", watching_a_file},
     {"proc-links", proc_links}, {"statx-fields", statx_fields}, {"birth-time", birth_time},
     {"file-flags", file_flags}, {"foreign-ioctl", foreign_ioctl}, {"handles", handles},
     {"descriptors", descriptors});
