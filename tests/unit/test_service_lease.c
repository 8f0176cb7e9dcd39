/* Exclusive leases as clients meet them: what is given when, who waits for whom, who has to give
 * back, and what a client that comes back still has. */
#define LEASE_MS 8000u
#define TERM_MS 4000u
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "metad/coherence/leases.h"

/* ---- clients ---- */

/* A session that metad may ask to give leases back. */
static struct client {
    struct service_rig_peer p;
    pthread_mutex_t mu;
    bool keeps; /* recalls stay unanswered: in `asked` */
    struct rpc_req *asked[8];
    unsigned nasked, recalls;
    uint64_t ino; /* of the last recall */
    uint32_t keep;
} a, b, c;

static void answer(struct rpc_req *req, uint32_t kept)
{
    Replfs__RecallReply rep = REPLFS__RECALL_REPLY__INIT;

    rep.kept = kept;
    RPC_ENVELOPE(env, RECALL_REPLY, recall_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void on_recall(void *arg, struct rpc_req *req)
{
    struct client *k = arg;
    uint32_t keep = req->env->recall_req->keep;

    pthread_mutex_lock(&k->mu);
    k->recalls++;
    k->ino = req->env->recall_req->ino;
    k->keep = keep;
    bool now = !k->keeps || k->nasked == sizeof(k->asked) / sizeof(k->asked[0]);
    if (!now)
        k->asked[k->nasked++] = req;
    pthread_mutex_unlock(&k->mu);
    if (now)
        answer(req, keep);
}

static void connect_to_metad(struct client *k)
{
    struct rpc_service svc = {.request = on_recall, .arg = k};

    service_rig_dial_serving(&k->p, RPC_ROLE_CLIENT, &svc);
}

static void client_start(struct client *k)
{
    *k = (struct client){.mu = PTHREAD_MUTEX_INITIALIZER};
    connect_to_metad(k);
    assert_int_equal(service_rig_open_session(&k->p, 0, NULL, 0), 0);
}

static int clients_setup(void **state)
{
    int rv = service_rig_setup(state);

    if (rv == 0) {
        client_start(&a);
        client_start(&b);
        client_start(&c);
    }
    return rv;
}

static int clients_teardown(void **state)
{
    service_rig_hang_up(&a.p);
    service_rig_hang_up(&b.p);
    service_rig_hang_up(&c.p);
    return service_rig_teardown(state);
}

static unsigned recalls_of(struct client *k)
{
    pthread_mutex_lock(&k->mu);
    unsigned n = k->recalls;
    pthread_mutex_unlock(&k->mu);
    return n;
}

/* The last thing that metad asked of it. */
static bool was_asked(struct client *k, uint64_t ino, uint32_t keep)
{
    pthread_mutex_lock(&k->mu);
    bool yes = k->ino == ino && k->keep == keep;
    pthread_mutex_unlock(&k->mu);
    return yes;
}

/* ---- requests ---- */

/* seq 0: the next; that of the first. */
static void send_ops(struct client *k, struct service_rig_call *call, Replfs__MetaOp *ops, size_t n,
                     uint64_t seq, enum lease_mode want)
{
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m[3], *mp[3];

    assert_true(n <= 3);
    for (size_t i = 0; i < n; i++) {
        replfs__mutation__init(&m[i]);
        m[i].seq = seq != 0 ? seq + i : ++k->p.seq;
        m[i].op = &ops[i];
        mp[i] = &m[i];
    }
    r.session = k->p.session;
    r.ops = mp;
    r.n_ops = n;
    r.lease = want != LEASE_NONE;
    r.exclusive = want == LEASE_EXCLUSIVE;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    send_to(&k->p, call, &env, PATIENCE_MS);
}

/* name NULL: a file without one. */
static struct service_rig_call make_as(struct client *k, const char *name, uint32_t mode,
                                       bool exclusive, uint64_t seq)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp o = REPLFS__CREATE_OP__INIT;
    struct service_rig_call call;

    o.parent = FSM_ROOT_INO;
    o.name.data = (uint8_t *)(uintptr_t)name;
    o.name.len = name != NULL ? strlen(name) : 0;
    o.mode = mode;
    o.tmpfile = name == NULL;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &o;
    send_ops(k, &call, &op, 1, seq, exclusive ? LEASE_EXCLUSIVE : LEASE_SHARED);
    assert_int_equal(finish(&call), 0);
    return call;
}

static uint64_t make(struct client *k, const char *name)
{
    struct service_rig_call call = make_as(k, name, S_IFREG | 0644, true, 0);

    assert_int_equal(call.lease, LEASE_EXCLUSIVE);
    return call.ino;
}

static Replfs__MetaOp chmod_op(Replfs__SetattrOp *o, uint64_t ino, uint32_t mode)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    replfs__setattr_op__init(o);
    o->ino = ino;
    o->valid = REPLFS__SETATTR_OP__VALID__MODE;
    o->mode = mode;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = o;
    return op;
}

