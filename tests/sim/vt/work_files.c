/* Calls on open files: written in whole blocks, each filled with the stamp of its write. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "work_internal.h"

static struct work_handle *any_handle(struct program *p, bool writable)
{
    struct work_handle *h = &p->open[vt_below(WORK_HANDLES)];
    return h->f && (h->writable || !writable) ? h : NULL;
}

void work_opened(struct program *p, struct cfile *f, uint64_t ino, bool writable)
{
    struct work_handle *h = &p->open[0];
    for (unsigned i = 0; i < WORK_HANDLES && h->f; i++)
        h = &p->open[i];
    if (h->f)
        work_close(p, h);
    *h = (struct work_handle){f, work_file(ino), writable, vt_now()};
}

void work_open(struct program *p, uint64_t ino)
{
    bool write = vt_chance(2);
    Replfs__Attr a = REPLFS__ATTR__INIT;
    struct cfile *f;
    work_call(p, "open", "%llx %s", (unsigned long long)ino, write ? "rw" : "r");
    int rc = cfile_open(p->c, ino, write, &a, &f);
    if (work_over_with(p, rc, ENOENT, ESTALE, 0))
        work_opened(p, f, ino, write);
}

void work_close(struct program *p, struct work_handle *h)
{
    struct cfile *f = h->f;
    uint64_t ino = h->file->ino;
    work_call(p, "close", "%llx", (unsigned long long)ino);
    int rc = h->writable ? cfile_flush(f) : 0;
    if (!work_over_with(p, rc, ENOENT, ESTALE, 0))
        model_broken(p->client, ino);
    work_gone(p, h, rc);
    cfile_close(f);
    h->f = NULL;
}

static void write_blocks(struct program *p, struct work_handle *h)
{
    unsigned b = (unsigned)vt_below(WORK_BLOCKS), n = 1 + (unsigned)vt_below(WORK_BLOCKS - b);
    uint32_t size = work.cfg.block;
    uint64_t stamp = ++work.stamp << 8 | p->client;
    uint64_t *data = malloc((size_t)n * size);
    if (!data)
        abort();
    for (size_t i = 0; i < (size_t)n * size / sizeof(stamp); i++)
        data[i] = stamp;
    work_call(p, "write", "%llx blocks %u+%u := %llx", (unsigned long long)h->file->ino, b, n,
              (unsigned long long)stamp);
    for (unsigned i = b; i < b + n; i++)
        model_begin(h->file->block[i], p->op, p->client, h->file->ino, stamp);
    off_t off = (off_t)b * size;
    int rc = cfile_write(h->f, data, (size_t)n * size, &off, 0);
    bool ok = work_over_with(p, rc, ENOENT, ESTALE, 0);
    work_gone(p, h, rc);
    for (unsigned i = b; i < b + n; i++)
        model_end(h->file->block[i], p->op, ok ? MODEL_DONE : MODEL_UNKNOWN, true, 0);
    if (!ok)
        model_broken(p->client, h->file->ino);
    free(data);
}

static void truncate(struct program *p, struct work_handle *h)
{
    unsigned b = (unsigned)vt_below(WORK_BLOCKS + 1);
    Replfs__Attr a = REPLFS__ATTR__INIT;
    work_call(p, "truncate", "%llx to %u blocks", (unsigned long long)h->file->ino, b);
    for (unsigned i = b; i < WORK_BLOCKS; i++)
        model_begin(h->file->block[i], p->op, p->client, h->file->ino, 0);
    int rc = cfile_truncate(h->f, (uint64_t)b * work.cfg.block, &a);
    bool ok = work_over_with(p, rc, ENOENT, ESTALE, 0);
    work_gone(p, h, rc);
    for (unsigned i = b; i < WORK_BLOCKS; i++)
        model_end(h->file->block[i], p->op, ok ? MODEL_DONE : MODEL_UNKNOWN, false, 0);
    if (!ok)
        model_broken(p->client, h->file->ino);
}

static void sync_file(struct program *p, struct work_handle *h, bool to_disk)
{
    int64_t t0 = vt_now();
    work_call(p, to_disk ? "fsync" : "flush", "%llx", (unsigned long long)h->file->ino);
    int rc = to_disk ? cfile_fsync(h->f) : cfile_flush(h->f);
    if (!work_over_with(p, rc, ENOENT, ESTALE, 0))
        model_broken(p->client, h->file->ino);
    else if (to_disk)
        model_hard(p->client, h->file->ino, t0);
    work_gone(p, h, rc);
}

/* The stamp that fills the block, and nothing else does. */
static uint64_t stamp_of(struct program *p, const struct work_file *f, unsigned b,
                         const struct buf *data, size_t at)
{
    uint32_t size = work.cfg.block;
    if (!data || data->len <= at)
        return 0;
    if (data->len < at + size)
        vt_fail("file %llx block %u ends in its middle: %zu bytes", (unsigned long long)f->ino, b,
                data->len - at);
    const uint8_t *d = data->data + at;
    uint64_t first, v;
    memcpy(&first, d, sizeof(first));
    for (size_t i = 0; i < size; i += sizeof(v)) {
        memcpy(&v, d + i, sizeof(v));
        if (v == first)
            continue;
        model_print(f->block[b]);
        vt_fail("file %llx block %u is torn: %llx, and %llx at %zu, for client %u",
                (unsigned long long)f->ino, b, (unsigned long long)first, (unsigned long long)v, i,
                p->client);
    }
    return first;
}

