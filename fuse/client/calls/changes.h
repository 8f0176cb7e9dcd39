/* Changes of one inode: client_mutate, client_setattr_deferred and cfile_truncate of client.h, and nothing
 * else. */
#ifndef REPLFS_FUSE_CLIENT_CALLS_CHANGES_H
#define REPLFS_FUSE_CLIENT_CALLS_CHANGES_H
#include "client/client.h"
#endif
