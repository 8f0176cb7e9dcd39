/* The client's pure parts: bytes not committed over the committed map, against a naive array
 * model; cutting of appends; merging of extents for a commit; the id table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "client_internals.h"
#include "base/crc32c.h"

static uint64_t state = 0x9e3779b97f4a7c15ull;

static uint64_t rnd(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* ---- append buffers ---- */

static void test_pieces_merge(void **st)
{
    (void)st;
    struct abuf a = {.limit = 1000};
    assert_int_equal(abuf_add_piece(&a, 100, 50), 0);
    assert_int_equal(abuf_add_piece(&a, 150, 50), 0);
    assert_int_equal(a.npieces, 1);
    assert_int_equal(a.pieces[0].len, 100);
    assert_int_equal(abuf_add_piece(&a, 0, 10), 0);
    assert_int_equal(abuf_add_piece(&a, 5, 10), 0); /* overlaps: a piece of its own */
    assert_int_equal(a.npieces, 3);
    assert_int_equal(a.pieces[2].buf_off, 110);
    assert_int_equal(a.len, 120);
    free(a.pieces);
}

static void test_limit_aligns(void **st)
{
    (void)st;
    assert_int_equal(abuf_limit(0), APPEND_MAX);
    assert_int_equal(abuf_limit(7 * CRC_BLOCK), APPEND_MAX);
    for (int i = 0; i < 1000; i++) {
        uint64_t off = rnd() % (1ull << 40);
        uint32_t limit = abuf_limit(off);
        assert_true(limit > 0 && limit <= APPEND_MAX);
        assert_int_equal((off + limit) % CRC_BLOCK, 0);
    }
}

static void test_extents_merge(void **st)
{
    (void)st;
    struct abuf a = {.limit = APPEND_MAX, .chunk_off = 0},
                b = {.limit = APPEND_MAX, .chunk_off = 4096};
    abuf_add_piece(&a, 0, 4096);
    abuf_add_piece(&b, 4096, 4096); /* continues a in file and chunk */
    abuf_add_piece(&b, 100000, 10);
    struct abuf *bufs[] = {&a, &b};
    uint64_t same[] = {7, 7}, other[] = {7, 8};
    size_t n, used;
    struct ext *e = overlay_extents(bufs, 2, same, 100, &n, &used);
    assert_int_equal(used, 2);
    assert_int_equal(n, 2);
    assert_int_equal(e[0].len, 8192);
    assert_int_equal(e[1].chunk_off, 8192);
    free(e);
    e = overlay_extents(bufs, 2, other, 100, &n, &used);
    assert_int_equal(n, 3);
    assert_int_equal(e[1].chunk, 8);
    free(e);
    e = overlay_extents(bufs, 2, same, 1, &n, &used); /* at least one buffer goes in */
    assert_int_equal(used, 1);
    assert_int_equal(n, 1);
    free(e);
    free(a.pieces);
    free(b.pieces);
}

/* ---- the overlay against a model of one entry per byte ---- */

#define FILE_SIZE 3000u
#define NBUFS 64u
struct model_byte {
    enum seg_kind kind;
    uint64_t id;
    uint32_t at;
};

static void check(const struct extmap *over, const struct extmap *base, const struct model_byte *m,
                  uint64_t from, uint64_t end)
{
    for (uint64_t pos = from; pos < end;) {
        struct seg s;
        overlay_next(over, base, pos, end, &s);
        assert_int_equal(s.off, pos);
        assert_true(s.len > 0 && pos + s.len <= end);
        for (uint64_t i = 0; i < s.len; i++) {
            assert_int_equal(s.kind, m[pos + i].kind);
            if (s.kind != SEG_HOLE) {
                assert_int_equal(s.id, m[pos + i].id);
                assert_int_equal(s.at + i, m[pos + i].at);
            }
        }
        pos += s.len;
    }
}

/* Commits buffer a as chunk 1000 + id at offset 0: what the model still shows of it becomes
 * committed, everything of its pieces that nothing newer covers is in the base. */
