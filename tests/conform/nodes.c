/*
 * nodes: making and removing each kind of node: modes, owners, link counts, numbers of devices, refusals.
 */
#include "tests/conform/conform.h"

#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static int new_file(const char *p, mode_t m)
{
    return shut(open(p, O_WRONLY | O_CREAT | O_EXCL, m));
}
static int new_node(const char *p, mode_t m)
{
    return mknod(p, S_IFREG | m, 0);
}
static int new_socket(const char *p, mode_t m)
{
    return mknod(p, S_IFSOCK | m, 0);
}
static int new_char(const char *p, mode_t m)
{
    return mknod(p, S_IFCHR | m, makedev(1, 3));
}
static int new_block(const char *p, mode_t m)
{
    return mknod(p, S_IFBLK | m, makedev(7, 1));
}
static int new_link(const char *p, mode_t m)
{
    (void)m;
    return symlink("to", p);
}

static const struct maker {
    const char *name;
    int (*f)(const char *, mode_t);
    mode_t type, keeps; // mode bits that a new one can have
} makers[] = {
    {"open", new_file, S_IFREG, 07777},          {"mkdir", mkdir, S_IFDIR, 01777},
    {"mknod", new_node, S_IFREG, 07777},         {"mkfifo", mkfifo, S_IFIFO, 07777},
    {"socket", new_socket, S_IFSOCK, 07777},     {"char device", new_char, S_IFCHR, 07777},
    {"block device", new_block, S_IFBLK, 07777},
};

static void modes(void)
{
    static const struct {
        mode_t mask, mode;
    } t[] = {{0, 0777},    {022, 0777}, {077, 0666}, {0777, 0777},
             {027, 07777}, {0, 01000},  {0, 0},      {0133, 0755}};
    for (size_t m = 0; m < COUNT(makers); m++)
        for (size_t i = 0; i < COUNT(t); i++) {
            NOTE("%s umask %03o mode %04o", makers[m].name, t[i].mask, t[i].mode);
            umask(t[i].mask);
            DO(makers[m].f("x", t[i].mode));
            EQ((t[i].mode & ~t[i].mask & makers[m].keeps) | makers[m].type, st_of("x").st_mode);
            conform_remove("x");
        }
}

static void symlink_mode(void)
{
    umask(077);
    OK(symlink("to", "x"));
    EQ(S_IFLNK | 0777, st_of("x").st_mode);
}

static void attributes(void)
{
    for (size_t m = 0; m < COUNT(makers); m++) {
        struct timespec before, after;
        NOTE("%s", makers[m].name);
        clock_gettime(CLOCK_REALTIME_COARSE, &before);
        OK(makers[m].f("x", 0644));
        conform_tick();
        clock_gettime(CLOCK_REALTIME, &after);
        struct stat st = st_of("x");
        EQ(m == 1 ? 2 : 1, st.st_nlink);
        EQ(0, st.st_uid);
        EQ(0, st.st_gid);
        YES(conform_time_cmp(st.st_atim, before) >= 0 && conform_time_cmp(st.st_atim, after) <= 0);
        YES(conform_time_cmp(st.st_mtim, before) >= 0 && conform_time_cmp(st.st_mtim, after) <= 0);
        YES(conform_time_cmp(st.st_ctim, before) >= 0 && conform_time_cmp(st.st_ctim, after) <= 0);
        EQ(0, m == 1 ? 0 : st.st_size);
        EQ(0, m == 1 ? 0 : st.st_blocks);
        EQ(st_of(".").st_dev, st.st_dev);
        YES(st.st_ino != 0 && st.st_ino != st_of(".").st_ino);
        YES(st.st_blksize >= 512);
        conform_remove("x");
    }
}

