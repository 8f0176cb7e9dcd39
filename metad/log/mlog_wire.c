/* See mlog_wire.h.
 *
 * Ownership, as libraft's recv callback wants it: `entries` and `entries[0].batch` of one message are two
 * allocations, and libraft frees both whatever it does with the message; `conf` and `data.base` of a snapshot
 * likewise. All come from raft_malloc.
 *
 * An entry of commands is checked as it will be when it is applied (entry.h), a list of members is decoded once: what
 * is damaged must not get onto the disk. */
#include "mlog_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/error.h"
#include "entry.h"

/* ---- in ---- */

static void release_message(struct raft_message *m)
{
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        raft_free(m->append_entries.entries[0].batch);
        raft_free(m->append_entries.entries);
    } else if (m->type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&m->install_snapshot.conf);
        raft_free(m->install_snapshot.data.base);
    }
}

void mlog_wire_free(struct mlog_msgs *msgs, unsigned from)
{
    for (unsigned i = from; i < msgs->n; i++)
        release_message(&msgs->v[i]);
    free(msgs->v);
    *msgs = (struct mlog_msgs){0};
}

static bool out_of_range(uint64_t n)
{
    return n >= MLOG_WIRE_INDEX_MAX;
}

static const char *conf_problem(const uint8_t *p, size_t len, struct raft_configuration *conf)
{
    struct raft_buffer buf = {.base = (void *)(uintptr_t)p, .len = len};

    raft_configuration_init(conf);
    /* libraft reads as many servers as the second word says, up to each NUL, without looking for the end */
    if (len < 9 || len > MLOG_WIRE_CONF_BYTES)
        return "impossible list of members";
    uint64_t n = le_get64(p + 1);
    size_t pos = 9;
    if (p[0] != 1 || n > 64)
        return "unknown list of members";
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *end = len - pos > 9 ? memchr(p + pos + 8, 0, len - pos - 8) : NULL;
        if (!end || (size_t)(end - p) + 2 > len)
            return "list of members breaks off";
        uint64_t id = le_get64(p + pos);
        if (id == 0 || id > UINT32_MAX || end[1] > RAFT_SPARE)
            return "impossible member";
        pos = (size_t)(end - p) + 2;
    }
    if (raft_configuration_decode(&buf, conf) == 0)
        return NULL;
    raft_configuration_init(conf); /* closed already */
    return "impossible list of members";
}

static const char *entry_problem(const Replfs__RaftEntry *e, const uint8_t *p, uint64_t index,
                                 uint64_t term)
{
    struct entry parsed;
    struct raft_configuration conf;
    const char *why = NULL;

    if (e->term == 0 || e->term > term)
        return "an entry of an impossible term";
    switch (e->type) {
    case RAFT_COMMAND:
        if (entry_open(p, e->length, &parsed, &why) != 0)
            return why;
        return parsed.index == index ? NULL : "entry belongs to another place of the log";
    case RAFT_BARRIER:
        return e->length == 8 ? NULL : "impossible barrier";
    case RAFT_CHANGE:
        why = conf_problem(p, e->length, &conf);
        raft_configuration_close(&conf);
        return why;
    default:
        return "entry of unknown type";
    }
}

static const char *append_problem(const Replfs__RaftAppend *a, uint64_t term,
                                  const uint8_t *payload, size_t len)
{
    uint64_t last_term = a->prev_term;
    size_t pos = 0;

    if (a->n_entries > MLOG_WIRE_ENTRIES)
        return "too many entries";
    if (out_of_range(a->prev_index) || a->prev_term > term || out_of_range(a->commit) ||
        (a->prev_index == 0) != (a->prev_term == 0))
        return "impossible place in the log";
    for (size_t i = 0; i < a->n_entries; i++) {
        const Replfs__RaftEntry *e = a->entries[i];
        if (e->length > len - pos)
            return "entries run past the payload";
        if (e->term < last_term)
            return "terms run backwards";
        last_term = e->term;
        const char *why = entry_problem(e, payload + pos, a->prev_index + 1 + i, term);
        if (why)
            return why;
        pos += e->length;
    }
    return pos == len ? NULL : "payload behind the entries";
}

