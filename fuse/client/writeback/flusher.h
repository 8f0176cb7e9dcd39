/* The flusher thread: looks after dirty files a few times per flush_ms, and sends access times. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_FLUSHER_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_FLUSHER_H

struct client;
int flusher_start(struct client *c); /* 0 or a code */
void flusher_stop(struct client *c); /* accepts one that never started; no lock held */
#endif
