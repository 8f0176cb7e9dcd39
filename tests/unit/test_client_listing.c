/* What the kernel is given of a page of a directory that was fetched a while ago: what was changed or recalled
 * since is not taken from it. */
#include "client_internals.h"
#include "client_rig.h"

#define DIR_INO 500u
#define OTHER 501u

static struct lists {
    struct dir_page page;
    Replfs__Envelope rep;
    Replfs__ReaddirReply r;
    Replfs__Dirent e[1], *list[1];
    Replfs__Attr a;
} lists;

/* A page with one entry, under leases, as it is when it comes. */
static const Replfs__Dirent *fetch(uint64_t begun)
{
    struct lists *x = &lists;
    replfs__readdir_reply__init(&x->r);
    replfs__envelope__init(&x->rep);
    replfs__dirent__init(x->e);
    replfs__attr__init(&x->a);
    x->a.ino = OTHER;
    x->a.mode = S_IFREG | 0644;
    x->a.change = 3;
    x->e->name = (ProtobufCBinaryData){4, (uint8_t *)"name"};
    x->e->ino = OTHER;
    x->e->cookie = 1;
    x->e->attr = &x->a;
    x->e->lease = 1;
    x->list[0] = x->e;
    x->r.entries = x->list;
    x->r.n_entries = 1;
    x->r.dir_lease = 1;
    x->rep.readdir_reply = &x->r;
    x->page = (struct dir_page){.res.rep = &x->rep, .ino = DIR_INO, .begun = begun};
    client_saw_entries(client_rig.cl, begun, DIR_INO, true, &x->r);
    x->page.seen = client_begin(client_rig.cl);
    return x->e;
}

static bool given(bool fresh, Replfs__Attr *a)
{
    return client_entry_attr(client_rig.cl, &lists.page, fresh, lists.e, a);
}

static void own_change(uint64_t change, uint32_t mode)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__MutationResult res = REPLFS__MUTATION_RESULT__INIT;
    Replfs__Attr a = lists.a;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    s.ino = OTHER;
    a.change = change;
    a.mode = mode;
    res.attr = &a;
    res.lease = 1;
    lease_cache_mutated(client_rig.cl->leases, client_begin(client_rig.cl), &op, &res);
}

static void test_as_it_is_by_now(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    fetch(client_begin(client_rig.cl));
    assert_true(client_page_holds(client_rig.cl, &lists.page));
    assert_true(given(false, &a));
    assert_int_equal(a.mode, S_IFREG | 0644);
    own_change(4, S_IFREG | 0600);
    assert_true(given(false, &a));
    assert_int_equal(a.mode, S_IFREG | 0600);
    assert_int_equal(lists.a.mode, S_IFREG | 0644); /* the page is as it was */
    assert_true(given(true, &a));
    assert_int_equal(a.mode, S_IFREG | 0600);
}

static void test_recalled_is_not_given(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    uint64_t begun = client_begin(client_rig.cl);
    fetch(begun);
    lease_cache_forget_now(client_rig.cl->leases, OTHER);
    assert_false(given(false, &a));
    assert_false(given(true, &a)); /* it may have come before the answer was looked at */
    fetch(client_begin(client_rig.cl));
    assert_true(given(true, &a));
    lease_cache_forget_now(client_rig.cl->leases, DIR_INO); /* the name may be another's */
    assert_false(client_page_holds(client_rig.cl, &lists.page));
    assert_false(given(false, &a));
    assert_false(given(true, &a));
}

static void test_name_that_went(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__MutationResult res = REPLFS__MUTATION_RESULT__INIT;
    Replfs__Attr dir = REPLFS__ATTR__INIT;
    const Replfs__Dirent *e = fetch(client_begin(client_rig.cl));
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &u;
    u.parent = dir.ino = DIR_INO;
    u.name = e->name;
    dir.mode = S_IFDIR | 0755;
    dir.change = 2;
    res.parent = &dir;
    res.parent_lease = 1;
    lease_cache_mutated(client_rig.cl->leases, client_begin(client_rig.cl), &op, &res);
    assert_true(client_page_holds(client_rig.cl, &lists.page)); /* of others it is known */
    assert_false(given(false, &a));
    assert_false(given(true, &a));
}

/* Without leases only the answer itself is believed, for the one who asked. */
static void test_without_lease(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    fetch(client_begin(client_rig.cl));
    lease_cache_forget_now(client_rig.cl->leases, OTHER);
    lease_cache_forget_now(client_rig.cl->leases, DIR_INO);
    lists.r.dir_lease = lists.e->lease = 0;
    lists.page.begun = lists.page.seen = client_begin(client_rig.cl);
    assert_false(client_page_holds(client_rig.cl, &lists.page));
    assert_true(given(true, &a));
    assert_int_equal(client_attr_ttl(client_rig.cl, &a), 0);
    assert_int_equal(client_entry_ttl(client_rig.cl, DIR_INO, "name", OTHER), 0);
    assert_false(given(false, &a));
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, client_rig_leased_setup, client_rig_teardown)
    const struct CMUnitTest tests[] = {T(test_as_it_is_by_now), T(test_recalled_is_not_given),
                                       T(test_name_that_went), T(test_without_lease)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
