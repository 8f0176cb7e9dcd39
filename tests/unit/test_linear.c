/* The checker of histories (tests/linear): known ones, good and bad; made-up ones, which are fine or have a
 * fault of each kind; and small ones of any kind, of which trying all orders says what they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/linear/gen.h"
#include "tests/linear/model.h"
#include "tests/linear/wgl.h"

static bool parse(struct history *h, const char *text, char *err, size_t size)
{
    FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    assert_non_null(in);
    bool fine = history_read(h, in, err, size);
    fclose(in);
    return fine;
}

static enum wgl_verdict verdict(const char *text)
{
    struct history h = {0};
    struct wgl_result r;
    char err[256] = "";
    if (!parse(&h, text, err, sizeof err))
        fail_msg("%s", err);
    wgl_check(&h, WGL_STATES, &r);
    enum wgl_verdict v = r.verdict;
    wgl_result_free(&r);
    history_free(&h);
    return v;
}
#define FINE(text) assert_int_equal(verdict(text), WGL_FINE)
#define WRONG(text) assert_int_equal(verdict(text), WGL_VIOLATION)

static void test_known(void **state)
{
    (void)state;
    FINE("");
    FINE("0 1 2 create a = ok 7\n1 3 4 stat a = ok 7\n1 5 6 stat b = ENOENT\n");
    WRONG("0 1 2 create a = ok 7\n1 3 4 stat a = ENOENT\n");
    FINE("0 1 4 create a = ok 7\n1 3 5 stat a = ENOENT\n");
    WRONG("0 1 2 create a = ok 7\n1 3 4 stat a = ok 8\n");
    WRONG("0 1 2 create a = ok 7\n1 3 4 create a = ok 8\n");
    WRONG("0 1 2 create a = ok 7\n1 3 4 create b = ok 7\n"); /* a number given twice */
    FINE("0 1 2 create a = ok 7\n1 3 4 create a = EEXIST\n");
    WRONG("0 1 2 create a = EEXIST\n");
    /* two create at once: one of them */
    FINE("0 1 5 create a = ok 7\n1 2 6 create a = EEXIST\n");
    WRONG("0 1 5 create a = ok 7\n1 2 6 create a = ok 8\n");
    WRONG("0 1 5 create a = EEXIST\n1 2 6 create a = EEXIST\n");
    /* a moment is enough to overlap */
    FINE("0 1 5 create a = ok 7\n1 5 6 stat a = ENOENT\n");
    WRONG("0 1 5 create a = ok 7\n1 6 6 stat a = ENOENT\n");
    WRONG("0 1 2 create a = errno 13\n");
}

/* The kernel looks at the two names one after the other, and does nothing when it has seen one file twice. */
static void test_peeks(void **state)
{
    (void)state;
    /* client 1 sees 7 as a, then client 0 renames it, then client 1 sees it as b */
    FINE("0 1 2 create a = ok 7\n0 5 9 rename a b = ok\n1 4 10 rename a b = ok\n0 11 12 stat b = "
         "ok 7\n");
    WRONG("0 1 2 create a = ok 7\n0 3 4 rename a b = ok\n1 5 10 rename a b = ok\n");
    WRONG("0 1 2 create a = ok 7\n0 5 9 rename a b = ok\n1 4 8 rename a c = ok\n");
    /* and not when it can have seen only another one */
    WRONG("0 1 2 create a = ok 7\n0 3 4 create b = ok 8\n0 5 9 unlink a = ok\n1 4 8 rename a b = "
          "ok\n2 10 11 stat b = ok 8\n");
    WRONG("0 1 2 create a = ok 7\n0 5 9 move a b = ok\n1 4 10 move a b = ok\n");
}

