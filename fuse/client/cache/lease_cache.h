/* What this client may answer by itself: attributes and names under leases of metad.
 *
 * A node stands for an inode with a lease, and its attributes when they are known. An entry says
 * what a name in a leased directory refers to (0: nothing); of a directory that we made or listed
 * wholly under this very lease all names are known. All of it counts only while the term runs, which
 * every answered request to metad renews. What is ours alone (an exclusive lease) may be changed
 * here before metad knows.
 *
 * Answers and recalls may cross: an answer is kept only when nothing was recalled or changed by us
 * for its inode since the request was sent. lcache_begin before sending, the number it gave with
 * the answer.
 *
 * Thread-safe, own mutex, taken last. */
#ifndef REPLFS_CLIENT_LCACHE_H
#define REPLFS_CLIENT_LCACHE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "envelope.pb-c.h"

struct lcache;
#define LCACHE_INVAL_ATTR 1u    /* attributes that the kernel has */
#define LCACHE_INVAL_PAGES 2u   /* its pages; may block behind a read of them */
#define LCACHE_INVAL_ENTRIES 4u /* names in directories, all of them */
/* Tells the kernel to forget; may be NULL. False: it does not know the inode. */
typedef bool lcache_inval(void *arg, uint64_t ino, unsigned what);
/* Where the bytes of the file are is not known any more. flush: the lease was exclusive, and metad
 * waits for what was kept back under it. */
typedef void lcache_forget(void *arg, uint64_t ino, bool flush);

struct lcache *lcache_new(size_t max_nodes, lcache_inval *inval, void *arg, lcache_forget *forget,
                          void *forget_arg);
/* The kernel is told nothing more; what is under way is finished. Others may still call. */
void lcache_stop(struct lcache *l);
void lcache_free(struct lcache *l);
void lcache_set_term(struct lcache *l, unsigned term_ms); /* 0: metad gives no leases */
bool lcache_term(struct lcache *l);                       /* it gives some */
/* metad answered a request that was sent at `sent` (clock_boot). */
void lcache_renew(struct lcache *l, int64_t sent);
/* How long the kernel may keep attributes of ino, or entries of directory ino, in ns; 0: not. */
int64_t lcache_ttl(struct lcache *l, uint64_t ino);

bool lcache_getattr(struct lcache *l, uint64_t ino, Replfs__Attr *out);
enum lcache_found { LCACHE_MISS, LCACHE_NAME, LCACHE_NO_NAME };
enum lcache_found lcache_lookup(struct lcache *l, uint64_t parent, const void *name, size_t len,
                                Replfs__Attr *out);

/* ---- what the kernel is given ----
 *
 * What an answer says may be older than what is known by now, and the kernel takes it in some time after it
 * was given: so lifetimes come from here, for what is known to be so at this moment, and a recall waits
 * until the kernel has what it was given before. */

/* How long, in ns, the kernel may keep the attributes of a, which are about to be given to it; 0: not,
 * newer ones are known, or none. */
int64_t lcache_give_attr(struct lcache *l, const Replfs__Attr *a);
/* Likewise that a name in dir refers to ino (0: that there is no such name). */
int64_t lcache_give_name(struct lcache *l, uint64_t dir, const void *name, size_t len,
                         uint64_t ino);
/* The directory is leased, and the name in it known to refer to ino. */
bool lcache_has_name(struct lcache *l, uint64_t dir, const void *name, size_t len, uint64_t ino);
/* A listing of dir is given to the kernel, which learns names from it: until the end (false). */
void lcache_linking(struct lcache *l, uint64_t dir, bool begin);

uint64_t lcache_begin(struct lcache *l);
/* lease: as on the wire, 1 shared, 2 exclusive. */
void lcache_put_attr(struct lcache *l, uint64_t begun, const Replfs__Attr *a, uint32_t lease);
/* Nobody else can see the inode or change it, for now. */
bool lcache_exclusive(struct lcache *l, uint64_t ino);
/* An exclusive lease that is claimed on resume; then, whether metad agreed. */
void lcache_regain(struct lcache *l, uint64_t ino, bool ours);
/* The lease on ino is the same as at lcache_begin: nobody else has changed it since. True with a
 * metad that gives no leases. */
