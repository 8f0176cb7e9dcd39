/* Reading a file through a memory map: a page that the disk cannot give is SIGBUS, which would end the
 * process. Inside a guard it is a jump back to where the guard began instead:
 *
 *   struct map_guard g;
 *   map_guard_enter(&g);
 *   if (sigsetjmp(g.env, 0))
 *       return -EIO;          // the guard is left already
 *   ... use the map ...
 *   map_guard_leave(&g);
 *
 * What was called in between never returns: no lock may be taken in there that is still wanted, and
 * whatever state it was changing is not to be used again. Any thread; guards of a thread may nest. */
#ifndef REPLFS_CHUNKD_STORE_MAP_GUARD_H
#define REPLFS_CHUNKD_STORE_MAP_GUARD_H
#include <setjmp.h>

struct map_guard {
    sigjmp_buf env;
    struct map_guard *outer;
};
/* Takes SIGBUS over for the process; once is enough, more does no harm. */
void map_guard_init(void);
void map_guard_enter(struct map_guard *g);
void map_guard_leave(struct map_guard *g);
#endif
