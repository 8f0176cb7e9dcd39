/*
 * names: which names a directory takes, dots, deep trees, and what is left of a directory that was removed.
 */
#include "tests/conform/conform.h"

#include <dirent.h>
#include <sys/syscall.h>

static int make(const char *name)
{
    return shut(open(name, O_WRONLY | O_CREAT | O_EXCL, 0644));
}

/* The number of entries called as one of these, each found exactly once, and no others besides dots. */
static bool lists_exactly(char names[][260], size_t n)
{
    unsigned char *seen = calloc(n, 1);
    DIR *d = opendir(".");
    struct dirent *e;
    bool good = d && seen;
    size_t found = 0;
    while (good && (e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        size_t i = 0;
        while (i < n && strcmp(names[i], e->d_name))
            i++;
        if (i == n || seen[i]++)
            good = false;
        found++;
    }
    if (d)
        closedir(d);
    free(seen);
    return good && found == n;
}

static void use_all(char names[][260], size_t n)
{
    size_t made = 0, statted = 0, removed = 0;
    struct stat st;
    for (size_t i = 0; i < n; i++)
        made += make(names[i]) == 0;
    EQ(n, made);
    for (size_t i = 0; i < n; i++)
        statted += stat(names[i], &st) == 0 && S_ISREG(st.st_mode);
    EQ(n, statted);
    YES(lists_exactly(names, n));
    for (size_t i = 0; i < n; i++)
        removed += unlink(names[i]) == 0;
    EQ(n, removed);
    YES(lists_exactly(names, 0));
}

static void every_byte(void)
{
    static char names[256][260];
    size_t n = 0;
    for (int b = 1; b < 256; b++)
        if (b != '/' && b != '.')
            snprintf(names[n++], 260, "%c", b);
    EQ(253, n);
    use_all(names, n);
}

static void every_byte_inside(void)
{
    static char names[256][260];
    size_t n = 0;
    for (int b = 1; b < 256; b++)
        if (b != '/')
            snprintf(names[n++], 260, "in%cside", b);
    use_all(names, n);
}

static void every_length(void)
{
    static char names[255][260];
    for (size_t i = 0; i < 255; i++)
        snprintf(names[i], 260, "%s", filled(i + 1, 'l'));
    use_all(names, 255);
}

static void longest(void)
{
    char name[300], other[300];
    snprintf(name, sizeof(name), "%s", filled(255, 'a'));
    snprintf(other, sizeof(other), "%s", filled(255, 'b'));
    OK(make(name));
    OK(link(name, other));
    OK(unlink(name));
    OK(rename(other, name));
    ERR(ENAMETOOLONG, rename(name, filled(256, 'c')));
    ERR(ENAMETOOLONG, link(name, filled(256, 'c')));
    OK(unlink(name));
    OK(mkdir(name, 0755));
    OK(rmdir(name));
    OK(symlink("x", name));
    OK(unlink(name));
    OK(mkfifo(name, 0644));
    OK(unlink(name));
    for (int i = 0; i < 85; i++)
        memcpy(name + 3 * i, "\xe2\x82\xac", 3);
    OK(make(name)); // 85 characters, 255 bytes
    ERR(ENAMETOOLONG, make(strcat(name, "x")));
}

static void alike(void)
{
    static const char *const t[] = {
        "a",    "A",        " a",           "a ",  "a\n", "\ta",      "-a",
        "-",    "...",      "..a",          "a.",  "a..", "\\a",      "a\\",
        "*",    "?",        "[a]",          "~",   "%2f", "\xc3\xa9", "e\xcc\x81",
        "\xe9", "\xff\xfe", "\xed\xa0\x80", "con", "NUL", "a:b",      "\x7f"};
    struct stat st[COUNT(t)];
    for (size_t i = 0; i < COUNT(t); i++)
        DO(make(t[i]));
    for (size_t i = 0; i < COUNT(t); i++)
        DO(stat(t[i], &st[i]));
    for (size_t i = 0; i < COUNT(t); i++) {
        size_t same = 0;
        for (size_t j = 0; j < COUNT(t); j++)
            same += st[i].st_ino == st[j].st_ino;
        NOTE("name %zu of the list", i);
        EQ(1, same);
    }
}

static void dots(void)
{
    DO(mkdir("d", 0755));
    DO(mkdir("d/e", 0755));
    put("f", "");
    ERR(EEXIST, mkdir(".", 0755));
    ERR(EEXIST, mkdir("..", 0755));
    ERR(EEXIST, mkdir("d/.", 0755));
    ERR(EEXIST, symlink("x", "."));
    ERR(EEXIST, mkfifo("..", 0644));
    ERR(EINVAL, rmdir("."));
    ERR(ENOTEMPTY, rmdir(".."));
    ERR(EINVAL, rmdir("d/e/."));
    ERR(ENOTEMPTY, rmdir("d/e/.."));
    ERR(EISDIR, unlink("."));
    ERR(EISDIR, unlink(".."));
    ERR(EISDIR, unlink("d/."));
    ERR(EBUSY, rename(".", "new"));
    ERR(EBUSY, rename("..", "new"));
    ERR(EBUSY, rename("d/.", "new"));
    ERR(EBUSY, rename("d/e/..", "new"));
    ERR(EBUSY, rename("d", "."));
    ERR(EBUSY, rename("f", ".."));
    ERR(EBUSY, rename("f", "d/."));
    ERR(EEXIST, link("f", "."));
    ERR(EEXIST, link("f", "d/.."));
    ERR(EPERM, link(".", "new"));
    ERR(ENOTDIR, shut(open("f/.", O_RDONLY)));
    ERR(ENOTDIR, shut(open("f/..", O_RDONLY)));
    ERR(EISDIR, shut(open("d/.", O_WRONLY | O_CREAT, 0644)));
    ERR(EEXIST, shut(open(".", O_RDONLY | O_CREAT | O_EXCL, 0644)));
    EQ(st_of(".").st_ino, st_of("d/..").st_ino);
    EQ(st_of("d").st_ino, st_of("d/.").st_ino);
    EQ(st_of("d").st_ino, st_of("d/e/..").st_ino);
    EQ(st_of("..").st_ino, st_of("d/../..").st_ino);
    EQ(st_of("d").st_ino, st_of("d//e///../.").st_ino);
}

static void deep(void)
{
    // a path of exactly 4095 bytes: 15 folders of 255 bytes with slashes are 3840, the file's name is the rest
    char path[4200] = "";
    size_t n = 0;
    for (int i = 0; i < 15; i++) {
        memcpy(path + n, filled(255, 'd'), 255);
        n += 255;
        path[n] = 0;
        NEED(mkdir(path, 0755));
        path[n++] = '/';
    }
    memcpy(path + n, filled(255, 'e'), 256);
    EQ(4095, strlen(path));
    OK(make(path));
    struct stat st;
    OK(stat(path, &st));
    OK(unlink(path));
    OK(mkdir(path, 0755));
    OK(rmdir(path));
    strcat(path, "e");
    ERR(ENAMETOOLONG, make(path));
}

static void deeper(void)
{
    int top = (int)DO(open(".", O_RDONLY | O_DIRECTORY));
    int at = dup(top), depth = 0;
    char name[210], cwd[4096];
    snprintf(name, sizeof(name), "%s", filled(200, 'q'));
    for (; depth < 60; depth++) {
        int next;
        if (mkdirat(at, name, 0755) || (next = openat(at, name, O_RDONLY | O_DIRECTORY)) < 0)
            break;
        close(at);
        at = next;
    }
    EQ(60, depth);
    OK(fchdir(at));
    ERR(ENAMETOOLONG, syscall(SYS_getcwd, cwd, sizeof(cwd)));
    OK(make("file"));
    OK(renameat(at, "file", top, "up"));
    int back = 0;
    while (back < 60 && chdir("..") == 0)
        back++;
    EQ(60, back);
    EQ(st_fd(top).st_ino, st_of(".").st_ino);
    YES(there("up"));
}

static void many_levels(void)
{
    char cwd[4096];
    int depth = 0, up = 0;
    while (depth < 400 && mkdir("l", 0755) == 0 && chdir("l") == 0)
        depth++;
    EQ(400, depth);
    YES(getcwd(cwd, sizeof(cwd)) != NULL);
    YES(strlen(cwd) > 800 && !strcmp(cwd + strlen(cwd) - 8, "/l/l/l/l"));
    while (up < depth && chdir("..") == 0 && rmdir("l") == 0)
        up++;
    EQ(400, up);
}

static void removed_directory(void)
{
    char b[4096];
    struct stat st;
    DO(mkdir("d", 0755));
    put("f", "");
    int fd = (int)DO(open("d", O_RDONLY | O_DIRECTORY));
    DO(chdir("d"));
    OK(rmdir("../d"));
    ERR(ENOENT, syscall(SYS_getcwd, b, sizeof(b)));
    OK(fstat(fd, &st));
    EQ(0, st.st_nlink);
    EQ(S_IFDIR, st.st_mode & S_IFMT);
    OK(stat(".", &st));
    ERR(ENOENT, make("x"));
    ERR(ENOENT, mkdir("x", 0755));
    ERR(ENOENT, symlink("to", "x"));
    ERR(ENOENT, mkfifo("x", 0644));
    ERR(ENOENT, link("../f", "x"));
    ERR(ENOENT, rename("../f", "x"));
    ERR(ENOENT, openat(fd, "x", O_RDONLY));
    ERR(ENOENT, syscall(SYS_getdents64, fd, b, sizeof(b)));
    OK(fchmod(fd, 0700));
    OK(fstat(fd, &st));
    EQ(0700, st.st_mode & 0777);
    OK(stat("..", &st));
    OK(mkdir("../d", 0755)); // the name is free, and another directory
    YES(st_of("../d").st_ino != st_fd(fd).st_ino);
    ERR(ENOENT, make("y"));
    YES(!there("../d/y"));
    OK(chdir(".."));
}

static void moved_directory(void)
{
    char b[4096];
    DO(mkdir("d", 0755));
    DO(mkdir("other", 0755));
    DO(chdir("d"));
    DO(mkdir("sub", 0755));
    int fd = (int)DO(open("sub", O_RDONLY | O_DIRECTORY));
    DO(rename("../d", "../other/moved"));
    YES(getcwd(b, sizeof(b)) && !strcmp(b + strlen(b) - 12, "/other/moved"));
    OK(make("x"));
    YES(there("../../other/moved/x"));
    EQ(st_of("../../other").st_ino, st_of("..").st_ino);
    DO(fchdir(fd));
    YES(getcwd(b, sizeof(b)) && !strcmp(b + strlen(b) - 16, "/other/moved/sub"));
    OK(renameat(fd, "../x", fd, "y"));
    YES(there("../../../other/moved/sub/y"));
}

AREA(names, {"every-byte", every_byte}, {"every-byte-inside", every_byte_inside},
     {"every-length", every_length}, {"longest", longest}, {"alike", alike}, {"dots", dots},
     {"deep", deep}, {"deeper", deeper}, {"many-levels", many_levels},
     {"removed-directory", removed_directory}, {"moved-directory", moved_directory});
