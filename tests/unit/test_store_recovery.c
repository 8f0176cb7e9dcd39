/* The store after accidents: killed daemons, torn and damaged logs, lost indexes, foreign
 * directories. */
#include "store_rig.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "base/byteorder.h"
#include "chunkd/store/record.h"
#include "chunkd/store/segment.h"

/* Runs fn in a child that opens the store and ends without closing it, like a killed daemon. */
static void crash_after(struct store_rig *r, void (*fn)(struct store_rig *r))
{
    assert_null(r->s);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (store_rig_open(r))
            _exit(1);
        fn(r);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void rebuild(struct store_rig *r)
{
    store_rig_close(r);
    r->cfg.rebuild_index = true;
    assert_int_equal(store_rig_open(r), 0);
    r->cfg.rebuild_index = false;
}

static int start_closed(void **state)
{
    int rc = store_rig_setup(state);
    if (!rc)
        store_rig_close(*state);
    return rc;
}

/* ---- kill -9 under load ---- */

enum { CHUNKS = 64, PIECE = 5000 };
struct load {
    _Atomic uint32_t len[CHUNKS + 1];  /* acknowledged */
    _Atomic bool deleting[CHUNKS + 1]; /* a deletion was asked for, its answer may be lost */
    _Atomic uint32_t round[CHUNKS + 1];
    _Atomic unsigned acks;
};
static struct load *load;

struct ack {
    uint32_t chunk, end;
};

static void acked(void *arg, int code)
{
    struct ack *a = arg;
    if (code)
        _exit(3);
    load->len[a->chunk] = a->end;
    load->acks++;
    free(a);
}

static void append_load(struct store_rig *r, uint32_t chunk, uint32_t off)
{
    uint8_t crcs[16];
    struct buf *b = store_rig_buf(chunk, off, PIECE, 0, crcs);
    struct ack *a = malloc(sizeof *a);
    *a = (struct ack){chunk, off + PIECE};
    struct store_append ap = {.chunk = chunk,
                              .session = 77,
                              .chunk_off = off,
                              .data = b,
                              .crcs = crcs,
                              .sync = (chunk + off / PIECE) % 16 == 0};
    store_append(r->s, &ap, acked, a);
    buf_unref(b);
}

static void load_forever(struct store_rig *r)
{
    uint32_t next[CHUNKS + 1];
    for (uint32_t c = 1; c <= CHUNKS; c++) {
        uint32_t len;
        next[c] = store_chunk_len(r->s, c, &len, NULL) ? 0 : len;
        load->deleting[c] = false;
    }
    for (uint32_t i = 0;; i++) {
        uint32_t c = 1 + (uint32_t)(hash_u64(i) % CHUNKS);
        append_load(r, c, next[c]);
        next[c] += PIECE;
        if (i % 16 == 0 && store_rig_sync(r))
            _exit(4);
        if (i % 50 == 0) { /* nothing of this chunk is under way: a sync passed */
            c = 1 + i / 50 % CHUNKS;
            if (store_rig_sync(r))
                _exit(4);
            load->deleting[c] = true;
            load->len[c] = 0;
            if (store_rig_delete(r, &(uint64_t){c}, 1))
                _exit(5);
            load->deleting[c] = false;
            next[c] = 0;
        }
    }
}

static void check_load(struct store_rig *r)
{
    for (uint32_t c = 1; c <= CHUNKS; c++) {
        long len = store_rig_len(r, c);
        if (len == -ERR_NO_CHUNK)
            len = 0;
        assert_true(len % PIECE == 0);
        assert_true(len >= (long)load->len[c]);
        if (len > 0)
            assert_int_equal(store_rig_read(r, c, 0, (uint32_t)len), 0);
    }
}

static void test_kill_under_load(void **state)
{
    struct store_rig *r = *state;
    load = mmap(NULL, sizeof *load, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    r->cfg.checkpoint_ms = 20; /* checkpoints, holes and compaction under way as well */
    for (unsigned round = 1; round <= 6; round++) {
        load->acks = 0;
        pid_t pid = fork();
        if (pid == 0) {
            if (store_rig_open(r))
                _exit(1);
            load_forever(r);
        }
        WAIT_UNTIL(load->acks > 800 * round || waitpid(pid, NULL, WNOHANG) != 0);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        r->cfg.rebuild_index = round % 3 == 0;
        assert_int_equal(store_rig_open(r), 0);
        check_load(r);
        store_rig_close(r);
    }
    munmap(load, sizeof *load);
}

/* ---- crashes in between ---- */

static void some_chunks(struct store_rig *r)
{
    for (uint64_t c = 1; c <= 20; c++)
        if (store_rig_append(r, c, 0, 300 * KIB) || store_rig_append(r, c, 300 * KIB, 5000))
            _exit(2);
}

static void check_chunks(struct store_rig *r, uint64_t first, uint64_t last)
{
    for (uint64_t c = first; c <= last; c++) {
        assert_int_equal(store_rig_len(r, c), 300 * KIB + 5000);
        assert_int_equal(store_rig_read(r, c, 0, 300 * KIB + 5000), 0);
    }
}

static void delete_some(struct store_rig *r)
{
    if (store_rig_delete(r, (uint64_t[]){3, 4, 5}, 3) || store_rig_append(r, 4, 0, 100))
        _exit(2);
}

static void half_a_copy(struct store_rig *r)
{
    uint64_t token;
    if (store_copy_begin(r->s, 7, 77, &token) || store_rig_copy_append(r, token, 7, 0, MIB, 9) ||
        store_rig_sync(r))
        _exit(2);
}

static void whole_copy(struct store_rig *r)
{
    uint64_t token;
    if (store_copy_begin(r->s, 7, 77, &token) || store_rig_copy_append(r, token, 7, 0, MIB, 9) ||
        store_rig_copy_append(r, token, 7, MIB, 77, 9) || store_rig_finish(r, token))
        _exit(2);
}

static void test_crash_points(void **state)
{
    struct store_rig *r = *state;
    crash_after(r, some_chunks);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 1, 20);
    store_rig_close(r);
    crash_after(r, delete_some);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 6, 20);
    assert_int_equal(store_rig_len(r, 3), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_read(r, 4, 0, 100), 0);
    assert_int_equal(store_rig_len(r, 4), 100);
    store_rig_close(r);
    for (int i = 0; i < 2; i++) {
        crash_after(r, half_a_copy);
        r->cfg.rebuild_index = i == 1;
        assert_int_equal(store_rig_open(r), 0);
        check_chunks(r, 6, 20);
        store_rig_close(r);
    }
    r->cfg.rebuild_index = false;
    crash_after(r, whole_copy);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_rig_open(r), 0);
        assert_int_equal(store_rig_len(r, 7), MIB + 77);
        assert_int_equal(store_rig_read_salted(r, 7, 0, MIB + 77, 9), 0);
        check_chunks(r, 8, 20);
        store_rig_close(r);
        r->cfg.rebuild_index = true;
    }
}

