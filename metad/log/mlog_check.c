/* Reads the stored log as libraft will, before libraft does, and changes nothing.
 *
 * Why: libraft repairs while it loads (it cuts an open segment at the first bad batch, skips a
 * snapshot it cannot read, drops segments that do not connect). Each is right after some crash and
 * wrong after some damage, and afterwards the evidence is gone. So everything is checked here
 * first:
 *
 *   metadata1/2      format; versions that follow each other; a term not below the log's
 *   snapshots        the newest complete one: its .meta checksum, its descriptor, the state file it
 *                    names
 *   closed segments  contiguous, connected to the snapshot, every batch and every entry whole
 *   open segments    batches up to the first bad one. A bad one with anything but zeros behind it
 *                    is a torn last write if the high-water mark allows (the caller compares) and
 *                    nothing follows in later segments; else damage
 *
 * What a kill -9 or a power cut can leave must pass: unfinished snapshots (a .meta without its
 * file), empty or zeroed open segments, segments that a clean-up had not removed yet. Called before
 * the log thread starts. */
#include "mlog_internal.h"
#include "names_file.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/byteorder.h"
#include "base/log.h"
#include "entry.h"

#define LOG_MODULE "mlog"
#define RAFT_DISK_FORMAT 1u
#define BATCH_PREAMBLE 16u /* two checksums and the number of entries */
#define BATCH_ENTRY 16u    /* term, type, 3 unused, size */
#define MAX_BATCH_ENTRIES (MLOG_SEGMENT_BYTES / 32u)
#define MAX_TERM_JUMP 1000000u /* elections nobody told the high-water mark about */
#define LIFE_TERMS 100000u     /* that a life has had before its first entry is logged, at most */
#define LIFE_AHEAD (3650ll * 86400) /* of our clock, seconds: clocks may be wrong */

/* libraft's checksum: CRC-32 with polynomial 04c11db7, most significant bit first, starting from 0.
 * Eight table look-ups for eight bytes; the tables are made on first use. */
static uint32_t crc_table[8][256];

static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i << 24;
        for (int bit = 0; bit < 8; bit++)
            c = (c << 1) ^ ((c & 0x80000000u) != 0 ? 0x04c11db7u : 0);
        crc_table[0][i] = c;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = crc_table[k - 1][i];
            crc_table[k][i] = (c << 8) ^ crc_table[0][c >> 24];
        }
}

static uint32_t raft_crc(const uint8_t *p, size_t len, uint32_t crc)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_crc_table);
    for (; len >= 8; p += 8, len -= 8) {
        crc ^= be_get32(p);
        crc = crc_table[7][crc >> 24] ^ crc_table[6][(crc >> 16) & 255] ^
              crc_table[5][(crc >> 8) & 255] ^ crc_table[4][crc & 255] ^ crc_table[3][p[4]] ^
              crc_table[2][p[5]] ^ crc_table[1][p[6]] ^ crc_table[0][p[7]];
    }
    for (size_t i = 0; i < len; i++)
        crc = (crc << 8) ^ crc_table[0][((crc >> 24) ^ p[i]) & 255];
    return crc;
}

/* ---- one segment ---- */

static bool all_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != 0)
            return false;
    return true;
}

/* Entries of a batch whose checksums are right. Returns NULL or what is wrong. */
static const char *walk_entries(const uint8_t *head, const uint8_t *data, uint64_t n,
                                uint64_t first, struct mlog_walk *w)
{
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *h = head + i * BATCH_ENTRY;
        size_t size = le_get32(h + 12);
        uint64_t index = first + w->entries, term = le_get64(h);
        struct entry e;
        const char *why;

        if (term < w->last_term)
            return "terms run backwards";
        if (h[8] == RAFT_COMMAND) {
            int rc = entry_open(data, size, &e, &why);
            if (rc == 0 && e.index != index) {
                why = "entry belongs to another place of the log";
                rc = -ERR_CORRUPT;
            }
            if (rc != 0) {
                w->code = rc;
                return why;
            }
        }
        w->last_term = term;
        w->entries++;
        if (index > w->skip)
            w->bytes += size;
        data += size;
    }
    return NULL;
}

