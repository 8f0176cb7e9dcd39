/* Who is here and who has what open: session leases, open files, and the end of unlinked ones.
 * Soft state of the leader; what must survive (sessions, orphans) is in the fsm. Thread-safe: own
 * mutex, taken after the fsm lock and never held while something is proposed. */
#ifndef REPLFS_METAD_COHERENCE_SESSIONS_H
#define REPLFS_METAD_COHERENCE_SESSIONS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "metad/fsm/fsm_cluster.h"
#include "metad/log/mlog.h"

struct sessions;
struct sessions_config {
    struct fsm *fsm;
    struct mlog *mlog;
    /* What holds as long as the state does not say (fsm_setting_offer), 0: the default */
    unsigned lease_ms;
    int64_t keep_ms;  /* how long one that lapsed may come back */
    unsigned tick_ms; /* how often it looks, default 100 */
};
/* Of the leadership that there is just now. Takes sessions and orphans over from the fsm; each session has one lease to
 * come back. */
int sessions_new(const struct sessions_config *cfg, struct sessions **out);
int sessions_start(struct sessions *o); /* its thread: expires sessions, reaps orphans */
/* Ends the thread and waits for what it has proposed (which the log answers, at the latest when leadership ends or it
 * is stopped). Not on the log thread. */
void sessions_stop(struct sessions *o);
void sessions_free(struct sessions *o); /* stopped, and no hook calls it any more */

/* A new session is about to be proposed, of this peer (a hash of its address). -EDQUOT: the peer has
 * SESSIONS_PER_PEER. Then sessions_add when it is applied, sessions_none when it is not. */
#define SESSIONS_PER_PEER 512u
int sessions_begin(struct sessions *o, uint64_t session, uint64_t peer);
/* The same for one that has lapsed and comes back. -ERR_BUSY: not all have heard yet that it lapsed. */
int sessions_return(struct sessions *o, uint64_t session, uint64_t peer);
void sessions_add(struct sessions *o, uint64_t session); /* a new one, just applied */
void sessions_none(struct sessions *o, uint64_t session);
/* A session came back and says what it has open (all of it). 0 or -ERR_SESSION. */
int sessions_resume(struct sessions *o, uint64_t session, const uint64_t *inos, size_t n);
int sessions_touch(struct sessions *o, uint64_t session); /* a sign of life. 0 or -ERR_SESSION */
/* One session has an inode open or not, however often. 0, -ERR_SESSION, or -ESTALE: it is being
 * reaped. */
int sessions_file_add(struct sessions *o, uint64_t session, uint64_t ino);
void sessions_file_del(struct sessions *o, uint64_t session, uint64_t ino);
/* How many sessions found at the start that may hold such (FSM_HOLDS_LEASES or _LOCKS) are still to
 * come back; 0 after their time (two leases). */
size_t sessions_awaited(struct sessions *o, unsigned holds);
/* Told of every session that is closed or lapses, with the fsm and opens locks held. NULL: nobody. */
void sessions_on_close(struct sessions *o, void (*fn)(void *arg, uint64_t session), void *arg);
bool sessions_is_open(struct sessions *o, uint64_t ino);
/* A session other than this one has it open. */
bool sessions_elsewhere(struct sessions *o, uint64_t session, uint64_t ino);
/* How long nothing was heard of the session, in ms; UINT32_MAX: not open. */
uint32_t sessions_silent_ms(struct sessions *o, uint64_t session);
/* It was found at the start and has not come back since. */
bool sessions_is_missing(struct sessions *o, uint64_t session);
/* Its lease counts as over: it lapses, through the log, at the next look. */
void sessions_expire(struct sessions *o, uint64_t session);
/* Others that follow sessions: called on the opens thread, without locks; closed for each session
 * that has ended or lapsed, tick every tick_ms. Up to SESSIONS_WATCHERS, before sessions_start. */
#define SESSIONS_WATCHERS 4u
struct sessions_watcher {
    void (*closed)(void *arg, uint64_t session);
    void (*reaped)(void *arg, uint64_t ino); /* an inode that is no more */
    void (*tick)(void *arg);
    void *arg;
};
void sessions_watch(struct sessions *o, const struct sessions_watcher *w);

/* fsm hooks (write lock held); arg is the struct sessions */
void sessions_orphaned(void *arg, uint64_t ino, uint64_t opener); /* opener, if any, has it open */
void sessions_adopted(void *arg, uint64_t ino);
void sessions_closed(void *arg, uint64_t session);
#endif
