/* Leadership lost and gained again, a thousand times in one metad, while two clients work and one chunkd reports: what
 * they were told is what metad has, nothing was lost or done twice, and what lives outside the replicated state (open
 * files, locks, leases, grants) is there again after each gain. LEADER_FLIPS in the environment says how often.
 *
 * The clients speak the protocol by hand (worker_*): each is one thread with a model of a directory of its own, which
 * repeats what was not answered under the same number, over a new connection on which it resumes its session. Files are
 * made, named, renamed, linked, appended to (a commit done twice would show in the size), unlinked while open. One
 * file is locked by both, in turn. Each keeps a file exclusively all the time. */
#define LEASE_MS 20000u
#define TERM_MS 1000u
#define SUSPECT_MS 600000u
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <dirent.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/lockset.h"
#include "base/log.h"

#define WORKERS 2u
#define NAMES 6u
#define PIECE 100u
#define FLIPS 300u
#define WARM 100u

/* cmocka's assertions are for its own thread. */
#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct worker_file {
    uint64_t ino, size;
    uint32_t nlink;
};
struct worker {
    unsigned nr;
    struct rpc_loop *loop;
    struct rpc_conn *conn;
    struct rpc_service svc;
    uint64_t session, seq, dir, alone, lock_id;
    struct worker_file name[NAMES]; /* ino 0: no such name */
    uint64_t open_ino;              /* without a name, but open; 0: none */
    bool locked;
    uint64_t chunk;
    uint32_t chunk_len;
    uint8_t cap[CAP_LEN];
    uint64_t rnd;
    pthread_t thread;
};

static struct {
    uint64_t locked_ino;
    atomic_uint holder; /* who has the lock, 0: nobody */
    atomic_bool stop, stop_chunkd;
    atomic_uint_fast64_t ops, resumes;
    atomic_uint_fast64_t registration;
    uint32_t chunkd;
    pthread_t chunkd_thread;
} all;

/* ---- a client's connection ---- */

static void worker_asked(void *arg, struct rpc_req *req)
{
    Replfs__RecallReply rep = REPLFS__RECALL_REPLY__INIT;
    RPC_ENVELOPE(env, RECALL_REPLY, recall_reply, &rep);

    (void)arg;
    MUST(req->env->body_case == REPLFS__ENVELOPE__BODY_RECALL_REQ);
    rpc_reply(req, &env, NULL);
}

static void worker_dial(struct worker *w)
{
    char addr[64];

    snprintf(addr, sizeof(addr), "127.0.0.1:%d", md.port);
    rpc_conn_unref(w->conn);
    MUST(rpc_dial(w->loop, addr, RPC_ROLE_METAD, &w->svc, &w->conn) == 0);
}

static void worker_lock(const struct worker *w, Replfs__Lock *l)
{
    replfs__lock__init(l);
    l->ino = all.locked_ino;
    l->owner = 1;
    l->type = LOCKSET_WRITE;
    l->end = UINT64_MAX;
    l->pid = w->nr;
}

static int worker_resume(struct worker *w)
{
    Replfs__SessionReq r = REPLFS__SESSION_REQ__INIT;
    Replfs__Lock lock, *locks = &lock;
    uint64_t open[1 + NAMES];
    struct rpc_result res;

    r.session = w->session;
    r.name = (char *)(w->nr == 1 ? "one" : "two");
    r.host_id = (char *)"host";
    r.open_inos = open;
    for (unsigned i = 0; i < NAMES; i++)
        if (w->name[i].ino)
            open[r.n_open_inos++] = w->name[i].ino;
    if (w->open_ino)
        open[r.n_open_inos++] = w->open_ino;
    worker_lock(w, &lock);
    r.locks = &locks;
    r.n_locks = w->locked;
    r.exclusive = &w->alone;
    r.n_exclusive = w->alone != 0;
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &r);
    int rc = rpc_call_wait(w->conn, &env, NULL, PATIENCE_MS, &res);
    if (rc == 0) {
        const Replfs__SessionReply *s = res.rep->session_reply;
        MUST(!w->session || s->session == w->session);
        MUST(s->n_exclusive == r.n_exclusive); /* nobody can have had it meanwhile */
        w->session = s->session;
        atomic_fetch_add(&all.resumes, 1);
    } else {
        MUST(rc != -ERR_SESSION);
    }
    rpc_result_free(&res);
    return rc;
}

