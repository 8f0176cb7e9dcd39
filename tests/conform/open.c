/*
 * open: the flags of open(2), one by one and together, and what descriptors allow afterwards.
 */
#include "tests/conform/conform.h"

#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#ifndef O_TMPFILE
#error "no O_TMPFILE"
#endif

static void create_flags(void)
{
    static const struct {
        const char *name;
        int flags;
        int code[K_KINDS]; // by what is there
    } t[] = {
        {"O_CREAT",
         O_WRONLY | O_CREAT | O_NONBLOCK,
         {0, 0, EISDIR, EISDIR, 0, ENXIO, ENXIO, 0, -1}},
        {"O_CREAT O_EXCL",
         O_WRONLY | O_CREAT | O_EXCL,
         {0, EEXIST, EEXIST, EEXIST, EEXIST, EEXIST, EEXIST, EEXIST, EEXIST}},
        {"O_RDONLY O_CREAT",
         O_RDONLY | O_CREAT | O_NONBLOCK,
         {0, 0, EISDIR, EISDIR, 0, 0, ENXIO, 0, -1}},
        {"O_WRONLY",
         O_WRONLY | O_NONBLOCK,
         {ENOENT, 0, EISDIR, EISDIR, ENOENT, ENXIO, ENXIO, 0, -1}},
        {"O_RDWR", O_RDWR | O_NONBLOCK, {ENOENT, 0, EISDIR, EISDIR, ENOENT, 0, ENXIO, 0, -1}},
        {"O_RDONLY", O_RDONLY | O_NONBLOCK, {ENOENT, 0, 0, 0, ENOENT, 0, ENXIO, 0, -1}},
        {"O_DIRECTORY",
         O_RDONLY | O_DIRECTORY,
         {ENOENT, ENOTDIR, 0, 0, ENOENT, ENOTDIR, ENOTDIR, ENOTDIR, ENOTDIR}},
        {"O_NOFOLLOW",
         O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
         {ENOENT, 0, 0, 0, ELOOP, 0, ENXIO, 0, -1}},
        {"O_CREAT O_NOFOLLOW",
         O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK,
         {0, 0, EISDIR, EISDIR, ELOOP, ENXIO, ENXIO, 0, -1}},
        {"O_PATH", O_PATH, {ENOENT, 0, 0, 0, ENOENT, 0, 0, 0, 0}},
        {"O_PATH O_NOFOLLOW", O_PATH | O_NOFOLLOW, {ENOENT, 0, 0, 0, 0, 0, 0, 0, 0}},
        {"O_TRUNC",
         O_WRONLY | O_TRUNC | O_NONBLOCK,
         {ENOENT, 0, EISDIR, EISDIR, ENOENT, ENXIO, ENXIO, 0, -1}},
    };
    for (size_t i = 0; i < COUNT(t); i++)
        for (int k = 0; k < K_KINDS; k++) {
            if (t[i].code[k] < 0)
                continue;
            conform_make((enum conform_kind)k, "x");
            NOTE("%s on %s", t[i].name, conform_kinds[k]);
            GIVES(t[i].code[k], shut(open("x", t[i].flags, 0644)));
            conform_remove("x");
            conform_remove("no such target");
        }
}

static void create_through_symlink(void)
{
    DO(symlink("target", "link"));
    OK(shut(open("link", O_WRONLY | O_CREAT, 0640)));
    EQ(K_FILE, conform_kind_at("target"));
    EQ(0640, mode_of("target"));
    EQ(K_LINK, conform_kind_at("link"));
    ERR(EEXIST, shut(open("link", O_WRONLY | O_CREAT | O_EXCL, 0644)));
    DO(unlink("target"));
    ERR(EEXIST, shut(open("link", O_WRONLY | O_CREAT | O_EXCL, 0644)));
    YES(!there("target"));
}

