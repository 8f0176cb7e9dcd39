/* Pieces of snapshots for metads that fetch them (CheckpointReq, mlog_fetch.c).
 *
 * They are read from the disk, so on a thread of their own: made with the first request, one piece after the other.
 * Files are found by name each time; one that is gone by then (a newer snapshot took its place) is -ENOENT, and the
 * other side begins anew. Requests wait under n->mu; too many are refused. */
#include "mlog_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"

#define LOG_MODULE "mlog"
#define PIECES_MAX 64u
#define PIECE (1u << 20)

struct mlog_piece {
    struct mlog_piece *next;
    struct rpc_req *req;
};

/* libraft names them snapshot-TERM-INDEX-TIME. */
static int open_descriptor(struct mlog *m, uint64_t term, uint64_t index)
{
    char prefix[64];
    DIR *d = opendir(m->log_dir);
    int fd = -ENOENT;

    if (!d)
        return -errno;
    snprintf(prefix, sizeof(prefix), "snapshot-%" PRIu64 "-%" PRIu64 "-", term, index);
    for (struct dirent *e; fd == -ENOENT && (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0 ||
            (len > 5 && strcmp(e->d_name + len - 5, ".meta") == 0))
            continue;
        fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            fd = -errno;
    }
    closedir(d);
    return fd;
}

static int open_piece(struct mlog *m, const Replfs__CheckpointReq *r)
{
    char path[MLOG_PATH];

    if (r->file == 0)
        return open_descriptor(m, r->term, r->index);
    int rc = mlog_ckpt_file(path, m->dir, r->index, "");
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int read_piece(int fd, uint64_t offset, struct buf *b, size_t want)
{
    while (b->len < want) {
        ssize_t n = pread(fd, b->data + b->len, want - b->len, (off_t)(offset + b->len));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ENODATA;
        b->len += (size_t)n;
    }
    return 0;
}

static void answer_piece(struct mlog *m, struct rpc_req *req)
{
    const Replfs__CheckpointReq *r = req->env->checkpoint_req;
    Replfs__CheckpointReply rep = REPLFS__CHECKPOINT_REPLY__INIT;
    RPC_ENVELOPE(env, CHECKPOINT_REPLY, checkpoint_reply, &rep);
    struct stat st;
    int rc = 0;
    CLEANUP(close_fdp) int fd = open_piece(m, r);

    if (fd < 0 || fstat(fd, &st) < 0) {
        rpc_fail(req, fd < 0 ? fd : -errno, "that snapshot is not here (any more)");
        return;
    }
    rep.size = (uint64_t)st.st_size;
    uint64_t left = r->offset < rep.size ? rep.size - r->offset : 0;
    struct buf *b = buf_new(r->length > 0 ? r->length : 1);
    rc = read_piece(fd, r->offset, b, left < r->length ? (size_t)left : r->length);
    if (rc == 0) {
        rpc_reply(req, &env, b);
        return;
    }
    buf_unref(b);
    rpc_fail(req, rc, "the snapshot cannot be read");
}

static void *serve_main(void *arg)
{
    struct mlog_net *n = arg;

    lock_acquire(&n->mu);
    while (!n->serve_stop) {
        struct mlog_piece *p = n->pieces;
        if (!p) {
            cond_wait(&n->cond, &n->mu);
            continue;
        }
        n->pieces = p->next;
        if (!n->pieces)
            n->pieces_tail = &n->pieces;
        n->npieces--;
        lock_release(&n->mu);
        answer_piece(n->m, p->req);
        free(p);
        lock_acquire(&n->mu);
    }
    lock_release(&n->mu);
    return NULL;
}

/* 0, or why it is refused. n->mu held. */
static int piece_add(struct mlog_net *n, struct mlog_piece *p)
{
    if (n->stopped || n->serve_stop)
        return -ERR_SHUTDOWN;
    if (n->npieces >= PIECES_MAX)
        return -ERR_BUSY;
    if (!n->serving && thread_start(&n->server, "snapshots", serve_main, n) != 0)
        return -ERR_BUSY;
    n->serving = true;
    *n->pieces_tail = p;
    n->pieces_tail = &p->next;
    n->npieces++;
    cond_broadcast(&n->cond);
    return 0;
}

void mlog_rpc_checkpoint(struct mlog *m, struct rpc_req *req)
{
    const Replfs__CheckpointReq *r = req->env->checkpoint_req;

    if (!m->net || r->length > PIECE || r->file > 1) {
        rpc_fail(req, ERR_PROTOCOL, "no such piece");
        return;
    }
    if (strcmp(r->cluster, m->uuid) != 0) {
        rpc_fail(req, ERR_WRONG_CLUSTER, "this metad belongs to cluster %s", m->uuid);
        return;
    }
    struct mlog_piece *p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    p->req = req;
    lock_acquire(&m->net->mu);
    int rc = piece_add(m->net, p);
    lock_release(&m->net->mu);
    if (rc == 0)
        return;
    free(p);
    rpc_fail(req, rc, "not now");
}

void mlog_serve_stop(struct mlog_net *n)
{
    if (!n)
        return;
    lock_acquire(&n->mu);
    bool serving = n->serving;
    n->serving = false;
    n->serve_stop = true;
    cond_broadcast(&n->cond);
    struct mlog_piece *p = n->pieces;
    n->pieces = NULL;
    lock_release(&n->mu);
    if (serving)
        pthread_join(n->server, NULL);
    while (p) {
        struct mlog_piece *next = p->next;
        rpc_fail(p->req, ERR_SHUTDOWN, "metad stops");
        free(p);
        p = next;
    }
}
