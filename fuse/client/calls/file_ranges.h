/* Clones, fallocate, holes: cfile_clone, cfile_fallocate and cfile_seek of client.h, and nothing else. */
#ifndef REPLFS_FUSE_CLIENT_CALLS_FILE_RANGES_H
#define REPLFS_FUSE_CLIENT_CALLS_FILE_RANGES_H
#include "client/client.h"
#endif
