/* What the service_*.c files share; nobody else includes this. Handlers run on rpc loop threads,
 * end in exactly one rpc_reply or rpc_fail, and never block (mutations are answered from the log
 * thread). */
#ifndef REPLFS_METAD_SERVICE_SERVICE_INTERNAL_H
#define REPLFS_METAD_SERVICE_SERVICE_INTERNAL_H
#include <stdatomic.h>
#include "metad/coherence/leases.h"
#include "metad/fsm/fsm_cluster.h"
#include "reply_arena.h"
#include "service.h"
#include "service_metad.h"

#define SERVICE_REPLY_SOFT_MAX (384u << 10) /* a reply grows no more: envelopes end at 1 MiB */

struct service {
    struct service_config cfg;
    struct service_locks *locks; /* service_lock.c */
    struct leases *leases;
    struct lease_conns *conns; /* service_lease.c */
    atomic_bool grace;         /* service_grace.c */
    int64_t grace_until;
    unsigned grace_ms;
    int64_t heard_since; /* service_config.c */
    bool lockers_seen;   /* who may hold locks has come back, or lapses */
    int64_t hold_next;   /* service_hold.c */
    int64_t memory_next; /* service_memory.c */
    atomic_bool memory_full;
};

/* service.c */
/* It still leads, for all that this metad can know. */
bool service_leads(const struct service *s);
/* Fails a request with what its operation came to: code as of mlog_applied; text: what was not done. Names the leader
 * if that is the matter. */
void service_fail(struct service *s, struct rpc_req *req, int code, const char *text);
/* As mlog_propose, for this leadership alone. */
void service_propose(struct service *s, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                     void *arg);
static inline void
service_keep(struct service *s) /* a continuation; service_leave() when it is over */
{
    gate_keep(s->cfg.gate);
}
/* The service may be gone afterwards. */
static inline void service_leave(struct service *s)
{
    gate_leave(s->cfg.gate);
}
/* service_mutate.c */
void service_mutate(struct service *s, struct rpc_req *req);
/* service_weigh.c */
/* It names so many inodes that even waiting for their leases would take long. */
bool service_is_too_wide(const Replfs__MetaOp *op);
/* 0, or the code to answer an operation with that would take too long. */
int service_weigh(struct service *s, const Replfs__MetaOp *op);
/* How much of [off, off + len) of a file one command may cut away: at least 1. */
uint64_t service_cut_len(struct service *s, uint64_t ino, uint64_t off, uint64_t len);
/* Proposes what makes the truncation that the caller proposes next short. */
void service_truncate_ahead(struct service *s, uint64_t session, uint64_t seq,
                            const Replfs__SetattrOp *op);
/* service_memory.c */
void service_memory_tick(struct service *s);
/* The operation would make the state grow, and there is no memory for that. */
bool service_memory_refuses(struct service *s, const Replfs__MetaOp *op);
/* service_read.c */
void service_lookup(struct service *s, struct rpc_req *req);
void service_getattr(struct service *s, struct rpc_req *req);
void service_readdir(struct service *s, struct rpc_req *req);
void service_readlink(struct service *s, struct rpc_req *req);
void service_inos(struct service *s, struct rpc_req *req);
void service_statfs(struct service *s, struct rpc_req *req);
/* service_xattr.c */
void service_getxattr(struct service *s, struct rpc_req *req);
void service_listxattr(struct service *s, struct rpc_req *req);
/* service_layout.c */
void service_layout(struct service *s, struct rpc_req *req);
void service_layouts(struct service *s, struct rpc_req *req);
void service_open(struct service *s, struct rpc_req *req);
void service_close(struct service *s, struct rpc_req *req);
void service_grant(struct service *s, struct rpc_req *req);
/* service_quota.c */
void service_quota_list(struct service *s, struct rpc_req *req);
/* What statfs says of ino, cut down to the quotas it is charged to. fsm read lock held. */
void service_quota_space(struct service *s, uint64_t ino, Replfs__StatfsReply *rep);
/* service_session.c */
void service_session(struct service *s, struct rpc_req *req);
void service_keepalive(struct service *s, struct rpc_req *req);
void service_report_bad(struct service *s, struct rpc_req *req);
/* service_lock.c */
void service_lock(struct service *s, struct rpc_req *req);
void service_lock_test(struct service *s, struct rpc_req *req);
void service_lock_cancel(struct service *s, struct rpc_req *req);
void service_unlock_all(struct service *s, struct rpc_req *req);
void service_lock_start(struct service *s);          /* within service_new, */
void service_lock_stop(struct service *s, int code); /* service_stop */
void service_lock_free(struct service *s);           /* and service_free */
/* A new session begins on this connection. */
void service_lock_opened(struct service *s, uint64_t session, struct rpc_conn *conn);
/* A session that comes back (SessionReq) holds what it says, or nothing. Before sessions_resume, which may end the
 * time in which others must wait; when that fails, forget. */
