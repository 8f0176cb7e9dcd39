/* Changing a mount that is there: only what the kernel itself does, which is to refuse writes, programs, devices
 * and setuid bits. What mount.replfs was started with stays: its process is not told. */
#include "remount.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

enum { EXIT_MOUNT = 32 };

static const struct flag {
    const char *on, *off;
    unsigned long ms, st; /* as mount(2) and statvfs(3) have it */
} flags[] = {
    {"ro", "rw", MS_RDONLY, ST_RDONLY},       {"nosuid", "suid", MS_NOSUID, ST_NOSUID},
    {"nodev", "dev", MS_NODEV, ST_NODEV},     {"noexec", "exec", MS_NOEXEC, ST_NOEXEC},
    {"noatime", "", MS_NOATIME, ST_NOATIME}, /* the rest is mount.replfs' own, and stays */
    {"", "", MS_NODIRATIME, ST_NODIRATIME},   {"", "", MS_RELATIME, ST_RELATIME},
    {"", "", MS_SYNCHRONOUS, ST_SYNCHRONOUS},
};

static int remount_fail(const char *dir, const char *why)
{
    fprintf(stderr, "mount.replfs: %s: not remounted: %s\n", dir, why);
    return EXIT_MOUNT;
}

static unsigned long remount_changed(const char *options, unsigned long ms)
{
    for (const char *p = options; *p; p += *p == ',') {
        size_t n = strcspn(p, ",");
        for (size_t i = 0; n && i < sizeof(flags) / sizeof(*flags); i++) {
            if (strlen(flags[i].on) == n && !memcmp(flags[i].on, p, n))
                ms |= flags[i].ms;
            if (strlen(flags[i].off) == n && !memcmp(flags[i].off, p, n))
                ms &= ~flags[i].ms;
        }
        p += n;
    }
    return ms;
}

int remount_run(const struct options *o)
{
    struct statvfs v;
    unsigned long ms = 0;
    if (statvfs(o->mountpoint, &v))
        return remount_fail(o->mountpoint, strerror(errno));
    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
        ms |= v.f_flag & flags[i].st ? flags[i].ms : 0;
    if (!mount(NULL, o->mountpoint, NULL, remount_changed(o->kernel, ms) | MS_REMOUNT, NULL))
        return 0;
    switch (errno) {
    case EBUSY:
        return remount_fail(o->mountpoint,
                            "files are open for writing: fuser -vm names their programs");
    case EINVAL:
        return remount_fail(o->mountpoint,
                            "nothing is mounted there, or the kernel does not change it; umount "
                            "and mount again");
    default:
        return remount_fail(o->mountpoint, strerror(errno));
    }
}