#define A_AND_B "0 1 2 create a = ok 7\n0 3 4 create b = ok 8\n"
static void test_renames(void **state)
{
    (void)state;
    FINE(A_AND_B "0 5 6 rename a b = ok\n1 7 8 stat b = ok 7\n1 9 9 stat a = ENOENT\n");
    WRONG(A_AND_B "0 5 6 rename a b = ok\n1 7 8 stat b = ok 8\n");
    /* replaced, never missing */
    WRONG(A_AND_B "0 5 9 rename a b = ok\n1 6 7 stat b = ENOENT\n");
    /* and never in two places: once b is the new one, a is gone */
    WRONG(A_AND_B "0 5 20 rename a b = ok\n1 6 7 stat b = ok 7\n1 8 9 stat a = ok 7\n");
    FINE(A_AND_B "0 5 6 move a b = EEXIST\n0 7 8 move a c = ok\n");
    WRONG(A_AND_B "0 5 6 move a b = ok\n");
    FINE(A_AND_B "0 5 6 swap a b = ok\n0 7 8 stat a = ok 8\n0 9 10 stat b = ok 7\n");
    WRONG(A_AND_B "0 5 6 swap a c = ok\n");
    FINE(A_AND_B "0 5 6 swap a c = ENOENT\n0 7 8 rename c a = ENOENT\n");
    /* links: two names of one file, renaming one to the other does nothing */
    FINE("0 1 2 create a = ok 7\n0 3 4 link 7 b = ok\n0 5 6 rename a b = ok\n0 7 8 fstat 7 = ok 2 "
         "0\n");
    FINE(A_AND_B "0 5 6 link 7 b = EEXIST\n0 7 8 unlink a = ok\n0 9 10 link 7 c = ENOENT\n");
    WRONG(A_AND_B "0 5 6 link 7 c = ENOENT\n");
    WRONG(A_AND_B "0 5 6 unlink a = ok\n0 9 10 link 7 c = ok\n");
}

static void test_contents(void **state)
{
    (void)state;
    FINE(A_AND_B "0 5 6 write 7 1 = ok\n1 7 8 read 7 = ok 1\n1 9 10 fstat 7 = ok 1 64\n");
    WRONG(A_AND_B "0 5 6 write 7 1 = ok\n1 7 8 read 7 = ok 0\n");
    WRONG(A_AND_B "0 5 6 write 7 1 = ok\n1 7 8 fstat 7 = ok 1 0\n");
    WRONG(A_AND_B "0 5 6 write 7 1 = ok\n1 7 8 read 7 = ok torn\n");
    /* of two at once either is last, but for everybody the same */
    FINE(A_AND_B "0 5 9 write 7 1 = ok\n1 6 8 synced 7 2 = ok\n2 10 11 read 7 = ok 1\n");
    WRONG(A_AND_B "0 5 9 write 7 1 = ok\n1 6 8 synced 7 2 = ok\n2 10 11 read 7 = ok 1\n3 12 13 "
                  "read 7 = ok 2\n");
    /* emptying what is empty may have to wait for the write */
    FINE(A_AND_B "0 5 9 write 7 1 = ok\n1 6 8 empty 7 = ok\n2 10 11 read 7 = ok 0\n");
    FINE(A_AND_B "0 5 9 write 7 1 = ok\n1 6 8 empty 7 = ok\n2 10 11 read 7 = ok 1\n");
    /* a file without a name can be read and written; its attributes may be gone */
    FINE(A_AND_B "0 5 6 unlink a = ok\n0 7 8 write 7 3 = ok\n0 9 10 read 7 = ok 3\n0 11 12 fstat 7 "
                 "= ESTALE\n");
    WRONG(A_AND_B "0 5 6 fstat 7 = ESTALE\n");
}

static void test_unknown(void **state)
{
    (void)state;
    /* may have happened, may happen much later, or never */
    FINE(A_AND_B "1 5 - unlink a = ?\n0 6 7 stat a = ok 7\n0 8 9 stat a = ENOENT\n");
    FINE(A_AND_B "1 5 - unlink a = ?\n0 6 7 stat a = ENOENT\n");
    FINE(A_AND_B "1 5 - unlink a = ?\n0 6 7 stat a = ok 7\n");
    /* but once, and not before it was asked for */
    WRONG(A_AND_B "1 5 - unlink a = ?\n0 6 7 stat a = ENOENT\n0 8 9 create a = ok 9\n0 10 11 stat "
                  "a = ENOENT\n");
    WRONG(A_AND_B "0 6 7 stat a = ENOENT\n1 8 - unlink a = ?\n");
    FINE(A_AND_B "1 5 - write 7 1 = ?\n0 6 7 read 7 = ok 0\n0 8 9 read 7 = ok 1\n");
    WRONG(A_AND_B "1 5 - write 7 1 = ?\n0 6 7 read 7 = ok 1\n0 8 9 read 7 = ok 0\n");
    /* a file that nobody was told of gets its number from the first who sees it */
    FINE("1 5 - create a = ?\n0 6 7 stat a = ok 9\n0 8 9 stat a = ok 9\n");
    WRONG("1 5 - create a = ?\n0 6 7 stat a = ok 9\n0 8 9 stat a = ok 10\n");
    WRONG("0 1 2 create b = ok 9\n1 5 - create a = ?\n0 6 7 stat a = ok 9\n");
    FINE("1 5 - create a = ?\n0 6 7 rename a b = ok\n0 8 9 stat b = ok 9\n0 10 11 link 9 c = ok\n");
    FINE("0 1 2 create a = ok 0\n0 6 7 rename a b = ok\n0 8 9 stat b = ok 9\n");
    FINE("1 5 - read 9 = ?\n1 5 - open a = ?\n1 6 - fstat 9 = ?\n");
}

