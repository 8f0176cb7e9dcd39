/* See outage.h. Pure: no state, no failure modes, any thread. */
#include "outage.h"

/* part of whole is more than so many percent of it; no overflow up to an exabyte. */
static bool exceeds(uint64_t part, uint64_t whole, unsigned percent)
{
    return whole > 0 && (double)part * 100 > (double)whole * percent;
}

bool outage_holds(const struct outage *o, unsigned max_dead, uint64_t accepted)
{
    if (o->down_hosts <= 1 || o->dead_chunkds <= accepted)
        return false;
    return exceeds(o->down_hosts, o->hosts, max_dead) || exceeds(o->down_bytes, o->bytes, max_dead);
}
