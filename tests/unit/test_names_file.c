/* Copies of the names: files of records are read as far as they are good and no further, whatever happened to them;
 * the ring of the log's last entries; and a data directory made of such a copy is metad's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "metad/backup/names_ring.h"
#include "metad/backup/recover.h"
#include "metad/fsm/fsm_cluster.h"
#include "metad/log/entry.h"
#include "metad/log/mlog.h"
#include "metad/log/mlog_build.h"
#include "names_file.h"
#include "tests/unit/tree.h"
#include "tests/unit/wait.h"

#define UUID "11111111-2222-3333-4444-555555555555"
#define GENERATION 100u

static const struct names_header header = {
    .cluster = UUID, .generation = GENERATION, .term = 7, .time_ns = 1000};

/* ---- a file ---- */

struct sheet { /* a file being made, and where its records begin */
    uint8_t p[16384];
    size_t len, at[32], n;
};

static void put(struct sheet *s, enum names_type type, uint64_t a, uint64_t b, const void *payload,
                uint32_t len)
{
    s->at[s->n++] = s->len;
    names_record_make(type, a, b, (int64_t)(1000 + s->n), payload, len, s->p + s->len);
    if (len > 0)
        memcpy(s->p + s->len + NAMES_RECORD, payload, len);
    s->len += NAMES_RECORD + len;
}

static void put_entry(struct sheet *s, uint64_t index, uint64_t before)
{
    uint8_t buf[64];
    size_t pos = entry_put(buf, ENTRY_HEADER, "command", 7);

    put(s, NAMES_ENTRY, index, before, buf,
        (uint32_t)entry_finish(buf, pos, 1, index, ENTRY_VERSION));
}

static void fill_sheet(struct sheet *s)
{
    uint8_t state[3000];

    for (size_t i = 0; i < sizeof(state); i++)
        state[i] = (uint8_t)(i * 7);
    memset(s, 0, sizeof(*s));
    names_header_make(&header, s->p);
    s->len = NAMES_HEADER;
    put(s, NAMES_PIECE, 0, 0, state, 1000);
    put_entry(s, 101, 98);
    put(s, NAMES_PIECE, 1000, 0, state + 1000, 1500);
    put(s, NAMES_PIECE, 2500, 0, state + 2500, 500);
    put(s, NAMES_WHOLE, 3000, crc32c(0, state, 3000), NULL, 0);
    put_entry(s, 103, 101);
    put_entry(s, 104, 103);
}

static int read_bytes(const uint8_t *p, size_t len, struct names_track *t, uint64_t *good,
                      const char **why)
{
    struct names_header h;
    int fd = memfd_create("names", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, len), (ssize_t)len);
    int rc = names_file_read(fd, &h, t, good, why, NULL, NULL);
    close(fd);
    if (rc == 0) {
        assert_string_equal(h.cluster, UUID);
        assert_int_equal(h.generation, GENERATION);
        assert_int_equal(h.term, 7);
    }
    return rc;
}

static void test_read_whole(void **state)
{
    struct sheet s;
    struct names_track t;
    uint64_t good;
    const char *why;

    (void)state;
    fill_sheet(&s);
    assert_int_equal(read_bytes(s.p, s.len, &t, &good, &why), 0);
    assert_null(why);
    assert_int_equal(good, s.len);
    assert_true(t.whole);
    assert_int_equal(t.state_len, 3000);
    assert_int_equal(t.entries, 3);
    assert_int_equal(t.reached, 104);
    assert_int_equal(t.reached_crc, le_get32(s.p + s.at[6] + NAMES_RECORD + 20));
}

/* A torn end: all records before it, none of it. */
static void test_every_cut(void **state)
{
    struct sheet s;
    struct names_track t;
    uint64_t good;
    const char *why;

    (void)state;
    fill_sheet(&s);
    for (size_t cut = 0; cut < s.len; cut++) {
        int rc = read_bytes(s.p, cut, &t, &good, &why);
        assert_int_equal(rc, cut < NAMES_HEADER ? -ERR_CORRUPT : 0);
        if (rc != 0)
            continue;
        size_t want = NAMES_HEADER;
        for (size_t i = 1; i < s.n && s.at[i] <= cut; i++)
            want = s.at[i];
        assert_int_equal(good, want);
        assert_int_equal(t.whole, want > s.at[4]);
        assert_int_equal(why == NULL, want == cut);
    }
}

static void test_every_flip(void **state)
{
    struct sheet s;
    struct names_track t;
    uint64_t good;
    const char *why;

    (void)state;
    fill_sheet(&s);
    for (size_t i = 0; i < s.len; i++) {
        s.p[i] ^= 0x10;
        int rc = read_bytes(s.p, s.len, &t, &good, &why);
        s.p[i] ^= 0x10;
        if (i < NAMES_HEADER) {
            assert_int_not_equal(rc, 0);
            continue;
        }
        assert_int_equal(rc, 0);
        assert_non_null(why);
        assert_true(good <= i);
    }
}

