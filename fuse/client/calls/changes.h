/* Changes of one inode: client_mutate, client_setattr_deferred and cfile_truncate of client.h, and nothing
 * else. */
#ifndef REPLFS_CLIENT_CHANGES_H
#define REPLFS_CLIENT_CHANGES_H
#include "client/client.h"
#endif
