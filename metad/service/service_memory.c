/* A ceiling for metad's memory. The whole state is in memory, and clients make it grow: files, extents,
 * attributes that no quota counts. Without a ceiling the kernel's OOM killer ends metad, and again
 * after each start. So above the ceiling what makes the state grow is refused with ENOSPC, while
 * reading, deleting and shrinking go on; health warns from nine tenths of it.
 *
 * Measured is the process's resident memory, once a second. What deletions free is used again, but
 * need not go back to the system before metad is started again.
 *
 * Threads: service_memory_tick on the opens thread; the flag is all that others look at. */
#include "service_internal.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/machine.h"
#include "metaop.h"

#define LOG_MODULE "service"
#define LOOK_EVERY NSEC_PER_SEC
#define GAP 20u /* it must fall by a twentieth before growth is allowed again */

static uint64_t resident(void)
{
    unsigned long long total = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &total, &pages) != 2)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void service_memory_tick(struct service *s)
{
    int64_t now = clock_mono();

    if (now < s->memory_next)
        return;
    s->memory_next = now + LOOK_EVERY;
    if (s->cfg.max_memory == 0)
        s->cfg.max_memory = machine_memory() / 10 * 9;
    uint64_t used = resident(), max = s->cfg.max_memory;
    bool was = atomic_load(&s->memory_full), full = used > (was ? max - max / GAP : max);
    atomic_store(&s->memory_full, full);
    if (full && !was)
        log_error("metad uses %llu MiB of memory, more than the %llu MiB of --max-memory: nothing "
                  "new is taken (ENOSPC)",
                  (unsigned long long)(used >> 20), (unsigned long long)(max >> 20));
    if (used > max / 10 * 9)
        nodes_note(s->cfg.nodes, full ? 2 : 1, "metad-memory",
                   "give it more memory or raise --max-memory; or delete files, large extended "
                   "attributes, and start metad again",
                   "metad uses %llu of the %llu MiB of memory that it may%s",
                   (unsigned long long)(used >> 20), (unsigned long long)(max >> 20),
                   full ? ": new files and data are refused" : "");
}

bool service_memory_refuses(struct service *s, const Replfs__MetaOp *op)
{
    return atomic_load_explicit(&s->memory_full, memory_order_relaxed) && metaop_grows(op);
}
