/* See plant.h. Each function stands between its caller and the real one. */
#include "plant.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "chunkd/terms.h"
#include "metad/fsm/fsm_internal.h"
#include "metad/log/mlog.h"
#include "metad/service/service_internal.h"
#include "world.h"

static struct {
    enum plant chosen;
    uint64_t
        term[WORLD_CHUNKDS]; /* the highest that each chunkd knows: it outlives its processes */
    uint64_t orders, old;
} now;

bool __real_mlog_may_read(struct mlog *m);
bool __wrap_mlog_may_read(struct mlog *m);
int __real_terms_order(struct terms *t, uint64_t term);
int __wrap_terms_order(struct terms *t, uint64_t term);
void __real_terms_saved(struct terms *t, uint64_t term);
void __wrap_terms_saved(struct terms *t, uint64_t term);
int __real_fsm_op_incarnation(struct fsm *f, uint64_t position, const Replfs__IncarnationOp *op);
int __wrap_fsm_op_incarnation(struct fsm *f, uint64_t position, const Replfs__IncarnationOp *op);
void __real_service_grace_start(struct service *s);
void __wrap_service_grace_start(struct service *s);

bool plant_choose(const char *name)
{
    static const char *const names[] = {"none", "read", "term", "twice", "lease", "apply"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(name, names[i])) {
            now.chosen = (enum plant)i;
            return true;
        }
    return false;
}

enum plant plant_chosen(void)
{
    return now.chosen;
}

uint64_t plant_orders(void)
{
    return now.orders;
}

uint64_t plant_old(void)
{
    return now.old;
}

bool __wrap_mlog_may_read(struct mlog *m)
{
    return now.chosen == PLANT_READ ? mlog_is_leader(m) : __real_mlog_may_read(m);
}

/* ---- chunkds ---- */

static unsigned this_chunkd(void)
{
    unsigned i = vt_proc()->host - HOST_CHUNKD;
    if (i >= WORLD_CHUNKDS)
        vt_fail("%s is no chunkd", vt_proc()->name);
    return i;
}

/* On the disk: not what an order said and nobody has written down yet. Afterwards: what is obeyed meanwhile began before. */
void __wrap_terms_saved(struct terms *t, uint64_t term)
{
    uint64_t *known = &now.term[this_chunkd()];
    __real_terms_saved(t, term);
    if (term > *known)
        *known = term;
}

int __wrap_terms_order(struct terms *t, uint64_t term)
{
    uint64_t known = now.term[this_chunkd()];
    int rc = __real_terms_order(t, term);
    now.old += rc == -ERR_OLD_TERM;
    if (now.chosen == PLANT_TERM)
        rc = 0;
    if (rc)
        return rc;
    now.orders++;
    if (term && term < known)
        vt_fail("an order of term %" PRIu64 " is obeyed by a chunkd that knows of term %" PRIu64,
                term, known);
    return 0;
}

/* ---- changes of leadership ---- */

int __wrap_fsm_op_incarnation(struct fsm *f, uint64_t position, const Replfs__IncarnationOp *op)
{
    int rc = __real_fsm_op_incarnation(f, position, op);
    for (uint32_t i = 0; now.chosen == PLANT_TWICE && i < f->nsessions; i++)
        f->sessions[i]->first = f->sessions[i]->end;
    return rc;
}

void __wrap_service_grace_start(struct service *s)
{
    if (now.chosen != PLANT_LEASE)
        __real_service_grace_start(s);
}
