/* The client rig's way to metad: what a client sends goes through here to a real metad, and the answers come
 * back through here, as the test has said: held, refused, lost after it was done, or with less in it. What metad
 * asks of the client (recalls) goes the other way untouched. Part of client_rig.h, for its eyes only.
 *
 * Each connection of a client has one of its own to metad, which ends with it, and the other way round. All
 * handlers run on loop threads with client_rig.mu held; the counters of the rig are of what metad has done. */
#ifndef REPLFS_TESTS_CLIENT_RIG_METAD_H
#define REPLFS_TESTS_CLIENT_RIG_METAD_H

struct client_rig_link {
    struct rpc_conn *down, *up; /* to the client, to metad */
    struct rpc_service *svc;
    struct client_rig_link *next;
};
struct client_rig_pass { /* a request on its way to metad */
    struct rpc_req *req;
    bool keep;        /* its answer, for the test to give */
    int fail;         /* answered instead, once it is done */
    size_t n;         /* of a MutateReq: operations, */
    uint32_t *refuse; /* with the code that the test answers instead of metad, or 0 */
};

static void client_rig_forward(struct client_rig_pass *p, Replfs__Envelope *env);
static inline int client_rig_make_size(uint64_t ino, uint64_t size);

/* ---- what would be lost ---- */

static void client_rig_unsafe_commit(const Replfs__CommitOp *op)
{
    uint64_t base = op->append ? client_rig_attr(op->ino).size : 0;
    for (size_t i = 0; i < op->n_extents; i++) {
        const Replfs__Extent *x = op->extents[i];
        uint64_t at = base + x->file_off;
        uint64_t end = at + x->len < client_rig.had ? at + x->len : client_rig.had;
        if (at < end && !client_rig_safe(x->chunk, x->chunk_off, (uint32_t)(end - at)))
            client_rig.unsafe++;
        if (client_rig.had < at + x->len)
            client_rig.had = at + x->len;
    }
}

/* Bytes [off, end) of ino are about to displace others. */
static void client_rig_unsafe_range(uint64_t ino, uint64_t off, uint64_t end)
{
    const struct extmap *map;
    struct ext e;
    fsm_rdlock(md.fsm);
    if (!fsm_extents(md.fsm, ino, &map)) {
        for (uint64_t at = off; extmap_find(map, at, &e) && e.file_off < end;
             at = e.file_off + e.len)
            client_rig.unsafe += e.chunk && !client_rig_safe(e.chunk, e.chunk_off, e.len);
    }
    fsm_unlock(md.fsm);
}

/* Counts what displaces bytes that were safe and is on no disk yet itself. */
static void client_rig_look_for_loss(const Replfs__MetaOp *op)
{
    uint64_t ino = 0, over = 0;
    if (op->op_case == REPLFS__META_OP__OP_COMMIT) {
        client_rig_unsafe_commit(op->commit);
    } else if (op->op_case == REPLFS__META_OP__OP_CLONE) {
        if (op->clone->dst_off < client_rig_attr(op->clone->dst).size)
            client_rig_unsafe_range(op->clone->src, op->clone->src_off,
                                    op->clone->src_off + op->clone->len);
    } else if (op->op_case == REPLFS__META_OP__OP_RENAME) {
        fsm_rdlock(md.fsm);
        fsm_lookup(md.fsm, op->rename->parent, op->rename->name.data, op->rename->name.len, &ino);
        fsm_lookup(md.fsm, op->rename->new_parent, op->rename->new_name.data,
                   op->rename->new_name.len, &over);
        fsm_unlock(md.fsm);
        if (ino && over)
            client_rig_unsafe_range(ino, 0, UINT64_MAX);
    }
}

/* ---- changes ---- */

