/*
 * pair: two openers at once: what each sees of the other's changes, in names, attributes and data, without delay.
 */
#include "tests/conform/conform.h"

#include <sys/mman.h>

static int to_child[2], to_parent[2];

/* One turn: the other side goes on. */
static void turn(int out, int in)
{
    char c = 't';
    DO(write(out, &c, 1));
    if (DO(read(in, &c, 1)) != 1)
        conform_stop();
}
static void parent_turn(void)
{
    turn(to_child[1], to_parent[0]);
}
static void child_turn(void)
{
    turn(to_parent[1], to_child[0]);
}
static void child_begin(void)
{
    char c;
    conform_to_peer();
    close(to_child[1]);
    close(to_parent[0]);
    DO(read(to_child[0], &c, 1));
}
static void child_done(void)
{
    DO(write(to_parent[1], "d", 1));
}
static void open_pipes(void)
{
    DO(pipe(to_child));
    DO(pipe(to_parent));
}

static void names(void)
{
    pid_t pid;
    open_pipes();
    CHILD(pid)
    {
        child_begin();
        YES(there("a"));
        DO(rename("a", "b"));
        child_turn();
        YES(!there("b"));
        DO(mkdir("d", 0755));
        child_turn();
        YES(there("d/in"));
        DO(unlink("d/in"));
        DO(rmdir("d"));
        child_done();
    }
    YES(!there("a"));
    put("a", "");
    parent_turn();
    YES(!there("a"));
    YES(there("b"));
    DO(unlink("b"));
    parent_turn();
    EQ(K_DIR, conform_kind_at("d"));
    put("d/in", "");
    parent_turn();
    YES(!there("d"));
    JOIN(pid);
}

static void attributes(void)
{
    pid_t pid;
    open_pipes();
    put("f", "1234");
    int fd = (int)DO(open("f", O_RDWR));
    CHILD(pid)
    {
        child_begin();
        EQ(10, size_of("f"));
        DO(chmod("f", 0600));
        DO(truncate("f", 3));
        child_turn();
        EQ(70001, st_of("f").st_uid);
        EQ(2, nlink_of("f"));
        struct timespec t[2] = {{1, 2}, {3, 4}};
        DO(utimensat(AT_FDCWD, "f", t, 0));
        child_done();
    }
    DO(pwrite(fd, "567890", 6, 4));
    parent_turn();
    EQ(0600, mode_of("f"));
    EQ(3, st_fd(fd).st_size);
    EQ(3, lseek(fd, 0, SEEK_END));
    DO(fchown(fd, 70001, 70001));
    DO(link("f", "g"));
    parent_turn();
    EQ(3, st_fd(fd).st_mtim.tv_sec);
    EQ(4, st_of("g").st_mtim.tv_nsec);
    JOIN(pid);
}

static void data(void)
{
    pid_t pid;
    char b[64] = "";
    open_pipes();
    put("f", "");
    int fd = (int)DO(open("f", O_RDWR));
    CHILD(pid)
    {
        child_begin();
        int mine = (int)DO(open("f", O_RDWR));
        EQ(5, pread(mine, b, 64, 0));
        YES(!memcmp(b, "first", 5));
        DO(pwrite(mine, "second", 6, 5));
        child_turn();
        EQ(7, pread(mine, b, 64, 0));
        YES(!memcmp(b, "FIRSTse", 7));
        char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mine, 0);
        YES(m != MAP_FAILED);
        m[0] = 'm';
        DO(msync(m, 4096, MS_SYNC)); // of a mapping others see no more than that
        child_done();
    }
    DO(pwrite(fd, "first", 5, 0));
    parent_turn();
    EQ(11, pread(fd, b, 64, 0));
    YES(!memcmp(b, "firstsecond", 11));
    DO(pwrite(fd, "FIRST", 5, 0));
    DO(ftruncate(fd, 7));
    parent_turn();
    EQ(1, pread(fd, b, 1, 0));
    EQ('m', b[0]);
    JOIN(pid);
}

static void overlapping(void)
{
    // two write whole records to the same places: each place holds one or the other, never a mixture
    enum { RECORD = 8192, PLACES = 16, ROUNDS = 6 };
    static char b[RECORD];
    put("f", "");
    pid_t pid[2];
    for (int k = 0; k < 2; k++)
        CHILD(pid[k])
        {
            if (k % 2)
                conform_to_peer();
            int fd = (int)DO(open("f", O_RDWR));
            memset(b, 'A' + k, RECORD);
            for (int r = 0; r < ROUNDS; r++)
                for (int p = 0; p < PLACES; p++)
                    if (pwrite(fd, b, RECORD, p * RECORD) != RECORD)
                        EQ(RECORD, -1);
        }
    JOIN(pid[0]);
    JOIN(pid[1]);
    int fd = (int)DO(open("f", O_RDONLY)), torn = 0;
    EQ(RECORD * PLACES, st_fd(fd).st_size);
    for (int p = 0; p < PLACES; p++) {
        DO(pread(fd, b, RECORD, p * RECORD));
        for (int i = 1; i < RECORD; i++)
            if (b[i] != b[0] || (b[0] != 'A' && b[0] != 'B')) {
                torn++;
                break;
            }
    }
    EQ(0, torn);
}

static void making_and_removing(void)
{
    // many make, rename and remove in one directory: link counts and contents are right at the end
    pid_t pid[4];
    DO(mkdir("d", 0755));
    for (int k = 0; k < 4; k++)
        CHILD(pid[k])
        {
            if (k % 2)
                conform_to_peer();
            char a[32], b[32];
            for (int i = 0; i < 60; i++) {
                snprintf(a, sizeof(a), "d/%d-%d", k, i);
                snprintf(b, sizeof(b), "d/moved-%d-%d", k, i);
                DO(mkdir(a, 0755));
                DO(rename(a, b));
                if (i % 3)
                    DO(rmdir(b));
            }
        }
    for (int k = 0; k < 4; k++)
        JOIN(pid[k]);
    EQ(2 + 4 * 20, nlink_of("d"));
}

static void directory_race(void)
{
    // rmdir against making in it: either the directory goes, or the file is there; never both
    pid_t pid;
    int odd = 0;
    for (int i = 0; i < 40; i++) {
        DO(mkdir("d", 0755));
        CHILD(pid)
        {
            conform_to_peer();
            int fd = open("d/f", O_WRONLY | O_CREAT, 0644);
            if (fd < 0 && errno != ENOENT)
                OK(fd);
        }
        int r = rmdir("d");
        int e = errno;
        JOIN(pid);
        if (r == 0)
            odd += there("d");
        else
            odd += e != ENOTEMPTY || !there("d/f");
        conform_remove("d");
    }
    EQ(0, odd);
}

AREA(pair, {"names", names}, {"attributes", attributes}, {"data", data},
     {"overlapping", overlapping}, {"making-and-removing", making_and_removing},
     {"directory-race", directory_race});