/* Without any one of its records the file ends there, or is not whole. */
static void test_every_record_missing(void **state)
{
    struct sheet s, cut;
    struct names_track t;
    uint64_t good;
    const char *why;

    (void)state;
    fill_sheet(&s);
    for (size_t i = 0; i + 1 < s.n; i++) {
        cut = s;
        memmove(cut.p + s.at[i], s.p + s.at[i + 1], s.len - s.at[i + 1]);
        cut.len = s.len - (s.at[i + 1] - s.at[i]);
        assert_int_equal(read_bytes(cut.p, cut.len, &t, &good, &why), 0);
        if (s.p[s.at[i] + 4] == NAMES_WHOLE)
            assert_false(t.whole);
        else
            assert_true(why != NULL && good < cut.len);
    }
}

/* Right checksums, wrong things in them. */
static void test_contradictions(void **state)
{
    struct sheet s;
    struct names_track t;
    uint64_t good;
    const char *why;
    static const struct {
        enum names_type type;
        uint64_t a, b;
        uint32_t len;
    } bad[] = {
        {NAMES_PIECE, 3000, 0, 100}, {NAMES_WHOLE, 3000, 0, 0},  {NAMES_ENTRY, 104, 104, 64},
        {NAMES_ENTRY, 106, 105, 64}, {NAMES_ENTRY, 105, 104, 8}, {(enum names_type)9, 105, 104, 64},
        {NAMES_ENTRY, 103, 104, 64},
    };
    uint8_t payload[100] = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fill_sheet(&s);
        size_t before = s.len;
        put(&s, bad[i].type, bad[i].a, bad[i].b, payload, bad[i].len);
        assert_int_equal(read_bytes(s.p, s.len, &t, &good, &why), 0);
        assert_non_null(why);
        assert_int_equal(good, before);
    }
    fill_sheet(&s); /* the state's own checksum */
    s.len = s.at[4];
    s.n = 4;
    put(&s, NAMES_WHOLE, 3000, 12345, NULL, 0);
    assert_int_equal(read_bytes(s.p, s.len, &t, &good, &why), 0);
    assert_false(t.whole);
    fill_sheet(&s); /* the first entry is behind a gap */
    s.len = s.at[0];
    s.n = 0;
    put_entry(&s, 103, 101);
    assert_int_equal(read_bytes(s.p, s.len, &t, &good, &why), 0);
    assert_non_null(why);
}

static void test_other_versions(void **state)
{
    struct sheet s;
    struct names_header h;
    const char *why;

    (void)state;
    fill_sheet(&s);
    le_put32(s.p + 4, NAMES_FILE_VERSION + 1);
    le_put32(s.p + 76, crc32c(0, s.p, 76));
    assert_int_equal(names_header_open(s.p, s.len, &h, &why), -ERR_VERSION);
    assert_non_null(why);
}

/* ---- the ring ---- */

static size_t make_entry(uint64_t index, size_t size, uint8_t *out)
{
    uint8_t bytes[4096];

    memset(bytes, (int)index, sizeof(bytes));
    return entry_finish(out, entry_put(out, ENTRY_HEADER, bytes, size), 1, index, ENTRY_VERSION);
}

static void ring_put(struct names_ring *r, uint64_t index, size_t size)
{
    uint8_t entry[8192];
    size_t len = make_entry(index, size, entry);

    names_ring_add(r, index, 5, entry, len);
}

static void test_ring(void **state)
{
    struct names_ring *r = names_ring_new(100000, 10000);
    uint8_t out[8192], entry[8192];
    uint64_t last;
    bool gone;

    (void)state;
    names_ring_reset(r, 50);
    assert_int_equal(names_ring_last(r), 50);
    assert_true(names_ring_covers(r, 50));
    assert_false(names_ring_covers(r, 49));
    for (uint64_t i = 1; i <= 40; i++)
        ring_put(r, 50 + 2 * i, 1000);
    assert_true(names_ring_covers(r, 50)); /* somebody may need it */
    size_t len = names_ring_pack(r, 54, out, sizeof(out), &last, &gone);
    assert_false(gone);
    struct names_record rec;
    const char *why;
    uint64_t want = 56;
    for (size_t at = 0; at < len; at += NAMES_RECORD + rec.len, want += 2) {
        assert_int_equal(names_record_open(out + at, len - at, &rec, &why), 0);
        assert_int_equal(rec.a, want);
        assert_int_equal(rec.b, want - 2);
    }
    assert_int_equal(last, want - 2);
    assert_int_equal(names_ring_pack(r, 130, out, sizeof(out), &last, &gone), 0);
    assert_int_equal(last, 130);
    assert_false(gone);
    assert_int_equal(names_ring_pack(r, 54, out, 100, &last, &gone), 0); /* fits nothing */
    assert_true(gone);

    make_entry(100, 1000, entry);
    assert_true(names_ring_has(r, 100, le_get32(entry + 20)));
    assert_false(names_ring_has(r, 100, le_get32(entry + 20) + 1));
    assert_false(names_ring_has(r, 101, le_get32(entry + 20)));

    names_ring_need(r, 110); /* above it everything stays; below, the slack */
    assert_true(names_ring_covers(r, 110));
    assert_false(names_ring_covers(r, 60));
    names_ring_pack(r, 60, out, sizeof(out), &last, &gone);
    assert_true(gone);
    names_ring_need(r, 0); /* bounded, whoever needs it */
    for (uint64_t i = 0; i < 300; i++)
        ring_put(r, 1000 + i, 1000);
    assert_false(names_ring_covers(r, 130));
    assert_true(names_ring_covers(r, 1250));
    names_ring_free(r);
}

