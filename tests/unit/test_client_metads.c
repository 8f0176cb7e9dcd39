/* A client and several metads: it finds the one that leads, follows when that changes or stops without a word, loses
 * nothing and does nothing twice, and its chunks go on meanwhile. The metads are doors to one real metad (client_rig.h),
 * which has the replicated state: of three, one leads at a time. */
#include "client_internals.h"
#include "client_rig.h"
#include "fuse/client/session/metads.h"

#define DOORS 3u
#define SILENT_MS 2000u
#define NOBODY DOORS

struct door {
    struct rpc_loop *loop;
    struct rpc_service svc;
    int port, port2;
    char addr[32], addr2[32];
    bool swallow; /* its loop lives, its service does not answer */
    struct rpc_req *swallowed[256];
    size_t nswallowed;
    bool stopped, going; /* its loop thread is stopped, as a whole process would be by SIGSTOP */
    unsigned sessions;   /* times it was asked to go on with one, */
    unsigned probes;     /* or whether it leads */
};
static struct door door[DOORS];
static unsigned leader; /* a door, or NOBODY */
static bool hints;      /* those that follow say who leads */
static pthread_cond_t go = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t go_mu = PTHREAD_MUTEX_INITIALIZER;
static uint8_t data[1u << 20];

/* ---- doors ---- */

static void on_request(void *arg, struct rpc_req *req)
{
    struct door *d = arg;
    Replfs__Failure f = REPLFS__FAILURE__INIT;
    client_rig_lock();
    unsigned leads = leader;
    bool swallow = d->swallow && d->nswallowed < 256;
    d->probes += req->env->body_case == REPLFS__ENVELOPE__BODY_NODES_REQ;
    d->sessions += req->env->body_case == REPLFS__ENVELOPE__BODY_SESSION_REQ;
    if (swallow)
        d->swallowed[d->nswallowed++] = req;
    client_rig_unlock();
    f.code = ERR_NOT_LEADER;
    f.detail = (char *)"no majority";
    f.leader = (char *)(hints && leads != NOBODY ? door[leads].addr : "");
    if (swallow)
        return;
    if (leads != NOBODY && d == &door[leads])
        client_rig_metad(NULL, req);
    else
        rpc_fail_with(req, &f);
}

static void door_open(struct door *d)
{
    struct rpc_config rc = {.role = RPC_ROLE_METAD, .name = "door", .threads = 1};
    d->svc = (struct rpc_service){.request = on_request,
                                  .opened = client_rig_opened,
                                  .closed = client_rig_closed,
                                  .arg = d,
                                  .cluster = mlog_uuid(md.mlog)};
    assert_int_equal(rpc_loop_new(&rc, &d->loop), 0);
    assert_int_equal(rpc_listen(d->loop, "127.0.0.1:0", &d->svc, &d->port), 0);
    assert_int_equal(rpc_listen(d->loop, "127.0.0.1:0", &d->svc, &d->port2), 0);
    snprintf(d->addr, sizeof d->addr, "127.0.0.1:%d", d->port);
    snprintf(d->addr2, sizeof d->addr2, "127.0.0.1:%d", d->port2);
}

static void stand_still(void *arg)
{
    struct door *d = arg;
    pthread_mutex_lock(&go_mu);
    d->going = false;
    while (d->stopped)
        pthread_cond_wait(&go, &go_mu);
    d->going = true;
    pthread_mutex_unlock(&go_mu);
}

/* As SIGSTOP would: connections stay, nothing is answered, new ones are taken by the kernel. */
static void door_stop(struct door *d)
{
    d->stopped = true;
    rpc_loop_defer(d->loop, 0, stand_still, d);
    WAIT_LOCKED(&go_mu, !d->going);
}

static void door_go_on(struct door *d)
{
    pthread_mutex_lock(&go_mu);
    d->stopped = false;
    pthread_cond_broadcast(&go);
    pthread_mutex_unlock(&go_mu);
}

static void door_close(struct door *d)
{
    door_go_on(d);
    for (size_t i = 0; i < d->nswallowed; i++)
        rpc_fail(d->swallowed[i], ERR_SHUTDOWN, "the end");
    d->nswallowed = 0;
    rpc_loop_free(d->loop);
    d->loop = NULL;
}

static void lead(unsigned i)
{
    client_rig_lock();
    leader = i;
    client_rig_unlock();
}

static unsigned sessions_asked(void)
{
    client_rig_lock();
    unsigned n = door[0].sessions + door[1].sessions + door[2].sessions;
    client_rig_unlock();
    return n;
}

static int64_t ms_since(int64_t t0)
{
    return (clock_mono() - t0) / NSEC_PER_MSEC;
}

/* ---- the client ---- */

