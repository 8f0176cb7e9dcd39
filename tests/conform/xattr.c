/*
 * xattr: extended attributes: making, replacing, listing, removing, sizes, namespaces, who may.
 */
#include "tests/conform/conform.h"

#include <sys/xattr.h>

static int set(const char *path, const char *name, const char *value)
{
    return setxattr(path, name, value, strlen(value), 0);
}

static bool has(const char *path, const char *name, const char *value)
{
    char b[8192];
    ssize_t n = getxattr(path, name, b, sizeof(b));
    return n == (ssize_t)strlen(value) && !memcmp(b, value, (size_t)n);
}

static bool lists(const char *path, const char *name)
{
    char b[65536];
    ssize_t n = listxattr(path, b, sizeof(b));
    for (ssize_t i = 0; i < n; i += (ssize_t)strlen(b + i) + 1)
        if (!strcmp(b + i, name))
            return true;
    return false;
}

static int count(const char *path)
{
    char b[65536];
    int found = 0;
    ssize_t n = llistxattr(path, b, sizeof(b));
    for (ssize_t i = 0; i < n; i += (ssize_t)strlen(b + i) + 1)
        found++;
    return n < 0 ? -1 : found;
}

static void basic(void)
{
    char b[64];
    put("f", "");
    DO(mkdir("d", 0755));
    static const char *const paths[] = {"f", "d"};
    for (size_t i = 0; i < 2; i++) {
        const char *p = paths[i];
        NOTE("%s", p);
        EQ(0, count(p));
        ERR(ENODATA, getxattr(p, "user.a", b, sizeof(b)));
        ERR(ENODATA, removexattr(p, "user.a"));
        OK(set(p, "user.a", "first"));
        YES(has(p, "user.a", "first"));
        EQ(5, getxattr(p, "user.a", NULL, 0));
        OK(set(p, "user.a", "second one"));
        YES(has(p, "user.a", "second one"));
        OK(set(p, "user.a", ""));
        EQ(0, getxattr(p, "user.a", b, sizeof(b)));
        YES(lists(p, "user.a"));
        OK(set(p, "user.b", "b"));
        EQ(2, count(p));
        EQ(14, listxattr(p, NULL, 0));
        OK(removexattr(p, "user.a"));
        YES(!lists(p, "user.a") && lists(p, "user.b"));
        ERR(ENODATA, getxattr(p, "user.a", b, sizeof(b)));
        OK(removexattr(p, "user.b"));
        EQ(0, count(p));
    }
}

static void flags(void)
{
    put("f", "");
    ERR(ENODATA, setxattr("f", "user.a", "x", 1, XATTR_REPLACE));
    OK(setxattr("f", "user.a", "x", 1, XATTR_CREATE));
    ERR(EEXIST, setxattr("f", "user.a", "y", 1, XATTR_CREATE));
    YES(has("f", "user.a", "x"));
    OK(setxattr("f", "user.a", "z", 1, XATTR_REPLACE));
    YES(has("f", "user.a", "z"));
    ERR(EINVAL, setxattr("f", "user.a", "z", 1, 4));
}

static void names(void)
{
    char b[300], name[300];
    put("f", "");
    static const char *const good[] = {"user.x",        "user. ",     "user.\n", "user.a.b.c",
                                       "user.\xff\x01", "user.A",     "user.a",  "trusted.t",
                                       "security.s",    "user.user.x"};
    for (size_t i = 0; i < COUNT(good); i++) {
        NOTE("name %zu of the list", i);
        OK(set("f", good[i], good[i]));
        YES(has("f", good[i], good[i]));
    }
    NOTE_END();
    EQ(COUNT(good), count("f"));
    ERR(EOPNOTSUPP, set("f", "plain", "x"));
    ERR(EOPNOTSUPP, set("f", "other.x", "x"));
    ERR(EOPNOTSUPP, set("f", "User.x", "x"));
    ERR(EOPNOTSUPP, getxattr("f", "other.x", b, sizeof(b)));
    ERR(EOPNOTSUPP, removexattr("f", "other.x"));
    ERR(EINVAL, set("f", "user.", "x"));
    ERR(EINVAL, set("f", "trusted.", "x"));
    ERR(ERANGE, set("f", "", "x"));
    ERR(EOPNOTSUPP, set("f", "system.unknown", "x"));
    snprintf(name, sizeof(name), "user.%s", filled(250, 'n'));
    OK(set("f", name, "x"));
    YES(has("f", name, "x"));
    OK(removexattr("f", name));
    snprintf(name, sizeof(name), "user.%s", filled(251, 'n'));
    ERR(ERANGE, set("f", name, "x"));
    ERR(ERANGE, getxattr("f", name, b, sizeof(b)));
    ERR(ERANGE, removexattr("f", name));
}

