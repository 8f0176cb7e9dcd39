/* What lower floors of the client call back. Each function here says in one line what a piece of news means for the
 * files that have to know. */
#include "client/lifecycle/events.h"
#include <stdlib.h>
#include "client/calls/recall.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/file/open_told.h"
#include "client/internal.h"
#include "client/io/chunkds.h"
#include "client/io/grants.h"
#include "client/locks/lock_claims.h"
#include "client/queue/queue.h"
#include "client/session/session.h"
#include "client/writeback/close_wait.h"
#include "client/writeback/commit.h"
#include "client/writeback/events.h"
#include "client/writeback/flush.h"
#include "client/writeback/send.h"

#define LOG_MODULE "client"

/* ---- the session ---- */

/* Inodes of which metad does not know everything yet, at most max. */
static uint64_t *kept_back(struct client *c, size_t max, size_t *n)
{
    struct cfile **list;
    size_t nfiles = cfile_dirty_all(c, &list);
    uint64_t *inos = malloc((nfiles + 1) * sizeof(*inos));
    if (!inos)
        abort();
    *n = 0;
    for (size_t i = 0; i < nfiles; i++) {
        inos[(*n)++] = list[i]->ino;
        cfile_unref(list[i]);
    }
    free(list);
    queue_inos(c, &inos, n);
    if (*n > max)
        *n = max; /* the rest goes to metad without a lease */
    return inos;
}

static void lost(struct client *c)
{
    grants_drop_all(c);
    client_locks_lost(c);
}

static void holding(struct client *c, Replfs__KeepaliveReq *m, uint64_t *held, size_t max)
{
    m->oldest_grant = grants_oldest(c);
    m->held = held;
    m->n_held = grants_held(c, held, max, &m->newest_grant);
}

static const struct session_events session_events = {
    .open_inos = cfile_open_inos,
    .kept_back = kept_back,
    .claims = client_locks_claims,
    .claims_free = client_locks_claims_free,
    .lost = lost,
    .lapsed = client_locks_lost,
    .forked = cfile_forget_maps,
    .holding = holding,
    .renewed = chunkds_saw_epoch,
    .tick = chunkds_tick,
    .before_ask = queue_before_ask,
    .name_queued = queue_naming,
    .request = recall_request,
};

/* ---- the others ---- */

static const struct grants_events grants_events = {.again = send_pump, .refused = send_give_up};
static const struct queue_events queue_events = {
    .flush_ino = client_flush_ino,
    .flush_closed = flush_closed,
};
static const struct writeback_events writeback_events = {
    .may_commit = commit_eager,
    .acknowledged = close_wait_go_on,
};

void events_set(struct client *c)
{
    c->session.events = &session_events;
    c->grants.events = &grants_events;
    c->queue.events = &queue_events;
    c->writeback = &writeback_events;
}
