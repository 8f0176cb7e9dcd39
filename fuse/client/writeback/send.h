/* Append buffers on their way to the chunkds. f->mu held by all of these. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_SEND_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_SEND_H
#include "client/file/cfile.h"

/* Sends what is queued, as far as it may just now; mu is dropped while sending. Does not wait. */
void send_pump(struct cfile *f);
/* Gives up everything not acknowledged: the error is remembered, and `why` goes to the log. */
void send_give_up(struct cfile *f, int code, const char *why);
/* Gives up when nothing went forward for the mount's time-out. */
void send_check_stall(struct cfile *f);
/* An append takes long: its chain is probed, and left when one of it does not answer. mu is dropped while probing. */
void send_check_slow(struct cfile *f);
#endif
