/* The registry and the repair driver against scripted chunkds over real loopback connections:
 * registration and its refusals, reports and digests, death and repair, surplus, bad copies. The log is a
 * stand-in that applies at once; the fsm is the real one. */
#include "nodes_rig.h"
#include "base/cleanup.h"

/* ---- tests ---- */

static void registration_and_refusals(void **state)
{
    (void)state;
    char detail[256] = "";
    join_all(3);
    assert_int_equal(fx->chunkd[0].id, 1);
    assert_int_equal(fx->chunkd[2].id, 3);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[3]);
    assert_int_equal(do_register(&fx->chunkd[3], "99999999-other", 0, c, detail),
                     -ERR_WRONG_CLUSTER);
    assert_non_null(strstr(detail, "99999999-other"));
    assert_non_null(strstr(detail, NODES_RIG_UUID));
    assert_int_equal(do_register(&fx->chunkd[3], NODES_RIG_UUID, 1, c, detail), -ERR_BUSY);
    assert_int_equal(do_register(&fx->chunkd[3], NODES_RIG_UUID, 42, c, detail),
                     -ERR_NOT_REGISTERED);
    rpc_conn_unref(c);
    struct fsm_member m;
    fsm_rdlock(fx->mlog.fsm);
    assert_true(fsm_member_next(fx->mlog.fsm, 2, &m));
    assert_int_equal(m.chunkd, 3);
    assert_string_equal(m.host_id, "host-2");
    fsm_unlock(fx->mlog.fsm);
    nodes_rig_leave(&fx->chunkd[0]);
    nodes_rig_join(&fx->chunkd[0], NODES_RIG_UUID);
    assert_int_equal(fx->chunkd[0].id, 1);
    wait_up(3);
    uint32_t out[3], exclude[] = {2};
    assert_int_equal(nodes_place(fx->nodes, 3, NULL, 0, out), 3);
    assert_int_equal(nodes_place(fx->nodes, 3, exclude, 1, out), 2);
    assert_true(out[0] != 2 && out[1] != 2);
}

static void heartbeats_agree_with_commits(void **state)
{
    (void)state;
    uint64_t ino;
    struct nodes_rig_chunkd *k = &fx->chunkd[0];
    join_all(3);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both copies");
    uint64_t before = NODES_RIG_PEEK(k, reports), seq = NODES_RIG_PEEK(k, seq);
    WAIT_UNTIL(NODES_RIG_PEEK(k, seq) >= seq + 10);
    assert_int_equal(NODES_RIG_PEEK(k, reports), before); /* digests match: no full report asked */
    pthread_mutex_lock(&k->lock);
    k->digest ^= 12345; /* now they never match */
    pthread_mutex_unlock(&k->lock);
    WAIT_UNTIL(NODES_RIG_PEEK(k, seq) >= seq + 30);
    assert_true(NODES_RIG_PEEK(k, reports) > before);
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[2], copies), 0);
}

static void dead_chunkd_is_repaired_and_surplus_dropped(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both copies");
    nodes_rig_leave(&fx->chunkd[1]);
    struct want three = {w.chunk, 2};
    wait_until(has_copies, &three, "still two");
    WAIT_UNTIL(held_by(w.chunk) >= 3);
    assert_int_equal(held_by(w.chunk), 3); /* copied to the third; the dead one still has its own */
    assert_true(has_problem("chunkd-dead", 1));
    nodes_rig_join(&fx->chunkd[1], NODES_RIG_UUID);
    wait_until(really_held, &w, "surplus to be dropped");
    assert_false(has_problem("chunkd-dead", 1));
}

/* As a job does that ends: without the second for which a report's chunks wait. */
static void consider_now(uint64_t chunk)
{
    fsm_wrlock(fx->mlog.fsm);
    lock_acquire(&fx->nodes->mu);
    repair_queue_remove(fx->nodes->queue, chunk);
    orders_consider(fx->nodes, fsm_chunk_find(fx->mlog.fsm, chunk), 0);
    lock_release(&fx->nodes->mu);
    fsm_unlock(fx->mlog.fsm);
    nodes_poke(fx->nodes);
}

static bool queue_empty(void *arg)
{
    (void)arg;
    lock_acquire(&fx->nodes->mu);
    bool yes = repair_queue_count(fx->nodes->queue) == 0;
    lock_release(&fx->nodes->mu);
    return yes;
}

