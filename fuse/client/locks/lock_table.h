/* File locks that this client holds. All of these: locks.mu held; nothing waits. */
#ifndef REPLFS_FUSE_CLIENT_LOCKS_LOCK_TABLE_H
#define REPLFS_FUSE_CLIENT_LOCKS_LOCK_TABLE_H
#include <stdatomic.h>
#include "base/lockset.h"
#include "base/u64map.h"
#include "client/client.h"
#include "base/lock.h"

#define LOCK_SEQS 64u
struct lock_hold { /* what one owner has of one inode */
    uint64_t owner;
    bool flock;
    uint32_t pid;
    struct lockset set;
    struct lock_by {
        uint64_t handle; /* through which it was set */
        bool closing;    /* a descriptor of it was closed since: see client_lock_turn */
    } * by;
    size_t nby;
    struct lock_hold *next;
};
struct lock_file {
    uint64_t ino;
    struct lock_hold *holds;
};
struct lock_request;
struct client_locks {
    struct lock mu;      /* a leaf, but session.mu is taken inside it */
    struct u64map files; /* ino -> struct lock_file */
    struct u64map ids;   /* id -> struct lock_request */
    struct lock_request *reqs;
    uint64_t next_id, gen;
    uint64_t seq[LOCK_SEQS];       /* unlocks begun, by inode */
    unsigned unlocking[LOCK_SEQS]; /* and not yet done */
    struct cond unlocked;
    bool ticking, stopping;
    atomic_size_t nholds;
};

/* What an owner has of ino, or NULL. */
struct lock_hold *lock_hold_get(struct client_locks *k, uint64_t ino, uint64_t owner, bool flock);
/* Forgets *slot of f, and f with its last one. */
void lock_hold_free(struct client_locks *k, struct lock_file *f, struct lock_hold **slot);
/* Everything of every inode is forgotten. */
void lock_hold_free_all(struct client_locks *k);
/* The lock was granted. */
void lock_hold_set(struct client_locks *k, const struct client_lock *l);
/* It is not held any more; false: nothing of it was. */
bool lock_hold_clear(struct client_locks *k, const struct client_lock *l);
/* What h says of an open file, or NULL. */
struct lock_by *lock_by_handle(const struct lock_hold *h, uint64_t handle);
/* Somebody else on this mount has flocked the file: perhaps one whose RELEASE is on its way. */
bool lock_flocked_here(struct client_locks *k, const struct client_lock *l);
/* Where in seq and unlocking an inode counts. No lock. */
size_t lock_seq_of(uint64_t ino);
/* The message for l. No lock. */
void lock_fill(Replfs__Lock *m, const struct client_lock *l);
#endif
