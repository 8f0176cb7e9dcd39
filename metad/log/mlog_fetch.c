/* Snapshots from the leader, for a metad that lacks what the leader's log no longer has.
 *
 * What libraft sends as a snapshot is a descriptor that names a state file and holds the entries since (mlog_ckpt.c).
 * The message (InstallSnapshot) brings neither: it is held back here, and a thread fetches both from the sender, in
 * pieces (CheckpointReq, mlog_serve.c): the descriptor into memory, the state into the data directory under its usual
 * name, checked and synced. Then libraft gets the message, stores the descriptor, and has the state replaced.
 *
 *   IDLE     nothing is held back
 *   RUNNING  the thread fetches
 *   HERE     all is there; the message waits until a snapshot of our own, if libraft is writing one, is done: libraft
 *            (0.22.1) follows a pointer that it has just set to NULL otherwise
 *
 * Meanwhile the leader's heartbeats reach libraft as ever. A second InstallSnapshot is dropped while one is held back.
 * When anything fails, the message is dropped: the next heartbeat is refused, and the leader sends it again.
 *
 * Before libraft gets the message, a checkpoint that we are making is given up, since it is of an older state, and the
 * high-water mark is lowered: libraft drops the whole log. */
#include "mlog_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"

#define LOG_MODULE "mlog"
#define PIECE (1u << 20)
#define PIECE_MS 5000u
#define TRIES 3

/* ---- the thread ---- */

typedef int take_piece(void *arg, uint64_t offset, const uint8_t *p, size_t len);

/* Fetches a file from its start to its end. size: as it must be. */
static int fetch_file(struct mlog *m, struct rpc_conn *conn, unsigned file, uint64_t index,
                      uint64_t size, take_piece *take, void *arg)
{
    Replfs__CheckpointReq q = REPLFS__CHECKPOINT_REQ__INIT;
    RPC_ENVELOPE(env, CHECKPOINT_REQ, checkpoint_req, &q);
    int rc = 0, tries = 0;

    q.cluster = m->uuid;
    q.index = index;
    q.term = m->fetch.msg.install_snapshot.last_term;
    q.file = file;
    while (rc == 0 && q.offset < size) {
        struct rpc_result r = {0};
        q.length = size - q.offset < PIECE ? (uint32_t)(size - q.offset) : PIECE;
        if (atomic_load(&m->fetch.stop))
            return -ERR_SHUTDOWN;
        rc = rpc_call_wait(conn, &env, NULL, PIECE_MS, &r);
        if (rc == 0 &&
            (r.rep->body_case != REPLFS__ENVELOPE__BODY_CHECKPOINT_REPLY ||
             r.rep->checkpoint_reply->size != size || !r.payload || r.payload->len != q.length))
            rc = -ERR_PROTOCOL;
        if (rc == 0)
            rc = take(arg, q.offset, r.payload->data, r.payload->len);
        rpc_result_free(&r);
        if (rc == 0)
            q.offset += q.length;
        else if ((rc == -ERR_BUSY || rc == -ERR_TIMEOUT) && ++tries < TRIES)
            rc = 0;
    }
    return rc;
}

static int take_descriptor(void *arg, uint64_t offset, const uint8_t *p, size_t len)
{
    struct raft_buffer *desc = arg;

    memcpy((uint8_t *)desc->base + offset, p, len);
    return 0;
}