bool lcache_held_since(struct lcache *l, uint64_t begun, uint64_t ino);
/* Likewise, and a recall waits until lcache_unhold, before which nothing may wait for one. False: there
 * is no lease. */
struct lasker;
bool lcache_hold(struct lcache *l, struct lasker *h, uint64_t begun, uint64_t ino);
/* An answer to a request from then may be older than a recall or a change of ours. */
bool lcache_crossed(struct lcache *l, uint64_t begun, uint64_t ino);
/* The directory is leased; ino 0: there is no such name. */
void lcache_put_entry(struct lcache *l, uint64_t begun, uint64_t parent, const void *name,
                      size_t len, uint64_t ino);
/* All n entries of the directory were put, from answers to requests since begun. */
void lcache_listed(struct lcache *l, uint64_t begun, uint64_t dir, size_t n);
/* After a change of ours: res NULL when it is not known whether it happened. */
void lcache_mutated(struct lcache *l, uint64_t begun, const Replfs__MetaOp *op,
                    const Replfs__MutationResult *res);

/* ---- directories that are ours alone: changed here first ---- */

struct lasker {
    struct lasker *next;
    uint64_t ino;
};
/* Others wanted the directory a few seconds ago: better share it. */
bool lcache_contested(struct lcache *l, uint64_t dir);
/* True: the directory is ours alone, *attr is how it is, and it has no such name; a recall of it
 * waits until lcache_unhold, before which nothing may wait. */
bool lcache_hold_new(struct lcache *l, struct lasker *h, uint64_t dir, const void *name, size_t len,
                     Replfs__Attr *attr);
/* The same for a name that exists, to remove it. ino: what it names, with no other name, or an
 * empty directory. ASK: not, but it might be ours alone for the asking (lcache_alone), from cookie
 * on. */
enum lcache_hold { LCACHE_HOLD_NO, LCACHE_HOLD_YES, LCACHE_HOLD_ASK };
enum lcache_hold lcache_hold_old(struct lcache *l, struct lasker *h, uint64_t dir, const void *name,
                                 size_t len, bool is_dir, Replfs__Attr *attr, uint64_t *ino,
                                 uint64_t *cookie);
/* The answer to a LeaseReq for a directory and what is in it. */
void lcache_alone(struct lcache *l, uint64_t begun, const Replfs__LeaseReply *r);
void lcache_unhold(struct lcache *l, struct lasker *h);
/* The directory has the name now, for a. dir: how it is with it. */
void lcache_created(struct lcache *l, const ProtobufCBinaryData *name, const Replfs__Attr *dir,
                    const Replfs__Attr *a);
/* It has the name of ino no more. */
void lcache_removed(struct lcache *l, const ProtobufCBinaryData *name, const Replfs__Attr *dir,
                    uint64_t ino);
/* metad did one of these; r: its answer. */
void lcache_settled(struct lcache *l, const Replfs__MutationResult *r);
/* A directory as it is, where a is how metad last saw it; false: a stays. */
bool lcache_overlay(struct lcache *l, Replfs__Attr *a);
/* The attributes of all directories are asked for again. */
void lcache_doubt(struct lcache *l);

/* ---- giving back ---- */

/* metad recalls a lease: forgotten at once; done(arg) when the kernel has forgotten, too, on
 * another thread or this one. */
void lcache_recall(struct lcache *l, uint64_t ino, void (*done)(void *arg), void *arg);
/* What was believed of the inode is wrong: as if it had been recalled. */
void lcache_forget_now(struct lcache *l, uint64_t ino);
/* Around asking metad to change ino: recalls of it do not wait for pages meanwhile, since a write
 * that waits for the change may hold them. */
void lcache_ask_begin(struct lcache *l, struct lasker *a, uint64_t ino);
void lcache_ask_end(struct lcache *l, struct lasker *a);
/* Acknowledges recalls of ino that only wait for pages. */
void lcache_yield(struct lcache *l, uint64_t ino);
/* The kernel forgets attributes and names, all that it has under leases; they stay ours. */
void lcache_tell_all(struct lcache *l);
/* All leases are over (the session comes back or is lost). Does not block. */
void lcache_drop_all(struct lcache *l);
struct lcache_stat {
    uint64_t nodes, entries, hits, misses, recalls;
};
void lcache_stat(struct lcache *l, struct lcache_stat *out);
#endif
