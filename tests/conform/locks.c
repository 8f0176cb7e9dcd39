/*
 * locks: flock, fcntl record locks and those of open file descriptions: conflicts, splitting, waiting, release.
 *
 * "Another" is a child process: another() asks in it and brings the errno back, since one's own record locks never
 * conflict with oneself.
 */
#include "tests/conform/conform.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int lock(int fd, int cmd, short type, off_t start, off_t len)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, cmd, &l);
}

/* 0, or the errno with which another process is refused this record lock. */
static int another(const char *path, int cmd, short type, off_t start, off_t len)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path, O_RDWR);
        _exit(lock(fd, cmd, type, start, len) ? errno : 0);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

static int another_flock(const char *path, int operation)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path, O_RDONLY);
        _exit(flock(fd, operation) ? errno : 0);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

/* Returns once process pid sleeps in a lock call; false when it does not within some seconds. */
static bool waits(pid_t pid)
{
    char path[64], b[128];
    struct timespec pause = {0, 2000000};
    int blocked = 0;
    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
    for (int i = 0; i < 2000 && blocked < 3; i++) {
        int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? -1 : read(fd, b, sizeof(b) - 1);
        b[n < 0 ? 0 : n] = 0;
        if (fd >= 0)
            close(fd);
        int number = atoi(b);
        blocked = strncmp(b, "running", 7) && n > 0 && (number == SYS_fcntl || number == SYS_flock)
                      ? blocked + 1
                      : 0;
        nanosleep(&pause, NULL);
    }
    return blocked >= 3;
}

static void flock_basic(void)
{
    put("f", "");
    int a = (int)DO(open("f", O_RDONLY)), b = (int)DO(open("f", O_RDWR));
    OK(flock(a, LOCK_SH));
    OK(flock(b, LOCK_SH | LOCK_NB));
    EQ(0, another_flock("f", LOCK_SH | LOCK_NB));
    EQ(EWOULDBLOCK, another_flock("f", LOCK_EX | LOCK_NB));
    ERR(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB)); // a has it shared
    OK(flock(a, LOCK_UN));
    OK(flock(b, LOCK_EX | LOCK_NB));
    ERR(EWOULDBLOCK, flock(a, LOCK_SH | LOCK_NB)); // between descriptors of one process too
    EQ(EWOULDBLOCK, another_flock("f", LOCK_SH | LOCK_NB));
    OK(flock(b, LOCK_SH)); // downgrade
    OK(flock(a, LOCK_SH | LOCK_NB));
    OK(flock(a, LOCK_UN));
    OK(flock(a, LOCK_UN)); // again is fine
    OK(close(b));
    EQ(0, another_flock("f", LOCK_EX | LOCK_NB));
    ERR(EINVAL, flock(a, 0));
    ERR(EINVAL, flock(a, LOCK_SH | LOCK_EX));
    ERR(EBADF, flock(999, LOCK_SH));
    int p = (int)DO(open("f", O_PATH));
    ERR(EBADF, flock(p, LOCK_SH));
    int d = (int)DO(open(".", O_RDONLY | O_DIRECTORY));
    OK(flock(d, LOCK_EX | LOCK_NB));
    EQ(EWOULDBLOCK, another_flock(".", LOCK_EX | LOCK_NB));
    OK(close(d));
    EQ(0, another_flock(".", LOCK_EX | LOCK_NB));
}

static void flock_ownership(void)
{
    put("f", "");
    int a = (int)DO(open("f", O_RDWR)), twin = dup(a);
    OK(flock(a, LOCK_EX));
    OK(flock(twin, LOCK_EX | LOCK_NB)); // the same description
    OK(close(a));
    EQ(EWOULDBLOCK, another_flock("f", LOCK_EX | LOCK_NB)); // held until the last one closes
    pid_t pid;
    int go[2], ready[2];
    char c;
    DO(pipe(go));
    DO(pipe(ready));
    CHILD(pid)
    {
        close(go[1]);
        DO(write(ready[1], "r", 1));
        DO(read(go[0], &c, 1)); // inherits, and keeps it alive
    }
    DO(read(ready[0], &c, 1));
    OK(close(twin));
    EQ(EWOULDBLOCK, another_flock("f", LOCK_EX | LOCK_NB));
    DO(write(go[1], "g", 1));
    JOIN(pid);
    EQ(0, another_flock("f", LOCK_EX | LOCK_NB));
    // a child may release for all
    a = (int)DO(open("f", O_RDWR));
    OK(flock(a, LOCK_EX));
    CHILD(pid)
    {
        OK(flock(a, LOCK_UN));
    }
    JOIN(pid);
    EQ(0, another_flock("f", LOCK_EX | LOCK_NB));
    OK(flock(a, LOCK_EX));
    DO(rename("f", "g"));
    EQ(EWOULDBLOCK,
       another_flock("g", LOCK_EX | LOCK_NB)); // it belongs to the file, not to the name
    put("f", "");
    EQ(0, another_flock("f", LOCK_EX | LOCK_NB));
    DO(link("g", "h"));
    EQ(EWOULDBLOCK, another_flock("h", LOCK_EX | LOCK_NB));
}