static void worker_connect(struct worker *w)
{
    do {
        worker_dial(w);
    } while (worker_resume(w) != 0 && usleep(500) == 0);
}

/* Until it is answered by a leader. Returns the code. */
static int worker_ask(struct worker *w, Replfs__Envelope *env, struct rpc_result *out)
{
    for (;;) {
        int rc = rpc_call_wait(w->conn, env, NULL, PATIENCE_MS, out);
        bool elsewhere = rc == -ERR_PEER_GONE || rc == -ERR_NOT_LEADER || rc == -ERR_SHUTDOWN ||
                         rc == -ECONNREFUSED || rc == -ECONNRESET;
        if (!elsewhere && rc != -ERR_BUSY && rc != -ERR_TIMEOUT)
            return rc;
        rpc_result_free(out);
        if (elsewhere)
            worker_connect(w);
        else
            usleep(500);
    }
}

static struct one_result worker_mutate(struct worker *w, Replfs__MetaOp *op, bool exclusive)
{
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *list = &m;
    struct rpc_result res = {0};

    m.seq = ++w->seq;
    m.op = op;
    r.session = w->session;
    r.acked_seq = w->seq - 1;
    r.n_ops = 1;
    r.ops = &list;
    r.lease = r.exclusive = exclusive;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    MUST(worker_ask(w, &env, &res) == 0);
    const Replfs__MutationResult *x = res.rep->mutate_reply->results[0];
    struct one_result out = {x->code, x->attr ? x->attr->ino : 0, x->value};
    rpc_result_free(&res);
    atomic_fetch_add(&all.ops, 1);
    return out;
}

#define WORKER_OP(W, CASE, field, body)                                                            \
    ({                                                                                             \
        Replfs__MetaOp op_ = REPLFS__META_OP__INIT;                                                \
        op_.op_case = REPLFS__META_OP__OP_##CASE;                                                  \
        op_.field = (body);                                                                        \
        worker_mutate(W, &op_, false);                                                             \
    })

/* ---- what it does ---- */

static uint64_t worker_rnd(struct worker *w, uint64_t n)
{
    w->rnd = w->rnd * 6364136223846793005u + 1442695040888963407u;
    return (w->rnd >> 33) % n;
}

static ProtobufCBinaryData name_of(unsigned i)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g"};
    return bytes_of(names[i]);
}

static struct one_result worker_create(struct worker *w, uint64_t dir, ProtobufCBinaryData name,
                                       uint32_t mode, bool exclusive)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    c.parent = dir;
    c.name = name;
    c.mode = mode;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    return worker_mutate(w, &op, exclusive);
}

static void do_create(struct worker *w, unsigned i)
{
    struct one_result r = worker_create(w, w->dir, name_of(i), S_IFREG | 0644, false);

    MUST(r.code == (w->name[i].ino ? EEXIST : 0));
    if (r.code == 0) {
        MUST(r.ino != 0);
        w->name[i] = (struct worker_file){r.ino, 0, 1};
    }
}

static void worker_close(struct worker *w, uint64_t ino)
{
    Replfs__CloseReq r = REPLFS__CLOSE_REQ__INIT;
    struct rpc_result res;

    r.session = w->session;
    r.ino = &ino;
    r.n_ino = 1;
    RPC_ENVELOPE(env, CLOSE_REQ, close_req, &r);
    MUST(worker_ask(w, &env, &res) == 0);
    rpc_result_free(&res);
}

