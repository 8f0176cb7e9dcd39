/* metad's service as a client meets it: a real metad in this process, requests over loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "tests/unit/service_rig.h"

/* ---- requests ---- */

struct outcome {
    int code;        /* of the call */
    uint32_t result; /* of the operation */
    uint64_t value;
    uint64_t ino, parent_nlink;
    uint32_t nlink;
    bool has_attr, has_parent;
};

static struct outcome mutate(struct service_rig_peer *p, Replfs__MetaOp *op, uint64_t seq)
{
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *mp = &m;
    struct rpc_result res;
    struct outcome o = {0};

    m.seq = seq;
    m.op = op;
    r.session = p->session;
    r.ops = &mp;
    r.n_ops = 1;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    o.code = service_rig_ask(p, &env, &res);
    if (o.code == 0) {
        assert_int_equal(res.rep->mutate_reply->n_results, 1);
        const Replfs__MutationResult *x = res.rep->mutate_reply->results[0];
        assert_int_equal(x->seq, seq);
        o.result = x->code;
        o.value = x->value;
        o.has_attr = x->attr != NULL;
        o.has_parent = x->parent != NULL;
        o.ino = x->attr != NULL ? x->attr->ino : 0;
        o.nlink = x->attr != NULL ? x->attr->nlink : 0;
    }
    rpc_result_free(&res);
    return o;
}

static struct outcome create_seq(struct service_rig_peer *p, const char *name, uint32_t mode,
                                 uint64_t seq)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;

    c.parent = FSM_ROOT_INO;
    c.name.data = (uint8_t *)(uintptr_t)name;
    c.name.len = strlen(name);
    c.mode = mode;
    if (S_ISLNK(mode)) {
        c.target.data = (uint8_t *)(uintptr_t) "target/of/link";
        c.target.len = 14;
    }
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    return mutate(p, &op, seq);
}

static uint64_t create(const char *name, uint32_t mode)
{
    struct outcome o = create_seq(&me, name, mode, ++me.seq);

    assert_int_equal(o.code, 0);
    assert_int_equal(o.result, 0);
    assert_true(o.has_attr && o.has_parent);
    return o.ino;
}

static struct outcome unlink_name(const char *name)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;

    u.parent = FSM_ROOT_INO;
    u.name.data = (uint8_t *)(uintptr_t)name;
    u.name.len = strlen(name);
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &u;
    return mutate(&me, &op, ++me.seq);
}