static void set_silent(struct nodes_rig_chunkd *k, bool silent)
{
    pthread_mutex_lock(&k->lock);
    k->silent = silent;
    pthread_mutex_unlock(&k->lock);
}

/* It counts as dead until its report is whole. What it has reported till then is not forgotten meanwhile: nobody would
 * ever tell of it again. */
static void reported_by_a_dead_chunkd(void **state)
{
    struct nodes_rig_chunkd *k = &fx->chunkd[1];
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both copies");
    nodes_rig_leave(k);
    WAIT_UNTIL(held_by(w.chunk) >= 3);
    struct want two = {w.chunk, 2};
    wait_until(has_copies, &two, "the dead one's copy to be forgotten");
    set_silent(k, true);
    nodes_rig_connect(k, NODES_RIG_UUID);
    nodes_rig_report_piece(k, true, false);
    struct want three = {w.chunk, 3};
    assert_true(has_copies(&three));
    consider_now(w.chunk);
    wait_until(queue_empty, NULL, "the chunk to be looked at");
    nodes_rig_report_piece(k, false, true);
    set_silent(k, false);
    wait_until(really_held, &w, "surplus to be dropped");
}

static void goal_up_and_down(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want w = {make_chunk("a", 3, 3, &ino), 3};
    wait_until(really_held, &w, "three");
    const unsigned goals[] = {1, 2, 3, 1};
    for (unsigned i = 0; i < 4; i++) {
        set_goal(ino, goals[i]);
        w.ok = goals[i];
        wait_until(really_held, &w, "the new goal");
    }
    uint64_t verifies = 0;
    for (unsigned i = 0; i < 3; i++)
        verifies += NODES_RIG_PEEK(&fx->chunkd[i], verifies);
    assert_true(verifies > 0);
}

static void bad_copy_is_found_and_replaced(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want w = {make_chunk("a", 3, 3, &ino), 3};
    wait_until(really_held, &w, "three");
    pthread_mutex_lock(&fx->chunkd[1].lock);
    find_held(&fx->chunkd[1], w.chunk)->damaged = true;
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    assert_int_equal(nodes_report_bad(fx->nodes, 7, w.chunk, fx->chunkd[1].id, -ERR_CRC), 0);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[1], copies));
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[1], copies),
                     1); /* in place: no other computer is free */
    wait_until(really_held, &w, "three good ones");
    pthread_mutex_lock(&fx->chunkd[1].lock);
    assert_false(find_held(&fx->chunkd[1], w.chunk)->damaged);
    pthread_mutex_unlock(&fx->chunkd[1].lock);
}

/* A session that has had many copies checked has none checked for a while; another has. */
static void too_many_doubts_are_refused(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want w = {make_chunk("a", 3, 3, &ino), 3};
    wait_until(really_held, &w, "three");
    lock_acquire(&fx->nodes->mu);
    for (unsigned i = 0; i < DOUBTS_PER_SESSION; i++)
        assert_true(doubts_take(&fx->nodes->doubts, 7, clock_mono() + NSEC_PER_SEC));
    lock_release(&fx->nodes->mu);
    unsigned verified = NODES_RIG_PEEK(&fx->chunkd[1], verifies);
    assert_int_equal(nodes_report_bad(fx->nodes, 7, w.chunk, fx->chunkd[1].id, -ERR_CRC),
                     -ERR_BUSY);
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[1], verifies), verified);
    assert_int_equal(nodes_report_bad(fx->nodes, 8, w.chunk, fx->chunkd[1].id, -ERR_CRC), 0);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[1], verifies) != verified);
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[1], verifies), verified + 1);
}

static bool whole_again(void *arg)
{
    struct nodes_rig_chunkd *k = &fx->chunkd[1];
    pthread_mutex_lock(&k->lock);
    const struct nodes_rig_held *h = find_held(k, *(uint64_t *)arg);
    bool whole = h && h->len == 8192;
    pthread_mutex_unlock(&k->lock);
    return whole;
}

/* A copy that is reported with fewer bytes than were committed is not a good one: neither in the
 * full report of a chunkd that comes back, nor to a planner that has no other to compare with. */