static const char *walk_batch(const uint8_t *p, size_t len, uint64_t first, size_t *used,
                              struct mlog_walk *w)
{
    if (len < BATCH_PREAMBLE)
        return "batch header runs past the end";
    uint64_t n = le_get64(p + 8);
    if (n == 0 || n > MAX_BATCH_ENTRIES)
        return "impossible number of entries in a batch";
    size_t head_len = 8 + (size_t)n * BATCH_ENTRY;
    if (head_len > len - 8)
        return "batch header runs past the end";
    if (raft_crc(p + 8, head_len, 0) != le_get32(p))
        return "batch header checksum mismatch";
    const uint8_t *head = p + BATCH_PREAMBLE, *data = p + 8 + head_len;
    size_t room = len - 8 - head_len, size = 0;
    for (uint64_t i = 0; i < n; i++) {
        size += le_get32(head + i * BATCH_ENTRY + 12);
        if (size > room)
            return "batch runs past the end";
    }
    if (raft_crc(data, size, 0) != le_get32(p + 4))
        return "batch data checksum mismatch";
    *used = 8 + head_len + size;
    return walk_entries(head, data, n, first, w);
}

void mlog_check_segment(const uint8_t *p, size_t len, uint64_t first, struct mlog_walk *w)
{
    w->entries = 0;
    w->good = 0;
    w->why = NULL;
    w->zeros = false;
    w->code = 0;
    if (len < 8 || le_get64(p) != RAFT_DISK_FORMAT) {
        w->zeros = all_zero(p, len);
        w->why = w->zeros ? "never written" : "unknown segment format";
        w->code = -ERR_CORRUPT;
        return;
    }
    w->good = 8;
    while (w->good < len) {
        size_t used = 0;
        w->why = walk_batch(p + w->good, len - w->good, first, &used, w);
        if (w->why) {
            if (w->code == 0)
                w->code = -ERR_CORRUPT;
            w->zeros = all_zero(p + w->good, len - w->good);
            return;
        }
        w->good += used;
    }
}

/* ---- the directory ---- */

static void check_add(struct mlog_file **v, size_t *n, const struct mlog_file *f)
{
    struct mlog_file *p = realloc(*v, (*n + 1) * sizeof(*p));

    if (!p)
        abort(); /* nothing can be checked without memory */
    p[*n] = *f;
    *v = p;
    ++*n;
}

static int by_place(const void *a, const void *b)
{
    const struct mlog_file *x = a, *y = b;

    if (x->open != y->open)
        return x->open ? 1 : -1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->last != y->last)
        return x->last < y->last ? -1 : 1;
    return x->stamp < y->stamp ? -1 : x->stamp > y->stamp;
}

static bool snapshot_complete(const char *dir, const char *meta)
{
    char path[MLOG_PATH];
    struct stat st;
    int n =
        snprintf(path, sizeof(path), "%s/%.*s", dir, (int)(strlen(meta) - strlen(".meta")), meta);

    return n > 0 && (size_t)n < sizeof(path) && stat(path, &st) == 0 && st.st_size > 0;
}

int mlog_check_list(const char *dir, struct mlog_files *l)
{
    DIR *d = opendir(dir);

    if (!d) {
        int code = -errno;
        log_error(
            "%s: cannot be read: %s. It belongs to the metadata directory: restore both together",
            dir, err_str(code));
        return code == -ENOENT ? -ERR_CORRUPT : code;
    }
    for (struct dirent *e; (e = readdir(d));) {
        struct mlog_file f = {0};
        int end = 0;
        size_t len = strlen(e->d_name);
        if (len >= sizeof(f.name))
            continue;
        memcpy(f.name, e->d_name, len + 1);
        if (sscanf(f.name, "%16" SCNu64 "-%16" SCNu64 "%n", &f.first, &f.last, &end) == 2 &&
            (size_t)end == len) {
            check_add(&l->seg, &l->nseg, &f);
        } else if (sscanf(f.name, "open-%" SCNu64 "%n", &f.first, &end) == 1 &&
                   (size_t)end == len) {
            f.open = true;
            check_add(&l->seg, &l->nseg, &f);
        } else if (sscanf(f.name, "snapshot-%" SCNu64 "-%" SCNu64 "-%" SCNu64 ".meta%n", &f.first,
                          &f.last, &f.stamp, &end) == 3 &&
                   (size_t)end == len && snapshot_complete(dir, f.name)) {
            check_add(&l->snap, &l->nsnap, &f);
        }
    }
    closedir(d);
    if (l->nseg > 0)
        qsort(l->seg, l->nseg, sizeof(*l->seg), by_place);
    if (l->nsnap > 0)
        qsort(l->snap, l->nsnap, sizeof(*l->snap), by_place);
    return 0;
}

