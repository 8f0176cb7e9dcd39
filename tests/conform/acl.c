/*
 * acl: POSIX access control lists, by the bytes of their two extended attributes.
 *
 * A list is written here as words, "u::rwx u:70001:r-x g::r-- m::rwx o::---", in any order, and encoded as the kernel
 * wants it: version 2, then entries of tag, permissions and id, little endian.
 */
#include "tests/conform/conform.h"

#include <endian.h>
#include <sys/xattr.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct acl {
    uint32_t version;
    struct {
        uint16_t tag, perm;
        uint32_t id;
    } e[200];
};

static size_t encode(struct acl *a, const char *words)
{
    char copy[1024], *rest = copy, *word;
    size_t n = 0;
    snprintf(copy, sizeof(copy), "%s", words);
    a->version = htole32(2);
    while ((word = strsep(&rest, " "))) {
        char *id = strchr(word, ':') + 1, *perm = strchr(id, ':') + 1;
        bool named = *id != ':';
        int tag = *word == 'u'   ? (named ? USER : USER_OBJ)
                  : *word == 'g' ? (named ? GROUP : GROUP_OBJ)
                  : *word == 'm' ? MASK
                                 : OTHER;
        int bits = 0;
        for (; *perm; perm++)
            bits |= *perm == 'r' ? 4 : *perm == 'w' ? 2 : *perm == 'x' ? 1 : 0;
        a->e[n].tag = htole16((uint16_t)tag);
        a->e[n].perm = htole16((uint16_t)bits);
        a->e[n].id = htole32(named ? (uint32_t)strtoul(id, NULL, 10) : 0xffffffffU);
        n++;
    }
    return 4 + 8 * n;
}

static int set(const char *path, const char *type, const char *words)
{
    struct acl a;
    size_t n = encode(&a, words);
    return setxattr(path, type, &a, n, 0);
}

/* The list at path in words; "none" when there is none. */
static const char *acl_of(const char *path, const char *type)
{
    static char text[1024];
    struct acl a;
    ssize_t n = getxattr(path, type, &a, sizeof(a));
    size_t at = 0;
    if (n < 0)
        return errno == ENODATA ? "none" : strerrorname_np(errno);
    if (n < 4 || (n - 4) % 8 || le32toh(a.version) != 2)
        return "garbage";
    text[0] = 0;
    for (ssize_t i = 0; i < (n - 4) / 8; i++) {
        unsigned tag = le16toh(a.e[i].tag), p = le16toh(a.e[i].perm), id = le32toh(a.e[i].id);
        char who[16] = "";
        if (tag == USER || tag == GROUP)
            snprintf(who, sizeof(who), "%u", id);
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%c:%s:%c%c%c", i ? " " : "",
                               tag <= USER    ? 'u'
                               : tag <= GROUP ? 'g'
                               : tag == MASK  ? 'm'
                                              : 'o',
                               who, p & 4 ? 'r' : '-', p & 2 ? 'w' : '-', p & 1 ? 'x' : '-');
    }
    return text;
}

