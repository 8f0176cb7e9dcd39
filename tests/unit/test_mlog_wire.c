/* Messages between metads' logs, there and back; and what must not get through to libraft. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "metad/log/entry.h"
#include "metad/log/mlog_wire.h"

static struct raft_entry command(uint64_t term, uint64_t index, size_t len)
{
    struct raft_entry e = {.term = term, .type = RAFT_COMMAND};
    uint8_t *text = calloc(1, len);

    e.buf.len = entry_size(1, len);
    e.buf.base = calloc(1, e.buf.len);
    size_t pos = entry_put(e.buf.base, ENTRY_HEADER, text, len);
    assert_int_equal(entry_finish(e.buf.base, pos, 1, index, ENTRY_VERSION), e.buf.len);
    free(text);
    return e;
}

static struct raft_entry members(uint64_t term, unsigned n)
{
    struct raft_entry e = {.term = term, .type = RAFT_CHANGE};
    struct raft_configuration c;
    char addr[32];

    raft_configuration_init(&c);
    for (unsigned i = 1; i <= n; i++) {
        snprintf(addr, sizeof(addr), "metad-%u", i);
        assert_int_equal(raft_configuration_add(&c, i, addr, RAFT_VOTER), 0);
    }
    assert_int_equal(raft_configuration_encode(&c, &e.buf), 0);
    raft_configuration_close(&c);
    return e;
}

/* Sends msg and takes it apart again; returns how many messages came out, or the code. */
struct got {
    struct mlog_msgs part[16];
    unsigned parts, msgs;
    const char *why;
};

static int pass(const struct raft_message *msg, struct got *g)
{
    struct mlog_wire_out o;
    unsigned next = 0;

    memset(g, 0, sizeof(*g));
    do {
        int rc = mlog_wire_fill(&o, msg, &next);
        if (rc != 0)
            return rc;
        uint8_t *p = malloc(o.payload + 1);
        mlog_wire_payload(&o, msg, p);
        o.req.from = 2;
        rc = mlog_wire_decode(&o.req, p, o.payload, &g->part[g->parts], &g->why);
        free(p);
        mlog_wire_done(&o);
        if (rc != 0)
            return rc;
        g->msgs += g->part[g->parts++].n;
    } while (msg->type == RAFT_APPEND_ENTRIES && next < msg->append_entries.n_entries);
    return 0;
}

static void drop(struct got *g)
{
    for (unsigned i = 0; i < g->parts; i++)
        mlog_wire_free(&g->part[i], 0);
}

static void free_entries(struct raft_entry *e, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(e[i].buf.base);
}

static void test_append(void **state)
{
    struct raft_entry e[3] = {command(4, 8, 10), command(4, 9, 100), command(5, 10, 1)};
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 3};
    struct got g;

    (void)state;
    m.append_entries = (struct raft_append_entries){.term = 6,
                                                    .prev_log_index = 7,
                                                    .prev_log_term = 3,
                                                    .leader_commit = 5,
                                                    .entries = e,
                                                    .n_entries = 3};
    assert_int_equal(pass(&m, &g), 0);
    assert_int_equal(g.msgs, 1);
    const struct raft_append_entries *a = &g.part[0].v[0].append_entries;
    assert_int_equal(g.part[0].v[0].server_id, 2);
    assert_true(a->term == 6 && a->prev_log_index == 7 && a->prev_log_term == 3 &&
                a->leader_commit == 5 && a->n_entries == 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(a->entries[i].buf.len, e[i].buf.len);
        assert_memory_equal(a->entries[i].buf.base, e[i].buf.base, e[i].buf.len);
        assert_true(a->entries[i].term == e[i].term);
    }
    drop(&g);
    free_entries(e, 3);
}

/* libraft takes a change of members for committed only when it is the first entry of its message. */
static void test_change_comes_first(void **state)
{
    struct raft_entry e[5] = {command(4, 8, 10), members(4, 2), command(4, 10, 3), members(4, 3),
                              members(4, 4)};
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 3};
    struct got g;
    unsigned index = 7;

    (void)state;
    m.append_entries = (struct raft_append_entries){
        .term = 4, .prev_log_index = 7, .prev_log_term = 3, .entries = e, .n_entries = 5};
    assert_int_equal(pass(&m, &g), 0);
    assert_int_equal(g.msgs, 4);
    for (unsigned i = 0; i < 4; i++) {
        const struct raft_append_entries *a = &g.part[0].v[i].append_entries;
        assert_int_equal(a->prev_log_index, index);
        assert_int_equal(a->prev_log_term, i == 0 ? 3 : 4);
        for (unsigned k = 1; k < a->n_entries; k++)
            assert_true(a->entries[k].type != RAFT_CHANGE);
        index += a->n_entries;
    }
    assert_int_equal(index, 12);
    drop(&g);
    free_entries(e, 5);
}