/* Entries [i, end) in a message of their own; p: their bytes. */
static int make_append(struct raft_message *m, const Replfs__RaftReq *req, size_t i, size_t end,
                       const uint8_t *p)
{
    const Replfs__RaftAppend *a = req->append;
    struct raft_append_entries *out = &m->append_entries;
    size_t n = end - i, bytes = 0, pos = 0;

    *m = (struct raft_message){.type = RAFT_APPEND_ENTRIES, .server_id = req->from};
    out->term = req->term;
    out->prev_log_index = a->prev_index + i;
    out->prev_log_term = i == 0 ? a->prev_term : a->entries[i - 1]->term;
    out->leader_commit = a->commit;
    out->n_entries = 0;
    if (n == 0)
        return 0;
    for (size_t k = i; k < end; k++)
        bytes += a->entries[k]->length;
    out->entries = raft_calloc(n, sizeof(*out->entries));
    uint8_t *batch = raft_malloc(bytes > 0 ? bytes : 1);
    if (!out->entries || !batch) {
        raft_free(out->entries);
        raft_free(batch);
        return -ENOMEM;
    }
    memcpy(batch, p, bytes);
    for (size_t k = 0; k < n; k++) {
        const Replfs__RaftEntry *e = a->entries[i + k];
        out->entries[k] = (struct raft_entry){.term = e->term,
                                              .type = (enum raft_entry_type)e->type,
                                              .buf = {.base = batch + pos, .len = e->length},
                                              .batch = batch};
        pos += e->length;
    }
    out->n_entries = (unsigned)n;
    return 0;
}

static int decode_append(const Replfs__RaftReq *req, const uint8_t *payload, size_t len,
                         struct mlog_msgs *out, const char **why)
{
    const Replfs__RaftAppend *a = req->append;
    size_t i = 0, pos = 0;

    *why = append_problem(a, req->term, payload, len);
    if (*why)
        return -ERR_PROTOCOL;
    out->v = calloc(a->n_entries + 1, sizeof(*out->v));
    if (!out->v)
        return -ENOMEM;
    do {
        size_t end = i, bytes = 0;
        do {
            bytes += end < a->n_entries ? a->entries[end]->length : 0;
            end += end < a->n_entries;
        } while (end < a->n_entries && a->entries[end]->type != RAFT_CHANGE);
        int rc = make_append(&out->v[out->n], req, i, end, payload + pos);
        if (rc != 0) {
            mlog_wire_free(out, 0);
            return rc;
        }
        out->n++;
        pos += bytes;
        i = end;
    } while (i < a->n_entries);
    return 0;
}

static const char *decode_snapshot(const Replfs__RaftReq *req, struct raft_message *m)
{
    const Replfs__RaftSnapshot *s = req->snapshot;
    struct raft_install_snapshot *out = &m->install_snapshot;

    if (s->last_index == 0 || out_of_range(s->last_index) || s->last_term == 0 ||
        s->last_term > req->term || s->conf_index == 0 || s->conf_index > s->last_index ||
        s->length == 0 || s->length > MLOG_WIRE_DESC_BYTES)
        return "impossible snapshot";
    const char *why = conf_problem(s->conf.data, s->conf.len, &out->conf);
    if (why)
        return why;
    m->type = RAFT_INSTALL_SNAPSHOT;
    out->term = req->term;
    out->last_index = s->last_index;
    out->last_term = s->last_term;
    out->conf_index = s->conf_index;
    out->data.len = (size_t)s->length;
    return NULL;
}

