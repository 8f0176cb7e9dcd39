/* See service_metad.h.
 *
 * Joining takes two requests of the same kind (METAD_JOIN). The first, without an id, comes from a metad that has
 * nothing yet: an id is logged for it (MetadOp), and it makes its directory with that and the cluster's UUID. The second
 * comes when it runs, and again at each of its starts: its address is logged when it changed, and it becomes a member of
 * the log's group (a learner, which is made a voter once it has caught up). So an id without a metad is all that a
 * joining that broke off leaves behind; `replfsctl metad remove` forgets it.
 *
 * Removing goes the other way: first it is no member any more, then it is forgotten.
 *
 * One that asks again because it got no answer gets the id that was logged for its address, as long as that one is no
 * member.
 *
 * Threads: requests on the rpc loop's; answers to changes on the log thread. One id is given at a time, since two
 * proposals would both find the same one free; the state refuses one that was given meanwhile (by another leader:
 * MetadOp.fresh), and the joining metad asks again. */
#include "service_metad.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "metad/fsm/fsm_cluster.h"

#define LOG_MODULE "metads"
#define CHANGE_MS 10000u
#define TEXT 256u

struct metads {
    struct fsm *fsm;
    struct mlog *mlog;
    atomic_bool joining;
    atomic_uint_fast64_t removing; /* this one does not join again meanwhile; 0: nobody */
};

struct metads *metads_new(struct fsm *fsm, struct mlog *mlog)
{
    struct metads *t = calloc(1, sizeof(*t));

    if (!t)
        abort();
    t->fsm = fsm;
    t->mlog = mlog;
    return t;
}

void metads_free(struct metads *t)
{
    free(t);
}

bool metads_addr_of(void *arg, uint64_t id, char out[256])
{
    struct fsm *fsm = arg;
    struct fsm_metad m;

    out[0] = 0;
    fsm_rdlock(fsm);
    if (id <= UINT32_MAX && fsm_metad_find(fsm, (uint32_t)id, &m))
        snprintf(out, 256, "%s", m.addr);
    fsm_unlock(fsm);
    return out[0] != 0;
}

void metads_not_leader(struct metads *t, struct rpc_req *req)
{
    Replfs__Failure f = REPLFS__FAILURE__INIT;
    char addr[256] = "",
         text[TEXT] = "no majority: this metad does not lead, and knows of no leader";
    uint64_t id;

    if (mlog_leader(t->mlog, &id) && id != mlog_id(t->mlog)) {
        (void)metads_addr_of(t->fsm, id, addr);
        snprintf(text, sizeof(text), "this metad does not lead: metad %" PRIu64 " does", id);
    }
    f.code = ERR_NOT_LEADER;
    f.detail = text;
    f.leader = addr;
    rpc_fail_with(req, &f);
}

/* ---- the list ---- */

struct metads_row {
    Replfs__MetadInfo info;
    char addr[256], name[256], host_id[256];
};
struct metads_list {
    struct metads_row row[FSM_METADS_MAX + MLOG_MEMBERS_MAX];
    Replfs__MetadInfo *ptr[FSM_METADS_MAX + MLOG_MEMBERS_MAX];
    size_t n;
};

static struct metads_row *list_add(struct metads_list *l, uint64_t id)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->row[i].info.id == id)
            return &l->row[i];
    struct metads_row *r = &l->row[l->n];
    replfs__metad_info__init(&r->info);
    r->info.id = id;
    r->info.addr = r->addr;
    r->info.name = r->name;
    r->info.host_id = r->host_id;
    r->info.role = (char *)"new";
    l->ptr[l->n++] = &r->info;
    return r;
}