static void flock_waiting(void)
{
    pid_t pid;
    put("f", "");
    int a = (int)DO(open("f", O_RDWR)), done[2];
    char c;
    DO(pipe2(done, O_NONBLOCK));
    OK(flock(a, LOCK_EX));
    CHILD(pid)
    {
        int b = (int)DO(open("f", O_RDWR));
        OK(flock(b, LOCK_EX));
        DO(write(done[1], "d", 1));
    }
    YES(waits(pid));
    ERR(EAGAIN, read(done[0], &c, 1));
    OK(flock(a, LOCK_UN));
    JOIN(pid);
    EQ(1, read(done[0], &c, 1));
    // a signal interrupts
    OK(flock(a, LOCK_EX));
    CHILD(pid)
    {
        signal(SIGUSR1, SIG_DFL);
        int b = (int)DO(open("f", O_RDWR));
        flock(b, LOCK_EX);
    }
    YES(waits(pid));
    DO(kill(pid, SIGUSR1));
    int status = 0;
    DO(waitpid(pid, &status, 0));
    EQ(SIGUSR1, WIFSIGNALED(status) ? WTERMSIG(status) : 0); // a process that waits can be killed
    EQ(EWOULDBLOCK, another_flock("f", LOCK_EX | LOCK_NB));
    OK(flock(a, LOCK_UN));
    EQ(0, another_flock("f", LOCK_EX | LOCK_NB));
}

static void on_usr(int sig)
{
    (void)sig;
}

static void interrupted(void)
{
    pid_t pid;
    put("f", "");
    int a = (int)DO(open("f", O_RDWR));
    OK(lock(a, F_SETLK, F_WRLCK, 0, 0));
    for (int kind = 0; kind < 2; kind++) {
        NOTE("%s", kind ? "flock" : "fcntl");
        if (kind)
            OK(flock(a, LOCK_EX));
        CHILD(pid)
        {
            struct sigaction sa = {.sa_handler = on_usr};
            sigaction(SIGUSR1, &sa, NULL);
            int b = (int)DO(open("f", O_RDWR));
            ERR(EINTR, kind ? flock(b, LOCK_EX) : lock(b, F_SETLKW, F_WRLCK, 0, 0));
        }
        YES(waits(pid));
        DO(kill(pid, SIGUSR1));
        JOIN(pid);
    }
}

static void records(void)
{
    put("f", "0123456789");
    int fd = (int)DO(open("f", O_RDWR));
    OK(lock(fd, F_SETLK, F_WRLCK, 10, 10));
    static const struct {
        short type;
        off_t start, len;
        int code;
    } t[] = {
        {F_WRLCK, 0, 10, 0},        {F_WRLCK, 20, 10, 0},      {F_WRLCK, 0, 11, EAGAIN},
        {F_WRLCK, 19, 1, EAGAIN},   {F_RDLCK, 10, 1, EAGAIN},  {F_RDLCK, 0, 0, EAGAIN},
        {F_WRLCK, 20, 0, 0},        {F_WRLCK, 5, 100, EAGAIN}, {F_RDLCK, 20, 1, 0},
        {F_WRLCK, 1LL << 40, 5, 0}, {F_WRLCK, 25, -5, 0},      {F_WRLCK, 25, -6, EAGAIN},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        NOTE("%s %lld+%lld", t[i].type == F_RDLCK ? "read" : "write", (long long)t[i].start,
             (long long)t[i].len);
        EQ(t[i].code, another("f", F_SETLK, t[i].type, t[i].start, t[i].len));
        EQ(t[i].code, another("f", F_OFD_SETLK, t[i].type, t[i].start, t[i].len));
    }
    NOTE_END();
    OK(lock(fd, F_SETLK, F_RDLCK, 10, 10)); // turns it into a read lock
    EQ(0, another("f", F_SETLK, F_RDLCK, 10, 10));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 10, 10));
    OK(lock(fd, F_SETLK, F_WRLCK, 10, 10)); // and back
    EQ(EAGAIN, another("f", F_SETLK, F_RDLCK, 10, 10));
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 0));
    OK(lock(fd, F_SETLK, F_UNLCK, 5, 5)); // nothing there: fine
}