/* All that is neither entries nor a snapshot. */
static const char *decode_small(const Replfs__RaftReq *req, struct raft_message *m)
{
    switch (req->body_case) {
    case REPLFS__RAFT_REQ__BODY_VOTE:
        if (out_of_range(req->vote->last_index) || req->vote->last_term > req->term)
            return "impossible end of the log";
        m->type = RAFT_REQUEST_VOTE;
        m->request_vote = (struct raft_request_vote){.version = 2,
                                                     .term = req->term,
                                                     .candidate_id = req->from,
                                                     .last_log_index = req->vote->last_index,
                                                     .last_log_term = req->vote->last_term,
                                                     .disrupt_leader = req->vote->disrupt,
                                                     .pre_vote = req->vote->pre};
        return NULL;
    case REPLFS__RAFT_REQ__BODY_VOTE_RESULT:
        m->type = RAFT_REQUEST_VOTE_RESULT;
        m->request_vote_result =
            (struct raft_request_vote_result){.version = 2,
                                              .term = req->term,
                                              .vote_granted = req->vote_result->granted,
                                              .pre_vote = req->vote_result->pre,
                                              .features = (unsigned short)req->features,
                                              .capacity = (unsigned short)req->capacity};
        return NULL;
    case REPLFS__RAFT_REQ__BODY_APPEND_RESULT:
        if (out_of_range(req->append_result->rejected) ||
            out_of_range(req->append_result->last_index))
            return "impossible place in the log";
        m->type = RAFT_APPEND_ENTRIES_RESULT;
        m->append_entries_result =
            (struct raft_append_entries_result){.version = 2,
                                                .term = req->term,
                                                .rejected = req->append_result->rejected,
                                                .last_log_index = req->append_result->last_index,
                                                .features = (unsigned short)req->features,
                                                .capacity = (unsigned short)req->capacity};
        return NULL;
    case REPLFS__RAFT_REQ__BODY_TIMEOUT_NOW:
        m->type = RAFT_TIMEOUT_NOW;
        m->timeout_now = (struct raft_timeout_now){.term = req->term,
                                                   .last_log_index = req->timeout_now->last_index,
                                                   .last_log_term = req->timeout_now->last_term};
        return NULL;
    case REPLFS__RAFT_REQ__BODY_APPEND:
    case REPLFS__RAFT_REQ__BODY_SNAPSHOT:
    case REPLFS__RAFT_REQ__BODY__NOT_SET:
        break;
    }
    return "no message that this version knows";
}

int mlog_wire_decode(const Replfs__RaftReq *req, const uint8_t *payload, size_t len,
                     struct mlog_msgs *out, const char **why)
{
    *out = (struct mlog_msgs){0};
    *why = NULL;
    if (req->from == 0 || req->from > UINT32_MAX || req->term == 0 || out_of_range(req->term)) {
        *why = "impossible sender or term";
        return -ERR_PROTOCOL;
    }
    if (req->body_case == REPLFS__RAFT_REQ__BODY_APPEND)
        return decode_append(req, payload, len, out, why);
    if (len != 0) {
        *why = "payload where there is none";
        return -ERR_PROTOCOL;
    }
    out->v = calloc(1, sizeof(*out->v));
    if (!out->v)
        return -ENOMEM;
    out->v->server_id = req->from;
    *why = req->body_case == REPLFS__RAFT_REQ__BODY_SNAPSHOT ? decode_snapshot(req, out->v)
                                                             : decode_small(req, out->v);
    if (*why) {
        free(out->v);
        out->v = NULL;
        return -ERR_PROTOCOL;
    }
    out->n = 1;
    return 0;
}

/* ---- out ---- */

static int fill_append(struct mlog_wire_out *o, const struct raft_append_entries *a, unsigned *next)
{
    unsigned n = 0;

    replfs__raft_append__init(&o->append);
    o->req.body_case = REPLFS__RAFT_REQ__BODY_APPEND;
    o->req.append = &o->append;
    o->req.term = a->term;
    o->first = *next;
    o->append.prev_index = a->prev_log_index + *next;
    o->append.prev_term = *next == 0 ? a->prev_log_term : a->entries[*next - 1].term;
    o->append.commit = a->leader_commit;
    for (; *next < a->n_entries && n < MLOG_WIRE_ENTRIES; n++, ++*next) {
        const struct raft_entry *e = &a->entries[*next];
        if (e->buf.len > MLOG_WIRE_BYTES)
            return n > 0 ? 0 : -E2BIG;
        if (o->payload + e->buf.len > MLOG_WIRE_BYTES)
            break;
        replfs__raft_entry__init(&o->entries[n]);
        o->entries[n].term = e->term;
        o->entries[n].type = (uint32_t)e->type;
        o->entries[n].length = (uint32_t)e->buf.len;
        o->entry_ptrs[n] = &o->entries[n];
        o->payload += e->buf.len;
        o->append.n_entries = n + 1;
    }
    o->append.entries = o->entry_ptrs;
    return 0;
}

