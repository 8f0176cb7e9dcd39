/* What a crash can leave in log/ on a metad that follows, and libraft (0.22.1) cannot load: it drops entries of its own
 * for those of another leader by rewriting a segment under a new name, without a temporary one, and then removes the old
 * ones; and it stores a snapshot of the leader before it removes the segments that this one replaces.
 *
 *   0. A full segment could not be closed (no descriptor was left, an I/O error) while later ones were: libraft goes on
 *      to the next, and takes what is open for the newest. What fills a gap between closed segments, by the indexes in
 *      its own entries, gets the name that it should have.
 *   1. Two closed segments begin with the same entry: the shorter one, whole or not, was to replace the longer one. It is
 *      removed when the longer one is whole: what should have been dropped is then still there, which is no harm, since
 *      it was never committed, and the leader has it dropped again.
 *   2. Segments stand behind a gap above the newest snapshot: those before were removed already. They are removed, too,
 *      when all of them are above the high-water mark, which was lowered before the dropping began, and the mark is
 *      within what is before the gap. Otherwise a segment was lost, and mlog_check.c says so.
 *   3. All segments end before the newest snapshot, which is whole: it came from the leader, and replaces them. (One of
 *      our own is of an index that the log has.) They are removed.
 *
 * Nothing else is touched. Before mlog_check.c. */
#include "mlog_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "mlog"

static size_t closed_of(const struct mlog_files *l)
{
    size_t n = 0;

    while (n < l->nseg && !l->seg[n].open)
        n++;
    return n;
}

static int repair_remove(const char *dir, const struct mlog_file *f, const char *why)
{
    char path[MLOG_PATH];
    int rc = mlog_dir_path(path, dir, f->name);

    if (rc == 0 && unlink(path) < 0 && errno != ENOENT)
        rc = -errno;
    if (rc == 0)
        rc = mlog_dir_sync(dir);
    if (rc == 0)
        log_info("%s: removed: %s", path, why);
    else
        log_error("%s: cannot be removed: %s", path, err_str(rc));
    return rc;
}

static void remove_file(struct mlog_files *l, size_t i)
{
    for (; i + 1 < l->nseg; i++)
        l->seg[i] = l->seg[i + 1];
    l->nseg--;
}

static bool is_whole(const char *dir, const struct mlog_file *f)
{
    struct mlog_walk w = {0};

    return mlog_check_read(dir, f, f->first, &w) == 0 && !w.why &&
           w.entries == f->last - f->first + 1;
}

/* From entry `first` on it has whole entries and nothing else, all below `below`. Sets their last, and where they end. */
static bool is_forgotten(const char *dir, const struct mlog_file *f, uint64_t first, uint64_t below,
                         uint64_t *last, size_t *end)
{
    struct mlog_walk w = {0};

    if (!f->open || mlog_check_read(dir, f, first, &w) != 0 || w.entries == 0 ||
        (w.why && !w.zeros) || first + w.entries > below)
        return false;
    *last = first + w.entries - 1;
    *end = w.good;
    return true;
}

static int repair_close(const char *dir, const struct mlog_file *f, uint64_t first, uint64_t last,
                        size_t end)
{
    char path[MLOG_PATH], to[MLOG_PATH], name[80];

    snprintf(name, sizeof(name), "%016" PRIu64 "-%016" PRIu64, first, last);
    int rc = mlog_dir_path(path, dir, f->name);
    if (rc == 0)
        rc = mlog_dir_path(to, dir, name);
    if (rc != 0)
        return rc;
    CLEANUP(close_fdp) int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)end) < 0 || fsync(fd) < 0 || rename(path, to) < 0)
        rc = -errno;
    if (rc == 0)
        rc = mlog_dir_sync(dir);
    if (rc == 0)
        log_info("%s: closed as %s, which had failed before", path, name);
    else
        log_error("%s: cannot be closed as %s: %s", path, name, err_str(rc));
    return rc;
}

/* 0. One; *done: there was none. */
static int close_forgotten(const char *dir, const struct mlog_files *l, bool *done)
{
    size_t n = closed_of(l), end;
    uint64_t last;

    *done = false;
    for (size_t i = 1; i < n; i++)
        for (size_t k = n; k < l->nseg; k++)
            if (l->seg[i - 1].last + 1 < l->seg[i].first &&
                is_forgotten(dir, &l->seg[k], l->seg[i - 1].last + 1, l->seg[i].first, &last, &end))
                return repair_close(dir, &l->seg[k], l->seg[i - 1].last + 1, last, end);
    *done = true;
    return 0;
}

/* 1. They are sorted by first, then last. */
static int drop_shorter(const char *dir, struct mlog_files *l)
{
    for (size_t i = 0; i + 1 < closed_of(l);) {
        if (l->seg[i].first != l->seg[i + 1].first || l->seg[i].last >= l->seg[i + 1].last ||
            !is_whole(dir, &l->seg[i + 1])) {
            i++;
            continue;
        }
        int rc = repair_remove(dir, &l->seg[i], "a crash interrupted the dropping of entries");
        if (rc != 0)
            return rc;
        remove_file(l, i);
    }
    return 0;
}

/* 2. */
static int drop_behind_gap(const char *dir, struct mlog_files *l, uint64_t snapshot, uint64_t mark)
{
    for (size_t n = closed_of(l); n > 1; n = closed_of(l)) {
        size_t i = n - 1;
        while (i > 0 && l->seg[i - 1].last + 1 == l->seg[i].first)
            i--;
        if (i == 0 || l->seg[i].first <= snapshot + 1 || mark == 0 || l->seg[i].first <= mark ||
            l->seg[i - 1].last < mark || l->seg[i - 1].last + 1 >= l->seg[i].first)
            return 0;
        for (size_t k = n; k-- > i;) {
            int rc = repair_remove(dir, &l->seg[k], "entries before it were dropped");
            if (rc != 0)
                return rc;
            remove_file(l, k);
        }
    }
    return 0;
}

/* 3. */
static int drop_replaced(const char *dir, struct mlog_files *l, uint64_t snapshot)
{
    size_t n = closed_of(l);
    uint64_t last = n > 0 ? l->seg[n - 1].last : 0;

    if (n == 0 || last >= snapshot)
        return 0;
    for (size_t i = n; i < l->nseg; i++) {
        struct mlog_walk w = {0};
        if (mlog_check_read(dir, &l->seg[i], last + 1, &w) != 0)
            return 0; /* mlog_check.c says what is wrong */
        last += w.entries;
    }
    for (size_t i = 0; last < snapshot && i < l->nseg; i++) {
        int rc = repair_remove(dir, &l->seg[i], "the leader's snapshot replaces it");
        if (rc != 0)
            return rc;
    }
    return 0;
}

int mlog_repair(const char *data_dir, uint64_t mark)
{
    char dir[MLOG_PATH];
    struct mlog_files l = {0};
    int rc = mlog_dir_path(dir, data_dir, "log");

    for (bool done = false; rc == 0 && !done;) {
        free(l.seg);
        free(l.snap);
        l = (struct mlog_files){0};
        rc = mlog_check_list(dir, &l);
        if (rc == 0)
            rc = close_forgotten(dir, &l, &done);
    }
    uint64_t snapshot = l.nsnap > 0 ? l.snap[l.nsnap - 1].last : 0;
    if (rc == 0)
        rc = drop_shorter(dir, &l);
    if (rc == 0)
        rc = drop_behind_gap(dir, &l, snapshot, mark);
    if (rc == 0)
        rc = drop_replaced(dir, &l, snapshot);
    free(l.seg);
    free(l.snap);
    return rc;
}