/* It stays open, and there, until it is closed. */
static void do_unlink(struct worker *w, unsigned i)
{
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    struct worker_file was = w->name[i];

    u.parent = w->dir;
    u.name = name_of(i);
    struct one_result r = WORKER_OP(w, UNLINK, unlink, &u);
    MUST(r.code == (was.ino ? 0 : ENOENT));
    if (!was.ino)
        return;
    w->name[i].ino = 0;
    for (unsigned k = 0; k < NAMES; k++)
        if (w->name[k].ino == was.ino)
            w->name[k].nlink--;
    if (was.nlink > 1)
        return; /* it has another name */
    uint64_t before = w->open_ino;
    w->open_ino = was.ino;
    if (before)
        worker_close(w, before);
}

static void do_getattr(struct worker *w, uint64_t ino, uint32_t nlink, uint64_t size)
{
    Replfs__GetattrReq r = REPLFS__GETATTR_REQ__INIT;
    struct rpc_result res;

    r.session = w->session;
    r.ino = ino;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &r);
    MUST(worker_ask(w, &env, &res) == 0);
    MUST(res.rep->getattr_reply->attr->nlink == nlink);
    MUST(nlink == 0 || res.rep->getattr_reply->attr->size == size);
    rpc_result_free(&res);
}

static void do_rename(struct worker *w, unsigned from, unsigned to)
{
    Replfs__RenameOp r = REPLFS__RENAME_OP__INIT;
    const struct worker_file a = w->name[from], b = w->name[to];

    if (b.ino && b.nlink == 1 && a.ino)
        return; /* what was replaced would be open without being in the model */
    r.parent = r.new_parent = w->dir;
    r.name = name_of(from);
    r.new_name = name_of(to);
    struct one_result res = WORKER_OP(w, RENAME, rename, &r);
    MUST(res.code == (a.ino ? 0 : ENOENT));
    if (!a.ino || a.ino == b.ino)
        return;
    w->name[to] = a;
    w->name[from].ino = 0;
    for (unsigned k = 0; k < NAMES && b.ino; k++)
        if (w->name[k].ino == b.ino)
            w->name[k].nlink--;
}

static void do_link(struct worker *w, unsigned from, unsigned to)
{
    Replfs__LinkOp l = REPLFS__LINK_OP__INIT;
    const struct worker_file a = w->name[from];

    if (!a.ino)
        return;
    l.ino = a.ino;
    l.parent = w->dir;
    l.name = name_of(to);
    struct one_result r = WORKER_OP(w, LINK, link, &l);
    MUST(r.code == (w->name[to].ino ? EEXIST : 0));
    if (r.code != 0)
        return;
    w->name[to] = a;
    for (unsigned k = 0; k < NAMES; k++)
        if (w->name[k].ino == a.ino)
            w->name[k].nlink = a.nlink + 1;
}

static void worker_grant(struct worker *w)
{
    Replfs__GrantReq g = REPLFS__GRANT_REQ__INIT;
    struct rpc_result res;
    int rc;

    g.session = w->session;
    g.count = g.goal = 1;
    RPC_ENVELOPE(env, GRANT_REQ, grant_req, &g);
    while ((rc = worker_ask(w, &env, &res)) == -ERR_FEW_COPIES) { /* the chunkd is not back yet */
        rpc_result_free(&res);
        usleep(500);
    }
    MUST(rc == 0);
    const Replfs__ChunkLoc *l = res.rep->grant_reply->grants[0];
    w->chunk = l->chunk;
    w->chunk_len = 0;
    memcpy(w->cap, l->cap.data, CAP_LEN);
    rpc_result_free(&res);
}

