/* Unlocking, and whose turn it is at an open file: client_unlock, client_locks_closing, client_lock_turn and the like
 * of client.h, and nothing else. */
#ifndef REPLFS_FUSE_CLIENT_LOCKS_UNLOCK_H
#define REPLFS_FUSE_CLIENT_LOCKS_UNLOCK_H
#include "client/client.h"
#endif
