/*
 * rename: every pair of kinds, the flags, directories into themselves, sticky directories, link counts and times.
 */
#include "tests/conform/conform.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

static int swap(const char *a, const char *b)
{
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

static int move_only(const char *a, const char *b)
{
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE);
}

static int pair_code(int from, int to)
{
    bool from_dir = from == K_DIR || from == K_FULL_DIR;
    if (to == K_NONE)
        return 0;
    if (to == K_DIR)
        return from_dir ? 0 : EISDIR;
    if (to == K_FULL_DIR)
        return from_dir ? ENOTEMPTY : EISDIR;
    return from_dir ? ENOTDIR : 0;
}

static void pairs(void)
{
    DO(mkdir("here", 0755));
    for (int from = K_FILE; from < K_KINDS; from++)
        for (int to = K_NONE; to < K_KINDS; to++) {
            conform_make((enum conform_kind)from, "x");
            conform_make((enum conform_kind)to, "here/y");
            struct stat x = st_of("x"), y = to == K_NONE ? x : st_of("here/y");
            int code = pair_code(from, to);
            NOTE("%s onto %s", conform_kinds[from], conform_kinds[to]);
            GIVES(code, rename("x", "here/y"));
            if (code)
                YES(there("x") && st_of("x").st_ino == x.st_ino &&
                    st_of("here/y").st_ino == y.st_ino);
            else
                YES(!there("x") && st_of("here/y").st_ino == x.st_ino &&
                    st_of("here/y").st_mode == x.st_mode);
            conform_remove("x");
            conform_remove("here/y");
        }
}

static void no_replace(void)
{
    for (int to = K_NONE; to < K_KINDS; to++) {
        put("x", "");
        conform_make((enum conform_kind)to, "y");
        NOTE("onto %s", conform_kinds[to]);
        GIVES(to == K_NONE ? 0 : EEXIST, move_only("x", "y"));
        EQ(to != K_NONE, there("x"));
        conform_remove("x");
        conform_remove("y");
    }
    NOTE_END();
    put("x", "");
    ERR(EEXIST, move_only("x", "x"));
    DO(link("x", "y"));
    ERR(EEXIST, move_only("x", "y"));
    DO(mkdir("d", 0755));
    DO(mkdir("e", 0755));
    ERR(EEXIST, move_only("d", "e"));
    OK(move_only("d", "e/d"));
    ERR(ENOENT, move_only("none", "z"));
    ERR(ENOENT, move_only("none", "x"));
}

static void exchange(void)
{
    static const enum conform_kind kinds[] = {K_FILE, K_DIR, K_FULL_DIR, K_LINK, K_FIFO};
    DO(mkdir("here", 0755));
    for (size_t a = 0; a < COUNT(kinds); a++)
        for (size_t b = 0; b < COUNT(kinds); b++) {
            conform_make(kinds[a], "x");
            conform_make(kinds[b], "here/y");
            struct stat x = st_of("x"), y = st_of("here/y");
            NOTE("%s with %s", conform_kinds[kinds[a]], conform_kinds[kinds[b]]);
            OK(swap("x", "here/y"));
            YES(st_of("x").st_ino == y.st_ino && st_of("x").st_mode == y.st_mode);
            YES(st_of("here/y").st_ino == x.st_ino && st_of("here/y").st_mode == x.st_mode);
            EQ(2 + (a == 1 || a == 2), nlink_of("here"));
            conform_remove("x");
            conform_remove("here/y");
        }
    NOTE_END();
    put("x", "x");
    put("z", "z");
    ERR(ENOENT, swap("x", "none"));
    ERR(ENOENT, swap("none", "x"));
    OK(swap("x", "x"));
    YES(holds("x", "x"));
    DO(mkdir("here/sub", 0755));
    ERR(EINVAL, swap("here", "here/sub"));
    ERR(EINVAL, swap("here/sub", "here"));
    ERR(EINVAL, renameat2(AT_FDCWD, "x", AT_FDCWD, "z", RENAME_EXCHANGE | RENAME_NOREPLACE));
    ERR(EINVAL, renameat2(AT_FDCWD, "x", AT_FDCWD, "z", 1U << 20));
    DO(link("x", "was-x"));
    DO(link("z", "was-z"));
    EFFECT("was-x=c was-z=c .=mc", swap("x", "z"));
    YES(holds("x", "z") && holds("z", "x"));
    EFFECT("was-z=c here=mc .=mc", swap("x", "here/sub"));
    EQ(K_FILE, conform_kind_at("here/sub"));
    EQ(2, nlink_of("here"));
    DO(mkdir("x/below", 0755));
    EQ(st_of(".").st_ino, st_of("x/..").st_ino);
}

