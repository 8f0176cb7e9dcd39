/* The scrub's pure parts under virtual time: its pace, its marks against a model that remembers each chunk, its file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/byteorder.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/hash.h"
#include "chunkd/scrub_state.h"
#include "tests/unit/tree.h"

#define DAY (24ll * 3600 * NSEC_PER_SEC)
#define CYCLE (14 * DAY)
#define LIMIT (32ull << 20)
#define MIB (1ull << 20)

/* ---- pace ---- */

struct run {
    int64_t took;     /* of the pass */
    uint64_t fastest; /* bytes a second, of any piece */
};

/* A pass over `bytes`, paused in [from, to) of it, with clients at work all the time or not. */
static struct run pace_pass(uint64_t bytes, bool busy, enum scrub_mode mode, int64_t from,
                            int64_t to)
{
    struct run r = {0, 0};
    uint64_t piece = bytes / 5000 > MIB ? bytes / 5000 : MIB, left = bytes;
    while (left > 0) {
        struct scrub_pace p = {mode, busy, LIMIT, CYCLE, r.took, left};
        if (r.took >= from && r.took < to)
            r.took = to;
        uint64_t rate = scrub_pace_rate(&p), n = left < piece ? left : piece;
        int64_t read =
            (int64_t)(n * (uint64_t)NSEC_PER_SEC / (200 * MIB)); /* what the disk needs */
        int64_t wait = scrub_pace_wait(rate, n, read);
        assert_true(rate > 0 && wait >= 0);
        uint64_t was = (uint64_t)((double)n * NSEC_PER_SEC / (double)(read + wait));
        r.fastest = was > r.fastest ? was : r.fastest;
        r.took += read + wait;
        left -= n;
    }
    return r;
}

static void the_pace_fits_the_cycle(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {3 * MIB, 5ull << 30, 4ull << 40, 9ull << 40};
    for (unsigned i = 0; i < 4; i++)
        for (unsigned busy = 0; busy < 2; busy++) {
            struct run r = pace_pass(sizes[i], busy, SCRUB_EVEN, 0, 0);
            assert_in_range(r.took, CYCLE / 2, CYCLE);
            assert_true(r.fastest <= LIMIT + LIMIT / 100);
            if (busy)
                assert_true(r.fastest <= LIMIT / SCRUB_BUSY_SHARE + LIMIT / 100);
            /* half of the cycle is lost: it still ends in time */
            r = pace_pass(sizes[i], false, SCRUB_EVEN, DAY, 8 * DAY);
            assert_in_range(r.took, CYCLE / 2, CYCLE);
            assert_true(r.fastest <= LIMIT + LIMIT / 100);
        }
}

static void a_disk_too_big_for_the_limit_is_read_at_the_limit(void **state)
{
    (void)state;
    uint64_t bytes = LIMIT * (uint64_t)(2 * CYCLE / NSEC_PER_SEC);
    struct run r = pace_pass(bytes, false, SCRUB_EVEN, 0, 0);
    assert_in_range(r.took, 2 * CYCLE - DAY, 2 * CYCLE + DAY);
}

static void a_pass_that_was_asked_for_hurries(void **state)
{
    (void)state;
    uint64_t bytes = 100ull << 30;
    int64_t at_limit = (int64_t)(bytes / LIMIT) * NSEC_PER_SEC;
    assert_in_range(pace_pass(bytes, false, SCRUB_SOON, 0, 0).took, at_limit * 99 / 100,
                    at_limit * 101 / 100);
    assert_in_range(pace_pass(bytes, true, SCRUB_SOON, 0, 0).took, at_limit * 399 / 100,
                    at_limit * 401 / 100);
    assert_in_range(pace_pass(bytes, true, SCRUB_FAST, 0, 0).took, at_limit * 99 / 100,
                    at_limit * 101 / 100);
    int64_t disk = (int64_t)(bytes / (200 * MIB)) * NSEC_PER_SEC;
    assert_in_range(pace_pass(bytes, false, SCRUB_FAST, 0, 0).took, disk * 99 / 100,
                    disk * 101 / 100);
    struct scrub_pace odd = {SCRUB_EVEN, true, 1, 1, INT64_MAX, UINT64_MAX};
    assert_int_equal(scrub_pace_rate(&odd), 1);
    assert_true(scrub_pace_wait(1, UINT64_MAX, 0) > 0);
}

/* ---- marks ---- */

#define CHUNKS 1000u

struct model {
    struct scrub_state st;
    int64_t checked[CHUNKS]; /* chunk i + 1 */
    int64_t now, made;
};

static int64_t truly_oldest(const struct model *m)
{
    int64_t t = INT64_MAX;
    for (unsigned i = 0; i < CHUNKS; i++)
        t = m->checked[i] < t ? m->checked[i] : t;
    return t;
}

