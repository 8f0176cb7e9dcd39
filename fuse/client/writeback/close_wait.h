/* Closes that wait for acknowledgements without a thread: cfile_flush_async of client.h. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_CLOSE_WAIT_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_CLOSE_WAIT_H
#include "client/file/cfile.h"

/* An answer came: closes that need not wait any more are answered. No lock held; any thread, does not wait. */
void close_wait_go_on(struct cfile *f);
#endif
