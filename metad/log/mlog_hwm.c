/* The high-water mark: the highest log index whose commands anybody was told about. A follower tells the leader
 * that an entry is stored; when another leader makes it drop entries again, the mark is lowered first.
 *
 * libraft takes a damaged batch in its newest segment for a write that a crash interrupted, and
 * cuts the log there without a word. Such a cut is right only for entries that nobody was told
 * about. So every index is written here after its entry is durable and before anything is
 * acknowledged; a start finds the log ending below the mark and refuses.
 *
 * The file holds two slots of 512 bytes, written in turn, each with its own checksum: a torn write
 * costs one slot, and the other is at most one step behind. The write is not synced (the mark would
 * cost what the log itself costs), only now and then: a power cut may leave it behind the log,
 * which weakens the check, never ahead of it, which would refuse a good log. Log thread. */
#include "mlog_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"
#include "base/log.h"

#define LOG_MODULE "mlog"
#define SLOT 512
#define USED 40
#define HWM_MAGIC 0x4d485052u /* "RPHM" */
#define HWM_VERSION 1u

static int write_slot(struct mlog_hwm *h)
{
    uint8_t p[USED] = {0};

    le_put32(p, HWM_MAGIC);
    le_put32(p + 4, HWM_VERSION);
    le_put64(p + 8, h->seq);
    le_put64(p + 16, h->index);
    le_put64(p + 24, h->term);
    le_put32(p + 36, crc32c(0, p, 36));
    if (pwrite(h->fd, p, sizeof(p), (off_t)(h->seq % 2) * SLOT) != (ssize_t)sizeof(p))
        return -EIO;
    return 0;
}

/* True when the slot is good; *empty when it was never written. */
static bool read_slot(int fd, unsigned n, struct mlog_hwm *out, bool *empty, bool *newer)
{
    static const uint8_t zeros[USED];
    uint8_t p[USED] = {0};
    ssize_t got = pread(fd, p, sizeof(p), (off_t)n * SLOT);

    *empty = got <= 0 || memcmp(p, zeros, sizeof(p)) == 0;
    if (got != (ssize_t)sizeof(p) || le_get32(p) != HWM_MAGIC ||
        crc32c(0, p, 36) != le_get32(p + 36))
        return false;
    if (le_get32(p + 4) != HWM_VERSION) {
        *newer = true;
        return false;
    }
    out->seq = le_get64(p + 8);
    out->index = le_get64(p + 16);
    out->term = le_get64(p + 24);
    return out->seq % 2 == n;
}

int mlog_hwm_open(struct mlog_hwm *h, const char *dir, bool create)
{
    char path[MLOG_PATH];
    int rc = mlog_dir_path(path, dir, "hwm");

    memset(h, 0, sizeof(*h));
    h->fd = -1;
    if (rc != 0)
        return rc;
    bool missing = access(path, F_OK) < 0;
    h->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (create ? O_TRUNC : 0), 0600);
    if (h->fd < 0) {
        rc = -errno;
        log_error("%s: cannot be opened: %s", path, err_str(rc));
        return rc;
    }
    if (create || missing) {
        if (!create)
            log_warn(
                "%s is missing: the end of the log is taken as it is, whatever was acknowledged",
                path);
        return write_slot(h);
    }
    bool newer = false, empty[2], good[2];
    struct mlog_hwm slot[2];
    for (unsigned i = 0; i < 2; i++)
        good[i] = read_slot(h->fd, i, &slot[i], &empty[i], &newer);
    if (newer) {
        log_error("%s: written by a newer replfs-metad: start one at least as new", path);
        rc = -ERR_VERSION;
    } else if (!good[0] && !good[1]) {
        log_error(
            "%s: damaged (neither of its two marks is whole). If the log is known to be complete, "
            "remove this file and start again",
            path);
        rc = -ERR_CORRUPT;
    }
    if (rc != 0) {
        mlog_hwm_close(h);
        return rc;
    }
    for (unsigned i = 0; i < 2; i++)
        if (!good[i] && !empty[i])
            log_warn("%s: mark %u of 2 is damaged, the other one is used", path, i + 1);
    unsigned best = good[0] && (!good[1] || slot[0].seq > slot[1].seq) ? 0 : 1;
    h->seq = slot[best].seq;
    h->index = slot[best].index;
    h->term = slot[best].term;
    return 0;
}

int mlog_hwm_advance(struct mlog_hwm *h, uint64_t index, uint64_t term)
{
    if (index <= h->index)
        return 0;
    h->seq++;
    h->index = index;
    h->term = term;
    h->dirty = true;
    return write_slot(h);
}

int mlog_hwm_lower(struct mlog_hwm *h, uint64_t index)
{
    if (h->index <= index)
        return 0;
    h->seq++;
    h->index = index;
    int rc = write_slot(h);
    if (rc == 0 && fdatasync(h->fd) < 0)
        rc = -errno;
    return rc;
}

void mlog_hwm_sync(struct mlog_hwm *h)
{
    if (h->fd >= 0 && fdatasync(h->fd) == 0)
        h->dirty = false;
}

void mlog_hwm_close(struct mlog_hwm *h)
{
    if (h->fd >= 0)
        close(h->fd);
    h->fd = -1;
}