static void list_known(struct metads *t, struct metads_list *l)
{
    struct fsm_metad m = {.id = 0};

    fsm_rdlock(t->fsm);
    while (fsm_metad_next(t->fsm, m.id, &m)) {
        struct metads_row *r = list_add(l, m.id);
        snprintf(r->addr, sizeof(r->addr), "%s", m.addr);
        snprintf(r->name, sizeof(r->name), "%s", m.name);
        snprintf(r->host_id, sizeof(r->host_id), "%s", m.host_id);
    }
    fsm_unlock(t->fsm);
}

static const char *role_name(const struct mlog_member *m)
{
    switch (m->role) {
    case MLOG_SPARE:
    case MLOG_LEARNER:
        return "learner";
    case MLOG_VOTER:
        return "voter";
    }
    return "";
}

static void list_members(struct metads *t, struct metads_list *l, uint64_t leader)
{
    struct mlog_member all[MLOG_MEMBERS_MAX];
    unsigned n = mlog_members(t->mlog, all);

    for (unsigned i = 0; i < n; i++) {
        struct metads_row *r = list_add(l, all[i].id);
        r->info.role = (char *)(uintptr_t)role_name(&all[i]);
        r->info.leader = all[i].id == leader;
        r->info.match_index = all[i].match;
        r->info.contact_ms = all[i].heard_ms > 0 ? (uint64_t)all[i].heard_ms : 0;
        r->info.online = all[i].heard_ms >= 0 && all[i].heard_ms < 1000;
    }
}

static void metads_reply_list(struct metads *t, struct rpc_req *req)
{
    Replfs__MetadListReply rep = REPLFS__METAD_LIST_REPLY__INIT;
    RPC_ENVELOPE(env, METAD_LIST_REPLY, metad_list_reply, &rep);
    struct metads_list *l = calloc(1, sizeof(*l));
    struct mlog_status st;

    if (!l)
        abort();
    mlog_status(t->mlog, &st);
    list_known(t, l);
    list_members(t, l, st.leader_id);
    rep.metads = l->ptr;
    rep.n_metads = l->n;
    rep.term = st.term;
    rep.last_index = st.last;
    rep.commit_index = st.applied;
    rep.leader = st.leader_id;
    rep.self = mlog_id(t->mlog);
    rep.cluster = (char *)(uintptr_t)mlog_uuid(t->mlog);
    rpc_reply(req, &env, NULL);
    free(l);
}

/* ---- changes ---- */

struct metads_call { /* a change that waits for the log */
    struct metads *t;
    struct rpc_req *req;
    uint32_t id;
    bool gives_id, removes;
    int code;
};

static void call_end(struct metads_call *c, int code, const char *text)
{
    Replfs__MetadChangeReply rep = REPLFS__METAD_CHANGE_REPLY__INIT;
    RPC_ENVELOPE(env, METAD_CHANGE_REPLY, metad_change_reply, &rep);

    if (c->gives_id)
        atomic_store(&c->t->joining, false);
    if (c->removes)
        atomic_store(&c->t->removing, 0);
    if (code == 0) {
        rep.id = c->id;
        rep.cluster = (char *)(uintptr_t)mlog_uuid(c->t->mlog);
        rpc_reply(c->req, &env, NULL);
    } else if (code == -ERR_NOT_LEADER) {
        metads_not_leader(c->t, c->req);
    } else {
        rpc_fail(c->req, code, "%s", text);
    }
    free(c);
}

static void metad_applied(void *arg, int code, const struct fsm_result *res)
{
    struct metads_call *c = arg;

    c->code = code != 0 ? code : -res->code;
}

static void propose_metad(struct metads_call *c, Replfs__MetadOp *metad, mlog_after *after)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;

    metad->id = c->id;
    op.op_case = REPLFS__META_OP__OP_METAD;
    op.metad = metad;
    cmd.op = &op;
    mlog_propose(c->t->mlog, &cmd, metad_applied, after, c);
}