/* Several checkpoints are taken while a copy is in the making, then it is finished. */
static void copy_over_checkpoints(struct store_rig *r)
{
    uint64_t token;
    struct stat before, st;
    char path[96];
    snprintf(path, sizeof path, "%s/index/data.mdb", r->dir);
    if (store_copy_begin(r->s, 7, 77, &token) || store_rig_copy_append(r, token, 7, 0, MIB, 9))
        _exit(2);
    for (uint32_t i = 0; i < 3; i++) {
        if (stat(path, &before) || store_rig_append(r, 8, i * MIB, MIB) || store_rig_sync(r))
            _exit(3);
        WAIT_UNTIL(!stat(path, &st) && (st.st_mtim.tv_sec != before.st_mtim.tv_sec ||
                                        st.st_mtim.tv_nsec != before.st_mtim.tv_nsec));
    }
    if (store_rig_copy_append(r, token, 7, MIB, 77, 9) || store_rig_finish(r, token))
        _exit(4);
}

/* A checkpoint says where recovery begins to read, and a copy in the making is nowhere but in the log. */
static void test_copy_over_checkpoints(void **state)
{
    struct store_rig *r = *state;
    crash_after(r, copy_over_checkpoints);
    assert_int_equal(store_rig_open(r), 0);
    assert_int_equal(store_rig_len(r, 7), MIB + 77);
    assert_int_equal(store_rig_read_salted(r, 7, 0, MIB + 77, 9), 0);
    assert_int_equal(store_rig_read(r, 8, 0, 3 * MIB), 0);
}