static void send_chmod(struct client *k, struct service_rig_call *call, uint64_t ino, uint32_t mode)
{
    Replfs__SetattrOp o;
    Replfs__MetaOp op = chmod_op(&o, ino, mode);

    send_ops(k, call, &op, 1, 0, LEASE_SHARED);
}

static void send_getattr(struct client *k, struct service_rig_call *call, uint64_t ino)
{
    Replfs__GetattrReq r = REPLFS__GETATTR_REQ__INIT;

    r.session = k->p.session;
    r.ino = ino;
    r.lease = true;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &r);
    send_to(&k->p, call, &env, PATIENCE_MS);
}

/* The lease that came, or a negative code. */
static int getattr(struct client *k, uint64_t ino)
{
    struct service_rig_call call;

    send_getattr(k, &call, ino);
    return finish(&call) != 0 ? call.code : (int)call.lease;
}

static int chmod_as(struct client *k, uint64_t ino, uint32_t mode)
{
    struct service_rig_call call;

    send_chmod(k, &call, ino, mode);
    return finish(&call) != 0 ? call.code : (int)call.lease;
}

static void send_open(struct client *k, struct service_rig_call *call, uint64_t ino, bool exclusive)
{
    Replfs__OpenReq r = REPLFS__OPEN_REQ__INIT;

    r.session = k->p.session;
    r.ino = ino;
    r.write = true;
    r.exclusive = exclusive;
    RPC_ENVELOPE(env, OPEN_REQ, open_req, &r);
    send_to(&k->p, call, &env, PATIENCE_MS);
}

static int open_as(struct client *k, uint64_t ino, bool exclusive)
{
    struct service_rig_call call;

    send_open(k, &call, ino, exclusive);
    return finish(&call) != 0 ? call.code : (int)call.lease;
}

static void close_as(struct client *k, uint64_t ino)
{
    Replfs__CloseReq r = REPLFS__CLOSE_REQ__INIT;
    struct service_rig_call call;

    r.session = k->p.session;
    r.ino = &ino;
    r.n_ino = 1;
    RPC_ENVELOPE(env, CLOSE_REQ, close_req, &r);
    send_to(&k->p, &call, &env, PATIENCE_MS);
    assert_int_equal(finish(&call), 0);
}

static void send_lease(struct client *k, struct service_rig_call *call, uint64_t ino)
{
    Replfs__LeaseReq r = REPLFS__LEASE_REQ__INIT;

    r.session = k->p.session;
    r.ino = ino;
    RPC_ENVELOPE(env, LEASE_REQ, lease_req, &r);
    send_to(&k->p, call, &env, PATIENCE_MS);
}

static int lease(struct client *k, uint64_t ino)
{
    struct service_rig_call call;

    send_lease(k, &call, ino);
    return finish(&call) != 0 ? call.code : (int)call.lease;
}

/* The recall to the client that is being kept; NULL when its time runs out. */
static struct rpc_req *recall_of(struct client *k)
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    struct rpc_req *req = NULL;

    while (req == NULL && clock_mono() < until) {
        pthread_mutex_lock(&k->mu);
        if (k->nasked > 0)
            req = k->asked[--k->nasked];
        pthread_mutex_unlock(&k->mu);
        if (req == NULL)
            usleep(2000);
    }
    assert_non_null(req);
    return req;
}

/* To metad it is as if nothing had come. */
static void refuse(struct rpc_req *recall)
{
    rpc_fail(recall, ERR_PEER_GONE, "not answered");
}

static void keep_recalls(struct client *k, bool on)
{
    pthread_mutex_lock(&k->mu);
    k->keeps = on;
    pthread_mutex_unlock(&k->mu);
}

/* ---- what is given ---- */

