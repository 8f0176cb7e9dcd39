/* Asking metad for a lease on a file. */
#ifndef REPLFS_FUSE_CLIENT_NAMES_LEASE_H
#define REPLFS_FUSE_CLIENT_NAMES_LEASE_H
#include "client/file/cfile.h"

/* Asks for an exclusive lease on f, so that bytes may be kept back. 0 whether or not it came. Any thread but a
 * loop thread; no lock held: waits. */
int lease_ask(struct cfile *f);
#endif
