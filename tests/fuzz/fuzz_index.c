/* Any rows in the chunk index on disk: whatever LMDB holds, lookups, walks, checkpoints and removals end
 * with an answer or a code, and what they give is in order. The input is a list of rows {database, key
 * length, value length, key, value}; keys are cut short or padded at will. */
#include <assert.h>
#include <ftw.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "chunkd/store/index_db.h"
#include "tests/unit/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static const char *const names[] = {"chunks", "extents", "segments", "marks", "meta"};
static char dir[64];

static void clean_up(void)
{
    tree_remove(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init("fuzz_index", LOG_LVL_ERROR, "/dev/null");
    if (!tree_make(dir, sizeof dir, "/dev/shm", "index"))
        return 1;
    atexit(clean_up);
    struct index_db *db;
    bool fresh;
    assert(index_db_open(dir, 1, 1 << 20, false, &fresh, &db) == 0 && fresh);
    index_db_close(db);
    return 0;
}

/* What a healthy index begins with is left alone: format and identity. */
static void put_rows(const uint8_t *p, size_t size)
{
    char path[96];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi[5];
    snprintf(path, sizeof path, "%s/index", dir);
    assert(!mdb_env_create(&env) && !mdb_env_set_maxdbs(env, 8));
    assert(!mdb_env_open(env, path, MDB_NOSYNC, 0600) && !mdb_txn_begin(env, NULL, 0, &txn));
    for (size_t i = 0; i < 5; i++) {
        assert(!mdb_dbi_open(txn, names[i], 0, &dbi[i]));
        if (i < 4)
            assert(!mdb_drop(txn, dbi[i], 0));
    }
    for (size_t at = 0; at + 3 <= size;) {
        size_t klen = p[at + 1] % 16 + 1, vlen = p[at + 2] % 48;
        unsigned which = p[at] % 5;
        at += 3;
        if (at + klen + vlen > size)
            break;
        MDB_val k = {klen, (void *)(uintptr_t)(p + at)},
                v = {vlen, (void *)(uintptr_t)(p + at + klen)};
        if (which == 4) { /* names no fuzzer would guess */
            k.mv_data = (void *)(uintptr_t)(p[at] & 1 ? "position" : "generation");
            k.mv_size = p[at] & 1 ? 8 : 10;
        }
        assert(!mdb_put(txn, dbi[which], &k, &v, 0));
        at += klen + vlen;
    }
    assert(!mdb_txn_commit(txn));
    mdb_env_close(env);
}

static int see_segment(void *arg, const struct segment_row *row)
{
    (void)row;
    return ++*(int *)arg > 1000;
}

static int see_mark(void *arg, const struct mark *m)
{
    (void)m;
    return ++*(int *)arg > 1000;
}

static void look(struct index_db *db, uint64_t chunk)
{
    struct chunk_row row;
    struct extents x = {0};
    int rc = index_db_lookup(db, chunk, 100, 1u << 20, &row, &x);
    assert(rc <= 0);
    for (uint32_t i = 0; rc == 0 && i < x.n; i++) {
        assert(x.v[i].len > 0 && x.v[i].off + (uint64_t)x.v[i].len <= UINT32_MAX);
        assert(i == 0 || x.v[i].off >= x.v[i - 1].off + x.v[i - 1].len);
    }
    free(x.v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct index_db *db;
    bool fresh;
    uint64_t chunks[16], gen;
    struct chunk_row rows[16];
    struct log_pos pos;
    int seen = 0;
    put_rows(data, size < 4096 ? size : 4096);
    assert(index_db_open(dir, 1, 1 << 20, false, &fresh, &db) == 0 && !fresh);
    (void)index_db_position(db, &pos, &gen);
    (void)index_db_segments(db, see_segment, &seen);
    (void)index_db_marks(db, 0, see_mark, &seen);
    (void)index_db_marks(db, 1, see_mark, &seen);
    long n = 16;
    for (uint64_t after = 0; n == 16; after = chunks[15]) {
        n = index_db_slice(db, after, chunks, rows, 16);
        for (long i = 0; i < n; i++) {
            assert(chunks[i] > after && (i == 0 || chunks[i] > chunks[i - 1]));
            look(db, chunks[i]);
        }
    }
    look(db, 1);
    struct delta_chunk gone = {.chunk = 1, .gone = true, .rewrite = true};
    struct segment_row seg = {.id = 1, .gone = true};
    struct delta d = {.chunks = &gone, .n_chunks = 1, .segs = &seg, .n_segs = 1, .next_gen = 1};
    (void)index_db_commit(db, &d);
    struct chunk_row row;
    assert(index_db_lookup(db, 1, 0, 1, &row, NULL) != 0);
    index_db_close(db);
    return 0;
}
