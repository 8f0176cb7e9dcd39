/* fsync of everything: all files are on their way before the first is waited for. */
#include "client/calls/sync_all.h"
#include <errno.h>
#include <stdlib.h>
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/internal.h"
#include "client/queue/queue.h"
#include "client/writeback/drain.h"
#include "client/writeback/flush.h"
#include "base/lock.h"

int client_sync(struct client *c)
{
    struct cfile **list;
    unsigned lost = client_lost(c), fails = atomic_load(&c->fails);
    size_t n = cfile_dirty_all(c, &list);
    int rc = 0;
    for (size_t i = 0; i < n; i++) { /* all on their way before the first is waited for */
        lock_acquire(&list[i]->mu);
        drain_send(list[i], true);
        lock_release(&list[i]->mu);
    }
    for (size_t i = 0; i < n; i++) {
        int e = flush_waits(c, rc) ? flush_file(list[i], FLUSH_SYNC, false) : rc;
        e = !e && atomic_load(&c->fails) != fails ? -EIO
                                                  : e; /* told to the holders of the file, too */
        rc = rc ? rc : e;
        cfile_unref(list[i]);
    }
    free(list);
    int late = flush_waits(c, rc) ? queue_wait(c, 0) : rc;
    rc = rc ? rc : late;
    client_flush_atime(c, 0);
    if (!rc && client_lost(c) != lost)
        rc = -EIO;
    return rc;
}
