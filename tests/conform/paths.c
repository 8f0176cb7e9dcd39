/*
 * paths: how every call that takes a path treats paths that cannot be resolved.
 *
 * One table of calls, one of bad paths; every pair is an assertion. Calls that create get their path as the new name;
 * those with two paths appear once for each.
 */
#include "tests/conform/conform.h"

#include <dirent.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

enum { FOLLOWS = 1, CREATES = 2, WANTS_DIR = 4 }; // what it does with the last component

struct call {
    const char *name;
    int (*f)(const char *path);
    int flags;
};

static int c_open_r(const char *p)
{
    return shut(open(p, O_RDONLY));
}
static int c_open_w(const char *p)
{
    return shut(open(p, O_WRONLY));
}
static int c_open_path(const char *p)
{
    return shut(open(p, O_PATH));
}
static int c_open_dir(const char *p)
{
    return shut(open(p, O_RDONLY | O_DIRECTORY));
}
static int c_creat(const char *p)
{
    return shut(creat(p, 0644));
}
static int c_open_excl(const char *p)
{
    return shut(open(p, O_RDWR | O_CREAT | O_EXCL, 0644));
}
static int c_mkdir(const char *p)
{
    return mkdir(p, 0755);
}
static int c_mkfifo(const char *p)
{
    return mkfifo(p, 0644);
}
static int c_mknod(const char *p)
{
    return mknod(p, S_IFREG | 0644, 0);
}
static int c_symlink(const char *p)
{
    return symlink("to", p);
}
static int c_link_from(const char *p)
{
    return link(p, "new");
}
static int c_link_to(const char *p)
{
    return link("source", p);
}
static int c_rename_from(const char *p)
{
    return rename(p, "new");
}
static int c_rename_to(const char *p)
{
    return rename("source", p);
}
static int c_chmod(const char *p)
{
    return chmod(p, 0644);
}
static int c_chown(const char *p)
{
    return chown(p, (uid_t)-1, (gid_t)-1);
}
static int c_lchown(const char *p)
{
    return lchown(p, (uid_t)-1, (gid_t)-1);
}
static int c_truncate(const char *p)
{
    return truncate(p, 0);
}
static int c_utimens(const char *p)
{
    return utimensat(AT_FDCWD, p, NULL, 0);
}
static int c_lutimens(const char *p)
{
    return utimensat(AT_FDCWD, p, NULL, AT_SYMLINK_NOFOLLOW);
}
static int c_stat(const char *p)
{
    struct stat st;
    return stat(p, &st);
}
static int c_lstat(const char *p)
{
    struct stat st;
    return lstat(p, &st);
}
static int c_statx(const char *p)
{
    struct statx st;
    return statx(AT_FDCWD, p, 0, STATX_BASIC_STATS, &st);
}
static int c_statfs(const char *p)
{
    struct statfs st;
    return statfs(p, &st);
}
static int c_access(const char *p)
{
    return access(p, F_OK);
}
static int c_readlink(const char *p)
{
    char b[64];
    return (int)readlink(p, b, sizeof(b));
}
static int c_chdir(const char *p)
{
    return chdir(p);
}
static int c_getxattr(const char *p)
{
    return (int)getxattr(p, "user.x", NULL, 0);
}
static int c_setxattr(const char *p)
{
    return setxattr(p, "user.x", "v", 1, 0);
}
static int c_listxattr(const char *p)
{
    return (int)listxattr(p, NULL, 0);
}
static int c_removexattr(const char *p)
{
    return removexattr(p, "user.x");
}

static const struct call calls[] = {
    {"open for reading", c_open_r, FOLLOWS},
    {"open for writing", c_open_w, FOLLOWS},
    {"open O_PATH", c_open_path, FOLLOWS},
    {"open O_DIRECTORY", c_open_dir, FOLLOWS | WANTS_DIR},
    {"creat", c_creat, FOLLOWS | CREATES},
    {"open O_EXCL", c_open_excl, CREATES},
    {"mkdir", c_mkdir, CREATES},
    {"rmdir", rmdir, WANTS_DIR},
    {"unlink", unlink, 0},
    {"mkfifo", c_mkfifo, CREATES},
    {"mknod", c_mknod, CREATES},
    {"symlink", c_symlink, CREATES},
    {"link from", c_link_from, 0},
    {"link to", c_link_to, CREATES},
    {"rename from", c_rename_from, 0},
    {"rename to", c_rename_to, CREATES},
    {"chmod", c_chmod, FOLLOWS},
    {"chown", c_chown, FOLLOWS},
    {"lchown", c_lchown, 0},
    {"truncate", c_truncate, FOLLOWS},
    {"utimensat", c_utimens, FOLLOWS},
    {"utimensat of the link", c_lutimens, 0},
    {"stat", c_stat, FOLLOWS},
    {"lstat", c_lstat, 0},
    {"statx", c_statx, FOLLOWS},
    {"statfs", c_statfs, FOLLOWS},
    {"access", c_access, FOLLOWS},
    {"readlink", c_readlink, 0},
    {"chdir", c_chdir, FOLLOWS | WANTS_DIR},
    {"getxattr", c_getxattr, FOLLOWS},
    {"setxattr", c_setxattr, FOLLOWS},
    {"listxattr", c_listxattr, FOLLOWS},
    {"removexattr", c_removexattr, FOLLOWS},
};

static void each(int code, const char *path, int without)
{
    for (size_t i = 0; i < COUNT(calls); i++) {
        if (calls[i].flags & without)
            continue;
        NOTE("%s", calls[i].name);
        ERR(code, calls[i].f(path));
    }
    NOTE_END();
}

static void missing_parent(void)
{
    put("source", "");
    each(ENOENT, "none/x", 0);
    YES(there("source"));
}