static void same_inode(void)
{
    put("a", "text");
    DO(link("a", "b"));
    OK(rename("a", "b")); // nothing happens
    YES(there("a") && there("b"));
    EQ(2, nlink_of("a"));
    EFFECT("a= .=", rename("a", "b"));
    EFFECT("a= .=", rename("a", "a"));
    DO(mkdir("d", 0755));
    OK(rename("d", "d"));
    YES(there("d"));
    DO(link("a", "d/c"));
    OK(rename("a", "d/c"));
    EQ(3, nlink_of("a"));
}

static void into_itself(void)
{
    DO(mkdir("d", 0755));
    DO(mkdir("d/e", 0755));
    DO(mkdir("d/e/f", 0755));
    ERR(EINVAL, rename("d", "d/x"));
    ERR(EINVAL, rename("d", "d/e"));
    ERR(EINVAL, rename("d", "d/e/f/x"));
    ERR(EINVAL, rename("d/e", "d/e/f/x"));
    ERR(EINVAL, move_only("d", "d/x"));
    ERR(ENOTEMPTY, rename("d/e/f", "d/e"));
    ERR(ENOTEMPTY, rename("d/e/f", "d"));
    ERR(ENOTEMPTY, rename("d/e", "d"));
    DO(symlink("d", "s"));
    ERR(EINVAL, rename("d", "s/x"));
    OK(rename("d/e", "e"));
    OK(rename("d", "e/f/d"));
    ERR(EINVAL, rename("e", "e/f/d/e"));
    YES(there("e/f/d"));
}

static void symlinks(void)
{
    put("f", "text");
    DO(symlink("f", "s"));
    DO(symlink("none", "t"));
    OK(rename("s", "s2")); // the link, not what it points to
    EQ(K_LINK, conform_kind_at("s2"));
    YES(there("f"));
    OK(rename("f", "t")); // replaces the link
    EQ(K_FILE, conform_kind_at("t"));
    YES(!there("none"));
    DO(mkdir("d", 0755));
    DO(symlink("d", "sd"));
    ERR(ENOTDIR, rename("d", "sd"));
    OK(rename("t", "sd"));
    EQ(K_FILE, conform_kind_at("sd"));
    EQ(K_DIR, conform_kind_at("d"));
}

static void times(void)
{
    DO(mkdir("a", 0755));
    DO(mkdir("b", 0755));
    put("a/f", "");
    DO(mkdir("a/d", 0755));
    put("b/old", "");
    struct stat before = st_of("a/f");
    conform_tick();
    EFFECT("a=mc b=mc .=", rename("a/f", "b/f"));
    EQ(before.st_ino, st_of("b/f").st_ino);
    YES(conform_time_cmp(before.st_ctim, st_of("b/f").st_ctim) < 0);
    YES(conform_time_cmp(before.st_mtim, st_of("b/f").st_mtim) == 0);
    EFFECT("b=mc", rename("b/f", "b/g"));
    EFFECT("b=mc", rename("b/g", "b/old"));
    int gone = (int)DO(open("b/old", O_RDONLY));
    DO(link("b/old", "kept"));
    put("b/new", "");
    EFFECT("b=mc kept=c", rename("b/new", "b/old"));
    EQ(1, st_fd(gone).st_nlink);
    EFFECT("a=mc b=mc", rename("a/d", "b/d"));
    REFUSED("a b b/d", ENOENT, rename("a/none", "b/d"));
    DO(mkdir("a/full", 0755));
    put("a/full/x", "");
    REFUSED("a b b/d a/full", ENOTEMPTY, rename("b/d", "a/full"));
}

static void replaced(void)
{
    char b[16];
    put("old", "old");
    put("new", "new");
    int fd = (int)DO(open("old", O_RDWR));
    DO(link("old", "second"));
    OK(rename("new", "old"));
    EQ(1, nlink_of("second"));
    EQ(3, pread(fd, b, sizeof(b), 0));
    YES(!memcmp(b, "old", 3));
    YES(holds("old", "new") && holds("second", "old"));
    DO(mkdir("d", 0755));
    DO(mkdir("e", 0755));
    int dir = (int)DO(open("e", O_RDONLY | O_DIRECTORY));
    int links = nlink_of(".");
    OK(rename("d", "e"));
    EQ(0, st_fd(dir).st_nlink);
    EQ(links - 1, nlink_of("."));
    ERR(ENOENT, openat(dir, "x", O_WRONLY | O_CREAT, 0644));
}

