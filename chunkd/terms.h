/* The highest term of a metad that led, as far as this chunkd knows: what was ordered in a lower one comes from a metad
 * that does not lead any more, and may know nothing of what its successor decided. Thread-safe. */
#ifndef REPLFS_CHUNKD_TERMS_H
#define REPLFS_CHUNKD_TERMS_H
#include <stdint.h>

struct terms;
struct terms *terms_new(void);     /* aborts without memory */
void terms_free(struct terms *t);  /* after terms_close; NULL is fine */
void terms_close(struct terms *t); /* nobody saves any more: who waits is told -ERR_SHUTDOWN */
/* May an order of this term (0: of a metad that tells none) be carried out? 0; -ERR_OLD_TERM. A term that is news is
 * on disk before this returns 0: -ERR_BUSY when that takes too long. Waits: threads of the order pool. */
int terms_order(struct terms *t, uint64_t term);

/* ---- for the heartbeat ---- */

/* news(arg): a term is to be saved. Any thread. */
void terms_on_news(struct terms *t, void (*news)(void *arg), void *arg);
uint64_t terms_highest(struct terms *t); /* saved or not; 0: none */
void terms_saved(struct terms *t, uint64_t term);
#endif