static void mode_of_new(void)
{
    static const struct {
        mode_t mask, mode, want;
    } t[] = {
        {0, 0777, 0777},   {0, 0, 0},
        {022, 0666, 0644}, {077, 0777, 0700},
        {0777, 0777, 0},   {0, 06755, 06755},
        {0, 01644, 01644}, {022, 07777, 07755},
        {027, 0666, 0640}, {0123, 0654, 0654 & ~0123},
        {0, 0200, 0200},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("umask %03o mode %04o", t[i].mask, t[i].mode);
        umask(t[i].mask);
        OK(shut(open("f", O_WRONLY | O_CREAT, t[i].mode)));
        EQ(t[i].want, mode_of("f"));
        DO(unlink("f"));
    }
    NOTE_END();
    umask(022);
    put("f", "");
    DO(chmod("f", 0600));
    OK(shut(open("f", O_WRONLY | O_CREAT, 0777)));
    EQ(0600, mode_of("f")); // an existing file keeps its mode
    // the mode counts for later opens only
    int fd = -1;
    DO(chmod(".", 0777));
    AS(ALICE)
    {
        fd = (int)OK(open("mine", O_RDWR | O_CREAT, 0));
        OK(write(fd, "x", 1));
        OK(pread(fd, &(char){0}, 1, 0));
        ERR(EACCES, shut(open("mine", O_RDONLY)));
    }
    EQ(ALICE.uid, st_of("mine").st_uid);
    EQ(ALICE.gid, st_of("mine").st_gid);
}

static void access_modes(void)
{
    char b[8];
    put("f", "text");
    int r = (int)DO(open("f", O_RDONLY)), w = (int)DO(open("f", O_WRONLY)),
        p = (int)DO(open("f", O_PATH));
    ERR(EBADF, write(r, "x", 1));
    ERR(EBADF, pwrite(r, "x", 1, 0));
    ERR(EINVAL, ftruncate(r, 0));
    ERR(EBADF, read(w, b, 1));
    ERR(EBADF, pread(w, b, 1, 0));
    ERR(EBADF, fallocate(r, 0, 0, 10));
    ERR(EBADF, read(p, b, 1));
    ERR(EBADF, write(p, "x", 1));
    ERR(EBADF, lseek(p, 0, SEEK_SET));
    ERR(EBADF, fchmod(p, 0600));
    ERR(EBADF, fchown(p, 0, 0));
    ERR(EBADF, ftruncate(p, 0));
    ERR(EBADF, fsync(p));
    struct stat st;
    OK(fstat(p, &st));
    EQ(4, st.st_size);
    OK(fcntl(p, F_GETFL));
    OK(fsync(r));
    OK(fdatasync(r));
    YES(mmap(NULL, 4096, PROT_READ, MAP_SHARED, w, 0) == MAP_FAILED && errno == EACCES);
    YES(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r, 0) == MAP_FAILED &&
        errno == EACCES);
    EQ(O_RDONLY, fcntl(r, F_GETFL) & O_ACCMODE);
    EQ(O_WRONLY, fcntl(w, F_GETFL) & O_ACCMODE);
    YES(holds("f", "text"));
}

static void truncating(void)
{
    put("f", "some text");
    OK(shut(open("f", O_WRONLY | O_TRUNC)));
    EQ(0, size_of("f"));
    put("f", "some text");
    OK(shut(open("f", O_RDWR | O_CREAT | O_TRUNC, 0600)));
    EQ(0, size_of("f"));
    EQ(0644, mode_of("f"));
    put("f", "some text");
    DO(link("f", "g"));
    int held = (int)DO(open("g", O_RDONLY));
    OK(shut(open("f", O_WRONLY | O_TRUNC)));
    EQ(0, st_fd(held).st_size);
    DO(chmod(".", 0777));
    put_as("theirs", 0644, &ALICE);
    put("theirs", "kept");
    AS(BOB)
    {
        ERR(EACCES, shut(open("theirs", O_WRONLY | O_TRUNC)));
        ERR(EACCES, shut(open("theirs", O_RDONLY | O_TRUNC))); // truncating is writing
    }
    YES(holds("theirs", "kept"));
    put("f", "x");
    ERR(ENOTDIR, shut(open("f", O_RDWR | O_TRUNC | O_DIRECTORY)));
    YES(holds("f", "x"));
    ERR(EEXIST, shut(open("f", O_RDWR | O_TRUNC | O_CREAT | O_EXCL, 0644)));
    YES(holds("f", "x"));
}