static void do_append(struct worker *w, unsigned i)
{
    Replfs__CommitOp c = REPLFS__COMMIT_OP__INIT;
    Replfs__Extent e = REPLFS__EXTENT__INIT, *list = &e;
    Replfs__ChunkCopies has = REPLFS__CHUNK_COPIES__INIT, *copies = &has;
    uint64_t ino = w->name[i].ino, registration = atomic_load(&all.registration);

    if (!ino)
        return;
    if (!w->chunk || w->chunk_len >= 20 * PIECE)
        worker_grant(w);
    e.chunk = w->chunk;
    e.chunk_off = w->chunk_len;
    e.len = PIECE;
    w->chunk_len += PIECE;
    has.chunk = w->chunk;
    has.len = w->chunk_len;
    has.chunkds = &all.chunkd;
    has.registrations = &registration;
    has.n_chunkds = has.n_registrations = 1;
    has.cap = (ProtobufCBinaryData){.len = CAP_LEN, .data = w->cap};
    c.ino = ino;
    c.append = true;
    c.extents = &list;
    c.n_extents = 1;
    c.copies = &copies;
    c.n_copies = 1;
    MUST(WORKER_OP(w, COMMIT, commit, &c).code == 0);
    for (unsigned k = 0; k < NAMES; k++)
        if (w->name[k].ino == ino)
            w->name[k].size += PIECE;
}

static void worker_set_lock(struct worker *w, uint32_t type)
{
    Replfs__LockReq r = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock lock;
    struct rpc_result res;

    worker_lock(w, &lock);
    lock.type = type;
    r.session = w->session;
    r.lock = &lock;
    r.wait = type != LOCKSET_NONE;
    r.id = ++w->lock_id;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &r);
    MUST(worker_ask(w, &env, &res) == 0);
    rpc_result_free(&res);
}

/* Between the lock and the unlock nobody else has it, whatever happens to metad. */
static void do_locked(struct worker *w)
{
    worker_set_lock(w, LOCKSET_WRITE);
    w->locked = true;
    MUST(atomic_exchange(&all.holder, w->nr) == 0);
    do_getattr(w, w->alone, 1, 0);
    do_create(w, 0);
    MUST(atomic_exchange(&all.holder, 0) == w->nr);
    w->locked = false;
    worker_set_lock(w, LOCKSET_NONE);
}

