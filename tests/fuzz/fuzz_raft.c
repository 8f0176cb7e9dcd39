/* Fuzzes what metads say to each other of the log (RaftReq). Two bytes: length of the protobuf; then it; then the
 * payload. What is accepted must be what libraft may get: in range, in order, its memory libraft's to free; and it must
 * come out the same when it is sent on. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "metad/log/mlog_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_append(const struct raft_append_entries *a)
{
    assert((a->prev_log_index == 0) == (a->prev_log_term == 0));
    assert(a->n_entries <= MLOG_WIRE_ENTRIES);
    for (unsigned i = 0; i < a->n_entries; i++) {
        const struct raft_entry *e = &a->entries[i];
        assert(e->term != 0 && e->term <= a->term && e->batch == a->entries[0].batch);
        assert(e->type >= RAFT_COMMAND && e->type <= RAFT_CHANGE);
        assert(i == 0 || e->type != RAFT_CHANGE);
        uint8_t sum = 0;
        for (size_t k = 0; k < e->buf.len; k++)
            sum ^= ((uint8_t *)e->buf.base)[k];
        (void)sum;
    }
}

static void send_on(const struct raft_message *m)
{
    struct mlog_wire_out o;
    unsigned next = 0;

    do {
        int rc = mlog_wire_fill(&o, m, &next);
        if (rc == 0 && o.payload > 0) {
            uint8_t *p = malloc(o.payload);
            if (!p)
                abort();
            mlog_wire_payload(&o, m, p);
            free(p);
        }
        mlog_wire_done(&o);
        if (rc != 0)
            return;
    } while (m->type == RAFT_APPEND_ENTRIES && next < m->append_entries.n_entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mlog_msgs msgs;
    const char *why;

    if (size < 2 || size > (1u << 20))
        return 0;
    size_t len = data[0] | (size_t)data[1] << 8;
    if (len > size - 2)
        len = size - 2;
    Replfs__RaftReq *req = replfs__raft_req__unpack(NULL, len, data + 2);
    if (!req)
        return 0;
    size_t rest = size - 2 - len;
    uint8_t *payload = malloc(rest > 0 ? rest : 1); /* an exact copy: a read past the end is seen */
    if (!payload)
        abort();
    memcpy(payload, data + 2 + len, rest);
    if (mlog_wire_decode(req, payload, rest, &msgs, &why) == 0) {
        assert(msgs.n > 0);
        for (unsigned i = 0; i < msgs.n; i++) {
            if (msgs.v[i].type == RAFT_APPEND_ENTRIES)
                check_append(&msgs.v[i].append_entries);
            send_on(&msgs.v[i]);
        }
        mlog_wire_free(&msgs, 0);
    } else {
        assert(why);
    }
    free(payload);
    replfs__raft_req__free_unpacked(req, NULL);
    return 0;
}
