/* The queue of changes that were answered before metad knows them.
 *
 * queue.mu is a leaf: those that only put, look or lay over take it with a file's mu held. Those that wait do so
 * without locks, on any thread but a loop thread and the sender's own (mutation.done). */
#ifndef REPLFS_FUSE_CLIENT_QUEUE_QUEUE_H
#define REPLFS_FUSE_CLIENT_QUEUE_QUEUE_H
#include "client/session/mutation.h"
#include "envelope.pb-c.h"

/* What the queue has others do, set before the client works (lifecycle/events.c). No lock held; may wait. */
struct queue_events {
    int (*flush_ino)(struct client *c, uint64_t ino); /* commits what this file has buffered */
    void (*flush_closed)(struct client *c);           /* commits what was closed without waiting */
};
/* One change that nobody waits for yet. Sent in the order put. */
struct queue_op {
    struct mutation m; /* its done is called on the sender's thread; the op may be freed there */
    uint64_t ino;      /* that it changes */
    uint64_t dir;      /* where it makes ino known under a name; 0: it does not */
    struct queue_op *next;
};
int queue_start(struct client *c); /* the sender; 0 or a code */
/* What is queued is done first, or fails as metad is away. */
void queue_stop(struct client *c);

/* ---- do not wait; a file's mu may be held ---- */

void queue_put(struct client *c, struct queue_op *o);
/* Takes over a change of attributes of a file under an exclusive lease. a: the attributes as known, then
 * as they are to be shown. held: kept until queue_release, since bytes written before are not
 * committed. False: it is not one that can wait, nothing was done. */
bool queue_setattr(struct client *c, const Replfs__SetattrOp *op, Replfs__Attr *a, bool held);
void queue_release(struct client *c, uint64_t ino);  /* the bytes before it are queued, or gone */
void queue_accessed(struct client *c, uint64_t ino); /* a former atime is over */
void queue_wrote(struct client *c, uint64_t ino);    /* later bytes: a former mtime is over */
bool queue_queued(struct client *c, uint64_t ino);   /* something of ino is on its way */
bool queue_naming(struct client *c, uint64_t ino);   /* its name, or one in it, is on its way */
/* Somebody waits for what is queued of ino, elsewhere. */
void queue_hurry(struct client *c, uint64_t ino);
/* Lays over a what metad does not know yet. */
void queue_overlay(struct client *c, Replfs__Attr *a);
/* Adds the inodes with something held or queued to a malloc'ed list. */
void queue_inos(struct client *c, uint64_t **inos, size_t *n);

/* ---- wait until metad has something; no lock held ----
 * 0, or -ERR_TIMEOUT: it has been away for too long; what is queued stays queued. */

/* Until few enough are queued that one more is no burden; false at the time-out. */
bool queue_room(struct client *c);
/* Before a question to metad: until it knows the names that the answer depends on. */
int queue_before_ask(struct client *c, const Replfs__Envelope *req);
/* Until what was put before now is done: of ino, 0: of all. */
int queue_wait(struct client *c, uint64_t ino);
/* The same, and first what is held is committed and released. */
int queue_settle(struct client *c, uint64_t ino);
/* Before a change that is not put here: those that it must not overtake. */
int queue_before(struct client *c, const Replfs__MetaOp *op);
#endif