static void commit(struct extmap *over, struct extmap *base, struct abuf *a,
                   struct model_byte *committed, struct model_byte *m)
{
    uint64_t chunk = 1000 + a->id;
    size_t n, used;
    struct ext *e = overlay_extents(&a, 1, &chunk, 1000, &n, &used);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(extmap_insert(base, &e[i], NULL, NULL, NULL), 0);
    free(e);
    for (uint32_t i = 0; i < a->npieces; i++) {
        for (uint32_t k = 0; k < a->pieces[i].len; k++)
            committed[a->pieces[i].file_off + k] =
                (struct model_byte){SEG_COMMITTED, chunk, a->pieces[i].buf_off + k};
    }
    assert_int_equal(overlay_drop(over, a), 0);
    for (size_t i = 0; i < FILE_SIZE; i++) {
        if (m[i].kind != SEG_BUFFER || m[i].id == a->id)
            m[i] = committed[i];
    }
}

static void write_piece(struct extmap *over, struct abuf *a, struct model_byte *m)
{
    uint64_t off = rnd() % (FILE_SIZE - 100);
    uint32_t len = 1 + (uint32_t)(rnd() % 100);
    struct ext e = {off, a->id, a->len, len};
    assert_int_equal(extmap_insert(over, &e, NULL, NULL, NULL), 0);
    for (uint32_t i = 0; i < len; i++)
        m[off + i] = (struct model_byte){SEG_BUFFER, a->id, a->len + i};
    assert_int_equal(abuf_add_piece(a, off, len), 0);
    uint32_t at = 0;
    assert_true(overlay_inside(over, off, len, a->id, &at));
    assert_int_equal(at, e.chunk_off);
    assert_false(overlay_inside(over, off, len, a->id + 1, &at));
}

static void test_overlay_model(void **st)
{
    (void)st;
    struct extmap over, base;
    struct model_byte m[FILE_SIZE] = {0}, committed[FILE_SIZE] = {0};
    struct abuf bufs[NBUFS] = {0};
    extmap_init(&over);
    extmap_init(&base);
    size_t done = 0;
    for (size_t b = 0; b < NBUFS; b++) {
        bufs[b].id = b + 1;
        bufs[b].limit = APPEND_MAX;
        for (unsigned k = 1 + (unsigned)(rnd() % 6); k; k--)
            write_piece(&over, &bufs[b], m);
        check(&over, &base, m, 0, FILE_SIZE);
        uint64_t from = rnd() % FILE_SIZE;
        check(&over, &base, m, from, from + 1 + rnd() % (FILE_SIZE - from));
        while (done <= b && rnd() % 3 == 0) { /* in the order of writing */
            commit(&over, &base, &bufs[done++], committed, m);
            check(&over, &base, m, 0, FILE_SIZE);
        }
    }
    while (done < NBUFS)
        commit(&over, &base, &bufs[done++], committed, m);
    check(&over, &base, m, 0, FILE_SIZE);
    assert_int_equal(extmap_count(&over), 0);
    for (size_t b = 0; b < NBUFS; b++)
        free(bufs[b].pieces);
    extmap_free(&over);
    extmap_free(&base);
}

/* Giving a buffer up leaves what others wrote over it. */
static void test_drop_keeps_newer(void **st)
{
    (void)st;
    struct extmap over, base;
    struct abuf a = {.id = 1, .limit = APPEND_MAX};
    extmap_init(&over);
    extmap_init(&base);
    struct ext e1 = {0, 1, 0, 100}, e2 = {40, 2, 0, 10};
    abuf_add_piece(&a, 0, 100);
    extmap_insert(&over, &e1, NULL, NULL, NULL);
    extmap_insert(&over, &e2, NULL, NULL, NULL);
    assert_int_equal(overlay_drop(&over, &a), 0);
    struct seg s;
    overlay_next(&over, &base, 0, 100, &s);
    assert_int_equal(s.kind, SEG_HOLE);
    assert_int_equal(s.len, 40);
    overlay_next(&over, &base, 40, 100, &s);
    assert_int_equal(s.kind, SEG_BUFFER);
    assert_int_equal(s.id, 2);
    assert_int_equal(s.len, 10);
    free(a.pieces);
    extmap_free(&over);
    extmap_free(&base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_merge),     cmocka_unit_test(test_limit_aligns),
        cmocka_unit_test(test_extents_merge),    cmocka_unit_test(test_overlay_model),
        cmocka_unit_test(test_drop_keeps_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
