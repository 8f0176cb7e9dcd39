/* See umount.h. The wait ends with the time-outs of the mount, since that answers the ioctl; what is
 * written behind our back between the answer and umount2 is flushed by the mount's process as it ends. */
#include "umount.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libmount/libmount.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "ctl_ioctl.h"

#define LOG_MODULE "mount"

#define HELPER "fuse.replfs"
#define SOON_MS 3000
#define AGAIN_MS 30000
enum { EXIT_USAGE = 1, EXIT_UMOUNT = 32 };

bool umount_called(const char *argv0)
{
    const char *name = argv0 ? strrchr(argv0, '/') : NULL;
    name = name ? name + 1 : argv0;
    return name && !strncmp(name, "umount.", strlen("umount."));
}

void umount_register(const char *source, const char *dir)
{
    struct libmnt_update *u = mnt_new_update();
    struct libmnt_fs *fs = source ? mnt_new_fs() : NULL;
    int rc = u && (fs || !source) ? 0 : -ENOMEM;
    if (!rc && fs) {
        rc = mnt_fs_set_source(fs, source);
        rc = rc ? rc : mnt_fs_set_target(fs, dir);
        rc = rc ? rc : mnt_fs_set_fstype(fs, HELPER);
        rc = rc ? rc : mnt_fs_set_options(fs, "uhelper=" HELPER);
    }
    rc = rc ? rc : mnt_update_set_fs(u, 0, fs ? NULL : dir, fs);
    rc = rc ? rc : mnt_update_table(u, NULL);
    if (rc && fs)
        log_info("%s: umount will not wait: libmount says %d", dir, rc);
    mnt_unref_fs(fs);
    mnt_free_update(u);
}

static int umount_fail(const char *dir, const char *why, const char *hint)
{
    fprintf(stderr, "umount.replfs: %s: %s%s\n", dir, why, hint);
    return EXIT_UMOUNT;
}

/* ---- what was written ---- */

struct watch {
    const char *dir;
    int end; /* of a pipe; readable when nobody waits any more */
};

static void *say_when_it_takes_long(void *arg)
{
    const struct watch *w = arg;
    struct pollfd p = {.fd = w->end, .events = POLLIN};
    unsigned s = 0;
    for (int ms = SOON_MS; poll(&p, 1, ms) == 0; ms = AGAIN_MS) {
        s += (unsigned)ms / 1000;
        fprintf(
            stderr,
            "umount.replfs: %s: what was written is being brought to the cluster, %u s so far\n",
            w->dir, s);
    }
    return NULL;
}

/* 0 or a negative code (base/error.h). */
static int sync_open(int fd)
{
    static struct ctl_msg m = {.version = CTL_VERSION};
    if (syncfs(fd)) /* pages that programs have mapped */
        return -errno;
    return ioctl(fd, CTL_SYNC, &m) ? -errno : -m.code;
}

static int sync_mount(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_NONBLOCK | O_CLOEXEC), ends[2] = {-1, -1};
    if (fd < 0)
        return -errno;
    pthread_t t;
    struct watch w = {.dir = dir};
    bool watched = !pipe2(ends, O_CLOEXEC);
    w.end = ends[0];
    watched = watched && !thread_start(&t, "watch", say_when_it_takes_long, &w);
    int rc = sync_open(fd);
    close(fd);
    close(ends[1]); /* which makes the other readable */
    if (watched)
        pthread_join(t, NULL);
    close(ends[0]);
    return rc;
}

/* 0: may be unmounted. */
static int bring_home(const char *dir)
{
    int rc = sync_mount(dir);
    switch (rc) {
    case 0:
    case -ENOTCONN: /* a dead mount */
    case -ENOTTY:   /* a mount.replfs that does not know this yet */
        return 0;
    case -EACCES: /* another user's, without allow_other */
        umount_fail(dir, err_str(rc), ": what was written follows in the background");
        return 0;
    case -ENOENT:
    case -ENOTDIR:
        return umount_fail(dir, err_str(rc), "");
    default:
        return umount_fail(
            dir, err_str(rc),
            ": not all that was written is with the cluster, so it stays mounted; umount -f gives "
            "that up");
    }
}

/* ---- the command ---- */

static const char usage[] =
    "usage: umount DIR [-f] [-l]\n"
    "\n"
    "umount(8) runs this for replfs (umount.fuse.replfs). What was written is brought to\n"
    "stable storage first.\n"
    "  -f  without that, even when the mount does not answer\n"
    "  -l  at once; the mount ends when nothing of it is in use any more\n"
    "-n, -r, -v, -N and -t are accepted and have no effect. See mount.replfs(8).\n";

static int unmount(const char *dir, int flags)
{
    if (!umount2(dir, flags))
        return 0;
    switch (errno) {
    case EBUSY:
        return umount_fail(dir, "target is busy", ": fuser -vm names the programs that use it");
    case EINVAL:
        return umount_fail(dir, "not mounted", "");
    case EPERM:
        return umount_fail(dir, strerror(errno),
                           ": only root may; what a user mounted, fusermount3 -u unmounts");
    default:
        return umount_fail(dir, strerror(errno), "");
    }
}

int umount_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};
    int flags = 0;
    for (int o; (o = getopt_long(argc, argv, "flnrvsN:t:", options, NULL)) != -1;) {
        switch (o) {
        case 'h':
            fputs(usage, stdout);
            return 0;
        case 'V':
            printf("umount.replfs %s\n", REPLFS_VERSION);
            return 0;
        case 'f':
            flags |= MNT_FORCE;
            break;
        case 'l':
            flags |= MNT_DETACH;
            break;
        case '?':
            return EXIT_USAGE;
        default:
            break;
        }
    }
    if (argc - optind != 1) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    const char *dir = argv[optind];
    int rc = flags ? 0 : bring_home(dir);
    return rc ? rc : unmount(dir, flags);
}
