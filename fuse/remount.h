/* mount -o remount,...: mount(8) runs mount.fuse.replfs for it. */
#ifndef REPLFS_FUSE_REMOUNT_H
#define REPLFS_FUSE_REMOUNT_H
#include "options.h"

/* Changes the flags of the kernel's mount at o->mountpoint to what o->kernel says (ro, nosuid, ...); the others
 * stay. Says on standard error what went wrong. An exit code, as mount(8) wants it. */
int remount_run(const struct options *o);
#endif