/* Checks chunks until `upto` of them are checked in this pass, a second each. */
static void model_pass(struct model *m, unsigned upto, int64_t tolerance)
{
    for (unsigned i = (unsigned)(m->st.chunk ? m->st.chunk - 1 : 0); i < upto; i++) {
        m->now += NSEC_PER_SEC;
        m->checked[i] = m->now;
        m->st.done += 10;
        scrub_state_reached(&m->st, m->now, i + 2, 0, (CHUNKS - 1 - i) * 10ull);
        int64_t told = scrub_state_oldest(&m->st), is = truly_oldest(m);
        if (i + 1 == CHUNKS)
            continue;            /* the pass is over: nothing is unchecked in it */
        assert_true(told <= is); /* never younger than it is */
        assert_true(is - told <= tolerance);
    }
}

static void the_age_is_true(void **state)
{
    (void)state;
    struct model m = {.now = 1000 * DAY};
    int64_t a_mark =
        (2 * CHUNKS / SCRUB_MARKS_MAX + 2) * NSEC_PER_SEC; /* the last is as long as two */
    m.made = m.now;
    for (unsigned i = 0; i < CHUNKS; i++)
        m.checked[i] = m.made;
    scrub_state_init(&m.st, 1, 2, m.made);
    scrub_state_begin(&m.st, m.now, SCRUB_EVEN);
    model_pass(&m, CHUNKS, 0);
    for (unsigned pass = 0; pass < 3; pass++) {
        scrub_state_over(&m.st);
        scrub_state_begin(&m.st, m.now, SCRUB_EVEN);
        assert_int_equal(m.st.chunk, 0);
        assert_true(m.st.nprev > SCRUB_MARKS_MAX / 2);
        model_pass(&m, CHUNKS / 2, a_mark);
        model_pass(&m, CHUNKS, a_mark);
        m.now += DAY; /* the computer was off between two passes */
    }
    for (unsigned pass = 0; pass < 2; pass++) { /* or within one, between two marks */
        scrub_state_over(&m.st);
        scrub_state_begin(&m.st, m.now, SCRUB_EVEN);
        model_pass(&m, CHUNKS / 2, a_mark + DAY);
        m.now += DAY;
        model_pass(&m, CHUNKS, a_mark + DAY);
    }
}

/* What came while a pass was under way is as old as the pass, and no younger. */
static void what_came_later_is_as_old_as_the_pass(void **state)
{
    (void)state;
    struct scrub_state s;
    scrub_state_init(&s, 1, 1, 0);
    scrub_state_begin(&s, 10 * DAY, SCRUB_EVEN);
    s.upto = 50;
    for (unsigned c = 1; c <= 50; c++) {
        s.done += 10;
        scrub_state_reached(&s, 11 * DAY + c, c + 1, 0, 500 - s.done);
    }
    scrub_state_over(&s); /* chunk 51 was written on the tenth day and not read */
    scrub_state_begin(&s, 20 * DAY, SCRUB_EVEN);
    assert_int_equal(scrub_state_oldest(&s), 10 * DAY);
    s.done += 500;
    scrub_state_reached(&s, 21 * DAY, 52, 0, 10);
    assert_int_equal(scrub_state_oldest(&s), 10 * DAY);
    s.upto = 60;
    scrub_state_over(&s);
    scrub_state_begin(&s, 22 * DAY, SCRUB_EVEN);
    assert_int_equal(scrub_state_oldest(&s), 20 * DAY);
}

/* Passes that begin again before the one before is over: the rest is as old as it was. */
static void passes_cut_short_forget_nothing(void **state)
{
    (void)state;
    struct model m = {.now = 1000 * DAY};
    m.made = m.now;
    for (unsigned i = 0; i < CHUNKS; i++)
        m.checked[i] = m.made;
    scrub_state_init(&m.st, 1, 2, m.made);
    scrub_state_begin(&m.st, m.now, SCRUB_EVEN);
    model_pass(&m, CHUNKS, 0);
    scrub_state_over(&m.st);
    scrub_state_begin(&m.st, m.now, SCRUB_EVEN);
    for (unsigned i = 1; i <= 40; i++) {
        m.now += DAY;
        model_pass(&m, (unsigned)(hash_u64(i) % CHUNKS / 2), 45 * DAY);
        assert_true(scrub_state_oldest(&m.st) <= m.made + (CHUNKS + 2) * NSEC_PER_SEC);
        scrub_state_begin(&m.st, m.now, SCRUB_FAST);
    }
    model_pass(&m, CHUNKS, 45 * DAY);
}

static void a_clock_that_goes_back_makes_nothing_younger_than_now(void **state)
{
    (void)state;
    struct scrub_state s;
    scrub_state_init(&s, 1, 1, 50 * DAY);
    scrub_state_begin(&s, 60 * DAY, SCRUB_EVEN);
    scrub_state_clock(&s, 40 * DAY);
    assert_int_equal(scrub_state_oldest(&s), 40 * DAY);
    assert_int_equal(s.begin, 40 * DAY);
    assert_int_equal(s.first, 40 * DAY);
}

/* ---- what was found ---- */