static void appending(void)
{
    char b[32] = "";
    put("f", "one");
    int a = (int)NEED(open("f", O_RDWR | O_APPEND));
    EQ(0, lseek(a, 0, SEEK_CUR));
    OK(write(a, "two", 3));
    EQ(6, lseek(a, 0, SEEK_CUR));
    EQ(0, lseek(a, 0, SEEK_SET));
    EQ(3, read(a, b, 3));
    OK(write(a, "three", 5));
    YES(holds("f", "onetwothree"));
    OK(pwrite(a, "!", 1, 0)); // Linux appends in spite of the offset
    YES(holds("f", "onetwothree!"));
    DO(truncate("f", 3));
    OK(write(a, "4", 1));
    YES(holds("f", "one4"));
    int w = (int)DO(open("f", O_WRONLY));
    OK(write(w, "ONE4five", 8));
    OK(write(a, "six", 3));
    YES(holds("f", "ONE4fivesix"));
    // by F_SETFL
    YES(!(fcntl(w, F_GETFL) & O_APPEND));
    OK(fcntl(w, F_SETFL, O_APPEND));
    YES(fcntl(w, F_GETFL) & O_APPEND);
    OK(lseek(w, 0, SEEK_SET));
    OK(write(w, "7", 1));
    YES(holds("f", "ONE4fivesix7"));
    OK(fcntl(w, F_SETFL, 0));
    OK(lseek(w, 0, SEEK_SET));
    OK(write(w, "o", 1));
    YES(holds("f", "oNE4fivesix7"));
}

static void path_only(void)
{
    char b[64], link[64];
    put("f", "text");
    DO(symlink("f", "l"));
    DO(mkdir("d", 0755));
    put("d/in", "");
    int f = (int)NEED(open("f", O_PATH)), l = (int)NEED(open("l", O_PATH | O_NOFOLLOW)),
        d = (int)NEED(open("d", O_PATH | O_DIRECTORY));
    EQ(S_IFREG, st_fd(f).st_mode & S_IFMT);
    EQ(S_IFLNK, st_fd(l).st_mode & S_IFMT);
    EQ(1, readlinkat(l, "", b, sizeof(b)));
    OK(shut(openat(d, "in", O_RDONLY)));
    OK(fchdir(d));
    OK(chdir(".."));
    ERR(ENOTDIR, shut(open("f", O_PATH | O_DIRECTORY)));
    snprintf(link, sizeof(link), "/proc/self/fd/%d", f);
    int again = (int)OK(open(link, O_RDWR));
    EQ(4, read(again, b, sizeof(b)));
    struct stat st;
    OK(fstatat(f, "", &st, AT_EMPTY_PATH));
    OK(chmod(link, 0600));
    EQ(0600, mode_of("f"));
    OK(linkat(AT_FDCWD, link, AT_FDCWD, "second", AT_SYMLINK_FOLLOW));
    EQ(2, nlink_of("f"));
    OK(linkat(f, "", AT_FDCWD, "third", AT_EMPTY_PATH));
    EQ(3, nlink_of("f"));
    DO(chmod("f", 0));
    DO(chmod(".", 0755));
    AS(BOB)
    {
        OK(shut(open("f", O_PATH))); // needs no permission on the file
        ERR(EACCES, shut(open("f", O_RDONLY)));
        ERR(EACCES, shut(open(link, O_RDONLY)));
    }
}

