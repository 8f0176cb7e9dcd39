/* replfsctl quarantine adopt: what is in quarantine becomes files in lost+found of the mount.
 *
 * The bytes come through metad, checked by the chunkd that has them, with what their writer had said of each range: which
 * file, and where in it. They are written like any others: to lost+found/inode-NUMBER at the place where they were, or,
 * where nobody knows whose they are (copies that a repair made), to lost+found/chunk-NUMBER-WRITER at their place in the
 * chunk. What was never written of a file there is a hole. Chunks come in the order of their numbers, which is that of
 * their writing, so that of two writes to one place the later one shows.
 *
 * A chunk's copies are released once its bytes are on stable storage; when only some could be read it stays in
 * quarantine, and what could be read is in the file. A run that breaks off can be repeated: it writes the same again.
 *
 * lost+found belongs to root alone, as the bytes may be anybody's. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "ctl.h"
#include "output.h"

#define FOUND "lost+found"

struct found { /* one copy in quarantine */
    uint64_t chunk, session;
    uint32_t chunkd, len;
};
struct adopting {
    struct transport *t;
    struct found *v;
    size_t n, cap;
    int dir, fd; /* lost+found; the file that is being written, -1: none */
    char name[64];
    uint64_t chunks, failed, files, bytes;
};

/* ---- what there is ---- */

static int ask(struct adopting *a, const Replfs__QuarantineReq *m, Replfs__Envelope **rep,
               char detail[512])
{
    Replfs__QuarantineReq copy = *m;
    RPC_ENVELOPE(q, QUARANTINE_REQ, quarantine_req, &copy);

    *rep = NULL;
    return transport_call(a->t, &q, REPLFS__ENVELOPE__BODY_QUARANTINE_REPLY, rep, detail, 512);
}

static void add(struct adopting *a, const Replfs__QuarantineItem *it)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 256;
        a->v = realloc(a->v, a->cap * sizeof(*a->v));
        if (!a->v)
            abort();
    }
    a->v[a->n++] = (struct found){it->chunk, it->session, it->chunkd, it->len};
}

/* Chunks in their order; of one chunk and writer the longest copy first. */
static int in_order(const void *x, const void *y)
{
    const struct found *a = x, *b = y;

    if (a->chunk != b->chunk)
        return a->chunk < b->chunk ? -1 : 1;
    if (a->session != b->session)
        return a->session < b->session ? -1 : 1;
    return a->len > b->len ? -1 : a->len < b->len;
}

static int collect(struct adopting *a, uint64_t chunk)
{
    Replfs__QuarantineReq m = REPLFS__QUARANTINE_REQ__INIT;
    char detail[512];

    for (bool more = true; more;) {
        Replfs__Envelope *rep;
        int rc = ask(a, &m, &rep, detail);
        if (rc)
            return transport_failed(a->t, "quarantine adopt", rc, detail);
        const Replfs__QuarantineReply *r = rep->quarantine_reply;
        for (size_t i = 0; i < r->n_items; i++) {
            m.chunkd = r->items[i]->chunkd;
            m.after = r->items[i]->chunk;
            if (!chunk || r->items[i]->chunk == chunk)
                add(a, r->items[i]);
        }
        more = r->more && r->n_items;
        replfs__envelope__free_unpacked(rep, NULL);
    }
    if (a->n)
        qsort(a->v, a->n, sizeof(*a->v), in_order);
    return CTL_OK;
}

/* ---- files ---- */