static int client_up(char **metads, size_t n)
{
    struct client_config cfg = {
        .metads = metads,
        .nmetads = n,
        .name = "test",
        .timeout_ms = CLIENT_RIG_PATIENT_MS,
        .flush_ms = 200,
        .host_id = "here",
        .rpc = {.role = RPC_ROLE_CLIENT, .name = "test", .threads = 1, .silent_ms = SILENT_MS},
    };
    return client_open(&cfg, &client_rig.cl);
}

static void all_up(void)
{
    char *metads[DOORS] = {door[0].addr, door[1].addr, door[2].addr};
    assert_int_equal(client_up(metads, DOORS), 0);
}

static uint64_t make_dir(const char *name)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    c.parent = FSM_ROOT_INO;
    c.name = bytes_of(name);
    c.mode = S_IFDIR | 0755;
    assert_int_equal(client_mutate(client_rig.cl, &op, &a, NULL), 0);
    return a.ino;
}

static void put(struct cfile *f, size_t len, off_t at)
{
    assert_int_equal(cfile_write(f, data, len, &at, 0), 0);
}

/* In the background: a name is made while the metads do what the test says. */
struct making {
    pthread_t thread;
    const char *name;
    uint64_t ino;
    int64_t ms;
    bool done;
};

static void *make_main(void *arg)
{
    struct making *m = arg;
    int64_t t0 = clock_mono();
    uint64_t ino = make_dir(m->name);
    client_rig_lock();
    m->ino = ino;
    m->ms = ms_since(t0);
    m->done = true;
    client_rig_unlock();
    return NULL;
}

static void make_begin(struct making *m, const char *name)
{
    *m = (struct making){.name = name};
    assert_int_equal(pthread_create(&m->thread, NULL, make_main, m), 0);
}

static void make_end(struct making *m)
{
    pthread_join(m->thread, NULL);
    assert_int_equal(client_rig_lookup(FSM_ROOT_INO, m->name), m->ino);
}

/* ---- finding the leader ---- */

static void test_finds_it(void **st)
{
    char *first[] = {door[0].addr};
    (void)st;
    leader = 2;
    hints = true;
    int64_t t0 = clock_mono();
    assert_int_equal(client_up(first, 1), 0); /* one is named, it knows the leader */
    print_message("found by a hint in %d ms\n", (int)ms_since(t0));
    make_dir("a");
    client_close(client_rig.cl);
    hints = false;
    t0 = clock_mono();
    all_up(); /* nobody knows */
    print_message("found without a hint in %d ms\n", (int)ms_since(t0));
    make_dir("b");
}

static void test_a_dead_one_first(void **st)
{
    (void)st;
    leader = 2;
    door_stop(&door[0]);
    client_rig_lock();
    door[1].swallow = true;
    client_rig_unlock(); /* it takes the question and does not answer */
    int64_t t0 = clock_mono();
    all_up();
    int64_t ms = ms_since(t0);
    print_message("found behind a stopped and a silent one in %d ms\n", (int)ms);
    assert_true(ms < SILENT_MS);
    make_dir("a");
}

/* Nobody leads for a while; then the client is there soon. */
static void test_election(void **st)
{
    struct making m;
    (void)st;
    all_up();
    unsigned sessions = sessions_asked();
    lead(NOBODY);
    make_begin(&m, "a");
    client_rig_wait(door[0].probes + door[1].probes + door[2].probes > 8);
    assert_int_equal(sessions_asked(), sessions);
    lead(1);
    int64_t t0 = clock_mono();
    client_rig_wait(m.done);
    print_message("back %d ms after one leads\n", (int)ms_since(t0));
    make_end(&m);
    assert_true(client_rig_get(creates) == 1);
}

/* ---- fail-over ---- */

/* The leader stops without a word. */
static void test_stopped_leader(void **st)
{
    struct making m;
    (void)st;
    all_up();
    uint64_t session = client_rig_get(session);
    door_stop(&door[0]);
    lead(1);
    make_begin(&m, "a");
    make_end(&m);
    print_message("a stopped leader: %d ms\n", (int)m.ms);
    assert_true(m.ms < 10 * SILENT_MS); /* a slow machine; the time itself is printed */
    assert_int_equal(client_rig_get(session), session);
    /* it goes on: the client stays where it is */
    door_go_on(&door[0]);
    make_dir("b");
    assert_int_equal(client_rig_get(creates), 2);
}

/* What was done by the old leader, and whose answer was lost, is not done again by the new one. */
static void test_done_once(void **st)
{
    static const int codes[] = {-ERR_NOT_LEADER, -ERR_SHUTDOWN, -EIO, -ERR_PEER_GONE};
    (void)st;
    all_up();
    for (unsigned i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        for (unsigned done = 0; done < 2; done++) {
            struct making m;
            char name[16];
            snprintf(name, sizeof name, "n%u%u", i, done);
            unsigned was = (unsigned)client_rig_get(creates), from = leader;
            client_rig_lock();
            client_rig.fail_code = codes[i];
            client_rig.fail_done = done;
            client_rig_unlock();
            unsigned asked = (unsigned)client_rig_get(asked[REPLFS__ENVELOPE__BODY_MUTATE_REQ]);
            make_begin(&m, name);
            client_rig_wait(client_rig.asked[REPLFS__ENVELOPE__BODY_MUTATE_REQ] > asked);
            client_rig_lock();
            client_rig.fail_code = 0;
            leader = (from + 1) % DOORS;
            client_rig_unlock();
            make_end(&m);
            assert_int_equal(client_rig_get(creates), was + 1);
        }
    }
}