static void storing(void)
{
    static const struct {
        const char *words;
        mode_t mode; // of the file then
    } t[] = {
        {"u::rwx u:70002:r-x g::r-- m::rwx o::---", 0770},
        {"u::rw- g::r-- g:70010:rw- m::r-- o::r--", 0644},
        {"u::r-- u:1:rwx u:2:rwx u:70002:--- g::rwx g:5:r-x g:70010:--x m::--x o::-w-", 0412},
        {"u::--- u:70002:--- g::--- m::--- o::---", 0},
        {"u::rwx g::rwx m::r-x o::rwx", 0757},
    };
    put("f", "");
    DO(mkdir("d", 0755));
    STR("none", acl_of("f", ACCESS));
    STR("none", acl_of("d", DEFAULT));
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("%s", t[i].words);
        OK(set("f", ACCESS, t[i].words));
        STR(t[i].words, acl_of("f", ACCESS));
        EQ(t[i].mode, mode_of("f"));
        OK(set("d", ACCESS, t[i].words));
        STR(t[i].words, acl_of("d", ACCESS));
        OK(set("d", DEFAULT, t[i].words));
        STR(t[i].words, acl_of("d", DEFAULT));
        EQ(t[i].mode, mode_of("d"));
    }
    NOTE("three entries");
    OK(set("f", ACCESS, "u::rw- g::r-- o::---")); // says no more than a mode: no list is kept
    STR("none", acl_of("f", ACCESS));
    EQ(0640, mode_of("f"));
    OK(set("d", DEFAULT, "u::rwx g::r-x o::---"));
    STR("u::rwx g::r-x o::---", acl_of("d", DEFAULT));
    NOTE("removing");
    OK(set("f", ACCESS, t[0].words));
    OK(removexattr("f", ACCESS));
    STR("none", acl_of("f", ACCESS));
    EQ(0770, mode_of("f")); // the mask stays as the group's bits
    OK(removexattr("d", DEFAULT));
    STR("none", acl_of("d", DEFAULT));
    OK(removexattr("d", DEFAULT));
    NOTE("listed");
    char b[256];
    OK(set("f", ACCESS, t[0].words));
    ssize_t n = OK(listxattr("f", b, sizeof(b)));
    EQ(sizeof(ACCESS), n);
    YES(n > 0 && !strcmp(b, ACCESS));
}

static void refusals(void)
{
    static const char *const bad[] = {
        "u::rwx g::r--",                       // no others
        "u::rwx o::r--",                       // no group
        "g::rwx o::r--",                       // no owner
        "u::rwx u:1:rwx g::r-- o::---",        // named, but no mask
        "u::rwx g::r-- g:1:rwx o::---",        // the same
        "u::rwx u::rwx g::r-- o::---",         // twice
        "u::rwx g::r-- g::r-- o::---",         //
        "u::rwx g::r-- m::r-- m::r-- o::---",  //
        "u::rwx g::r-- o::--- o::---",         //
        "o::--- u::rwx g::r--",                // order
        "u::rwx g::r-- u:1:rwx m::rwx o::---", //
        "u::rwx m::rwx g::r-- o::---",         //
    };
    struct acl a;
    put("f", "");
    DO(mkdir("d", 0755));
    for (size_t i = 0; i < COUNT(bad); i++) {
        NOTE("%s", bad[i]);
        ERR(EINVAL, set("f", ACCESS, bad[i]));
        ERR(EINVAL, set("d", DEFAULT, bad[i]));
    }
    NOTE_END();
    size_t n = encode(&a, "u::rwx g::r-- o::---");
    a.version = htole32(1);
    ERR(EOPNOTSUPP, setxattr("f", ACCESS, &a, n, 0));
    a.version = htole32(2);
    ERR(EINVAL, setxattr("f", ACCESS, &a, n - 1, 0));
    ERR(EINVAL, setxattr("f", ACCESS, &a, 3, 0));
    a.e[1].perm = htole16(8);
    ERR(EINVAL, setxattr("f", ACCESS, &a, n, 0));
    a.e[1].perm = 0;
    a.e[1].tag = htole16(3);
    ERR(EINVAL, setxattr("f", ACCESS, &a, n, 0));
    ERR(EACCES, set("f", DEFAULT, "u::rwx g::r-- o::---")); // files have no default
    STR("none", acl_of("f", ACCESS));
    STR("none", acl_of("f", DEFAULT));
    EQ(0644, mode_of("f"));
    DO(symlink("f", "s"));
    n = encode(&a, "u::rwx g::r-- o::---");
    ERR(EOPNOTSUPP, lsetxattr("s", ACCESS, &a, n, 0));
    ERR(EOPNOTSUPP, lgetxattr("s", ACCESS, NULL, 0));
    DO(chown("f", ALICE.uid, ALICE.gid));
    AS(BOB)
    {
        ERR(EPERM, set("f", ACCESS, "u::rwx g::rwx o::rwx"));
        ERR(EPERM, set("f", ACCESS, "u::rwx u:70002:rwx g::rwx m::rwx o::rwx"));
        ERR(EPERM, removexattr("f", ACCESS));
        STR("none", acl_of("f", ACCESS)); // reading is free
    }
    AS(ALICE)
    {
        OK(set("f", ACCESS, "u::rwx u:70002:rw- g::--- m::rwx o::---"));
    }
    AS(BOB)
    {
        STR("u::rwx u:70002:rw- g::--- m::rwx o::---", acl_of("f", ACCESS));
        ERR(EPERM, removexattr("f", ACCESS));
    }
    // an empty list removes
    a.version = htole32(2);
    OK(setxattr("f", ACCESS, &a, 4, 0));
    STR("none", acl_of("f", ACCESS));
}