static void member_added(void *arg, int code)
{
    struct metads_call *c = arg;

    if (code == 0)
        log_info("metad %" PRIu32
                 " joins: it gets the log and becomes a voter when it has caught up",
                 c->id);
    if (code == -EEXIST)
        code = 0; /* is one already */
    call_end(c, code, "the log's group could not be changed now");
}

static void after_joined(void *arg)
{
    struct metads_call *c = arg;

    if (c->code == -EEXIST && c->gives_id)
        call_end(c, -ERR_BUSY, "its id was given to another metad meanwhile");
    else if (c->code != 0)
        call_end(c, c->code,
                 c->code == -EEXIST
                     ? "this metad was removed: empty its data directory and let it join anew"
                     : "it could not be logged");
    else if (c->gives_id)
        call_end(c, 0, "");
    else
        mlog_change(c->t->mlog, MLOG_ADD, c->id, CHANGE_MS, member_added, c);
}

/* One that has no id, but the address of one that has: that one lost its directory. 0: none. */
static uint32_t metad_at(struct metads *t, const char *addr)
{
    struct fsm_metad m = {.id = 0};
    uint32_t id = 0;

    fsm_rdlock(t->fsm);
    while (id == 0 && fsm_metad_next(t->fsm, m.id, &m))
        if (strcmp(m.addr, addr) == 0)
            id = m.id;
    fsm_unlock(t->fsm);
    return id;
}

static bool is_member_of_log(struct metads *t, uint64_t id)
{
    struct mlog_member all[MLOG_MEMBERS_MAX];
    unsigned n = mlog_members(t->mlog, all);

    for (unsigned i = 0; i < n; i++)
        if (all[i].id == id)
            return true;
    return false;
}

/* Chooses the id of a new one; 0: already answered. */
static uint32_t new_id(struct metads_call *c, const char *addr)
{
    struct metads *t = c->t;
    bool idle = false;
    uint32_t twin = metad_at(t, addr);
    char text[TEXT];

    if (twin != 0 && !is_member_of_log(t, twin)) { /* it asked before, and heard no answer */
        c->id = twin;
        call_end(c, 0, "");
        return 0;
    }
    if (twin != 0) {
        snprintf(text, sizeof(text),
                 "metad %" PRIu32
                 " has that address. If its directory is lost: replfsctl metad remove "
                 "%" PRIu32 ", then let this one join again",
                 twin, twin);
        call_end(c, -EEXIST, text);
        return 0;
    }
    if (!atomic_compare_exchange_strong(&t->joining, &idle, true)) {
        call_end(c, -ERR_BUSY, "another metad joins at this moment");
        return 0;
    }
    c->gives_id = true;
    fsm_rdlock(t->fsm);
    uint32_t id = fsm_metad_new(t->fsm);
    fsm_unlock(t->fsm);
    return id;
}

static void join(struct metads_call *c, const Replfs__MetadChangeReq *r)
{
    Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;
    struct fsm_metad known;

    if (r->addr[0] == 0 || strlen(r->addr) > 255 || strlen(r->name) > 255 ||
        strlen(r->host_id) > 255) {
        call_end(c, -EINVAL, "address missing, or a text too long");
        return;
    }
    if (r->id != 0) {
        c->id = (uint32_t)r->id;
        if (r->id == atomic_load(&c->t->removing)) {
            call_end(c, -ERR_BUSY, "it is being removed");
            return;
        }
        fsm_rdlock(c->t->fsm);
        bool there = r->id <= UINT32_MAX && fsm_metad_find(c->t->fsm, c->id, &known);
        bool same = there && strcmp(known.addr, r->addr) == 0 && strcmp(known.name, r->name) == 0 &&
                    strcmp(known.host_id, r->host_id) == 0;
        fsm_unlock(c->t->fsm);
        if (!there) {
            call_end(c, -ENOENT,
                     "no metad of this cluster has that id (any more): empty its data "
                     "directory and let it join anew");
            return;
        }
        if (same) { /* nothing to log */
            mlog_change(c->t->mlog, MLOG_ADD, c->id, CHANGE_MS, member_added, c);
            return;
        }
    } else {
        uint32_t id = new_id(c, r->addr);
        if (id == 0)
            return; /* it was answered, and c is gone */
        c->id = id;
        metad.fresh = true;
    }
    metad.addr = r->addr;
    metad.name = r->name;
    metad.host_id = r->host_id;
    propose_metad(c, &metad, after_joined);
}

