/* Who is here and who has what open: session leases, open files, and the end of unlinked ones.
 * Soft state of the leader; what must survive (sessions, orphans) is in the fsm. Thread-safe: own
 * mutex, taken after the fsm lock and never held while something is proposed. */
#ifndef REPLFS_METAD_OPENS_H
#define REPLFS_METAD_OPENS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "metad/fsm/fsm.h"
#include "metad/log/mlog.h"

#define OPENS_KEEP_MS (3 * 86400000ll) /* a weekend */

struct opens;
struct opens_config {
    struct fsm *fsm;
    struct mlog *mlog;
    unsigned lease_ms; /* default 60000 */
    int64_t keep_ms;   /* how long one that lapsed may come back, default OPENS_KEEP_MS */
    unsigned tick_ms;  /* how often it looks, default 100 */
};
/* Takes sessions and orphans over from the fsm; each session has one lease to come back. */
int opens_new(const struct opens_config *cfg, struct opens **out);
int opens_start(struct opens *o); /* its thread: expires sessions, reaps orphans */
void opens_stop(struct opens *o); /* before mlog_close */
void opens_free(struct opens *o); /* after mlog_close */

/* A new session is about to be proposed, of this peer (a hash of its address). -EDQUOT: the peer has
 * OPENS_PER_PEER. Then opens_session_add when it is applied, opens_session_none when it is not. */
#define OPENS_PER_PEER 512u
int opens_session_begin(struct opens *o, uint64_t session, uint64_t peer);
/* The same for one that has lapsed and comes back. -ERR_BUSY: not all have heard yet that it lapsed. */
int opens_session_back(struct opens *o, uint64_t session, uint64_t peer);
void opens_session_add(struct opens *o, uint64_t session); /* a new one, just applied */
void opens_session_none(struct opens *o, uint64_t session);
/* A session came back and says what it has open (all of it). 0 or -ERR_SESSION. */
int opens_resume(struct opens *o, uint64_t session, const uint64_t *inos, size_t n);
int opens_touch(struct opens *o, uint64_t session); /* a sign of life. 0 or -ERR_SESSION */
/* One session has an inode open or not, however often. 0, -ERR_SESSION, or -ESTALE: it is being
 * reaped. */
int opens_add(struct opens *o, uint64_t session, uint64_t ino);
void opens_del(struct opens *o, uint64_t session, uint64_t ino);
/* How many sessions found at the start that may hold such (FSM_HOLDS_LEASES or _LOCKS) are still to
 * come back; 0 after their time (two leases). */
size_t opens_awaited(struct opens *o, unsigned holds);
/* Told of every session that is closed or lapses, with the fsm and opens locks held. NULL: nobody. */
void opens_on_close(struct opens *o, void (*fn)(void *arg, uint64_t session), void *arg);
bool opens_is_open(struct opens *o, uint64_t ino);
/* A session other than this one has it open. */
bool opens_elsewhere(struct opens *o, uint64_t session, uint64_t ino);
/* How long nothing was heard of the session, in ms; UINT32_MAX: not open. */
uint32_t opens_silent_ms(struct opens *o, uint64_t session);
/* It was found at the start and has not come back since. */
bool opens_is_missing(struct opens *o, uint64_t session);
/* Its lease counts as over: it lapses, through the log, at the next look. */
void opens_expire(struct opens *o, uint64_t session);
/* Others that follow sessions: called on the opens thread, without locks; closed for each session
 * that has ended or lapsed, tick every tick_ms. Up to OPENS_WATCHERS, before opens_start. */
#define OPENS_WATCHERS 4u
struct opens_watcher {
    void (*closed)(void *arg, uint64_t session);
    void (*reaped)(void *arg, uint64_t ino); /* an inode that is no more */
    void (*tick)(void *arg);
    void *arg;
};
void opens_watch(struct opens *o, const struct opens_watcher *w);

/* fsm hooks (write lock held); arg is the struct opens */
void opens_orphaned(void *arg, uint64_t ino, uint64_t opener); /* opener, if any, has it open */
void opens_adopted(void *arg, uint64_t ino);
void opens_session_closed(void *arg, uint64_t session);
#endif
