/* Files of copies of the names, as metad makes them and sends them to the chunkds of chunkd_rig.h. */
#ifndef REPLFS_TESTS_NAMES_RIG_H
#define REPLFS_TESTS_NAMES_RIG_H
#include "chunkd_rig.h"
#include "names_file.h"

struct sheet { /* of records */
    uint8_t p[65536];
    size_t len;
};

static inline void put_header(struct sheet *s, uint64_t generation, uint64_t term,
                              const char *cluster)
{
    struct names_header h = {.generation = generation, .term = term};

    memcpy(h.cluster, cluster, 37);
    s->len = 0;
    names_header_make(&h, s->p);
    s->len = NAMES_HEADER;
}

static inline void put_record(struct sheet *s, enum names_type type, uint64_t a, uint64_t b,
                              size_t len)
{
    uint8_t payload[8192];

    chunkd_rig_fill(payload, len, a);
    names_record_make(type, a, b, 1, payload, (uint32_t)len, s->p + s->len);
    memcpy(s->p + s->len + NAMES_RECORD, payload, len);
    s->len += NAMES_RECORD + len;
}

static inline void put_state(struct sheet *s, size_t len)
{
    uint8_t state[8192];

    put_record(s, NAMES_PIECE, 0, 0, len);
    chunkd_rig_fill(state, len, 0);
    names_record_make(NAMES_WHOLE, len, crc32c(0, state, len), 1, NULL, 0, s->p + s->len);
    s->len += NAMES_RECORD;
}

static Replfs__NamesState answer;

static inline int send_put(unsigned chunkd, uint64_t generation, uint64_t at, bool begin,
                           uint64_t term, const struct sheet *s)
{
    Replfs__NamesPutReq r = REPLFS__NAMES_PUT_REQ__INIT;
    struct rpc_result res;
    struct buf *b = s ? buf_new(s->len) : NULL;

    if (b) {
        memcpy(b->data, s->p, s->len);
        b->len = s->len;
    }
    r.generation = generation;
    r.at = at;
    r.begin = begin;
    r.term = term;
    r.sync = true;
    RPC_ENVELOPE(env, NAMES_PUT_REQ, names_put_req, &r);
    pthread_mutex_lock(&chunkd_rig.mu);
    struct rpc_conn *c = rpc_conn_ref(chunkd_rig.node[chunkd].conn);
    pthread_mutex_unlock(&chunkd_rig.mu);
    int rc = rpc_call_wait(c, &env, b, 10000, &res);
    if (rc == 0)
        answer = *res.rep->names_put_reply->state;
    rpc_result_free(&res);
    rpc_conn_unref(c);
    return rc;
}
#endif