static int lookup(struct service_rig_peer *p, const char *name, uint64_t *ino)
{
    Replfs__LookupReq r = REPLFS__LOOKUP_REQ__INIT;
    struct rpc_result res;

    r.session = p->session;
    r.parent = FSM_ROOT_INO;
    r.name.data = (uint8_t *)(uintptr_t)name;
    r.name.len = strlen(name);
    RPC_ENVELOPE(env, LOOKUP_REQ, lookup_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    if (rv == 0)
        *ino = res.rep->lookup_reply->attr->ino;
    rpc_result_free(&res);
    return rv;
}

static int getattr(struct service_rig_peer *p, uint64_t ino)
{
    Replfs__GetattrReq r = REPLFS__GETATTR_REQ__INIT;
    struct rpc_result res;

    r.session = p->session;
    r.ino = ino;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    rpc_result_free(&res);
    return rv;
}

static int keepalive(struct service_rig_peer *p)
{
    Replfs__KeepaliveReq r = REPLFS__KEEPALIVE_REQ__INIT;
    struct rpc_result res;

    r.session = p->session;
    RPC_ENVELOPE(env, KEEPALIVE_REQ, keepalive_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    rpc_result_free(&res);
    return rv;
}

static int open_ino(uint64_t ino)
{
    Replfs__OpenReq r = REPLFS__OPEN_REQ__INIT;
    struct rpc_result res;

    r.session = me.session;
    r.ino = ino;
    RPC_ENVELOPE(env, OPEN_REQ, open_req, &r);
    int rv = service_rig_ask(&me, &env, &res);
    rpc_result_free(&res);
    return rv;
}

static void close_ino(uint64_t ino)
{
    Replfs__CloseReq r = REPLFS__CLOSE_REQ__INIT;
    struct rpc_result res;

    r.session = me.session;
    r.ino = &ino;
    r.n_ino = 1;
    RPC_ENVELOPE(env, CLOSE_REQ, close_req, &r);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    rpc_result_free(&res);
}

static void wait_reaped(uint64_t ino)
{
    WAIT_UNTIL(getattr(&me, ino) != 0);
}

/* ---- tests ---- */

static void test_namespace(void **state)
{
    uint64_t ino = 0;
    struct rpc_result res;
    Replfs__ReadlinkReq rl = REPLFS__READLINK_REQ__INIT;

    (void)state;
    uint64_t file = create("file", S_IFREG | 0644);
    uint64_t link = create("link", S_IFLNK | 0777);
    assert_true(file != link);
    assert_int_equal(lookup(&me, "file", &ino), 0);
    assert_int_equal(ino, file);
    assert_int_equal(lookup(&me, "nothing", &ino), -ENOENT);
    rl.session = me.session;
    rl.ino = link;
    RPC_ENVELOPE(env, READLINK_REQ, readlink_req, &rl);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    assert_int_equal(res.rep->readlink_reply->target.len, 14);
    assert_memory_equal(res.rep->readlink_reply->target.data, "target/of/link", 14);
    rpc_result_free(&res);
    struct outcome o = create_seq(&me, "file", S_IFREG | 0644, ++me.seq);
    assert_int_equal(o.code, 0);
    assert_int_equal(o.result, EEXIST);
}

static void test_retry_is_done_once(void **state)
{
    uint64_t ino = 0;

    (void)state;
    struct outcome a = create_seq(&me, "once", S_IFREG | 0600, 7);
    struct outcome b = create_seq(&me, "once", S_IFREG | 0600, 7); /* the answer got lost */
    assert_int_equal(a.result, 0);
    assert_int_equal(b.result, 0);
    assert_int_equal(a.ino, b.ino);
    assert_int_equal(lookup(&me, "once", &ino), 0);
    assert_int_equal(ino, a.ino);
}

static void test_many_in_one_request(void **state)
{
    enum { N = 300 };
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    static Replfs__Mutation m[N], *mp[N];
    static Replfs__MetaOp op[N];
    static Replfs__CreateOp c[N];
    static char names[N][16];
    struct rpc_result res;

    (void)state;
    for (int i = 0; i < N; i++) {
        replfs__mutation__init(&m[i]);
        replfs__meta_op__init(&op[i]);
        replfs__create_op__init(&c[i]);
        snprintf(names[i], sizeof(names[i]), "f%d", i % (N - 1)); /* the last one exists already */
        c[i].parent = FSM_ROOT_INO;
        c[i].name.data = (uint8_t *)names[i];
        c[i].name.len = strlen(names[i]);
        c[i].mode = S_IFREG | 0644;
        op[i].op_case = REPLFS__META_OP__OP_CREATE;
        op[i].create = &c[i];
        m[i].seq = (uint64_t)i + 1;
        m[i].op = &op[i];
        mp[i] = &m[i];
    }
    r.session = me.session;
    r.ops = mp;
    r.n_ops = N;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    assert_int_equal(res.rep->mutate_reply->n_results, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(res.rep->mutate_reply->results[i]->seq, i + 1);
        assert_int_equal(res.rep->mutate_reply->results[i]->code, i == N - 1 ? EEXIST : 0);
    }
    rpc_result_free(&res);
}

static void test_readdir_pages(void **state)
{
    enum { N = 500 };
    static bool seen[N];
    unsigned count = 0, rounds = 0;
    uint64_t cookie = 0;
    bool eof = false;

    (void)state;
    memset(seen, 0, sizeof(seen));
    for (int i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof(name), "e%d", i);
        create(name, i % 2 != 0 ? S_IFREG | 0644 : S_IFDIR | 0755);
    }
    while (!eof) {
        Replfs__ReaddirReq r = REPLFS__READDIR_REQ__INIT;
        struct rpc_result res;
        r.session = me.session;
        r.ino = FSM_ROOT_INO;
        r.cookie = cookie;
        r.max_entries = 64;
        r.plus = rounds % 2 == 0;
        RPC_ENVELOPE(env, READDIR_REQ, readdir_req, &r);
        assert_int_equal(service_rig_ask(&me, &env, &res), 0);
        const Replfs__ReaddirReply *d = res.rep->readdir_reply;
        assert_true(d->n_entries <= 64 && d->parent == FSM_ROOT_INO);
        for (size_t i = 0; i < d->n_entries; i++) {
            char name[16];
            snprintf(name, sizeof(name), "%.*s", (int)d->entries[i]->name.len,
                     (char *)d->entries[i]->name.data);
            int k = atoi(name + 1);
            assert_true(k >= 0 && k < N && !seen[k]);
            seen[k] = true;
            assert_int_equal(d->entries[i]->type, k % 2 != 0 ? DT_REG : DT_DIR);
            assert_true((d->entries[i]->attr != NULL) == r.plus);
            cookie = d->entries[i]->cookie;
            count++;
        }
        eof = d->eof;
        rounds++;
        rpc_result_free(&res);
    }
    assert_int_equal(count, N);
    assert_true(rounds >= N / 64);
}

static void test_open_unlinked_lives(void **state)
{
    (void)state;
    uint64_t ino = create("gone", S_IFREG | 0644); /* creating opens it */
    assert_true(sessions_is_open(md.sessions, ino));
    assert_int_equal(unlink_name("gone").result, 0);
    uint64_t other = create("other", S_IFREG | 0644);
    close_ino(other);
    assert_int_equal(unlink_name("other").result, 0);
    wait_reaped(other); /* so the reaper has looked at both */
    assert_int_equal(getattr(&me, ino), 0);
    assert_int_equal(open_ino(ino), 0);
    close_ino(ino);
    wait_reaped(ino);
    assert_true(open_ino(ino) < 0);
    assert_false(sessions_is_open(md.sessions, ino));
}

static void test_restart_keeps_open_files(void **state)
{
    (void)state;
    uint64_t ino = create("open", S_IFREG | 0644);
    uint64_t named = create("named", S_IFREG | 0644);
    assert_int_equal(unlink_name("open").result, 0);
    uint64_t session = me.session;
    service_rig_hang_up(&me);
    stop_metad();
    start_metad();
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&me, session, &ino, 1), 0);
    assert_int_equal(me.session, session);
    assert_int_equal(getattr(&me, ino), 0);
    uint64_t later = create("later", S_IFREG | 0644);
    assert_true(later > ino && later > named); /* ids are never given again */
    close_ino(ino);
    wait_reaped(ino);
}

