/* Whether this metad's directory is the one that counts.
 *
 * A backup that was put back, or a directory made of a copy of the names (names_file.h: a new life of the cluster), can
 * run while the directory that it was made of still exists, and that one can be started again. Chunkds obey the higher
 * term only: a metad of a lower one would show names that nobody keeps, and have nothing copied or deleted. It does not
 * know by itself, but a chunkd that registers tells the highest term that it has obeyed. In one life of a cluster of
 * several metads a higher term belongs to a newer leader, which the others will tell; everywhere else it belongs to
 * another copy. Then the chunkd is refused, and when most of the members say so this metad ends, for a person to
 * decide (replfs-metad --new-life). One chunkd alone stops nothing.
 *
 * Thread context: rpc loop threads. */
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "metad/fsm/fsm_cluster.h"
#include "names_file.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"

bool nodes_life_is_other(struct nodes *n, const Replfs__RegisterReq *r)
{
    if (r->term <= n->lead.term)
        return false;
    fsm_rdlock(n->cfg.fsm);
    bool alone = fsm_metads(n->cfg.fsm) <= 1;
    fsm_unlock(n->cfg.fsm);
    return alone || names_life(r->term) > names_life(n->lead.term);
}

/* Lock held. */
static bool do_most_obey_another(const struct nodes *n)
{
    uint32_t all = 0, another = 0;

    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i] && !nodes_gone(n->node[i])) {
            all++;
            another += n->node[i]->obeys_another;
        }
    return 2 * another > all;
}

static void say_which(const struct nodes *n, uint64_t term, char out[static 256])
{
    char began[NAMES_TIME_TEXT];

    if (names_life(term) > names_life(n->lead.term)) {
        snprintf(out, 256,
                 "a metad whose data directory was made of a copy of the names (--recover, "
                 "--restore, --new-life) at about %s",
                 names_time((int64_t)names_life(term), began));
    } else {
        snprintf(out, 256,
                 "a metad that ran from another copy of its data directory: it led in term %" PRIu64
                 ", this one is in term %" PRIu64,
                 term, n->lead.term);
    }
}

void nodes_life_refuse(struct nodes *n, struct rpc_req *req)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    char label[256] = "a chunkd that is no member", which[256];

    lock_acquire(&n->mu);
    struct node *d = nodes_find(n, r->chunkd);
    if (d) {
        nodes_label(d, label);
        d->obeys_another = true;
    }
    bool most = d && do_most_obey_another(n), first = most && !n->another_told;
    n->another_told |= most;
    lock_release(&n->mu);
    say_which(n, r->term, which);
    log_warn("%s is refused: it has obeyed %s", label, which);
    rpc_fail(req, ERR_OLD_TERM,
             "this chunkd has obeyed %s. Only one of the two can be right: see OLDER COPIES in "
             "replfs-metad(8)",
             which);
    if (first && n->cfg.obey_another)
        n->cfg.obey_another(n->cfg.obey_arg, which);
}
