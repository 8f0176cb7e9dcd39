/* Around the disk side of libraft (simraft.c): its settings, what metad looks at before libraft, and what goes wrong with
 * a disk. */
#include "simraft_internal.h"

#include "base/error.h"
#include "fiber.h"

void raft_uv_set_segment_size(struct raft_io *io, size_t size)
{
    (void)io, (void)size;
}

void raft_uv_set_auto_recovery(struct raft_io *io, bool flag)
{
    (void)io, (void)flag;
}

void raft_uv_set_disk_retry(struct raft_io *io, unsigned msecs)
{
    (void)io, (void)msecs;
}

/* Less than what the product asks for: so that a follower that was away needs a snapshot. */
void raft_set_snapshot_trailing(struct raft *r, unsigned n)
{
    r->legacy.snapshot_trailing =
        simraft_all.cfg.trailing && simraft_all.cfg.trailing < n ? simraft_all.cfg.trailing : n;
}

/* ---- before libraft ---- */

int __wrap_mlog_repair(const char *dir, uint64_t mark);
int __wrap_mlog_check(const char *dir, bool joined, struct mlog_stored *out);

int __wrap_mlog_repair(const char *dir, uint64_t mark)
{
    (void)dir, (void)mark;
    return 0;
}

int __wrap_mlog_check(const char *dir, bool joined, struct mlog_stored *out)
{
    struct disk *d = simraft_disk(dir);
    const struct snap *s = &d->snap[1];
    struct mlog_desc desc;
    const char *why;
    (void)joined;
    simraft_settle(d);
    *out = (struct mlog_stored){.first = d->first, .last = d->first + d->n - 1, .term = d->term};
    out->snapshot = s->index;
    out->snapshot_term = s->term;
    out->last_term = d->n ? d->v[d->n - 1].term : s->term;
    if (out->last < s->index)
        out->last = s->index;
    for (size_t i = 0; i < d->n; i++)
        if (d->first + i > s->index)
            out->bytes += d->v[i].len;
    if (!s->index)
        return 0;
    int rc = mlog_desc_decode(s->data.base, s->data.len, &desc, &why);
    if (rc == 0)
        rc = mlog_ckpt_verify(dir, &desc);
    if (rc)
        vt_fail("the newest snapshot of %s names no whole checkpoint: %s", dir, err_str(rc));
    out->checkpoint = desc.index;
    return 0;
}

/* ---- faults ---- */

void simraft_full(const char *dir, bool full)
{
    simraft_disk(dir)->full = full;
}

void simraft_break(const char *dir)
{
    simraft_disk(dir)->broken = true;
}

void simraft_slow(const char *dir, int64_t ns)
{
    simraft_disk(dir)->slow = ns;
}

void simraft_wipe(const char *dir)
{
    struct disk *d = simraft_disk(dir);
    d->full = true; /* nothing of what is under way arrives */
    simraft_settle(d);
    d->full = false;
    simraft_drop_from(d, 0);
    simraft_snap_drop(d, &d->snap[0]);
    simraft_snap_drop(d, &d->snap[1]);
    d->term = d->vote = 0;
    d->first = 1;
    d->slow = 0;
}