static void test_created(void **state)
{
    (void)state;
    assert_int_equal(make_as(&a, "plain", S_IFREG | 0644, false, 0).lease, LEASE_SHARED);
    assert_int_equal(make_as(&a, "dir", S_IFDIR | 0755, true, 0).lease, LEASE_EXCLUSIVE);
    assert_int_equal(make_as(&a, "pipe", S_IFIFO | 0644, true, 0).lease, LEASE_EXCLUSIVE);
    uint64_t ino = make(&a, "file"), nameless = make(&a, NULL);
    assert_int_equal(getattr(&a, ino), LEASE_EXCLUSIVE); /* what is held already counts */
    assert_int_equal(chmod_as(&a, ino, 0600), LEASE_EXCLUSIVE);
    assert_int_equal(getattr(&b, ino), LEASE_SHARED);
    assert_int_equal(recalls_of(&a), 1);
    assert_true(was_asked(&a, ino, LEASE_SHARED));
    assert_int_equal(getattr(&a, ino), LEASE_SHARED);
    assert_int_equal(chmod_as(&b, nameless, 0600), LEASE_SHARED);
    assert_true(was_asked(&a, nameless, LEASE_NONE));
}

/* The answer to a creation got lost; another client was quicker than the repetition. */
static void test_created_again(void **state)
{
    (void)state;
    uint64_t ino = make_as(&a, "file", S_IFREG | 0644, true, 77).ino;
    struct service_rig_call again = make_as(&a, "file", S_IFREG | 0644, true, 77);
    assert_true(again.ino == ino && again.lease == LEASE_EXCLUSIVE);
    assert_int_equal(chmod_as(&b, ino, 0600), LEASE_SHARED);
    again = make_as(&a, "file", S_IFREG | 0644, true, 77);
    assert_true(again.ino == ino && again.lease == LEASE_SHARED);
}

static void test_opened(void **state)
{
    (void)state;
    uint64_t ino = make_as(&a, "file", S_IFREG | 0644, false, 0).ino;
    close_as(&a, ino);
    assert_int_equal(getattr(&b, ino), LEASE_SHARED);
    assert_int_equal(open_as(&c, ino, false), LEASE_NONE); /* not asked for */
    close_as(&c, ino);
    assert_int_equal(open_as(&b, ino, true), LEASE_EXCLUSIVE);
    assert_true(recalls_of(&a) == 1 && recalls_of(&b) == 0);
    assert_true(was_asked(&a, ino, LEASE_NONE));
    assert_int_equal(getattr(&b, ino), LEASE_EXCLUSIVE);
    /* while both have it open they do not take it from each other by opening */
    assert_int_equal(open_as(&a, ino, true), LEASE_SHARED);
    assert_true(was_asked(&b, ino, LEASE_SHARED));
    assert_int_equal(open_as(&b, ino, true), LEASE_SHARED);
    assert_int_equal(recalls_of(&a), 1);
    /* only by asking */
    assert_int_equal(lease(&b, ino), LEASE_EXCLUSIVE);
    assert_int_equal(recalls_of(&a), 2);
    assert_int_equal(lease(&b, ino), LEASE_EXCLUSIVE);
    assert_int_equal(lease(&a, ino), LEASE_EXCLUSIVE);
    assert_true(was_asked(&b, ino, LEASE_NONE));
    close_as(&b, ino);
    close_as(&a, ino);
    assert_int_equal(open_as(&c, ino, true), LEASE_EXCLUSIVE);
    /* not directories, and not what is not there */
    assert_int_equal(lease(&a, FSM_ROOT_INO), LEASE_SHARED);
    assert_int_equal(open_as(&a, FSM_ROOT_INO, true), LEASE_SHARED);
    assert_int_equal(lease(&a, 999999), -ENOENT);
    assert_int_equal(open_as(&a, 999999, true), -ENOENT);
    a.p.session += 2;
    assert_int_equal(lease(&a, ino), -ERR_SESSION);
    a.p.session -= 2;
}

/* Two ask at once: the holder's flush passes both, then one gets it and the other takes it from
 * that one. */
static void test_asked_at_once(void **state)
{
    static struct service_rig_call one, two, look;

    (void)state;
    uint64_t ino = make(&a, "file");
    keep_recalls(&a, true);
    send_lease(&b, &one, ino);
    struct rpc_req *recall = recall_of(&a);
    send_lease(&c, &two, ino);
    send_getattr(&c, &look, ino);
    assert_int_equal(chmod_as(&a, ino, 0640), LEASE_NONE); /* is about to go */
    assert_int_equal(recalls_of(&a), 1);
    keep_recalls(&a, false);
    answer(recall, LEASE_NONE);
    assert_int_equal(finish(&one), 0);
    assert_int_equal(finish(&two), 0);
    assert_int_equal(finish(&look), 0);
    assert_true(one.lease != LEASE_EXCLUSIVE || two.lease != LEASE_EXCLUSIVE ||
                recalls_of(&b) + recalls_of(&c) > 0);
    assert_int_equal(lease(&b, ino), LEASE_EXCLUSIVE);
    assert_int_equal(lease(&c, ino), LEASE_EXCLUSIVE);
}