struct expected {
    const struct conform_user *user;
    const char *name, *may;
};

static void checks(void)
{
    static const struct {
        const char *words;
        const char *alice, *mate, *member, *bob;
    } t[] = {
        // owner 70001, group 70001; bob 70002; mate by her group; member by 70001 and 70010
        {"u::rw- u:70002:rwx g::--- m::rwx o::---", "rw-", "---", "---", "rwx"},
        {"u::rw- u:70002:rwx g::--- m::r-- o::---", "rw-", "---", "---", "r--"},
        {"u::--- u:70001:rwx g::rwx m::rwx o::rwx", "---", "rwx", "rwx", "rwx"},
        {"u::rwx u:70002:--- g::r-- m::rwx o::rwx", "rwx", "r--", "r--", "---"},
        {"u::rwx u:70003:-w- g::r-- m::rwx o::--x", "rwx", "-w-", "r--", "--x"},
        {"u::rwx g::r-- g:70010:-w- m::rwx o::--x", "rwx", "r--", "r|w", "--x"},
        {"u::rwx g::r-- g:70010:-w- m::-w- o::--x", "rwx", "---", "-w-", "--x"},
        {"u::rwx g::--- g:70002:r-x m::rwx o::rwx", "rwx", "---", "---", "r-x"},
        {"u::rwx g::--- g:70002:--- m::rwx o::rwx", "rwx", "---", "---", "---"},
        {"u::rwx g::rwx g:70010:r-- m::r-x o::---", "rwx", "r-x", "r-x", "---"},
        {"u::rwx u:70004:--x g::rwx g:70010:rwx m::rwx o::---", "rwx", "rwx", "--x", "---"},
        {"u::rwx g::rwx m::--- o::rwx", "rwx", "---", "---", "rwx"},
    };
    put("f", "#!/bin/true\n");
    DO(chown("f", ALICE.uid, ALICE.gid));
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("%s", t[i].words);
        if (OK(set("f", ACCESS, t[i].words)) < 0)
            continue;
        const struct expected who[] = {{&ALICE, "owner", t[i].alice},
                                       {&MATE, "mate", t[i].mate},
                                       {&MEMBER, "member", t[i].member},
                                       {&BOB, "bob", t[i].bob}};
        for (size_t w = 0; w < COUNT(who); w++)
            AS(*who[w].user)
            {
                // r|w: from two groups, each gives one, none gives both
                bool r = strchr(who[w].may, 'r'), wr = strchr(who[w].may, 'w'),
                     x = strchr(who[w].may, 'x');
                NOTE("%s, %s", t[i].words, who[w].name);
                GIVES(r ? 0 : EACCES, shut(open("f", O_RDONLY)));
                GIVES(wr ? 0 : EACCES, shut(open("f", O_WRONLY)));
                GIVES(r && wr && !strchr(who[w].may, '|') ? 0 : EACCES, shut(open("f", O_RDWR)));
                GIVES(x ? 0 : EACCES, access("f", X_OK));
                GIVES(r ? 0 : EACCES, access("f", R_OK));
            }
    }
}