/* The answer to a create is lost with metad, and before the client asks again somebody removes the name: what it asked for
 * was done, so that it has a file open, without a name. */
static void test_unanswered_create_is_open(void **state)
{
    Replfs__SessionReq r = REPLFS__SESSION_REQ__INIT;
    struct rpc_result res;
    uint64_t seq = 100, session = me.session;

    (void)state;
    struct outcome a = create_seq(&me, "lost", S_IFREG | 0644, seq);
    assert_int_equal(a.result, 0);
    service_rig_hang_up(&me);
    stop_metad();
    start_metad();
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    r.session = session;
    r.unanswered_creates = &seq;
    r.n_unanswered_creates = 1;
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &r);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    rpc_result_free(&res);
    me.seq = seq;
    assert_int_equal(unlink_name("lost").result, 0);
    uint64_t other = create("other", S_IFREG | 0644);
    close_ino(other);
    assert_int_equal(unlink_name("other").result, 0);
    wait_reaped(other); /* so the reaper has looked at both */
    struct outcome b = create_seq(&me, "lost", S_IFREG | 0644, seq);
    assert_int_equal(b.result, 0);
    assert_int_equal(b.ino, a.ino);
    close_ino(a.ino);
    wait_reaped(a.ino);
}

static struct outcome tmpfile_seq(uint64_t seq)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;

    c.parent = FSM_ROOT_INO;
    c.mode = S_IFREG | 0600;
    c.tmpfile = true;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    return mutate(&me, &op, seq);
}