/* What others read waits for who has the file to itself. */
static void test_readers_wait(void **state)
{
    struct service_rig_call call;

    (void)state;
    uint64_t ino = make(&a, "file");
    for (unsigned kind = 0; kind < 5; kind++) {
        keep_recalls(&a, true);
        assert_int_equal(lease(&a, ino), LEASE_EXCLUSIVE);
        Replfs__LayoutReq layout = REPLFS__LAYOUT_REQ__INIT;
        Replfs__ListxattrReq list = REPLFS__LISTXATTR_REQ__INIT;
        Replfs__LockReq lock = REPLFS__LOCK_REQ__INIT;
        Replfs__Lock what = REPLFS__LOCK__INIT;
        layout.session = list.session = lock.session = b.p.session;
        layout.ino = list.ino = what.ino = ino;
        what.end = 9;
        lock.lock = &what;
        RPC_ENVELOPE(layout_env, LAYOUT_REQ, layout_req, &layout);
        RPC_ENVELOPE(list_env, LISTXATTR_REQ, listxattr_req, &list);
        RPC_ENVELOPE(lock_env, LOCK_REQ, lock_req, &lock);
        if (kind == 0)
            send_getattr(&b, &call, ino);
        else if (kind == 1)
            send_open(&b, &call, ino, false);
        else
            send_to(&b.p, &call,
                    kind == 2   ? &layout_env
                    : kind == 3 ? &list_env
                                : &lock_env,
                    PATIENCE_MS);
        struct rpc_req *recall = recall_of(&a);
        assert_false(is_done(&call));
        keep_recalls(&a, false);
        answer(recall, LEASE_SHARED);
        assert_int_equal(finish(&call), 0);
    }
}

/* Two change one name at one moment: what the second finds there by its turn is the first one's file, on which the
 * first one has a lease by then. */
static void test_name_means_another(void **state)
{
    struct service_rig_call renaming, removing;
    Replfs__MetaOp rename = REPLFS__META_OP__INIT, unlink = REPLFS__META_OP__INIT;
    Replfs__RenameOp r = REPLFS__RENAME_OP__INIT;
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;

    (void)state;
    make(&c, "one");
    uint64_t two = make(&c, "two");
    r.parent = r.new_parent = u.parent = FSM_ROOT_INO;
    r.name = (ProtobufCBinaryData){3, (uint8_t *)(uintptr_t) "two"};
    r.new_name = u.name = (ProtobufCBinaryData){3, (uint8_t *)(uintptr_t) "one"};
    rename.op_case = REPLFS__META_OP__OP_RENAME;
    rename.rename = &r;
    unlink.op_case = REPLFS__META_OP__OP_UNLINK;
    unlink.unlink = &u;
    assert_int_equal(getattr(&b, FSM_ROOT_INO), LEASE_SHARED);
    keep_recalls(&b, true);
    send_ops(&a, &renaming, &rename, 1, 0, LEASE_SHARED);
    struct rpc_req *recall = recall_of(&b);
    send_ops(&c, &removing, &unlink, 1, 0, LEASE_SHARED);
    assert_int_equal(getattr(&a, two), LEASE_SHARED); /* by now both wait */
    answer(recall, LEASE_NONE);
    assert_int_equal(finish(&renaming), 0);
    assert_int_equal(renaming.lease, LEASE_SHARED);
    assert_int_equal(finish(&removing), 0);
    assert_int_equal(removing.ino, two);
    assert_true(was_asked(&a, two, LEASE_NONE));
}

/* Comes back over a new connection and claims these. Returns how many it has, which are the first
 * of them then; or a negative code. */
static int resume(struct client *k, uint64_t *claims, size_t n)
{
    Replfs__SessionReq r = REPLFS__SESSION_REQ__INIT;
    struct rpc_result res;

    service_rig_hang_up(&k->p);
    connect_to_metad(k);
    r.session = k->p.session;
    r.exclusive = claims;
    r.n_exclusive = n;
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &r);
    int rv = service_rig_ask(&k->p, &env, &res);
    if (rv == 0) {
        rv = (int)res.rep->session_reply->n_exclusive;
        for (int i = 0; i < rv; i++)
            claims[i] = res.rep->session_reply->exclusive[i];
    }
    rpc_result_free(&res);
    return rv;
}

