/* A client under test in one process with a real metad (its service, state machine, leases, locks and log, see
 * service_rig.h) and three scripted chunkds that keep chunks in memory (client_rig_chunkd.h). Between client and
 * metad a go-between does what the test says: it holds, refuses and loses changes and answers
 * (client_rig_metad.h). `me` is another session at the same metad, for what others do meanwhile.
 *
 * metad's root directory has two files: "new" (CLIENT_RIG_INO), which is empty, and "old", which is not. Fields
 * of client_rig are looked at and set with its mutex held (client_rig_get, client_rig_set, client_rig_wait); what
 * metad itself has comes from its state machine (client_rig_attr, client_rig_ext). */
#ifndef REPLFS_TESTS_CLIENT_RIG_H
#define REPLFS_TESTS_CLIENT_RIG_H
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define LEASE_MS 60000u    /* of sessions: they lapse when a test says so */
#define SUSPECT_MS 600000u /* the chunkds send no heartbeats */
#define METAD_DIR "/dev/shm"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/extmap.h"
#include "base/log.h"
#include "fuse/client/client.h"
#include "limit.h"
#include "rpc/cap.h"
#include "service_rig.h"
#include "wait.h"

#define CLIENT_RIG_INO 10u
#define CLIENT_RIG_OLD_INO 11u /* "old", a file that a rename of "new" replaces */
#define CLIENT_RIG_NODES 3u
#define CLIENT_RIG_RECORDS 4096
#define CLIENT_RIG_TIMEOUT_MS 1500
#define CLIENT_RIG_PATIENT_MS 20000 /* for tests of much that must not time out on a slow machine */
#define CLIENT_RIG_CAPS 64u
#define CLIENT_RIG_BODIES 256u /* numbers of requests in an envelope are below */

struct client_rig_record { /* one append, as a chunkd keeps it */
    uint64_t chunk;
    uint32_t off, len;
    struct buf *data;
    uint8_t *crcs;
};
struct client_rig_node {
    int port;
    struct rpc_conn *metad;
    uint64_t registration;
    struct client_rig_record recs[CLIENT_RIG_RECORDS];
    size_t nrecs;
    int append_code, sync_code, read_code; /* answered instead, when set */
    int hop_code;                          /* to an append that came down a chain */
    bool corrupt;                          /* flips a byte of what it reads */
    bool mute_reads;
    bool mute_syncs; /* of chunks: not answered */
    size_t synced;   /* of recs */
    unsigned appends, reads, syncs;
};
struct client_rig_cap { /* as it was granted */
    uint64_t chunk;
    uint8_t cap[CAP_LEN];
};
struct client_rig_link;
struct client_rig {
    pthread_mutex_t mu; /* recursive: a call on a dead connection ends before it returns */
    struct rpc_loop *front, *back, *chunkds; /* towards the client, towards metad */
    char front_addr[32], addr[CLIENT_RIG_NODES + 1][32];
    struct client *cl;
    struct client_rig_node node[CLIENT_RIG_NODES + 1];
    struct rpc_req *muted[64]; /* of chunkds */
    size_t nmuted;
    struct client_rig_link *links;

    /* what the test says: of changes, */
    bool hold; /* they are not looked at until client_rig_release() */
    struct rpc_req *held[64];
    size_t nheld;
    unsigned drop_replies; /* so many are done, and their answer is lost with the connection */
    int fail_code;         /* they come to nothing with it, executed or not, */
    bool fail_done;        /* as this says */
    int commit_code, create_code; /* refused: a negative one for commits, positive for names */
    int kept_code;                /* positive: those that were answered before a lapse */
    uint64_t step;                /* a clone or fallocate does no more at once, when set */
    uint64_t foreign; /* so many bytes are appended by somebody else before the next append */
    /* of other requests, */
    int grant_code;
    bool grace;        /* opens are refused */
    bool leases;       /* metad gives some, or the client is told that it does not */
    bool crowded;      /* others are at every file: the client hears of no lease of one */
    bool keep_getattr; /* the next one is answered by the test, as it was then: */
    struct rpc_req *kept_getattr;
    Replfs__Attr kept_attr;
    /* and of chunkds */
    bool nowhere, lost;        /* no chunkd is named for chunks, and that is for sure */
    uint32_t copies_known;     /* so many are named at most */
    bool one_host, third_down; /* chunkds 1 and 2 are on one computer, 3 is away */
    bool only_two;             /* there is no third */
    char *metads[4];           /* told as the members, when there are some */
    size_t nmetads;
    uint64_t epoch;         /* added to metad's: another number is news of chunkds */
    unsigned corrupt_reads; /* so many next reads of any chunkd are damaged */

