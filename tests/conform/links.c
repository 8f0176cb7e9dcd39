/*
 * links: hard links and symbolic links.
 */
#include "tests/conform/conform.h"

#include <limits.h>

static void hard(void)
{
    put("a", "text");
    OK(link("a", "b"));
    EQ(st_of("a").st_ino, st_of("b").st_ino);
    EQ(2, nlink_of("a"));
    DO(mkdir("d", 0755));
    OK(link("b", "d/c"));
    EQ(3, nlink_of("a"));
    put("b", "changed");
    YES(holds("d/c", "changed"));
    DO(chmod("d/c", 0600));
    EQ(0600, mode_of("a"));
    OK(unlink("a"));
    EQ(2, nlink_of("b"));
    YES(holds("b", "changed"));
    OK(unlink("b"));
    EQ(1, nlink_of("d/c"));
    OK(rename("d/c", "e"));
    YES(holds("e", "changed"));
    ERR(ENOENT, link("none", "x"));
    ERR(EPERM, link("d", "x"));
    ERR(EEXIST, link("e", "d"));
    ERR(EEXIST, link("e", "e"));
    ERR(ENOENT, link("e", "none/x"));
    EQ(1, nlink_of("e"));
}

static void hard_kinds(void)
{
    static const enum conform_kind kinds[] = {K_FIFO, K_SOCKET, K_CHAR, K_BLOCK, K_LINK};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        NOTE("%s", conform_kinds[kinds[i]]);
        conform_make(kinds[i], "x");
        EFFECT("x=c .=mc", link("x", "y"));
        EQ(kinds[i], conform_kind_at("y"));
        EQ(2, nlink_of("x"));
        EQ(st_of("x").st_ino, st_of("y").st_ino);
        OK(unlink("x"));
        EQ(1, nlink_of("y"));
        DO(unlink("y"));
    }
}

static void follow(void)
{
    put("f", "");
    DO(symlink("f", "s"));
    OK(linkat(AT_FDCWD, "s", AT_FDCWD, "plain", 0));
    EQ(K_LINK, conform_kind_at("plain"));
    OK(linkat(AT_FDCWD, "s", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    EQ(K_FILE, conform_kind_at("followed"));
    EQ(2, nlink_of("f"));
    DO(symlink("none", "dangling"));
    ERR(ENOENT, linkat(AT_FDCWD, "dangling", AT_FDCWD, "x", AT_SYMLINK_FOLLOW));
    ERR(EINVAL, linkat(AT_FDCWD, "f", AT_FDCWD, "x", 0x8000));
}

static void across(void)
{
    char far[128];
    snprintf(far, sizeof(far), "%s/conform-far.%d", conform_elsewhere(), (int)getpid());
    put("f", "");
    DO(mkdir("d", 0755));
    ERR(EXDEV, link("f", far));
    ERR(EXDEV, rename("f", far));
    ERR(EXDEV, rename("d", far));
    YES(there("f") && there("d"));
    DO(symlink(far, "s"));
    put(far, "far");
    YES(holds("s", "far"));
    ERR(EXDEV, link(far, "x"));
    ERR(EXDEV, rename(far, "f"));
    unlink(far);
    ERR(ENOENT, shut(open("s", O_RDONLY)));
}

/* Many links to one file: ext4 stops at 65000. */
static void many(void)
{
    char name[32];
    int made = 0;
    put("f", "");
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        if (link("f", name))
            break;
        made++;
    }
    EQ(2000, made);
    EQ(2001, nlink_of("f"));
    YES(pathconf("f", _PC_LINK_MAX) >= 2001);
    for (int i = 0; i < 2000; i += 2) {
        snprintf(name, sizeof(name), "l%d", i);
        made -= unlink(name) == 0;
    }
    EQ(1000, made);
    EQ(1001, nlink_of("f"));
}

/* As many as there can be, made by several processes to be quick: ext4 stops at 65000, the first name included. */
static void most(void)
{
    enum { PROCESSES = 16 };
    pid_t pid[PROCESSES];
    put("f", "");
    for (int k = 0; k < PROCESSES; k++)
        CHILD(pid[k])
        {
            char name[32];
            snprintf(name, sizeof(name), "%d",
                     k); // in folders of their own, which the kernel locks one by one
            DO(mkdir(name, 0755));
            int i = 0;
            do
                snprintf(name, sizeof(name), "%d/%d", k, i++);
            while (i < 65002 && link("f", name) == 0);
            EQ(EMLINK, errno);
        }
    for (int k = 0; k < PROCESSES; k++)
        JOIN(pid[k]);
    EQ(65000, nlink_of("f"));
    ERR(EMLINK, link("f", "one-more"));
    DO(unlink("0/0"));
    OK(link("f", "one-more"));
    ERR(EMLINK, link("f", "yet-another"));
    for (int k = 0; k < PROCESSES; k++)
        CHILD(pid[k])
        {
            char name[16];
            snprintf(name, sizeof(name), "%d", k);
            conform_remove(name);
        }
    for (int k = 0; k < PROCESSES; k++)
        JOIN(pid[k]);
    EQ(2, nlink_of("f"));
}

static void protected_links(void)
{
    // with fs.protected_hardlinks a stranger cannot link what it could not write; without, it can
    FILE *f = fopen("/proc/sys/fs/protected_hardlinks", "re");
    int on = 0;
    if (!f || fscanf(f, "%d", &on) != 1)
        on = 0;
    if (f)
        fclose(f);
    DO(chmod(".", 0777));
    put_as("closed", 0644, &ALICE);
    put_as("open", 0666, &ALICE);
    put_as("suid", 04777, &ALICE);
    AS(BOB)
    {
        GIVES(on ? EPERM : 0, link("closed", "1"));
        OK(link("open", "2"));
        GIVES(on ? EPERM : 0, link("suid", "3"));
    }
    AS(ALICE)
    {
        OK(link("closed", "4"));
    }
}

static void symbolic(void)
{
    char b[8192];
    static const size_t lengths[] = {1,   2,   31,   59,   60,   61,   127, 128,
                                     255, 256, 1023, 1024, 4000, 4094, 4095};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        NOTE("%zu bytes", lengths[i]);
        OK(symlink(filled(lengths[i], 't'), "s"));
        EQ(lengths[i], size_of("s"));
        EQ(lengths[i], readlink("s", b, sizeof(b)));
        YES(!memcmp(b, filled(lengths[i], 't'), lengths[i]));
        DO(unlink("s"));
    }
    NOTE_END();
    ERR(ENAMETOOLONG, symlink(filled(4096, 't'), "s"));
    ERR(ENOENT, symlink("", "s"));
    OK(symlink("a", "s"));
    ERR(EEXIST, symlink("b", "s"));
    EQ(1, readlink("s", b, sizeof(b)));
    DO(unlink("s"));
    DO(symlink("12345678", "s"));
    memset(b, 'z', 16);
    EQ(3, readlink("s", b, 3));
    YES(!memcmp(b, "123zz", 5));
    EQ(8, readlink("s", b, 8));
    ERR(EINVAL, readlink("s", b, 0));
    for (int i = 0; i < 254; i++)
        b[i] = (char)(i + 1);
    b[254] = 0;
    OK(symlink(b, "bytes"));
    char c[300];
    EQ(254, readlink("bytes", c, sizeof(c)));
    YES(!memcmp(b, c, 254));
}