/* What the test answers instead of metad, as a positive code. */
static uint32_t client_rig_refusal(const Replfs__Mutation *m)
{
    if (m->kept && client_rig.kept_code)
        return (uint32_t)client_rig.kept_code;
    if (m->op->op_case == REPLFS__META_OP__OP_CREATE)
        return (uint32_t)client_rig.create_code;
    if (m->op->op_case == REPLFS__META_OP__OP_COMMIT)
        return (uint32_t)-client_rig.commit_code;
    return 0;
}

/* Somebody else appends so many bytes first. */
static void client_rig_foreign_append(uint64_t ino)
{
    client_rig_make_size(ino, client_rig_attr(ino).size + client_rig.foreign);
    client_rig.foreign = 0;
}

/* metad refuses it, so it is left as it is. */
static bool client_rig_overlaps(const Replfs__CloneOp *op)
{
    uint64_t size = client_rig_attr(op->src).size;
    uint64_t len = op->src_off >= size ? 0 : size - op->src_off;
    len = len < op->len ? len : op->len;
    return op->src == op->dst && op->src_off < op->dst_off + len && op->dst_off < op->src_off + len;
}

/* A change as metad is to have it: copies in *m, *op and *body are changed where the test says so. */
static Replfs__Mutation *client_rig_shape(Replfs__Mutation *in, Replfs__Mutation *m,
                                          Replfs__MetaOp *op, Replfs__CloneOp *clone,
                                          Replfs__FallocateOp *fallocate)
{
    uint64_t step = client_rig.step;
    *m = *in;
    *op = *in->op;
    m->op = op;
    if (op->op_case == REPLFS__META_OP__OP_CLONE && step && op->clone->len > step &&
        !client_rig_overlaps(op->clone)) {
        *clone = *op->clone;
        clone->len = step;
        op->clone = clone;
    } else if (op->op_case == REPLFS__META_OP__OP_FALLOCATE && step && op->fallocate->len > step) {
        *fallocate = *op->fallocate;
        fallocate->len = step;
        op->fallocate = fallocate;
    }
    return m;
}

static void client_rig_executed(const Replfs__Mutation *m, const Replfs__MutationResult *r)
{
    const Replfs__MetaOp *op = m->op;
    if (m->seq <= client_rig.last_seq) /* answered once more */
        return;
    client_rig.last_seq = m->seq;
    client_rig.mutations++;
    client_rig.kept += m->kept;
    if (op->op_case == REPLFS__META_OP__OP_SETATTR) {
        client_rig.setattrs += !r->code && !(op->setattr->valid & REPLFS__SETATTR_OP__VALID__SIZE);
    } else if (op->op_case == REPLFS__META_OP__OP_CREATE) {
        client_rig.creates++;
    } else if (op->op_case == REPLFS__META_OP__OP_UNLINK) {
        client_rig.unlinks++;
        client_rig.unlinked = op->unlink->ino;
        client_rig.creates_then = client_rig.creates;
    } else if (op->op_case == REPLFS__META_OP__OP_RENAME) {
        client_rig.renames++;
        client_rig.creates_then = client_rig.creates;
    } else if (op->op_case == REPLFS__META_OP__OP_COMMIT) {
        client_rig.commits += !r->code;
    }
}

/* metad's answer, or NULL when all was refused by the test. */
static void client_rig_mutated(struct client_rig_pass *p, const Replfs__MutateReply *r)
{
    const Replfs__MutateReq *m = p->req->env->mutate_req;
    Replfs__MutateReply rep = REPLFS__MUTATE_REPLY__INIT;
    Replfs__MutationResult *own = calloc(p->n, sizeof *own), **list = calloc(p->n, sizeof *list);
    for (size_t i = 0, k = 0; i < p->n; i++) {
        replfs__mutation_result__init(&own[i]);
        own[i].seq = m->ops[i]->seq;
        own[i].code = p->refuse[i];
        list[i] = p->refuse[i] ? &own[i] : r->results[k++];
        client_rig_executed(m->ops[i], list[i]);
    }
    rep.position = r ? r->position : 0;
    rep.results = list;
    rep.n_results = p->n;
    RPC_ENVELOPE(env, MUTATE_REPLY, mutate_reply, &rep);
    if (p->fail) {
        rpc_fail(p->req, p->fail, "scripted");
    } else if (client_rig.drop_replies) { /* done, but the answer is lost with the connection */
        client_rig.drop_replies--;
        rpc_fail(p->req, -ERR_NOT_LEADER, "scripted");
    } else {
        rpc_reply(p->req, &env, NULL);
    }
    free(own);
    free(list);
}

