/*
 * perms: who may do what, by mode bits, class of user, sticky bits and capabilities of root.
 */
#include "tests/conform/conform.h"

#include <dirent.h>
#include <grp.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const struct who {
    const char *name;
    const struct conform_user *user;
    int shift; // of the class's bits in the mode
} whos[] = {
    {"owner", &ALICE, 6},
    {"group", &MATE, 3},
    {"supplementary group", &MEMBER, 3},
    {"others", &BOB, 0},
};

static int run_it(const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {(char *)path, NULL}, *env[] = {NULL};
        execve(path, argv, env);
        _exit(errno);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    errno = WEXITSTATUS(status);
    return errno ? -1 : 0;
}

/* Each class with each of its eight bit sets; the bits of the other classes say the opposite. */
static void file_classes(void)
{
    put("f", "#!/bin/true\n");
    DO(chown("f", ALICE.uid, ALICE.gid));
    for (size_t w = 0; w < COUNT(whos); w++)
        for (unsigned bits = 0; bits < 8; bits++) {
            mode_t mode = (bits << whos[w].shift) | ((~bits & 7) * 0111 & ~(7U << whos[w].shift));
            DO(chmod("f", mode));
            AS(*whos[w].user)
            {
                NOTE("%s with mode %04o", whos[w].name, mode);
                GIVES(bits & 4 ? 0 : EACCES, shut(open("f", O_RDONLY)));
                GIVES(bits & 2 ? 0 : EACCES, shut(open("f", O_WRONLY)));
                GIVES((bits & 6) == 6 ? 0 : EACCES, shut(open("f", O_RDWR)));
                GIVES(bits & 4 ? 0 : EACCES, access("f", R_OK));
                GIVES(bits & 2 ? 0 : EACCES, access("f", W_OK));
                GIVES(bits & 1 ? 0 : EACCES, access("f", X_OK));
                GIVES(bits == 7 ? 0 : EACCES, access("f", R_OK | W_OK | X_OK));
                OK(access("f", F_OK));
                if (bits != 1) // a script that cannot be read is a matter of its interpreter
                    GIVES(bits & 1 ? 0 : EACCES, run_it("./f"));
                GIVES(bits & 2 ? 0 : EACCES, truncate("f", 12));
            }
        }
}

static int list(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return -1;
    closedir(d);
    return 0;
}

static void directory_classes(void)
{
    dir_as("d", 0777, &ALICE);
    put_as("d/f", 0666, &ALICE);
    dir_as("d/kept", 0777, &ALICE);
    for (size_t w = 0; w < COUNT(whos); w++)
        for (unsigned bits = 0; bits < 8; bits++) {
            mode_t mode = (bits << whos[w].shift) | ((~bits & 7) * 0111 & ~(7U << whos[w].shift));
            DO(chmod("d", mode));
            AS(*whos[w].user)
            {
                struct stat st;
                int change = (bits & 3) == 3 ? 0 : EACCES;
                NOTE("%s with mode %04o", whos[w].name, mode);
                GIVES(bits & 4 ? 0 : EACCES, list("d"));
                GIVES(bits & 1 ? 0 : EACCES, stat("d/f", &st));
                GIVES(bits & 1 ? 0 : EACCES, shut(open("d/f", O_RDWR)));
                if (GIVES(bits & 1 ? 0 : EACCES, chdir("d")) == 0)
                    DO(chdir(".."));
                GIVES(bits & 1 ? ENOENT : EACCES, stat("d/none", &st));
                GIVES(change, shut(open("d/new", O_WRONLY | O_CREAT | O_EXCL, 0644)));
                GIVES(change, link("d/f", "d/f2"));
                GIVES(change, rename("d/f", "d/g"));
                if (!change)
                    DO(rename("d/g", "d/f"));
                GIVES(change, mkdir("d/sub", 0755));
                GIVES(change, symlink("x", "d/s"));
                GIVES(change, mkfifo("d/p", 0644));
                GIVES(change, change ? unlink("d/f") : unlink("d/f2"));
                GIVES(change, change ? rmdir("d/kept") : rmdir("d/sub"));
            }
            conform_remove("d/new");
            conform_remove("d/s");
            conform_remove("d/p");
        }
}