/* ---- a data directory ---- */

static char dir[128];

struct seen { /* by the observer */
    struct names_ring *ring;
    atomic_ullong saved, size;
};

static void seen_entry(void *arg, uint64_t index, uint64_t term, const void *entry, size_t len)
{
    struct seen *s = arg;

    assert_true(term > 0);
    names_ring_add(s->ring, index, 5, entry, len);
}

static void seen_restored(void *arg, uint64_t index)
{
    struct seen *s = arg;

    names_ring_reset(s->ring, index);
}

static void seen_saved(void *arg, uint64_t index, uint64_t size, uint32_t crc)
{
    struct seen *s = arg;

    (void)crc;
    atomic_store(&s->size, size);
    atomic_store(&s->saved, index);
}

static void open_log(const char *where, struct seen *s, struct fsm **fsm, struct mlog **m)
{
    struct mlog_observer o = {seen_entry, seen_restored, seen_saved, s};
    struct mlog_config cfg = {.dir = where, .observer = s ? &o : NULL};

    assert_int_equal(fsm_new(fsm), 0);
    cfg.fsm = *fsm;
    assert_int_equal(mlog_open(&cfg, 20000, m), 0);
}

static void close_log(struct fsm *fsm, struct mlog *m)
{
    mlog_close(m);
    fsm_free(fsm);
}

static void reserve(struct mlog *m, uint64_t upto)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReserveOp r = REPLFS__RESERVE_OP__INIT;

    r.ino_upto = upto;
    op.op_case = REPLFS__META_OP__OP_RESERVE;
    op.reserve = &r;
    cmd.op = &op;
    assert_int_equal(mlog_propose_wait(m, &cmd, NULL), 0);
}

static uint64_t digest_of(struct fsm *fsm)
{
    fsm_rdlock(fsm);
    uint64_t d = fsm_digest(fsm);
    fsm_unlock(fsm);
    return d;
}

/* What was seen of a log, as a file: its newest state file and the entries behind it. */
static void write_copy(const char *path, const char *from, struct seen *s, const char *uuid)
{
    char ckpt[MLOG_PATH_MAX];
    static uint8_t piece[1 << 20], entries[1 << 20];
    struct names_header h = {.generation = atomic_load(&s->saved), .term = 3, .time_ns = 77};
    uint8_t head[NAMES_HEADER], rec[NAMES_RECORD];
    uint64_t last;
    bool gone;

    memcpy(h.cluster, uuid, 37);
    assert_int_equal(mlog_ckpt_path(ckpt, sizeof(ckpt), from, h.generation), 0);
    int in = open(ckpt, O_RDONLY), out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(in >= 0 && out >= 0);
    ssize_t n = read(in, piece, sizeof(piece));
    assert_int_equal(n, (ssize_t)atomic_load(&s->size));
    names_header_make(&h, head);
    assert_int_equal(write(out, head, sizeof(head)), NAMES_HEADER);
    names_record_make(NAMES_PIECE, 0, 0, 1, piece, (uint32_t)n, rec);
    assert_int_equal(write(out, rec, sizeof(rec)) + write(out, piece, (size_t)n), NAMES_RECORD + n);
    names_record_make(NAMES_WHOLE, (uint64_t)n, crc32c(0, piece, (size_t)n), 1, NULL, 0, rec);
    assert_int_equal(write(out, rec, sizeof(rec)), NAMES_RECORD);
    size_t len = names_ring_pack(s->ring, h.generation, entries, sizeof(entries), &last, &gone);
    assert_false(gone);
    assert_int_equal(write(out, entries, len), (ssize_t)len);
    close(in);
    close(out);
}

