/* See join.h, and service_metad.c for the other side.
 *
 * Whoever is asked and does not lead says who does, as far as it knows; that one is asked next. Nobody knows during an
 * election, so it is asked again, for a minute when a person waits, for ever when only this metad does.
 *
 * A metad that leads tells nobody: it logs its address itself, when it is not what the state says.
 *
 * One that was removed does not hear of it in its log: it asks for votes, and whoever leads answers that it is no member.
 * So it asks here what has become of it (mlog_doubted), and ends when the answer is that it does not belong to the
 * cluster any more.
 *
 * Failure modes: refused (another cluster, address taken): said once, and at longer and longer intervals again, since an
 * administrator may do something about it. Threads: one, that waits; join_free ends a question that is under way. */
#include "join.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"
#include "metad/fsm/fsm_cluster.h"
#include "metad/log/mlog.h"
#include "service_metad.h"

#define LOG_MODULE "join"
#define ASK_MS 12000u
#define PATIENCE_MS 60000
#define AGAIN_MS 200
#define AGAIN_MAX_MS 10000
#define LOOK_MS 500 /* whether somebody says that this metad is no member */

struct join_answer {
    int code;
    uint64_t id;
    char cluster[40], leader[256], why[256];
};

static void answer_take(struct join_answer *a, const struct rpc_result *r)
{
    a->code = r->code;
    if (r->code == 0 && r->rep->body_case == REPLFS__ENVELOPE__BODY_METAD_CHANGE_REPLY) {
        a->id = r->rep->metad_change_reply->id;
        snprintf(a->cluster, sizeof(a->cluster), "%s", r->rep->metad_change_reply->cluster);
    } else if (r->code == 0) {
        a->code = -ERR_PROTOCOL;
    } else if (r->rep && r->rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE) {
        snprintf(a->why, sizeof(a->why), "%s", r->rep->failure->detail);
        snprintf(a->leader, sizeof(a->leader), "%s", r->rep->failure->leader);
    }
}

/* The connection of a question under way, so that another thread can end it. */
struct join_line {
    struct lock mu;
    struct cond cond;
    bool over;
    struct rpc_conn *conn; /* a reference, or NULL */
};

/* False: no question is asked any more. line NULL: nobody ends this one. */
static bool line_take(struct join_line *line, struct rpc_conn *conn)
{
    if (!line)
        return true;
    LOCK_SCOPE(&line->mu);
    if (!line->over)
        line->conn = rpc_conn_ref(conn);
    return !line->over;
}

static void line_leave(struct join_line *line)
{
    if (!line)
        return;
    lock_acquire(&line->mu);
    struct rpc_conn *conn = line->conn;
    line->conn = NULL;
    lock_release(&line->mu);
    rpc_conn_unref(conn);
}

/* One question to one metad. */
static void ask_once(struct rpc_loop *loop, const char *at, uint64_t id, const struct join_who *who,
                     struct join_line *line, struct join_answer *a)
{
    Replfs__MetadChangeReq q = REPLFS__METAD_CHANGE_REQ__INIT;
    RPC_ENVELOPE(env, METAD_CHANGE_REQ, metad_change_req, &q);
    struct rpc_conn *conn = NULL;
    struct rpc_result r = {0};

    *a = (struct join_answer){0};
    q.change = REPLFS__METAD_CHANGE__METAD_JOIN;
    q.id = id;
    q.addr = (char *)(uintptr_t)who->addr;
    q.name = (char *)(uintptr_t)who->name;
    q.host_id = (char *)(uintptr_t)who->host_id;
    a->code = rpc_dial(loop, at, RPC_ROLE_METAD, NULL, &conn);
    if (a->code == 0 && !line_take(line, conn)) {
        a->code = -ERR_SHUTDOWN;
        rpc_conn_unref(conn);
    } else if (a->code == 0) {
        rpc_call_wait(conn, &env, NULL, ASK_MS, &r);
        answer_take(a, &r);
        rpc_result_free(&r);
        if (a->code != 0 && a->why[0] == 0)
            snprintf(a->why, sizeof(a->why), "%s", rpc_conn_error(conn));
        line_leave(line);
        rpc_conn_close(conn);
        rpc_conn_unref(conn);
    }
    if (a->code != 0 && a->why[0] == 0)
        snprintf(a->why, sizeof(a->why), "%s", err_str(a->code));
}