/* What cannot be placed is said, behind the longest order. */
static void test_report(void **state)
{
    (void)state;
    struct history h = {0};
    struct wgl_result r;
    char err[256] = "", *text = NULL;
    size_t size;
    assert_true(parse(
        &h,
        A_AND_B
        "0 5 6 write 7 1 = ok\n2 7 8 stat b = ok 8\n1 9 10 read 7 = ok 0\n0 11 12 unlink a = ok\n",
        err, sizeof err));
    wgl_check(&h, WGL_STATES, &r);
    assert_int_equal(r.verdict, WGL_VIOLATION);
    assert_int_equal(r.operations, 4);
    assert_int_equal(r.nstuck, 1);
    assert_int_equal(h.ops[r.stuck[0]].kind, OP_READ);
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    wgl_print(&h, &r, out);
    fclose(out);
    assert_non_null(strstr(text, "4 of 6 operations"));
    assert_non_null(strstr(text, "a: file 7 with content 1, b: file 8 with content 0, c: nothing"));
    assert_non_null(strstr(text, "come next:\n    1 9 10 read 7 = ok 0\n"));
    free(text);
    wgl_result_free(&r);
    history_free(&h);
}

static void test_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"0 1 2 create\n",
                                      "0 1 2 create a\n",
                                      "0 1 2 create a = ok\n",
                                      "0 1 2 create d = ok 7\n",
                                      "0 1 2 create ab = ok 7\n",
                                      "64 1 2 create a = ok 7\n",
                                      "0 2 1 create a = ok 7\n",
                                      "0 1 - create a = ok 7\n",
                                      "0 1 2 create a = ?\n",
                                      "0 1 2 grow a = ok\n",
                                      "0 1 2 unlink a = ok 7\n",
                                      "0 1 2 unlink a = EWHAT\n",
                                      "0 1 2 write 7 = ok\n",
                                      "0 1 2 write 7 torn = ok\n",
                                      "0 -1 2 unlink a = ok\n",
                                      "0 1 2 unlink a = errno 0\n",
                                      "0 1 2 read 7 = ok 4294967295\n",
                                      "0 1 2 fstat 7 = ok 1\n",
                                      "x 1 2 unlink a = ok\n"};
    struct gen_options o = {.seed = 3, .clients = 8, .ops = 300, .unknown = 100, .last_look = true};
    struct history h = {0}, again = {0};
    char err[256], *text = NULL;
    size_t size;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err[0] = 0;
        if (parse(&h, bad[i], err, sizeof err))
            fail_msg("accepted: %s", bad[i]);
        assert_non_null(strstr(err, "line 1: "));
        history_free(&h);
    }
    assert_true(gen_history(&o, &h));
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    fprintf(out, "# a comment\n\n");
    history_write(&h, out);
    fprintf(out, "1 %llu %llu read 7 = ok torn\n", 1ull << 40, 1ull << 41);
    fclose(out);
    if (!parse(&again, text, err, sizeof err))
        fail_msg("%s", err);
    assert_int_equal(again.n, h.n + 1);
    for (size_t i = 0; i < h.n; i++)
        assert_memory_equal(&again.ops[i], &h.ops[i], sizeof h.ops[i]);
    assert_int_equal(again.ops[h.n].value, HISTORY_TORN);
    free(text);
    history_free(&h);
    history_free(&again);
}

/* ---- all orders, for small histories ---- */

struct orders {
    const struct history *h;
    struct model m;
    bool placed[32]; /* n + i: the peek of i */
};

static bool may_come(const struct orders *o, size_t i)
{
    for (size_t k = 0; k < o->h->n; k++)
        if (!o->placed[k] && k != i && o->h->ops[k].returned < o->h->ops[i].invoked)
            return false;
    return !o->placed[i];
}