static void test_directory_from_copy(void **state)
{
    char from[160], to[160], copy[160], uuid[37];
    struct seen s = {.ring = names_ring_new(1 << 20, 1 << 20)};
    struct fsm *fsm;
    struct mlog *m;

    (void)state;
    log_init("test", LOG_LVL_ERROR, NULL);
    assert_true(tree_make(dir, sizeof(dir), "/var/tmp", "names"));
    snprintf(from, sizeof(from), "%s/from", dir);
    snprintf(to, sizeof(to), "%s/to", dir);
    snprintf(copy, sizeof(copy), "%s/copy", dir);
    assert_int_equal(mlog_init_dir(from, uuid), 0);
    open_log(from, &s, &fsm, &m);
    for (uint64_t i = 1; i <= 20; i++)
        reserve(m, 1000 * i);
    assert_int_equal(mlog_checkpoint(m), 0);
    WAIT_UNTIL(atomic_load(&s.saved) > 0);
    for (uint64_t i = 21; i <= 40; i++)
        reserve(m, 1000 * i);
    uint64_t want = digest_of(fsm);
    write_copy(copy, from, &s, uuid);
    close_log(fsm, m);

    assert_int_equal(recover_from_file(copy, to), 0);
    assert_int_equal(recover_from_file(copy, to), -ENOTEMPTY); /* never over a metad's directory */
    for (int start = 0; start < 3; start++) { /* it is one: also after it was used */
        open_log(to, NULL, &fsm, &m);
        assert_string_equal(mlog_uuid(m), uuid);
        assert_int_equal(digest_of(fsm), want);
        reserve(m, 100000u + (unsigned)start);
        if (start == 1)
            assert_int_equal(mlog_checkpoint(m), 0);
        want = digest_of(fsm);
        close_log(fsm, m);
    }
    names_ring_free(s.ring);

    char bad[160];
    snprintf(bad, sizeof(bad), "%s/bad", dir); /* a state that is not whole makes no directory */
    int fd = open(copy, O_RDWR);
    assert_int_equal(pwrite(fd, "x", 1, NAMES_HEADER + NAMES_RECORD + 50), 1);
    close(fd);
    log_init("test", LOG_LVL_ERROR, NULL);
    assert_int_equal(recover_from_file(copy, bad), -ERR_CORRUPT);
    assert_int_not_equal(access(bad, F_OK), 0);
    tree_remove(dir);
}

static int propose(struct mlog *m, Replfs__MetaOp *op)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res = {0};

    cmd.op = op;
    int rc = mlog_propose_wait(m, &cmd, &res);
    return rc ? rc : -res.code;
}

static void add_metad(struct mlog *m, uint32_t id, bool remove)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;

    metad.id = id;
    metad.addr = (char *)"host:7000";
    metad.remove = remove;
    op.op_case = REPLFS__META_OP__OP_METAD;
    op.metad = &metad;
    assert_int_equal(propose(m, &op), 0);
}

/* The others are of the former life: the directory's metad is the only one, also when the copy says that it left. */
static void test_directory_is_alone(void **state)
{
    char from[160], to[160], copy[160], uuid[37];
    struct seen s = {.ring = names_ring_new(1 << 20, 1 << 20)};
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    struct fsm_metad one;
    struct fsm *fsm;
    struct mlog *m;

    (void)state;
    log_init("test", LOG_LVL_ERROR, NULL);
    assert_true(tree_make(dir, sizeof(dir), "/var/tmp", "names"));
    snprintf(from, sizeof(from), "%s/from", dir);
    snprintf(to, sizeof(to), "%s/to", dir);
    snprintf(copy, sizeof(copy), "%s/copy", dir);
    assert_int_equal(mlog_init_dir(from, uuid), 0);
    open_log(from, &s, &fsm, &m);
    feature.level = 1;
    op.op_case = REPLFS__META_OP__OP_FEATURE;
    op.feature = &feature;
    assert_int_equal(propose(m, &op), 0);
    add_metad(m, 2, false);
    assert_int_equal(mlog_checkpoint(m), 0);
    WAIT_UNTIL(atomic_load(&s.saved) > 0);
    add_metad(m, 3, false);
    add_metad(m, 1, true);
    write_copy(copy, from, &s, uuid);
    close_log(fsm, m);
    names_ring_free(s.ring);
    assert_int_equal(recover_from_file(copy, to), 0);
    open_log(to, NULL, &fsm, &m);
    fsm_rdlock(fsm);
    assert_int_equal(fsm_metads(fsm), 1);
    assert_true(fsm_metad_next(fsm, 0, &one));
    assert_int_equal(one.id, mlog_id(m));
    assert_true(fsm_metad_new(fsm) > 3);
    fsm_unlock(fsm);
    close_log(fsm, m);
    tree_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_whole),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_every_flip),
        cmocka_unit_test(test_every_record_missing),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_directory_from_copy),
        cmocka_unit_test(test_directory_is_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