/* What aborted and unfinished copies left behind is given back. */
static void test_copies_leave_no_garbage(void **state)
{
    struct store_rig *r = *state;
    struct store_stat st;
    for (int i = 0; i < 3; i++)
        crash_after(r, half_a_copy);
    assert_int_equal(store_rig_open(r), 0);
    for (int i = 0; i < 3; i++) {
        uint64_t token;
        assert_int_equal(store_copy_begin(r->s, 7, 77, &token), 0);
        assert_int_equal(store_rig_copy_append(r, token, 7, 0, MIB, i), 0);
        store_copy_abort(r->s, token);
    }
    WAIT_UNTIL((store_stat(r->s, &st), st.used < MIB));
    assert_int_equal(st.chunks, 0);
}

/* ---- damage in the log ---- */

static void test_torn_tail(void **state)
{
    struct store_rig *r = *state;
    char last[300];
    struct stat st;
    crash_after(r, some_chunks);
    store_rig_segments(r, NULL, last, sizeof last);
    assert_int_equal(stat(last, &st), 0);
    off_t size = st.st_size;
    /* The last record (chunk 20's second, 5000 bytes) is cut in its payload. */
    assert_int_equal(truncate(last, size - 3000), 0);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 1, 19);
    assert_int_equal(store_rig_len(r, 20), 300 * KIB);
    assert_int_equal(store_rig_append(r, 20, 300 * KIB, 5000), 0);
    check_chunks(r, 1, 20);
    store_rig_close(r);

    /* A header without its bytes: they did not reach the disk before the power went. */
    crash_after(r, delete_some);
    assert_int_equal(stat(last, &st), 0);
    int fd = open(last, O_WRONLY);
    uint8_t zeros[60] = {0};
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, st.st_size - 90), 60);
    /* And garbage behind. */
    memset(zeros, 0x5a, sizeof zeros);
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, st.st_size), 60);
    close(fd);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 6, 20);
    assert_int_equal(store_rig_len(r, 4), -ERR_NO_CHUNK);
    store_rig_close(r);
    assert_int_equal(stat(last, &st), 0);
    assert_true(st.st_size < size + 1000);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 6, 20);
}

static void small_syncs(struct store_rig *r)
{
    for (uint32_t i = 0; i < 40; i++)
        if (store_rig_append_salted(r, 1, i * 4000, 4000, 0, true))
            _exit(2);
}

static void one_sync(struct store_rig *r)
{
    if (store_rig_append_salted(r, 1, 41 * 4000, 4000, 0, true))
        _exit(2);
}

/* Opens it; the lines of warnings and errors that were logged meanwhile. */
static int complaints(struct store_rig *r)
{
    FILE *to = tmpfile();
    int before = dup(STDERR_FILENO), n = 0;
    char line[1024];
    dup2(fileno(to), STDERR_FILENO);
    int rc = store_rig_open(r);
    dup2(before, STDERR_FILENO);
    close(before);
    rewind(to);
    while (fgets(line, sizeof line, to))
        n += strstr(line, " warn ") || strstr(line, " error ");
    fclose(to);
    assert_int_equal(rc, 0);
    return n;
}

static off_t length(const char *file)
{
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    return st.st_size;
}

