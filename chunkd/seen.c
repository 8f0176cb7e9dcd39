/* replfs.seen, a small text file:
 *
 *   replfs seen 1
 *   seq 12
 *   newest 0123456789abcdef 5120 fedcba9876543211 ...
 *   astray 0 0
 *   upto 1048577 1048578 4
 *   term 17
 *   crc 89abcdef
 *
 * newest and astray: incarnation, position, and the incarnations before, newest first; upto: chunk
 * ids, inode numbers and chunkd ids that may have been given are below. term: the highest of a metad that led; a
 * file without it is older. crc is the CRC32C of the lines
 * above it. Each write is a new file that takes the former's place.
 *
 * A metad that says that it is behind (it was told so by chunkds) is not believed: its mark goes to
 * `astray`, and `newest` stays until a metad is met that is not behind. Numbers only grow.
 *
 * Failure modes: a directory that cannot take the file is left out, with a warning; with several
 * directories the highest seq counts. */
#include "seen.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/private.h"

#define LOG_MODULE "heartbeat"
#define SEEN_VERSION 1u

/* ---- as text ---- */

static int put_mark(char *out, size_t n, const char *name, const struct seen_mark *m)
{
    int len = snprintf(out, n, "%s %" PRIx64 " %" PRIu64, name, m->incarnation, m->position);
    for (unsigned k = 0; k < m->nbefore; k++)
        len += snprintf(out + len, n - (size_t)len, " %" PRIx64, m->before[k]);
    return len + snprintf(out + len, n - (size_t)len, "\n");
}

int seen_format(const struct seen *s, char out[SEEN_TEXT_MAX])
{
    int len =
        snprintf(out, SEEN_TEXT_MAX, "replfs seen %u\nseq %" PRIu64 "\n", SEEN_VERSION, s->seq);
    len += put_mark(out + len, SEEN_TEXT_MAX - (size_t)len, "newest", &s->newest);
    len += put_mark(out + len, SEEN_TEXT_MAX - (size_t)len, "astray", &s->astray);
    len += snprintf(out + len, SEEN_TEXT_MAX - (size_t)len, "upto %" PRIu64 " %" PRIu64 " %u\n",
                    s->chunk_upto, s->ino_upto, s->chunkd_upto);
    len += snprintf(out + len, SEEN_TEXT_MAX - (size_t)len, "term %" PRIu64 "\n", s->term);
    return len + snprintf(out + len, SEEN_TEXT_MAX - (size_t)len, "crc %08x\n",
                          crc32c(0, out, (size_t)len));
}

/* The line behind *at that begins with name: false when it is another. */
static bool get_mark(const char **at, const char *name, struct seen_mark *m)
{
    size_t n = strlen(name);
    char *end;
    if (strncmp(*at, name, n) || (*at)[n] != ' ')
        return false;
    m->incarnation = strtoull(*at + n, &end, 16);
    m->position = strtoull(end, &end, 10);
    for (m->nbefore = 0; *end == ' ' && m->nbefore < SEEN_ANCESTORS; m->nbefore++)
        m->before[m->nbefore] = strtoull(end, &end, 16);
    *at = end + 1;
    return *end == '\n';
}

int seen_parse(const char *text, size_t len, struct seen *out)
{
    char copy[SEEN_TEXT_MAX], want[32];
    unsigned version;
    int used = 0;
    if (len >= sizeof(copy) || memchr(text, 0, len))
        return -ERR_CORRUPT;
    memcpy(copy, text, len);
    copy[len] = 0;
    char *crc = strstr(copy, "\ncrc ");
    if (sscanf(copy, "replfs seen %u\n", &version) != 1 || !crc)
        return -ERR_CORRUPT;
    snprintf(want, sizeof(want), "\ncrc %08x\n", crc32c(0, copy, (size_t)(crc + 1 - copy)));
    if (strcmp(crc, want))
        return -ERR_CORRUPT;
    if (version > SEEN_VERSION)
        return -ERR_VERSION;
    *out = (struct seen){0};
    if (sscanf(copy, "replfs seen %u\nseq %" SCNu64 "\n%n", &version, &out->seq, &used) != 2 ||
        !used)
        return -ERR_CORRUPT;
    const char *at = copy + used;
    if (!get_mark(&at, "newest", &out->newest) || !get_mark(&at, "astray", &out->astray) ||
        sscanf(at, "upto %" SCNu64 " %" SCNu64 " %" SCNu32 "\n", &out->chunk_upto, &out->ino_upto,
               &out->chunkd_upto) != 3)
        return -ERR_CORRUPT;
    const char *term = strstr(at, "\nterm ");
    if (term && sscanf(term, "\nterm %" SCNu64 "\n", &out->term) != 1)
        return -ERR_CORRUPT;
    return 0;
}