static void temporary(void)
{
    char link[64], b[16];
    int fd = (int)NEED(open(".", O_TMPFILE | O_RDWR, 0640));
    EQ(0, st_fd(fd).st_nlink);
    EQ(0640, st_fd(fd).st_mode & 07777);
    EQ(S_IFREG, st_fd(fd).st_mode & S_IFMT);
    EQ(2, nlink_of(".")); // and nothing to be seen
    OK(write(fd, "hidden", 6));
    EQ(6, pread(fd, b, sizeof(b), 0));
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, link, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    EQ(1, st_fd(fd).st_nlink);
    YES(holds("named", "hidden"));
    EQ(st_fd(fd).st_ino, st_of("named").st_ino);
    OK(linkat(fd, "", AT_FDCWD, "twice", AT_EMPTY_PATH));
    EQ(2, nlink_of("named"));
    OK(close(fd));
    YES(holds("twice", "hidden"));
    // never linked: gone at close
    fd = (int)OK(open(".", O_TMPFILE | O_WRONLY, 0600));
    OK(write(fd, "x", 1));
    OK(close(fd));
    // O_EXCL: never to be linked
    fd = (int)OK(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ERR(ENOENT, linkat(AT_FDCWD, link, AT_FDCWD, "never", AT_SYMLINK_FOLLOW));
    OK(close(fd));
    ERR(EINVAL, shut(open(".", O_TMPFILE | O_RDONLY, 0600)));
    ERR(ENOENT, shut(open("none", O_TMPFILE | O_RDWR, 0600)));
    put("f", "");
    ERR(ENOTDIR, shut(open("f", O_TMPFILE | O_RDWR, 0600)));
    umask(027);
    fd = (int)OK(open(".", O_TMPFILE | O_RDWR, 0666));
    EQ(0640, st_fd(fd).st_mode & 07777);
    close(fd);
    AS(BOB)
    {
        ERR(EACCES,
            shut(open(".", O_TMPFILE | O_RDWR, 0600))); // needs write permission on the folder
    }
}

static void direct(void)
{
    char *page = aligned_alloc(4096, 16384), *other = aligned_alloc(4096, 16384);
    memset(page, 'd', 16384);
    int fd = (int)NEED(open("f", O_RDWR | O_CREAT | O_DIRECT, 0644));
    YES(fcntl(fd, F_GETFL) & O_DIRECT);
    EQ(16384, write(fd, page, 16384));
    EQ(16384, size_of("f"));
    EQ(8192, pread(fd, other, 8192, 4096));
    YES(!memcmp(page, other, 8192));
    EQ(4096, pread(fd, other, 16384, 12288));
    EQ(0, pread(fd, other, 4096, 16384));
    // what one descriptor writes buffered is read directly, and the other way round
    int plain = (int)DO(open("f", O_RDWR));
    EQ(5, pwrite(plain, "plain", 5, 4096));
    EQ(4096, pread(fd, other, 4096, 4096));
    YES(!memcmp(other, "plaind", 6));
    memset(other, 'e', 4096);
    EQ(4096, pwrite(fd, other, 4096, 8192));
    char b[8];
    EQ(4, pread(plain, b, 4, 8190));
    YES(!memcmp(b, "ddee", 4));
    OK(fcntl(plain, F_SETFL, O_DIRECT));
    EQ(4096, pread(plain, other, 4096, 0));
    YES(!memcmp(other, page, 4096));
    free(page);
    free(other);
}

static void synchronous(void)
{
    static const int flags[] = {O_SYNC, O_DSYNC, O_SYNC | O_APPEND};
    for (size_t i = 0; i < COUNT(flags); i++) {
        NOTE("flags %#x", flags[i]);
        int fd = (int)OK(open("f", O_WRONLY | O_CREAT | O_TRUNC | flags[i], 0644));
        EQ(flags[i], fcntl(fd, F_GETFL) & (O_SYNC | O_DSYNC | O_APPEND));
        EQ(4, write(fd, "sync", 4));
        EQ(2, pwrite(fd, "ed", 2, 4));
        EQ(6, size_of("f"));
        OK(close(fd));
        YES(holds("f", "synced"));
    }
}

static void exclusive_race(void)
{
    // of several processes that create one name, one wins, each time
    int pipes[2], wins = 0;
    DO(pipe(pipes));
    pid_t pid[4];
    for (int k = 0; k < 4; k++)
        CHILD(pid[k])
        {
            char name[16];
            for (int i = 0; i < 50; i++) {
                snprintf(name, sizeof(name), "race%d", i);
                int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
                if (fd >= 0 && write(pipes[1], "w", 1) == 1)
                    close(fd);
                else if (errno != EEXIST)
                    OK(fd);
            }
        }
    for (int k = 0; k < 4; k++)
        JOIN(pid[k]);
    close(pipes[1]);
    char c;
    while (read(pipes[0], &c, 1) == 1)
        wins++;
    EQ(50, wins);
}

static void noatime_flag(void)
{
    DO(chmod(".", 0777));
    put_as("f", 0666, &ALICE);
    AS(ALICE)
    {
        OK(shut(open("f", O_RDONLY | O_NOATIME)));
    }
    AS(BOB)
    {
        ERR(EPERM, shut(open("f", O_RDONLY | O_NOATIME)));
    }
    OK(shut(open("f", O_RDONLY | O_NOATIME)));
}

static void devices(void)
{
    char b[4] = "abc";
    DO(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
    DO(mknod("zero", S_IFCHR | 0666, makedev(1, 5)));
    DO(mknod("nothing", S_IFCHR | 0666, makedev(4000, 1)));
    int fd = (int)OK(open("null", O_RDWR));
    EQ(3, write(fd, b, 3));
    EQ(0, read(fd, b, 3));
    close(fd);
    fd = (int)OK(open("zero", O_RDONLY));
    EQ(3, read(fd, b, 3));
    EQ(0, b[0]);
    close(fd);
    ERR(ENXIO, shut(open("nothing", O_RDONLY)));
    EQ(0, size_of("null"));
}

static void closed_by_exec(void)
{
    // what exec closes is closed while nobody can look at the process: a file system that wants to, for
    // whom it works, waits for itself
    enum { FILES = 16 };
    char name[16], kept[16], shut_one[16];
    int fd[FILES];
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        fd[i] = (int)DO(open(name, O_RDWR | O_CREAT | (i ? O_CLOEXEC : 0), 0644));
    }
    for (int turn = 0; turn < 4; turn++) {
        NOTE("turn %d", turn);
        for (int i = 0; turn % 2 && i < FILES; i++)
            EQ(4, pwrite(fd[i], "text", 4, 4 * turn));
        snprintf(kept, sizeof(kept), "%d", fd[0]);
        snprintf(shut_one, sizeof(shut_one), "%d", fd[FILES - 1]);
        pid_t pid = fork();
        if (pid == 0) {
            execl("/bin/sh", "sh", "-c", "[ -e /proc/$$/fd/$0 ] && ! [ -e /proc/$$/fd/$1 ]", kept,
                  shut_one, (char *)NULL);
            _exit(9);
        }
        int status = -1;
        DO(waitpid(pid, &status, 0));
        EQ(0, status);
    }
    NOTE_END();
    for (int i = 0; i < FILES; i++) {
        EQ(16, st_fd(fd[i]).st_size);
        DO(close(fd[i]));
    }
}

AREA(open, {"flags-by-kind", create_flags}, {"create-through-symlink", create_through_symlink},
     {"mode-of-new", mode_of_new}, {"access-modes", access_modes}, {"truncating", truncating},
     {"appending", appending}, {"path-only", path_only}, {"temporary", temporary},
     {"direct", direct}, {"synchronous", synchronous}, {"exclusive-race", exclusive_race},
     {"closed-by-exec", closed_by_exec}, {"noatime", noatime_flag}, {"devices", devices});
