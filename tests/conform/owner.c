/*
 * owner: chmod and chown: who may, what they clear, what writing clears.
 */
#include "tests/conform/conform.h"

#include <sys/mman.h>

static void chmod_bits(void)
{
    static const mode_t modes[] = {0,     0777,  0644,  0400,  0111,  01777,
                                   02755, 04755, 06755, 07777, 07000, 0070};
    for (int k = K_FILE; k < K_KINDS; k++) {
        if (k == K_LINK || k == K_FULL_DIR)
            continue;
        conform_make((enum conform_kind)k, "x");
        mode_t type = st_of("x").st_mode & S_IFMT;
        for (size_t i = 0; i < COUNT(modes); i++) {
            NOTE("%s to %04o", conform_kinds[k], modes[i]);
            OK(chmod("x", modes[i]));
            EQ(type | modes[i], st_of("x").st_mode);
        }
        NOTE("%s", conform_kinds[k]);
        EFFECT("x=c .=", chmod("x", 0600));
        EFFECT("x=c .=", chmod("x", 0600)); // the same again still counts
        EFFECT("x=c .=", chown("x", ALICE.uid, ALICE.gid));
        EQ(ALICE.uid, st_of("x").st_uid);
        EQ(ALICE.gid, st_of("x").st_gid);
        EQ(0600, mode_of("x"));
        conform_remove("x");
    }
}

static void chmod_by_others(void)
{
    put_as("f", 0666, &ALICE);
    dir_as("d", 0777, &ALICE);
    AS(MATE)
    {
        REFUSED("f", EPERM, chmod("f", 0600));
    }
    AS(BOB)
    {
        REFUSED("f", EPERM, chmod("f", 0666));
        REFUSED("d", EPERM, chmod("d", 0700));
        ERR(EPERM, chmod("f", 04666));
    }
    AS(ALICE)
    {
        OK(chmod("f", 0));
        OK(chmod("f", 07777)); // of her own group: setgid stays
        EQ(07777, mode_of("f"));
        int fd = (int)OK(open("f", O_RDONLY));
        OK(fchmod(fd, 0640));
        EQ(0640, mode_of("f"));
        OK(fchmodat(AT_FDCWD, "f", 0600, 0));
    }
    EQ(0600, mode_of("f"));
}

/* setgid by one who is not of the file's group is dropped silently; the sticky bit on files is left to all. */
static void setgid_by_stranger(void)
{
    put_as("f", 0755, NULL);
    DO(chown("f", ALICE.uid, OTHERS));
    dir_as("d", 0755, NULL);
    DO(chown("d", ALICE.uid, OTHERS));
    AS(ALICE)
    {
        OK(chmod("f", 02755));
        EQ(0755, mode_of("f"));
        OK(chmod("f", 06755));
        EQ(04755, mode_of("f"));
        OK(chmod("f", 02644));
        EQ(0644, mode_of("f"));
        OK(chmod("d", 02755));
        EQ(0755, mode_of("d"));
        OK(chmod("f", 01644));
        EQ(01644, mode_of("f"));
    }
    OK(chmod("f", 02755));
    EQ(02755, mode_of("f"));
    DO(chown("f", MEMBER.uid, TEAM));
    AS(MEMBER)
    {
        OK(chmod("f", 02755)); // by a supplementary group
        EQ(02755, mode_of("f"));
    }
}

static void chown_rules(void)
{
    static const struct {
        const char *name;
        const struct conform_user *who;
        uid_t uid;
        gid_t gid;
        int code;
    } t[] = {
        {"owner gives it away", &MEMBER, 70002, (gid_t)-1, EPERM},
        {"owner to a group of hers", &MEMBER, (uid_t)-1, TEAM, 0},
        {"owner to another group of hers", &MEMBER, (uid_t)-1, 70001, 0},
        {"owner to her own group", &MEMBER, (uid_t)-1, 70004, 0},
        {"owner to herself and a group of hers", &MEMBER, 70004, TEAM, 0},
        {"owner to a foreign group", &MEMBER, (uid_t)-1, OTHERS, EPERM},
        {"owner to herself and a foreign group", &MEMBER, 70004, OTHERS, EPERM},
        {"owner to herself", &MEMBER, 70004, (gid_t)-1, 0},
        {"owner changes nothing", &MEMBER, (uid_t)-1, (gid_t)-1, 0},
        {"group member to herself", &MATE, 70003, (gid_t)-1, EPERM},
        {"group member to her group", &MATE, (uid_t)-1, 70001, EPERM},
        {"stranger to himself", &BOB, 70002, (gid_t)-1, EPERM},
        {"stranger to his group", &BOB, (uid_t)-1, 70002, EPERM},
        {"stranger leaves all as it is", &BOB, 70004, 70001, EPERM},
        {"stranger changes nothing", &BOB, (uid_t)-1, (gid_t)-1, 0},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        put_as("f", 0664, NULL);
        DO(chown("f", 70004, 70001));
        AS(*t[i].who)
        {
            NOTE("%s", t[i].name);
            GIVES(t[i].code, chown("f", t[i].uid, t[i].gid));
        }
        NOTE("%s", t[i].name);
        EQ(70004, st_of("f").st_uid);
        EQ(t[i].code || t[i].gid == (gid_t)-1 ? 70001 : t[i].gid, st_of("f").st_gid);
        DO(unlink("f"));
    }
}