    /* what was seen: changes that metad has done, once each, */
    uint64_t session, last_seq;
    unsigned mutations, commits, setattrs, creates, unlinks, renames, kept;
    unsigned creates_then; /* known when something was removed or renamed */
    uint64_t unlinked;     /* the inode that the last unlink expected */
    uint64_t had;          /* the file once had bytes up to here */
    unsigned unsafe;       /* changes that displaced bytes when the new ones were on no disk yet */
    /* other requests, */
    unsigned asked[CLIENT_RIG_BODIES]; /* that came, by their number in the envelope */
    unsigned grants, opens, opens_refused, bad_reports, last_bad_chunkd;
    uint64_t xattr_session; /* with which attributes were last asked for, */
    unsigned commits_asked; /* and what was known then */
    uint32_t last_exclude[8];
    size_t nexclude;
    struct client_rig_cap caps[CLIENT_RIG_CAPS];
    size_t ncaps;
    unsigned sessions, lapses;          /* times a session was opened or resumed; what that said */
    size_t claims, open, claimed_locks; /* leases, open files, locks named then, */
    size_t unanswered;                  /* ... and creations */
    /* and what metad asked */
    unsigned recalls;
    bool recalled;                        /* somebody else got what he asked for, */
    unsigned commits_then, setattrs_then; /* with so much known */
};
static struct client_rig client_rig;
static bool client_rig_patient; /* the next client waits long */

static __thread unsigned client_rig_depth; /* how often this thread holds client_rig.mu */

static inline void client_rig_lock(void)
{
    pthread_mutex_lock(&client_rig.mu);
    client_rig_depth++;
}

static inline void client_rig_unlock(void)
{
    client_rig_depth--;
    pthread_mutex_unlock(&client_rig.mu);
}

/* client_rig.mu is held for looking at cond. */
#define client_rig_wait(cond) WAIT_UNTIL_WITH(client_rig_lock(), cond, client_rig_unlock())

/* A field of client_rig; nobody else has it meanwhile. */
#define client_rig_set(field, value)                                                               \
    do {                                                                                           \
        client_rig_lock();                                                                         \
        client_rig.field = (value);                                                                \
        client_rig_unlock();                                                                       \
    } while (0)

#define client_rig_get(field)                                                                      \
    ({                                                                                             \
        client_rig_lock();                                                                         \
        uint64_t client_rig_v = client_rig.field;                                                  \
        client_rig_unlock();                                                                       \
        client_rig_v;                                                                              \
    })

/* ---- what metad has ---- */

/* As it is by now; ino 0: there is no such inode. */
static inline Replfs__Attr client_rig_attr(uint64_t ino)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    fsm_rdlock(md.fsm);
    if (fsm_getattr(md.fsm, ino, &a))
        a.ino = 0;
    fsm_unlock(md.fsm);
    return a;
}

static inline uint64_t client_rig_size(void)
{
    return client_rig_attr(CLIENT_RIG_INO).size;
}

/* The extent of the file at off or behind it; false: there is none. */
static inline bool client_rig_ext(uint64_t off, struct ext *e)
{
    const struct extmap *map;
    fsm_rdlock(md.fsm);
    bool found = !fsm_extents(md.fsm, CLIENT_RIG_INO, &map) && extmap_find(map, off, e);
    fsm_unlock(md.fsm);
    return found;
}

/* 0: no such name. */
static inline uint64_t client_rig_lookup(uint64_t dir, const char *name)
{
    uint64_t ino = 0;
    fsm_rdlock(md.fsm);
    if (fsm_lookup(md.fsm, dir, (const uint8_t *)name, strlen(name), &ino))
        ino = 0;
    fsm_unlock(md.fsm);
    return ino;
}

/* An operation that asks no client for its leases. */
static inline int client_rig_as_leader(Replfs__MetaOp *op)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res;
    cmd.op = op;
    int rc = mlog_propose_wait(md.mlog, &cmd, &res);
    return rc ? rc : -res.code;
}

#define CLIENT_RIG_AS_LEADER(CASE, field, body)                                                    \
    ({                                                                                             \
        Replfs__MetaOp client_rig_op_ = REPLFS__META_OP__INIT;                                     \
        client_rig_op_.op_case = REPLFS__META_OP__OP_##CASE;                                       \
        client_rig_op_.field = (body);                                                             \
        client_rig_as_leader(&client_rig_op_);                                                     \
    })

#include "client_rig_chunkd.h"
#include "client_rig_metad.h"

/* ---- what a test does ---- */