/* It may be another answer next time. */
static bool may_change(int code)
{
    return code == -ERR_NOT_LEADER || code == -ERR_BUSY || code == -ERR_TIMEOUT ||
           code == -ERR_PEER_GONE || code == -ERR_SHUTDOWN || code == -ECONNREFUSED ||
           code == -ETIMEDOUT || code == -EHOSTUNREACH || code == -ENETUNREACH ||
           code == -ECONNRESET;
}

static void pause_ms(int64_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * NSEC_PER_MSEC}, NULL);
}

int join_ask(struct rpc_loop *loop, const char *at, const struct join_who *who, uint64_t *id,
             char uuid[37])
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    char addr[256];
    struct join_answer a;

    snprintf(addr, sizeof(addr), "%s", at);
    for (;;) {
        ask_once(loop, addr, 0, who, NULL, &a);
        if (a.code == 0 || !may_change(a.code) || clock_mono() > until)
            break;
        snprintf(addr, sizeof(addr), "%s", a.leader[0] != 0 ? a.leader : at);
        pause_ms(AGAIN_MS);
    }
    if (a.code == 0 && (a.id == 0 || strlen(a.cluster) != 36))
        a.code = -ERR_PROTOCOL;
    if (a.code != 0) {
        log_error("%s does not let this metad join: %s", addr, a.why);
        return a.code;
    }
    *id = a.id;
    memcpy(uuid, a.cluster, 37);
    return 0;
}

/* ---- announcing ---- */

struct join {
    struct rpc_loop *loop;
    struct mlog *mlog;
    struct fsm *fsm;
    char at[256], addr[256], name[256], host_id[256];
    struct join_who who;
    void (*removed)(void *arg, const char *leader);
    void *arg;
    pthread_t thread;
    struct join_line line;
    uint32_t asked; /* of the others, the last one */
};

/* Sleeps; false: it is over. */
static bool join_sleep(struct join *j, int64_t ms)
{
    int64_t until = clock_mono() + ms * NSEC_PER_MSEC;

    lock_acquire(&j->line.mu);
    while (!j->line.over && cond_sleep_until(&j->line.cond, &j->line.mu, until))
        ;
    bool go_on = !j->line.over;
    lock_release(&j->line.mu);
    return go_on;
}

static bool state_knows(struct join *j)
{
    struct fsm_metad m;

    fsm_rdlock(j->fsm);
    bool same = fsm_metad_find(j->fsm, (uint32_t)mlog_id(j->mlog), &m) &&
                strcmp(m.addr, j->addr) == 0 && strcmp(m.name, j->name) == 0 &&
                strcmp(m.host_id, j->host_id) == 0;
    fsm_unlock(j->fsm);
    return same;
}

static bool is_member(struct join *j)
{
    struct mlog_member all[MLOG_MEMBERS_MAX];
    unsigned n = mlog_members(j->mlog, all);

    for (unsigned i = 0; i < n; i++)
        if (all[i].id == mlog_id(j->mlog))
            return true;
    return false;
}

/* This metad leads: 0, or a code. */
static int log_own(struct join *j)
{
    Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res = {0};

    metad.id = (uint32_t)mlog_id(j->mlog);
    metad.addr = j->addr;
    metad.name = j->name;
    metad.host_id = j->host_id;
    op.op_case = REPLFS__META_OP__OP_METAD;
    op.metad = &metad;
    cmd.op = &op;
    int rc = mlog_propose_wait(j->mlog, &cmd, &res);
    return rc != 0 ? rc : -res.code;
}

/* One of the others that the state has: another one each time. */
static void ask_next(struct join *j, char addr[256])
{
    struct fsm_metad m;

    fsm_rdlock(j->fsm);
    if (!fsm_metad_next(j->fsm, j->asked, &m))
        m.id = 0;
    j->asked = m.id;
    snprintf(addr, 256, "%s", m.id != 0 && m.id != mlog_id(j->mlog) ? m.addr : "");
    fsm_unlock(j->fsm);
}