static void chown_clears(void)
{
    static const struct {
        mode_t mode, by_root, by_owner;
    } t[] = {
        {06777, 0777, 0777},   {04755, 0755, 0755}, {02755, 0755, 0755},   {06711, 0711, 0711},
        {02644, 02644, 02644}, // setgid without group execution is not setgid
        {06644, 02644, 02644}, {04644, 0644, 0644}, {01777, 01777, 01777}, {0755, 0755, 0755},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("mode %04o", t[i].mode);
        put_as("f", 0644, &MEMBER);
        DO(chmod("f", t[i].mode));
        OK(chown("f", MEMBER.uid, MEMBER.gid));
        EQ(t[i].by_root, mode_of("f"));
        DO(chmod("f", t[i].mode));
        AS(MEMBER)
        {
            OK(chown("f", (uid_t)-1, TEAM));
            EQ(t[i].by_owner, mode_of("f"));
        }
        DO(unlink("f"));
        dir_as("d", t[i].mode, &MEMBER);
        OK(chown("d", MEMBER.uid, TEAM));
        EQ(t[i].mode, mode_of("d")); // directories keep theirs
        DO(rmdir("d"));
    }
    NOTE_END();
    put_as("f", 06755, &MEMBER);
    OK(chown("f", (uid_t)-1, (gid_t)-1)); // not even then
    EQ(06755 & ~06000, mode_of("f"));
    DO(chmod("f", 06755));
    OK(lchown("f", MEMBER.uid, (gid_t)-1));
    EQ(0755, mode_of("f"));
    DO(chmod("f", 06755));
    int fd = (int)DO(open("f", O_RDWR));
    OK(fchown(fd, (uid_t)-1, TEAM));
    EQ(0755, mode_of("f"));
    EFFECT("f=c", fchown(fd, 0, 0));
    EFFECT("f=c", chown("f", (uid_t)-1, (gid_t)-1));
}

static int do_write(int fd)
{
    return (int)pwrite(fd, "w", 1, 0);
}
static int do_append(int fd)
{
    return lseek(fd, 0, SEEK_END) < 0 ? -1 : (int)write(fd, "w", 1);
}
static int do_shorten(int fd)
{
    return ftruncate(fd, 1);
}
static int do_lengthen(int fd)
{
    return ftruncate(fd, 10000);
}
static int do_keep(int fd)
{
    return ftruncate(fd, 4);
}
static int do_allocate(int fd)
{
    return fallocate(fd, 0, 0, 8192);
}
static int do_read(int fd)
{
    char c;
    return (int)pread(fd, &c, 1, 0);
}
static int do_nothing(int fd)
{
    return (int)pwrite(fd, "", 0, 0);
}

static void write_clears(void)
{
    static const struct {
        const char *name;
        int (*f)(int fd);
        mode_t mode, want;
    } t[] = {
        {"write", do_write, 06777, 0777},      {"write", do_write, 04777, 0777},
        {"write", do_write, 01777, 01777},     {"append", do_append, 06777, 0777},
        {"shorten", do_shorten, 06777, 0777},  {"lengthen", do_lengthen, 06777, 0777},
        {"same length", do_keep, 06777, 0777}, {"fallocate", do_allocate, 06777, 0777},
        {"read", do_read, 06777, 06777},       {"write of nothing", do_nothing, 06777, 06777},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        put("f", "text");
        DO(chown("f", ALICE.uid, ALICE.gid));
        DO(chmod("f", t[i].mode));
        AS(BOB)
        {
            NOTE("%s, mode %04o", t[i].name, t[i].mode);
            int fd = (int)DO(open("f", O_RDWR));
            OK(t[i].f(fd));
            EQ(t[i].want, mode_of("f"));
            OK(close(fd));
            EQ(t[i].want, mode_of("f"));
        }
        if (t[i].f != do_read && t[i].f != do_nothing) {
            DO(chmod("f", t[i].mode));
            AS(ALICE) // not even the owner keeps them
            {
                NOTE("%s by the owner, mode %04o", t[i].name, t[i].mode);
                int fd = (int)DO(open("f", O_RDWR));
                OK(t[i].f(fd));
                EQ(t[i].want, mode_of("f"));
            }
        }
        DO(chmod("f", t[i].mode));
        NOTE("%s by root, mode %04o", t[i].name, t[i].mode);
        int fd = (int)DO(open("f", O_RDWR));
        OK(t[i].f(fd));
        EQ(t[i].mode, mode_of("f")); // root may
        close(fd);
        DO(unlink("f"));
    }
}

static void open_truncate_clears(void)
{
    put("f", "text");
    DO(chown("f", ALICE.uid, ALICE.gid));
    DO(chmod("f", 06777));
    AS(BOB)
    {
        OK(shut(open("f", O_WRONLY | O_TRUNC)));
        EQ(0777, mode_of("f"));
    }
    put("f", "text");
    DO(chmod("f", 06777));
    AS(BOB)
    {
        OK(truncate("f", 2));
        EQ(0777, mode_of("f"));
    }
    DO(chmod("f", 06777));
    AS(BOB)
    {
        int fd = (int)DO(open("f", O_RDWR));
        char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        YES(p != MAP_FAILED);
        OK(utimensat(AT_FDCWD, "f", NULL, 0)); // times do not touch the mode
        EQ(06777, mode_of("f"));
    }
}

AREA(owner, {"chmod-bits", chmod_bits}, {"chmod-by-others", chmod_by_others},
     {"setgid-by-stranger", setgid_by_stranger}, {"chown-rules", chown_rules},
     {"chown-clears", chown_clears}, {"write-clears", write_clears},
     {"open-truncate-clears", open_truncate_clears});