static int read_blocks(struct program *p, struct work_handle *h, unsigned b, unsigned n)
{
    char why[400];
    struct buf *data = NULL;
    uint32_t size = work.cfg.block;
    work_call(p, "read", "%llx blocks %u+%u", (unsigned long long)h->file->ino, b, n);
    int rc = cfile_read(h->f, (off_t)b * size, (size_t)n * size, &data);
    if (!work_over_with(p, rc, ENOENT, ESTALE, 0))
        work_gone(p, h, rc);
    else
        for (unsigned i = 0; i < n; i++) {
            uint64_t v = stamp_of(p, h->file, b + i, data, (size_t)i * size);
            if (!model_read(h->file->block[b + i], p->op, p->client, v, p->t0, why))
                work_wrong(p, h->file->block[b + i], why);
        }
    buf_unref(data);
    return rc;
}

void work_verify_blocks(struct program *p, struct work_handle *h)
{
    for (unsigned b = 0; b < WORK_BLOCKS; b++) {
        int rc = read_blocks(p, h, b, 1);
        if (!rc || rc == -ENOENT || rc == -ESTALE || !model_must_be_there(h->file->block[b]))
            continue;
        model_print(h->file->block[b]);
        vt_fail("all is well again, and client %u cannot read block %u of file %llx: %s", p->client,
                b, (unsigned long long)h->file->ino, err_str(rc));
    }
}

void work_saw_attr(struct program *p, const Replfs__Attr *a)
{
    char why[400];
    struct work_file *f = work_file(a->ino);
    for (unsigned i = 0; i < WORK_BLOCKS; i++)
        if (a->size <= (uint64_t)i * work.cfg.block &&
            !model_read(f->block[i], p->op, p->client, 0, p->t0, why))
            work_wrong(p, f->block[i], why);
    if (!model_read(f->mode, p->op, p->client, a->mode & 0777, p->t0, why))
        work_wrong(p, f->mode, why);
}

static void chmod_file(struct program *p, struct work_handle *h)
{
    Replfs__SetattrOp op = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    uint64_t ino = h->file->ino;
    meta.op_case = REPLFS__META_OP__OP_SETATTR;
    meta.setattr = &op;
    op.ino = ino;
    op.valid = REPLFS__SETATTR_OP__VALID__MODE;
    op.mode = (uint32_t)(++work.stamp % 0777);
    work_call(p, "chmod", "%llx %x", (unsigned long long)ino, op.mode);
    model_begin(h->file->mode, p->op, p->client, ino, op.mode);
    bool soft = client_setattr_deferred(p->c, &op, &a);
    int rc = soft ? 0 : client_flush_ino(p->c, ino);
    if (rc)
        model_broken(p->client, ino);
    if (!rc && !soft)
        rc = client_mutate(p->c, &meta, &a, NULL);
    bool ok = work_over_with(p, rc, ENOENT, ESTALE, 0);
    work_gone(p, h, rc);
    model_end(h->file->mode, p->op, ok ? MODEL_DONE : MODEL_UNKNOWN, soft, 0);
}

static void getattr(struct program *p, struct work_file *f)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    work_call(p, "getattr", "%llx", (unsigned long long)f->ino);
    int rc = client_getattr(p->c, f->ino, &a);
    if (work_over_with(p, rc, ENOENT, ESTALE, 0))
        work_saw_attr(p, &a);
}

void work_on_file(struct program *p)
{
    struct work_handle *h;
    unsigned b = (unsigned)vt_below(WORK_BLOCKS), what = (unsigned)vt_below(20);
    if (what < 7 && (h = any_handle(p, true)))
        write_blocks(p, h);
    else if (what < 12 && (h = any_handle(p, false)))
        read_blocks(p, h, b, 1 + (unsigned)vt_below(WORK_BLOCKS - b));
    else if (what == 12 && (h = any_handle(p, true)))
        truncate(p, h);
    else if (what < 15 && (h = any_handle(p, true)))
        sync_file(p, h, what == 13);
    else if (what < 16 && (h = any_handle(p, false)))
        work_close(p, h);
    else if (what == 16 && (h = any_handle(p, false)))
        chmod_file(p, h);
    else if ((h = any_handle(p, false)))
        getattr(p, h->file);
}
