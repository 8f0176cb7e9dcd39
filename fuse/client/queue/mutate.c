/* One change that its caller waits for. What is queued of its inodes goes first, and so does what metad must know
 * to be open before a name goes. */
#include "client/queue/mutate.h"
#include "client/base/attr.h"
#include "client/file/open_told.h"
#include "client/internal.h"
#include "client/queue/queue.h"
#include "client/session/mutation.h"
#include "metaop.h"

struct one {
    struct mutation m;
    int code;
    Replfs__Attr *attr, *parent;
    uint64_t *value;
};

static void one_done(struct mutation *m, int code, const Replfs__MutationResult *r)
{
    struct one *o = (struct one *)m;
    o->code = code;
    if (o->attr && r && r->attr)
        attr_copy(o->attr, r->attr);
    if (o->parent && r && r->parent)
        attr_copy(o->parent, r->parent);
    if (o->value && r)
        *o->value = r->value;
}

int mutate_value(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
                 Replfs__Attr *attr, Replfs__Attr *parent, uint64_t *value)
{
    struct one o = {.m = {.op = op, .need = need, .done = one_done},
                    .attr = attr,
                    .parent = parent,
                    .value = value};
    struct mutation *list[1] = {&o.m};
    bool removes = metaop_does(op, METAOP_REMOVES);
    if (removes)
        cfile_removing(c, true);
    int rc = queue_before(c, op);
    if (!rc && metaop_below(op) == METAOP_BELOW_EMPTY)
        cfile_tell_dirs(c); /* of those made here, metad has heard by now */
    if (!rc)
        mutation_run(c, list, 1, deadline);
    if (removes)
        cfile_removing(c, false);
    return rc ? rc : o.code;
}

int mutate_one(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
               Replfs__Attr *attr, Replfs__Attr *parent)
{
    return mutate_value(c, op, need, deadline, attr, parent, NULL);
}
