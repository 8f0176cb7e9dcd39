/* The role of this metad: what begins with each gain of leadership and ends with its loss, any number of times in one
 * process. */
#ifndef REPLFS_METAD_LEADER_H
#define REPLFS_METAD_LEADER_H
#include "metad/backup/copies.h"
#include "metad/service/service.h"

struct leader;
struct leader_config {
    struct fsm *fsm;
    struct mlog *mlog; /* its role_changed is leader_role_changed */
    struct rpc_loop *loop;
    struct nodes *nodes; /* its gate is leader_gate() */
    const char
        *dir; /* metad's data directory; NULL: none, and settings stay what is offered (tests) */
    struct copies *copies;           /* of the names, which the leader makes; NULL: none */
    struct sessions_config sessions; /* without fsm and mlog */
    struct service_config service;   /* likewise; only what is configured */
};
/* Follows until leader_begin(). Never NULL. */
struct leader *leader_new(void);
struct gate *leader_gate(struct leader *l); /* for nodes; lives as long as l */
/* For mlog_config, with the leader as arg: says that there may be another role to take on. Never blocks. */
void leader_role_changed(void *arg, bool leads);
/* Likewise: the whole state is another one (mlog_config.restored). What is kept beside it is made again from it, before
 * this metad can lead. */
void leader_restored(void *arg);
/* Takes on roles from now on, on a thread of its own; returns when the present one is. 0 or a negative code. */
int leader_begin(struct leader *l, const struct leader_config *cfg);
/* For rpc_listen, after leader_begin(). */
const struct rpc_service *leader_rpc(struct leader *l);
/* Ends the leadership, if this metad leads (clients are told ERR_SHUTDOWN), and takes on no other. Before mlog_stop
 * and rpc_loop_free. */
void leader_end(struct leader *l);
void leader_free(struct leader *l); /* ended, nobody calls any more; NULL is fine */

/* The parts of the present leadership, NULL when there is none. For tests, which know that it lasts. */
struct sessions *leader_sessions(struct leader *l);
struct ids *leader_ids(struct leader *l);
struct service *leader_service(struct leader *l);
uint64_t leader_terms(struct leader *l); /* leaderships that began to serve */
#endif
