/* What umount(8) runs for our mounts: mount.replfs under the name umount.fuse.replfs, in /sbin.
 *
 * umount2(2) does not wait for the process that serves a mount, and the kernel passes neither sync(2)
 * nor syncfs(2) on to it: without this, umount would return while names and small files are still on
 * their way to the cluster. Not thread-safe. */
#ifndef REPLFS_FUSE_UMOUNT_H
#define REPLFS_FUSE_UMOUNT_H
#include <stdbool.h>

/* So that umount(8) finds it: for a FUSE mount it asks the kernel no further than "fuse", unless libmount's
 * table (/run/mount/utab) says which helper the mount has (uhelper in mount(8)). As root; source: as
 * mounted, NULL: not any more (umount(8) sees to that itself); dir: absolute. A failure is logged: then
 * umount does not wait. */
void umount_register(const char *source, const char *dir);

/* Whether the program was called by such a name. */
bool umount_called(const char *argv0);
/* DIR [-f] [-l] and what else umount(8) passes on. Brings what was written through the mount to stable
 * storage, then unmounts; with -f or -l unmounts only. Returns the exit code, as umount(8) wants it, after
 * a message unless it is 0. */
int umount_main(int argc, char **argv);
#endif