static uint64_t tmpfile_ino(void)
{
    struct outcome o = tmpfile_seq(++me.seq);
    assert_true(o.code == 0 && o.result == 0 && o.ino != 0 && o.nlink == 0);
    return o.ino;
}

static struct outcome link_ino(uint64_t ino, const char *name)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__LinkOp l = REPLFS__LINK_OP__INIT;

    l.ino = ino;
    l.parent = FSM_ROOT_INO;
    l.name.data = (uint8_t *)(uintptr_t)name;
    l.name.len = strlen(name);
    op.op_case = REPLFS__META_OP__OP_LINK;
    op.link = &l;
    return mutate(&me, &op, ++me.seq);
}

static void test_tmpfile_lives(void **state)
{
    (void)state;
    uint64_t ino = tmpfile_ino(), named = tmpfile_ino();
    assert_true(sessions_is_open(md.sessions, ino)); /* making it opens it */
    for (unsigned k = 0; k < 200; k++) {             /* and the reaper never comes between */
        uint64_t other = tmpfile_ino();
        assert_int_equal(getattr(&me, other), 0);
        close_ino(other);
    }
    uint64_t last = tmpfile_ino();
    assert_int_equal(tmpfile_seq(me.seq).ino, last); /* a repeat */
    close_ino(last);
    wait_reaped(last);
    assert_int_equal(tmpfile_seq(me.seq).result, ESTALE); /* a very late one */
    assert_int_equal(link_ino(named, "named").result, 0);
    uint64_t held[2] = {ino, named}, session = me.session;
    service_rig_hang_up(&me);
    stop_metad();
    start_metad();
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&me, session, held, 2), 0);
    assert_int_equal(getattr(&me, ino), 0);
    close_ino(named);
    assert_int_equal(link_ino(ino, "after all").result, 0);
    close_ino(ino);
    last = tmpfile_ino();
    close_ino(last);
    wait_reaped(last); /* the reaper has looked */
    assert_int_equal(getattr(&me, named), 0);
    assert_int_equal(getattr(&me, ino), 0);
    assert_int_equal(unlink_name("after all").result, 0);
    wait_reaped(ino);
    assert_int_equal(link_ino(ino, "gone").result, ENOENT);
}

static struct outcome set_xattr(uint64_t ino, const char *name, const void *value, size_t len)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;

    x.ino = ino;
    x.name.data = (uint8_t *)(uintptr_t)name;
    x.name.len = strlen(name);
    x.value.data = (uint8_t *)(uintptr_t)value;
    x.value.len = len;
    op.op_case = REPLFS__META_OP__OP_XATTR;
    op.xattr = &x;
    return mutate(&me, &op, ++me.seq);
}

static int get_xattr(uint64_t ino, const char *name, uint8_t *value, size_t *len)
{
    Replfs__GetxattrReq r = REPLFS__GETXATTR_REQ__INIT;
    struct rpc_result res;

    r.session = me.session;
    r.ino = ino;
    r.name.data = (uint8_t *)(uintptr_t)name;
    r.name.len = strlen(name);
    RPC_ENVELOPE(env, GETXATTR_REQ, getxattr_req, &r);
    int rv = service_rig_ask(&me, &env, &res);
    if (rv == 0) {
        *len = res.rep->getxattr_reply->value.len;
        if (*len > 0)
            memcpy(value, res.rep->getxattr_reply->value.data, *len);
    }
    rpc_result_free(&res);
    return rv;
}

static int list_xattrs(uint64_t ino, uint8_t *names, size_t *len)
{
    Replfs__ListxattrReq r = REPLFS__LISTXATTR_REQ__INIT;
    struct rpc_result res;

    r.session = me.session;
    r.ino = ino;
    RPC_ENVELOPE(env, LISTXATTR_REQ, listxattr_req, &r);
    int rv = service_rig_ask(&me, &env, &res);
    if (rv == 0) {
        *len = res.rep->listxattr_reply->names.len;
        if (*len > 0)
            memcpy(names, res.rep->listxattr_reply->names.data, *len);
    }
    rpc_result_free(&res);
    return rv;
}