static void short_copy_in_a_report_is_made_whole(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(2);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both");
    wait_until(all_reported, &w.chunk, "both to be reported");
    nodes_rig_leave(&fx->chunkd[1]);
    pthread_mutex_lock(&fx->chunkd[1].lock);
    find_held(&fx->chunkd[1], w.chunk)->len = 8191; /* a power cut took the end */
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    nodes_rig_join(&fx->chunkd[1], NODES_RIG_UUID);
    wait_until(whole_again, &w.chunk, "the short copy to be made again");
    wait_until(really_held, &w, "both to be good");
}

static void freed_chunk_is_deleted(void **state)
{
    (void)state;
    uint64_t ino, chunk;
    join_all(2);
    struct want w = {chunk = make_chunk("gone", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both");
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    char name[] = "gone";
    u.parent = FSM_ROOT_INO;
    u.name = (ProtobufCBinaryData){.len = 4, .data = (uint8_t *)name};
    NODES_RIG_OP(op, UNLINK, unlink, &u);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
    Replfs__ReapOp r = REPLFS__REAP_OP__INIT;
    r.ino = &ino;
    r.n_ino = 1;
    NODES_RIG_OP(op2, REAP, reap, &r);
    assert_int_equal(nodes_rig_apply(&op2, 0, NULL), 0);
    nodes_oldest_grant(fx->nodes, 77, chunk + 1);
    wait_until(nobody_holds, &chunk, "the freed chunk to go");
}

static void wiped_disk_is_noticed(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(all_reported, &w.chunk, "heartbeats to name the copies");
    pthread_mutex_lock(&fx->chunkd[1].lock);
    nodes_rig_hold(&fx->chunkd[1], w.chunk, 0, 0); /* lost behind everybody's back */
    fx->chunkd[1].nchanges = 0;
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    wait_until(really_held, &w, "the digest to tell and the copy to be made anew");
}

static void wiped_chunkd_takes_its_old_place(void **state)
{
    (void)state;
    uint64_t ino;
    struct nodes_rig_chunkd *k = &fx->chunkd[1];
    join_all(2);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(all_reported, &w.chunk, "heartbeats to name the copies");
    nodes_rig_leave(k);
    pthread_mutex_lock(&k->lock);
    k->nheld = k->nchanges = 0;
    k->digest = k->seq = 0;
    k->id = 0;
    pthread_mutex_unlock(&k->lock);
    nodes_rig_join(k, "");
    assert_int_equal(k->id, 3);
    wait_until(really_held, &w, "the copy on the empty disk");
    assert_false(has_problem("chunkd-dead", 1));
    assert_false(has_problem("chunkd-suspect", 1));
}

static void lost_and_unavailable_show(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(2);
    struct want w = {make_chunk("a", 1, 1, &ino), 1};
    wait_until(really_held, &w, "the copy");
    assert_false(has_problem("chunks-lost", 2));
    nodes_rig_leave(&fx->chunkd[0]);
    WAIT_UNTIL(has_problem("chunks-unavailable", 2));
    assert_false(has_problem("chunks-lost", 2));
    fx->chunkd[0].nheld = 0; /* its disk is empty now */
    fx->chunkd[0].digest = 0;
    nodes_rig_join(&fx->chunkd[0], NODES_RIG_UUID);
    WAIT_UNTIL(has_problem("chunks-lost", 2));
}

/* A power cut: they come back with so many bytes. */
static void cut(unsigned from, unsigned to, uint64_t chunk, uint32_t len)
{
    for (unsigned i = from; i < to; i++)
        nodes_rig_leave(&fx->chunkd[i]);
    for (unsigned i = from; i < to; i++) {
        pthread_mutex_lock(&fx->chunkd[i].lock);
        find_held(&fx->chunkd[i], chunk)->len = len;
        pthread_mutex_unlock(&fx->chunkd[i].lock);
    }
    for (unsigned i = from; i < to; i++)
        nodes_rig_join(&fx->chunkd[i], NODES_RIG_UUID);
}

static void wait_problem(const char *code, bool there)
{
    WAIT_UNTIL(has_problem(code, 2) == there);
}

/* The first chunk's note in what info says of the file. */
static void info_note(uint64_t ino, char out[512])
{
    struct rpc_result res;
    Replfs__InfoReq q = REPLFS__INFO_REQ__INIT;
    q.ino = ino;
    RPC_ENVELOPE(env, INFO_REQ, info_req, &q);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    assert_int_equal(rpc_call_wait(c, &env, NULL, 5000, &res), 0);
    snprintf(out, 512, "%s", res.rep->info_reply->chunks[0]->note);
    rpc_result_free(&res);
    rpc_conn_unref(c);
}

struct stored {
    unsigned chunkd;
    uint64_t chunk;
    uint32_t len;
};

static bool stores(void *arg)
{
    const struct stored *w = arg;
    struct nodes_rig_chunkd *k = &fx->chunkd[w->chunkd];
    pthread_mutex_lock(&k->lock);
    const struct nodes_rig_held *h = find_held(k, w->chunk);
    bool yes = h && h->len == w->len;
    pthread_mutex_unlock(&k->lock);
    return yes;
}

/* All copies lost the end of a chunk: the rest is cared for as any chunk, what is lost is named, and
 * when a file no longer needs it nothing is wrong. */
static void beginning_of_a_cut_chunk_is_kept(void **state)
{
    (void)state;
    uint64_t ino;
    char note[512];
    join_all(3);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both");
    wait_until(all_reported, &w.chunk, "both to be reported");
    cut(0, 2, w.chunk, 5000);
    wait_problem("chunks-damaged", true);
    assert_false(has_problem("chunks-lost", 2));
    wait_until(has_copies, &w, "the beginnings to count");
    info_note(ino, note);
    assert_non_null(strstr(note, "bytes 5000 to 8191 "));
    nodes_rig_leave(&fx->chunkd[1]); /* one of the two that have it is gone */
    struct stored third = {2, w.chunk, 5000};
    wait_until(stores, &third, "the beginning to be copied");
    truncate_file(ino, 5000);
    wait_problem("chunks-damaged", false);
    info_note(ino, note);
    assert_null(strstr(note, "damaged"));
}

/* A chunkd that was away has all of it: then it is what is copied. */
static void whole_copy_that_returns_wins(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want w = {make_chunk("a", 3, 3, &ino), 3};
    wait_until(really_held, &w, "three");
    wait_until(all_reported, &w.chunk, "all to be reported");
    nodes_rig_leave(&fx->chunkd[2]);
    cut(0, 2, w.chunk, 5000);
    wait_problem("chunks-damaged", true); /* once the third is dead */
    nodes_rig_join(&fx->chunkd[2], NODES_RIG_UUID);
    for (unsigned i = 0; i < 2; i++) {
        struct stored s = {i, w.chunk, 8192};
        wait_until(stores, &s, "the whole chunk to be copied");
    }
    wait_until(really_held, &w, "three good ones");
    wait_problem("chunks-damaged", false);
}

/* The bytes that were cut off had been written over before: no damage, and no warning. */
static void nobody_needs_what_was_written_over(void **state)
{
    (void)state;
    uint64_t ino;
    char note[512];
    join_all(2);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both");
    wait_until(all_reported, &w.chunk, "both to be reported");
    truncate_file(ino, 4000);
    cut(0, 2, w.chunk, 5000);
    wait_until(has_copies, &w, "both to be good again");
    assert_false(has_problem("chunks-damaged", 2));
    info_note(ino, note);
    assert_string_equal(note, "");
}

static void info_and_converge_tell(void **state)
{
    (void)state;
    uint64_t ino;
    struct rpc_result res;
    join_all(3);
    struct want w = {make_chunk("a", 3, 2, &ino), 3};
    Replfs__ConvergeReq q = REPLFS__CONVERGE_REQ__INIT;
    q.ino = &ino;
    q.n_ino = 1;
    RPC_ENVELOPE(env, CONVERGE_REQ, converge_req, &q);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    assert_int_equal(rpc_call_wait(c, &env, NULL, 5000, &res), 0);
    assert_int_equal(res.rep->converge_reply->chunks, 1);
    assert_int_equal(res.rep->converge_reply->pending, 1);
    rpc_result_free(&res);
    wait_until(really_held, &w, "the third copy");
    int64_t end = clock_mono() + WAIT_LIMIT_S * NSEC_PER_SEC;
    for (uint64_t pending = 1; pending && clock_mono() < end;) {
        assert_int_equal(rpc_call_wait(c, &env, NULL, 5000, &res), 0);
        pending = res.rep->converge_reply->pending;
        rpc_result_free(&res);
        assert_true(clock_mono() < end);
    }
    Replfs__InfoReq i = REPLFS__INFO_REQ__INIT;
    i.ino = ino;
    RPC_ENVELOPE(env2, INFO_REQ, info_req, &i);
    assert_int_equal(rpc_call_wait(c, &env2, NULL, 5000, &res), 0);
    const Replfs__InfoReply *r = res.rep->info_reply;
    assert_int_equal(r->n_extents, 1);
    assert_int_equal(r->n_chunks, 1);
    assert_false(r->more);
    assert_int_equal(r->chunks[0]->n_copies, 3);
    assert_int_equal(r->chunks[0]->goal, 3);
    for (unsigned k = 0; k < 3; k++)
        assert_string_equal(r->chunks[0]->copies[k]->state, "ok");
    rpc_result_free(&res);
    rpc_conn_unref(c);
}

static void refuse(struct nodes_rig_chunkd *k, bool yes)
{
    pthread_mutex_lock(&k->lock);
    k->refuse = yes;
    pthread_mutex_unlock(&k->lock);
}

static void failing_orders_are_tried_again(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(2);
    refuse(&fx->chunkd[1], true);
    struct want w = {make_chunk("a", 2, 1, &ino), 2};
    struct rpc_result res;
    bool failed = false;
    int64_t end = clock_mono() + WAIT_LIMIT_S * NSEC_PER_SEC;
    while (!failed && clock_mono() < end) {
        Replfs__StatusReply *s = nodes_rig_status(&res);
        for (size_t i = 0; i < s->n_jobs; i++)
            failed |= !strcmp(s->jobs[i]->name, "repair") && s->jobs[i]->failed &&
                      strstr(s->jobs[i]->last_error, "scripted");
        rpc_result_free(&res);
    }
    assert_true(failed);
    refuse(&fx->chunkd[1], false);
    wait_until(really_held, &w, "the second copy");
}

static void states_follow_time_and_connection(void **state)
{
    (void)state;
    const struct nodes_config c = {.suspect_ms = 5000, .dead_ms = 60000};
    const Replfs__NodeState up = REPLFS__NODE_STATE__NODE_UP,
                            sus = REPLFS__NODE_STATE__NODE_SUSPECT,
                            dead = REPLFS__NODE_STATE__NODE_DEAD;
    assert_int_equal(nodes_state_at(&c, true, true, sus, 0), up);
    assert_int_equal(nodes_state_at(&c, true, true, up, 5001), sus);
    assert_int_equal(nodes_state_at(&c, false, true, up, 10), sus);
    assert_int_equal(nodes_state_at(&c, true, false, sus, 10), sus);
    assert_int_equal(nodes_state_at(&c, false, true, sus, 60001), dead);
    assert_int_equal(nodes_state_at(&c, true, false, dead, 10), dead); /* until it has reported */
    assert_int_equal(nodes_state_at(&c, true, true, dead, 10), up);
}

static void set_disk(unsigned i, uint64_t avail, uint64_t fs)
{
    pthread_mutex_lock(&fx->chunkd[i].lock);
    fx->chunkd[i].avail = avail;
    fx->chunkd[i].fs = fs;
    pthread_mutex_unlock(&fx->chunkd[i].lock);
}

struct space {
    unsigned goal;
    uint64_t avail;
};

static bool space_is(void *arg)
{
    const struct space *w = arg;
    uint64_t total, avail;
    nodes_space(fx->nodes, w->goal, &total, &avail);
    return avail == w->avail && total == 2 * avail;
}

/* What df shows can be written: each copy on a computer of its own, a file system counted once. */
static void space_is_what_fits(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        set_disk(i, i ? 200 : 2000, 0);
    join_all(3);
    wait_until(space_is, &(struct space){1, 2400}, "all of it at goal 1");
    assert_true(space_is(&(struct space){2, 400}));
    assert_true(space_is(&(struct space){3, 200}));
    assert_true(space_is(&(struct space){4, 200})); /* what three can hold */
    assert_true(space_is(&(struct space){0, 2400}));
    /* two chunkds of one computer, by mistake on one file system */
    for (unsigned i = 1; i < 3; i++) {
        nodes_rig_leave(&fx->chunkd[i]);
        snprintf(fx->chunkd[i].host, sizeof fx->chunkd[i].host, "twin");
        set_disk(i, 200, 7);
        nodes_rig_join(&fx->chunkd[i], "");
    }
    wait_until(space_is, &(struct space){1, 2200}, "the shared file system to count once");
    assert_true(space_is(&(struct space){2, 200}));
    /* three copies on two computers: on three chunkds */
    assert_true(space_is(&(struct space){3, 0}) || space_is(&(struct space){3, 200}));
}

static void sizes(uint64_t want, unsigned goal, size_t n, const uint64_t *v)
{
    uint64_t unit[8];
    if (n)
        memcpy(unit, v, n * sizeof *v);
    assert_int_equal(nodes_fit(unit, n, goal), want);
}

static void fit_is_exact(void **state)
{
    (void)state;
    sizes(400, 2, 3, (uint64_t[]){200, 2000, 200});
    sizes(150, 2, 3, (uint64_t[]){100, 100, 100});
    sizes(100, 3, 3, (uint64_t[]){100, 5000, 100000});
    sizes(300, 1, 2, (uint64_t[]){100, 200});
    sizes(75, 4, 4, (uint64_t[]){75, 80, 90, 100});
    sizes(0, 2, 2, (uint64_t[]){500, 0});
    sizes(0, 2, 0, NULL);
    sizes(500, 2, 1, (uint64_t[]){500}); /* fewer than the goal: as many as there are */
    sizes(45, 3, 5, (uint64_t[]){100, 40, 20, 30, 0});
}

static void set_failed(unsigned i, bool readonly, bool missing)
{
    pthread_mutex_lock(&fx->chunkd[i].lock);
    fx->chunkd[i].failed = true;
    fx->chunkd[i].readonly = readonly;
    fx->chunkd[i].missing = missing;
    pthread_mutex_unlock(&fx->chunkd[i].lock);
}

static bool problem_told(void *arg)
{
    return has_problem(arg, 1) || has_problem(arg, 2);
}

/* The only copy of a chunk is on a disk that can only be read: it is copied from there, not lost. */
static void a_readonly_disk_is_copied_from(void **state)
{
    (void)state;
    join_all(2);
    uint64_t ino, chunk = make_chunk("a", 1, 1, &ino);
    wait_until(all_reported, &chunk, "the copy to be reported");
    fx->chunkd[1].refuse = true;
    set_failed(0, true, false);
    wait_until(problem_told, "chunks-endangered", "health to tell that the chunk is endangered");
    assert_true(has_problem("disk-readonly", 1));
    assert_false(problem_told("chunks-lost") || problem_told("chunks-unavailable"));
    fx->chunkd[1].refuse = false;
    wait_until(really_held, &(struct want){chunk, 2}, "a copy on the other chunkd");
    assert_false(problem_told("chunks-endangered"));
}

static void a_missing_disk_is_an_error(void **state)
{
    (void)state;
    join_all(2);
    assert_false(problem_told("disk-missing"));
    set_failed(0, false, true);
    wait_until(problem_told, "disk-missing", "health to tell the missing disk");
    assert_true(has_problem("disk-missing", 2));
}

int main(void)
{
#define NODES_TEST(fn) cmocka_unit_test_setup_teardown(fn, nodes_rig_setup, nodes_rig_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_follow_time_and_connection),
        NODES_TEST(registration_and_refusals),
        NODES_TEST(heartbeats_agree_with_commits),
        NODES_TEST(dead_chunkd_is_repaired_and_surplus_dropped),
        NODES_TEST(reported_by_a_dead_chunkd),
        NODES_TEST(goal_up_and_down),
        NODES_TEST(bad_copy_is_found_and_replaced),
        NODES_TEST(too_many_doubts_are_refused),
        NODES_TEST(short_copy_in_a_report_is_made_whole),
        NODES_TEST(beginning_of_a_cut_chunk_is_kept),
        NODES_TEST(whole_copy_that_returns_wins),
        NODES_TEST(nobody_needs_what_was_written_over),
        NODES_TEST(freed_chunk_is_deleted),
        NODES_TEST(wiped_disk_is_noticed),
        NODES_TEST(wiped_chunkd_takes_its_old_place),
        NODES_TEST(lost_and_unavailable_show),
        NODES_TEST(info_and_converge_tell),
        NODES_TEST(failing_orders_are_tried_again),
        NODES_TEST(space_is_what_fits),
        cmocka_unit_test(fit_is_exact),
        NODES_TEST(a_readonly_disk_is_copied_from),
        NODES_TEST(a_missing_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