/* ---- as files ---- */

static int read_file(const char *dir, struct seen *out)
{
    char path[PATH_MAX], text[SEEN_TEXT_MAX];
    if ((size_t)snprintf(path, sizeof(path), "%s/replfs.seen", dir) >= sizeof(path))
        return -ENAMETOOLONG;
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, sizeof(text));
    return n < 0 ? -errno : seen_parse(text, (size_t)n, out);
}

void seen_load(struct seen *s, struct disks *d)
{
    *s = (struct seen){0};
    for (size_t i = 0; i < disks_count(d); i++) {
        struct seen one;
        const char *dir = disk_dir(disks_at(d, i));
        int rc = read_file(dir, &one);
        if (rc == 0 && one.seq >= s->seq)
            *s = one;
        else if (rc != 0 && rc != -ENOENT)
            log_warn(
                "%s/replfs.seen cannot be used (%s): this disk does not know any more what metad "
                "told; it is written anew",
                dir, err_str(rc));
    }
}

void seen_save(struct seen *s, struct disks *d, bool now)
{
    char text[SEEN_TEXT_MAX];
    if (!s->changed || !disks_ready(d) || (!now && clock_mono() - s->written < SEEN_LAG))
        return;
    s->seq++;
    s->written = clock_mono();
    s->changed = false;
    int len = seen_format(s, text);
    for (size_t i = 0; i < disks_count(d); i++) {
        struct disk *k = disks_at(d, i);
        int rc =
            disk_failed(k) ? 0 : private_replace(disk_dir(k), "replfs.seen", text, (size_t)len);
        if (rc != 0)
            log_warn("%s/replfs.seen cannot be written: %s", disk_dir(k), err_str(rc));
    }
}

/* ---- what is told ---- */

static bool mark_set(struct seen_mark *m, const Replfs__Standing *st)
{
    bool other = m->incarnation != st->incarnation;
    m->incarnation = st->incarnation;
    m->position = st->position;
    m->nbefore = st->n_before < SEEN_ANCESTORS ? (unsigned)st->n_before : SEEN_ANCESTORS;
    if (m->nbefore)
        memcpy(m->before, st->before, m->nbefore * sizeof(m->before[0]));
    return other;
}

void seen_told(struct seen *s, struct disks *d, const Replfs__Standing *st, bool behind)
{
    struct seen was = *s;
    if (!st || !st->incarnation)
        return;
    bool other = mark_set(behind ? &s->astray : &s->newest, st);
    if (!behind && s->astray.incarnation) {
        s->astray = (struct seen_mark){0}; /* metad has heard of it */
        other = true;
    }
    s->chunk_upto = st->chunk_upto > s->chunk_upto ? st->chunk_upto : s->chunk_upto;
    s->ino_upto = st->ino_upto > s->ino_upto ? st->ino_upto : s->ino_upto;
    s->chunkd_upto = st->chunkd_upto > s->chunkd_upto ? st->chunkd_upto : s->chunkd_upto;
    s->changed |= other || memcmp(&was, s, sizeof(was)) != 0;
    seen_save(s, d, other);
}

void seen_term(struct seen *s, struct disks *d, uint64_t term)
{
    if (term <= s->term)
        return;
    s->term = term;
    s->changed = true;
    seen_save(s, d, true);
}

uint64_t seen_chunk_upto(const struct seen *s, struct disks *d)
{
    uint64_t stored = inventory_highest(disks_inventory(d)) + 1;
    return stored > s->chunk_upto ? stored : s->chunk_upto;
}

static void mark_fill(Replfs__Standing *out, struct seen_mark *m)
{
    replfs__standing__init(out);
    out->incarnation = m->incarnation;
    out->position = m->position;
    out->before = m->before;
    out->n_before = m->nbefore;
}

void seen_fill(struct seen *s, struct disks *d, Replfs__RegisterReq *r, Replfs__Standing *seen,
               Replfs__Standing *astray)
{
    mark_fill(seen, &s->newest);
    mark_fill(astray, &s->astray);
    seen->chunk_upto = astray->chunk_upto = seen_chunk_upto(s, d);
    seen->ino_upto = s->ino_upto;
    seen->chunkd_upto = s->chunkd_upto;
    r->seen = seen;
    r->astray = s->astray.incarnation ? astray : NULL;
}