static void worker_step(struct worker *w)
{
    unsigned i = (unsigned)worker_rnd(w, NAMES), k = (unsigned)worker_rnd(w, NAMES);

    switch (worker_rnd(w, 8)) {
    case 0:
    case 1:
        do_create(w, i);
        break;
    case 2:
        do_unlink(w, i);
        break;
    case 3:
        do_rename(w, i, k);
        break;
    case 4:
        do_link(w, i, k);
        break;
    case 5:
        do_append(w, i);
        break;
    case 6:
        do_locked(w);
        break;
    default:
        if (w->name[i].ino)
            do_getattr(w, w->name[i].ino, w->name[i].nlink, w->name[i].size);
        if (w->open_ino)
            do_getattr(w, w->open_ino, 0, 0);
        break;
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;

    while (!atomic_load(&all.stop))
        worker_step(w);
    return NULL;
}

static void worker_start(struct worker *w, unsigned nr)
{
    struct rpc_config rpc = {.role = RPC_ROLE_CLIENT, .name = "test", .threads = 1};

    *w = (struct worker){.nr = nr, .rnd = nr};
    w->svc = (struct rpc_service){.request = worker_asked, .arg = w};
    assert_int_equal(rpc_loop_new(&rpc, &w->loop), 0);
    worker_connect(w);
    w->dir = worker_create(w, FSM_ROOT_INO, name_of(nr), S_IFDIR | 0755, false).ino;
    struct one_result r = worker_create(w, w->dir, name_of(NAMES), S_IFREG | 0644, true);
    w->alone = r.ino;
    assert_true(w->dir && w->alone);
}

static void worker_end(struct worker *w)
{
    rpc_conn_unref(w->conn);
    rpc_loop_free(w->loop);
}

#include "leader_chunkd.h"

/* ---- what metad has in the end ---- */

struct listing {
    struct worker *w;
    unsigned n;
};

static bool listed(void *arg, const struct fsm_dirent *list, size_t n)
{
    struct listing *l = arg;

    for (size_t i = 0; i < n; i++) {
        unsigned k = list[i].name[0] - 'a';
        uint64_t ino = k == NAMES ? l->w->alone : l->w->name[k].ino;
        assert_int_equal(list[i].len, 1);
        assert_true(k <= NAMES);
        assert_int_equal(list[i].ino, ino);
        l->n++;
    }
    return true;
}

static void worker_compare(struct worker *w)
{
    struct listing l = {w, 0};
    unsigned n = 1;

    fsm_rdlock(md.fsm);
    assert_int_equal(fsm_readdir(md.fsm, w->dir, 0, listed, &l), 0);
    for (unsigned i = 0; i < NAMES; i++) {
        Replfs__Attr a = REPLFS__ATTR__INIT;
        if (!w->name[i].ino)
            continue;
        n++;
        assert_int_equal(fsm_getattr(md.fsm, w->name[i].ino, &a), 0);
        assert_int_equal(a.size, w->name[i].size);
        assert_int_equal(a.nlink, w->name[i].nlink);
    }
    fsm_unlock(md.fsm);
    assert_int_equal(l.n, n);
}

static uint64_t orphans(void)
{
    struct fsm_counts c;

    fsm_rdlock(md.fsm);
    fsm_counts(md.fsm, &c);
    fsm_unlock(md.fsm);
    return c.orphans;
}

static unsigned threads(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/task");

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static size_t heap(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 0;
#else
    return mallinfo2().uordblks;
#endif
}

/* ---- tests ---- */

static unsigned flips(void)
{
    const char *s = getenv("LEADER_FLIPS");
    return s ? (unsigned)strtoul(s, NULL, 10) : FLIPS;
}

static size_t heap_beside_state(void)
{
    fsm_rdlock(md.fsm);
    size_t state = fsm_memory(md.fsm), all_of_it = heap();
    fsm_unlock(md.fsm);
    return all_of_it > state ? all_of_it - state : 0;
}

static void flip_once(unsigned i)
{
    uint64_t before = leader_terms(md.leader);

    mlog_flip(md.mlog);
    WAIT_UNTIL(leader_terms(md.leader) > before);
    usleep(i % 8 * 1500); /* sometimes the next comes at once */
}

static void test_flips(void **state)
{
    static struct worker w[WORKERS];
    unsigned before_threads = 0, n = flips();
    size_t before_heap = 0; /* without the state's, which grows by what is changed */

    (void)state;
    memset(&all, 0, sizeof(all));
    for (unsigned i = 0; i < WORKERS; i++)
        worker_start(&w[i], i + 1);
    all.locked_ino = w[0].dir;
    assert_int_equal(pthread_create(&all.chunkd_thread, NULL, chunkd_main, NULL), 0);
    WAIT_UNTIL(atomic_load(&all.registration) != 0);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&w[i].thread, NULL, worker_main, &w[i]), 0);
    int64_t began = clock_mono();
    for (unsigned i = 0; i < n; i++) {
        flip_once(i);
        if (i == (n < 2 * WARM ? 0 : WARM)) {
            before_threads = threads();
            before_heap = heap_beside_state();
        }
    }
    int64_t took = clock_mono() - began;
    assert_int_equal(threads(), before_threads);
    size_t after = heap_beside_state(), more = after > before_heap ? after - before_heap : 0;
    atomic_store(&all.stop, true);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(w[i].thread, NULL);
    printf("%u flips in %lld ms: %llu changes, %llu resumes, heap grew by %zu KiB\n", n,
           (long long)(took / NSEC_PER_MSEC), (unsigned long long)atomic_load(&all.ops),
           (unsigned long long)atomic_load(&all.resumes), more >> 10);
    assert_true(more < 2u << 20);
    for (unsigned i = 0; i < WORKERS; i++) {
        worker_compare(&w[i]);
        if (w[i].open_ino)
            worker_close(&w[i], w[i].open_ino);
    }
    WAIT_UNTIL(orphans() == 0);
    atomic_store(&all.stop_chunkd, true);
    pthread_join(all.chunkd_thread, NULL);
    for (unsigned i = 0; i < WORKERS; i++)
        worker_end(&w[i]);
}