static void root_power(void)
{
    put_as("f", 0, &ALICE);
    dir_as("d", 0, &ALICE);
    OK(shut(open("f", O_RDWR)));
    OK(access("f", R_OK | W_OK));
    ERR(EACCES, access("f", X_OK)); // not even root executes what nobody may
    ERR(EACCES, run_it("./f"));
    DO(chmod("f", 0010));
    OK(access("f", X_OK));
    OK(shut(open("d/x", O_WRONLY | O_CREAT, 0644)));
    OK(list("d"));
    OK(access("d", R_OK | W_OK | X_OK));
    DO(chmod("d", 01000));
    OK(unlink("d/x"));
    OK(chmod("f", 0600));
    OK(chown("f", BOB.uid, BOB.gid));
}

/* access(2) asks as the real user, faccessat with AT_EACCESS as the effective one. */
static void real_and_effective(void)
{
    put_as("f", 0600, &ALICE);
    pid_t pid;
    CHILD(pid)
    {
        DO(setresgid(BOB.gid, ALICE.gid, ALICE.gid));
        DO(setresuid(BOB.uid, ALICE.uid, ALICE.uid));
        ERR(EACCES, access("f", R_OK));
        OK(syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, AT_EACCESS));
        OK(shut(open("f", O_RDONLY)));
    }
    JOIN(pid);
    CHILD(pid)
    {
        DO(setresuid(BOB.uid, 0, 0));
        ERR(EACCES, access("f", R_OK));
        OK(syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK | W_OK, AT_EACCESS));
    }
    JOIN(pid);
    DO(symlink("none", "s"));
    OK(faccessat(AT_FDCWD, "s", F_OK, AT_SYMLINK_NOFOLLOW));
    ERR(ENOENT, faccessat(AT_FDCWD, "s", F_OK, 0));
    ERR(EINVAL, access("f", 64));
}