/* ---- metadata1, metadata2 ---- */

static int check_metadata(const char *dir, struct mlog_stored *s)
{
    uint64_t version[2] = {0, 0}, term[2] = {0, 0};
    const char *why = NULL;

    for (unsigned i = 0; i < 2 && !why; i++) {
        char path[MLOG_PATH];
        CLEANUP(free_ptr) uint8_t *p = NULL;
        size_t len;
        int n = snprintf(path, sizeof(path), "%s/metadata%u", dir, i + 1);
        if (n < 0 || (size_t)n >= sizeof(path))
            return -ENAMETOOLONG;
        int rc = mlog_dir_read(path, &p, &len);
        if (rc == -ENOENT || (rc == 0 && len < 32))
            continue; /* its first writing was interrupted */
        if (rc != 0)
            return rc;
        version[i] = le_get64(p + 8);
        term[i] = le_get64(p + 16);
        if (len != 32 || le_get64(p) != RAFT_DISK_FORMAT)
            why = "wrong format";
        else if (version[i] % 2 != (i == 0 ? 1 : 0) || version[i] == 0)
            why = "impossible version";
    }
    if (!why && version[0] == 0 && version[1] == 0)
        why = "both are missing";
    /* metadata1 is written first, at version 1, and the other one at version 2. */
    if (!why && (version[0] == 0 || (version[1] == 0 && version[0] != 1)))
        why = "one of them is missing";
    if (!why && version[1] != 0 && version[0] + 1 != version[1] && version[1] + 1 != version[0])
        why = "versions do not follow each other";
    if (why) {
        log_error(
            "%s/metadata1 and metadata2 (term and vote) are damaged: %s. Restore the whole data "
            "directory from a backup, or both files from the same moment as the log",
            dir, why);
        return -ERR_CORRUPT;
    }
    s->version = version[0] > version[1] ? version[0] : version[1];
    s->term = version[0] > version[1] ? term[0] : term[1];
    return 0;
}

static bool no_metadata(const char *dir)
{
    char path[MLOG_PATH];

    return mlog_dir_path(path, dir, "metadata1") == 0 && access(path, F_OK) < 0 &&
           errno == ENOENT && mlog_dir_path(path, dir, "metadata2") == 0 &&
           access(path, F_OK) < 0 && errno == ENOENT;
}

/* ---- snapshots ---- */

static const char *meta_problem(const uint8_t *p, size_t len)
{
    if (len < 32 || le_get64(p) != RAFT_DISK_FORMAT)
        return "wrong format";
    uint64_t conf = le_get64(p + 24);
    if (conf == 0 || conf > len - 32)
        return "impossible length";
    uint32_t crc = raft_crc(p + 32, (size_t)conf, raft_crc(p + 16, 16, 0));
    return crc == (uint32_t)le_get64(p + 8) ? NULL : "checksum mismatch";
}

static int check_snapshot(const char *data_dir, const char *dir, const struct mlog_file *f,
                          struct mlog_stored *s)
{
    char path[MLOG_PATH];
    CLEANUP(free_ptr) uint8_t *meta = NULL, *data = NULL;
    size_t meta_len, len;
    struct mlog_desc d;
    const char *why;