/* Bytes on their way, the kept queue, grants: nothing of them is lost, and they do not stop. */
static void test_chunks_go_on(void **st)
{
    struct cfile *f, *old;
    struct buf *b;
    (void)st;
    all_up();
    uint64_t session = client_rig_get(session);
    f = client_rig_open_file();
    put(f, sizeof data, 0);
    assert_int_equal(cfile_fsync(f), 0);
    old = f;
    assert_int_equal(cfile_read(old, 0, 65536, &b), 0);
    buf_unref(b);
    lead(NOBODY);
    door_stop(&door[0]);
    unsigned appends = (unsigned)client_rig_get(node[1].appends);
    put(f, sizeof data, sizeof data);
    client_rig_wait(client_rig.node[1].appends > appends); /* it has a granted chunk */
    assert_int_equal(cfile_read(old, 0, 65536, &b), 0);    /* and the map of the file */
    assert_int_equal(b->len, 65536);
    buf_unref(b);
    lead(2);
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(client_rig_size(), 2 * sizeof data);
    assert_int_equal(client_rig_get(session), session);
    assert_int_equal(client_lost(client_rig.cl), 0);
    cfile_close(f);
}

/* ---- members ---- */

static size_t known(const char *addr)
{
    size_t n = 0;
    lock_acquire(&client_rig.cl->session.mu);
    for (size_t i = 0; i < client_rig.cl->session.nmetads; i++)
        n += !addr || !strcmp(client_rig.cl->session.metads[i].addr, addr);
    lock_release(&client_rig.cl->session.mu);
    return n;
}

static void test_members(void **st)
{
    char *first[] = {door[0].addr};
    struct making m;
    (void)st;
    client_rig.metads[0] = door[1].addr;
    client_rig.metads[1] = door[2].addr;
    client_rig.nmetads = 2;
    assert_int_equal(client_up(first, 1), 0);
    assert_int_equal(known(NULL), 3);
    /* those that it learnt are enough */
    lead(2);
    door_stop(&door[0]);
    make_begin(&m, "a");
    make_end(&m);
    /* told by a keepalive: one is a member no more; the one that the user named stays */
    client_rig_lock();
    client_rig.metads[0] = door[2].addr;
    client_rig.nmetads = 1;
    client_rig_unlock();
    client_rig_cut();
    make_dir("b");
    WAIT_UNTIL(known(door[1].addr) == 0);
    assert_int_equal(known(door[0].addr), 1);
    assert_int_equal(known(door[2].addr), 1);
}

/* Two addresses of one metad: it is not asked over both, lest it know us on the one that is closed. */
static void test_two_addresses_of_one(void **st)
{
    char *both[] = {door[0].addr, door[0].addr2};
    (void)st;
    assert_int_equal(client_up(both, 2), 0);
    for (unsigned i = 0; i < 10; i++) {
        unsigned sessions = (unsigned)client_rig_get(sessions);
        client_rig_cut();
        client_rig_wait(client_rig.sessions == sessions + 1);
        Replfs__Attr a = REPLFS__ATTR__INIT;
        assert_int_equal(client_getattr(client_rig.cl, CLIENT_RIG_OLD_INO, &a), 0);
        assert_int_equal(client_rig_get(sessions), sessions + 1);
    }
}

/* ---- set-up ---- */

static int setup(void **st)
{
    if (client_rig_up(st) || client_rig_chunkds_up())
        return -1;
    memset(door, 0, sizeof door);
    leader = 0;
    hints = false;
    for (unsigned i = 0; i < DOORS; i++) {
        door[i].going = true;
        door_open(&door[i]);
    }
    return 0;
}

static int teardown(void **st)
{
    for (unsigned i = 0; i < DOORS; i++)
        door_go_on(&door[i]);
    client_close(client_rig.cl);
    client_rig.cl = NULL;
    for (unsigned i = 0; i < DOORS; i++)
        door_close(&door[i]);
    return client_rig_teardown(st);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_finds_it),  T(test_a_dead_one_first), T(test_election), T(test_stopped_leader),
        T(test_done_once), T(test_chunks_go_on),     T(test_members),  T(test_two_addresses_of_one),
    };
    memset(data, 'x', sizeof data);
    log_init("test", getenv("TEST_LOG") ? LOG_LVL_DEBUG : LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
