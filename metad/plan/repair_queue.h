/* Chunks that wait for repair, most urgent first, then oldest. Pure: time comes as an argument
 * (ns). Not thread-safe. */
#ifndef REPLFS_METAD_PLAN_REPAIR_QUEUE_H
#define REPLFS_METAD_PLAN_REPAIR_QUEUE_H
#include "repair.h"
#include "base/u64map.h"

struct repair_queue_item {
    uint64_t chunk;
    int64_t since; /* when the need was first seen */
    int64_t due;   /* not before */
    uint64_t bytes;
    uint8_t prio;  /* 0 .. REPAIR_PRIO_MAX - 1 */
    uint8_t kind;  /* enum repair_kind */
    uint8_t fails; /* attempts that failed, for backoff */
    /* chunkds whose copies the last attempt read in full before it had to stop for want of a free
     * place, and when: the next need not read them again; 0: none */
    uint32_t proven[2];
    int64_t proven_at;
};
struct repair_queue;
struct repair_queue *repair_queue_new(void);
void repair_queue_free(struct repair_queue *q);
/* Adds, or updates the one that is there: prio, kind, bytes are replaced, since stays, and the
 * later due wins; a due not after since asks for no delay and changes neither time nor order. since
 * is when a new one begins to age. */
void repair_queue_push(struct repair_queue *q, const struct repair_queue_item *it);
/* Puts back one just popped, before its equals. */
void repair_queue_unpop(struct repair_queue *q, const struct repair_queue_item *it);
/* Takes out the most urgent one that is due. */
bool repair_queue_pop(struct repair_queue *q, int64_t now, struct repair_queue_item *out);
bool repair_queue_remove(struct repair_queue *q, uint64_t chunk);
/* Removes, and says what was there. */
bool repair_queue_take(struct repair_queue *q, uint64_t chunk, struct repair_queue_item *out);
bool repair_queue_has(const struct repair_queue *q, uint64_t chunk);
size_t repair_queue_count(const struct repair_queue *q);
void repair_queue_stat(const struct repair_queue *q, enum repair_kind kind, uint64_t *n,
                       uint64_t *bytes);
/* How long to wait after the given number of failures: 1 s doubling to 32 s. */
int64_t repair_queue_backoff(unsigned fails);
#endif
