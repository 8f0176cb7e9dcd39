/* A limit in bytes a second for things that are begun whole: one may begin while nothing is owed, and what it moves is owed
 * then, until time has paid for it, a quarter of a second in advance at most. So the average is kept with pieces of any size. Pure; times in ns of any one clock. */
#ifndef REPLFS_METAD_PLAN_RATE_H
#define REPLFS_METAD_PLAN_RATE_H
#include <stdbool.h>
#include <stdint.h>

struct rate {    /* all zero at first */
    double owed; /* bytes; below 0: paid in advance */
    int64_t at;
};
/* Whether something may begin. limit: bytes a second, 0: any. */
bool rate_free(struct rate *r, uint64_t limit, int64_t now);
/* It begins, and moves so many bytes. */
void rate_owe(struct rate *r, uint64_t limit, uint64_t bytes);
#endif
