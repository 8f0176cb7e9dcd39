/* Leases: which session may cache which inode, and who has to wait for whom.
 *
 * A lease covers an inode's attributes, a directory's entries, a file's bytes. SHARED: may be
 * cached, by any number of sessions. EXCLUSIVE: the only one; may also be changed behind metad's
 * back, so even a reader has to wait for the holder's flush.
 *
 * Every change of inodes goes through leases_enter with what it needs, and so does a reader that
 * met LEASE_ELSEWHERE. Others' leases in its way are recalled; it waits until the holders have given
 * them back, or have been silent for the lease term, but not for ever: it is refused then, to be
 * repeated. Between leases_enter and leases_leave no session gets a lease on an inode that is about
 * to change, since what it would cache is about to be wrong.
 *
 * Soft state of the leader. Thread-safe: own mutex, taken after all others, never held during a
 * callback. */
#ifndef REPLFS_METAD_COHERENCE_LEASES_H
#define REPLFS_METAD_COHERENCE_LEASES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* as on the wire; ELSEWHERE is an answer of leases_grant only: another session has it exclusively,
 * so that what metad knows may be old */
enum lease_mode { LEASE_ELSEWHERE = -1, LEASE_NONE, LEASE_SHARED, LEASE_EXCLUSIVE };

struct leases;
struct leases_config {
    uint64_t max; /* leases in all, default 4 million; beyond it none is given */
    /* Ask the session to come down to `keep` on the inode; leases_ack with the same nr when it has. Any thread. */
    void (*recall)(void *arg, uint64_t session, uint64_t ino, enum lease_mode keep, uint64_t nr);
    /* How long the session has been silent, in ms; UINT32_MAX: it is gone. */
    uint32_t (*silent_ms)(void *arg, uint64_t session);
    /* An exclusive lease ran out while its holder was silent: what it has not sent yet must not arrive
     * any more as if it held it. */
    void (*fence)(void *arg, uint64_t session);
    /* Told before such a holder is fenced although it is alive, see stubborn_ms. May be NULL. */
    void (*stubborn)(void *arg, uint64_t session, uint64_t ino);
    void *arg;
    uint32_t (*term)(
        void *arg);       /* ms: holders stop using a lease when they heard nothing for so long */
    uint32_t patience_ms; /* a request that waits longer is refused, default 5000 */
    /* a session that is alive, and neither gives a lease back for so long nor changes the inode (flushes), is
     * fenced; default 90000 */
    uint32_t stubborn_ms;
};
struct leases *leases_new(const struct leases_config *cfg);
/* Nobody waits any more: all that do are refused with code, and so is the one that would have to. */
void leases_stop(struct leases *l, int code);
void leases_free(struct leases *l); /* nobody may be waiting */

#define LEASE_NEEDS_INLINE 4u
struct lease_need {
    uint64_t ino;
    bool write;
};
/* Of one request: zero but for session, ready and firm, then lease_need for what it touches,
 * leases_enter, leases_leave, which frees what lease_need allocated. Not copied in between. */
struct lease_wait {
    uint64_t session;
    bool firm; /* patience has no end */
    int code;  /* 0: it may go on; -ERR_BUSY: patience ended; of leases_stop */
    struct lease_need inl[LEASE_NEEDS_INLINE];
    struct lease_need *need; /* inl, or malloc'ed */
    unsigned n;
    /* on the thread that freed the way; leases_leave follows */
    void (*ready)(struct lease_wait *w);
    struct lease_wait *next; /* private, */
    int64_t since;           /* when it was first seen waiting, in ms, */
    bool waited;             /* had to wait */
};
void lease_need(struct lease_wait *w, uint64_t ino, bool write); /* adds one; 0 is passed over */
/* Everything that any other session holds exclusively. Before any lease_need. */
void leases_need_exclusive(struct leases *l, struct lease_wait *w);
/* true: look at w->code. false: w->ready is called later, once, and means the same. */
bool leases_enter(struct leases *l, struct lease_wait *w);
void leases_leave(struct leases *l, struct lease_wait *w);
/* As much as can be given just now, at most `want`; what is held already counts. in: the request
 * being executed, or NULL. Called before the reply's contents can become old: with the fsm lock
 * held. */
enum lease_mode leases_grant(struct leases *l, uint64_t session, uint64_t ino, enum lease_mode want,
                             const struct lease_wait *in);
/* Likewise for several at once, out of any request: out[n]. */
void leases_grant_list(struct leases *l, uint64_t session, const uint64_t *ino, size_t n,
                       enum lease_mode want, enum lease_mode *out);
/* Of an inode that the session has just created: exclusively, whatever it does with it already (who
 * changes it just now can only be the session itself). False: no more leases are given. */
bool leases_grant_new(struct leases *l, uint64_t session, uint64_t ino);
/* The recall nr was answered; it counts when it is the last that the hold was asked by. An earlier one may be
 * answered later, when the session has another lease. nr 0: whatever was asked. */
void leases_ack(struct leases *l, uint64_t session, uint64_t ino, enum lease_mode kept,
                uint64_t nr);
void leases_drop_session(struct leases *l, uint64_t session);
/* A session came back over a new connection and still keeps changes of these inodes back: what it
 * holds of them exclusively stays, everything else that it holds goes, in one step. While
 * leases_claim is on, what nobody holds, waits for or changes becomes its own as well. Returns how
 * many it has; they are the first of v afterwards. leases_remind follows. */
size_t leases_resume(struct leases *l, uint64_t session, uint64_t *v, size_t n);
/* Asks once more for what the session was asked for and has not given back: the former question may
 * have been lost with its connection. */
void leases_remind(struct leases *l, uint64_t session);
/* Whether leases_resume gives what the session does not hold: as long as nobody else has been let
 * in since a start. Returns what it was before. */
bool leases_claim(struct leases *l, bool on);
/* Barred sessions hold nothing and get nothing. Bars one, which loses its shared leases; false: it
 * holds some exclusively, or is barred already, or silent(arg, session), asked with the mutex held, is
 * false; nothing was done then. leases_bar_settle follows: until then leases_unbar_begin is false. */
bool leases_bar(struct leases *l, uint64_t session, bool (*silent)(void *arg, uint64_t session),
                void *arg);
void leases_bar_settle(struct leases *l, uint64_t session);
/* A barred session shall be let in again. True for the first caller that asks: it calls leases_unbar when
 * that is done, or leases_bar_settle when it could not be. */
bool leases_unbar_begin(struct leases *l, uint64_t session);
void leases_unbar(struct leases *l, uint64_t session);
bool leases_has_barred(const struct leases *l);         /* any */
void leases_drop_inode(struct leases *l, uint64_t ino); /* it is no more */
/* Takes recalled leases from sessions that are silent, and refuses requests that have waited long enough. Call
 * a few times a second; now (ms, never 0) only goes forward. */
void leases_tick(struct leases *l, int64_t now);
struct leases_stat {
    uint64_t leases, recalls, waits, expired, stubborn;
};
void leases_stat(struct leases *l, struct leases_stat *out);
#endif