/* Of a sticky directory only the owner of the file or of the directory takes a name away. */
static void sticky(void)
{
    static const struct {
        const char *name;
        const struct conform_user *dir, *file, *who;
        int code;
    } t[] = {
        {"owner of the file", &BOB, &ALICE, &ALICE, 0},
        {"owner of the directory", &ALICE, &BOB, &ALICE, 0},
        {"a stranger", &ALICE, &ALICE, &BOB, EPERM},
        {"of the file's group", &BOB, &ALICE, &MATE, EPERM},
        {"of the directory's group", &ALICE, &BOB, &MEMBER, EPERM},
    };
    dir_as("free", 0777, NULL);
    for (size_t i = 0; i < COUNT(t); i++) {
        dir_as("d", 01777, t[i].dir);
        put_as("d/f", 0666, t[i].file);
        dir_as("d/sub", 0777, t[i].file);
        put_as("free/mine", 0666, t[i].who);
        AS(*t[i].who)
        {
            NOTE("%s", t[i].name);
            GIVES(t[i].code, rename("d/f", "d/g"));
            if (!t[i].code)
                OK(rename("d/g", "d/f"));
            GIVES(t[i].code, rename("d/f", "free/f"));
            if (!t[i].code)
                OK(rename("free/f", "d/f"));
            GIVES(t[i].code, rename("free/mine", "d/f"));
            GIVES(t[i].code, unlink("d/f"));
            GIVES(t[i].code, rename("d/sub", "d/sub2"));
            if (!t[i].code)
                OK(rename("d/sub2", "d/sub"));
            GIVES(t[i].code, rmdir("d/sub"));
            OK(shut(open("d/another", O_WRONLY | O_CREAT | O_EXCL, 0644)));
            OK(rename("d/another", "d/renamed"));
        }
        conform_remove("d");
        conform_remove("free/mine");
    }
}

static void permissions(void)
{
    dir_as("from", 0777, NULL);
    dir_as("to", 0777, NULL);
    dir_as("shut", 0555, NULL);
    put_as("from/f", 0, NULL);
    put("shut/f", "");
    dir_as("from/theirs", 0755, &ALICE);
    dir_as("from/mine", 0755, &BOB);
    put_as("to/old", 0, NULL);
    AS(BOB)
    {
        OK(rename("from/f", "to/f")); // nothing is asked of the file itself
        OK(rename("to/f", "to/old"));
        ERR(EACCES, rename("to/old", "shut/g"));
        ERR(EACCES, rename("shut/f", "to/f"));
        ERR(EACCES, rename("shut/f", "shut/g"));
        ERR(EACCES, rename("to/old", "shut/f"));
        ERR(EACCES, swap("to/old", "shut/f"));
        OK(rename("from/theirs", "from/others"));        // same parent: its .. does not change
        ERR(EACCES, rename("from/others", "to/others")); // new parent: writing to it is needed
        OK(rename("from/mine", "to/mine"));
    }
    YES(there("shut/f") && there("to/old") && there("from/others"));
}

static void concurrent(void)
{
    // while one process renames over a name again and again, another always finds it, whole
    put("f", "0000000000");
    pid_t pid;
    CHILD(pid)
    {
        for (int i = 1; i <= 200; i++) {
            char text[16];
            snprintf(text, sizeof(text), "%010d", i);
            put("new", text);
            DO(rename("new", "f"));
        }
    }
    int bad = 0, last = 0;
    while (last < 200) {
        char b[16];
        int fd = open("f", O_RDONLY);
        if (fd < 0 || read(fd, b, sizeof(b)) != 10) {
            bad++;
            close(fd);
            break;
        }
        close(fd);
        b[10] = 0;
        int now = atoi(b);
        bad += now < last;
        last = now;
    }
    EQ(0, bad);
    JOIN(pid);
}

AREA(rename, {"pairs", pairs}, {"no-replace", no_replace}, {"exchange", exchange},
     {"same-inode", same_inode}, {"into-itself", into_itself}, {"symlinks", symlinks},
     {"times", times}, {"replaced", replaced}, {"sticky", sticky}, {"permissions", permissions},
     {"concurrent", concurrent});