static void existing(void)
{
    for (int k = K_FILE; k < K_KINDS; k++) {
        conform_make((enum conform_kind)k, "x");
        struct stat before = st_of("x");
        for (size_t m = 0; m < COUNT(makers); m++) {
            NOTE("%s onto %s", makers[m].name, conform_kinds[k]);
            ERR(EEXIST, makers[m].f("x", 0600));
        }
        NOTE("symlink onto %s", conform_kinds[k]);
        ERR(EEXIST, new_link("x", 0));
        put("f", "");
        NOTE("link onto %s", conform_kinds[k]);
        ERR(EEXIST, link("f", "x"));
        EQ(before.st_ino, st_of("x").st_ino);
        EQ(before.st_mode, st_of("x").st_mode);
        conform_remove("x");
    }
}

static void times_of_making(void)
{
    DO(mkdir("d", 0755));
    EFFECT("d=mc .=", new_file("d/a", 0644));
    EFFECT("d=mc .=", mkdir("d/b", 0755));
    EFFECT("d=mc", new_node("d/c", 0644));
    EFFECT("d=mc", mkfifo("d/d", 0644));
    EFFECT("d=mc", new_socket("d/e", 0644));
    EFFECT("d=mc", new_char("d/f", 0644));
    EFFECT("d=mc", new_link("d/g", 0));
    EFFECT("d=mc d/a=c", link("d/a", "d/h"));
    REFUSED("d d/a", EEXIST, new_file("d/a", 0644));
    REFUSED("d d/b", EEXIST, mkdir("d/b", 0755));
    REFUSED("d d/a", EEXIST, link("d/a", "d/h"));
    REFUSED("d d/g", EEXIST, new_link("d/g", 0));
    EFFECT("d=mc d/a=c", unlink("d/h"));
    EFFECT("d=mc", unlink("d/g"));
    EFFECT("d=mc .=", rmdir("d/b"));
    REFUSED("d .", ENOTEMPTY, rmdir("d"));
    REFUSED("d d/a", ENOTDIR, rmdir("d/a"));
    REFUSED("d .", EISDIR, unlink("d"));
    REFUSED("d", ENOENT, unlink("d/none"));
    EFFECT("d/a=", new_file("d/again", 0644));
    EFFECT("d=", shut(open("d/a", O_WRONLY | O_CREAT, 0644))); // exists: nothing is made
    EFFECT("d/a=", shut(open("d/a", O_WRONLY)));
}

static void removing(void)
{
    static const struct {
        enum conform_kind kind;
        int unlink_code, rmdir_code;
    } t[] = {
        {K_NONE, ENOENT, ENOENT},        {K_FILE, 0, ENOTDIR}, {K_DIR, EISDIR, 0},
        {K_FULL_DIR, EISDIR, ENOTEMPTY}, {K_LINK, 0, ENOTDIR}, {K_FIFO, 0, ENOTDIR},
        {K_SOCKET, 0, ENOTDIR},          {K_CHAR, 0, ENOTDIR}, {K_BLOCK, 0, ENOTDIR},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        conform_make(t[i].kind, "x");
        NOTE("%s", conform_kinds[t[i].kind]);
        if (t[i].rmdir_code) {
            ERR(t[i].rmdir_code, rmdir("x"));
            GIVES(t[i].unlink_code, unlink("x"));
        } else {
            ERR(t[i].unlink_code, unlink("x"));
            OK(rmdir("x"));
        }
        conform_remove("x");
        conform_make(t[i].kind, "x");
        GIVES(t[i].unlink_code, unlinkat(AT_FDCWD, "x", 0));
        if (t[i].unlink_code == EISDIR)
            GIVES(t[i].rmdir_code, unlinkat(AT_FDCWD, "x", AT_REMOVEDIR));
        conform_remove("x");
        YES(!there("x"));
    }
    NOTE_END();
    DO(mkdir("d", 0755));
    DO(symlink("d", "to-dir"));
    put("f", "");
    DO(symlink("f", "to-file"));
    ERR(ENOTDIR, rmdir("to-dir"));
    OK(unlink("to-dir"));
    OK(unlink("to-file"));
    YES(there("d") && there("f"));
    ERR(EINVAL, unlinkat(AT_FDCWD, "f", 0x40000));
}

