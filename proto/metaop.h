/* The table of metadata operations (MetaOp): one row for each, and what it says to those that need not know
 * the operation itself: which inodes and names it touches and how, who may send it, what it is charged to.
 *
 * metad takes from it which leases stand in the way (service_needs), who may propose what (check_op, fsm_apply),
 * what to look at before it is logged; the client takes from it what has to be sent first (behind_before), what a
 * change leaves known (lcache_mutated), which quota it meets. What is particular to one operation alone stays in a
 * switch over enum metaop without a default, so that a new operation does not compile until it is classified
 * everywhere: first in the table (metaop_of), then in each such switch.
 *
 * Nothing here has state, takes a lock, blocks or allocates: any thread. An operation passed in is complete: what
 * its op_case names is there (fsm_apply and check_op see to it for what came over the wire). */
#ifndef REPLFS_METAOP_H
#define REPLFS_METAOP_H
#include <stdbool.h>
#include <stdint.h>
#include "meta.pb-c.h"

/* X(ID, member, sender, level, charged, grows, weight, late, below, touches)
 *   ID, member  the operation as protobuf-c names it: REPLFS__META_OP__OP_<ID>, op-><member>
 *   sender      CLIENT: any session. OWNER: a session, of itself alone. LEADER: only metad itself
 *   level       the feature level that it came with: logged only once the state has it (FeatureOp), so that no metad
 *               of an older version meets it
 *   charged     the inode whose quotas it may exceed, 0: none
 *   grows       makes metad's state grow: refused when there is no memory for that
 *   weight      what metad looks at before it logs it, so that none takes long: METAOP_WEIGHT_*
 *   late        the inode whose change meanwhile forbids it when it comes late (Mutation.kept), 0: apply looks at
 *               no more than names
 *   below       what it asks of the tree below what it touches: METAOP_BELOW_*
 *   touches     UNTOUCHED, or what it does to which inode or name, in the order in which leases are asked for; joined
 *               by commas, in parentheses when there are several:
 *     READS(ino)           shows or copies what is in the inode
 *     CHANGES(ino)         (CHANGES_ALL(ino[], n): of many) changes it, after all that was kept back of it
 *     COMMITS(ino)         makes bytes part of it: before changes that are held until its bytes are there
 *     SEES(ino[], time[], n)  sets atime alone, which no lease protects
 *     MAKES(dir, name)     a name that must not be there yet
 *     REMOVES(dir, name)   a name that is there, and changes what it refers to
 *     REPLACES(dir, name)  a name that may be there, and changes what it refers to; what comes in its place is whole
 *     BEGINS(ino), ENDS_ALL(ino[], n)  an inode that nobody can have a lease on: not there before, or not any more
 * Expressions are of `op`, a const Replfs__MetaOp *. */
