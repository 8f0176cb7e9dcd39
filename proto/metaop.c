/* The visitors of METAOP_TABLE (metaop.h): one switch for each column, made from the table.
 *
 * metaop_of is the only place that looks at protobuf-c's own enum. It lists the table's operations and nothing
 * else: an operation of meta.proto that the table lacks is an error of the compiler here (-Wswitch-enum).
 *
 * Failure modes: none. Thread context: any. */
#include "metaop.h"

_Static_assert(sizeof(Replfs__MetaOp__OpCase) == sizeof(int),
               "as in objects built with the padding");

/* clang-format off */
enum metaop metaop_of(const Replfs__MetaOp *op)
{
    switch (op->op_case) {
    case REPLFS__META_OP__OP__NOT_SET:
        break;
#define ROW(ID, ...)                                                                                                \
    case REPLFS__META_OP__OP_##ID:                                                                                  \
        return METAOP_##ID;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return METAOP_NONE;
}

const char *metaop_name(enum metaop m)
{
    switch (m) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, ...)                                                                                        \
    case METAOP_##ID:                                                                                               \
        return #member;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return "none";
}

enum metaop_sender metaop_sender(enum metaop m)
{
    switch (m) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, SENDER, ...)                                                                                \
    case METAOP_##ID:                                                                                               \
        return METAOP_BY_##SENDER;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return METAOP_BY_NOBODY;
}

unsigned metaop_level(enum metaop m)
{
    switch (m) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, SENDER, LEVEL, ...)                                                                         \
    case METAOP_##ID:                                                                                               \
        return LEVEL;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return 0;
}

uint64_t metaop_charged(const Replfs__MetaOp *op)
{
    switch (metaop_of(op)) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, SENDER, LEVEL, CHARGED, ...)                                                                       \
    case METAOP_##ID:                                                                                               \
        return CHARGED;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return 0;
}

bool metaop_grows(const Replfs__MetaOp *op)
{
    switch (metaop_of(op)) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, SENDER, LEVEL, CHARGED, GROWS, ...)                                                                \
    case METAOP_##ID:                                                                                               \
        return GROWS;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return false;
}

enum metaop_weight metaop_weight(enum metaop m)
{
    switch (m) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, SENDER, LEVEL, CHARGED, GROWS, WEIGHT, ...)                                                        \
    case METAOP_##ID:                                                                                               \
        return METAOP_WEIGHT_##WEIGHT;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return METAOP_WEIGHT_NONE;
}

uint64_t metaop_late(const Replfs__MetaOp *op)
{
    switch (metaop_of(op)) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, SENDER, LEVEL, CHARGED, GROWS, WEIGHT, LATE, ...)                                                  \
    case METAOP_##ID:                                                                                               \
        return LATE;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return 0;
}

#define NOTHING METAOP_BELOW_NOTHING
#define EMPTY METAOP_BELOW_EMPTY
#define EMPTY_IF(IS_DIR) ((IS_DIR) ? METAOP_BELOW_EMPTY : METAOP_BELOW_NOTHING)
#define ALL METAOP_BELOW_ALL
enum metaop_below metaop_below(const Replfs__MetaOp *op)
{
    switch (metaop_of(op)) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, SENDER, LEVEL, CHARGED, GROWS, WEIGHT, LATE, BELOW, ...)                                           \
    case METAOP_##ID:                                                                                               \
        return BELOW;
    METAOP_TABLE(ROW)
#undef ROW
    }
    return METAOP_BELOW_NOTHING;
}

/* ---- touches ---- */

struct visit {
    metaop_visit_fn *fn;
    void *arg;
};

static void touch(const struct visit *v, enum metaop_how how, uint64_t ino, const ProtobufCBinaryData *name)
{
    v->fn(v->arg, &(struct metaop_touch){.how = how, .ino = ino, .name = name});
}

static void touch_all(const struct visit *v, enum metaop_how how, const uint64_t *ino, size_t n)
{
    for (size_t i = 0; i < n; i++)
        touch(v, how, ino[i], NULL);
}

static void touch_times(const struct visit *v, const uint64_t *ino, const int64_t *atime_ns, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v->fn(v->arg, &(struct metaop_touch){.how = METAOP_SEES, .ino = ino[i], .atime_ns = atime_ns[i]});
}

#define UNTOUCHED (void)0
#define READS(INO) touch(&v, METAOP_READS, INO, NULL)
#define CHANGES(INO) touch(&v, METAOP_CHANGES, INO, NULL)
#define CHANGES_ALL(INOS, N) touch_all(&v, METAOP_CHANGES, INOS, N)
#define COMMITS(INO) touch(&v, METAOP_COMMITS, INO, NULL)
#define SEES(INOS, TIMES, N) touch_times(&v, INOS, TIMES, N)
#define MAKES(DIR, NAME) touch(&v, METAOP_MAKES, DIR, &(NAME))
#define REMOVES(DIR, NAME) touch(&v, METAOP_REMOVES, DIR, &(NAME))
#define REPLACES(DIR, NAME) touch(&v, METAOP_REPLACES, DIR, &(NAME))
#define BEGINS(INO) touch(&v, METAOP_BEGINS, INO, NULL)
#define ENDS_ALL(INOS, N) touch_all(&v, METAOP_ENDS, INOS, N)

void metaop_visit(const Replfs__MetaOp *op, metaop_visit_fn *fn, void *arg)
{
    const struct visit v = {fn, arg};

    switch (metaop_of(op)) {
    case METAOP_NONE:
        break;
#define ROW(ID, member, SENDER, LEVEL, CHARGED, GROWS, WEIGHT, LATE, BELOW, TOUCHES)                                       \
    case METAOP_##ID:                                                                                               \
        TOUCHES;                                                                                                    \
        break;
    METAOP_TABLE(ROW)
#undef ROW
    }
}
/* clang-format on */

struct does {
    enum metaop_how how;
    bool found;
};

static void see(void *arg, const struct metaop_touch *t)
{
    struct does *d = arg;
    d->found |= t->how == d->how;
}

bool metaop_does(const Replfs__MetaOp *op, enum metaop_how how)
{
    struct does d = {how, false};
    metaop_visit(op, see, &d);
    return d.found;
}

enum metaop_lease metaop_lease(enum metaop_how how)
{
    switch (how) {
    case METAOP_READS:
        return METAOP_LEASE_SHARED;
    case METAOP_CHANGES:
    case METAOP_COMMITS:
    case METAOP_MAKES:
    case METAOP_REMOVES:
    case METAOP_REPLACES:
        return METAOP_LEASE_NONE;
    case METAOP_SEES:
    case METAOP_BEGINS:
    case METAOP_ENDS:
        break;
    }
    return METAOP_LEASE_ANY;
}

bool metaop_resolves(enum metaop_how how)
{
    return how == METAOP_REMOVES || how == METAOP_REPLACES;
}
