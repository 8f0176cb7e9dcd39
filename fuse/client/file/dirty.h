/* Bytes buffered for writing, all files together, against the mount's limit; and the flusher's bell. */
#ifndef REPLFS_FUSE_CLIENT_FILE_DIRTY_H
#define REPLFS_FUSE_CLIENT_FILE_DIRTY_H
#include "client/file/cfile.h"

/* Waits until len more bytes fit, which are the caller's to give back then: 0. -EIO: nothing moved for the mount's
 * time-out. No lock held. */
int dirty_wait_room(struct cfile *f, size_t len);
/* Takes len bytes without waiting, beyond the limit if need be: for what has to go before others can. Takes
 * dirty.mu; a file's mu may be held. */
void dirty_force(struct client *c, uint64_t len);
/* Gives bytes back. Takes dirty.mu; a file's mu may be held. */
void dirty_give(struct client *c, uint64_t bytes);
/* The flusher seals and sends everything soon. Takes files.mu; a file's mu may be held. */
void dirty_kick(struct client *c);
#endif
