/* Small files, read before they are opened. prefetch.mu is a leaf, taken inside a file's. */
#ifndef REPLFS_FUSE_CLIENT_PREFETCH_PREFETCH_H
#define REPLFS_FUSE_CLIENT_PREFETCH_PREFETCH_H
#include "client/file/cfile.h"

int prefetch_start(struct client *c); /* 0 or a code */
void prefetch_stop(struct client *c); /* accepts one that never started; no lock held */
/* A page of a directory's listing, with leases on what it names; from_start: the first. Does not wait. */
void prefetch_listed(struct client *c, uint64_t dir, const Replfs__ReaddirReply *r,
                     bool from_start);
/* The directory of that listing is asked for, or will be before most others. Does not wait. */
void prefetch_soon(struct client *c, uint64_t dir);
/* ino is about to be opened: until it is not being fetched any more, for a short while at most. No lock held. */
void prefetch_wait(struct client *c, uint64_t ino);
/* f is being opened: takes what there is of it. f->mu held, f->attr under a lease. */
void prefetch_open(struct cfile *f);
#endif