static void after_forgotten(void *arg)
{
    struct metads_call *c = arg;

    call_end(c, c->code == -ENOENT ? 0 : c->code,
             "it is no member any more, but could not be forgotten");
}

static void member_removed(void *arg, int code)
{
    struct metads_call *c = arg;
    Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;

    if (code != 0 && code != -ENOENT) {
        call_end(c, code,
                 code == -EINVAL ? "this metad leads: let it step down first, then remove it"
                                 : "the log's group could not be changed now");
        return;
    }
    if (code == 0)
        log_info("metad %" PRIu32 " was removed", c->id);
    metad.remove = true;
    propose_metad(c, &metad, after_forgotten);
}

static void stepped_down(void *arg, int code)
{
    call_end(arg, code == -ERR_NOT_LEADER ? 0 : code,
             code == -ENOENT ? "there is no other voter that could lead"
                             : "nobody took over in time");
}

static void member_asked(void *arg, int code)
{
    call_end(arg, code, code == -EEXIST ? "it is a member already" : "not now");
}

static void metads_change(struct metads *t, struct rpc_req *req)
{
    const Replfs__MetadChangeReq *r = req->env->metad_change_req;
    bool peer = rpc_conn_peer(req->conn)->role == RPC_ROLE_METAD;
    struct metads_call *c = calloc(1, sizeof(*c));

    if (!c)
        abort();
    *c = (struct metads_call){.t = t, .req = req, .id = (uint32_t)r->id};
    if (!mlog_is_leader(t->mlog)) {
        call_end(c, -ERR_NOT_LEADER, "");
        return;
    }
    if (peer != (r->change == REPLFS__METAD_CHANGE__METAD_JOIN)) {
        call_end(c, -ERR_ROLE, "joining is for metads, everything else for people");
        return;
    }
    switch (r->change) {
    case REPLFS__METAD_CHANGE__METAD_JOIN:
        join(c, r);
        return;
    case REPLFS__METAD_CHANGE__METAD_ADD:
        mlog_change(t->mlog, MLOG_ADD, r->id, CHANGE_MS, member_asked, c);
        return;
    case REPLFS__METAD_CHANGE__METAD_REMOVE:
        c->removes = true;
        atomic_store(&t->removing, r->id);
        mlog_change(t->mlog, MLOG_REMOVE, r->id, CHANGE_MS, member_removed, c);
        return;
    case REPLFS__METAD_CHANGE__METAD_STEP_DOWN:
        if (r->from != 0 && r->from != mlog_id(t->mlog)) { /* asked once more, of the next leader */
            call_end(c, 0, "");
            return;
        }
        mlog_change(t->mlog, MLOG_TRANSFER, r->id, CHANGE_MS, stepped_down, c);
        return;
    }
    call_end(c, -EINVAL, "unknown change");
}

bool metads_serves(enum request r)
{
    return r == REQUEST_RAFT || r == REQUEST_CHECKPOINT || r == REQUEST_METAD_LIST ||
           r == REQUEST_METAD_CHANGE;
}

void metads_request(struct metads *t, struct rpc_req *req)
{
    enum request r = request_of(req->env);

    if (r == REQUEST_RAFT)
        mlog_rpc_raft(t->mlog, req);
    else if (r == REQUEST_CHECKPOINT)
        mlog_rpc_checkpoint(t->mlog, req);
    else if (r == REQUEST_METAD_LIST)
        metads_reply_list(t, req);
    else
        metads_change(t, req);
}
