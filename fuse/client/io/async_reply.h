/* Reads and closes that nobody waits for: the thread that hears of the last byte answers. async_replies.mu is a leaf
 * but for what `hold` takes. */
#ifndef REPLFS_FUSE_CLIENT_IO_ASYNC_REPLY_H
#define REPLFS_FUSE_CLIENT_IO_ASYNC_REPLY_H
#include <stdbool.h>

struct client;
struct async_reply;
/* How those of a kind are looked after. hold: what look will be called for, referenced (taken under
 * async_replies.mu). look: gives the reference back; on a loop thread, does not wait. */
struct async_reply_kind {
    void *(*hold)(struct async_reply *l);
    void (*look)(void *held);
};
/* Something whose answer nobody waits for. Embedded in it; async_replies.mu. */
struct async_reply {
    struct async_reply *prev, *next;
    const struct async_reply_kind *kind;
};
void async_reply_init(struct client *c);
/* l is listed until async_reply_done: its answer will come, in limited time, and the client stays. A file's mu may be
 * held. */
void async_reply_begin(struct client *c, struct async_reply *l,
                       const struct async_reply_kind *kind);
/* The last use of c by the thread that answered. No lock held. */
void async_reply_done(struct client *c, struct async_reply *l);
/* Its two halves: l is not looked after any more (before what hold refers to goes); the client may go. */
void async_reply_leave(struct client *c, struct async_reply *l);
void async_reply_left(struct client *c);
/* For what has to wait, a thread of its own; false: there is none to be had. */
bool async_reply_thread(void *(*fn)(void *), void *arg);
/* Until nothing is left; no lock held. */
void async_reply_wait(struct client *c);
#endif