/* Whom to ask: the leader; else whoever was named at the start, and the others in turn. */
static bool ask_whom(struct join *j, const struct join_answer *last, char addr[256])
{
    uint64_t leader;

    if (last->leader[0] != 0) {
        snprintf(addr, 256, "%s", last->leader);
    } else if (!mlog_leader(j->mlog, &leader) || leader == mlog_id(j->mlog) ||
               !metads_addr_of(j->fsm, leader, addr)) {
        ask_next(j, addr);
        if (addr[0] == 0)
            snprintf(addr, 256, "%s", j->at);
    }
    return addr[0] != 0;
}

/* The cluster knows no such metad: only the leader says so. */
static bool is_removed(struct join *j, const struct join_answer *a, const char *leader)
{
    if (a->code != -ENOENT && a->code != -EEXIST)
        return false;
    j->removed(j->arg, leader);
    return true;
}

static void join_say(struct join *j, const struct join_answer *a, char said[256])
{
    if (a->code == 0 || may_change(a->code) || strcmp(said, a->why) == 0)
        return;
    log_error("the cluster does not accept this metad (%" PRIu64 "): %s", mlog_id(j->mlog), a->why);
    snprintf(said, 256, "%s", a->why);
}

static void *join_main(void *arg)
{
    struct join *j = arg;
    struct join_answer a = {0};
    char addr[256], said[256] = "";
    int64_t pause = AGAIN_MS;
    bool doubted = false;

    do {
        doubted = mlog_doubted(j->mlog) || doubted;
        if (!doubted && state_knows(j) && is_member(j)) {
            pause = LOOK_MS;
            continue;
        }
        if (mlog_is_leader(j->mlog)) {
            a = (struct join_answer){.code = log_own(j)};
            snprintf(a.why, sizeof(a.why), "%s", err_str(a.code));
        } else if (ask_whom(j, &a, addr)) {
            ask_once(j->loop, addr, mlog_id(j->mlog), &j->who, &j->line, &a);
            if (is_removed(j, &a, addr))
                break;
        }
        doubted = doubted && a.code != 0;
        join_say(j, &a, said);
        pause = a.code == 0 || may_change(a.code) || pause < AGAIN_MS ? AGAIN_MS : pause * 2;
        pause = pause < AGAIN_MAX_MS ? pause : AGAIN_MAX_MS;
    } while (join_sleep(j, pause));
    return NULL;
}

int join_announce(struct rpc_loop *loop, struct mlog *mlog, struct fsm *fsm, const char *at,
                  const struct join_who *who, void (*removed)(void *arg, const char *leader),
                  void *arg, struct join **out)
{
    struct join *j = calloc(1, sizeof(*j));

    *out = NULL;
    if (!j)
        return -ENOMEM;
    j->loop = loop;
    j->mlog = mlog;
    j->fsm = fsm;
    snprintf(j->at, sizeof(j->at), "%s", at ? at : "");
    snprintf(j->addr, sizeof(j->addr), "%s", who->addr);
    snprintf(j->name, sizeof(j->name), "%s", who->name);
    snprintf(j->host_id, sizeof(j->host_id), "%s", who->host_id);
    j->who = (struct join_who){.addr = j->addr, .name = j->name, .host_id = j->host_id};
    j->removed = removed;
    j->arg = arg;
    lock_init(&j->line.mu, LOCK_JOIN);
    cond_init(&j->line.cond);
    if (thread_start(&j->thread, "join", join_main, j) != 0) {
        free(j);
        return -EAGAIN;
    }
    *out = j;
    return 0;
}

void join_free(struct join *j)
{
    if (!j)
        return;
    lock_acquire(&j->line.mu);
    j->line.over = true;
    cond_broadcast(&j->line.cond);
    struct rpc_conn *conn = rpc_conn_ref(j->line.conn);
    lock_release(&j->line.mu);
    if (conn)
        rpc_conn_close(conn);
    rpc_conn_unref(conn);
    pthread_join(j->thread, NULL);
    lock_destroy(&j->line.mu);
    cond_destroy(&j->line.cond);
    free(j);
}