static void splitting(void)
{
    put("f", "");
    int fd = (int)DO(open("f", O_RDWR));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 100));
    OK(lock(fd, F_SETLK, F_UNLCK, 40, 20));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 39, 1));
    EQ(0, another("f", F_SETLK, F_WRLCK, 40, 20));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 60, 1));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 99, 1));
    EQ(0, another("f", F_SETLK, F_WRLCK, 100, 1));
    OK(lock(fd, F_SETLK, F_RDLCK, 10, 10)); // a part changes its type
    EQ(0, another("f", F_SETLK, F_RDLCK, 10, 10));
    EQ(EAGAIN, another("f", F_SETLK, F_RDLCK, 9, 1));
    EQ(EAGAIN, another("f", F_SETLK, F_RDLCK, 20, 1));
    OK(lock(fd, F_SETLK, F_WRLCK, 30, 40)); // and it grows together
    EQ(EAGAIN, another("f", F_SETLK, F_RDLCK, 50, 1));
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 0));
    // from other points than the start
    DO(ftruncate(fd, 1000));
    DO(lseek(fd, 500, SEEK_SET));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = 10, .l_len = 10};
    OK(fcntl(fd, F_SETLK, &l));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 510, 1));
    EQ(0, another("f", F_SETLK, F_WRLCK, 509, 1));
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -100, .l_len = 0};
    OK(fcntl(fd, F_SETLK, &l));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 900, 1));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 99999, 1));
    EQ(0, another("f", F_SETLK, F_WRLCK, 899, 1));
    // many
    DO(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    int bad = 0;
    for (int i = 0; i < 100; i++)
        bad += lock(fd, F_SETLK, F_WRLCK, i * 10, 5) != 0;
    EQ(0, bad);
    EQ(EAGAIN, another("f", F_SETLK, F_RDLCK, 504, 1));
    EQ(0, another("f", F_SETLK, F_RDLCK, 505, 5));
}

static struct flock asked(const char *path, int cmd, short type, off_t start, off_t len)
{
    // by another process, since F_GETLK leaves out one's own
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    int p[2];
    DO(pipe(p));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path, O_RDWR);
        _exit(fcntl(fd, cmd, &l) || write(p[1], &l, sizeof(l)) != sizeof(l));
    }
    close(p[1]);
    if (read(p[0], &l, sizeof(l)) != sizeof(l))
        l.l_type = -1;
    close(p[0]);
    waitpid(pid, NULL, 0);
    return l;
}