static void test_comes_back(void **state)
{
    static struct service_rig_call take, look;
    uint64_t x = make_as(&a, "x", S_IFREG | 0644, true, 0).ino;

    (void)state;
    uint64_t y = make(&a, "y"), z = make(&a, "z"), claims[] = {z, x, 999999, FSM_ROOT_INO};
    keep_recalls(&a, true);
    send_lease(&b, &take, x);
    refuse(recall_of(&a)); /* is never answered: the connection breaks */
    send_getattr(&c, &look, y);
    refuse(recall_of(&a));
    unsigned before = recalls_of(&a);
    assert_int_equal(resume(&a, claims, 4), 3);
    assert_true((claims[0] == x && claims[1] == z) || (claims[0] == z && claims[1] == x));
    assert_int_equal(claims[2],
                     999999); /* it may have made it and not said so yet: nobody else can know it */
    assert_int_equal(finish(&look), 0); /* nobody claimed it */
    assert_false(is_done(&take));
    /* on the new connection, and only for what is waited for */
    struct rpc_req *again = recall_of(&a);
    assert_true(was_asked(&a, x, LEASE_NONE));
    assert_int_equal(recalls_of(&a), before + 1);
    keep_recalls(&a, false);
    answer(again, LEASE_NONE);
    assert_int_equal(finish(&take), 0);
    assert_int_equal(take.lease, LEASE_EXCLUSIVE);
    assert_int_equal(getattr(&a, z), LEASE_EXCLUSIVE);
    /* nothing is given anew: another was there meanwhile */
    claims[0] = x;
    claims[1] = z;
    assert_int_equal(resume(&a, claims, 2), 1);
    assert_int_equal(claims[0], z);
    assert_int_equal(resume(&a, claims, 0), 0);
    assert_int_equal(getattr(&b, z), LEASE_SHARED);
}

static void test_too_many_claims(void **state)
{
    enum { N = 65537 };
    static uint64_t claims[N];

    (void)state;
    for (unsigned i = 0; i < N; i++)
        claims[i] = 2 + i;
    assert_int_equal(resume(&a, claims, N), -ERR_PROTOCOL);
    assert_int_equal(resume(&a, claims, N - 1), N - 1); /* none of them is there */
}

/* ---- waiting ---- */

static int keepalive(struct client *k)
{
    Replfs__KeepaliveReq r = REPLFS__KEEPALIVE_REQ__INIT;
    struct service_rig_call call;

    r.session = k->p.session;
    RPC_ENVELOPE(env, KEEPALIVE_REQ, keepalive_req, &r);
    send_to(&k->p, &call, &env, PATIENCE_MS);
    return finish(&call);
}

static uint32_t mode_of(uint64_t ino)
{
    Replfs__Attr attr = REPLFS__ATTR__INIT;

    fsm_rdlock(md.fsm);
    assert_int_equal(fsm_getattr(md.fsm, ino, &attr), 0);
    fsm_unlock(md.fsm);
    return attr.mode & 07777;
}

/* One request that sets the modes of three inodes, in this order, to 0700, 0701 and 0702. */
static void send_three(struct client *k, struct service_rig_call *call, const uint64_t ino[3])
{
    Replfs__MetaOp op[3];
    Replfs__SetattrOp o[3];

    for (unsigned i = 0; i < 3; i++)
        op[i] = chmod_op(&o[i], ino[i], 0700 + i);
    send_ops(k, call, op, 3, 0, LEASE_NONE);
}

/* Who waits too long is told to come again, as long as nothing of its request has been done. */
static void test_patience(void **state)
{
    static struct service_rig_call look, change, none, some; /* failing must not hang */

    (void)state;
    uint64_t x = make(&a, "x"), y = make(&b, "y");
    unsigned before = recalls_of(&a); /* of the directory */
    keep_recalls(&a, true);
    send_getattr(&c, &look, x);
    struct rpc_req *first = recall_of(&a);
    send_chmod(&c, &change, x, 0600);
    struct rpc_req *second = recall_of(&a); /* a writer wants more than a reader */
    send_three(&b, &none, (uint64_t[3]){x, y, y});
    send_three(&b, &some, (uint64_t[3]){y, x, y});
    while (!is_done(&look) || !is_done(&change) || !is_done(&none)) {
        assert_int_equal(keepalive(&a), 0); /* slow, not silent */
        usleep(5000);
    }
    assert_true(look.code == -ERR_BUSY && change.code == -ERR_BUSY && none.code == -ERR_BUSY);
    assert_true(!is_done(&some) && mode_of(y) == 0700 && mode_of(x) == 0644);
    assert_int_equal(recalls_of(&a), before + 2);
    keep_recalls(&a, false);
    answer(first, LEASE_SHARED);
    answer(second, LEASE_NONE);
    assert_int_equal(finish(&some), 0);
    assert_true(mode_of(x) == 0701 && mode_of(y) == 0702);
}

