/* Chunks that wait for repair, most urgent first, then oldest. Pure: time comes as an argument
 * (ns). Not thread-safe. */
#ifndef REPLFS_METAD_REPAIRQ_H
#define REPLFS_METAD_REPAIRQ_H
#include "repair.h"
#include "base/u64map.h"

struct repairq_item {
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
struct repairq;
struct repairq *repairq_new(void);
void repairq_free(struct repairq *q);
/* Adds, or updates the one that is there: prio, kind, bytes are replaced, since stays, and the
 * later due wins; a due not after since asks for no delay and changes neither time nor order. since
 * is when a new one begins to age. */
void repairq_push(struct repairq *q, const struct repairq_item *it);
/* Puts back one just popped, before its equals. */
void repairq_unpop(struct repairq *q, const struct repairq_item *it);
/* Takes out the most urgent one that is due. */
bool repairq_pop(struct repairq *q, int64_t now, struct repairq_item *out);
bool repairq_remove(struct repairq *q, uint64_t chunk);
/* Removes, and says what was there. */
bool repairq_take(struct repairq *q, uint64_t chunk, struct repairq_item *out);
bool repairq_has(const struct repairq *q, uint64_t chunk);
size_t repairq_count(const struct repairq *q);
void repairq_stat(const struct repairq *q, enum repair_kind kind, uint64_t *n, uint64_t *bytes);
/* How long to wait after the given number of failures: 1 s doubling to 32 s. */
int64_t repairq_backoff(unsigned fails);
#endif