static int take_state(void *arg, uint64_t offset, const uint8_t *p, size_t len)
{
    int fd = *(int *)arg;

    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* The state file, checked, under its name. */
static int fetch_state(struct mlog *m, struct rpc_conn *conn, const struct mlog_desc *d)
{
    char tmp[MLOG_PATH], path[MLOG_PATH];
    int rc = mlog_ckpt_file(tmp, m->dir, d->index, ".fetched.tmp");

    if (rc == 0)
        rc = mlog_ckpt_file(path, m->dir, d->index, "");
    if (rc != 0)
        return rc;
    if (access(path, F_OK) == 0 && mlog_ckpt_verify(m->dir, d) == 0)
        return 0; /* fetched before */
    CLEANUP(close_fdp) int fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    rc = fetch_file(m, conn, 1, d->index, d->size, take_state, &fd);
    if (rc == 0 && fsync(fd) < 0)
        rc = -errno;
    if (rc == 0 && rename(tmp, path) < 0)
        rc = -errno;
    if (rc == 0)
        rc = mlog_dir_sync(m->dir);
    if (rc == 0)
        rc = mlog_ckpt_verify(m->dir, d);
    if (rc != 0)
        unlink(tmp);
    if (rc == -ERR_CORRUPT)
        unlink(path); /* as it came: no use to anybody */
    return rc;
}

static int fetch_all(struct mlog *m, struct rpc_conn *conn)
{
    struct mlog_fetch *f = &m->fetch;
    const struct raft_install_snapshot *s = &f->msg.install_snapshot;
    struct mlog_desc d;
    const char *why;

    f->desc.base = raft_malloc(s->data.len);
    f->desc.len = s->data.len;
    if (!f->desc.base)
        return -ENOMEM;
    int rc = fetch_file(m, conn, 0, s->last_index, s->data.len, take_descriptor, &f->desc);
    if (rc == 0) {
        rc = mlog_desc_decode(f->desc.base, f->desc.len, &d, &why);
        if (rc != 0)
            log_error("the leader's descriptor of a snapshot: %s", why);
    }
    return rc == 0 ? fetch_state(m, conn, &d) : rc;
}

static void *fetch_main(void *arg)
{
    struct mlog *m = arg;
    struct mlog_fetch *f = &m->fetch;
    struct rpc_conn *conn = NULL;

    f->code = rpc_dial(m->net->loop, f->addr, RPC_ROLE_METAD, &m->net->svc, &conn);
    if (f->code == 0) {
        f->code = fetch_all(m, conn);
        rpc_conn_close(conn);
        rpc_conn_unref(conn);
    }
    if (f->code != 0) {
        raft_free(f->desc.base);
        f->desc = (struct raft_buffer){0};
    }
    atomic_store(&f->finished, true);
    uv_async_send(&m->wake);
    return NULL;
}

/* ---- log thread ---- */

static void fetch_drop(struct mlog *m)
{
    struct mlog_fetch *f = &m->fetch;

    raft_configuration_close(&f->msg.install_snapshot.conf);
    raft_free(f->desc.base);
    f->desc = (struct raft_buffer){0};
    f->state = FETCH_IDLE;
}

void mlog_fetch_begin(struct mlog *m, const struct raft_message *msg)
{
    struct mlog_fetch *f = &m->fetch;
    struct raft_message copy = *msg;
    char addr[256];

    if (f->state != FETCH_IDLE || !mlog_net_addr(m, msg->server_id, addr)) {
        raft_configuration_close(&copy.install_snapshot.conf);
        return;
    }
    memcpy(f->addr, addr, sizeof(f->addr));
    f->msg = copy;
    f->msg.server_address = NULL;
    f->desc = (struct raft_buffer){0};
    f->code = 0;
    atomic_store(&f->finished, false);
    atomic_store(&f->stop, false);
    f->state = FETCH_RUNNING;
    log_info("the state at index %llu is fetched from metad %llu", copy.install_snapshot.last_index,
             copy.server_id);
    if (thread_start(&f->thread, "fetch", fetch_main, m) != 0)
        fetch_drop(m);
}

/* Hands the message to libraft. */
static void install(struct mlog *m)
{
    struct mlog_fetch *f = &m->fetch;
    struct raft_message msg = f->msg;
    char addr[32];

    f->msg.install_snapshot.conf = (struct raft_configuration){0};
    msg.install_snapshot.data = f->desc;
    f->desc = (struct raft_buffer){0};
    f->state = FETCH_IDLE;
    mlog_server_addr(addr, msg.server_id);
    msg.server_address = addr;
    mlog_ckpt_cancel(m);
    mlog_io_dropped(m, msg.install_snapshot.last_index);
    uv_update_time(&m->loop);
    m->recv_cb(&m->io, &msg);
}

void mlog_fetch_poll(struct mlog *m)
{
    struct mlog_fetch *f = &m->fetch;

    if (f->state == FETCH_RUNNING && atomic_load(&f->finished)) {
        pthread_join(f->thread, NULL);
        f->state = FETCH_HERE;
        if (f->code != 0) {
            log_error("the state at index %llu could not be fetched: %s",
                      f->msg.install_snapshot.last_index, err_str(f->code));
            fetch_drop(m);
        }
    }
    if (f->state != FETCH_HERE || m->ckpt.state == CKPT_HANDED || m->raft.legacy.snapshot_taking ||
        m->raft.snapshot.installing)
        return;
    /* Things may have changed meanwhile: another leader, or this one. */
    if (m->broken || f->msg.install_snapshot.term < m->raft.current_term ||
        (f->msg.install_snapshot.term == m->raft.current_term &&
         raft_state(&m->raft) == RAFT_LEADER))
        fetch_drop(m);
    else
        install(m);
}

void mlog_fetch_stop(struct mlog *m)
{
    struct mlog_fetch *f = &m->fetch;

    if (f->state == FETCH_IDLE)
        return;
    atomic_store(&f->stop, true);
    if (f->state == FETCH_RUNNING)
        pthread_join(f->thread, NULL);
    fetch_drop(m);
}