static void test_xattrs(void **state)
{
    static uint8_t big[FSM_XATTR_SIZE_MAX], got[FSM_XATTR_SIZE_MAX];
    size_t len;

    (void)state;
    uint64_t ino = create("file", S_IFREG | 0644);
    assert_int_equal(list_xattrs(ino, got, &len), 0);
    assert_int_equal(len, 0);
    assert_int_equal(get_xattr(ino, "user.a", got, &len), -ENODATA);
    assert_int_equal(get_xattr(ino, "other.a", got, &len), -EOPNOTSUPP);
    assert_int_equal(get_xattr(999999, "user.a", got, &len), -ENOENT);
    assert_int_equal(list_xattrs(999999, got, &len), -ENOENT);
    for (size_t k = 0; k < sizeof(big); k++)
        big[k] = (uint8_t)(k * 7 + k / 256);
    assert_int_equal(set_xattr(ino, "user.a", big, sizeof(big)).result, 0);
    assert_int_equal(set_xattr(ino, "user.b", "", 0).result, 0);
    assert_int_equal(set_xattr(ino, "user.c", "x", 1).result, ENOSPC);
    stop_metad(); /* through the log */
    start_metad();
    uint64_t session = me.session;
    service_rig_hang_up(&me);
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&me, session, NULL, 0), 0);
    assert_int_equal(get_xattr(ino, "user.a", got, &len), 0);
    assert_int_equal(len, sizeof(big));
    assert_memory_equal(got, big, sizeof(big));
    assert_int_equal(get_xattr(ino, "user.b", got, &len), 0);
    assert_int_equal(len, 0);
    assert_int_equal(list_xattrs(ino, got, &len), 0);
    assert_int_equal(len, 14);
    assert_memory_equal(got, "user.a\0user.b", 14);
}

static void test_silent_session_ends(void **state)
{
    struct service_rig_peer other = {0};
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;

    (void)state;
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&other, 0, NULL, 0), 0);
    struct outcome o = create_seq(&other, "left", S_IFREG | 0644, 1);
    assert_int_equal(o.result, 0);
    assert_int_equal(unlink_name("left").result, 0);
    bool alive = true;
    while (alive) { /* looking at the state is no sign of life; mine are keepalives */
        assert_int_equal(keepalive(&me), 0);
        assert_true(clock_mono() < until);
        fsm_rdlock(md.fsm);
        alive = fsm_session_alive(md.fsm, other.session);
        fsm_unlock(md.fsm);
        nanosleep(&(struct timespec){.tv_nsec = 10 * NSEC_PER_MSEC}, NULL);
    }
    wait_reaped(o.ino);
    assert_int_equal(keepalive(&other), -ERR_SESSION);
    assert_int_equal(service_rig_open_session(&other, other.session, NULL, 0), -ERR_SESSION);
    assert_int_equal(create_seq(&other, "late", S_IFREG | 0644, 2).code, -ERR_SESSION);
    service_rig_hang_up(&other);
}

static void test_refusals(void **state)
{
    struct rpc_result res;
    struct service_rig_peer chunkd = {0};
    Replfs__ReadReq read_req = REPLFS__READ_REQ__INIT;
    Replfs__GrantReq grant = REPLFS__GRANT_REQ__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReapOp reap = REPLFS__REAP_OP__INIT;
    uint64_t root = FSM_ROOT_INO;

    (void)state;
    RPC_ENVELOPE(env, READ_REQ, read_req, &read_req); /* a chunkd's business */
    assert_int_equal(service_rig_ask(&me, &env, &res), -ERR_PROTOCOL);
    rpc_result_free(&res);
    reap.ino = &root;
    reap.n_ino = 1;
    op.op_case = REPLFS__META_OP__OP_REAP;
    op.reap = &reap;
    assert_int_equal(mutate(&me, &op, ++me.seq).code, -EPERM);
    service_rig_dial(&chunkd, RPC_ROLE_CHUNKD);
    chunkd.session = me.session;
    assert_int_equal(getattr(&chunkd, FSM_ROOT_INO), -ERR_ROLE);
    service_rig_hang_up(&chunkd);
    grant.session = me.session;
    grant.goal = 3;
    grant.count = 2;
    RPC_ENVELOPE(genv, GRANT_REQ, grant_req, &grant);
    assert_int_equal(service_rig_ask(&me, &genv, &res),
                     -ERR_FEW_COPIES); /* there is no chunkd at all */
    assert_non_null(res.rep->failure->detail);
    rpc_result_free(&res);
    grant.goal = 99;
    assert_int_equal(service_rig_ask(&me, &genv, &res), -EINVAL);
    rpc_result_free(&res);
}