static void getlk(void)
{
    put("f", "");
    int fd = (int)DO(open("f", O_RDWR));
    EQ(F_UNLCK, asked("f", F_GETLK, F_WRLCK, 0, 0).l_type);
    DO(lock(fd, F_SETLK, F_WRLCK, 100, 50));
    DO(lock(fd, F_SETLK, F_RDLCK, 200, 0));
    struct flock l = asked("f", F_GETLK, F_WRLCK, 0, 0);
    EQ(F_WRLCK, l.l_type);
    EQ(SEEK_SET, l.l_whence);
    EQ(100, l.l_start);
    EQ(50, l.l_len);
    EQ(getpid(), l.l_pid);
    l = asked("f", F_GETLK, F_WRLCK, 160, 1000);
    EQ(F_RDLCK, l.l_type);
    EQ(200, l.l_start);
    EQ(0, l.l_len);
    EQ(F_UNLCK, asked("f", F_GETLK, F_RDLCK, 160, 1000).l_type);
    EQ(F_UNLCK, asked("f", F_GETLK, F_WRLCK, 150, 50).l_type);
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
    OK(fcntl(fd, F_GETLK, &l));
    EQ(F_UNLCK, l.l_type); // one's own are no obstacle
    DO(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    OK(lock(fd, F_OFD_SETLK, F_WRLCK, 10, 10));
    l = asked("f", F_GETLK, F_RDLCK, 0, 0);
    EQ(F_WRLCK, l.l_type);
    EQ(10, l.l_start);
    EQ(-1, l.l_pid); // of a description, not of a process
    l = asked("f", F_OFD_GETLK, F_RDLCK, 0, 0);
    EQ(F_WRLCK, l.l_type);
}

static void released(void)
{
    put("f", "");
    int a = (int)DO(open("f", O_RDWR)), b = (int)DO(open("f", O_RDONLY));
    OK(lock(a, F_SETLK, F_WRLCK, 0, 0));
    OK(close(b)); // closing any descriptor of the file releases the process's record locks
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 0));
    OK(lock(a, F_SETLK, F_WRLCK, 0, 0));
    OK(close(dup(a)));
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 0));
    OK(lock(a, F_SETLK, F_WRLCK, 0, 0));
    pid_t pid;
    CHILD(pid) // not inherited
    {
        ERR(EAGAIN, lock(a, F_SETLK, F_WRLCK, 0, 0));
        close(a);
    }
    JOIN(pid);
    EQ(EAGAIN,
       another("f", F_SETLK, F_WRLCK, 0, 0)); // and a child's close releases nothing of ours
    int go[2], ready[2];
    char c;
    DO(lock(a, F_SETLK, F_UNLCK, 0, 0));
    DO(pipe(go));
    DO(pipe(ready));
    CHILD(pid)
    {
        int mine = (int)DO(open("f", O_RDWR));
        DO(lock(mine, F_SETLK, F_WRLCK, 0, 0));
        DO(write(ready[1], "r", 1));
        DO(read(go[0], &c, 1));
    }
    DO(read(ready[0], &c, 1));
    EQ(EAGAIN, another("f", F_SETLK, F_RDLCK, 0, 0));
    DO(kill(pid, SIGKILL)); // a dead process holds nothing
    DO(waitpid(pid, NULL, 0));
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 0));
    OK(lock(a, F_SETLK, F_WRLCK, 0, 0));
    DO(unlink("f"));
    put("f", "");
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 0)); // another file
}

static void descriptions(void)
{
    put("f", "");
    int a = (int)DO(open("f", O_RDWR)), b = (int)DO(open("f", O_RDWR)), twin = dup(a);
    OK(lock(a, F_OFD_SETLK, F_WRLCK, 0, 10));
    ERR(EAGAIN, lock(b, F_OFD_SETLK, F_WRLCK, 5, 1)); // of the same process
    ERR(EAGAIN, lock(b, F_SETLK, F_WRLCK, 5, 1));
    OK(lock(twin, F_OFD_SETLK, F_WRLCK, 0, 20));
    OK(lock(b, F_OFD_SETLK, F_RDLCK, 20, 5));
    ERR(EAGAIN, lock(a, F_OFD_SETLK, F_WRLCK, 24, 1));
    OK(close(b)); // releases its own only
    OK(lock(a, F_OFD_SETLK, F_WRLCK, 24, 1));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 0, 1));
    OK(close(a));
    EQ(EAGAIN, another("f", F_OFD_SETLK, F_WRLCK, 0, 1)); // twin holds it
    pid_t pid;
    CHILD(pid)
    {
        OK(lock(twin, F_OFD_SETLK, F_UNLCK, 0, 10)); // inherited, so it can release
    }
    JOIN(pid);
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 10));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 10, 1));
    OK(close(twin));
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 0));
    int r = (int)DO(open("f", O_RDONLY));
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_pid = 1};
    ERR(EINVAL, fcntl(r, F_OFD_SETLK, &l)); // l_pid must be 0
}

static void waiting(void)
{
    static const int cmds[] = {F_SETLKW, F_OFD_SETLKW};
    put("f", "");
    for (size_t i = 0; i < 2; i++) {
        int fd = (int)DO(open("f", O_RDWR)), done[2];
        char c;
        pid_t pid;
        NOTE("%s", i ? "F_OFD_SETLKW" : "F_SETLKW");
        DO(pipe2(done, O_NONBLOCK));
        OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
        CHILD(pid)
        {
            int mine = (int)DO(open("f", O_RDWR));
            OK(lock(mine, cmds[i], F_WRLCK, 5, 10));
            DO(write(done[1], "d", 1));
        }
        YES(waits(pid));
        OK(lock(fd, F_SETLK, F_UNLCK, 0, 5)); // not yet the part that it waits for
        YES(waits(pid));
        ERR(EAGAIN, read(done[0], &c, 1));
        OK(lock(fd, F_SETLK, F_RDLCK, 5, 5)); // still in the way
        YES(waits(pid));
        OK(lock(fd, F_SETLK, F_UNLCK, 5, 5));
        JOIN(pid);
        EQ(1, read(done[0], &c, 1));
        // woken by close
        OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
        CHILD(pid)
        {
            int mine = (int)DO(open("f", O_RDWR));
            OK(lock(mine, cmds[i], F_RDLCK, 0, 0));
        }
        YES(waits(pid));
        OK(close(fd));
        JOIN(pid);
    }
}