static void readlink_of_others(void)
{
    char b[16];
    for (int k = K_FILE; k < K_KINDS; k++) {
        if (k == K_LINK)
            continue;
        conform_make((enum conform_kind)k, "x");
        NOTE("%s", conform_kinds[k]);
        ERR(EINVAL, readlink("x", b, sizeof(b)));
        conform_remove("x");
    }
}

static void resolving(void)
{
    char target[4100], b[64];
    DO(mkdir("d", 0755));
    DO(mkdir("d/e", 0755));
    put("f", "top");
    put("d/f", "inner");
    DO(symlink("../f", "d/up"));
    DO(symlink("f", "d/same"));
    DO(symlink("../d/e/../f", "d/e/round"));
    YES(holds("d/up", "top"));
    YES(holds("d/same", "inner"));
    ERR(ENOENT, shut(open("d/e/round", O_RDONLY)));
    DO(symlink("d", "dd"));
    YES(holds("dd/f", "inner"));
    YES(getcwd(target, 4000) != NULL);
    strcat(target, "/f");
    DO(symlink(target, "absolute"));
    YES(holds("absolute", "top"));
    // the longest target still resolves
    memset(target, '/', 4094);
    for (int i = 0; i < 4094; i += 2)
        target[i] = '.';
    strcpy(target + 4094, "f");
    DO(symlink(target, "long"));
    YES(holds("long", "top"));
    // forty in a row are followed, one more is a loop
    char from[16], to[16] = "f";
    for (int i = 1; i <= 41; i++) {
        snprintf(from, sizeof(from), "s%d", i);
        DO(symlink(to, from));
        strcpy(to, from);
    }
    OK(shut(open("s40", O_RDONLY)));
    ERR(ELOOP, shut(open("s41", O_RDONLY)));
    EQ(3, readlink("s41", b, sizeof(b)));
    // renaming a link keeps it, renaming its target breaks it
    DO(rename("dd", "d/moved"));
    ERR(ENOENT, shut(open("d/moved/f", O_RDONLY)));
    DO(symlink("d", "dd"));
    DO(rename("d", "renamed"));
    ERR(ENOENT, shut(open("dd/f", O_RDONLY)));
    EQ(K_LINK, conform_kind_at("dd"));
}

static void symlink_attributes(void)
{
    DO(mkdir("d", 0755));
    DO(chmod("d", 0777));
    AS(ALICE)
    {
        OK(symlink("target", "d/s"));
    }
    struct stat st = st_of("d/s");
    EQ(ALICE.uid, st.st_uid);
    EQ(ALICE.gid, st.st_gid);
    EQ(1, st.st_nlink);
    put("d/target", "");
    OK(lchown("d/s", BOB.uid, BOB.gid));
    EQ(BOB.uid, st_of("d/s").st_uid);
    EQ(0, st_of("d/target").st_uid);
    OK(chown("d/s", MATE.uid, MATE.gid));
    EQ(BOB.uid, st_of("d/s").st_uid);
    EQ(MATE.uid, st_of("d/target").st_uid);
    OK(chmod("d/s", 0600));
    EQ(0600, mode_of("d/target"));
    EQ(0777, mode_of("d/s"));
    ERR(EOPNOTSUPP, fchmodat(AT_FDCWD, "d/s", 0600, AT_SYMLINK_NOFOLLOW));
    char b[16];
    EFFECT("d/s=c d/target=", lchown("d/s", ALICE.uid, ALICE.gid));
    conform_tick();
    EFFECT("d=", readlink("d/s", b, sizeof(b)));
}

AREA(links, {"hard", hard}, {"hard-kinds", hard_kinds}, {"follow", follow}, {"across", across},
     {"many", many}, {"slow-most", most}, {"protected", protected_links}, {"symbolic", symbolic},
     {"readlink-of-others", readlink_of_others}, {"resolving", resolving},
     {"symlink-attributes", symlink_attributes});