/* How the chunk was granted; client_rig.mu held. NULL: not lately. */
static inline const struct client_rig_cap *client_rig_granted(uint64_t chunk)
{
    for (size_t i = 0; i < CLIENT_RIG_CAPS; i++)
        if (client_rig.caps[i].chunk == chunk)
            return &client_rig.caps[i];
    return NULL;
}

/* What was held is done, in order, and what comes next is done at once. */
static inline void client_rig_release(void)
{
    client_rig_lock();
    client_rig.hold = false;
    for (size_t i = 0; i < client_rig.nheld; i++)
        client_rig_mutate(client_rig.held[i]);
    client_rig.nheld = 0;
    client_rig_unlock();
}

/* The session lapses: metad has not heard of the client for too long. */
static inline void client_rig_lapse(void)
{
    uint64_t session = client_rig_get(session);
    fsm_rdlock(md.fsm);
    uint32_t before = fsm_session_lapses(md.fsm, session);
    fsm_unlock(md.fsm);
    /* asked again: a keepalive may come between */
    WAIT_UNTIL_WITH((sessions_expire(md.sessions, session), fsm_rdlock(md.fsm)),
                    fsm_session_lapses(md.fsm, session) > before, fsm_unlock(md.fsm));
}

/* metad has closed the session, and knows nothing of it any more. */
static inline void client_rig_end_session(void)
{
    Replfs__SessionCloseOp o = REPLFS__SESSION_CLOSE_OP__INIT;
    uint64_t session = client_rig_get(session);
    o.session = &session;
    o.n_session = 1;
    assert_int_equal(CLIENT_RIG_AS_LEADER(SESSION_CLOSE, session_close, &o), 0);
}

static inline int client_rig_set_goal(uint32_t goal)
{
    Replfs__SetGoalOp o = REPLFS__SET_GOAL_OP__INIT;
    uint64_t ino = CLIENT_RIG_INO;
    o.ino = &ino;
    o.n_ino = 1;
    o.goal = goal;
    return CLIENT_RIG_AS_LEADER(SET_GOAL, set_goal, &o);
}

/* Somebody else writes [off, off + len) of the file, on chunkds 2 and 3; the chunk that has the bytes. */
static inline uint64_t client_rig_foreign_write(uint64_t off, uint32_t len)
{
    Replfs__GrantReq g = REPLFS__GRANT_REQ__INIT;
    Replfs__CommitOp c = REPLFS__COMMIT_OP__INIT;
    Replfs__Extent e = REPLFS__EXTENT__INIT, *list = &e;
    Replfs__ChunkCopies has = REPLFS__CHUNK_COPIES__INIT, *copies = &has;
    uint32_t first = 1, chunkds[] = {2, 3};
    uint64_t registrations[] = {client_rig.node[2].registration, client_rig.node[3].registration};
    struct rpc_result res;
    g.session = me.session;
    g.count = 1;
    g.goal = 2;
    g.exclude = &first;
    g.n_exclude = 1;
    RPC_ENVELOPE(env, GRANT_REQ, grant_req, &g);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    e.chunk = res.rep->grant_reply->grants[0]->chunk;
    rpc_result_free(&res);
    e.file_off = off;
    e.len = len;
    c.ino = CLIENT_RIG_INO;
    c.extents = &list;
    c.n_extents = 1;
    has.chunk = e.chunk;
    has.len = len;
    has.chunkds = chunkds;
    has.registrations = registrations;
    has.n_chunkds = has.n_registrations = 2;
    c.copies = &copies;
    c.n_copies = 1;
    assert_int_equal(MUTATE(COMMIT, commit, &c).code, 0);
    return e.chunk;
}

static inline void client_rig_on_recalled(void *arg, int code, const Replfs__Envelope *rep,
                                          struct buf *payload)
{
    (void)arg, (void)rep, (void)payload;
    client_rig_lock();
    client_rig.recalled = code == 0;
    client_rig.commits_then = client_rig.commits;
    client_rig.setattrs_then = client_rig.setattrs;
    client_rig_unlock();
}

/* Somebody else asks for the inode, so that metad recalls what the client has of it: client_rig.recalled when
 * he has been answered. */
static inline void client_rig_recall(uint64_t ino)
{
    Replfs__GetattrReq m = REPLFS__GETATTR_REQ__INIT;
    m.session = me.session;
    m.ino = ino;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &m);
    rpc_call(me.conn, &env, NULL, WAIT_LIMIT_S * 1000u, client_rig_on_recalled, NULL);
}

/* The client's connection breaks. */
static inline void client_rig_cut(void)
{
    client_rig_lock();
    for (struct client_rig_link *l = client_rig.links; l; l = l->next)
        rpc_conn_close(l->down); /* several were dialled, it goes on with one */
    client_rig_unlock();
}