static void deadlock(void)
{
    pid_t pid;
    put("f", "");
    int fd = (int)DO(open("f", O_RDWR)), ready[2];
    char c;
    DO(pipe(ready));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    CHILD(pid)
    {
        int mine = (int)DO(open("f", O_RDWR));
        OK(lock(mine, F_SETLK, F_WRLCK, 1, 1));
        DO(write(ready[1], "r", 1));
        OK(lock(mine, F_SETLKW, F_WRLCK, 0, 1));
    }
    DO(read(ready[0], &c, 1));
    YES(waits(pid));
    ERR(EDEADLK, lock(fd, F_SETLKW, F_WRLCK, 1, 1));
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 1));
    JOIN(pid);
    // across two files as well
    put("g", "");
    int g = (int)DO(open("g", O_RDWR));
    OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
    CHILD(pid)
    {
        int mine = (int)DO(open("g", O_RDWR)), other = (int)DO(open("f", O_RDWR));
        OK(lock(mine, F_SETLK, F_WRLCK, 0, 1));
        DO(write(ready[1], "r", 1));
        OK(lock(other, F_SETLKW, F_WRLCK, 0, 1));
    }
    DO(read(ready[0], &c, 1));
    YES(waits(pid));
    ERR(EDEADLK, lock(g, F_SETLKW, F_WRLCK, 0, 1));
    OK(lock(fd, F_SETLK, F_UNLCK, 0, 1));
    JOIN(pid);
}

static void refusals(void)
{
    put("f", "");
    int r = (int)DO(open("f", O_RDONLY)), w = (int)DO(open("f", O_WRONLY)),
        p = (int)DO(open("f", O_PATH));
    ERR(EBADF, lock(r, F_SETLK, F_WRLCK, 0, 0));
    ERR(EBADF, lock(w, F_SETLK, F_RDLCK, 0, 0));
    ERR(EBADF, lock(p, F_SETLK, F_RDLCK, 0, 0));
    OK(lock(r, F_SETLK, F_RDLCK, 0, 0));
    OK(lock(w, F_SETLK, F_WRLCK, 0, 0));
    ERR(EINVAL, lock(w, F_SETLK, F_WRLCK, -1, 0));
    ERR(EINVAL, lock(w, F_SETLK, F_WRLCK, 5, -6));
    ERR(EINVAL, lock(w, F_SETLK, 17, 0, 0));
    ERR(EINVAL, lock(w, F_GETLK, F_UNLCK, 0, 0));
    ERR(EBADF, lock(999, F_SETLK, F_WRLCK, 0, 0));
    OK(lock(w, F_SETLK, F_WRLCK, 0x7ffffffffffffffe, 1));
    // flock and fcntl locks do not know of one another
    OK(flock(r, LOCK_EX | LOCK_NB));
    EQ(EAGAIN, another("f", F_SETLK, F_WRLCK, 0, 0));
    OK(lock(w, F_SETLK, F_UNLCK, 0, 0));
    EQ(0, another("f", F_SETLK, F_WRLCK, 0, 0));
    EQ(EWOULDBLOCK, another_flock("f", LOCK_SH | LOCK_NB));
    // locks are advisory
    OK(lock(w, F_SETLK, F_WRLCK, 0, 0));
    pid_t pid;
    CHILD(pid)
    {
        int fd = (int)DO(open("f", O_RDWR));
        EQ(1, write(fd, "x", 1));
        OK(ftruncate(fd, 0));
    }
    JOIN(pid);
    OK(lockf(w, F_TLOCK, 10));
    EQ(EAGAIN, another("f", F_SETLK, F_RDLCK, 0, 1));
    OK(lockf(w, F_ULOCK, 0));
}

AREA(locks, {"flock-basic", flock_basic}, {"flock-ownership", flock_ownership},
     {"flock-waiting", flock_waiting}, {"interrupted", interrupted}, {"records", records},
     {"splitting", splitting}, {"getlk", getlk}, {"released", released},
     {"descriptions", descriptions}, {"waiting", waiting}, {"deadlock", deadlock},
     {"refusals", refusals});
