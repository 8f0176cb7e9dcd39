/* replfsctl backup-meta FILE: metad's names in one file (proto/names_file.h), while it serves.
 *
 * The checkpoint comes in pieces and the entries behind it after that, as far as there were any when the last piece
 * had come. The file gets its name when it is whole and on stable storage; it is readable for its owner only, since it
 * holds every name. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/private.h"
#include "ctl.h"
#include "names_file.h"
#include "output.h"

#define READY_TRIES 600 /* of 0.2 s, until the checkpoint is made */

struct backup {
    struct transport *t;
    FILE *f;
    const char *name;
    uint64_t token, generation, size, crc, term;
    char cluster[40];
    uint64_t entries, bytes;
    uint32_t seen_crc;
    struct timespec began;
};

static int backup_ask(struct backup *b, Replfs__SnapshotReq *req, Replfs__Envelope **rep)
{
    char detail[512];

    req->token = b->token;
    RPC_ENVELOPE(q, SNAPSHOT_REQ, snapshot_req, req);
    *rep = NULL;
    int rc = transport_call(b->t, &q, REPLFS__ENVELOPE__BODY_SNAPSHOT_REPLY, rep, detail,
                            sizeof(detail));
    return rc ? transport_failed(b->t, "backup-meta", rc, detail) : CTL_OK;
}

static int backup_write(struct backup *b, const void *p, size_t len)
{
    b->bytes += len;
    if (fwrite(p, 1, len, b->f) == len)
        return CTL_OK;
    ctl_error("%s: cannot be written: %s", b->name, strerror(errno));
    return CTL_INTERNAL;
}

static int backup_record(struct backup *b, enum names_type type, uint64_t a, uint64_t before,
                         int64_t time_ns, const void *p, size_t len)
{
    uint8_t head[NAMES_RECORD];

    names_record_make(type, a, before, time_ns, p, (uint32_t)len, head);
    int rc = backup_write(b, head, sizeof(head));
    return rc || len == 0 ? rc : backup_write(b, p, len);
}

static int64_t backup_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Until the checkpoint is there; then the file's header. */
static int backup_begin(struct backup *b)
{
    for (int i = 0; i < READY_TRIES; i++) {
        Replfs__SnapshotReq req = REPLFS__SNAPSHOT_REQ__INIT;
        Replfs__Envelope *rep;
        int rc = backup_ask(b, &req, &rep);
        if (rc)
            return rc;
        const Replfs__SnapshotReply *r = rep->snapshot_reply;
        bool ready = r->ready;
        b->token = r->token;
        b->generation = r->generation;
        b->size = r->size;
        b->crc = r->crc;
        b->term = r->term;
        snprintf(b->cluster, sizeof(b->cluster), "%s", r->cluster);
        replfs__envelope__free_unpacked(rep, NULL);
        if (ready) {
            struct names_header h = {
                .generation = b->generation, .term = b->term, .time_ns = backup_now()};
            uint8_t head[NAMES_HEADER];
            if (strlen(b->cluster) != 36) {
                ctl_error("backup-meta: metad tells no cluster");
                return CTL_INTERNAL;
            }
            memcpy(h.cluster, b->cluster, 37);
            names_header_make(&h, head);
            return backup_write(b, head, sizeof(head));
        }
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    }
    ctl_error("backup-meta: metad makes no checkpoint: is its disk full?");
    return CTL_TIMEOUT;
}

static void backup_progress(const struct backup *b, uint64_t at)
{
    char x[16], y[16];

    if (isatty(2))
        fprintf(stderr, "\r%s of %s   ", output_size(at, x), output_size(b->size, y));
}

static int backup_state(struct backup *b)
{
    int64_t now = backup_now();

    for (uint64_t at = 0; at < b->size;) {
        Replfs__SnapshotReq req = REPLFS__SNAPSHOT_REQ__INIT;
        Replfs__Envelope *rep;
        req.offset = at;
        int rc = backup_ask(b, &req, &rep);
        if (rc)
            return rc;
        const ProtobufCBinaryData *d = &rep->snapshot_reply->data;
        if (d->len == 0 || d->len > NAMES_PIECE_MAX)
            rc = CTL_INTERNAL;
        else
            rc = backup_record(b, NAMES_PIECE, at, 0, now, d->data, d->len);
        b->seen_crc = rc ? 0 : crc32c(b->seen_crc, d->data, d->len);
        at += d->len;
        replfs__envelope__free_unpacked(rep, NULL);
        if (rc)
            return rc;
        backup_progress(b, at);
    }
    if (b->seen_crc != b->crc) {
        ctl_error("backup-meta: the checkpoint's checksum is wrong: look at metad's disk");
        return CTL_INTERNAL;
    }
    return backup_record(b, NAMES_WHOLE, b->size, b->crc, now, NULL, 0);
}