/* A new directory in the root, made by the client: its own alone, when it gets leases. */
static inline uint64_t client_rig_mkdir(const char *name)
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
    client_rig_set(creates, 0); /* of what the test makes in it */
    return a.ino;
}

/* ---- set-up ---- */

static inline int client_rig_make_file(const char *name, uint64_t ino)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = FSM_ROOT_INO;
    c.name = bytes_of(name);
    c.mode = S_IFREG | 0644;
    c.ino = ino;
    return CLIENT_RIG_AS_LEADER(CREATE, create, &c);
}

static inline int client_rig_make_size(uint64_t ino, uint64_t size)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    s.ino = ino;
    s.valid = REPLFS__SETATTR_OP__VALID__SIZE;
    s.size = size;
    return CLIENT_RIG_AS_LEADER(SETATTR, setattr, &s);
}

/* metad, the other session, the files and the go-between. */
static inline int client_rig_up(void **st)
{
    static struct rpc_service svc = {
        .request = client_rig_metad, .opened = client_rig_opened, .closed = client_rig_closed};
    struct rpc_config front = {.role = RPC_ROLE_METAD, .name = "go-between", .threads = 1};
    struct rpc_config back = {.role = RPC_ROLE_CLIENT, .name = "go-between", .threads = 1};
    pthread_mutexattr_t own;
    int port;
    test_limit_begin();
    memset(&client_rig, 0, sizeof(client_rig));
    pthread_mutexattr_init(&own);
    pthread_mutexattr_settype(&own, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&client_rig.mu, &own);
    pthread_mutexattr_destroy(&own);
    client_rig.copies_known = CLIENT_RIG_NODES;
    if (service_rig_setup(st) || client_rig_make_file("new", CLIENT_RIG_INO) ||
        client_rig_make_file("old", CLIENT_RIG_OLD_INO) ||
        client_rig_make_size(CLIENT_RIG_OLD_INO, 1) || rpc_loop_new(&back, &client_rig.back) ||
        rpc_loop_new(&front, &client_rig.front))
        return -1;
    while (ids_ino(md.ids) < 2 * CLIENT_RIG_INO)
        ; /* numbers that tests give to files themselves */
    svc.cluster = mlog_uuid(md.mlog);
    if (rpc_listen(client_rig.front, "127.0.0.1:0", &svc, &port))
        return -1;
    snprintf(client_rig.front_addr, sizeof(client_rig.front_addr), "127.0.0.1:%d", port);
    return 0;
}

static inline int client_rig_client_up(void)
{
    char *metads[] = {client_rig.front_addr};
    struct client_config cfg = {
        .metads = metads,
        .nmetads = 1,
        .name = "test",
        .timeout_ms = client_rig_patient ? CLIENT_RIG_PATIENT_MS : CLIENT_RIG_TIMEOUT_MS,
        .flush_ms = 200,
        .host_id = "here",
        .rpc = {.role = RPC_ROLE_CLIENT, .name = "test", .threads = 1},
    };
    return client_open(&cfg, &client_rig.cl);
}

/* A client that is told of no leases. */
static inline int client_rig_setup(void **st)
{
    return client_rig_up(st) || client_rig_chunkds_up() || client_rig_client_up() ? -1 : 0;
}

/* And one that gets them. */
static inline int client_rig_leased_setup(void **st)
{
    if (client_rig_up(st) || client_rig_chunkds_up())
        return -1;
    client_rig.leases = true;
    return client_rig_client_up();
}

/* The file that there is, open for writing. */
static inline struct cfile *client_rig_open_file(void)
{
    struct cfile *f = NULL;
    assert_int_equal(cfile_open(client_rig.cl, CLIENT_RIG_INO, true, NULL, &f), 0);
    return f;
}

static inline int client_rig_teardown(void **st)
{
    while (client_rig_depth) /* an assertion that failed has left it locked */
        client_rig_unlock();
    if (client_rig.cl)
        client_close(client_rig.cl);
    client_rig_lock();
    for (size_t i = 0; i < client_rig.nheld; i++)
        rpc_fail(client_rig.held[i], -ERR_SHUTDOWN, "the end");
    for (size_t i = 0; i < client_rig.nmuted; i++)
        rpc_fail(client_rig.muted[i], -ERR_SHUTDOWN, "the end");
    client_rig_unlock();
    rpc_loop_free(client_rig.back);
    rpc_loop_free(client_rig.front);
    client_rig_links_free();
    client_rig_chunkds_down();
    service_rig_teardown(st);
    pthread_mutex_destroy(&client_rig.mu);
    test_limit_end();
    return 0;
}
#endif
