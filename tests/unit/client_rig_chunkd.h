/* The client rig's chunkds: they keep what is appended to them and fail as rig.node[] says. Part of client_rig.h,
 * for its eyes only. */
#ifndef REPLFS_TESTS_CLIENT_RIG_CHUNKD_H
#define REPLFS_TESTS_CLIENT_RIG_CHUNKD_H
static void rig_store(struct rig_node *n, const Replfs__AppendReq *m, struct buf *data)
{
    for (size_t i = 0; i < n->nrecs; i++) {
        if (n->recs[i].chunk == m->chunk && n->recs[i].off == m->chunk_off)
            return; /* a repetition */
    }
    if (n->nrecs == RIG_RECORDS)
        abort();
    struct rig_record *r = &n->recs[n->nrecs++];
    *r = (struct rig_record){m->chunk, m->chunk_off, m->len, buf_ref(data), malloc(m->crcs.len)};
    memcpy(r->crcs, m->crcs.data, m->crcs.len);
    if (m->sync)
        n->synced = n->nrecs;
}

/* Is [off, off+len) of the chunk on some disk? */
static bool rig_safe(uint64_t chunk, uint32_t off, uint32_t len)
{
    for (size_t k = 1; k <= RIG_NODES; k++) {
        const struct rig_node *n = &rig.node[k];
        uint32_t at = off;
        for (size_t i = 0; i < n->synced && at < off + len; i++) {
            const struct rig_record *r = &n->recs[i];
            if (r->chunk == chunk && r->off <= at && r->off + r->len > at)
                at = r->off + r->len;
        }
        if (at >= off + len)
            return true;
    }
    return false;
}

static void rig_append(uint32_t self, struct rpc_req *req)
{
    const Replfs__AppendReq *m = req->env->append_req;
    uint32_t ids[RIG_NODES], n = 0;
    ids[n++] = self;
    for (size_t i = 0; i < m->n_chain && n < RIG_NODES; i++)
        ids[n++] = m->chain[i]->chunkd;
    if (!req->payload || req->payload->len != m->len || m->crcs.len != 4 * crc_blocks(m->len) ||
        crc_blocks_check(req->payload->data, m->len, m->crcs.data) >= 0) {
        rpc_fail(req, -ERR_CRC, "append does not match its checksums");
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct rig_node *nd = &rig.node[ids[i]];
        nd->appends++;
        if (nd->append_code) {
            Replfs__Failure f = REPLFS__FAILURE__INIT;
            f.code = (uint32_t)(i ? ERR_CHAIN : -nd->append_code);
            f.chunkd = ids[i];
            f.detail = (char *)"scripted";
            rpc_fail_with(req, &f);
            return;
        }
        rig_store(nd, m, req->payload);
    }
    Replfs__AppendReply rep = REPLFS__APPEND_REPLY__INIT;
    uint64_t registrations[RIG_NODES];
    for (uint32_t i = 0; i < n; i++)
        registrations[i] = 1000 + ids[i]; /* what metad called them when they registered */
    rep.n_stored = rep.n_registrations = n;
    rep.stored = ids;
    rep.registrations = registrations;
    RPC_ENVELOPE(env, APPEND_REPLY, append_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void rig_read(uint32_t self, struct rpc_req *req)
{
    struct rig_node *nd = &rig.node[self];
    const Replfs__ReadReq *m = req->env->read_req;
    Replfs__ReadReply rep = REPLFS__READ_REPLY__INIT;
    Replfs__Span spans[64], *list[64];
    nd->reads++;
    if (nd->mute_reads && rig.nmuted < 64) {
        rig.muted[rig.nmuted++] = req;
        return;
    }
    if (nd->read_code) {
        rpc_fail(req, nd->read_code, "scripted");
        return;
    }
    struct buf *out = buf_new(RPC_MAX_PAYLOAD);
    uint32_t pos = m->off;
    while (pos < m->off + m->len && rep.n_spans < 64) {
        struct rig_record *r = NULL;
        for (size_t i = 0; i < nd->nrecs; i++) {
            struct rig_record *c = &nd->recs[i];
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
    if (nd->corrupt || (rig.corrupt_reads && rig.corrupt_reads--))
        out->data[out->len / 2] ^= 1;
    rep.spans = list;
    RPC_ENVELOPE(env, READ_REPLY, read_reply, &rep);
    rpc_reply(req, &env, out);
}

static void rig_sync(uint32_t self, struct rpc_req *req)
{
    Replfs__SyncReply rep = REPLFS__SYNC_REPLY__INIT;
    rig.node[self].syncs++;
    if (rig.node[self].mute_syncs && req->env->sync_req->n_chunks && rig.nmuted < 64) {
        rig.muted[rig.nmuted++] = req;
        return;
    }
    if (rig.node[self].sync_code && req->env->sync_req->n_chunks) {
        rpc_fail(req, rig.node[self].sync_code, "scripted");
        return;
    }
    if (req->env->sync_req->n_chunks)
        rig.node[self].synced = rig.node[self].nrecs;
    RPC_ENVELOPE(env, SYNC_REPLY, sync_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void rig_chunkd(void *arg, struct rpc_req *req)
{
    uint32_t self = (uint32_t)(uintptr_t)arg;
    pthread_mutex_lock(&rig.mu);
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_APPEND_REQ) {
        rig_append(self, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_READ_REQ) {
        rig_read(self, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_SYNC_REQ) {
        rig_sync(self, req);
    } else {
        rpc_fail(req, -ERR_PROTOCOL, "not in the script");
    }
    pthread_mutex_unlock(&rig.mu);
}

#endif
