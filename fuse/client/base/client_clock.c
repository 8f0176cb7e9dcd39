/* The time that this mount gives to what it changes. Files are stamped by the computer that changes them, since
 * changes are answered before metad has seen them, so their order would not survive clocks that are hours apart
 * (a dead battery, a wrong time zone): then it is metad's time, of which each keepalive tells. Small differences
 * stay, lest a file's time be later than what the computer's own clock says just after.
 *
 * Thread context: any; the offset is one atomic. */
#include "client/base/client_clock.h"
#include <stdlib.h>
#include "base/clock.h"
#include "base/log.h"
#include "client/internal.h"

#define LOG_MODULE "clock"
#define APART (10 * NSEC_PER_SEC)

int64_t client_now(struct client *c)
{
    return clock_wall() + atomic_load_explicit(&c->clock_offset, memory_order_relaxed);
}

void client_told_time(struct client *c, uint64_t wall_ms)
{
    if (!wall_ms || wall_ms > INT64_MAX / NSEC_PER_MSEC)
        return; /* a metad that does not tell */
    int64_t offset = (int64_t)wall_ms * NSEC_PER_MSEC - clock_wall();
    if (llabs(offset) <= APART)
        offset = 0;
    int64_t was = atomic_exchange(&c->clock_offset, offset);
    if (!was == !offset)
        return;
    if (offset)
        log_warn("the clock of this computer is %lld s %s metad's: files get metad's time; set the "
                 "one that is "
                 "wrong (timedatectl set-ntp true)",
                 llabs(offset) / NSEC_PER_SEC, offset < 0 ? "ahead of" : "behind");
    else
        log_info("the clock of this computer agrees with metad's again");
}

int64_t client_deadline(const struct client *c)
{
    return clock_mono() + c->cfg.timeout_ms * NSEC_PER_MSEC;
}
