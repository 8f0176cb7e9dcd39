/*
 * listing: reading directories: completeness while they change, positions, types, buffers.
 */
#include "tests/conform/conform.h"

#include <dirent.h>
#include <sys/syscall.h>

struct entry { // what getdents64 writes
    uint64_t ino;
    int64_t off;
    unsigned short reclen;
    unsigned char type;
    char name[];
};

static void name_of(char *name, int i)
{
    snprintf(name, 32, "entry-%05d", i);
}

static void make_many(int from, int to)
{
    char name[32];
    for (int i = from; i < to; i++) {
        name_of(name, i);
        DO(shut(open(name, O_WRONLY | O_CREAT | O_EXCL, 0644)));
    }
}

static int index_of(const char *name)
{
    int i;
    return sscanf(name, "entry-%d", &i) == 1 ? i : -1;
}

static void types(void)
{
    static const unsigned char want[K_KINDS] = {0,       DT_REG,  DT_DIR, DT_DIR, DT_LNK,
                                                DT_FIFO, DT_SOCK, DT_CHR, DT_BLK};
    DO(mkdir("d", 0755));
    DO(chdir("d"));
    for (int k = K_FILE; k < K_KINDS; k++)
        conform_make((enum conform_kind)k, conform_kinds[k]);
    DIR *d = opendir(".");
    struct dirent *e;
    int n = 0, dots = 0;
    while (d && (e = readdir(d))) {
        n++;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) {
            dots++;
            EQ(DT_DIR, e->d_type);
            EQ(st_of(e->d_name).st_ino, e->d_ino);
            continue;
        }
        for (int k = K_FILE; k < K_KINDS; k++)
            if (!strcmp(e->d_name, conform_kinds[k])) {
                NOTE("%s", conform_kinds[k]);
                EQ(want[k], e->d_type);
                EQ(st_of(e->d_name).st_ino, e->d_ino);
            }
        NOTE_END();
    }
    EQ(2, dots);
    EQ(K_KINDS - 1 + 2, n);
    if (d)
        closedir(d);
}

static void empty_directory(void)
{
    DO(mkdir("d", 0755));
    DIR *d = opendir("d");
    int n = 0;
    struct dirent *e;
    while (d && (e = readdir(d)))
        n += e->d_name[0] == '.';
    EQ(2, n);
    errno = 0;
    YES(readdir(d) == NULL && errno == 0); // the end stays the end
    put("d/late", "");
    rewinddir(d);
    n = 0;
    while ((e = readdir(d)))
        n++;
    EQ(3, n);
    closedir(d);
}

static void complete(void)
{
    static unsigned char seen[3000];
    make_many(0, 3000);
    DIR *d = opendir(".");
    struct dirent *e;
    int n = 0, wrong = 0;
    while (d && (e = readdir(d))) {
        int i = index_of(e->d_name);
        if (i < 0)
            continue;
        n++;
        wrong += i >= 3000 || seen[i]++;
    }
    EQ(3000, n);
    EQ(0, wrong);
    closedir(d);
}

/* Entries added, removed and renamed while a listing is under way: all others come exactly once. */
static void changing(void)
{
    static unsigned char seen[3000];
    char name[32], other[32];
    make_many(0, 1000);
    int fd = (int)DO(open(".", O_RDONLY | O_DIRECTORY));
    char buffer[512];
    int calls = 0, twice = 0, missed = 0;
    long n;
    while ((n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < n;) {
            struct entry *e = (struct entry *)(void *)(buffer + at);
            int i = index_of(e->name);
            if (i >= 0)
                twice += seen[i]++ > 0;
            at += e->reclen;
        }
        if (calls < 40) { // add five, remove five others, rename five more
            make_many(1000 + 5 * calls, 1005 + 5 * calls);
            for (int i = 0; i < 5; i++) {
                name_of(name, calls * 5 + i);
                DO(unlink(name));
                name_of(name, 200 + calls * 5 + i);
                snprintf(other, sizeof(other), "renamed-%d", calls * 5 + i);
                DO(rename(name, other));
            }
        }
        calls++;
    }
    EQ(0, n);
    EQ(0, twice);
    for (int i = 400; i < 1000; i++)
        missed += !seen[i];
    EQ(0, missed);
    YES(calls > 40);
    close(fd);
}

/* As rm -rf: each entry is removed as soon as it is seen. */
static void remove_as_read(void)
{
    DO(mkdir("d", 0755));
    DO(chdir("d"));
    make_many(0, 2000);
    DIR *d = opendir(".");
    struct dirent *e;
    int removed = 0;
    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.')
            removed += unlink(e->d_name) == 0;
    closedir(d);
    EQ(2000, removed);
    DO(chdir(".."));
    OK(rmdir("d"));
}

static void rewind_sees_changes(void)
{
    make_many(0, 100);
    DIR *d = opendir(".");
    struct dirent *e;
    int n = 0;
    for (int i = 0; i < 30; i++)
        readdir(d);
    make_many(100, 150);
    DO(unlink("entry-00099"));
    rewinddir(d);
    while ((e = readdir(d)))
        n += index_of(e->d_name) >= 0;
    EQ(149, n);
    closedir(d);
}

