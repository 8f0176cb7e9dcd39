/* Programs: fibers of a client's process that do one call after the other. At the end everything is read again. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "metad/fsm/fsm.h"
#include "work_internal.h"

struct work work;

void work_init(const struct work_config *cfg)
{
    char name[32];
    work.cfg = *cfg;
    work.dir[0].ino = FSM_ROOT_INO;
    for (unsigned d = 0; d < cfg->dirs; d++)
        for (unsigned n = 0; n < WORK_NAMES; n++) {
            snprintf(name, sizeof(name), "%u/%s", d, work_name(n));
            work.dir[d].name[n] = model_reg_new(name, 0);
        }
}

struct work_file *work_file(uint64_t ino)
{
    char name[32];
    struct work_file *f = work.files;
    while (f && f->ino != ino)
        f = f->next;
    if (f)
        return f;
    f = calloc(1, sizeof(*f));
    if (!f)
        abort();
    f->ino = ino;
    for (unsigned b = 0; b < WORK_BLOCKS; b++) {
        snprintf(name, sizeof(name), "file %llx block %u", (unsigned long long)ino, b);
        f->block[b] = model_reg_new(name, 0);
        f->block[b]->bytes = true;
    }
    snprintf(name, sizeof(name), "file %llx mode", (unsigned long long)ino);
    f->mode = model_reg_new(name, WORK_MODE);
    f->next = work.files;
    return work.files = f;
}

void work_wrong(const struct program *p, const struct model_reg *r, const char *why)
{
    model_print(r);
    vt_fail("client %u, call %llu (%s): %s", p->client, (unsigned long long)p->op, p->what, why);
}

void work_gone(struct program *p, const struct work_handle *h, int rc)
{
    if ((rc != -ENOENT && rc != -ESTALE) || work.cfg.faults)
        return;
    for (unsigned d = 0; d < work.cfg.dirs; d++)
        for (unsigned n = 0; n < WORK_NAMES; n++)
            if (model_surely(work.dir[d].name[n], h->file->ino, h->opened))
                vt_fail("client %u, call %llu: file %llx is gone, and was %u/%s as it was opened",
                        p->client, (unsigned long long)p->op, (unsigned long long)h->file->ino, d,
                        work_name(n));
}

uint64_t work_calls(void)
{
    return work.calls;
}

/* ---- calls ---- */