static void client_rig_pass_free(struct client_rig_pass *p)
{
    free(p->refuse);
    free(p);
}

static struct client_rig_pass *client_rig_pass_new(struct rpc_req *req)
{
    struct client_rig_pass *p = calloc(1, sizeof *p);
    p->req = req;
    return p;
}

static void client_rig_mutate(struct rpc_req *req)
{
    const Replfs__MutateReq *m = req->env->mutate_req;
    Replfs__MutateReq out = *m;
    struct client_rig_pass *p;
    if (client_rig.fail_code && !client_rig.fail_done) {
        rpc_fail(req, client_rig.fail_code, "scripted");
        return;
    }
    p = client_rig_pass_new(req);
    p->n = m->n_ops;
    p->fail = client_rig.fail_code;
    p->refuse = calloc(p->n, sizeof *p->refuse);
    struct {
        Replfs__Mutation m;
        Replfs__MetaOp op;
        Replfs__CloneOp clone;
        Replfs__FallocateOp fallocate;
    } *shape = calloc(p->n, sizeof *shape);
    out.ops = calloc(p->n, sizeof *out.ops);
    out.n_ops = 0;
    for (size_t i = 0; i < p->n; i++) {
        Replfs__Mutation *op = m->ops[i];
        p->refuse[i] = client_rig_refusal(op);
        if (p->refuse[i])
            continue;
        if (op->op->op_case == REPLFS__META_OP__OP_COMMIT && op->op->commit->append &&
            client_rig.foreign)
            client_rig_foreign_append(op->op->commit->ino);
        if (op->seq > client_rig.last_seq)
            client_rig_look_for_loss(op->op);
        out.ops[out.n_ops++] =
            client_rig_shape(op, &shape[i].m, &shape[i].op, &shape[i].clone, &shape[i].fallocate);
    }
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &out);
    if (out.n_ops) {
        client_rig_forward(p, &env);
    } else {
        client_rig_mutated(p, NULL);
        client_rig_pass_free(p);
    }
    free(shape);
    free(out.ops);
}

/* ---- answers ---- */

static void client_rig_shape_layout(Replfs__LayoutReply *r)
{
    if (!r)
        return;
    r->nodes_epoch += client_rig.epoch;
    for (size_t i = 0; i < r->n_chunks; i++) {
        Replfs__ChunkLoc *l = r->chunks[i];
        size_t known = client_rig.nowhere ? 0 : client_rig.copies_known;
        l->n_chunkds = l->n_chunkds < known ? l->n_chunkds : known;
        l->lost = client_rig.nowhere && client_rig.lost;
    }
}

static int client_rig_by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* So that a test knows who comes first in a chain. */
static void client_rig_shape_grants(Replfs__GrantReply *r)
{
    r->nodes_epoch += client_rig.epoch;
    for (size_t i = 0; i < r->n_grants; i++) {
        const Replfs__ChunkLoc *l = r->grants[i];
        struct client_rig_cap *cap = &client_rig.caps[client_rig.ncaps++ % CLIENT_RIG_CAPS];
        qsort(l->chunkds, l->n_chunkds, sizeof *l->chunkds, client_rig_by_id);
        cap->chunk = l->chunk;
        memcpy(cap->cap, l->cap.data, sizeof cap->cap);
    }
    client_rig.grants++;
}

