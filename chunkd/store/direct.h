/* Reading past the page cache: what the disk has, not what the memory remembers of it, and nobody's cached pages make
 * room for it. Any thread. */
#ifndef REPLFS_CHUNKD_STORE_DIRECT_H
#define REPLFS_CHUNKD_STORE_DIRECT_H
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Fills iov[0 .. n) with the file's bytes from pos on, wherever and however long. fd: open for reading, by whatever
 * flags. 0, -errno of the read, -ERR_CORRUPT when the file ends before. Where the file system cannot do it (-EINVAL of
 * open(2) or read(2)), the bytes come through the page cache, and what they took of it is given back. */
int direct_read(int fd, const struct iovec *iov, int n, uint64_t pos);
#endif