/* ---- clients that do not come back ---- */

static bool lapsed(uint64_t session)
{
    fsm_rdlock(md.fsm);
    bool yes = fsm_session_lapsed(md.fsm, session);
    fsm_unlock(md.fsm);
    return yes;
}

/* How long w had to wait for a lock, in ms, from the next gain of leadership on. */
static int64_t lock_after_flip(struct worker *w)
{
    uint64_t before = leader_terms(md.leader);

    mlog_flip(md.mlog);
    WAIT_UNTIL(leader_terms(md.leader) > before);
    int64_t began = clock_mono();
    worker_connect(w);
    worker_set_lock(w, LOCKSET_WRITE);
    worker_set_lock(w, LOCKSET_NONE);
    return (clock_mono() - began) / NSEC_PER_MSEC;
}

/* One that holds a lock when it dies keeps others from new ones for a term, once; one that holds none does not. */
static void test_dead_clients(void **state)
{
    static struct worker w[3];

    (void)state;
    memset(&all, 0, sizeof(all));
    for (unsigned i = 0; i < 3; i++)
        worker_start(&w[i], i + 1);
    all.locked_ino = w[0].dir;
    rpc_conn_close(w[2].conn); /* holds none */
    assert_true(lock_after_flip(&w[0]) < TERM_MS / 2);
    all.locked_ino = w[1].dir;
    w[1].alone = 0; /* the grace may be over */
    worker_connect(&w[1]);
    worker_set_lock(&w[1], LOCKSET_WRITE);
    rpc_conn_close(w[1].conn);
    all.locked_ino = w[0].dir;
    int64_t took = lock_after_flip(&w[0]);
    assert_in_range(took, TERM_MS / 2, LEASE_MS / 2);
    assert_true(lapsed(w[1].session));
    assert_true(lock_after_flip(&w[0]) < TERM_MS / 2);
    for (unsigned i = 0; i < 3; i++)
        worker_end(&w[i]);
}

struct proposed {
    atomic_bool done;
    int code;
};

static void proposed_applied(void *arg, int code, const struct fsm_result *res)
{
    (void)res;
    ((struct proposed *)arg)->code = code;
}

static void proposed_after(void *arg)
{
    atomic_store(&((struct proposed *)arg)->done, true);
}

/* What a leadership's log says to a command that reserves nothing. */
static int propose_as(uint64_t leading)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReserveOp nothing = REPLFS__RESERVE_OP__INIT;
    struct proposed p = {0};

    op.op_case = REPLFS__META_OP__OP_RESERVE;
    op.reserve = &nothing;
    cmd.op = &op;
    mlog_propose_as(md.mlog, leading, &cmd, proposed_applied, proposed_after, &p);
    WAIT_UNTIL(atomic_load(&p.done));
    return p.code;
}

/* What is left of a leadership logs nothing in the next one. */
static void test_former_leadership_logs_nothing(void **state)
{
    uint64_t former = mlog_leading(md.mlog);

    (void)state;
    assert_int_equal(propose_as(former), 0);
    flip_once(0);
    assert_int_equal(propose_as(former), -ERR_NOT_LEADER);
    assert_int_equal(propose_as(mlog_leading(md.mlog)), 0);
}

static int setup(void **state)
{
    (void)state;
    return new_metad() ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    stop_metad();
    tree_remove(md.dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_former_leadership_logs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flips, setup, teardown),
    };
    log_init("test_leader", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
