/* See history.h. */
#include "history.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "fiber.h"
#include "metad/log/entry.h"
#include "metad/log/mlog_internal.h"

struct applied {
    size_t len; /* 0: none of ours: a change of members, a barrier */
    uint8_t *bytes;
    bool has_digest;
    uint64_t digest;
};

static struct {
    unsigned digest_every;
    bool own_time;
    struct applied *v; /* by index */
    size_t n, cap;
    uint64_t last, commands, digests;
} hist;

int __real_mlog_apply_entry(struct mlog *m, uint64_t index, const uint8_t *buf, size_t len,
                            struct mlog_proposal *props);
int __wrap_mlog_apply_entry(struct mlog *m, uint64_t index, const uint8_t *buf, size_t len,
                            struct mlog_proposal *props);

void __real_fsm_apply(struct fsm *f, uint64_t index, const Replfs__Command *cmd,
                      struct fsm_result *res);
void __wrap_fsm_apply(struct fsm *f, uint64_t index, const Replfs__Command *cmd,
                      struct fsm_result *res);
void (*history_hook)(uint64_t index);

void history_init(unsigned digest_every, bool own_time)
{
    hist.digest_every = digest_every;
    hist.own_time = own_time;
}

void __wrap_fsm_apply(struct fsm *f, uint64_t index, const Replfs__Command *cmd,
                      struct fsm_result *res)
{
    Replfs__Command own = *cmd;
    if (hist.own_time)
        own.time_ns = clock_wall();
    __real_fsm_apply(f, index, &own, res);
}

uint64_t history_last(void)
{
    return hist.last;
}

uint64_t history_commands(void)
{
    return hist.commands;
}

uint64_t history_digests(void)
{
    return hist.digests;
}

static struct applied *at(uint64_t index)
{
    while (index >= hist.cap) {
        size_t cap = hist.cap ? 2 * hist.cap : 1024;
        hist.v = realloc(hist.v, cap * sizeof(*hist.v));
        if (!hist.v)
            abort();
        memset(hist.v + hist.cap, 0, (cap - hist.cap) * sizeof(*hist.v));
        hist.cap = cap;
    }
    return &hist.v[index];
}

static void saw(uint64_t index, const uint8_t *buf, size_t len)
{
    struct applied *a = at(index);
    struct entry e;
    const char *why;
    if (a->len) {
        if (a->len != len || memcmp(a->bytes, buf, len) != 0)
            vt_fail("entry %" PRIu64 " is another one than somebody applied before", index);
        return;
    }
    a->len = len;
    a->bytes = malloc(len);
    if (!a->bytes)
        abort();
    memcpy(a->bytes, buf, len);
    if (entry_open(buf, len, &e, &why))
        vt_fail("entry %" PRIu64 " is applied and not whole: %s", index, why);
    hist.commands += e.count;
    if (index > hist.last)
        hist.last = index;
}

static void compare_states(struct mlog *m, uint64_t index)
{
    struct applied *a = at(index);
    fsm_rdlock(m->fsm);
    uint64_t digest = fsm_digest(m->fsm);
    fsm_unlock(m->fsm);
    if (a->has_digest && a->digest != digest)
        vt_fail("behind entry %" PRIu64 " the state is another one than that of somebody else",
                index);
    hist.digests += a->has_digest;
    a->has_digest = true;
    a->digest = digest;
}

int __wrap_mlog_apply_entry(struct mlog *m, uint64_t index, const uint8_t *buf, size_t len,
                            struct mlog_proposal *props)
{
    saw(index, buf, len);
    if (history_hook)
        history_hook(index);
    int rc = __real_mlog_apply_entry(m, index, buf, len, props);
    if (rc)
        vt_fail("entry %" PRIu64 " cannot be applied: %s", index, err_str(rc));
    if (hist.digest_every && index % hist.digest_every == 0)
        compare_states(m, index);
    return rc;
}

void history_each(void (*fn)(void *arg, uint64_t index, const Replfs__Command *cmd), void *arg)
{
    for (uint64_t i = 1; i <= hist.last; i++) {
        struct entry e;
        const char *why;
        const uint8_t *p;
        size_t len;
        if (!hist.v[i].len || entry_open(hist.v[i].bytes, hist.v[i].len, &e, &why))
            continue;
        while (entry_next(&e, &p, &len)) {
            Replfs__Command *cmd = replfs__command__unpack(NULL, len, p);
            if (!cmd)
                vt_fail("a command of entry %" PRIu64 " cannot be unpacked", i);
            fn(arg, i, cmd);
            replfs__command__free_unpacked(cmd, NULL);
        }
    }
}

struct again {
    struct fsm *fsm;
    uint64_t upto, index;
    unsigned place;
};

static void execute(void *arg, uint64_t index, const Replfs__Command *cmd)
{
    struct again *g = arg;
    struct fsm_result res = {0};
    if (index > g->upto)
        return;
    g->place = index == g->index ? g->place + 1 : 0;
    g->index = index;
    fsm_apply(g->fsm, index << 8 | g->place, cmd, &res);
}

void history_check(struct fsm *fsm, uint64_t applied)
{
    struct again g = {.upto = applied};
    if (fsm_new(&g.fsm))
        abort();
    fsm_wrlock(g.fsm);
    history_each(execute, &g);
    fsm_unlock(g.fsm);
    fsm_rdlock(fsm);
    uint64_t a = fsm_digest(fsm), b = fsm_digest(g.fsm);
    fsm_unlock(fsm);
    if (a != b)
        vt_fail("the log, executed again up to %" PRIu64 ", leads to another state", applied);
    fsm_free(g.fsm);
}