    int rc = mlog_dir_path(path, dir, f->name);
    if (rc == 0)
        rc = mlog_dir_read(path, &meta, &meta_len);
    if (rc != 0)
        return rc;
    why = meta_problem(meta, meta_len);
    if (!why) {
        path[strlen(path) - strlen(".meta")] = 0;
        rc = mlog_dir_read(path, &data, &len);
        if (rc == 0)
            rc = mlog_desc_decode(data, len, &d, &why);
    }
    if (rc == -ERR_VERSION) {
        log_error("%s: %s: start a replfs-metad at least as new as the one that wrote it", path,
                  why);
        return rc;
    }
    if (why || rc != 0) {
        log_error("%s: the newest snapshot is damaged: %s. Restore the whole data directory from a "
                  "backup",
                  path, why ? why : err_str(rc));
        return -ERR_CORRUPT;
    }
    s->snapshot_term = f->first;
    s->snapshot = f->last;
    s->checkpoint = d.index;
    return mlog_ckpt_verify(data_dir, &d);
}

/* ---- segments ---- */

static int bad_segment(const char *dir, const struct mlog_file *f, const struct mlog_walk *w)
{
    if (w->code == -ERR_VERSION)
        log_error(
            "%s/%s: at byte %zu: %s: start a replfs-metad at least as new as the one that wrote it",
            dir, f->name, w->good, w->why);
    else
        log_error(
            "%s/%s: damaged at byte %zu: %s. Entries behind it were acknowledged, so nothing is "
            "repaired: restore the whole data directory from a backup",
            dir, f->name, w->good, w->why);
    return w->code;
}

int mlog_check_read(const char *dir, const struct mlog_file *f, uint64_t first, struct mlog_walk *w)
{
    char path[MLOG_PATH];
    CLEANUP(free_ptr) uint8_t *p = NULL;
    size_t len;

    int rc = mlog_dir_path(path, dir, f->name);
    if (rc == 0)
        rc = mlog_dir_read(path, &p, &len);
    if (rc != 0) {
        log_error("%s/%s: cannot be read: %s", dir, f->name, err_str(rc));
        return rc;
    }
    mlog_check_segment(p, len, first, w);
    w->zeros = w->zeros || len == 0;
    return 0;
}

/* Closed segments that connect to the newest one; older ones must all be behind the snapshot. */
static int check_order(const char *dir, const struct mlog_files *l, struct mlog_stored *s,
                       size_t *start)
{
    size_t n = 0;

    while (n < l->nseg && !l->seg[n].open)
        n++;
    *start = n;
    if (n > 0) {
        size_t i = n - 1;
        while (i > 0 && l->seg[i - 1].last + 1 == l->seg[i].first)
            i--;
        *start = i;
        if (l->seg[i].first > s->snapshot + 1 || (i > 0 && l->seg[i - 1].last > s->snapshot)) {
            log_error("%s: entries %" PRIu64 " to %" PRIu64
                      " are missing: no segment holds them. Restore the "
                      "whole data directory from a backup",
                      dir,
                      i > 0 && l->seg[i - 1].last > s->snapshot ? l->seg[i - 1].last + 1
                                                                : s->snapshot + 1,
                      l->seg[i].first - 1);
            return -ERR_CORRUPT;
        }
        for (size_t k = i; k < n; k++)
            if (l->seg[k].last < l->seg[k].first) {
                log_error("%s/%s: impossible name", dir, l->seg[k].name);
                return -ERR_CORRUPT;
            }
        s->first = l->seg[i].first;
        return 0;
    }
    s->first = s->snapshot + 1;
    return 0;
}

static int check_closed(const char *dir, const struct mlog_file *f, struct mlog_stored *s,
                        struct mlog_walk *w)
{
    int rc = mlog_check_read(dir, f, f->first, w);

    if (rc != 0)
        return rc;
    if (!w->why && w->entries != f->last - f->first + 1) {
        w->why = "holds another number of entries than its name says";
        w->code = -ERR_CORRUPT;
    }
    if (w->why)
        return bad_segment(dir, f, w);
    s->last += w->entries;
    return 0;
}

