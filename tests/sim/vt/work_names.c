/* Calls on names. Each is executed once or not at all, so that its answer says what was there before. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "work_internal.h"

#define OP(var, CASE)                                                                              \
    Replfs__MetaOp var = REPLFS__META_OP__INIT;                                                    \
    var.op_case = REPLFS__META_OP__OP_##CASE

static const char *const names[WORK_NAMES] = {"a", "b", "c", "d", "e", "f", "h0", "h1"};

const char *work_name(unsigned i)
{
    return names[i];
}

static unsigned any_name(bool links)
{
    return links && vt_chance(4) ? WORK_NAMES - 1 - (unsigned)vt_below(2)
                                 : (unsigned)vt_below(work.cfg.names);
}

static ProtobufCBinaryData bytes(unsigned n)
{
    return (ProtobufCBinaryData){strlen(names[n]), (uint8_t *)(uintptr_t)names[n]};
}

static void saw(struct program *p, struct model_reg *r, uint64_t value)
{
    char why[400];
    if (!model_read(r, p->op, p->client, value, p->t0, why))
        work_wrong(p, r, why);
}

static void saw_some(struct program *p, struct model_reg *r)
{
    char why[400];
    if (!model_read_some(r, p->op, p->client, p->t0, why))
        work_wrong(p, r, why);
}

/* What a mount's kernel does around changes of names. */
static void lock_dir(struct program *p, unsigned d)
{
    struct work_lock *l = &work.lock[p->client][d];
    while (l->held)
        vt_wait(&l->q, INT64_MAX, "a directory");
    l->held = true;
}

static void unlock_dir(struct program *p, unsigned d)
{
    work.lock[p->client][d].held = false;
    vt_wake_one(&work.lock[p->client][d].q);
}

uint64_t work_lookup(struct program *p, unsigned d, unsigned n)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    work_call(p, "lookup", "%u/%s", d, names[n]);
    int rc = client_lookup(p->c, work.dir[d].ino, names[n], &a);
    if (!work_over_with(p, rc, ENOENT, 0) && rc != -ENOENT)
        return 0;
    saw(p, work.dir[d].name[n], rc ? 0 : a.ino);
    if (!rc)
        work_saw_attr(p, &a);
    return rc ? 0 : a.ino;
}

static void create(struct program *p, unsigned d, unsigned n)
{
    struct model_reg *r = work.dir[d].name[n];
    Replfs__CreateOp op = REPLFS__CREATE_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    OP(meta, CREATE);
    meta.create = &op;
    op.parent = work.dir[d].ino;
    op.name = bytes(n);
    op.mode = 0100000 | WORK_MODE;
    work_call(p, "create", "%u/%s", d, names[n]);
    model_begin(r, p->op, p->client, op.parent, MODEL_ANY);
    bool soft = client_create_deferred(p->c, &op, &a);
    int rc = soft ? 0 : client_mutate(p->c, &meta, &a, NULL);
    /* ESTALE: done before a change of leader, removed by another, then asked for again. The kernel would try once more. */
    if (work_over_with(p, rc, EEXIST, ESTALE, 0)) {
        work_file(a.ino);
        saw(p, r, 0);
        model_end(r, p->op, MODEL_DONE, soft, a.ino);
        struct cfile *f;
        if (!cfile_open_new(p->c, &a, &f))
            work_opened(p, f, a.ino, true);
    } else if (rc == -EEXIST) {
        model_end(r, p->op, MODEL_NOT_DONE, false, 0);
        saw_some(p, r);
    } else {
        model_end(r, p->op, MODEL_UNKNOWN, false, 0);
    }
}

static void unlink_name(struct program *p, unsigned d, unsigned n)
{
    struct model_reg *r = work.dir[d].name[n];
    Replfs__UnlinkOp op = REPLFS__UNLINK_OP__INIT;
    OP(meta, UNLINK);
    meta.unlink = &op;
    op.parent = work.dir[d].ino;
    op.name = bytes(n);
    work_call(p, "unlink", "%u/%s", d, names[n]);
    model_begin(r, p->op, p->client, op.parent, 0);
    bool soft = client_remove_deferred(p->c, &op);
    int rc = soft ? 0 : client_mutate(p->c, &meta, NULL, NULL);
    if (work_over_with(p, rc, ENOENT, 0)) {
        saw_some(p, r);
        model_end(r, p->op, MODEL_DONE, soft, 0);
    } else if (rc == -ENOENT) {
        model_end(r, p->op, MODEL_NOT_DONE, false, 0);
        saw(p, r, 0);
    } else {
        model_end(r, p->op, MODEL_UNKNOWN, false, 0);
    }
}