/* clang-format off */
#define METAOP_TABLE(X)                                                                                             \
    X(CREATE, create, CLIENT, 0, op->create->parent, true, ATTRS, 0, NOTHING,                                       \
      (MAKES(op->create->parent, op->create->name), BEGINS(op->create->ino)))                                       \
    X(UNLINK, unlink, CLIENT, 0, 0, false, NONE, 0, EMPTY_IF(op->unlink->dir),                                      \
      REMOVES(op->unlink->parent, op->unlink->name))                                                                \
    X(RENAME, rename, CLIENT, 0, op->rename->new_parent, false, MOVE, 0, EMPTY,                                     \
      (REMOVES(op->rename->parent, op->rename->name), REPLACES(op->rename->new_parent, op->rename->new_name)))      \
    X(LINK, link, CLIENT, 0, 0, true, NONE, 0, NOTHING,                                                             \
      (CHANGES(op->link->ino), MAKES(op->link->parent, op->link->name)))                                            \
    X(SETATTR, setattr, CLIENT, 0, 0, false, NONE, op->setattr->ino, NOTHING, CHANGES(op->setattr->ino))            \
    X(COMMIT, commit, CLIENT, 0, op->commit->ino, op->commit->over == 0, OVER, op->commit->ino, NOTHING,            \
      COMMITS(op->commit->ino))                                                                                     \
    X(SET_GOAL, set_goal, CLIENT, 0, 0, false, INODES, 0, NOTHING,                                                  \
      CHANGES_ALL(op->set_goal->ino, op->set_goal->n_ino))                                                          \
    X(ATIME, atime, CLIENT, 0, 0, false, NONE, 0, NOTHING,                                                          \
      SEES(op->atime->ino, op->atime->atime_ns, op->atime->n_ino))                                                  \
    X(XATTR, xattr, CLIENT, 0, 0, !op->xattr->remove, ATTRS, 0, NOTHING, CHANGES(op->xattr->ino))                   \
    X(CLONE, clone, CLIENT, 0, op->clone->dst, true, NONE, 0, NOTHING,                                              \
      (READS(op->clone->src), CHANGES(op->clone->dst)))                                                             \
    X(FALLOCATE, fallocate, CLIENT, 0, op->fallocate->ino, !(op->fallocate->mode & 2 /* FALLOC_FL_PUNCH_HOLE */),   \
      NONE, 0, NOTHING, CHANGES(op->fallocate->ino))                                                                \
    X(QUOTA, quota, CLIENT, 0, 0, false, NONE, 0, ALL, CHANGES(op->quota->ino))                                     \
    X(SESSION_CLOSE, session_close, OWNER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                \
    X(SESSION_OPEN, session_open, LEADER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                 \
    X(REAP, reap, LEADER, 0, 0, false, NONE, 0, NOTHING, ENDS_ALL(op->reap->ino, op->reap->n_ino))                  \
    X(RESERVE, reserve, LEADER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                           \
    X(CHUNKD_ADD, chunkd_add, LEADER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                     \
    X(CHUNKD_REMOVE, chunkd_remove, LEADER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                               \
    X(INCARNATION, incarnation, LEADER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                   \
    X(HOLDS, holds, LEADER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                               \
    X(FUTURE, future, LEADER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                             \
    X(RECOVER, recover, LEADER, 0, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                           \
    X(METAD, metad, LEADER, 1, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                               \
    X(CONFIG, config, LEADER, 1, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                             \
    X(CAP_KEY, cap_key, LEADER, 1, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                           \
    X(REPLACED, replaced, LEADER, 1, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                         \
    X(FEATURE, feature, LEADER, 1, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                           \
    X(CHECK, check, LEADER, 1, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                               \
    X(CHUNKD_SET, chunkd_set, LEADER, 2, 0, false, NONE, 0, NOTHING, UNTOUCHED)                                     \
    X(COMPACT, compact, LEADER, 2, 0, false, NONE, 0, NOTHING, UNTOUCHED)
/* clang-format on */

/* clang-format off */
#define METAOP_ENUM_(ID, ...) METAOP_##ID,
#define METAOP_ONE_(...) + 1
enum metaop {
    METAOP_NONE, /* no operation, or one that this version does not know */
    METAOP_TABLE(METAOP_ENUM_)
};
enum { METAOP_COUNT = 1 METAOP_TABLE(METAOP_ONE_) }; /* of the values of enum metaop, which begin with 0 */
#undef METAOP_ENUM_
#undef METAOP_ONE_

/* METAOP_CASES_LEADER: the labels of all operations that no session sends, for the switches of those that see
 * operations of sessions alone. */
#define METAOP_LEADER_CASE_(ID, member, SENDER, ...) METAOP_LEADER_CASE_##SENDER(ID)
#define METAOP_LEADER_CASE_CLIENT(ID)
#define METAOP_LEADER_CASE_OWNER(ID)
#define METAOP_LEADER_CASE_LEADER(ID) case METAOP_##ID:
#define METAOP_CASES_LEADER METAOP_TABLE(METAOP_LEADER_CASE_)
/* clang-format on */

/* op_case as an enum metaop; METAOP_NONE: not set, or a number that is none of the table. */
enum metaop metaop_of(const Replfs__MetaOp *op);

/* For people: "create", "none". A static string. */
const char *metaop_name(enum metaop m);

enum metaop_sender { METAOP_BY_NOBODY, METAOP_BY_CLIENT, METAOP_BY_OWNER, METAOP_BY_LEADER };
/* METAOP_NONE: METAOP_BY_NOBODY. */
enum metaop_sender metaop_sender(enum metaop m);

/* The newest feature level of this version. New operations, and new fields of old ones that fsm_apply looks at, get
 * the next one. */
#define METAOP_LEVEL_MAX 2u
/* The level that it needs, METAOP_NONE: 0. */
unsigned metaop_level(enum metaop m);

enum metaop_weight {
    METAOP_WEIGHT_NONE,
    METAOP_WEIGHT_INODES, /* it may name too many, or one twice */
    METAOP_WEIGHT_OVER,   /* it may look through too many extents */
    METAOP_WEIGHT_MOVE,   /* it may carry too many inodes from one quota to another */
    METAOP_WEIGHT_ATTRS   /* a quota may have no room for the attributes that it makes */
};
enum metaop_weight metaop_weight(enum metaop m);

enum metaop_below {
    METAOP_BELOW_NOTHING,
    METAOP_BELOW_EMPTY, /* a directory must be, or may have to be, empty: what was removed in it comes first */
    METAOP_BELOW_ALL /* it holds for all that is below the inode, at once */
};
/* METAOP_NONE: METAOP_BELOW_NOTHING; likewise 0 and false below. */
enum metaop_below metaop_below(const Replfs__MetaOp *op);

/* The inode whose quotas it may exceed, 0: none. */
uint64_t metaop_charged(const Replfs__MetaOp *op);

/* It makes metad's state grow. */
bool metaop_grows(const Replfs__MetaOp *op);

/* The inode that must not have been changed by others meanwhile when the operation comes late, 0: none. */
uint64_t metaop_late(const Replfs__MetaOp *op);

enum metaop_how {
    METAOP_READS,
    METAOP_CHANGES,
    METAOP_COMMITS,
    METAOP_SEES,
    METAOP_MAKES,
    METAOP_REMOVES,
    METAOP_REPLACES,
    METAOP_BEGINS,
    METAOP_ENDS
};
struct metaop_touch {
    enum metaop_how how;
    uint64_t ino;                    /* with a name: of its directory */
    const ProtobufCBinaryData *name; /* MAKES, REMOVES, REPLACES: the operation's own; else NULL */
    int64_t atime_ns;                /* SEES */
};

/* fn for each inode and name that the operation touches, in the table's order. The touch lives until fn returns,
 * its name as long as op. Allocates nothing and holds nothing; fn may do what it likes. */
typedef void metaop_visit_fn(void *arg, const struct metaop_touch *t);
void metaop_visit(const Replfs__MetaOp *op, metaop_visit_fn *fn, void *arg);

/* It touches something in this way. */
bool metaop_does(const Replfs__MetaOp *op, enum metaop_how how);

/* What others' leases on an inode, or on the directory of a name, must have come down to before it is touched so:
 * those that hold it exclusively have kept back what a reader must see; every lease shows what a change makes
 * wrong. */
enum metaop_lease { METAOP_LEASE_ANY, METAOP_LEASE_SHARED, METAOP_LEASE_NONE };
enum metaop_lease metaop_lease(enum metaop_how how);

/* The inode that the name refers to is changed as well, and its leases come down like the directory's. */
bool metaop_resolves(enum metaop_how how);
#endif