static void test_layout_and_commit(void **state)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CommitOp c = REPLFS__COMMIT_OP__INIT;
    Replfs__Extent e[3], *ep[3] = {&e[0], &e[1], &e[2]};
    Replfs__LayoutReq r = REPLFS__LAYOUT_REQ__INIT;
    struct rpc_result res;

    (void)state;
    uint64_t ino = create("data", S_IFREG | 0644);
    uint64_t chunk = ids_chunk(md.ids);
    nodes_granted(md.nodes, me.session, chunk, &(uint32_t){1}, 1);
    for (unsigned i = 0; i < 3; i++) {
        replfs__extent__init(&e[i]);
        e[i].file_off = i * 8192; /* holes between */
        e[i].len = 4096;
        e[i].chunk = chunk;
        e[i].chunk_off = i * 4096;
    }
    c.ino = ino;
    c.extents = ep;
    c.n_extents = 3;
    op.op_case = REPLFS__META_OP__OP_COMMIT;
    op.commit = &c;
    assert_int_equal(mutate(&me, &op, ++me.seq).result, 0);
    r.session = me.session;
    r.ino = ino;
    r.max_extents = 2;
    RPC_ENVELOPE(env, LAYOUT_REQ, layout_req, &r);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    const Replfs__LayoutReply *l = res.rep->layout_reply;
    assert_int_equal(l->n_extents, 2);
    assert_int_equal(l->n_chunks, 1); /* named once */
    assert_int_equal(l->chunks[0]->cap.len, CAP_LEN);
    assert_int_equal(l->chunks[0]->len, 3 * 4096);
    assert_int_equal(l->covered_to, 16384);
    assert_int_equal(l->attr->size, 16384 + 4096);
    rpc_result_free(&res);
    r.off = 16384 + 100;
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    assert_int_equal(res.rep->layout_reply->n_extents, 1);
    assert_true(res.rep->layout_reply->covered_to == UINT64_MAX);
    rpc_result_free(&res);
    Replfs__LayoutsReq many =
        REPLFS__LAYOUTS_REQ__INIT; /* a file, nothing, a directory, the file */
    uint64_t inos[65] = {ino, 999999, 1, ino};
    RPC_ENVELOPE(many_env, LAYOUTS_REQ, layouts_req, &many);
    many.session = me.session;
    many.ino = inos;
    many.n_ino = 4;
    assert_int_equal(service_rig_ask(&me, &many_env, &res), 0);
    const Replfs__LayoutsReply *files = res.rep->layouts_reply;
    assert_int_equal(files->n_files, 4);
    assert_int_equal(files->files[0]->n_extents, 3);
    assert_null(files->files[1]->attr);
    assert_null(files->files[2]->attr);
    assert_int_equal(files->files[3]->attr->size, 16384 + 4096);
    rpc_result_free(&res);
    many.n_ino = 65;
    assert_int_equal(service_rig_ask(&me, &many_env, &res), -EINVAL);
    rpc_result_free(&res);
}

static int commit_new(struct service_rig_peer *p, uint64_t ino, uint64_t chunk, const uint8_t *cap)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CommitOp c = REPLFS__COMMIT_OP__INIT;
    Replfs__Extent e = REPLFS__EXTENT__INIT, *ep = &e;
    Replfs__ChunkCopies cc = REPLFS__CHUNK_COPIES__INIT, *ccp = &cc;

    e.len = 4096;
    e.chunk = cc.chunk = chunk;
    cc.cap = (ProtobufCBinaryData){cap != NULL ? CAP_LEN : 0, (uint8_t *)(uintptr_t)cap};
    c.ino = ino;
    c.extents = &ep;
    c.n_extents = 1;
    c.copies = &ccp;
    c.n_copies = 1;
    c.checked = c.n_own = 1; /* a client may say so: it does not count */
    c.own = &chunk;
    op.op_case = REPLFS__META_OP__OP_COMMIT;
    op.commit = &c;
    return mutate(p, &op, ++p->seq).result;
}

