/* The chained hash table of base against a plain model, by random operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/hash_table.h"

#define IDS 3000u

struct object {
    uint64_t id; /* before the link: the key's distance is negative */
    struct hash_link link;
    bool in;
    unsigned seen;
};
struct twin {
    struct hash_link link;
    char pad[40];
    uint64_t id; /* behind it */
    int which;
};

static uint64_t rnd(uint64_t *s)
{
    return hash_u64(*s += 0x9e3779b97f4a7c15ull);
}

static void check_walk(const struct hash_table *t, struct object *all, size_t n)
{
    size_t seen = 0;
    HASH_TABLE_EACH (t, p) {
        struct object *o = HASH_ENTRY(p, struct object, link);
        assert_true(o->in);
        o->seen++;
        seen++;
    }
    assert_int_equal(seen, n);
    for (unsigned i = 0; i < IDS; i++) {
        assert_int_equal(all[i].seen, all[i].in);
        all[i].seen = 0;
    }
}

static void against_model(void **state)
{
    (void)state;
    static struct object all[IDS];
    struct hash_table t;
    uint64_t seed = 1;
    size_t n = 0;
    HASH_TABLE_INIT(&t, 2, struct object, link, id);
    for (unsigned i = 0; i < IDS; i++)
        all[i].id = (uint64_t)i << 32;
    for (unsigned i = 0; i < 200000; i++) {
        struct object *o = &all[rnd(&seed) % (i < 100000 ? IDS : 50)]; /* few: chains empty again */
        struct object *have = HASH_ENTRY(hash_table_find(&t, o->id), struct object, link);
        assert_ptr_equal(have, o->in ? o : NULL);
        if (!o->in)
            hash_table_add(&t, &o->link);
        else
            hash_table_remove(&t, &o->link);
        o->in = !o->in;
        n += o->in ? 1 : (size_t)-1;
        assert_int_equal(t.n, n);
        if (i % 5000 == 0)
            check_walk(&t, all, n);
    }
    assert_true(t.mask + 1 >= IDS / 4); /* it grew, so that chains stay short */
    HASH_TABLE_EACH (&t, p) {
        hash_table_remove(&t, p); /* allowed while walking */
        HASH_ENTRY(p, struct object, link)->in = false;
    }
    assert_int_equal(t.n, 0);
    check_walk(&t, all, 0);
    hash_table_free(&t);
}

/* Objects of one key, told apart by the caller. */
static void same_key(void **state)
{
    (void)state;
    struct hash_table t;
    struct twin v[64] = {0};
    HASH_TABLE_INIT(&t, 4, struct twin, link, id);
    for (int i = 0; i < 64; i++) {
        v[i].id = (uint64_t)i % 4;
        v[i].which = i;
        hash_table_add(&t, &v[i].link);
    }
    for (uint64_t key = 0; key < 4; key++) {
        uint64_t found = 0;
        for (struct hash_link *l = hash_table_find(&t, key); l; l = hash_table_next_same(&t, l))
            found |= 1ull << HASH_ENTRY(l, struct twin, link)->which;
        assert_true(found == 0x1111111111111111ull << key);
    }
    hash_table_remove(&t, &v[20].link);
    uint64_t found = 0;
    for (struct hash_link *l = hash_table_find(&t, 0); l; l = hash_table_next_same(&t, l))
        found |= 1ull << HASH_ENTRY(l, struct twin, link)->which;
    assert_true(found == (0x1111111111111111ull & ~(1ull << 20)));
    assert_null(hash_table_find(&t, 4));
    hash_table_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_model), cmocka_unit_test(same_key)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