static void dangling_parent(void)
{
    put("source", "");
    DO(symlink("none", "dangling"));
    each(ENOENT, "dangling/x", 0);
}

static void missing_last(void)
{
    put("source", "");
    each(ENOENT, "none", CREATES);
}

static void empty(void)
{
    put("source", "");
    each(ENOENT, "", 0);
}

static void file_as_parent(void)
{
    put("source", "");
    put("file", "");
    each(ENOTDIR, "file/x", 0);
}

static void fifo_as_parent(void)
{
    put("source", "");
    DO(mkfifo("fifo", 0644));
    each(ENOTDIR, "fifo/x", 0);
}

static void long_component(void)
{
    put("source", "");
    each(ENAMETOOLONG, filled(256, 'n'), 0);
}

static void long_parent(void)
{
    char path[300];
    put("source", "");
    snprintf(path, sizeof(path), "%s/x", filled(256, 'n'));
    each(ENAMETOOLONG, path, 0);
}

static void long_path(void)
{
    char *path = filled(4096, '/');
    put("source", "");
    for (int i = 0; i < 4094; i += 2)
        path[i] = '.';
    path[4095] = 'x';
    each(ENAMETOOLONG, path, 0);
    path[4095] = 0;
    struct stat st;
    OK(stat(path, &st)); // 4095 bytes and the NUL are just allowed
}

static void loop(void)
{
    put("source", "");
    DO(symlink("two", "one"));
    DO(symlink("one", "two"));
    DO(symlink("self", "self"));
    each(ELOOP, "one/x", 0);
    for (size_t i = 0; i < COUNT(calls); i++) {
        if (!(calls[i].flags & FOLLOWS))
            continue;
        NOTE("%s", calls[i].name);
        ERR(ELOOP, calls[i].f("self"));
    }
}

static void closed_parent(void)
{
    DO(chmod(".", 0777));
    DO(mkdir("closed", 0755));
    put("closed/x", "");
    DO(mkdir("closed/dir", 0777));
    put_as("source", 0666, &ALICE);
    DO(chmod("closed", 0766)); // read and write, no search
    AS(ALICE)
    {
        each(EACCES, "closed/x", 0);
        each(EACCES, "closed/none", 0);
        NOTE("below");
        ERR(EACCES, shut(open("closed/dir/x", O_RDONLY)));
        ERR(EACCES, shut(open("closed/../source", O_RDONLY)));
        ERR(EACCES, chdir("closed"));
        OK(shut(open("closed", O_RDONLY | O_DIRECTORY))); // listing needs no search
    }
}

static void slash_after_file(void)
{
    put("source", "");
    put("file", "");
    static const struct {
        const char *name;
        int (*f)(const char *);
        int code;
    } t[] = {
        {"open", c_open_r, ENOTDIR},         {"stat", c_stat, ENOTDIR},
        {"lstat", c_lstat, ENOTDIR},         {"unlink", unlink, ENOTDIR},
        {"rmdir", rmdir, ENOTDIR},           {"chmod", c_chmod, ENOTDIR},
        {"truncate", c_truncate, ENOTDIR},   {"link from", c_link_from, ENOTDIR},
        {"link to", c_link_to, EEXIST},      {"rename from", c_rename_from, ENOTDIR},
        {"rename to", c_rename_to, ENOTDIR}, {"mkdir", c_mkdir, EEXIST},
        {"symlink", c_symlink, EEXIST},      {"mkfifo", c_mkfifo, EEXIST},
        {"creat", c_creat, EISDIR},          {"readlink", c_readlink, ENOTDIR},
        {"access", c_access, ENOTDIR},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("%s", t[i].name);
        ERR(t[i].code, t[i].f("file/"));
    }
}

static void slash_after_new(void)
{
    put("source", "");
    ERR(EISDIR, c_creat("new/"));
    ERR(EISDIR, c_open_excl("new/"));
    ERR(ENOENT, c_mkfifo("new/"));
    ERR(ENOENT, c_mknod("new/"));
    ERR(ENOENT, c_symlink("new/"));
    ERR(ENOENT, c_link_to("new/"));
    ERR(ENOTDIR, c_rename_to("new/"));
    YES(!there("new"));
    OK(c_mkdir("new/"));
    EQ(K_DIR, conform_kind_at("new"));
    OK(rename("new/", "newer/"));
    EQ(K_DIR, conform_kind_at("newer"));
    OK(rmdir("newer/"));
}

static void slash_after_symlink(void)
{
    struct stat st;
    DO(mkdir("dir", 0755));
    DO(symlink("dir", "link"));
    OK(lstat("link", &st));
    EQ(S_IFLNK, st.st_mode & S_IFMT);
    OK(lstat("link/", &st));
    EQ(S_IFDIR, st.st_mode & S_IFMT);
    ERR(ENOTDIR, unlink("link/"));
    ERR(ENOTDIR, rmdir("link/"));
    ERR(ENOTDIR, rmdir("link"));
    ERR(ENOTDIR, rename("link/", "new"));
    ERR(EEXIST, mkdir("link/", 0755));
    YES(there("dir"));
}

AREA(paths, {"missing-parent", missing_parent}, {"dangling-parent", dangling_parent},
     {"missing-last", missing_last}, {"empty", empty}, {"file-as-parent", file_as_parent},
     {"fifo-as-parent", fifo_as_parent}, {"long-component", long_component},
     {"long-parent", long_parent}, {"long-path", long_path}, {"loop", loop},
     {"closed-parent", closed_parent}, {"slash-after-file", slash_after_file},
     {"slash-after-new", slash_after_new}, {"slash-after-symlink", slash_after_symlink});
