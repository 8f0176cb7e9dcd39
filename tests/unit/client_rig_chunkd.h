/* The client rig's chunkds: they keep what is appended to them and fail as rig.node[] says. Part of client_rig.h,
 * for its eyes only. */
#ifndef REPLFS_TESTS_CLIENT_RIG_CHUNKD_H
#define REPLFS_TESTS_CLIENT_RIG_CHUNKD_H
static void client_rig_store(struct client_rig_node *n, const Replfs__AppendReq *m,
                             struct buf *data)
{
    for (size_t i = 0; i < n->nrecs; i++) {
        if (n->recs[i].chunk == m->chunk && n->recs[i].off == m->chunk_off)
            return; /* a repetition */
    }
    if (n->nrecs == CLIENT_RIG_RECORDS)
        abort();
    struct client_rig_record *r = &n->recs[n->nrecs++];
    *r = (struct client_rig_record){m->chunk, m->chunk_off, m->len, buf_ref(data),
                                    malloc(m->crcs.len)};
    memcpy(r->crcs, m->crcs.data, m->crcs.len);
    if (m->sync)
        n->synced = n->nrecs;
}

/* Is [off, off+len) of the chunk on some disk? */
static bool client_rig_safe(uint64_t chunk, uint32_t off, uint32_t len)
{
    for (size_t k = 1; k <= CLIENT_RIG_NODES; k++) {
        const struct client_rig_node *n = &client_rig.node[k];
        uint32_t at = off;
        for (size_t i = 0; i < n->synced && at < off + len; i++) {
            const struct client_rig_record *r = &n->recs[i];
            if (r->chunk == chunk && r->off <= at && r->off + r->len > at)
                at = r->off + r->len;
        }
        if (at >= off + len)
            return true;
    }
    return false;
}