/* The chunkds as the test says they are. */
static void client_rig_reply_nodes(struct rpc_req *req, const Replfs__NodesReply *r)
{
    Replfs__NodesReply rep = REPLFS__NODES_REPLY__INIT;
    Replfs__NodeAddr n[CLIENT_RIG_NODES], *list[CLIENT_RIG_NODES];
    char first[64] = "";
    for (size_t i = 0; i < r->n_nodes; i++)
        if (r->nodes[i]->chunkd == 1)
            snprintf(first, sizeof first, "%s", r->nodes[i]->host_id);
    for (size_t i = 0; i < r->n_nodes && rep.n_nodes < CLIENT_RIG_NODES; i++) {
        uint32_t id = r->nodes[i]->chunkd;
        if (id == 3 && client_rig.only_two)
            continue;
        n[rep.n_nodes] = *r->nodes[i];
        if (id == 2 && client_rig.one_host)
            n[rep.n_nodes].host_id = first;
        if (id == 3 && client_rig.third_down)
            n[rep.n_nodes].state = REPLFS__NODE_STATE__NODE_DEAD;
        list[rep.n_nodes] = &n[rep.n_nodes];
        rep.n_nodes++;
    }
    rep.nodes = list;
    rep.epoch = r->epoch + client_rig.epoch;
    RPC_ENVELOPE(env, NODES_REPLY, nodes_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void client_rig_session_opened(struct rpc_req *req, Replfs__SessionReply *r)
{
    const Replfs__SessionReq *m = req->env->session_req;
    if (client_rig.session != r->session)
        client_rig.last_seq = 0;
    client_rig.session = r->session;
    client_rig.claims = m->n_exclusive;
    client_rig.open = m->n_open_inos;
    client_rig.unanswered = m->n_unanswered_creates;
    client_rig.claimed_locks = m->n_locks;
    client_rig.lapses = r->lapses;
    client_rig.sessions++;
    if (!client_rig.leases)
        r->term_ms = 0;
    if (client_rig.nmetads) { /* of our own; nothing of it is freed one by one */
        r->metads = client_rig.metads;
        r->n_metads = client_rig.nmetads;
    }
}

static void client_rig_keepalive(Replfs__KeepaliveReply *r)
{
    if (!client_rig.leases)
        r->term_ms = 0;
    r->nodes_epoch += client_rig.epoch;
    if (client_rig.nmetads) {
        r->metads = client_rig.metads;
        r->n_metads = client_rig.nmetads;
    }
}

/* Makes of what metad said what the client is to hear. True: it was answered. */
static bool client_rig_shape_reply(struct client_rig_pass *p, Replfs__Envelope *rep)
{
    if (rep->body_case == REPLFS__ENVELOPE__BODY_MUTATE_REPLY) {
        client_rig_mutated(p, rep->mutate_reply);
        return true;
    }
    if (rep->body_case == REPLFS__ENVELOPE__BODY_NODES_REPLY) {
        client_rig_reply_nodes(p->req, rep->nodes_reply);
        return true;
    }
    if (rep->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REPLY && p->keep) {
        client_rig.kept_getattr = p->req;
        client_rig.kept_attr = *rep->getattr_reply->attr;
        return true;
    }
    if (client_rig.crowded && rep->body_case == REPLFS__ENVELOPE__BODY_OPEN_REPLY)
        rep->open_reply->lease = 0;
    if (client_rig.crowded && rep->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REPLY)
        rep->getattr_reply->lease = 0;
    if (client_rig.crowded && rep->body_case == REPLFS__ENVELOPE__BODY_LEASE_REPLY)
        rep->lease_reply->lease = 0;
    if (rep->body_case == REPLFS__ENVELOPE__BODY_SESSION_REPLY)
        client_rig_session_opened(p->req, rep->session_reply);
    else if (rep->body_case == REPLFS__ENVELOPE__BODY_KEEPALIVE_REPLY)
        client_rig_keepalive(rep->keepalive_reply);
    else if (rep->body_case == REPLFS__ENVELOPE__BODY_GRANT_REPLY)
        client_rig_shape_grants(rep->grant_reply);
    else if (rep->body_case == REPLFS__ENVELOPE__BODY_OPEN_REPLY)
        client_rig_shape_layout(rep->open_reply->layout);
    else if (rep->body_case == REPLFS__ENVELOPE__BODY_LAYOUT_REPLY)
        client_rig_shape_layout(rep->layout_reply);
    else if (rep->body_case == REPLFS__ENVELOPE__BODY_LAYOUTS_REPLY)
        for (size_t i = 0; i < rep->layouts_reply->n_files; i++)
            client_rig_shape_layout(rep->layouts_reply->files[i]);
    return false;
}

static void client_rig_answered(void *arg, int code, const Replfs__Envelope *rep,
                                struct buf *payload)
{
    struct client_rig_pass *p = arg;
    client_rig_lock();
    if (!rep) {
        rpc_fail(p->req, code ? code : -ERR_PEER_GONE, "no answer of metad");
    } else {
        /* ours as long as this runs, and nobody else looks at it */
        Replfs__Envelope *shaped = (Replfs__Envelope *)(uintptr_t)rep, out = *rep;
        if (!client_rig_shape_reply(p, shaped))
            rpc_reply(p->req, &out, buf_ref(payload));
    }
    client_rig_unlock();
    client_rig_pass_free(p);
}

/* ---- requests ---- */

static void client_rig_forward(struct client_rig_pass *p, Replfs__Envelope *env)
{
    struct client_rig_link *l = rpc_conn_data(p->req->conn);
    int64_t left = (p->req->deadline - clock_mono()) / NSEC_PER_MSEC;
    env->trace = p->req->trace;
    if (l && l->up) {
        rpc_call(l->up, env, buf_ref(p->req->payload), left > 1 ? (unsigned)left : 1,
                 client_rig_answered, p);
    } else {
        rpc_fail(p->req, -ERR_SHUTDOWN, "no way to metad");
        client_rig_pass_free(p);
    }
}

static void client_rig_pass_on(struct rpc_req *req, bool keep)
{
    struct client_rig_pass *p = client_rig_pass_new(req);
    Replfs__Envelope env = *req->env;
    p->keep = keep;
    client_rig_forward(p, &env);
}

/* Chunkds that are away by what the test says get no new chunks. */
static void client_rig_grant(struct rpc_req *req)
{
    Replfs__GrantReq m = *req->env->grant_req;
    uint32_t exclude[CLIENT_RIG_NODES + 8];
    if (client_rig.grant_code) {
        rpc_fail(req, client_rig.grant_code, "scripted: chunkd 9 is missing");
        return;
    }
    client_rig.nexclude = m.n_exclude < 8 ? m.n_exclude : 8;
    if (client_rig.nexclude)
        memcpy(client_rig.last_exclude, m.exclude, client_rig.nexclude * sizeof *m.exclude);
    memcpy(exclude, client_rig.last_exclude, sizeof client_rig.last_exclude);
    m.exclude = exclude;
    m.n_exclude = client_rig.nexclude;
    if (client_rig.third_down || client_rig.only_two)
        exclude[m.n_exclude++] = 3;
    else if (client_rig.one_host)
        exclude[m.n_exclude++] = 2;
    RPC_ENVELOPE(env, GRANT_REQ, grant_req, &m);
    client_rig_forward(client_rig_pass_new(req), &env);
}

static void client_rig_open_req(struct rpc_req *req)
{
    client_rig.opens += !client_rig.grace;
    client_rig.opens_refused += client_rig.grace;
    if (client_rig.grace)
        rpc_fail(req, -ERR_BUSY, "scripted");
    else
        client_rig_pass_on(req, false);
}

/* What a test wants to know of requests that go through as they are. */
static void client_rig_note(const struct rpc_req *req)
{
    const Replfs__Envelope *env = req->env;
    bool one = env->body_case == REPLFS__ENVELOPE__BODY_GETXATTR_REQ;
    if (env->body_case == REPLFS__ENVELOPE__BODY_REPORT_BAD_REQ) {
        client_rig.bad_reports++;
        client_rig.last_bad_chunkd = env->report_bad_req->chunkd;
    } else if (one || env->body_case == REPLFS__ENVELOPE__BODY_LISTXATTR_REQ) {
        client_rig.xattr_session = one ? env->getxattr_req->session : env->listxattr_req->session;
        client_rig.commits_asked = client_rig.commits;
    }
}

static void client_rig_metad(void *arg, struct rpc_req *req)
{
    Replfs__Envelope__BodyCase body = req->env->body_case;
    (void)arg;
    client_rig_lock();
    if ((size_t)req->env->body_case < CLIENT_RIG_BODIES)
        client_rig.asked[req->env->body_case]++;
    if (body == REPLFS__ENVELOPE__BODY_MUTATE_REQ) {
        if (client_rig.hold && client_rig.nheld < 64)
            client_rig.held[client_rig.nheld++] = req;
        else
            client_rig_mutate(req);
    } else if (body == REPLFS__ENVELOPE__BODY_GRANT_REQ) {
        client_rig_grant(req);
    } else if (body == REPLFS__ENVELOPE__BODY_OPEN_REQ) {
        client_rig_open_req(req);
    } else {
        client_rig_note(req);
        client_rig_pass_on(req,
                           body == REPLFS__ENVELOPE__BODY_GETATTR_REQ && client_rig.keep_getattr);
        if (body == REPLFS__ENVELOPE__BODY_GETATTR_REQ)
            client_rig.keep_getattr = false;
    }
    client_rig_unlock();
}

/* ---- what metad asks ---- */

static void client_rig_told(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    if (rep) {
        Replfs__Envelope out = *rep;
        rpc_reply(arg, &out, buf_ref(payload));
    } else {
        rpc_fail(arg, code ? code : -ERR_PEER_GONE, "no answer of the client");
    }
}

static void client_rig_asked_by_metad(void *arg, struct rpc_req *req)
{
    struct client_rig_link *l = arg;
    Replfs__Envelope env = *req->env;
    int64_t left = (req->deadline - clock_mono()) / NSEC_PER_MSEC;
    client_rig_lock();
    client_rig.recalls++;
    client_rig_unlock();
    rpc_call(l->down, &env, buf_ref(req->payload), left > 1 ? (unsigned)left : 1, client_rig_told,
             req);
}

static void client_rig_up_closed(void *arg, struct rpc_conn *c)
{
    (void)c;
    rpc_conn_close(((struct client_rig_link *)arg)->down);
}

static void client_rig_opened(void *arg, struct rpc_conn *c)
{
    struct client_rig_link *l = calloc(1, sizeof *l);
    struct rpc_service *svc = calloc(1, sizeof *svc);
    char addr[64];
    (void)arg;
    *svc = (struct rpc_service){
        .request = client_rig_asked_by_metad, .closed = client_rig_up_closed, .arg = l};
    l->svc = svc;
    l->down = rpc_conn_ref(c);
    snprintf(addr, sizeof addr, "127.0.0.1:%d", md.port);
    if (rpc_dial(client_rig.back, addr, RPC_ROLE_METAD, svc, &l->up))
        l->up = NULL;
    client_rig_lock();
    l->next = client_rig.links;
    client_rig.links = l;
    rpc_conn_set_data(c, l);
    client_rig_unlock();
}

static void client_rig_closed(void *arg, struct rpc_conn *c)
{
    struct client_rig_link *l = rpc_conn_data(c);
    (void)arg;
    if (l && l->up)
        rpc_conn_close(l->up);
}

/* After both loops have ended. */
static void client_rig_links_free(void)
{
    for (struct client_rig_link *l = client_rig.links, *next; l; l = next) {
        next = l->next;
        rpc_conn_unref(l->down);
        rpc_conn_unref(l->up);
        free(l->svc);
        free(l);
    }
}
#endif