/* Small appends that are synced overwrite zeros, which are no damage when they are left, and no records. */
static void test_zeros_ahead(void **state)
{
    struct store_rig *r = *state;
    char first[300], last[300];
    const off_t record = (record_header_len(4000) + 4000 + 7) / 8 * 8,
                end = SEGMENT_HEADER + 40 * record;
    r->cfg.checkpoint_ms = 3600 * 1000; /* what a crash leaves is read again */
    crash_after(r, small_syncs);
    store_rig_segments(r, first, NULL, sizeof first);
    assert_int_equal(length(first), 256 * KIB);
    assert_int_equal(complaints(r), 0);
    assert_int_equal(length(first), end);
    assert_int_equal(store_rig_read(r, 1, 0, 40 * 4000), 0);
    assert_int_equal(store_rig_append_salted(r, 1, 40 * 4000, 4000, 0, true), 0);
    assert_int_equal(length(first), 256 * KIB);
    store_rig_close(r);
    assert_int_equal(length(first), end + record);

    /* Half a record before them is. */
    crash_after(r, one_sync);
    store_rig_flip(first, end + record + 1000);
    assert_int_equal(complaints(r), 1);
    assert_int_equal(store_rig_read(r, 1, 0, 41 * 4000), 0);
    assert_int_equal(store_rig_len(r, 1), 41 * 4000);

    /* In a segment that is followed by another they are not left, but for a crash. */
    assert_int_equal(store_rig_append_salted(r, 1, 41 * 4000, 4000, 0, true), 0);
    for (uint64_t c = 2; store_rig_segments(r, NULL, last, sizeof last) == 1; c++)
        assert_int_equal(store_rig_append(r, c, 0, 300 * KIB), 0);
    off_t full = length(first);
    store_rig_close(r);
    assert_int_equal(length(first), full);
    assert_int_equal(truncate(first, full + 100000), 0);
    r->cfg.rebuild_index = true;
    assert_int_equal(complaints(r), 0);
    r->cfg.rebuild_index = false;
    assert_int_equal(store_rig_read(r, 1, 0, 42 * 4000), 0);
    assert_int_equal(store_rig_read(r, 3, 0, 300 * KIB), 0);
}

static void test_damaged_header(void **state)
{
    struct store_rig *r = *state;
    char first[300];
    assert_int_equal(store_rig_open(r), 0);
    some_chunks(r);
    store_rig_segments(r, first, NULL, sizeof first);
    uint32_t big = record_header_len(300 * KIB) + 300 * KIB,
             small = (record_header_len(5000) + 5000 + 7) / 8 * 8;
    off_t second = SEGMENT_HEADER + ((off_t)big + 7) / 8 * 8; /* chunk 1's second record */
    store_rig_flip(first, second + 20);
    assert_int_equal(store_rig_read(r, 1, 0, 300 * KIB), 0);
    assert_int_equal(store_rig_read(r, 1, 300 * KIB, 100), -ERR_CRC);
    check_chunks(r, 2, 20);
    rebuild(r);
    assert_int_equal(store_rig_len(r, 1), 300 * KIB);
    check_chunks(r, 2, 20);
    /* Two chunks' records in one stretch, and the chunk that lost its first one. */
    store_rig_flip(first, second + small + 6);
    rebuild(r);
    assert_int_equal(store_rig_len(r, 1), 300 * KIB);
    assert_int_equal(store_rig_len(r, 2), 0);
    assert_int_equal(store_rig_read(r, 2, 0, 1), -ERR_SHORT);
    check_chunks(r, 3, 20);
    /* A fresh copy replaces the ruin. */
    uint64_t token;
    assert_int_equal(store_copy_begin(r->s, 2, 77, &token), 0);
    assert_int_equal(store_rig_copy_append(r, token, 2, 0, 300 * KIB, 0), 0);
    assert_int_equal(store_rig_copy_append(r, token, 2, 300 * KIB, 5000, 0), 0);
    assert_int_equal(store_rig_finish(r, token), 0);
    check_chunks(r, 2, 20);
    rebuild(r);
    check_chunks(r, 2, 20);
}

