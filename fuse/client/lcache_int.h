/* What the files of the lease cache share (lcache.c, lcache_change.c); the mutex is held. */
#ifndef REPLFS_CLIENT_LCACHE_INT_H
#define REPLFS_CLIENT_LCACHE_INT_H
#include <pthread.h>
#include <stdatomic.h>
#include "lcache.h"

#define FENCES 16384u
#define LCACHE_WORKERS 8u
#define CONTESTED 256u
#define UNFLUSHED 1024u
#define GIVEN 16384u
#define LINKING 1024u

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
struct lcache {
    pthread_mutex_t mu;
    size_t max_nodes, max_entries;
    struct lnode **nodes, *newest, *oldest;
    size_t nodes_mask, nnodes;
    struct lentry **entries, *young, *old;
    size_t entries_mask, nentries;
    uint64_t gen;
    uint64_t fence[FENCES];
    int64_t contested[CONTESTED]; /* when a directory that was ours alone was recalled */
    int64_t term, until;          /* ns */
    struct lcache_stat st;
    struct lgiven given[GIVEN];     /* attributes, by inode */
    struct lgiven linking[LINKING]; /* listings, by directory */

    lcache_inval *inval;
    void *inval_arg;
    lcache_forget *forget;
    void *forget_arg;
    pthread_cond_t cv;
    struct ljob *head, **tail;
    struct ljob *paging; /* those that wait for pages, by next */
    /* how many exclusive nodes that were recalled, or had no room, are not flushed yet, by inode */
    atomic_uint unflushed[UNFLUSHED];
    struct lasker *askers, *holders;
    pthread_cond_t unheld;
    pthread_t workers[LCACHE_WORKERS];
    unsigned nworkers;
    bool stop;
};

uint64_t *lfence_of(struct lcache *l, uint64_t ino);
struct lnode **lnode_slot(struct lcache *l, uint64_t ino);
struct lnode *lnode_find(struct lcache *l, uint64_t ino); /* and it is the newest then */
struct lnode *lnode_make(struct lcache *l, uint64_t ino); /* or the one there is */
bool lnode_drop(struct lcache *l, uint64_t ino);
/* As an answer of metad says. crossed: it is older than a recall or a change of ours. lease: as on
 * the wire. */
void lnode_put_attr(struct lcache *l, bool crossed, const Replfs__Attr *a, uint32_t lease);
uint64_t lname_hash(uint64_t parent, const void *name, size_t len);
struct lentry **lentry_slot(struct lcache *l, uint64_t parent, const void *name, size_t len,
                            uint64_t hash);
void lentry_put(struct lcache *l, struct lnode *dir, const void *name, size_t len, uint64_t ino);
void lentry_drop(struct lcache *l, struct lentry **slot);
bool lcache_in_term(const struct lcache *l);
/* The kernel is told to forget, and whatever it was given before has arrived there. mu not held. */
void lcache_tell(struct lcache *l, uint64_t ino, unsigned what);
/* mu held: */
void lcache_tell_later(struct lcache *l, uint64_t ino, unsigned what); /* by a worker */
void lcache_tell_given(
    struct lcache *l); /* of what was given so lately that the kernel may be at it */
void lasker_remove(struct lasker **list, struct lasker *a);
#endif
