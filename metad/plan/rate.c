/* See rate.h. No failure modes, any thread that owns the rate. */
#include "rate.h"

#define SAVED_S 0.25 /* else small pieces would be as few as the looks */

bool rate_free(struct rate *r, uint64_t limit, int64_t now)
{
    double paid = now > r->at ? (double)limit * (double)(now - r->at) / 1e9 : 0;
    double least = -(double)limit * SAVED_S;
    r->owed = !limit ? 0 : r->owed - paid > least ? r->owed - paid : least;
    r->at = now;
    return r->owed <= 0;
}

void rate_owe(struct rate *r, uint64_t limit, uint64_t bytes)
{
    if (limit)
        r->owed += (double)bytes;
}
