/*
 * utimes: setting times: values, OMIT and NOW, symlinks, what is refused. Who may is in perms.
 */
#include "tests/conform/conform.h"

#include <sys/time.h>
#include <utime.h>

static int set(const char *path, time_t a, long an, time_t m, long mn)
{
    struct timespec t[2] = {{a, an}, {m, mn}};
    return utimensat(AT_FDCWD, path, t, AT_SYMLINK_NOFOLLOW);
}

static void values(void)
{
    // ext4 with 256 byte inodes holds 1901-12-13 to 2446-05-10
    static const struct {
        const char *name;
        time_t sec;
        long nsec;
    } t[] = {
        {"zero", 0, 0},
        {"one nanosecond", 0, 1},
        {"last nanosecond", 1000000000, 999999999},
        {"before 1970", -1, 0},
        {"before 1970 with nanoseconds", -1, 999999999},
        {"1960", -315619200, 123456789},
        {"1901", -2147483647LL, 0},
        {"2038 less one", 2147483647, 1},
        {"2038", 2147483648LL, 0},
        {"2039", 2177452800LL, 987654321},
        {"2106", 4294967296LL, 5},
        {"2200", 7258118400LL, 1},
        {"2400", 13569465600LL, 42},
        {"2446", 15032385535LL, 0},
    };
    for (int k = K_FILE; k < K_KINDS; k++) {
        if (k != K_FILE && k != K_DIR && k != K_LINK && k != K_FIFO)
            continue;
        conform_make((enum conform_kind)k, "x");
        for (size_t i = 0; i < COUNT(t); i++) {
            NOTE("%s, %s", conform_kinds[k], t[i].name);
            OK(set("x", t[i].sec, t[i].nsec, t[i].sec - 5 < -2147483648LL ? t[i].sec : t[i].sec - 5,
                   7));
            struct stat st = st_of("x");
            EQ(t[i].sec, st.st_atim.tv_sec);
            EQ(t[i].nsec, st.st_atim.tv_nsec);
            EQ(t[i].sec - 5 < -2147483648LL ? t[i].sec : t[i].sec - 5, st.st_mtim.tv_sec);
            EQ(7, st.st_mtim.tv_nsec);
        }
        conform_remove("x");
    }
}

static void omit_and_now(void)
{
    static const struct {
        const char *name;
        long a, m;
        const char *changes;
    } t[] = {
        {"both now", UTIME_NOW, UTIME_NOW, "f=amc"},
        {"atime now", UTIME_NOW, UTIME_OMIT, "f=ac"},
        {"mtime now", UTIME_OMIT, UTIME_NOW, "f=mc"},
        {"both omitted", UTIME_OMIT, UTIME_OMIT, "f="},
        {"atime set", 5, UTIME_OMIT, "f=ac"},
        {"mtime set", UTIME_OMIT, 5, "f=mc"},
        {"both set", 5, 5, "f=amc"},
        {"atime set, mtime now", 6, UTIME_NOW, "f=amc"},
        {"atime now, mtime set", UTIME_NOW, 6, "f=amc"},
    };
    put("f", "");
    for (size_t i = 0; i < COUNT(t); i++) {
        struct timespec now, ts[2] = {{1000 + (long)i, t[i].a}, {2000 + (long)i, t[i].m}};
        struct stat before = st_of("f");
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
        NOTE("%s", t[i].name);
        EFFECT(t[i].changes, utimensat(AT_FDCWD, "f", ts, 0));
        struct stat st = st_of("f");
        if (t[i].a == UTIME_NOW)
            YES(conform_time_cmp(st.st_atim, now) >= 0);
        else if (t[i].a == UTIME_OMIT)
            EQ(0, conform_time_cmp(st.st_atim, before.st_atim));
        else
            EQ(1000 + (long)i, st.st_atim.tv_sec);
        if (t[i].m == UTIME_NOW)
            YES(conform_time_cmp(st.st_mtim, now) >= 0);
        else if (t[i].m == UTIME_OMIT)
            EQ(0, conform_time_cmp(st.st_mtim, before.st_mtim));
        else
            EQ(2000 + (long)i, st.st_mtim.tv_sec);
    }
    NOTE_END();
    EFFECT("f=amc .=", utimensat(AT_FDCWD, "f", NULL, 0));
    struct stat st = st_of("f");
    EQ(0, conform_time_cmp(st.st_atim, st.st_mtim));
}

