/*
 * map: mmap: what is written through memory is in the file, and the other way round; ends, holes, private copies.
 */
#include "tests/conform/conform.h"

#include <signal.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { P = 4096 };
static int fd;
static char *m;

static void scene(size_t size)
{
    fd = (int)DO(open("f", O_RDWR | O_CREAT | O_TRUNC, 0644));
    char *b = malloc(size);
    memset(b, 'f', size);
    DO(pwrite(fd, b, size, 0));
    free(b);
}

static char *map(int prot, int flags, size_t size)
{
    char *p = mmap(NULL, size, prot, flags, fd, 0);
    if (p == MAP_FAILED) {
        conform_ok(__LINE__, -1, errno, "mmap");
        conform_stop();
    }
    return p;
}

static char byte_at(off_t at)
{
    char c = 0;
    DO(pread(fd, &c, 1, at));
    return c;
}

static void shared(void)
{
    scene(3 * P);
    m = map(PROT_READ | PROT_WRITE, MAP_SHARED, 3 * P);
    EQ('f', m[0]);
    EQ('f', m[3 * P - 1]);
    m[0] = 'a';
    m[2 * P + 5] = 'b';
    EQ('a', byte_at(0)); // seen by read at once
    EQ('b', byte_at(2 * P + 5));
    OK(msync(m, 3 * P, MS_SYNC));
    OK(msync(m, 3 * P, MS_ASYNC));
    OK(msync(m, 3 * P, MS_INVALIDATE));
    int other = (int)DO(open("f", O_RDONLY));
    char c;
    EQ(1, pread(other, &c, 1, 2 * P + 5));
    EQ('b', c);
    DO(pwrite(fd, "c", 1, P)); // and write is seen in memory
    EQ('c', m[P]);
    m[P + 1] = 'd';
    OK(munmap(m, 3 * P));
    EQ('d', byte_at(P + 1));
    OK(close(fd));
    fd = (int)DO(open("f", O_RDONLY));
    EQ('a', byte_at(0));
    EQ('d', byte_at(P + 1));
    EQ(3 * P, st_fd(fd).st_size);
}

static void outlives_close(void)
{
    scene(P);
    m = map(PROT_READ | PROT_WRITE, MAP_SHARED, P);
    OK(close(fd));
    m[10] = 'x';
    fd = (int)DO(open("f", O_RDONLY));
    EQ('x', byte_at(10));
    OK(unlink("f"));
    OK(close(fd));
    m[11] = 'y'; // gone from the tree, alive in memory
    EQ('x', m[10]);
    OK(msync(m, P, MS_SYNC));
    OK(munmap(m, P));
    YES(!there("f"));
}

static void private(void)
{
    scene(2 * P);
    m = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, 2 * P);
    m[0] = 'p';
    EQ('f', byte_at(0));
    DO(pwrite(fd, "w", 1, 0));
    EQ('p', m[0]);
    OK(msync(m, 2 * P, MS_SYNC));
    EQ('w', byte_at(0));
    OK(munmap(m, 2 * P));
    int reader = (int)DO(open("f", O_RDONLY));
    char *q =
        mmap(NULL, P, PROT_READ | PROT_WRITE, MAP_PRIVATE, reader, 0); // of a file open for reading
    YES(q != MAP_FAILED);
}

static void between_processes(void)
{
    scene(P);
    m = map(PROT_READ | PROT_WRITE, MAP_SHARED, P);
    pid_t pid;
    CHILD(pid)
    {
        int mine = (int)DO(open("f", O_RDWR));
        char *q = mmap(NULL, P, PROT_READ | PROT_WRITE, MAP_SHARED, mine, 0);
        YES(q != MAP_FAILED && q[0] == 'f');
        q[7] = 'c';
        m[8] = 'i';
    }
    JOIN(pid);
    EQ('c', m[7]);
    EQ('i', m[8]);
    EQ('c', byte_at(7));
}

static sigjmp_buf env;
static void on_bus(int sig)
{
    siglongjmp(env, sig);
}

/* Whether touching p raises SIGBUS. */
static bool bus(volatile char *p)
{
    signal(SIGBUS, on_bus);
    if (sigsetjmp(env, 1))
        return true;
    (void)*p;
    return false;
}

static void ends(void)
{
    scene(P + 100);
    m = map(PROT_READ | PROT_WRITE, MAP_SHARED, 4 * P);
    EQ(0, m[P + 100]); // the last page is filled with zeros
    EQ(0, m[2 * P - 1]);
    m[P + 200] = 'x'; // and what is put there never gets into the file
    YES(bus(m + 2 * P));
    OK(msync(m, 2 * P, MS_SYNC));
    EQ(P + 100, st_fd(fd).st_size);
    OK(ftruncate(fd, 3 * P));
    EQ(0, byte_at(P + 200));
    YES(!bus(m + 2 * P));
    EQ(0, m[2 * P]);
    m[2 * P] = 'y';
    EQ('y', byte_at(2 * P));
    OK(ftruncate(fd, P)); // with the mapping in place
    YES(bus(m + P));
    YES(!bus(m));
    OK(ftruncate(fd, 3 * P));
    EQ(0, m[2 * P]);
    EQ(0, m[P + 5]);
    EQ('f', m[P - 1]);
    DO(pwrite(fd, "z", 1, P + 5));
    EQ('z', m[P + 5]);
    OK(ftruncate(fd, 10));
    EQ('f', m[9]);
    EQ(0, m[10]);
}