static int open_found(struct adopting *a, const char *path)
{
    struct transport_target target;
    struct stat st;
    char at[4096];
    int rc = transport_path(path, &a->t, &target);

    if (rc)
        return rc;
    snprintf(at, sizeof(at), "%s/" FOUND, transport_mount(a->t));
    if (mkdir(at, 0700) < 0 && errno != EEXIST) {
        ctl_error("%s: cannot be made: %s", at, strerror(errno));
        return errno == EACCES || errno == EPERM ? CTL_DENIED : CTL_INTERNAL;
    }
    a->dir = open(at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (a->dir < 0 || fstat(a->dir, &st) < 0 || st.st_uid != 0 || (st.st_mode & 022)) {
        ctl_error("%s: must be a directory that only root may write to", at);
        return CTL_DENIED;
    }
    return CTL_OK;
}

static int close_file(struct adopting *a)
{
    int rc = 0;

    if (a->fd >= 0 && fsync(a->fd) < 0)
        rc = -errno;
    if (a->fd >= 0)
        close(a->fd);
    a->fd = -1;
    return rc;
}

static int open_file(struct adopting *a, const char *name)
{
    if (a->fd >= 0 && !strcmp(a->name, name))
        return 0;
    int rc = close_file(a);
    if (rc)
        return rc;
    a->fd = openat(a->dir, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (a->fd < 0 && errno == ENOENT) {
        a->fd = openat(a->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        a->files += a->fd >= 0;
    }
    snprintf(a->name, sizeof(a->name), "%s", name);
    return a->fd < 0 ? -errno : 0;
}

static int put(struct adopting *a, const struct found *f, const Replfs__ChunkPart *p,
               const uint8_t *data)
{
    char name[64];

    if (p->ino)
        snprintf(name, sizeof(name), "inode-%" PRIu64, p->ino);
    else
        snprintf(name, sizeof(name), "chunk-%016" PRIx64 "-%016" PRIx64, f->chunk, f->session);
    int rc = open_file(a, name);
    uint64_t at = p->ino ? p->file_off : p->chunk_off;
    for (uint32_t done = 0; !rc && done < p->len;) {
        ssize_t n = pwrite(a->fd, data + done, p->len - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            rc = n < 0 ? -errno : -EIO;
        else
            done += (uint32_t)n;
    }
    return rc;
}

/* ---- one chunk ---- */

/* Writes what a reply holds; *off: where it ends. */
static int put_all(struct adopting *a, const struct found *f, const Replfs__QuarantineReply *r,
                   uint32_t *off, uint32_t *len)
{
    size_t at = 0;
    int rc = 0;

    *len = r->len;
    for (size_t i = 0; i < r->n_parts && !rc; i++) {
        const Replfs__ChunkPart *p = r->parts[i];
        if (p->chunk_off != *off || p->len == 0 || p->len > r->data.len - at)
            return -ERR_PROTOCOL;
        rc = put(a, f, p, r->data.data + at);
        at += p->len;
        *off += p->len;
    }
    a->bytes += at;
    return rc ? rc : r->n_parts == 0 && *off < *len ? -ERR_PROTOCOL : 0;
}

/* All bytes of one copy. 0, or a negative code with detail; *local: it was not the copy's fault. */
static int adopt_copy(struct adopting *a, const struct found *f, char detail[512], bool *local)
{
    uint32_t off = 0, len = UINT32_MAX;

    *local = false;
    while (off < len) {
        Replfs__QuarantineReq m = REPLFS__QUARANTINE_REQ__INIT;
        Replfs__Envelope *rep;
        m.fetch = f->chunk;
        m.fetch_off = off;
        m.fetch_session = f->session;
        m.chunkd = f->chunkd;
        int rc = ask(a, &m, &rep, detail);
        if (rc)
            return rc;
        rc = put_all(a, f, rep->quarantine_reply, &off, &len);
        replfs__envelope__free_unpacked(rep, NULL);
        if (rc) {
            *local = rc != -ERR_PROTOCOL;
            snprintf(detail, 512, "%s", err_str(rc));
            return rc;
        }
    }
    int rc = close_file(a);
    *local = rc != 0;
    if (rc)
        snprintf(detail, 512, "%s", err_str(rc));
    return rc;
}

static int release_chunk(struct adopting *a, uint64_t chunk, char detail[512])
{
    Replfs__QuarantineReq m = REPLFS__QUARANTINE_REQ__INIT;
    Replfs__Envelope *rep;

    m.release = chunk;
    int rc = ask(a, &m, &rep, detail);
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    return rc;
}

/* The copies from v[i] on that are of one chunk; *next: behind them. */
static int adopt_chunk(struct adopting *a, size_t i, size_t *next)
{
    char detail[512] = "";
    bool local = false, all = true;
    size_t k = i;

    while (k < a->n && a->v[k].chunk == a->v[i].chunk) {
        const struct found *f = &a->v[k];
        int rc = -1; /* until one copy of this writer's is whole */
        for (; k < a->n && a->v[k].chunk == f->chunk && a->v[k].session == f->session; k++)
            if (rc && !local)
                rc = adopt_copy(a, &a->v[k], detail, &local);
        if (rc)
            ctl_error("chunk %016" PRIx64 " written by %016" PRIx64 ": %s", f->chunk, f->session,
                      detail);
        all &= rc == 0;
    }
    *next = k;
    int rc = all ? release_chunk(a, a->v[i].chunk, detail) : 0;
    if (rc)
        ctl_error("chunk %016" PRIx64 " stays in quarantine: %s", a->v[i].chunk, detail);
    *(all && !rc ? &a->chunks : &a->failed) += 1;
    return local ? CTL_INTERNAL : CTL_OK; /* no room here: the next one will find none either */
}

static void say(const struct ctl_opts *o, const struct adopting *a)
{
    struct json j;
    char b[16];

    if (!o->json) {
        printf("%" PRIu64 " chunks adopted, %s, in %s/" FOUND " (%" PRIu64 " new files)\n",
               a->chunks, output_size(a->bytes, b), transport_mount(a->t), a->files);
        if (a->failed)
            printf("%" PRIu64 " chunks stay in quarantine\n", a->failed);
        return;
    }
    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_u64(&j, "adopted", a->chunks);
    json_u64(&j, "failed", a->failed);
    json_u64(&j, "files", a->files);
    json_u64(&j, "bytes", a->bytes);
    json_close(&j);
}

int ctl_quarantine_adopt(const struct ctl_opts *o)
{
    struct adopting a = {.dir = -1, .fd = -1};
    const char *path = o->nargs == (o->all ? 1 : 2) && !o->meta ? o->args[o->nargs - 1] : NULL;
    uint64_t chunk = 0;
    char *end = "";

    if (path && !o->all)
        chunk = strtoull(o->args[0], &end, 16);
    if (!path || *end || (!o->all && !chunk)) {
        ctl_error("usage: replfsctl quarantine adopt CHUNK|--all PATH: CHUNK as quarantine lists "
                  "it, PATH on a mount");
        return CTL_USAGE;
    }
    int rc = open_found(&a, path);
    if (!rc)
        rc = collect(&a, chunk);
    for (size_t i = 0; i < a.n && !rc;)
        rc = adopt_chunk(&a, i, &i);
    if (!rc || a.n)
        say(o, &a);
    close_file(&a);
    if (a.dir >= 0)
        close(a.dir);
    free(a.v);
    transport_free(a.t);
    return rc ? rc : a.failed || !a.chunks ? CTL_PROBLEM : CTL_OK;
}