void service_lock_resume(struct service *s, struct rpc_req *req, bool holds);
void service_lock_forget(struct service *s, uint64_t session);
void service_lock_conn_closed(struct service *s, struct rpc_conn *conn);
/* Renews the session's lease; session 0 (a reader without one) passes when optional. false: already
 * answered. */
bool service_session_ok(struct service *s, struct rpc_req *req, uint64_t session, bool optional);
/* service_config.c */
void service_config_req(struct service *s, struct rpc_req *req);
void service_config_tick(struct service *s);
unsigned service_setting(const struct service *s, enum setting_key k);
unsigned
service_min_copies(const struct service *s); /* never more than the goal: the caller sees to it */
/* How long a session may go on using its leases without hearing from us, in ms: what it may have been told. */
unsigned service_term(const struct service *s);
/* service_lease.c: the session goes by this lease term now; 0: it does not say. */
void service_term_heard(struct service *s, uint64_t session, uint32_t term_ms);
/* Every open session has said that it goes by no more. fsm read lock held. */
bool service_all_heard(struct service *s, uint32_t term_ms);
/* service_grace.c */
void service_grace_start(struct service *s);
/* Ends it when it is over. After each session that came back, and a few times a second. */
void service_grace_look(struct service *s);
/* At its end whoever may hold locks and is not back lapses. A few times a second. */
void service_grace_locks(struct service *s);
/* A request that reads or changes inodes has to come again later. */
bool service_grace_waits(struct service *s, const struct rpc_req *req);
/* service_hold.c */
void service_hold_start(struct service *s);
void service_hold_tick(struct service *s);
/* Something was heard of a session. */
void service_hold_heard(struct service *s, uint64_t session);
/* Logs that it may (set), or does not (clear), hold FSM_HOLDS_*; callbacks as in mlog.h. */
void service_hold_propose(struct service *s, uint64_t session, unsigned set, unsigned clear,
                          mlog_applied *fn, mlog_after *after, void *arg);
unsigned service_holds(struct service *s, uint64_t session);
/* service_lock.c: the session is silent: when it has no locks, that is logged. */
void service_lock_silent(struct service *s, uint64_t session);
/* service_lease.c */
void service_leases_init(struct service *s);
void service_leases_stop(struct service *s, int code);
void service_leases_free(struct service *s);
void service_conn_closed(struct service *s, struct rpc_conn *c);
/* A session is reached over this connection from now on. */
void service_session_bind(struct service *s, uint64_t session, struct rpc_conn *c);
/* A session that comes back keeps the exclusive leases that it claims and has, and no others; none at all
 * unless it holds any. With `unmade`, claims of inodes that are not there (yet) count as well. Returns how many of *claims
 * (malloc'ed, ascending) those are. */
size_t service_lease_resume(struct service *s, const Replfs__SessionReq *r, bool holds, bool unmade,
                            uint64_t **claims);
/* A request that met LEASE_ELSEWHERE on ino: runs again(s, req) once the holder has sent what it
 * kept back; or refuses it for now (ERR_BUSY) when that takes too long, unless firmly. */
void service_again(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                   void (*again)(struct service *s, struct rpc_req *req));
void service_again_firmly(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                          void (*again)(struct service *s, struct rpc_req *req));
/* Runs alone(s, req, in) once no other session has a lease on ino; none gets one until it returns
 * (leases_grant with `in`). */
void service_alone(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                   void (*alone)(struct service *s, struct rpc_req *req,
                                 const struct lease_wait *in));
void service_lease(struct service *s, struct rpc_req *req);
/* A regular file: else opening or asking gives no exclusive lease. fsm read lock held. */
bool service_is_file(struct service *s, uint64_t ino);
/* What an operation reads and changes, names resolved as of now (the fsm's read lock is taken). */
void service_needs(struct service *s, const Replfs__MetaOp *op, struct lease_wait *w);
#endif