/* A chunk is granted to one session: another one that names it before gets nothing, and takes nothing
 * from the first one, also when metad has forgotten whom it granted what. */
static void test_grants_are_their_sessions(void **state)
{
    struct service_rig_peer other = {0};
    uint8_t mine[CAP_LEN], reads[CAP_LEN];

    (void)state;
    uint64_t a = create("a", S_IFREG | 0644), b = create("b", S_IFREG | 0644);
    uint64_t chunk = ids_chunk(md.ids), later = ids_chunk(md.ids);
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&other, 0, NULL, 0), 0);
    nodes_granted(md.nodes, me.session, chunk, &(uint32_t){1}, 1);
    nodes_cap(md.nodes, chunk, me.session, me.session, CAP_READ | CAP_APPEND, mine);
    assert_int_equal(commit_new(&other, b, chunk, NULL), EPERM);
    assert_int_equal(commit_new(&other, b, chunk, mine), EPERM);
    assert_int_equal(commit_new(&me, a, chunk, mine), 0);
    nodes_cap(md.nodes, later, me.session, me.session, CAP_READ | CAP_APPEND, mine);
    nodes_cap(md.nodes, later, other.session, me.session, CAP_READ, reads);
    service_rig_hang_up(&me);
    service_rig_hang_up(&other);
    stop_metad();
    start_metad();
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&me, me.session, NULL, 0), 0);
    assert_int_equal(service_rig_open_session(&other, other.session, NULL, 0), 0);
    assert_int_equal(commit_new(&other, b, later, mine), EPERM);
    assert_int_equal(commit_new(&other, b, later, reads), EPERM);
    assert_int_equal(commit_new(&me, a, later, mine), 0);
    service_rig_hang_up(&other);
}

/* What a client learns of a quota: its path, what is about to be freed, and statfs cut down to it. */
static void test_quota(void **state)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__QuotaOp q = REPLFS__QUOTA_OP__INIT;
    Replfs__QuotaListReq l = REPLFS__QUOTA_LIST_REQ__INIT;
    Replfs__StatfsReq sf = REPLFS__STATFS_REQ__INIT;
    struct rpc_result res;

    (void)state;
    sf.ino = l.ino = q.ino = create("dir", S_IFDIR | 0755);
    q.max_inodes = 7;
    op.op_case = REPLFS__META_OP__OP_QUOTA;
    op.quota = &q;
    assert_int_equal(mutate(&me, &op, ++me.seq).result, 0);
    RPC_ENVELOPE(env, QUOTA_LIST_REQ, quota_list_req, &l);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    const Replfs__QuotaListReply *rep = res.rep->quota_list_reply;
    assert_true(rep->n_quotas == 1 && rep->quotas[0]->n_path == 1 && rep->freeing == 0);
    assert_memory_equal(rep->quotas[0]->path[0].data, "dir", 3);
    rpc_result_free(&res);
    RPC_ENVELOPE(stat_env, STATFS_REQ, statfs_req, &sf);
    assert_int_equal(service_rig_ask(&me, &stat_env, &res), 0);
    assert_int_equal(res.rep->statfs_reply->files, 1);
    assert_int_equal(res.rep->statfs_reply->files_free, 6);
    rpc_result_free(&res);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_namespace, service_rig_setup, service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_retry_is_done_once, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_many_in_one_request, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_readdir_pages, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_open_unlinked_lives, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_restart_keeps_open_files, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_unanswered_create_is_open, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_tmpfile_lives, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_xattrs, service_rig_setup, service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_quota, service_rig_setup, service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_silent_session_ends, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, service_rig_setup, service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_layout_and_commit, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_grants_are_their_sessions, service_rig_setup,
                                        service_rig_teardown),
    };
    signal(SIGPIPE, SIG_IGN);
    log_init("test_service", LOG_LVL_ERROR, getenv("TEST_LOG") != NULL ? NULL : "/dev/null");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