static void sizes(void)
{
    static const size_t t[] = {1, 2, 63, 64, 255, 256, 1000, 2000, 3900};
    char b[4096];
    put("f", "");
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("%zu bytes", t[i]);
        OK(setxattr("f", "user.v", filled(t[i], (char)('a' + i)), t[i], 0));
        EQ(t[i], getxattr("f", "user.v", b, sizeof(b)));
        YES(!memcmp(b, filled(t[i], (char)('a' + i)), t[i]));
        EQ(t[i], getxattr("f", "user.v", b, t[i]));
        if (t[i] > 1)
            ERR(ERANGE, getxattr("f", "user.v", b, t[i] - 1));
    }
    NOTE_END();
    // every byte value
    for (int i = 0; i < 256; i++)
        b[i] = (char)i;
    OK(setxattr("f", "user.v", b, 256, 0));
    char c[256];
    EQ(256, getxattr("f", "user.v", c, 256));
    YES(!memcmp(b, c, 256));
    static char big[65537];
    ERR(E2BIG, setxattr("f", "user.big", big, 65537, 0));
    // lists
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof(name), "user.list-%d", i);
        OK(set("f", name, "v"));
    }
    ssize_t n = listxattr("f", NULL, 0);
    EQ(7 + 10 * 12 + 10 * 13, n);
    char list[512];
    EQ(n, listxattr("f", list, (size_t)n));
    ERR(ERANGE, listxattr("f", list, (size_t)n - 1));
    ERR(ERANGE, listxattr("f", list, 1));
    EQ(21, count("f"));
}

static void times(void)
{
    char b[16];
    put("f", "");
    DO(mkdir("d", 0755));
    EFFECT("f=c .=", set("f", "user.a", "1"));
    EFFECT("f=c .=", set("f", "user.a", "2"));
    EFFECT("f=", getxattr("f", "user.a", b, sizeof(b)));
    EFFECT("f=", listxattr("f", b, sizeof(b)));
    EFFECT("f=c .=", removexattr("f", "user.a"));
    EFFECT("d=c .=", set("d", "user.a", "1"));
    EFFECT("d=c .=", removexattr("d", "user.a"));
    REFUSED("f", ENODATA, removexattr("f", "user.a"));
    REFUSED("f", ENODATA, setxattr("f", "user.a", "x", 1, XATTR_REPLACE));
    REFUSED("f", EOPNOTSUPP, set("f", "other.a", "x"));
}

