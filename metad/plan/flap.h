/* Chunkds that die and come back again and again: each time as much would be copied as they hold, and dropped when they are
 * back. So one that did lately may be silent for longer before it counts as dead: twice as long from the second return on, then four
 * times, and so on, up to an hour, as long as enough other copies are awake; and copies are rather kept elsewhere, so that each time less is
 * copied for it. What it did is forgotten by half each hour. Pure; times in ns of any one clock. Any thread. */
#ifndef REPLFS_METAD_PLAN_FLAP_H
#define REPLFS_METAD_PLAN_FLAP_H
#include <stdint.h>

struct flap { /* of one chunkd, all zero at first */
    unsigned returns;
    int64_t at; /* the last return, or what was forgotten since then */
};
/* It is back after it had counted as dead. */
void flap_returned(struct flap *f, int64_t now);
/* Returns that count still. */
unsigned flap_returns(const struct flap *f, int64_t now);
/* How long it may be silent, in ms; dead_ms: others. */
uint64_t flap_dead_ms(const struct flap *f, uint64_t dead_ms, int64_t now);
#endif