static void test_damaged_payload(void **state)
{
    struct store_rig *r = *state;
    char first[300];
    struct store_read rd;
    assert_int_equal(store_rig_open(r), 0);
    some_chunks(r);
    store_rig_segments(r, first, NULL, sizeof first);
    store_rig_flip(first, SEGMENT_HEADER + record_header_len(300 * KIB) + 10000);
    assert_int_equal(store_rig_read(r, 1, 0, 300 * KIB), -ERR_CRC);
    assert_int_equal(store_rig_read(r, 1, 4096, 4096), 0);
    assert_int_equal(store_rig_read(r, 1, 12288, 300 * KIB - 12288), 0);
    assert_int_equal(store_read(r->s, 1, 0, 300 * KIB, STORE_PLAIN, &rd), 0);
    assert_int_equal(crc_blocks_check(rd.data->data, rd.data->len, rd.spans[0].crcs), 2);
    buf_unref(rd.data);
    free(rd.spans);
    check_chunks(r, 2, 20);
}

/* A file whose bytes are records: resynchronising behind damage must not take them for the log's
 * own. */
static void test_records_inside_records(void **state)
{
    struct store_rig *r = *state;
    char first[300];
    assert_int_equal(store_rig_open(r), 0);
    assert_int_equal(store_rig_append(r, 1, 0, 5000), 0);
    assert_int_equal(store_rig_append(r, 2, 0, 5000), 0);
    store_rig_segments(r, first, NULL, sizeof first);
    int fd = open(first, O_RDONLY);
    struct buf *b = buf_new(16384);
    ssize_t n = pread(fd, b->data, 16384, SEGMENT_HEADER);
    close(fd);
    assert_true(n > 10000);
    b->len = (size_t)n;
    uint8_t crcs[64];
    crc_blocks_make(b->data, b->len, crcs);
    struct store_append a = {.chunk = 9, .session = 77, .data = b, .crcs = crcs};
    struct store_rig_waiter w;
    store_rig_wait_init(&w, 1);
    store_append(r->s, &a, store_rig_done, &w);
    assert_int_equal(store_rig_wait(&w), 0);
    buf_unref(b);
    assert_int_equal(store_rig_append(r, 3, 0, 5000), 0);
    assert_int_equal(store_rig_delete(r, (uint64_t[]){1, 2}, 2), 0);
    store_rig_flip(first,
                   SEGMENT_HEADER + n + 16); /* the header of the record that holds records */
    rebuild(r);
    assert_int_equal(store_rig_len(r, 1), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_len(r, 2), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_len(r, 9), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_read(r, 3, 0, 5000), 0);
}

static void test_missing_segment(void **state)
{
    struct store_rig *r = *state;
    char first[300];
    assert_int_equal(store_rig_open(r), 0);
    some_chunks(r);
    store_rig_segments(r, first, NULL, sizeof first);
    store_rig_close(r);
    assert_int_equal(unlink(first), 0);
    assert_int_equal(store_rig_open(r), 0);
    assert_true(store_rig_len(r, 1) <= 0);
    check_chunks(r, 15, 20);
}

/* ---- segment headers and identity ---- */

static void patch_header(const char *path, off_t at, uint32_t value)
{
    uint8_t h[SEGMENT_HEADER];
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, h, sizeof h, 0), sizeof h);
    le_put32(h + at, value);
    le_put32(h + 124, crc32c(0, h, 124));
    assert_int_equal(pwrite(fd, h, sizeof h, 0), sizeof h);
    close(fd);
}

static void test_segment_header(void **state)
{
    struct store_rig *r = *state;
    char first[300];
    assert_int_equal(store_rig_open(r), 0);
    some_chunks(r);
    store_rig_segments(r, first, NULL, sizeof first);
    store_rig_close(r);
    for (off_t at = 0; at < SEGMENT_HEADER; at += 31) {
        store_rig_flip(first, at);
        r->cfg.rebuild_index = at == 31;
        assert_int_equal(store_rig_open(r), 0);
        check_chunks(r, 1, 20);
        store_rig_close(r);
    }
    patch_header(first, 8, SEGMENT_VERSION + 1);
    assert_int_equal(store_rig_open(r), -ERR_VERSION);
    patch_header(first, 8, SEGMENT_VERSION);
    patch_header(first, 76, 2); /* another disk */
    assert_int_equal(store_rig_open(r), -ERR_WRONG_CLUSTER);
    patch_header(first, 76, 1);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 1, 20);
}