static void client_rig_append(uint32_t self, struct rpc_req *req)
{
    const Replfs__AppendReq *m = req->env->append_req;
    uint32_t ids[CLIENT_RIG_NODES], n = 0;
    ids[n++] = self;
    for (size_t i = 0; i < m->n_chain && n < CLIENT_RIG_NODES; i++)
        ids[n++] = m->chain[i]->chunkd;
    if (!req->payload || req->payload->len != m->len || m->crcs.len != 4 * crc_blocks(m->len) ||
        crc_blocks_check(req->payload->data, m->len, m->crcs.data) >= 0) {
        rpc_fail(req, -ERR_CRC, "append does not match its checksums");
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct client_rig_node *nd = &client_rig.node[ids[i]];
        nd->appends++;
        int code = i && nd->hop_code ? nd->hop_code : nd->append_code;
        if (code) {
            Replfs__Failure f = REPLFS__FAILURE__INIT;
            f.code = (uint32_t)(i ? ERR_CHAIN : -code);
            f.cause = (uint32_t)(i ? -code : 0);
            f.chunkd = ids[i];
            f.detail = (char *)"scripted";
            rpc_fail_with(req, &f);
            return;
        }
        client_rig_store(nd, m, req->payload);
    }
    Replfs__AppendReply rep = REPLFS__APPEND_REPLY__INIT;
    uint64_t registrations[CLIENT_RIG_NODES];
    for (uint32_t i = 0; i < n; i++)
        registrations[i] = client_rig.node[ids[i]].registration;
    rep.n_stored = rep.n_registrations = n;
    rep.stored = ids;
    rep.registrations = registrations;
    RPC_ENVELOPE(env, APPEND_REPLY, append_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void client_rig_read(uint32_t self, struct rpc_req *req)
{
    struct client_rig_node *nd = &client_rig.node[self];
    const Replfs__ReadReq *m = req->env->read_req;
    Replfs__ReadReply rep = REPLFS__READ_REPLY__INIT;
    Replfs__Span spans[64], *list[64];
    nd->reads++;
    if (nd->mute_reads && client_rig.nmuted < 64) {
        client_rig.muted[client_rig.nmuted++] = req;
        return;
    }
    if (nd->read_code) {
        rpc_fail(req, nd->read_code, "scripted");
        return;
    }
    struct buf *out = buf_new(RPC_MAX_PAYLOAD);
    uint32_t pos = m->off;
    while (pos < m->off + m->len && rep.n_spans < 64) {
        struct client_rig_record *r = NULL;
        for (size_t i = 0; i < nd->nrecs; i++) {
            struct client_rig_record *c = &nd->recs[i];
            if (c->chunk == m->chunk && c->off <= pos && c->off + c->len > pos)
                r = c;
        }
        if (!r)
            break;
        uint32_t from = (pos - r->off) / CRC_BLOCK * CRC_BLOCK, to = m->off + m->len - r->off;
        to = (to + CRC_BLOCK - 1) / CRC_BLOCK * CRC_BLOCK;
        to = to < r->len ? to : r->len;
        Replfs__Span *s = &spans[rep.n_spans];
        replfs__span__init(s);
        s->chunk_off = r->off + from;
        s->len = to - from;
        s->crcs = (ProtobufCBinaryData){4 * crc_blocks(s->len), r->crcs + from / CRC_BLOCK * 4};
        memcpy(out->data + out->len, r->data->data + from, s->len);
        out->len += s->len;
        list[rep.n_spans++] = s;
        pos = r->off + to;
    }
    if (pos < m->off + m->len) {
        buf_unref(out);
        rpc_fail(req, -ERR_NO_CHUNK, "not here");
        return;
    }
    if (nd->corrupt || (client_rig.corrupt_reads && client_rig.corrupt_reads--))
        out->data[out->len / 2] ^= 1;
    rep.spans = list;
    RPC_ENVELOPE(env, READ_REPLY, read_reply, &rep);
    rpc_reply(req, &env, out);
}

static void client_rig_sync(uint32_t self, struct rpc_req *req)
{
    Replfs__SyncReply rep = REPLFS__SYNC_REPLY__INIT;
    client_rig.node[self].syncs++;
    if (client_rig.node[self].mute_syncs && req->env->sync_req->n_chunks &&
        client_rig.nmuted < 64) {
        client_rig.muted[client_rig.nmuted++] = req;
        return;
    }
    if (client_rig.node[self].sync_code && req->env->sync_req->n_chunks) {
        rpc_fail(req, client_rig.node[self].sync_code, "scripted");
        return;
    }
    if (req->env->sync_req->n_chunks)
        client_rig.node[self].synced = client_rig.node[self].nrecs;
    RPC_ENVELOPE(env, SYNC_REPLY, sync_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void client_rig_order(struct rpc_req *req);

static void client_rig_chunkd(void *arg, struct rpc_req *req)
{
    uint32_t self = (uint32_t)(uintptr_t)arg;
    client_rig_lock();
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_APPEND_REQ) {
        client_rig_append(self, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_READ_REQ) {
        client_rig_read(self, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_SYNC_REQ) {
        client_rig_sync(self, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_ORDER_REQ) {
        client_rig_order(req);
    } else {
        rpc_fail(req, -ERR_PROTOCOL, "not in the script");
    }
    client_rig_unlock();
}

/* ---- metad's side of a chunkd ---- */

/* Copies are as good as metad thinks they are; nothing is copied here. */
static void client_rig_order(struct rpc_req *req)
{
    const Replfs__OrderReq *o = req->env->order_req;
    Replfs__OrderReply rep = REPLFS__ORDER_REPLY__INIT;
    RPC_ENVELOPE(env, ORDER_REPLY, order_reply, &rep);
    if (o->order_case == REPLFS__ORDER_REQ__ORDER_COPY) {
        rpc_fail(req, -EIO, "not in the script");
        return;
    }
    if (o->order_case == REPLFS__ORDER_REQ__ORDER_VERIFY)
        rep.len = rep.stored = 64u << 20;
    rpc_reply(req, &env, NULL);
}

/* One heartbeat, and that it has nothing: so it counts as up. */
static int client_rig_beat(uint32_t id, Replfs__DiskStat *disk)
{
    Replfs__HeartbeatReq h = REPLFS__HEARTBEAT_REQ__INIT;
    struct rpc_result res;
    h.chunkd = id;
    h.seq = 1;
    h.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    h.disks = &disk;
    h.n_disks = 1;
    RPC_ENVELOPE(env, HEARTBEAT_REQ, heartbeat_req, &h);
    int rc = rpc_call_wait(client_rig.node[id].metad, &env, NULL, PATIENCE_MS, &res);
    rpc_result_free(&res);
    if (rc)
        return rc;
    Replfs__ReportReq r = REPLFS__REPORT_REQ__INIT;
    r.chunkd = id;
    r.report = 1;
    r.first = r.last = true;
    RPC_ENVELOPE(report, REPORT_REQ, report_req, &r);
    rc = rpc_call_wait(client_rig.node[id].metad, &report, NULL, PATIENCE_MS, &res);
    rpc_result_free(&res);
    return rc;
}

/* The third has little room, so that it gets new chunks only where the others do not suffice. */
static int client_rig_register(uint32_t id)
{
    struct client_rig_node *n = &client_rig.node[id];
    Replfs__RegisterReq r = REPLFS__REGISTER_REQ__INIT;
    Replfs__DiskStat disk = REPLFS__DISK_STAT__INIT, *disks = &disk;
    static struct rpc_service svc[CLIENT_RIG_NODES + 1];
    struct rpc_result res;
    char metad[32], host[16];
    svc[id] = (struct rpc_service){.request = client_rig_chunkd, .arg = (void *)(uintptr_t)id};
    snprintf(metad, sizeof metad, "127.0.0.1:%d", md.port);
    snprintf(host, sizeof host, "host %u", id);
    if (rpc_dial(client_rig.chunkds, metad, RPC_ROLE_METAD, &svc[id], &n->metad))
        return -1;
    disk.avail = disk.fs_avail = id == 3 ? 64ull << 20 : 1ull << 39;
    disk.capacity = disk.fs_capacity = 1ull << 40;
    disk.path = (char *)"/srv/disk";
    r.cluster = (char *)"";
    r.host_id = r.host_name = host;
    r.addr = client_rig.addr[id];
    r.boot_id = host;
    r.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    r.disks = &disks;
    r.n_disks = 1;
    RPC_ENVELOPE(env, REGISTER_REQ, register_req, &r);
    int rc = rpc_call_wait(n->metad, &env, NULL, PATIENCE_MS, &res);
    if (!rc && res.rep->register_reply->chunkd == id)
        n->registration = res.rep->register_reply->registration;
    rpc_result_free(&res);
    return n->registration ? client_rig_beat(id, disks) : -1;
}

static bool client_rig_all_up(void)
{
    Replfs__NodesReq m = REPLFS__NODES_REQ__INIT;
    struct rpc_result res;
    unsigned up = 0;
    m.session = me.session;
    RPC_ENVELOPE(env, NODES_REQ, nodes_req, &m);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    for (size_t i = 0; i < res.rep->nodes_reply->n_nodes; i++)
        up += res.rep->nodes_reply->nodes[i]->state == REPLFS__NODE_STATE__NODE_UP;
    rpc_result_free(&res);
    return up == CLIENT_RIG_NODES;
}

static int client_rig_chunkds_up(void)
{
    static struct rpc_service svc[CLIENT_RIG_NODES + 1];
    struct rpc_config cc = {.role = RPC_ROLE_CHUNKD, .name = "scripted", .threads = 1};
    if (rpc_loop_new(&cc, &client_rig.chunkds))
        return -1;
    for (uint32_t i = 1; i <= CLIENT_RIG_NODES; i++) {
        svc[i] = (struct rpc_service){.request = client_rig_chunkd,
                                      .arg = (void *)(uintptr_t)i,
                                      .cluster = mlog_uuid(md.mlog)};
        if (rpc_listen(client_rig.chunkds, "127.0.0.1:0", &svc[i], &client_rig.node[i].port))
            return -1;
        snprintf(client_rig.addr[i], sizeof(client_rig.addr[i]), "127.0.0.1:%d",
                 client_rig.node[i].port);
        if (client_rig_register(i))
            return -1;
    }
    WAIT_UNTIL(client_rig_all_up());
    return 0;
}

static void client_rig_chunkds_down(void)
{
    for (uint32_t i = 1; i <= CLIENT_RIG_NODES; i++)
        rpc_conn_unref(client_rig.node[i].metad);
    rpc_loop_free(client_rig.chunkds);
    for (uint32_t i = 1; i <= CLIENT_RIG_NODES; i++) {
        for (size_t k = 0; k < client_rig.node[i].nrecs; k++) {
            buf_unref(client_rig.node[i].recs[k].data);
            free(client_rig.node[i].recs[k].crcs);
        }
    }
}
#endif