static void bad_copies_are_noted_once(void **state)
{
    (void)state;
    static struct scrub_state s;
    scrub_state_init(&s, 1, 1, 0);
    for (unsigned i = 1; i <= SCRUB_BAD_MAX; i++)
        assert_true(scrub_state_bad(&s, i, 7, 0));
    assert_false(scrub_state_bad(&s, 5, 7, 4096));
    s.bad[10].told = 3;
    assert_true(scrub_state_bad(&s, 5000, 7, 0)); /* takes the place of one that metad knows */
    assert_int_equal(s.nbad, SCRUB_BAD_MAX);
    assert_int_equal(s.bad[10].chunk, 5000);
    assert_int_equal(s.found, SCRUB_BAD_MAX + 1);
    scrub_state_good(&s, 10);
    assert_int_equal(s.nbad, SCRUB_BAD_MAX - 1);
    assert_int_equal(s.healed, 1);
}

/* ---- the file ---- */

static void fill_state(struct scrub_state *s)
{
    scrub_state_init(s, 3, 4, 10 * DAY);
    scrub_state_begin(s, 11 * DAY, SCRUB_EVEN);
    for (unsigned i = 0; i < 300; i++) {
        s->done += 100;
        scrub_state_reached(s, 12 * DAY + i, 2 * i + 1, 0, 100 * (299 - i));
    }
    s->upto = 5000;
    scrub_state_over(s);
    scrub_state_begin(s, 13 * DAY, SCRUB_FAST);
    s->done += 5000;
    scrub_state_reached(s, 14 * DAY, 77, 4096, 25000);
    s->paused = 15 * DAY;
    for (unsigned i = 0; i < 5; i++)
        scrub_state_bad(s, 100 + i, 1ull << 50, 4096 * i);
}

static void the_file_gives_what_was_put_in(void **state)
{
    (void)state;
    static struct scrub_state s, t;
    static uint8_t file[SCRUB_FILE_MAX], back[SCRUB_FILE_MAX];
    fill_state(&s);
    size_t len = scrub_state_encode(&s, file);
    assert_int_equal(scrub_state_decode(&t, file, len), 0);
    assert_int_equal(scrub_state_encode(&t, back), len);
    assert_memory_equal(file, back, len);
    assert_memory_equal(&s, &t, sizeof s);
    for (size_t i = 0; i < len; i++) { /* no byte may be another, none may be missing */
        file[i] ^= 1;
        assert_int_equal(scrub_state_decode(&t, file, len), -ERR_CORRUPT);
        file[i] ^= 1;
        assert_int_equal(scrub_state_decode(&t, file, i), -ERR_CORRUPT);
    }
    assert_memory_equal(&s, &t, sizeof s); /* and what was refused changes nothing */
}

/* Right checksums, wrong contents. */
static void nonsense_is_refused(void **state)
{
    (void)state;
    static struct scrub_state s, t;
    static uint8_t file[SCRUB_FILE_MAX], bad[SCRUB_FILE_MAX];
    fill_state(&s);
    size_t len = scrub_state_encode(&s, file);
    static const struct {
        size_t at;
        uint8_t value;
        int code;
    } wrong[] = {{8, 2, -ERR_VERSION},
                 {68, 3, -ERR_CORRUPT},
                 {39, 0x80, -ERR_CORRUPT},
                 {104, 255, -ERR_CORRUPT},
                 {109, 9, -ERR_CORRUPT},
                 {120, 255, -ERR_CORRUPT},
                 {24 + 7, 0, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(bad, file, len);
        bad[wrong[i].at] = wrong[i].value;
        if (wrong[i].at == 120)
            memset(bad + 120, 255, 8); /* the first mark's chunk is above the next one's */
        le_put32(bad + len - 4, crc32c(0, bad, len - 4));
        assert_int_equal(scrub_state_decode(&t, bad, len), wrong[i].code);
    }
}

static void the_file_is_of_one_disk(void **state)
{
    (void)state;
    static struct scrub_state s, t;
    char dir[64];
    assert_true(tree_make(dir, sizeof dir, "/tmp", "scrub"));
    fill_state(&s);
    scrub_state_init(&t, 3, 4, 0);
    assert_int_equal(scrub_state_load(&t, dir), -ENOENT);
    assert_int_equal(scrub_state_save(&s, dir), 0);
    assert_int_equal(scrub_state_load(&t, dir), 0);
    assert_memory_equal(&s, &t, sizeof s);
    scrub_state_init(&t, 3, 5, 0);
    assert_int_equal(scrub_state_load(&t, dir), -ERR_CORRUPT);
    assert_int_equal(t.pass, 0);
    tree_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pace_fits_the_cycle),
        cmocka_unit_test(a_disk_too_big_for_the_limit_is_read_at_the_limit),
        cmocka_unit_test(a_pass_that_was_asked_for_hurries),
        cmocka_unit_test(the_age_is_true),
        cmocka_unit_test(what_came_later_is_as_old_as_the_pass),
        cmocka_unit_test(passes_cut_short_forget_nothing),
        cmocka_unit_test(a_clock_that_goes_back_makes_nothing_younger_than_now),
        cmocka_unit_test(bad_copies_are_noted_once),
        cmocka_unit_test(the_file_gives_what_was_put_in),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(the_file_is_of_one_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