static void other_calls(void)
{
    put("f", "");
    struct utimbuf u = {100, 200};
    EFFECT("f=amc .=", utime("f", &u));
    EQ(100, st_of("f").st_atim.tv_sec);
    EQ(200, st_of("f").st_mtim.tv_sec);
    EFFECT("f=amc .=", utime("f", NULL));
    struct timeval v[2] = {{300, 999999}, {400, 1}};
    EFFECT("f=amc", utimes("f", v));
    EQ(999999000, st_of("f").st_atim.tv_nsec);
    EQ(1000, st_of("f").st_mtim.tv_nsec);
    int fd = (int)DO(open("f", O_RDONLY));
    struct timespec t[2] = {{500, 1}, {600, 2}};
    EFFECT("f=amc", futimens(fd, t)); // needs no permission to write
    EQ(600, st_fd(fd).st_mtim.tv_sec);
    DO(symlink("f", "s"));
    conform_tick();
    struct stat f = st_of("f");
    OK(set("s", 700, 7, 800, 8));
    EQ(800, st_of("s").st_mtim.tv_sec);
    EQ(7, st_of("s").st_atim.tv_nsec);
    EQ(0, conform_time_cmp(f.st_mtim, st_of("f").st_mtim));
    OK(utimensat(AT_FDCWD, "s", t, 0));
    EQ(600, st_of("f").st_mtim.tv_sec);
    EQ(800, st_of("s").st_mtim.tv_sec);
    DO(unlink("f"));
    t[1].tv_sec = 900;
    OK(futimens(fd, t)); // also when unlinked
    EQ(900, st_fd(fd).st_mtim.tv_sec);
    ERR(ENOENT, utimensat(AT_FDCWD, "s", t, 0));
}

static void refusals(void)
{
    put("f", "");
    struct timespec t[2] = {{1, 1000000000}, {1, 0}};
    REFUSED("f", EINVAL, utimensat(AT_FDCWD, "f", t, 0));
    t[0].tv_nsec = -1;
    REFUSED("f", EINVAL, utimensat(AT_FDCWD, "f", t, 0));
    t[0].tv_nsec = 0, t[1].tv_nsec = 0x3ffffffd;
    REFUSED("f", EINVAL, utimensat(AT_FDCWD, "f", t, 0));
    t[1].tv_nsec = 0;
    ERR(EINVAL, utimensat(AT_FDCWD, "f", t, 0x800000));
    ERR(ENOENT, utimensat(AT_FDCWD, "none", t, 0));
    struct timespec omit[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    // OMIT twice does nothing, and does not look at the path's permissions
    OK(utimensat(AT_FDCWD, "f", omit, 0));
    ERR(EBADF, futimens(999, t));
    int p = (int)DO(open("f", O_PATH));
    ERR(EBADF, futimens(p, t));
    OK(utimensat(p, "", t, AT_EMPTY_PATH));
    EQ(1, st_of("f").st_mtim.tv_sec);
}

static void kept(void)
{
    // set times stay through what should not change them
    put("f", "text");
    DO(set("f", 1234567890, 111111111, 1234567891, 222222222));
    DO(rename("f", "g"));
    DO(link("g", "h"));
    DO(chmod("g", 0600));
    DO(chown("g", 1, 1));
    DO(unlink("h"));
    int fd = (int)DO(open("g", O_RDWR));
    DO(fsync(fd));
    DO(close(fd));
    struct stat st = st_of("g");
    EQ(1234567890, st.st_atim.tv_sec);
    EQ(111111111, st.st_atim.tv_nsec);
    EQ(1234567891, st.st_mtim.tv_sec);
    EQ(222222222, st.st_mtim.tv_nsec);
    DO(mkdir("d", 0755));
    DO(set("d", 1, 2, 3, 4));
    DO(chmod("d", 0700));
    DO(rename("d", "e"));
    EQ(3, st_of("e").st_mtim.tv_sec);
    EQ(2, st_of("e").st_atim.tv_nsec);
    put("e/new", "");
    YES(st_of("e").st_mtim.tv_sec > 1000000000);
}

AREA(utimes, {"values", values}, {"omit-and-now", omit_and_now}, {"other-calls", other_calls},
     {"refusals", refusals}, {"kept", kept});
