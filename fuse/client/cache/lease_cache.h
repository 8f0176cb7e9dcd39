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
 * Thread-safe, own mutex, taken last. */
#ifndef REPLFS_CLIENT_LEASE_CACHE_H
#define REPLFS_CLIENT_LEASE_CACHE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "envelope.pb-c.h"

struct lease_cache;
#define LEASE_CACHE_INVAL_ATTR 1u    /* attributes that the kernel has */
#define LEASE_CACHE_INVAL_PAGES 2u   /* its pages; may block behind a read of them */
#define LEASE_CACHE_INVAL_ENTRIES 4u /* names in directories, all of them */
/* Tells the kernel to forget; may be NULL. False: it does not know the inode. */
typedef bool lease_cache_inval(void *arg, uint64_t ino, unsigned what);
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

/* ---- what the kernel is given ----
 *
 * What an answer says may be older than what is known by now, and the kernel takes it in some time after it
 * was given: so lifetimes come from here, for what is known to be so at this moment, and a recall waits
 * until the kernel has what it was given before. */

/* How long, in ns, the kernel may keep the attributes of a, which are about to be given to it; 0: not,
 * newer ones are known, or none. */
int64_t lease_cache_give_attr(struct lease_cache *l, const Replfs__Attr *a);
/* Likewise that a name in dir refers to ino (0: that there is no such name). */
int64_t lease_cache_give_name(struct lease_cache *l, uint64_t dir, const void *name, size_t len,
                              uint64_t ino);
/* The directory is leased, and the name in it known to refer to ino. */
bool lease_cache_has_name(struct lease_cache *l, uint64_t dir, const void *name, size_t len,
                          uint64_t ino);
/* A listing of dir is given to the kernel, which learns names from it: until the end (false). */
void lease_cache_linking(struct lease_cache *l, uint64_t dir, bool begin);

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
/* Likewise, and a recall waits until lease_cache_unhold, before which nothing may wait for one. False: there
 * is no lease. */
struct lease_request;
bool lease_cache_hold(struct lease_cache *l, struct lease_request *h, uint64_t begun, uint64_t ino);
/* An answer to a request from then may be older than a recall or a change of ours. */
bool lease_cache_crossed(struct lease_cache *l, uint64_t begun, uint64_t ino);
/* The directory is leased; ino 0: there is no such name. */
void lease_cache_put_entry(struct lease_cache *l, uint64_t begun, uint64_t parent, const void *name,
                           size_t len, uint64_t ino);
/* All n entries of the directory were put, from answers to requests since begun. */
void lease_cache_listed(struct lease_cache *l, uint64_t begun, uint64_t dir, size_t n);
/* After a change of ours: res NULL when it is not known whether it happened. */
void lease_cache_mutated(struct lease_cache *l, uint64_t begun, const Replfs__MetaOp *op,
                         const Replfs__MutationResult *res);

/* ---- directories that are ours alone: changed here first ---- */

struct lease_request {
    struct lease_request *next;
    uint64_t ino;
};
/* Others wanted the directory a few seconds ago: better share it. */
bool lease_cache_contested(struct lease_cache *l, uint64_t dir);
/* True: the directory is ours alone, *attr is how it is, and it has no such name; a recall of it
 * waits until lease_cache_unhold, before which nothing may wait. */
bool lease_cache_hold_new(struct lease_cache *l, struct lease_request *h, uint64_t dir,
                          const void *name, size_t len, Replfs__Attr *attr);
/* The same for a name that exists, to remove it. ino: what it names, with no other name, or an
 * empty directory. ASK: not, but it might be ours alone for the asking (lease_cache_alone), from cookie
 * on. */
enum lease_cache_hold { LEASE_CACHE_HOLD_NO, LEASE_CACHE_HOLD_YES, LEASE_CACHE_HOLD_ASK };
enum lease_cache_hold lease_cache_hold_old(struct lease_cache *l, struct lease_request *h,
                                           uint64_t dir, const void *name, size_t len, bool is_dir,
                                           Replfs__Attr *attr, uint64_t *ino, uint64_t *cookie);
/* The answer to a LeaseReq for a directory and what is in it. */
void lease_cache_alone(struct lease_cache *l, uint64_t begun, const Replfs__LeaseReply *r);
void lease_cache_unhold(struct lease_cache *l, struct lease_request *h);
/* The directory has the name now, for a. dir: how it is with it. */
void lease_cache_created(struct lease_cache *l, const ProtobufCBinaryData *name,
                         const Replfs__Attr *dir, const Replfs__Attr *a);
/* It has the name of ino no more. */
void lease_cache_removed(struct lease_cache *l, const ProtobufCBinaryData *name,
                         const Replfs__Attr *dir, uint64_t ino);
/* metad did one of these; r: its answer. */
void lease_cache_settled(struct lease_cache *l, const Replfs__MutationResult *r);
/* A directory as it is, where a is how metad last saw it; false: a stays. */
bool lease_cache_overlay(struct lease_cache *l, Replfs__Attr *a);
/* The attributes of all directories are asked for again. */
void lease_cache_doubt(struct lease_cache *l);

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
/* The kernel forgets attributes and names, all that it has under leases; they stay ours. */
void lease_cache_tell_all(struct lease_cache *l);
/* All leases are over (the session comes back or is lost). Does not block. */
void lease_cache_drop_all(struct lease_cache *l);
struct lease_cache_stat {
    uint64_t nodes, entries, hits, misses, recalls;
};
void lease_cache_stat(struct lease_cache *l, struct lease_cache_stat *out);
#endif
