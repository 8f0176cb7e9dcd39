/* Whether all metads have the same state: each makes a digest of its own at the same positions of the log (CheckOp), the
 * leader collects them, and the next CheckOp carries them to all, so that each compares its own with what the others
 * have. One that differs from most must not go on.
 *
 * A digest is made by a child of this process, from memory as it was at that position; nobody waits for it. */
#ifndef REPLFS_METAD_LOG_DIGESTS_H
#define REPLFS_METAD_LOG_DIGESTS_H
#include "metad/fsm/fsm_cluster.h"

struct digests;
/* self: this metad's id. dir: its data directory, where one that differs leaves a file that keeps it from starting
 * again (digests_barred); NULL: it does not. */
struct digests *digests_new(struct fsm *f, uint32_t self, const char *dir);
void digests_free(struct digests *d); /* ends a child under way. NULL is fine */

/* A CheckOp is being applied at this position: compares, then, with `make`, starts the digest of this position, unless a
 * former one is still being made. 0; -ERR_CORRUPT after log lines: this metad's state is not that of the others. The log thread,
 * with the fsm's write lock held. */
int digests_check(struct digests *d, uint64_t position, const Replfs__CheckOp *op, bool make);
/* How long the last fork for one took: the log thread stood still meanwhile. 0: there was none. The log thread. */
int64_t digests_fork_ns(const struct digests *d);

/* This metad's newest one. False: none is ready. Any thread. */
bool digests_mine(struct digests *d, uint64_t *position, uint64_t *digest);
/* What another metad has at a position. Any thread. */
void digests_told(struct digests *d, uint32_t metad, uint64_t position, uint64_t digest);

/* For the leader: the next CheckOp, with what is known of the newest position of which more than half of the metads
 * have told a digest, own first; else with nothing to compare. The arrays live until the next call. False: there is
 * only one metad, or the feature level is too low. Takes the fsm lock. */
bool digests_next(struct digests *d, Replfs__CheckOp *out);

/* What n digests of one position, of `metads` that there are, say to one who has `mine`: right is what more than half of
 * all metads have; when nothing is, and all have told theirs, what the first has, the leader. Before that nobody is
 * wrong: a leader that differs would have the others stop. */
enum digests_verdict { DIGESTS_SAME, DIGESTS_OTHERS_DIFFER, DIGESTS_DIFFER };
enum digests_verdict digests_judge(uint64_t mine, const uint64_t *v, size_t n, size_t metads);

/* The directory belongs to a metad that was found to differ: 0, or -ERR_CORRUPT after a log line with the way out. */
int digests_barred(const char *dir);
#endif
