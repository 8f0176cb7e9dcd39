/* write(2): cfile_write of client.h, and nothing else. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_WRITE_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_WRITE_H
#include "client/client.h"
#endif
