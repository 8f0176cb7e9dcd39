/* Opening and closing a client, and the calls that concern no open file in particular.
 *
 * Closing: everything dirty is flushed within the mount's time-out; then the background threads
 * stop, the session is left to expire (metad has no close of a session in the protocol: its
 * lease ends it), the loop closes all connections, which completes what was on its way, and
 * memory goes last. */
#include "client/lifecycle/lifecycle.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/lock.h"
#include "client/base/client_clock.h"
#include "base/u64map.h"
#include "client/base/limits.h"
#include "client/cache/lease_cache.h"
#include "client/calls/opens.h"
#include "client/calls/recall.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/internal.h"
#include "client/io/async_reply.h"
#include "client/io/chunkds.h"
#include "client/io/grants.h"
#include "client/lifecycle/events.h"
#include "client/locks/lock_claims.h"
#include "client/locks/lock_requests.h"
#include "client/names/atime.h"
#include "client/names/deferred_names.h"
#include "client/prefetch/dir_pages.h"
#include "client/prefetch/prefetch.h"
#include "client/queue/queue.h"
#include "client/session/metads.h"
#include "client/session/keepalive.h"
#include "client/session/session.h"
#include "client/writeback/flush.h"
#include "client/writeback/flusher.h"

#define LOG_MODULE "client"
#define CACHE_MAX 200000u

static void read_host_id(struct client *c)
{
    if (c->cfg.host_id && *c->cfg.host_id) {
        snprintf(c->host_id, sizeof(c->host_id), "%s", c->cfg.host_id);
        return;
    }
    char id[MACHINE_ID_MAX];
    if (machine_id(id) == 0) /* else no copy is known to be near */
        snprintf(c->host_id, sizeof(c->host_id), "%s", id);
}

static void locks_init(struct client *c)
{
    lock_init(&c->session.mu, LOCK_SESSION);
    cond_init(&c->session.cv);
    lock_init(&c->grants.mu, LOCK_GRANTS);
    cond_init(&c->grants.cv);
    lock_init(&c->files.mu, LOCK_FILE_TABLE);
    cond_init(&c->files.flush_cv);
    lock_init(&c->dirty.mu, LOCK_DIRTY);
    cond_init(&c->dirty.cv);
    lock_init(&c->queue.mu, LOCK_CHANGE_QUEUE);
    cond_init(&c->queue.cv);
    cond_init(&c->queue.done_cv);
    c->queue.tail = &c->queue.head;
    async_reply_init(c);
    chunkds_init(c);
    atime_init(c);
    client_locks_start(c);
    deferred_names_init(c);
    lock_init(&c->prefetch.mu, LOCK_PREFETCH);
    cond_init(&c->prefetch.cv);
    cond_init(&c->prefetch.fetched);
    lock_init(&c->dirs.mu, LOCK_DIR_PAGES);
    cond_init(&c->dirs.cv);
    cond_init(&c->dirs.came);
}

/* Accepts a half-built client. */
static void client_free(struct client *c)
{
    c->stopping = true;
    dirs_stop(c);
    prefetch_stop(c);
    flusher_stop(c);
    queue_stop(c);
    grants_stop(c);
    lock_requests_stop(c);
    session_stop(c);
    lease_cache_stop(c->leases);
    if (c->loop)
        rpc_loop_free(c->loop); /* completes all calls */
    open_files_free(c);
    u64map_free(&c->queue.inos);
    chunkds_free(c);
    atime_free(c);
    client_locks_free(c);
    deferred_names_free(c);
    lease_cache_free(c->leases);
    free(c->name);
    free(c);
}

int client_open(const struct client_config *cfg, struct client **out)
{
    struct client *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->cfg = *cfg;
    atomic_init(&c->life, 1);
    c->cfg.timeout_ms = cfg->timeout_ms ? cfg->timeout_ms : 60000;
    c->cfg.dirty_max = cfg->dirty_max ? cfg->dirty_max : 128ull << 20;
    c->cfg.flush_ms = cfg->flush_ms ? cfg->flush_ms : 1000;
    if (c->cfg.dirty_max < 4 * APPEND_MAX)
        c->cfg.dirty_max = 4 * APPEND_MAX;
    c->leases = lease_cache_new(cfg->cache_max ? cfg->cache_max : CACHE_MAX, cfg->invalidate,
                                cfg->invalidate_arg, recall_forget, c);
    c->name = strdup(cfg->name ? cfg->name : "client");
    read_host_id(c);
    locks_init(c);
    events_set(c);
    int rc = c->name ? rpc_loop_new(&cfg->rpc, &c->loop) : -ENOMEM;
    if (!rc)
        rc = session_start(c);
    if (!rc)
        rc = chunkds_refresh(c);
    if (!rc)
        rc = grants_start(c);
    if (!rc)
        rc = queue_start(c);
    if (!rc)
        rc = flusher_start(c);
    if (!rc)
        rc = prefetch_start(c);
    if (!rc)
        rc = dirs_start(c);
    if (rc) {
        client_free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void client_wait_answers(struct client *c)
{
    async_reply_wait(c);
}

void client_close(struct client *c)
{
    struct cfile **list;
    async_reply_wait(c);
    size_t n = cfile_dirty_all(c, &list);
    int rc = 0;
    int64_t until = client_deadline(c); /* of all, should nobody answer */
    for (size_t i = 0; i < n; i++) {
        bool waits = clock_mono() < until || flush_waits(c, rc);
        rc = waits ? flush_file(list[i], FLUSH_COMMIT, true) : rc;
        if (rc)
            log_error("inode %llu: not wholly written at the end: %s",
                      (unsigned long long)list[i]->ino, err_str(rc));
        cfile_unref(list[i]);
    }
    free(list);
    queue_wait(c, 0);
    client_flush_atime(c, 0);
    client_free(c);
}

int client_reload_tls(struct client *c)
{
    return rpc_loop_reload_tls(c->loop);
}

const char *client_cluster(struct client *c)
{
    return c->session.cluster;
}

/* ---- plain calls ---- */

void client_stat(struct client *c, struct client_stat *out)
{
    memset(out, 0, sizeof(*out));
    lock_acquire(&c->dirty.mu);
    out->dirty_bytes = c->dirty.bytes;
    lock_release(&c->dirty.mu);
    out->inflight_appends = c->appends;
    out->sealed_early = c->sealed_early;
    out->read_retries = c->read_retries;
    out->crc_errors = c->crc_errors;
    out->connected = session_connected(c);
    lock_acquire(&c->session.mu);
    if (c->session.nmetads)
        snprintf(out->metad, sizeof(out->metad), "%.63s", c->session.metads[c->session.cur].addr);
    lock_release(&c->session.mu);
}
