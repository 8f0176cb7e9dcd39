/* A chunkd that has nothing and takes everything, for test_leader.c alone: registers, reports, and does what it is
 * ordered by saying so. */
#ifndef REPLFS_TESTS_LEADER_CHUNKD_H
#define REPLFS_TESTS_LEADER_CHUNKD_H
struct chunkd_link {
    struct rpc_loop *loop;
    struct rpc_conn *conn;
    struct rpc_service svc;
    uint64_t seq;
};

static void chunkd_ordered(void *arg, struct rpc_req *req)
{
    Replfs__OrderReply rep = REPLFS__ORDER_REPLY__INIT;
    RPC_ENVELOPE(env, ORDER_REPLY, order_reply, &rep);

    (void)arg;
    MUST(req->env->body_case == REPLFS__ENVELOPE__BODY_ORDER_REQ);
    if (req->env->order_req->order_case == REPLFS__ORDER_REQ__ORDER_VERIFY)
        rep.len = rep.stored = req->env->order_req->verify->len;
    rpc_reply(req, &env, NULL);
}

static int chunkd_register(struct chunkd_link *c)
{
    Replfs__RegisterReq r = REPLFS__REGISTER_REQ__INIT;
    Replfs__ReportReq report = REPLFS__REPORT_REQ__INIT;
    Replfs__DiskStat disk = REPLFS__DISK_STAT__INIT, *disks = &disk;
    struct rpc_result res;

    disk.capacity = disk.avail = 1ull << 40;
    disk.path = (char *)"/disk";
    r.chunkd = all.chunkd;
    r.cluster = all.chunkd ? (char *)(uintptr_t)mlog_uuid(md.mlog) : (char *)"";
    r.host_id = r.host_name = (char *)"host";
    r.addr = (char *)"127.0.0.1:1";
    r.disks = &disks;
    r.n_disks = 1;
    RPC_ENVELOPE(env, REGISTER_REQ, register_req, &r);
    int rc = rpc_call_wait(c->conn, &env, NULL, PATIENCE_MS, &res);
    if (rc == 0) {
        all.chunkd = res.rep->register_reply->chunkd;
        atomic_store(&all.registration, res.rep->register_reply->registration);
    }
    rpc_result_free(&res);
    if (rc != 0)
        return rc;
    c->seq = 0;
    report.chunkd = all.chunkd;
    report.report = 1;
    report.first = report.last = true;
    RPC_ENVELOPE(renv, REPORT_REQ, report_req, &report);
    rc = rpc_call_wait(c->conn, &renv, NULL, PATIENCE_MS, &res);
    rpc_result_free(&res);
    return rc;
}

static int chunkd_beat(struct chunkd_link *c)
{
    Replfs__HeartbeatReq h = REPLFS__HEARTBEAT_REQ__INIT;
    Replfs__DiskStat disk = REPLFS__DISK_STAT__INIT, *disks = &disk;
    struct rpc_result res;

    disk.capacity = disk.avail = 1ull << 40;
    disk.path = (char *)"/disk";
    h.chunkd = all.chunkd;
    h.disks = &disks;
    h.n_disks = 1;
    h.seq = ++c->seq;
    RPC_ENVELOPE(env, HEARTBEAT_REQ, heartbeat_req, &h);
    int rc = rpc_call_wait(c->conn, &env, NULL, PATIENCE_MS, &res);
    rpc_result_free(&res);
    return rc;
}

static void *chunkd_main(void *arg)
{
    struct rpc_config rpc = {.role = RPC_ROLE_CHUNKD, .name = "test", .threads = 1};
    struct chunkd_link c = {.svc = {.request = chunkd_ordered}};
    char addr[64];
    bool there = false;

    (void)arg;
    snprintf(addr, sizeof(addr), "127.0.0.1:%d", md.port);
    MUST(rpc_loop_new(&rpc, &c.loop) == 0);
    MUST(rpc_dial(c.loop, addr, RPC_ROLE_METAD, &c.svc, &c.conn) == 0);
    while (!atomic_load(&all.stop_chunkd)) {
        there = (there || chunkd_register(&c) == 0) && chunkd_beat(&c) == 0;
        usleep(2000);
    }
    rpc_conn_unref(c.conn);
    rpc_loop_free(c.loop);
    return NULL;
}
#endif
