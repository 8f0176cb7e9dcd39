/* The table of file locks: who holds which bytes of which inode, and who waits for them. Pure: no
 * I/O and no clock; time comes as an argument. Not thread-safe: the service has a mutex around it.
 *
 * A lock belongs to an owner within a session. POSIX byte ranges and OFD locks are one kind (they
 * exclude each other), flock is another that knows nothing of the first. */
#ifndef REPLFS_METAD_COHERENCE_LOCKS_H
#define REPLFS_METAD_COHERENCE_LOCKS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/lockset.h"

#define LOCKS_PER_SESSION 10000u     /* ranges; more is ENOLCK. All of them fit one SessionReq */
#define LOCKS_WAIT_PER_SESSION 2048u /* requests that wait; more is ENOLCK */
#define LOCKS_OWNERS_PER_FILE 4096u  /* owners that hold locks of one file; more is ENOLCK */
#define LOCKS_WAIT_PER_FILE 1024u    /* requests that wait for one file; more is ENOLCK */
#define LOCKS_QUEUED 1

struct locks;
struct lock_req {
    uint64_t session, ino, owner;
    uint64_t id; /* of a request that waits, unique in the session */
    uint64_t start, end;
    uint32_t type; /* enum lock_type */
    uint32_t pid;
    bool flock;
};
/* A request that waited and is to be answered now: 0 granted, -EINTR cancelled, -EDEADLK,
 * -ERR_TIMEOUT its deadline came (its place is kept a while for the same id), -ERR_SESSION. */
struct locks_done {
    void *cookie;
    int code;
};

struct locks *locks_new(void);
void locks_free(struct locks *t); /* requests that still wait are forgotten */

/* Locks, changes or unlocks. cookie NULL: does not wait. 0; LOCKS_QUEUED: waits, an answer for
 * cookie comes by locks_next_done, at the latest at deadline (ns); -EAGAIN: somebody else's lock
 * is in the way (never with a cookie); -EDEADLK; -ENOLCK; -EINVAL. A repeated request with the id of one
 * that waits takes its place. A failed flock conversion has lost the former lock, as flock(2)
 * says. */
int locks_set(struct locks *t, const struct lock_req *r, void *cookie, int64_t now,
              int64_t deadline);
/* The first lock in the way of r into *out, or false. out->id is not set. */
bool locks_test(struct locks *t, const struct lock_req *r, struct lock_req *out);
/* Ends a wait with -EINTR. False: no such request waits. */
bool locks_cancel(struct locks *t, uint64_t session, uint64_t id, int64_t now);
void locks_unlock_all(struct locks *t, uint64_t session, uint64_t ino, uint64_t owner, bool flock,
                      int64_t now);
/* The connections of some requests are gone: those that still wait and for whose cookie `gone`
 * (called once for each that waits) returns true keep their places a while, their cookies are
 * forgotten. For others locks_next_done still has the answer and with it the cookie. */
void locks_detach(struct locks *t, bool (*gone)(void *cookie, const void *arg), const void *arg,
                  int64_t now);
/* The session is closed: its locks go, its waiting requests end with -ERR_SESSION. */
void locks_drop_session(struct locks *t, uint64_t session, int64_t now);
bool locks_has_session(struct locks *t, uint64_t session); /* it has locks, or waits for some */
/* A client came back and says what it holds (session in each is ignored): exactly that is held
 * from now on, but for what would break somebody else's lock. Returns how many were refused. */
size_t locks_resume(struct locks *t, uint64_t session, const struct lock_req *v, size_t n,
                    int64_t now);
/* While held nothing new is granted: requests that wait are queued, others get -ERR_BUSY. */
void locks_hold(struct locks *t, bool on, int64_t now);
bool locks_held(const struct locks *t);

/* Deadlines, forgotten places, requests that were patient long enough. Every 100 ms or so while
 * locks_waiting(). */
void locks_tick(struct locks *t, int64_t now);
size_t locks_waiting(const struct locks *t);
/* The next answer to give, in order; false: none. After every call above. */
bool locks_next_done(struct locks *t, struct locks_done *out);
uint64_t locks_steps(const struct locks *t); /* holders and requests looked at, ever: for tests */
size_t locks_count(const struct locks *t);   /* ranges held, for tests */
#endif