static void rename_name(struct program *p, unsigned d, unsigned n, unsigned d2, unsigned n2)
{
    struct model_reg *from = work.dir[d].name[n], *to = work.dir[d2].name[n2];
    Replfs__RenameOp op = REPLFS__RENAME_OP__INIT;
    OP(meta, RENAME);
    if (from == to)
        return;
    meta.rename = &op;
    op.parent = work.dir[d].ino;
    op.new_parent = work.dir[d2].ino;
    op.name = bytes(n);
    op.new_name = bytes(n2);
    op.flags = vt_chance(4) ? 1 : 0; /* RENAME_NOREPLACE */
    work_call(p, "rename", "%u/%s to %u/%s%s", d, names[n], d2, names[n2],
              op.flags ? " unless it exists" : "");
    model_begin(from, p->op, p->client, op.parent, 0);
    model_begin(to, p->op, p->client, op.new_parent, MODEL_ANY);
    int rc = client_mutate(p->c, &meta, NULL, NULL);
    bool ok = work_over_with(p, rc, ENOENT, EEXIST, 0);
    enum model_outcome o = ok                               ? MODEL_DONE
                           : rc == -ENOENT || rc == -EEXIST ? MODEL_NOT_DONE
                                                            : MODEL_UNKNOWN;
    if (ok)
        saw_some(p, from);
    if (ok && op.flags)
        saw(p, to, 0);
    model_end(from, p->op, o, false, 0);
    model_end(to, p->op, o, false, 0);
    if (rc == -ENOENT)
        saw(p, from, 0);
    if (rc == -EEXIST && op.flags)
        saw_some(p, to);
    else if (rc == -EEXIST)
        vt_fail("a rename that replaces says EEXIST");
}

static void link_name(struct program *p, uint64_t ino, unsigned d, unsigned n)
{
    struct model_reg *r = work.dir[d].name[n];
    Replfs__LinkOp op = REPLFS__LINK_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    OP(meta, LINK);
    meta.link = &op;
    op.ino = ino;
    op.parent = work.dir[d].ino;
    op.name = bytes(n);
    work_call(p, "link", "%llx to %u/%s", (unsigned long long)ino, d, names[n]);
    model_begin(r, p->op, p->client, op.parent, ino);
    int rc = client_flush_ino(p->c, ino);
    if (rc)
        model_broken(p->client, ino);
    if (!rc)
        rc = client_mutate(p->c, &meta, &a, NULL);
    if (work_over_with(p, rc, EEXIST, ENOENT, ESTALE, 0)) {
        saw(p, r, 0);
        model_end(r, p->op, MODEL_DONE, false, 0);
    } else if (rc == -EEXIST) {
        model_end(r, p->op, MODEL_NOT_DONE, false, 0);
        saw_some(p, r);
    } else {
        model_end(r, p->op, rc == -ENOENT || rc == -ESTALE ? MODEL_NOT_DONE : MODEL_UNKNOWN, false,
                  0);
    }
}

/* From page to page. One that was asked for earlier tells of an earlier time. */
void work_list(struct program *p, unsigned d)
{
    uint64_t seen[WORK_NAMES] = {0}, after = 0;
    bool again = false, old = false, eof = false;
    int rc = 0;
    work_call(p, "list", "%u", d);
    while (!rc && !eof) {
        struct dir_page *page = NULL;
        rc = client_list(p->c, work.dir[d].ino, after, vt_chance(2), 0, &page, &again);
        old |= again;
        const Replfs__ReaddirReply *r = rc ? NULL : dir_page_entries(page);
        for (size_t i = 0; r && i < r->n_entries; i++) {
            const Replfs__Dirent *e = r->entries[i];
            after = e->cookie;
            for (unsigned n = 0; n < WORK_NAMES; n++)
                if (e->name.len == strlen(names[n]) && !memcmp(e->name.data, names[n], e->name.len))
                    seen[n] = e->ino;
        }
        eof = r && (r->eof || !r->n_entries);
        dir_page_unref(page);
    }
    if (!work_over_with(p, rc, 0) || old)
        return;
    for (unsigned n = 0; n < WORK_NAMES; n++)
        saw(p, work.dir[d].name[n], seen[n]);
}

static void settle(struct program *p, unsigned d)
{
    int64_t t0 = vt_now();
    work_call(p, "fsync dir", "%u", d);
    int rc = client_settle(p->c, work.dir[d].ino);
    if (work_over_with(p, rc, 0))
        model_hard(p->client, work.dir[d].ino, t0);
    else
        model_broken(p->client, work.dir[d].ino);
}

static void change_one(struct program *p, unsigned d, unsigned n,
                       void (*change)(struct program *p, unsigned d, unsigned n))
{
    lock_dir(p, d);
    change(p, d, n);
    unlock_dir(p, d);
}

static void change_two(struct program *p, unsigned d, unsigned n, unsigned d2, unsigned n2)
{
    lock_dir(p, d < d2 ? d : d2);
    if (d != d2)
        lock_dir(p, d < d2 ? d2 : d);
    rename_name(p, d, n, d2, n2);
    unlock_dir(p, d);
    if (d != d2)
        unlock_dir(p, d2);
}

void work_on_names(struct program *p)
{
    unsigned d = (unsigned)vt_below(work.cfg.dirs), d2 = (unsigned)vt_below(work.cfg.dirs);
    unsigned what = (unsigned)vt_below(24), n = any_name(what > 8);
    uint64_t ino;
    if (what < 6) {
        change_one(p, d, any_name(false), create);
    } else if (what < 9) {
        change_two(p, d, n, d2, any_name(false));
    } else if (what < 11) {
        change_one(p, d, n, unlink_name);
    } else if (what == 11) {
        if ((ino = work_lookup(p, d, any_name(false))) != 0) {
            lock_dir(p, d2);
            link_name(p, ino, d2, WORK_NAMES - 1 - (unsigned)vt_below(2));
            unlock_dir(p, d2);
        }
    } else if (what < 19) {
        if ((ino = work_lookup(p, d, n)) != 0)
            work_open(p, ino);
    } else if (what == 19) {
        settle(p, d);
    } else if (what < 22) {
        work_lookup(p, d, n);
    } else {
        work_list(p, d);
    }
}