static void directories(void)
{
    dir_as("d", 0700, &ALICE);
    put_as("d/f", 0644, &ALICE);
    NEED(set("d", ACCESS, "u::rwx u:70002:--x g::--- g:70010:rwx m::rwx o::---"));
    AS(BOB)
    {
        OK(shut(open("d/f", O_RDONLY)));
        ERR(EACCES, shut(open("d", O_RDONLY | O_DIRECTORY)));
        ERR(EACCES, shut(open("d/new", O_WRONLY | O_CREAT, 0644)));
        ERR(EACCES, unlink("d/f"));
    }
    AS(MEMBER)
    {
        OK(shut(open("d", O_RDONLY | O_DIRECTORY)));
        OK(shut(open("d/new", O_WRONLY | O_CREAT, 0644)));
        OK(rename("d/new", "d/newer"));
        OK(unlink("d/newer"));
    }
    AS(MATE)
    {
        ERR(EACCES, chdir("d"));
    }
    // what is made there has no list of its own: there is no default
    put("d/new", "");
    STR("none", acl_of("d/new", ACCESS));
}

static void chmod_and_mask(void)
{
    put_as("f", 0640, &ALICE);
    NEED(set("f", ACCESS, "u::rw- u:70002:rwx g::r-x m::rwx o::---"));
    EQ(0670, mode_of("f"));
    OK(chmod("f", 0640)); // the group's bits are the mask
    STR("u::rw- u:70002:rwx g::r-x m::r-- o::---", acl_of("f", ACCESS));
    AS(BOB)
    {
        OK(shut(open("f", O_RDONLY)));
        ERR(EACCES, shut(open("f", O_WRONLY)));
    }
    OK(chmod("f", 0765));
    STR("u::rwx u:70002:rwx g::r-x m::rw- o::r-x", acl_of("f", ACCESS));
    int fd = (int)DO(open("f", O_RDWR));
    OK(fchmod(fd, 0));
    STR("u::--- u:70002:rwx g::r-x m::--- o::---", acl_of("f", ACCESS));
    OK(set("f", ACCESS, "u::rwx g::r-- m::-wx o::---"));
    EQ(0730, mode_of("f"));
    OK(chmod("f", 06775));
    EQ(06775, mode_of("f"));
    STR("u::rwx g::r-- m::rwx o::r-x", acl_of("f", ACCESS));
    EFFECT("f=c .=", chmod("f", 0600));
    EFFECT("f=c .=", set("f", ACCESS, "u::rwx g::r-- m::-wx o::---"));
    EFFECT("f=c .=", removexattr("f", ACCESS));
    // setting a list keeps the other bits; by one who is not of the group setgid goes
    DO(chmod("f", 07755));
    OK(set("f", ACCESS, "u::rwx g::r-x m::r-x o::---"));
    EQ(07750, mode_of("f"));
    put_as("g", 0755, NULL);
    DO(chown("g", ALICE.uid, OTHERS));
    DO(chmod("g", 02755));
    AS(ALICE)
    {
        OK(set("g", ACCESS, "u::rwx g::r-x m::r-x o::---"));
        EQ(0750, mode_of("g"));
    }
}

