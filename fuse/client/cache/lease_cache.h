/* What this client may answer by itself: attributes and names under leases of metad.
 *
 * A node stands for an inode with a lease, and its attributes when they are known. An entry says
 * what a name in a leased directory refers to (0: nothing); of a directory that we made or listed
 * wholly under this very lease all names are known. All of it counts only while the term runs, which
 * every answered request to metad renews. What is ours alone (an exclusive lease) may be changed
 * here before metad knows.
 *
 * Answers and recalls may cross: an answer is kept only when nothing was recalled or changed by us
 * for its inode since the request was sent. lease_cache_begin before sending, the number it gave with
 * the answer.
 *
 * Thread-safe, own mutex (its place in the order: base/lock_order.h). */
#ifndef REPLFS_FUSE_CLIENT_CACHE_LEASE_CACHE_H
#define REPLFS_FUSE_CLIENT_CACHE_LEASE_CACHE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "client/client.h"
#include "envelope.pb-c.h"

struct lease_cache;
/* A place in one of the cache's lists, on the caller's stack: somebody asks metad about ino, or holds it. */
struct lease_request {
    struct lease_request *next;
    uint64_t ino;
};
/* Where the bytes of the file are is not known any more. flush: the lease was exclusive, and metad
 * waits for what was kept back under it. */
typedef void lease_cache_forget(void *arg, uint64_t ino, bool flush);
struct lease_cache *lease_cache_new(size_t max_nodes, lease_cache_inval *inval, void *arg,
                                    lease_cache_forget *forget, void *forget_arg);
/* The kernel is told nothing more; what is under way is finished. Others may still call. */
void lease_cache_stop(struct lease_cache *l);
void lease_cache_free(struct lease_cache *l);
void lease_cache_set_term(struct lease_cache *l, unsigned term_ms); /* 0: metad gives no leases */
bool lease_cache_term(struct lease_cache *l);                       /* it gives some */
/* metad answered a request that was sent at `sent` (clock_boot). */
void lease_cache_renew(struct lease_cache *l, int64_t sent);
/* How long the kernel may keep attributes of ino, or entries of directory ino, in ns; 0: not. */
int64_t lease_cache_ttl(struct lease_cache *l, uint64_t ino);
bool lease_cache_getattr(struct lease_cache *l, uint64_t ino, Replfs__Attr *out);
enum lease_cache_found { LEASE_CACHE_MISS, LEASE_CACHE_NAME, LEASE_CACHE_NO_NAME };
enum lease_cache_found lease_cache_lookup(struct lease_cache *l, uint64_t parent, const void *name,
                                          size_t len, Replfs__Attr *out);
uint64_t lease_cache_begin(struct lease_cache *l);
/* lease: as on the wire, 1 shared, 2 exclusive. */
void lease_cache_put_attr(struct lease_cache *l, uint64_t begun, const Replfs__Attr *a,
                          uint32_t lease);
/* Nobody else can see the inode or change it, for now. */
bool lease_cache_exclusive(struct lease_cache *l, uint64_t ino);
/* An exclusive lease that is claimed on resume; then, whether metad agreed. */
void lease_cache_regain(struct lease_cache *l, uint64_t ino, bool ours);
/* The lease on ino is the same as at lease_cache_begin: nobody else has changed it since. True with a
 * metad that gives no leases. */
bool lease_cache_held_since(struct lease_cache *l, uint64_t begun, uint64_t ino);
/* The directory is leased; ino 0: there is no such name. */
void lease_cache_put_entry(struct lease_cache *l, uint64_t begun, uint64_t parent, const void *name,
                           size_t len, uint64_t ino);

/* ---- giving back ---- */

/* metad recalls a lease: forgotten at once; done(arg) when the kernel has forgotten, too, on
 * another thread or this one. */
void lease_cache_recall(struct lease_cache *l, uint64_t ino, void (*done)(void *arg), void *arg);
/* What was believed of the inode is wrong: as if it had been recalled. */
void lease_cache_forget_now(struct lease_cache *l, uint64_t ino);
/* Around asking metad to change ino: recalls of it do not wait for pages meanwhile, since a write
 * that waits for the change may hold them. */
void lease_cache_ask_begin(struct lease_cache *l, struct lease_request *a, uint64_t ino);
void lease_cache_ask_end(struct lease_cache *l, struct lease_request *a);
/* Acknowledges recalls of ino that only wait for pages. */
void lease_cache_yield(struct lease_cache *l, uint64_t ino);
/* All leases are over (the session comes back or is lost). Does not block. */
void lease_cache_drop_all(struct lease_cache *l);
struct lease_cache_stat {
    uint64_t nodes, entries, hits, misses, recalls;
};
void lease_cache_stat(struct lease_cache *l, struct lease_cache_stat *out);
#endif