static bool order_exists(struct orders *o, const uint16_t *now)
{
    uint16_t next[64];
    bool left = false;
    assert_true(o->m.width <= 64);
    for (size_t i = 0; i < o->h->n; i++)
        left |= !o->placed[i] && !o->h->ops[i].unknown;
    if (!left)
        return true;
    for (size_t k = 0; k < 2 * o->h->n; k++) {
        size_t i = k % o->h->n;
        if (!may_come(o, i) || o->placed[k] || (k != i && !o->m.peek[i]))
            continue;
        memcpy(next, now, o->m.width * sizeof *next);
        if ((k == i ? model_step(&o->m, i, next) : model_peek(&o->m, i, next)) == MODEL_WRONG)
            continue;
        o->placed[k] = true;
        bool found = order_exists(o, next);
        o->placed[k] = false;
        if (found)
            return true;
    }
    return false;
}

static bool fine_by_all_orders(const struct history *h)
{
    struct orders o = {.h = h};
    uint16_t start[64];
    model_open(&o.m, h);
    model_start(&o.m, start);
    bool fine = order_exists(&o, start);
    model_close(&o.m);
    return fine;
}

static void test_all_orders(void **state)
{
    (void)state;
    unsigned bad[GEN_FAULTS] = {0}, all[GEN_FAULTS] = {0};
    for (unsigned seed = 1; seed <= 40000; seed++) {
        struct gen_options o = {.seed = seed,
                                .clients = seed % 3 ? 2 + seed % 3 : 2,
                                .ops = 4 + seed % 5,
                                .last_look = seed % 3 == 0,
                                .unknown = seed % 2 ? 0 : 200,
                                .fault = seed / 5 % GEN_FAULTS};
        struct history h = {0};
        struct wgl_result r;
        bool made = gen_history(&o, &h);
        if (h.n <= (o.last_look ? 16u : 10u)) {
            wgl_check(&h, WGL_STATES, &r);
            bool fine = fine_by_all_orders(&h);
            if ((r.verdict == WGL_FINE) != fine)
                fail_msg("seed %u: all orders say %s", seed, fine ? "fine" : "wrong");
            if (o.fault == GEN_FINE && !fine)
                fail_msg("seed %u: a history without fault", seed);
            if (made) {
                all[o.fault]++;
                bad[o.fault] += !fine;
            }
            wgl_result_free(&r);
        }
        history_free(&h);
    }
    for (unsigned f = GEN_FINE + 1; f < GEN_FAULTS; f++) {
        print_message("fault %u: %u of %u small histories are wrong\n", f, bad[f], all[f]);
        assert_true(bad[f] > 0 && bad[f] < all[f]); /* both kinds were compared */
    }
}

/* ---- large ones ---- */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Each kind of fault is found, always where nothing overlaps it, and mostly where something that does could
 * explain what was seen. */
static void test_faults(void **state)
{
    (void)state;
    static const char *const names[GEN_FAULTS] = {"fine", "stale", "lost", "doubled", "reordered"};
    for (unsigned f = 0; f < GEN_FAULTS; f++) {
        unsigned made = 0, caught = 0, undecided = 0, alone = 0;
        double worst = 0;
        for (unsigned seed = 1; seed <= 300; seed++) {
            struct gen_options o = {.seed = seed,
                                    .clients = 1 + seed % 8,
                                    .ops = 250,
                                    .unknown = 10 * (seed % 4),
                                    .fault = f,
                                    .last_look = true};
            struct history h = {0};
            struct wgl_result r;
            if (gen_history(&o, &h)) {
                double t = now_s();
                wgl_check(&h, WGL_STATES, &r);
                t = now_s() - t;
                worst = t > worst ? t : worst;
                made++;
                caught += r.verdict == WGL_VIOLATION;
                alone += o.clients == 1 && f != GEN_FINE && r.verdict != WGL_VIOLATION;
                undecided += r.verdict == WGL_UNDECIDED;
                wgl_result_free(&r);
            }
            history_free(&h);
        }
        print_message("%s: %u of %u histories are wrong, %u undecided, slowest %.3f s\n", names[f],
                      caught, made, undecided, worst);
        assert_true(made > 200);
        assert_int_equal(undecided, 0);
        assert_int_equal(alone, 0);
        if (f == GEN_FINE)
            assert_int_equal(caught, 0);
        else
            assert_true(caught * 10 >= made * 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),   cmocka_unit_test(test_renames),
        cmocka_unit_test(test_peeks),   cmocka_unit_test(test_contents),
        cmocka_unit_test(test_unknown), cmocka_unit_test(test_report),
        cmocka_unit_test(test_text),    cmocka_unit_test(test_all_orders),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