/* What does not fit one frame goes in several messages, each of which stands for itself. */
static void test_large(void **state)
{
    struct raft_entry e[4] = {command(4, 8, 700000), command(4, 9, 700000), command(5, 10, 1),
                              command(5, 11, 700000)};
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 3};
    struct got g;
    unsigned index = 7;

    (void)state;
    m.append_entries = (struct raft_append_entries){
        .term = 6, .prev_log_index = 7, .prev_log_term = 3, .entries = e, .n_entries = 4};
    assert_int_equal(pass(&m, &g), 0);
    assert_int_equal(g.parts, 3);
    for (unsigned i = 0; i < g.parts; i++) {
        assert_int_equal(g.part[i].v[0].append_entries.prev_log_index, index);
        index += g.part[i].v[0].append_entries.n_entries;
    }
    assert_int_equal(index, 11);
    assert_int_equal(g.part[2].v[0].append_entries.prev_log_term, 5);
    drop(&g);
    free_entries(e, 4);
}

static void test_small_ones(void **state)
{
    struct raft_message m = {.type = RAFT_REQUEST_VOTE, .server_id = 3};
    struct got g;

    (void)state;
    m.request_vote = (struct raft_request_vote){.term = 9,
                                                .candidate_id = 2,
                                                .last_log_index = 4,
                                                .last_log_term = 3,
                                                .disrupt_leader = true,
                                                .pre_vote = true};
    assert_int_equal(pass(&m, &g), 0);
    const struct raft_request_vote *v = &g.part[0].v[0].request_vote;
    assert_true(v->term == 9 && v->candidate_id == 2 && v->last_log_index == 4 &&
                v->last_log_term == 3 && v->disrupt_leader && v->pre_vote && v->version == 2);
    drop(&g);
    m = (struct raft_message){.type = RAFT_APPEND_ENTRIES_RESULT, .server_id = 3};
    m.append_entries_result.term = 9;
    m.append_entries_result.rejected = 5;
    m.append_entries_result.last_log_index = 4;
    assert_int_equal(pass(&m, &g), 0);
    assert_int_equal(g.part[0].v[0].append_entries_result.rejected, 5);
    assert_int_equal(g.part[0].v[0].append_entries_result.last_log_index, 4);
    drop(&g);
    m = (struct raft_message){.type = RAFT_TIMEOUT_NOW, .server_id = 3};
    m.timeout_now.term = 9;
    m.timeout_now.last_log_index = 12;
    assert_int_equal(pass(&m, &g), 0);
    assert_int_equal(g.part[0].v[0].timeout_now.last_log_index, 12);
    drop(&g);
}

static void refused(struct raft_append_entries *a)
{
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 3, .append_entries = *a};
    struct got g;

    assert_int_equal(pass(&m, &g), -ERR_PROTOCOL);
    assert_non_null(g.why);
    drop(&g);
}

static void test_refused(void **state)
{
    struct raft_entry e[2] = {command(4, 8, 10), command(4, 9, 10)};
    struct raft_append_entries good = {
        .term = 6, .prev_log_index = 7, .prev_log_term = 3, .entries = e, .n_entries = 2};
    struct raft_append_entries a = good;

    (void)state;
    a.prev_log_index = 8; /* the entries belong elsewhere */
    refused(&a);
    a = good;
    a.prev_log_term = 0;
    refused(&a);
    a = good;
    a.term = 3; /* below its entries */
    refused(&a);
    a = good;
    a.term = 0;
    refused(&a);
    a = good;
    e[1].term = 3; /* backwards */
    refused(&a);
    e[1].term = 4;
    e[1].type = 9;
    refused(&a);
    e[1].type = RAFT_CHANGE; /* no list of members */
    refused(&a);
    e[1].type = RAFT_COMMAND;
    ((uint8_t *)e[0].buf.base)[ENTRY_HEADER + 4] ^= 1; /* damaged on the way, or on its disk */
    refused(&a);
    free_entries(e, 2);
}

static void test_snapshot(void **state)
{
    struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT, .server_id = 3};
    struct got g;
    struct raft_install_snapshot *s = &m.install_snapshot;

    (void)state;
    *s = (struct raft_install_snapshot){
        .term = 9, .last_index = 50, .last_term = 8, .conf_index = 3, .data = {.len = 100}};
    raft_configuration_init(&s->conf);
    assert_int_equal(raft_configuration_add(&s->conf, 1, "metad-1", RAFT_VOTER), 0);
    assert_int_equal(pass(&m, &g), 0);
    assert_int_equal(g.part[0].v[0].install_snapshot.data.len, 100);
    assert_null(g.part[0].v[0].install_snapshot.data.base);
    assert_int_equal(g.part[0].v[0].install_snapshot.conf.n, 1);
    drop(&g);
    s->last_term = 10;
    assert_int_equal(pass(&m, &g), -ERR_PROTOCOL);
    s->last_term = 8;
    s->conf_index = 51;
    assert_int_equal(pass(&m, &g), -ERR_PROTOCOL);
    raft_configuration_close(&s->conf);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append),  cmocka_unit_test(test_change_comes_first),
        cmocka_unit_test(test_large),   cmocka_unit_test(test_small_ones),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_snapshot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