static void test_identity(void **state)
{
    struct store_rig *r = *state;
    char path[128];
    struct store_id id = {.cluster = STORE_RIG_CLUSTER, .chunkd = 3, .disk = 1}, got;
    struct stat st;
    assert_int_equal(store_id_read(r->dir, &got), 0);
    assert_string_equal(got.cluster, STORE_RIG_CLUSTER);
    assert_true(got.chunkd == 3 && got.disk == 1);
    assert_int_equal(store_id_write(r->dir, &id), 0); /* the same again */
    id.disk = 2;
    assert_int_equal(store_id_write(r->dir, &id), -EEXIST);

    snprintf(path, sizeof path, "%s/replfs.id", r->dir);
    assert_int_equal(stat(path, &st), 0);
    for (off_t at = 0; at < st.st_size; at++) {
        store_rig_flip(path, at);
        assert_int_equal(store_id_read(r->dir, &got), -ERR_CORRUPT);
        assert_int_equal(store_rig_open(r), -ERR_CORRUPT);
        store_rig_flip(path, at);
    }
    const char text[] = "replfs disk 2\ncluster x\nchunkd 3\ndisk 1\nnew thing\n";
    int fd = open(path, O_WRONLY | O_TRUNC);
    dprintf(fd, "%scrc %08x\n", text, crc32c(0, text, strlen(text)));
    close(fd);
    assert_int_equal(store_rig_open(r), -ERR_VERSION);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(store_id_read(r->dir, &got), -ENOENT);
    assert_int_equal(store_rig_open(r), -ENOENT);
    id.disk = 1;
    assert_int_equal(store_id_write(r->dir, &id), 0);
    r->cfg.cluster = "00000000-0000-0000-0000-000000000000";
    assert_int_equal(store_rig_open(r), -ERR_WRONG_CLUSTER);
    r->cfg.cluster = "";
    r->cfg.chunkd = 4;
    assert_int_equal(store_rig_open(r), -ERR_WRONG_CLUSTER);
    r->cfg.chunkd = 0;
    assert_int_equal(store_rig_open(r), 0);
    struct store *second;
    assert_int_equal(store_open(&r->cfg, &second), -ERR_LOCKED);
}

/* ---- the index ---- */

static void test_index_lost(void **state)
{
    struct store_rig *r = *state;
    char path[128];
    assert_int_equal(store_rig_open(r), 0);
    some_chunks(r);
    delete_some(r);
    store_rig_close(r);
    snprintf(path, sizeof path, "%s/index", r->dir);
    tree_remove(path);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 6, 20);
    assert_int_equal(store_rig_len(r, 3), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_read(r, 4, 0, 100), 0);
    store_rig_close(r);

    snprintf(path, sizeof path, "%s/index/data.mdb", r->dir);
    int fd = open(path, O_WRONLY);
    char junk[8192];
    memset(junk, 0x77, sizeof junk);
    assert_int_equal(pwrite(fd, junk, sizeof junk, 0), sizeof junk);
    close(fd);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 6, 20);
    assert_int_equal(store_rig_len(r, 3), -ERR_NO_CHUNK);
    store_rig_close(r);

    /* The log is shorter than the index knows: the index is not believed. */
    char last[300];
    struct stat st;
    store_rig_segments(r, NULL, last, sizeof last);
    assert_int_equal(stat(last, &st), 0);
    assert_int_equal(truncate(last, st.st_size - 200), 0);
    assert_int_equal(store_rig_open(r), 0);
    check_chunks(r, 6, 20);
    assert_int_equal(store_rig_len(r, 4), -ERR_NO_CHUNK);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start_closed, store_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_kill_under_load),
        T(test_crash_points),
        T(test_copy_over_checkpoints),
        T(test_copies_leave_no_garbage),
        T(test_torn_tail),
        T(test_zeros_ahead),
        T(test_damaged_header),
        T(test_damaged_payload),
        T(test_records_inside_records),
        T(test_missing_segment),
        T(test_segment_header),
        T(test_identity),
        T(test_index_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