/* An open segment may end in zeros, or in a write that never finished. */
static int check_open(const char *dir, const struct mlog_file *f, struct mlog_stored *s,
                      struct mlog_walk *w)
{
    int rc = mlog_check_read(dir, f, s->last + 1, w);

    if (rc != 0)
        return rc;
    if (w->code == -ERR_VERSION)
        return bad_segment(dir, f, w);
    if (w->entries > 0 && s->tail[0] != 0) {
        log_error("%s: entries follow in %s although an earlier segment breaks off (%s): restore "
                  "the whole "
                  "data directory from a backup",
                  dir, f->name, s->tail);
        return -ERR_CORRUPT;
    }
    s->last += w->entries;
    if (w->why && !w->zeros)
        snprintf(s->tail, sizeof(s->tail), "%s/%.32s: %s at byte %zu", "log", f->name, w->why,
                 w->good);
    else if (w->why && w->good == 0 && w->zeros)
        w->why = NULL;
    return 0;
}

static int check_segments(const char *dir, const struct mlog_files *l, bool joined,
                          struct mlog_stored *s)
{
    struct mlog_walk w = {.skip = s->snapshot};
    size_t start;
    int rc = check_order(dir, l, s, &start);

    s->last = s->first - 1;
    for (size_t i = start; rc == 0 && i < l->nseg; i++)
        rc = l->seg[i].open ? check_open(dir, &l->seg[i], s, &w)
                            : check_closed(dir, &l->seg[i], s, &w);
    if (rc != 0)
        return rc;
    s->bytes = w.bytes;
    s->last_term = w.last_term > s->snapshot_term ? w.last_term : s->snapshot_term;
    if (s->last < s->snapshot && s->last >= s->first) {
        log_error("%s: ends at index %" PRIu64 ", before its own snapshot at %" PRIu64
                  "%s%s: restore the "
                  "whole data directory from a backup",
                  dir, s->last, s->snapshot, s->tail[0] != 0 ? "; " : "", s->tail);
        return -ERR_CORRUPT;
    }
    if (s->last < s->snapshot)
        s->last = s->snapshot;
    if (s->last == 0 && !joined) {
        log_error("%s: the log is empty although the cluster was made: restore the whole data "
                  "directory from a "
                  "backup",
                  dir);
        return -ERR_CORRUPT;
    }
    return 0;
}

/* The first terms of a life (names_file.h) that is later than the log's: mlog_new_life. */
static bool begins_life(uint64_t term, uint64_t last_term)
{
    return names_life(term) > names_life(last_term) && term % NAMES_LIFE < LIFE_TERMS &&
           names_life(term) < (uint64_t)(clock_wall() / NSEC_PER_SEC + LIFE_AHEAD);
}

int mlog_check(const char *data_dir, bool joined, struct mlog_stored *s)
{
    char dir[MLOG_PATH];
    struct mlog_files l = {0};
    int rc = mlog_dir_path(dir, data_dir, "log");

    memset(s, 0, sizeof(*s));
    if (rc == 0)
        rc = mlog_check_list(dir, &l);
    if (rc == 0 && joined && l.nseg == 0 && l.nsnap == 0 && no_metadata(dir)) {
        s->first = 1; /* has got nothing yet */
        return 0;
    }
    if (rc == 0)
        rc = check_metadata(dir, s);
    if (rc == 0 && l.nsnap > 0)
        rc = check_snapshot(data_dir, dir, &l.snap[l.nsnap - 1], s);
    if (rc == 0)
        rc = check_segments(dir, &l, joined, s);
    if (rc == 0 && (s->term < s->last_term || (s->term > s->last_term + MAX_TERM_JUMP &&
                                               !begins_life(s->term, s->last_term)))) {
        log_error("%s/metadata1 and metadata2 say term %" PRIu64 ", the log says %" PRIu64
                  ": damaged. Restore "
                  "the whole data directory from a backup",
                  dir, s->term, s->last_term);
        rc = -ERR_CORRUPT;
    }
    free(l.seg);
    free(l.snap);
    return rc;
}