static int fill_snapshot(struct mlog_wire_out *o, const struct raft_install_snapshot *s)
{
    replfs__raft_snapshot__init(&o->snapshot);
    o->req.body_case = REPLFS__RAFT_REQ__BODY_SNAPSHOT;
    o->req.snapshot = &o->snapshot;
    o->req.term = s->term;
    o->snapshot.last_index = s->last_index;
    o->snapshot.last_term = s->last_term;
    o->snapshot.conf_index = s->conf_index;
    o->snapshot.length = s->data.len;
    if (raft_configuration_encode(&s->conf, &o->conf) != 0)
        return -ENOMEM;
    o->snapshot.conf = (ProtobufCBinaryData){.data = o->conf.base, .len = o->conf.len};
    return 0;
}

static void fill_votes(struct mlog_wire_out *o, const struct raft_message *msg)
{
    if (msg->type == RAFT_REQUEST_VOTE) {
        replfs__raft_vote__init(&o->vote);
        o->req.body_case = REPLFS__RAFT_REQ__BODY_VOTE;
        o->req.vote = &o->vote;
        o->req.term = msg->request_vote.term;
        o->vote.last_index = msg->request_vote.last_log_index;
        o->vote.last_term = msg->request_vote.last_log_term;
        o->vote.disrupt = msg->request_vote.disrupt_leader;
        o->vote.pre = msg->request_vote.pre_vote;
        return;
    }
    replfs__raft_vote_result__init(&o->vote_result);
    o->req.body_case = REPLFS__RAFT_REQ__BODY_VOTE_RESULT;
    o->req.vote_result = &o->vote_result;
    o->req.term = msg->request_vote_result.term;
    o->vote_result.granted = msg->request_vote_result.vote_granted;
    o->vote_result.pre = msg->request_vote_result.pre_vote;
    o->req.features = msg->request_vote_result.features;
    o->req.capacity = msg->request_vote_result.capacity;
}

static void fill_result(struct mlog_wire_out *o, const struct raft_append_entries_result *r)
{
    replfs__raft_append_result__init(&o->append_result);
    o->req.body_case = REPLFS__RAFT_REQ__BODY_APPEND_RESULT;
    o->req.append_result = &o->append_result;
    o->req.term = r->term;
    o->append_result.rejected = r->rejected;
    o->append_result.last_index = r->last_log_index;
    o->req.features = r->features;
    o->req.capacity = r->capacity;
}

static void fill_timeout_now(struct mlog_wire_out *o, const struct raft_timeout_now *t)
{
    replfs__raft_timeout_now__init(&o->timeout_now);
    o->req.body_case = REPLFS__RAFT_REQ__BODY_TIMEOUT_NOW;
    o->req.timeout_now = &o->timeout_now;
    o->req.term = t->term;
    o->timeout_now.last_index = t->last_log_index;
    o->timeout_now.last_term = t->last_log_term;
}

int mlog_wire_fill(struct mlog_wire_out *o, const struct raft_message *msg, unsigned *next)
{
    replfs__raft_req__init(&o->req);
    o->conf = (struct raft_buffer){0};
    o->payload = 0;
    o->first = 0;
    o->req.to = msg->server_id;
    switch (msg->type) {
    case RAFT_APPEND_ENTRIES:
        return fill_append(o, &msg->append_entries, next);
    case RAFT_APPEND_ENTRIES_RESULT:
        fill_result(o, &msg->append_entries_result);
        return 0;
    case RAFT_REQUEST_VOTE:
    case RAFT_REQUEST_VOTE_RESULT:
        fill_votes(o, msg);
        return 0;
    case RAFT_INSTALL_SNAPSHOT:
        return fill_snapshot(o, &msg->install_snapshot);
    case RAFT_TIMEOUT_NOW:
        fill_timeout_now(o, &msg->timeout_now);
        return 0;
    }
    return -EINVAL;
}

void mlog_wire_payload(const struct mlog_wire_out *o, const struct raft_message *msg, uint8_t *p)
{
    for (size_t i = 0; o->payload > 0 && i < o->append.n_entries; i++) {
        const struct raft_buffer *b = &msg->append_entries.entries[o->first + i].buf;
        if (b->len > 0)
            memcpy(p, b->base, b->len);
        p += b->len;
    }
}

void mlog_wire_done(struct mlog_wire_out *o)
{
    raft_free(o->conf.base);
    o->conf = (struct raft_buffer){0};
}