static void directory_links(void)
{
    DO(mkdir("d", 0755));
    EQ(2, nlink_of("d"));
    DO(mkdir("d/1", 0755));
    DO(mkdir("d/2", 0755));
    EQ(4, nlink_of("d"));
    put("d/file", "");
    DO(symlink("1", "d/link"));
    EQ(4, nlink_of("d"));
    DO(mkdir("d/1/deep", 0755));
    EQ(4, nlink_of("d"));
    EQ(3, nlink_of("d/1"));
    DO(mkdir("e", 0755));
    DO(rename("d/1", "e/1"));
    EQ(3, nlink_of("d"));
    EQ(3, nlink_of("e"));
    DO(rename("d/2", "d/3"));
    EQ(3, nlink_of("d"));
    DO(mkdir("e/4", 0755));
    DO(rename("d/3", "e/4")); // replaces an empty one
    EQ(2, nlink_of("d"));
    EQ(4, nlink_of("e"));
    DO(rmdir("e/4"));
    EQ(3, nlink_of("e"));
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof(name), "d/m%d", i);
        DO(mkdir(name, 0755));
    }
    EQ(302, nlink_of("d"));
}

static void device_numbers(void)
{
    static const struct {
        mode_t type;
        unsigned major, minor;
    } t[] = {{S_IFCHR, 1, 3},     {S_IFCHR, 0, 0},     {S_IFCHR, 255, 255},
             {S_IFBLK, 8, 0},     {S_IFBLK, 259, 7},   {S_IFCHR, 4095, 1048575},
             {S_IFBLK, 256, 256}, {S_IFCHR, 10, 65537}};
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("%s %u:%u", t[i].type == S_IFCHR ? "char" : "block", t[i].major, t[i].minor);
        OK(mknod("x", t[i].type | 0600, makedev(t[i].major, t[i].minor)));
        struct stat st = st_of("x");
        EQ(t[i].type | 0600, st.st_mode);
        EQ(t[i].major, major(st.st_rdev));
        EQ(t[i].minor, minor(st.st_rdev));
        DO(unlink("x"));
    }
    NOTE_END();
    OK(mknod("plain", 0644, 0)); // no type: a regular file
    EQ(K_FILE, conform_kind_at("plain"));
    ERR(EPERM, mknod("dir", S_IFDIR | 0755, 0));
    ERR(EINVAL, mknod("link", S_IFLNK | 0755, 0));
    ERR(EINVAL, mknod("wild", 0130000 | 0755, 0));
    DO(chmod(".", 0777));
    AS(ALICE)
    {
        ERR(EPERM, mknod("c", S_IFCHR | 0600, makedev(1, 3)));
        ERR(EPERM, mknod("b", S_IFBLK | 0600, makedev(8, 0)));
        OK(mknod("p", S_IFIFO | 0600, 0));
        OK(mknod("s", S_IFSOCK | 0600, 0));
        OK(mknod("f", S_IFREG | 0600, 0));
    }
    EQ(ALICE.uid, st_of("p").st_uid);
}

static void fifos(void)
{
    char b[16] = "";
    DO(mkfifo("p", 0666));
    ERR(ENXIO, shut(open("p", O_WRONLY | O_NONBLOCK)));
    pid_t pid;
    CHILD(pid)
    {
        int w = (int)OK(open("p", O_WRONLY));
        EQ(7, write(w, "through", 7));
    }
    int r = (int)OK(open("p", O_RDONLY));
    size_t n = 0;
    ssize_t got;
    while (n < sizeof(b) - 1 && (got = read(r, b + n, sizeof(b) - 1 - n)) > 0)
        n += (size_t)got;
    STR("through", b);
    JOIN(pid);
    ERR(ESPIPE, lseek(r, 0, SEEK_SET));
    close(r);
    EQ(0, size_of("p"));
    int both = (int)OK(open("p", O_RDWR | O_NONBLOCK));
    DO(unlink("p"));
    EQ(2, write(both, "ok", 2));
    EQ(2, read(both, b, 2));
    EQ(0, st_fd(both).st_nlink);
}