static void sparse(void)
{
    fd = (int)DO(open("f", O_RDWR | O_CREAT | O_TRUNC, 0644));
    DO(ftruncate(fd, 1LL << 32));
    m = map(PROT_READ | PROT_WRITE, MAP_SHARED, 64 * P);
    int bad = 0;
    for (int i = 0; i < 64; i++)
        bad += m[i * P + 17] != 0;
    EQ(0, bad);
    m[30 * P] = 's';
    OK(msync(m, 64 * P, MS_SYNC));
    DO(close(fd));
    fd = (int)DO(open("f", O_RDWR));
    EQ('s', byte_at(30 * P));
    EQ(0, byte_at(29 * P));
    EQ(0, byte_at(31 * P));
    YES(st_fd(fd).st_blocks > 0 && st_fd(fd).st_blocks < 2048);
    char *far = mmap(NULL, P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (1LL << 32) - P);
    YES(far != MAP_FAILED);
    far[5] = 'e';
    EQ('e', byte_at((1LL << 32) - P + 5));
}

static void mixed(void)
{
    // memory, write and read in turn on every page, then compared after a fresh open
    enum { PAGES = 64 };
    scene(PAGES * P);
    m = map(PROT_READ | PROT_WRITE, MAP_SHARED, PAGES * P);
    int bad = 0;
    for (int i = 0; i < PAGES; i++) {
        m[i * P + i] = (char)i;
        DO(pwrite(fd, "w", 1, i * P + i + 1));
        bad += byte_at(i * P + i) != (char)i;
        bad += m[i * P + i + 1] != 'w';
        if (i % 16 == 7)
            DO(fsync(fd));
        m[i * P + i + 2] = 'm';
    }
    EQ(0, bad);
    OK(munmap(m, PAGES * P));
    OK(close(fd));
    fd = (int)DO(open("f", O_RDONLY));
    for (int i = 0; i < PAGES; i++)
        bad += byte_at(i * P + i) != (char)i || byte_at(i * P + i + 1) != 'w' ||
               byte_at(i * P + i + 2) != 'm' || byte_at(i * P + i + 3) != 'f';
    EQ(0, bad);
}

static void refusals(void)
{
    scene(P);
    int r = (int)DO(open("f", O_RDONLY)), w = (int)DO(open("f", O_WRONLY)),
        d = (int)DO(open(".", O_RDONLY));
#define MAPS(prot, flags, fildes, at)                                                              \
    (mmap(NULL, P, prot, flags, fildes, at) == MAP_FAILED ? -1 : 0)
    ERR(EACCES, MAPS(PROT_READ, MAP_SHARED, w, 0));
    ERR(EACCES, MAPS(PROT_READ, MAP_PRIVATE, w, 0));
    ERR(EACCES, MAPS(PROT_READ | PROT_WRITE, MAP_SHARED, r, 0));
    ERR(ENODEV, MAPS(PROT_READ, MAP_SHARED, d, 0));
    ERR(EINVAL, MAPS(PROT_READ, MAP_SHARED, fd, 100));
    ERR(EBADF, MAPS(PROT_READ, MAP_SHARED, 999, 0));
    OK(MAPS(PROT_READ, MAP_SHARED, r, 0));
    OK(MAPS(PROT_READ | PROT_EXEC, MAP_PRIVATE, r, 0));
    OK(MAPS(PROT_READ, MAP_SHARED, fd, 16 * P)); // beyond the end may be mapped, not touched
    char *p = mmap(NULL, P, PROT_READ, MAP_SHARED, r, 0);
    YES(p != MAP_FAILED);
    ERR(EACCES, mprotect(p, P, PROT_READ | PROT_WRITE));
#undef MAPS
}

static void running(void)
{
    // a program is run from here, and cannot be written meanwhile
    char b[65536];
    int in = (int)DO(open("/bin/sleep", O_RDONLY)),
        out = (int)DO(open("sleep", O_WRONLY | O_CREAT, 0755));
    ssize_t n;
    while ((n = DO(read(in, b, sizeof(b)))) > 0)
        DO(write(out, b, (size_t)n));
    DO(close(out));
    int go[2];
    DO(pipe2(go, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        execl("./sleep", "sleep", "50", (char *)NULL);
        _exit(write(go[1], "x", 1) == 1 ? 1 : 2);
    }
    close(go[1]);
    EQ(0, read(go[0], b, 1)); // closed by a successful exec
    ERR(ETXTBSY, shut(open("sleep", O_WRONLY)));
    ERR(ETXTBSY, truncate("sleep", 0));
    OK(shut(open("sleep", O_RDONLY)));
    OK(unlink("sleep"));
    kill(pid, SIGKILL);
    int status = 0;
    DO(waitpid(pid, &status, 0));
    EQ(SIGKILL, WTERMSIG(status));
    out = (int)DO(open("busy", O_WRONLY | O_CREAT, 0755));
    pid = fork();
    if (pid == 0) {
        execl("./busy", "busy", (char *)NULL);
        _exit(errno == ETXTBSY ? 7 : 8);
    }
    DO(waitpid(pid, &status, 0));
    EQ(7, WEXITSTATUS(status));
}

AREA(map, {"shared", shared}, {"outlives-close", outlives_close}, {"private", private},
     {"between-processes", between_processes}, {"ends", ends}, {"sparse", sparse}, {"mixed", mixed},
     {"refusals", refusals}, {"running", running});