/* Entries up to what had been applied when the first of them were fetched. */
static int backup_entries(struct backup *b)
{
    uint64_t after = b->generation, upto = UINT64_MAX;

    while (after < upto) {
        Replfs__SnapshotReq req = REPLFS__SNAPSHOT_REQ__INIT;
        Replfs__Envelope *rep;
        req.after = after;
        int rc = backup_ask(b, &req, &rep);
        if (rc)
            return rc;
        const Replfs__SnapshotReply *r = rep->snapshot_reply;
        upto = upto == UINT64_MAX ? r->last : upto;
        for (size_t i = 0; i < r->n_entries && rc == 0; i++) {
            const Replfs__SnapshotEntry *e = r->entries[i];
            rc = backup_record(b, NAMES_ENTRY, e->index, e->before, e->time_ns, e->entry.data,
                               e->entry.len);
            after = e->index;
            b->entries++;
        }
        bool over = r->n_entries == 0;
        replfs__envelope__free_unpacked(rep, NULL);
        if (rc || over)
            return rc;
    }
    return CTL_OK;
}

static int backup_fetch(struct backup *b)
{
    int rc = backup_begin(b);

    if (rc == 0)
        rc = backup_state(b);
    if (rc == 0)
        rc = backup_entries(b);
    if (b->token) {
        Replfs__SnapshotReq req = REPLFS__SNAPSHOT_REQ__INIT;
        Replfs__Envelope *rep;
        req.done = true;
        if (rc == 0 && backup_ask(b, &req, &rep) == 0)
            replfs__envelope__free_unpacked(rep, NULL);
    }
    if (isatty(2))
        fputs("\r                          \r", stderr);
    return rc;
}

/* Synced and renamed, or removed. */
static int backup_keep(struct backup *b, const char *tmp, int rc)
{
    if (rc == 0 && (fflush(b->f) != 0 || fsync(fileno(b->f)) != 0)) {
        ctl_error("%s: cannot be written: %s", b->name, strerror(errno));
        rc = CTL_INTERNAL;
    }
    fclose(b->f);
    if (rc == 0 && rename(tmp, b->name) != 0) {
        ctl_error("%s: %s", b->name, strerror(errno));
        rc = CTL_INTERNAL;
    }
    if (rc != 0)
        unlink(tmp);
    return rc;
}

static void backup_show(const struct ctl_opts *o, const struct backup *b)
{
    char a[16];
    struct json j;

    if (!o->json) {
        printf("%s: checkpoint %" PRIu64 " and %" PRIu64 " later log entries, %s\n"
               "A metad is made of it with: replfs-metad --restore FILE --data DIR\n",
               b->name, b->generation, b->entries, output_size(b->bytes, a));
        return;
    }
    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_str(&j, "file", b->name);
    json_str(&j, "cluster", b->cluster);
    json_u64(&j, "checkpoint", b->generation);
    json_u64(&j, "entries", b->entries);
    json_u64(&j, "bytes", b->bytes);
    json_close(&j);
}

int verb_backup_meta(const struct ctl_opts *o)
{
    struct ctl_opts rest = *o;
    struct backup b = {0};
    char tmp[4096];

    if (o->nargs < 1) {
        ctl_error("usage: replfsctl backup-meta FILE [PATH]");
        return CTL_USAGE;
    }
    rest.args++;
    rest.nargs--;
    b.name = o->args[0];
    int n = snprintf(tmp, sizeof(tmp), "%s.tmp", b.name);
    if (n < 0 || (size_t)n >= sizeof(tmp)) {
        ctl_error("%s: the name is too long", b.name);
        return CTL_USAGE;
    }
    int rc = ctl_cluster(&rest, &b.t);
    if (rc)
        return rc;
    b.f = private_create(tmp);
    if (!b.f) {
        ctl_error("%s: cannot be made: %s", tmp, strerror(errno));
        rc = CTL_INTERNAL;
    } else {
        rc = backup_keep(&b, tmp, backup_fetch(&b));
    }
    transport_free(b.t);
    if (rc == 0)
        backup_show(o, &b);
    return rc;
}
