/* The lease cache and the kernel.
 *
 * What an answer says may be older than what is known by now, and the kernel takes it in some time after it
 * was given: so lifetimes come from here, for what is known to be so at this moment, and a recall waits
 * until the kernel has what it was given before. Thread-safe, the cache's own mutex. */
#ifndef REPLFS_FUSE_CLIENT_CACHE_LEASE_CACHE_GIVE_H
#define REPLFS_FUSE_CLIENT_CACHE_LEASE_CACHE_GIVE_H
#include "client/cache/lease_cache.h"

/* How long, in ns, the kernel may keep the attributes of a, which are about to be given to it; 0: not,
 * newer ones are known, or none. */
int64_t lease_cache_give_attr(struct lease_cache *l, const Replfs__Attr *a);
/* Likewise when they answer a change of it (of dir, where that makes it or gives it a name; else 0): 0 as well
 * where others use either. */
int64_t lease_cache_give_changed(struct lease_cache *l, uint64_t dir, const Replfs__Attr *a);
/* Likewise that a name in dir refers to ino (0: that there is no such name). */
int64_t lease_cache_give_name(struct lease_cache *l, uint64_t dir, const void *name, size_t len,
                              uint64_t ino);
/* The directory is leased, and the name in it known to refer to ino. */
bool lease_cache_has_name(struct lease_cache *l, uint64_t dir, const void *name, size_t len,
                          uint64_t ino);
/* A listing of dir is given to the kernel, which learns names from it: until the end (false). */
void lease_cache_linking(struct lease_cache *l, uint64_t dir, bool begin);
/* The kernel forgets attributes and names, all that it has under leases; they stay ours. */
void lease_cache_tell_all(struct lease_cache *l);

/* ---- for lease_cache.c ---- */

/* The kernel is told to forget, and whatever it was given before has arrived there. mu not held; sleeps. */
void lease_cache_tell(struct lease_cache *l, uint64_t ino, unsigned what);
void lease_cache_tell_given(struct lease_cache *l);
#endif
