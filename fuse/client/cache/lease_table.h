/* What the files of the lease cache share (lease_cache.c, lease_cache_change.c); the mutex is held. */
#ifndef REPLFS_FUSE_CLIENT_CACHE_LEASE_TABLE_H
#define REPLFS_FUSE_CLIENT_CACHE_LEASE_TABLE_H
#include <pthread.h>
#include <stdatomic.h>
#include "client/cache/lease_cache.h"
#include "base/lock.h"

#define FENCES 16384u
#define LEASE_CACHE_WORKERS 8u
#define CONTESTED 256u
#define CONTESTED_NS (5 * NSEC_PER_SEC)
#define UNFLUSHED 1024u
#define GIVEN 16384u
#define LINKING 1024u
#define CHANGING 1024u
struct lnode {
    uint64_t ino, gen;
    struct lnode *hash_next;
    struct lnode *newer, *older; /* by last use */
    bool has_attr;
    bool exclusive;
    bool complete;    /* a directory of which every name has an entry */
    bool asked;       /* for what is in it to be ours alone, */
    uint64_t cookie;  /* up to here; 0: all of it */
    unsigned names;   /* entries under this gen that name something */
    unsigned pending; /* changes of ours that metad has not answered: attr is newer than its own */
    Replfs__Attr attr;
};
struct lentry {
    struct lentry *hash_next;
    struct lentry *newer, *older; /* by age */
    uint64_t parent, gen, ino, hash;
    uint8_t len;
    char name[];
};
struct ljob {
    struct ljob *next;
    uint64_t ino;
    unsigned what;
    bool flush;
    void (*done)(void *arg);
    void *arg;
};
/* Something that the kernel was given, and may take in a little later. */
struct lgiven {
    uint64_t ino;
    int64_t at;  /* when, the last time */
    unsigned n;  /* of listings: so many are under way, */
    bool missed; /* and a recall did not wait for one */
};
struct lease_cache {
    struct lock mu;
    size_t max_nodes, max_entries;
    struct lnode **nodes, *newest, *oldest;
    size_t nodes_mask, nnodes;
    struct lentry **entries, *young, *old;
    size_t entries_mask, nentries;
    uint64_t gen;
    uint64_t fence[FENCES];
    int64_t contested[CONTESTED]; /* when a directory that was ours alone was recalled */
    int64_t recalled[CONTESTED];  /* when any inode was, last */
    int64_t term, until;          /* ns */
    struct lease_cache_stat st;
    struct lgiven given[GIVEN];     /* attributes, by inode */
    struct lgiven linking[LINKING]; /* listings, by directory */
    unsigned changing[CHANGING];    /* changes of ours under way, by inode (lease_cache_change.h) */

    lease_cache_inval *inval;
    void *inval_arg;
    lease_cache_forget *forget;
    void *forget_arg;
    struct cond cv;
    struct ljob *head, **tail;
    struct ljob *paging; /* those that wait for pages, by next */
    /* how many exclusive nodes that were recalled, or had no room, are not flushed yet, by inode */
    atomic_uint unflushed[UNFLUSHED];
    struct lease_request *askers, *holders;
    struct cond unheld;
    pthread_t workers[LEASE_CACHE_WORKERS];
    unsigned nworkers;
    bool stop;
};
/* A change of ours of this inode is under way: others may see it done before we are told. */
bool lease_cache_changing(const struct lease_cache *l, uint64_t ino);
/* ... and it is not ours alone: what is known of it counts for nothing until then. */
bool lnode_in_doubt(const struct lease_cache *l, const struct lnode *n);
uint64_t *lfence_of(struct lease_cache *l, uint64_t ino);
struct lnode **lnode_slot(struct lease_cache *l, uint64_t ino);
struct lnode *lnode_find(struct lease_cache *l, uint64_t ino); /* and it is the newest then */
struct lnode *lnode_make(struct lease_cache *l, uint64_t ino); /* or the one there is */
bool lnode_drop(struct lease_cache *l, uint64_t ino);
/* As an answer of metad says. crossed: it is older than a recall or a change of ours. lease: as on
 * the wire. */
void lnode_put_attr(struct lease_cache *l, bool crossed, const Replfs__Attr *a, uint32_t lease);
uint64_t lname_hash(uint64_t parent, const void *name, size_t len);
struct lentry **lentry_slot(struct lease_cache *l, uint64_t parent, const void *name, size_t len,
                            uint64_t hash);
void lentry_put(struct lease_cache *l, struct lnode *dir, const void *name, size_t len,
                uint64_t ino);
void lentry_drop(struct lease_cache *l, struct lentry **slot);
bool lease_cache_in_term(const struct lease_cache *l);
void lease_request_remove(struct lease_request **list, struct lease_request *a);
/* One more for a worker to do: see struct ljob; done NULL: nobody waits. */
void ljob_add(struct lease_cache *l, uint64_t ino, unsigned what, bool flush, void (*done)(void *),
              void *arg);
/* The kernel is told to forget by a worker, unless it is told nothing any more. */
void lease_cache_tell_soon(struct lease_cache *l, uint64_t ino, unsigned what);
#endif