void work_call(struct program *p, const char *what, const char *fmt, ...)
{
    va_list ap;
    p->op = model_op();
    p->what = what;
    p->t0 = vt_now();
    work.calls++;
    if (!work.cfg.trace)
        return;
    fprintf(stderr, "%12.6f client%u/%u call %llu: %s ", (double)vt_now() / 1e9, p->client,
            p->number, (unsigned long long)p->op, what);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

bool work_over_with(struct program *p, int rc, ...)
{
    va_list ap;
    bool expected = rc == 0;
    va_start(ap, rc);
    for (int e; (e = va_arg(ap, int)) != 0;)
        expected |= rc == -e;
    va_end(ap);
    if (work.cfg.trace)
        fprintf(stderr, "%12.6f client%u/%u call %llu over: %s\n", (double)vt_now() / 1e9,
                p->client, p->number, (unsigned long long)p->op, rc ? err_str(rc) : "ok");
    if (!expected && !work.cfg.faults)
        vt_fail("client %u, call %llu (%s): %s, without any fault", p->client,
                (unsigned long long)p->op, p->what, err_str(rc));
    p->what = "nothing";
    return rc == 0;
}

/* ---- programs ---- */

static void close_all(struct program *p)
{
    for (unsigned i = 0; i < WORK_HANDLES; i++)
        if (p->open[i].f)
            work_close(p, &p->open[i]);
}

static void *program_main(void *arg)
{
    struct program *p = arg;
    for (unsigned i = 0; i < work.cfg.ops && !work.stop; i++) {
        unsigned what = (unsigned)vt_below(16);
        if (what < 6)
            work_on_names(p);
        else if (what == 6 && work.cfg.locks)
            work_on_locks(p);
        else
            work_on_file(p);
        if (!vt_chance(3))
            vt_sleep_until(vt_now() + vt_between(0, work.cfg.pause_max));
    }
    close_all(p);
    return NULL;
}

static struct program *program_new(unsigned client, unsigned number)
{
    struct program *p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    p->client = client;
    p->number = number;
    p->c = world.client[client].c;
    p->what = "nothing";
    p->next = work.programs;
    return work.programs = p;
}

/* The second directory is made by whoever is first. */
static void make_dir(struct program *p)
{
    Replfs__CreateOp op = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int rc;
    meta.op_case = REPLFS__META_OP__OP_CREATE;
    meta.create = &op;
    op.parent = FSM_ROOT_INO;
    op.name = (ProtobufCBinaryData){3, (uint8_t *)(uintptr_t) "dir"};
    op.mode = 040755;
    do {
        rc = client_mutate(p->c, &meta, &a, NULL);
        if (rc == -EEXIST)
            rc = client_lookup(p->c, FSM_ROOT_INO, "dir", &a);
    } while (rc);
    work.dir[1].ino = a.ino;
}

void work_mounted(unsigned client)
{
    char name[24];
    struct program *first = program_new(client, 0);
    memset(work.lock[client], 0, sizeof(work.lock[client])); /* of a former run */
    if (work.cfg.dirs > 1)
        make_dir(first);
    for (unsigned i = 0; i < work.cfg.fibers; i++) {
        struct program *p = i ? program_new(client, i) : first;
        snprintf(name, sizeof(name), "program%u", i);
        p->fiber = vt_spawn(world.client[client].proc, name, program_main, p);
    }
}

void work_stop(void)
{
    work.stop = true;
}

bool work_over(void)
{
    for (const struct program *p = work.programs; p; p = p->next)
        if (p->fiber && !vt_over(p->fiber))
            return false;
    return true;
}

/* ---- the end ---- */

static void verify_names(struct program *p)
{
    for (unsigned d = 0; d < work.cfg.dirs; d++) {
        work_list(p, d);
        for (unsigned n = 0; n < WORK_NAMES; n++) {
            uint64_t ino = work_lookup(p, d, n), there = 0;
            fsm_rdlock(world_fsm());
            fsm_lookup(world_fsm(), work.dir[d].ino, (const uint8_t *)work_name(n),
                       strlen(work_name(n)), &there);
            fsm_unlock(world_fsm());
            if (ino != there)
                vt_fail("all is quiet, and client %u says that %u/%s is %llx: it is %llx",
                        p->client, d, work_name(n), (unsigned long long)ino,
                        (unsigned long long)there);
        }
    }
}

static void verify_links(void)
{
    for (const struct work_file *f = work.files; f; f = f->next) {
        unsigned links = 0;
        uint64_t there;
        Replfs__Attr a = REPLFS__ATTR__INIT;
        fsm_rdlock(world_fsm());
        for (unsigned d = 0; d < work.cfg.dirs; d++)
            for (unsigned n = 0; n < WORK_NAMES; n++)
                links += !fsm_lookup(world_fsm(), work.dir[d].ino, (const uint8_t *)work_name(n),
                                     strlen(work_name(n)), &there) &&
                         there == f->ino;
        int rc = fsm_getattr(world_fsm(), f->ino, &a);
        fsm_unlock(world_fsm());
        if (!rc && a.nlink != links)
            vt_fail("file %llx has %u names, and a link count of %u", (unsigned long long)f->ino,
                    links, a.nlink);
    }
}

static void verify_files(struct program *p)
{
    for (struct work_file *f = work.files; f; f = f->next) {
        Replfs__Attr a = REPLFS__ATTR__INIT;
        struct cfile *c;
        work_call(p, "open", "%llx to verify", (unsigned long long)f->ino);
        if (!work_over_with(p, cfile_open(p->c, f->ino, false, &a, &c), ENOENT, ESTALE, 0))
            continue;
        work_opened(p, c, f->ino, false);
        for (unsigned i = 0; i < WORK_HANDLES; i++)
            if (p->open[i].f == c)
                work_verify_blocks(p, &p->open[i]);
    }
}

static void *verify_main(void *arg)
{
    struct program *p = arg;
    int64_t t0 = vt_now();
    work_call(p, "sync", "%s", "all");
    if (work_over_with(p, client_sync(p->c), 0))
        model_hard(p->client, 0, t0);
    else
        model_broken(p->client, 0);
    verify_names(p);
    verify_files(p);
    close_all(p);
    verify_links();
    work.verifying--;
    return NULL;
}

void work_verify(void)
{
    for (unsigned i = 0; i < world.cfg.nclients; i++) {
        if (!world.client[i].c)
            continue;
        struct program *p = program_new(i, 99);
        work.verifying++;
        p->fiber = vt_spawn(world.client[i].proc, "verify", verify_main, p);
    }
}

bool work_verified(void)
{
    return !work.verifying;
}