static void positions(void)
{
    static struct {
        long at;
        char name[32];
    } t[600];
    make_many(0, 400);
    DIR *d = opendir(".");
    struct dirent *e;
    int n = 0, wrong = 0;
    for (; n < 600; n++) {
        t[n].at = telldir(d);
        if (!(e = readdir(d)))
            break;
        snprintf(t[n].name, sizeof(t[n].name), "%.31s", e->d_name);
    }
    EQ(402, n);
    for (int i = n - 1; i >= 0; i -= 7) {
        seekdir(d, t[i].at);
        e = readdir(d);
        wrong += !e || strcmp(e->d_name, t[i].name);
    }
    EQ(0, wrong);
    seekdir(d, t[n].at);
    YES(readdir(d) == NULL);
    // removing others does not move a position
    for (int i = 0; i < n; i++)
        if (i % 3 == 0 && t[i].name[0] == 'e')
            DO(unlink(t[i].name));
    for (int i = 1; i < n; i += 3) {
        if (t[i].name[0] != 'e')
            continue;
        seekdir(d, t[i].at);
        e = readdir(d);
        wrong += !e || strcmp(e->d_name, t[i].name);
    }
    EQ(0, wrong);
    // a position is good in another descriptor of the same directory
    int fd = (int)DO(open(".", O_RDONLY | O_DIRECTORY));
    char buffer[4096];
    OK(lseek(fd, t[200].at, SEEK_SET));
    OK(syscall(SYS_getdents64, fd, buffer, sizeof(buffer)));
    struct entry *first = (struct entry *)(void *)buffer;
    int want = 200;
    while (!there(t[want].name))
        want++;
    STR(t[want].name, first->name);
    closedir(d);
    close(fd);
}

static void descriptors(void)
{
    char b[4096], one[64] = "";
    make_many(0, 50);
    int fd = (int)DO(open(".", O_RDONLY | O_DIRECTORY)), twin = dup(fd),
        other = (int)DO(open(".", O_RDONLY));
    ERR(EISDIR, read(fd, b, sizeof(b)));
    ERR(EINVAL, syscall(SYS_getdents64, fd, b, 8));
    long n = OK(syscall(SYS_getdents64, fd, one, sizeof(one)));
    YES(n > 0);
    off_t at = lseek(fd, 0, SEEK_CUR);
    EQ(at, lseek(twin, 0, SEEK_CUR));
    EQ(0, lseek(other, 0, SEEK_CUR));
    int rest = 0;
    while ((n = syscall(SYS_getdents64, twin, b, sizeof(b))) > 0)
        for (long i = 0; i < n; i += ((struct entry *)(void *)(b + i))->reclen)
            rest++;
    EQ(0, syscall(SYS_getdents64, fd, b, sizeof(b)));
    YES(rest >= 49 && rest <= 51);
    EQ(0, lseek(fd, 0, SEEK_SET));
    YES(syscall(SYS_getdents64, fd, b, sizeof(b)) > 0);
    ERR(EINVAL, lseek(fd, -1, SEEK_SET));
    put("f", "");
    int file = (int)DO(open("f", O_RDONLY));
    ERR(ENOTDIR, syscall(SYS_getdents64, file, b, sizeof(b)));
    YES(fdopendir(file) == NULL && errno == ENOTDIR);
    int p = (int)DO(open(".", O_PATH | O_DIRECTORY));
    ERR(EBADF, syscall(SYS_getdents64, p, b, sizeof(b)));
    ERR(ENOTDIR, (errno = 0, opendir("f") ? 0 : -1));
    ERR(ENOENT, (errno = 0, opendir("none") ? 0 : -1));
    ERR(EISDIR, write(fd, b, 1) < 0 && errno == EBADF ? (errno = EISDIR, -1) : 0);
    ERR(EISDIR, truncate(".", 0));
    ERR(EINVAL, ftruncate(fd, 0));
}

static void atime(void)
{
    make_many(0, 5);
    conform_tick();
    DIR *d = opendir(".");
    EFFECT(".=a", readdir(d) ? 0 : -1);
    closedir(d);
}

static void several_readers(void)
{
    make_many(0, 500);
    pid_t pid[3];
    for (int k = 0; k < 3; k++)
        CHILD(pid[k])
        {
            int n = 0;
            DIR *d = opendir(".");
            while (d && readdir(d))
                n++;
            EQ(502, n);
        }
    for (int k = 0; k < 3; k++)
        JOIN(pid[k]);
    // scandir and nested listings do not disturb one another
    DIR *a = opendir("."), *b = opendir(".");
    int n = 0;
    while (readdir(a)) {
        n++;
        if (n % 100 == 0)
            while (readdir(b))
                n += 0;
    }
    EQ(502, n);
    closedir(a);
    closedir(b);
}

AREA(listing, {"types", types}, {"empty", empty_directory}, {"complete", complete},
     {"changing", changing}, {"remove-as-read", remove_as_read}, {"rewind", rewind_sees_changes},
     {"positions", positions}, {"descriptors", descriptors}, {"atime", atime},
     {"several-readers", several_readers});
