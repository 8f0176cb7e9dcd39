/* Changes of the namespace on their way to metad, each executed once. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_MUTATION_H
#define REPLFS_FUSE_CLIENT_SESSION_MUTATION_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "client/cache/lease_cache_change.h"
#include "meta.pb-c.h"

struct client;
#define MUTATE_MAX 256u
struct mutation {
    Replfs__MetaOp *op; /* the caller's, until done */
    uint64_t need;      /* session that it is bound to, 0: any */
    /* Once, on the thread of mutation_run, without locks; r: the answer, or NULL. m may be freed. It must not wait
     * for a queued change (session_ask): the queue's sender would wait for itself. */
    void (*done)(struct mutation *m, int code, const Replfs__MutationResult *r);
    /* Instead of done, when the deadline has passed and it may still be executed: it has to be handed to
     * another mutation_run as it is. NULL: done is told. */
    void (*late)(struct mutation *m);
    bool known;    /* the lease cache has it already: done sees to it */
    unsigned life; /* client's, when the caller was answered; 0: it waits for this */
    /* private; zero at first */
    uint64_t seq, session; /* whose number it is, 0: it has none */
    bool maybe_done;       /* it was sent, and the answer did not come */
    struct lease_change change;
};
/* Executes them in order, in as few messages as they fit into while nothing goes wrong; waits until all
 * are done. n: at most MUTATE_MAX. Any thread but a loop thread; no lock held. Not behind what is queued of their
 * inodes: see mutate.h. */
void mutation_run(struct client *c, struct mutation *const *list, size_t n, int64_t deadline);
#endif
