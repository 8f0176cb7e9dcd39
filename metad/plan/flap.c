/* See flap.h. No state of its own, no failure modes. */
#include "flap.h"

#define HALF_LIFE (3600ll * 1000000000)
#define LONGEST_MS 3600000u
#define RETURNS_MAX 16u

unsigned flap_returns(const struct flap *f, int64_t now)
{
    int64_t halves = now > f->at ? (now - f->at) / HALF_LIFE : 0;
    return halves < 8 ? f->returns >> halves : 0;
}

void flap_returned(struct flap *f, int64_t now)
{
    unsigned n = flap_returns(f, now);
    f->returns = n < RETURNS_MAX ? n + 1 : n;
    f->at = now;
}

uint64_t flap_dead_ms(const struct flap *f, uint64_t dead_ms, int64_t now)
{
    unsigned n = flap_returns(f, now);
    uint64_t ms = dead_ms << (n > 1 ? n - 1 : 0);
    uint64_t most = dead_ms > LONGEST_MS ? dead_ms : LONGEST_MS;
    return ms < most ? ms : most;
}
