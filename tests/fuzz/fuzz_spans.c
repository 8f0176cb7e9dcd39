/* What a chunkd may answer to a Read, as a client and as a chunkd that copies take it: any ReadReply with
 * any payload. What is accepted covers exactly the range that was asked for. Checksums are put right at
 * times, since no fuzzer guesses one. */
#include "chunkd/orders.c"
#undef LOG_MODULE
#undef WAITER_INIT
#define handle read_handle /* of the same name in both */
#define waiter_add read_waiter_add
#include "fuse/client/io/read_round.c"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fix_crcs(Replfs__ReadReply *r, const struct buf *payload)
{
    size_t at = 0;
    for (size_t i = 0; i < r->n_spans; i++) {
        Replfs__Span *s = r->spans[i];
        if (s->len > payload->len - at || s->len == 0)
            return;
        free(s->crcs.data);
        s->crcs.len = 4 * crc_blocks(s->len);
        s->crcs.data = malloc(s->crcs.len);
        if (!s->crcs.data)
            abort();
        crc_blocks_make(payload->data + at, s->len, s->crcs.data);
        at += s->len;
    }
}

static void as_client(const Replfs__ReadReply *r, struct buf *payload, uint32_t off, uint32_t len)
{
    struct read_round op = {.nsegs = 1, .len = len, .out = buf_new(len)};
    struct readseg seg = {.off = off, .len = len};
    struct answer a = {.payload = payload};
    op.out->len = len;
    if (keep_spans(&a, r) == 0 && answer_take(&op, &seg, &a) == 0)
        assert(op.out->len == len);
    buf_unref(op.out);
    free(a.spans);
}

static void as_chunkd(const Replfs__ReadReply *r, const struct buf *payload, uint32_t off)
{
    struct copy c = {.pos = off};
    if (check_spans(&c, r, payload) != 0)
        return;
    uint32_t pos = off;
    size_t at = 0;
    for (size_t i = 0; i < r->n_spans; i++) { /* what copy_span relies on */
        assert(r->spans[i]->chunk_off <= pos && r->spans[i]->chunk_off + r->spans[i]->len > pos);
        pos = r->spans[i]->chunk_off + r->spans[i]->len;
        at += r->spans[i]->len;
    }
    assert(at <= payload->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8 || size > 1u << 16)
        return 0;
    uint32_t off = (uint32_t)(data[0] | data[1] << 8), len = (uint32_t)(data[2] | data[3] << 8) + 1;
    size_t env = (size_t)(data[4] | data[5] << 8);
    bool fix = data[6] & 1;
    data += 8;
    size -= 8;
    if (env > size)
        env = size;
    Replfs__ReadReply *r = replfs__read_reply__unpack(NULL, env, data);
    if (!r)
        return 0;
    struct buf *payload = buf_new(size - env + 1);
    payload->len = size - env;
    memcpy(payload->data, data + env, payload->len);
    if (fix)
        fix_crcs(r, payload);
    as_client(r, payload, off, len);
    as_chunkd(r, payload, off);
    buf_unref(payload);
    replfs__read_reply__free_unpacked(r, NULL);
    return 0;
}