/* A change that waits when metad stops is not done. */
static void test_stop(void **state)
{
    static struct service_rig_call change, some;

    (void)state;
    uint64_t x = make(&a, "x"), y = make(&b, "y");
    keep_recalls(&a, true);
    send_chmod(&c, &change, x, 0600);
    refuse(recall_of(&a));
    send_three(&b, &some, (uint64_t[3]){y, x, y});
    WAIT_UNTIL(mode_of(y) == 0700);
    stop_metad();
    assert_int_not_equal(finish(&change), 0);
    assert_int_not_equal(finish(&some), 0);
    start_metad();
    assert_true(mode_of(x) == 0644 && mode_of(y) == 0700);
}

/* ---- a new start ---- */

static void restart(void)
{
    stop_metad();
    start_metad();
}

static int goodbye(struct client *k)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__SessionCloseOp o = REPLFS__SESSION_CLOSE_OP__INIT;
    struct service_rig_call call;

    o.session = &k->p.session;
    o.n_session = 1;
    op.op_case = REPLFS__META_OP__OP_SESSION_CLOSE;
    op.session_close = &o;
    send_ops(k, &call, &op, 1, 0, LEASE_SHARED);
    return finish(&call);
}

/* Until metad serves requests that touch inodes. */
static int getattr_soon(struct client *k, uint64_t ino)
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    int rv;

    while ((rv = getattr(k, ino)) == -ERR_BUSY && clock_mono() < until)
        usleep(5000);
    return rv;
}

static void test_restart(void **state)
{
    (void)state;
    uint64_t x = make(&a, "x"), y = make(&a, "y"), claims[] = {x, y};
    uint64_t mine = me.session;
    service_rig_hang_up(&me);
    restart();
    assert_int_equal(resume(&a, claims, 2), 2);
    /* not even for those who are back: what others keep back is not known */
    assert_int_equal(getattr(&a, x), -ERR_BUSY);
    assert_int_equal(chmod_as(&a, x, 0600), -ERR_BUSY);
    assert_int_equal(open_as(&a, x, true), -ERR_BUSY);
    assert_int_equal(lease(&a, x), -ERR_BUSY);
    assert_int_equal(keepalive(&a), 0);
    close_as(&a, y);
    claims[0] = y;
    assert_int_equal(resume(&b, claims, 1), 0); /* somebody else's */
    assert_int_equal(goodbye(&b), 0);
    assert_int_equal(resume(&c, claims, 0), 0);
    assert_int_equal(getattr(&c, x), -ERR_BUSY);
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&me, mine, NULL, 0), 0); /* the last one */
    assert_int_equal(getattr(&a, x), LEASE_EXCLUSIVE);
    assert_int_equal(getattr(&c, x), LEASE_SHARED);
    assert_true(was_asked(&a, x, LEASE_SHARED));
    claims[0] = x;
    assert_int_equal(resume(&c, claims, 1), 0);
}

static void test_restart_without_all(void **state)
{
    (void)state;
    uint64_t x = make(&a, "x"), y = make(&b, "y");
    restart();
    assert_int_equal(resume(&c, NULL, 0), 0);
    assert_int_equal(resume(&a, &x, 1), 1);
    assert_int_equal(getattr(&c, y), -ERR_BUSY);
    assert_int_equal(getattr_soon(&c, y), LEASE_SHARED);
    assert_int_equal(getattr(&a, x), LEASE_EXCLUSIVE);
    assert_int_equal(resume(&b, &y, 1), 0); /* too late */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, clients_setup, clients_teardown)
    const struct CMUnitTest tests[] = {
        T(test_created),       T(test_created_again),   T(test_opened),
        T(test_asked_at_once), T(test_readers_wait),    T(test_name_means_another),
        T(test_comes_back),    T(test_too_many_claims), T(test_patience),
        T(test_stop),          T(test_restart),         T(test_restart_without_all),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
