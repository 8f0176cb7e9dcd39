/* fsync of everything: client_sync of client.h, and nothing else. */
#ifndef REPLFS_FUSE_CLIENT_CALLS_SYNC_ALL_H
#define REPLFS_FUSE_CLIENT_CALLS_SYNC_ALL_H
#include "client/client.h"
#endif