static void permissions(void)
{
    char b[16];
    put_as("f", 0644, &ALICE);
    put_as("w", 0622, &ALICE);
    put_as("n", 0600, &ALICE);
    dir_as("d", 0755, &ALICE);
    DO(set("f", "user.a", "v"));
    DO(set("w", "user.a", "v"));
    DO(set("n", "user.a", "v"));
    DO(set("f", "trusted.t", "t"));
    DO(set("f", "security.s", "s"));
    AS(BOB)
    {
        EQ(1, getxattr("f", "user.a", b, sizeof(b)));
        ERR(EACCES, set("f", "user.a", "w"));
        ERR(EACCES, removexattr("f", "user.a"));
        ERR(EACCES, set("f", "user.b", "w"));
        ERR(EACCES, getxattr("w", "user.a", b, sizeof(b)));
        OK(set("w", "user.a", "w"));
        OK(removexattr("w", "user.a"));
        ERR(EACCES, getxattr("n", "user.a", b, sizeof(b)));
        OK(listxattr("n", b, sizeof(b))); // names may be seen by all
        ERR(ENODATA, getxattr("f", "trusted.t", b, sizeof(b)));
        ERR(EPERM, set("f", "trusted.t", "x"));
        ERR(EPERM, removexattr("f", "trusted.t"));
        YES(!lists("f", "trusted.t"));
        EQ(1, getxattr("f", "security.s", b, sizeof(b)));
        ERR(EPERM, set("f", "security.s", "x"));
        ERR(EPERM, removexattr("f", "security.s"));
        YES(lists("f", "security.s"));
        ERR(EACCES, set("d", "user.a", "v"));
    }
    AS(ALICE)
    {
        OK(set("f", "user.b", "mine"));
        OK(set("d", "user.a", "mine"));
        ERR(EPERM, set("f", "trusted.x", "x"));
        ERR(EPERM, set("f", "security.x", "x"));
        OK(chmod("f", 0444));
        ERR(EACCES, set("f", "user.b", "no"));
    }
    YES(lists("f", "trusted.t"));
    dir_as("sticky", 01777, &ALICE);
    AS(BOB)
    {
        ERR(EPERM, set("sticky", "user.a", "v")); // in sticky directories the owner only
    }
    AS(ALICE)
    {
        OK(set("sticky", "user.a", "v"));
    }
}

static void kinds(void)
{
    char b[16];
    for (int k = K_LINK; k < K_KINDS; k++) {
        conform_make((enum conform_kind)k, "x");
        NOTE("%s", conform_kinds[k]);
        ERR(EPERM, lsetxattr("x", "user.a", "v", 1, 0));
        ERR(ENODATA, lgetxattr("x", "user.a", b, sizeof(b)));
        OK(lsetxattr("x", "trusted.a", "tv", 2, 0));
        EQ(2, lgetxattr("x", "trusted.a", b, sizeof(b)));
        EQ(1, count("x"));
        OK(lremovexattr("x", "trusted.a"));
        EQ(0, count("x"));
        conform_remove("x");
    }
    NOTE_END();
    put("f", "");
    DO(symlink("f", "s"));
    OK(set("s", "user.through", "v"));
    YES(has("f", "user.through", "v"));
    EQ(0, count("s"));
    ERR(ENOENT, lgetxattr("none", "user.a", b, sizeof(b)));
}

static void life(void)
{
    char b[16];
    put("f", "text");
    DO(set("f", "user.a", "kept"));
    DO(link("f", "g"));
    YES(has("g", "user.a", "kept"));
    DO(rename("f", "h"));
    YES(has("h", "user.a", "kept"));
    put("h", "other text");
    YES(has("h", "user.a", "kept"));
    DO(chmod("h", 0600));
    DO(chown("h", 1, 1));
    YES(has("g", "user.a", "kept"));
    int fd = (int)DO(open("h", O_RDWR));
    EQ(4, fgetxattr(fd, "user.a", b, sizeof(b)));
    OK(fsetxattr(fd, "user.b", "x", 1, 0));
    EQ(14, flistxattr(fd, b, sizeof(b)));
    DO(unlink("g"));
    DO(unlink("h"));
    EQ(4, fgetxattr(fd, "user.a", b, sizeof(b))); // also of an unlinked file
    OK(fsetxattr(fd, "user.c", "late", 4, 0));
    EQ(4, fgetxattr(fd, "user.c", b, sizeof(b)));
    OK(fremovexattr(fd, "user.a"));
    ERR(ENODATA, fgetxattr(fd, "user.a", b, sizeof(b)));
    int p = (int)DO(open(".", O_PATH));
    ERR(EBADF, fgetxattr(p, "user.a", b, sizeof(b)));
    put("new", ""); // nothing is inherited by a new file of the same name
    EQ(0, count("new"));
    DO(set("new", "user.a", "1"));
    put("repl", "");
    DO(rename("repl", "new"));
    EQ(0, count("new"));
}

AREA(xattr, {"basic", basic}, {"flags", flags}, {"names", names}, {"sizes", sizes},
     {"times", times}, {"permissions", permissions}, {"kinds", kinds}, {"life", life});