static void inheritance(void)
{
    static const struct {
        const char *words, *file, *dir; // of a file made with 0666, of a directory with 0777
        mode_t file_mode, dir_mode;
    } t[] = {
        {"u::rwx u:70002:rwx g::r-x m::rwx o::---", "u::rw- u:70002:rwx g::r-x m::rw- o::---",
         "u::rwx u:70002:rwx g::r-x m::rwx o::---", 0660, 0770},
        {"u::rwx u:70002:r-x g::r-x m::r-x o::r-x", "u::rw- u:70002:r-x g::r-x m::r-- o::r--",
         "u::rwx u:70002:r-x g::r-x m::r-x o::r-x", 0644, 0755},
        {"u::r-x g::rwx g:70010:rwx m::r-x o::rwx", "u::r-- g::rwx g:70010:rwx m::r-- o::rw-",
         "u::r-x g::rwx g:70010:rwx m::r-x o::rwx", 0446, 0557},
        {"u::rwx g::r-x o::r--", "none", "none", 0644, 0754},
        {"u::rwx g::rwx o::rwx", "none", "none", 0666, 0777},
    };
    umask(077); // does not count where there is a default list
    for (size_t i = 0; i < COUNT(t); i++) {
        DO(mkdir("d", 0755));
        NOTE("%s", t[i].words);
        if (OK(set("d", DEFAULT, t[i].words)) >= 0) {
            OK(shut(open("d/f", O_WRONLY | O_CREAT, 0666)));
            STR(t[i].file, acl_of("d/f", ACCESS));
            EQ(t[i].file_mode, mode_of("d/f"));
            OK(mkdir("d/d", 0777));
            STR(t[i].dir, acl_of("d/d", ACCESS));
            STR(t[i].words, acl_of("d/d", DEFAULT));
            EQ(t[i].dir_mode, mode_of("d/d"));
            OK(mkfifo("d/p", 0666));
            EQ(t[i].file_mode, mode_of("d/p"));
            STR(t[i].file, acl_of("d/p", ACCESS));
            OK(shut(open("d/private", O_WRONLY | O_CREAT, 0600)));
            EQ(t[i].file_mode & 0600, mode_of("d/private"));
            OK(symlink("x", "d/s"));
            EQ(0777, mode_of("d/s"));
            OK(mkdir("d/d/deeper", 0777));
            STR(t[i].words, acl_of("d/d/deeper", DEFAULT));
            int fd = open("d", O_TMPFILE | O_RDWR, 0666);
            EQ(t[i].file_mode, fd < 0 ? 0 : st_fd(fd).st_mode & 07777);
            close(fd);
        }
        conform_remove("d");
    }
    NOTE_END();
    DO(mkdir("d", 0755));
    DO(set("d", DEFAULT, t[0].words));
    put("f", "");
    DO(rename("f", "d/moved")); // only making inherits
    STR("none", acl_of("d/moved", ACCESS));
    DO(removexattr("d", DEFAULT));
    OK(shut(open("d/after", O_WRONLY | O_CREAT, 0666)));
    EQ(0600, mode_of("d/after"));
    STR("none", acl_of("d/after", ACCESS));
}

static void large(void)
{
    struct acl a, b;
    put("f", "");
    a.version = htole32(2);
    size_t n = 0;
    a.e[n].tag = htole16(USER_OBJ), a.e[n].perm = htole16(6), a.e[n++].id = 0xffffffffU;
    for (uint32_t i = 0; i < 150; i++)
        a.e[n].tag = htole16(USER), a.e[n].perm = htole16(4), a.e[n++].id = htole32(1000 + i);
    a.e[n].tag = htole16(USER), a.e[n].perm = htole16(6), a.e[n++].id = htole32(BOB.uid);
    a.e[n].tag = htole16(GROUP_OBJ), a.e[n].perm = 0, a.e[n++].id = 0xffffffffU;
    a.e[n].tag = htole16(MASK), a.e[n].perm = htole16(7), a.e[n++].id = 0xffffffffU;
    a.e[n].tag = htole16(OTHER), a.e[n].perm = 0, a.e[n++].id = 0xffffffffU;
    OK(setxattr("f", ACCESS, &a, 4 + 8 * n, 0));
    EQ(4 + 8 * n, getxattr("f", ACCESS, &b, sizeof(b)));
    YES(!memcmp(&a, &b, 4 + 8 * n));
    ERR(ERANGE, getxattr("f", ACCESS, &b, 100));
    AS(BOB)
    {
        OK(shut(open("f", O_RDWR)));
    }
    AS(ALICE)
    {
        ERR(EACCES, shut(open("f", O_RDONLY)));
    }
}

AREA(acl, {"storing", storing}, {"refusals", refusals}, {"checks", checks},
     {"directories", directories}, {"chmod-and-mask", chmod_and_mask}, {"inheritance", inheritance},
     {"large", large});