/* What only the owner may do, what writers may do, what anyone may. */
static void owner_only(void)
{
    put_as("f", 0666, &ALICE);
    dir_as("d", 0777, &ALICE);
    static const struct timespec times[2] = {{1000, 0}, {2000, 0}};
    static const struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
    static const struct timespec mixed[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    static const struct timespec none[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    static const char *const paths[] = {"f", "d"};
    for (size_t i = 0; i < 2; i++) {
        const char *p = paths[i];
        AS(ALICE)
        {
            NOTE("owner of %s", p);
            OK(chmod(p, 0777));
            OK(utimensat(AT_FDCWD, p, times, 0));
            OK(utimensat(AT_FDCWD, p, now, 0));
            OK(utimensat(AT_FDCWD, p, mixed, 0));
        }
        AS(BOB)
        {
            NOTE("writer of %s", p);
            ERR(EPERM, chmod(p, 0777));
            ERR(EPERM, chown(p, BOB.uid, (gid_t)-1));
            ERR(EPERM, chown(p, (uid_t)-1, BOB.gid));
            ERR(EPERM, utimensat(AT_FDCWD, p, times, 0));
            ERR(EPERM, utimensat(AT_FDCWD, p, mixed, 0));
            OK(utimensat(AT_FDCWD, p, now, 0)); // a writer could change mtime anyway
            OK(utimensat(AT_FDCWD, p, NULL, 0));
            OK(utimensat(AT_FDCWD, p, none, 0));
        }
        DO(chmod(p, 0755));
        AS(BOB)
        {
            NOTE("reader of %s", p);
            ERR(EPERM, chmod(p, 0755));
            ERR(EPERM, utimensat(AT_FDCWD, p, times, 0));
            ERR(EACCES, utimensat(AT_FDCWD, p, now, 0));
            ERR(EACCES, utimensat(AT_FDCWD, p, NULL, 0));
            OK(utimensat(AT_FDCWD, p, none, 0));
        }
        DO(chmod(p, 0777));
    }
}

static void sticky_removal(void)
{
    static const struct {
        const char *name;
        const struct conform_user *dir, *file, *who;
        int code;
    } t[] = {
        {"owner of the file", &BOB, &ALICE, &ALICE, 0},
        {"owner of the directory", &ALICE, &BOB, &ALICE, 0},
        {"stranger", &ALICE, &ALICE, &BOB, EPERM},
        {"group of the file", &BOB, &ALICE, &MATE, EPERM},
    };
    for (size_t i = 0; i < COUNT(t); i++)
        for (int k = K_FILE; k < K_KINDS; k++) {
            if (k == K_FULL_DIR)
                continue;
            dir_as("d", 01777, t[i].dir);
            conform_make((enum conform_kind)k, "d/x");
            DO(lchown("d/x", t[i].file->uid, t[i].file->gid));
            AS(*t[i].who)
            {
                NOTE("%s, %s", t[i].name, conform_kinds[k]);
                GIVES(t[i].code, k == K_DIR ? rmdir("d/x") : unlink("d/x"));
            }
            conform_remove("d");
        }
}

/* Permission is given at open: no later change takes it from the descriptor. */
static void already_open(void)
{
    char b[8];
    put_as("f", 0666, &ALICE);
    put("f", "text");
    DO(mkdir("d", 0755));
    put("d/in", "");
    AS(BOB)
    {
        int fd = (int)OK(open("f", O_RDWR)), dir = (int)OK(open("d", O_RDONLY | O_DIRECTORY));
        EQ(4, pread(fd, b, 4, 0));
        EQ(2, pwrite(fd, "ok", 2, 0));
        OK(fstat(dir, &(struct stat){0}));
        OK(shut(openat(dir, "in", O_RDONLY)));
    }
    int fd = (int)DO(open("f", O_RDWR)), dir = (int)DO(open("d", O_RDONLY | O_DIRECTORY));
    DO(chmod("f", 0));
    DO(chmod("d", 0));
    AS(BOB)
    {
        ERR(EACCES, shut(open("f", O_RDONLY)));
        EQ(4, pread(fd, b, 4, 0));
        EQ(1, pwrite(fd, "x", 1, 0));
        OK(ftruncate(fd, 4));
        OK(fsync(fd));
        OK(fstat(fd, &(struct stat){0}));
        ERR(EACCES, openat(dir, "in", O_RDONLY));
        OK(lseek(dir, 0, SEEK_SET));
        YES(syscall(SYS_getdents64, dir, (char[512]){0}, 512) > 0);
        ERR(EPERM, fchmod(fd, 0777));
        ERR(EPERM, fchown(fd, BOB.uid, BOB.gid));
    }
}

static void search_path(void)
{
    dir_as("a", 0711, &ALICE);
    dir_as("a/b", 0755, &ALICE);
    put_as("a/b/f", 0644, &ALICE);
    AS(BOB)
    {
        OK(shut(open("a/b/f", O_RDONLY)));
        ERR(EACCES, list("a"));
        OK(list("a/b"));
    }
    DO(chmod("a", 0700));
    AS(BOB)
    {
        ERR(EACCES, shut(open("a/b/f", O_RDONLY)));
        ERR(EACCES, list("a/b"));
    }
    AS(ALICE)
    {
        OK(shut(open("a/b/f", O_RDONLY)));
    }
    DO(chmod("a", 0711));
    DO(chmod("a/b", 0070));
    AS(MEMBER)
    {
        OK(shut(open("a/b/f", O_RDONLY)));
    }
    AS(ALICE)
    {
        ERR(EACCES,
            shut(open("a/b/f",
                      O_RDONLY))); // the owner's class counts, though the group's would allow it
    }
}

static void many_groups(void)
{
    // a group far down in a long list of groups counts as well
    gid_t groups[200];
    for (gid_t i = 0; i < 200; i++)
        groups[i] = 80000 + i;
    put_as("f", 0060, NULL);
    DO(chown("f", 0, 80199));
    DO(chmod("f", 0060));
    dir_as("d", 0070, NULL);
    DO(chown("d", 0, 80150));
    pid_t pid;
    CHILD(pid)
    {
        DO(setgroups(200, groups));
        DO(setresgid(BOB.gid, BOB.gid, BOB.gid));
        DO(setresuid(BOB.uid, BOB.uid, BOB.uid));
        OK(shut(open("f", O_RDWR)));
        OK(shut(open("d/new", O_WRONLY | O_CREAT, 0640)));
        OK(unlink("d/new"));
    }
    JOIN(pid);
}

AREA(perms, {"file-classes", file_classes}, {"directory-classes", directory_classes},
     {"root-power", root_power}, {"real-and-effective", real_and_effective},
     {"owner-only", owner_only}, {"sticky-removal", sticky_removal}, {"already-open", already_open},
     {"search-path", search_path}, {"many-groups", many_groups});