static void sockets(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "sock"};
    char b[8] = "";
    int s = (int)DO(socket(AF_UNIX, SOCK_STREAM, 0)), c = (int)DO(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(bind(s, (struct sockaddr *)&a, sizeof(a)));
    EQ(S_IFSOCK | 0755, st_of("sock").st_mode);
    ERR(ECONNREFUSED, connect(c, (struct sockaddr *)&a, sizeof(a)));
    OK(listen(s, 4));
    OK(connect(c, (struct sockaddr *)&a, sizeof(a)));
    int t = (int)OK(accept(s, NULL, NULL));
    EQ(2, write(c, "hi", 2));
    EQ(2, read(t, b, sizeof(b)));
    ERR(ENXIO, shut(open("sock", O_RDWR)));
    int again = (int)DO(socket(AF_UNIX, SOCK_STREAM, 0));
    ERR(EADDRINUSE, bind(again, (struct sockaddr *)&a, sizeof(a)));
    DO(rename("sock", "moved"));
    ERR(ENOENT, connect(again, (struct sockaddr *)&a, sizeof(a)));
    strcpy(a.sun_path, "moved");
    OK(connect(again, (struct sockaddr *)&a, sizeof(a)));
    DO(chmod("moved", 0600));
    DO(chmod(".", 0755));
    AS(BOB)
    {
        int mine = (int)DO(socket(AF_UNIX, SOCK_STREAM, 0));
        ERR(EACCES, connect(mine, (struct sockaddr *)&a, sizeof(a)));
    }
}

static void inherited_group(void)
{
    // a setgid directory gives its group to what is made in it, and the bit to directories
    dir_as("team", 02777, NULL);
    DO(chown("team", 0, TEAM));
    DO(chmod("team", 02777));
    AS(BOB)
    {
        for (size_t m = 0; m < 5; m++) {
            char path[32];
            snprintf(path, sizeof(path), "team/%zu", m);
            NOTE("%s", makers[m].name);
            OK(makers[m].f(path, 0755));
            struct stat st = st_of(path);
            EQ(BOB.uid, st.st_uid);
            EQ(TEAM, st.st_gid);
            EQ(makers[m].type == S_IFDIR ? 02755 : 0755, st.st_mode & 07777);
        }
        NOTE_END();
        OK(symlink("x", "team/link"));
        EQ(TEAM, st_of("team/link").st_gid);
        OK(mkdir("team/1/below", 0700));
        EQ(02700, mode_of("team/1/below"));
        EQ(TEAM, st_of("team/1/below").st_gid);
        // setgid executables cannot be made by strangers to the group
        OK(new_file("team/sgid", 02755));
        EQ(0755, mode_of("team/sgid"));
        OK(new_file("team/lock", 02644)); // not executable by the group: kept
        EQ(02644, mode_of("team/lock"));
        OK(new_file("team/suid", 04755));
        EQ(04755, mode_of("team/suid"));
    }
    AS(MEMBER)
    {
        OK(new_file("team/member", 02755));
        EQ(02755, mode_of("team/member"));
    }
    OK(new_file("team/root", 02755));
    EQ(02755, mode_of("team/root"));
    EQ(TEAM, st_of("team/root").st_gid);
    dir_as("plain", 0777, NULL);
    DO(chown("plain", 0, TEAM));
    AS(BOB)
    {
        OK(mkdir("plain/d", 0755));
        EQ(BOB.gid, st_of("plain/d").st_gid);
        EQ(0755, mode_of("plain/d"));
    }
}

AREA(nodes, {"modes", modes}, {"symlink-mode", symlink_mode}, {"attributes", attributes},
     {"existing", existing}, {"times-of-making", times_of_making}, {"removing", removing},
     {"directory-links", directory_links}, {"device-numbers", device_numbers}, {"fifos", fifos},
     {"sockets", sockets}, {"inherited-group", inherited_group});
