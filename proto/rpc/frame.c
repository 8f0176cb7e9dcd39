/* Encoding and decoding of frames. Whatever arrives here was chosen by a peer: lengths are compared
 * with their caps before anyone allocates, the CRC covers header and envelope (payload carries
 * checksums of its own), and an envelope is unpacked into an arena of bounded size, so that a small
 * message full of empty submessages cannot ask for gigabytes.
 *
 * Fields that we do not know are kept by the unpacker, at ten times their size on the wire. Newer
 * peers may send some; a message with more than UNKNOWN_MAX bytes of them is refused.
 *
 * The arena makes unpacking cheap too: a handful of mallocs per message whatever its shape, freed
 * together. Pure; any thread. */
#include "rpc/frame.h"

#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"

static const uint8_t magic[4] = {'R', 'P', 'F', '1'};

const char *frame_bad_start(const uint8_t *p, size_t n)
{
    if (memcmp(p, magic, n < sizeof(magic) ? n : sizeof(magic)) == 0)
        return NULL;
    /* A TLS record starts with a type of 20..23 and version 3.x. */
    if (n >= 2 && p[0] >= 20 && p[0] <= 23 && p[1] == 3)
        return "the peer speaks TLS here, we do not; give both sides certificates, or neither";
    return "not a replfs frame (wrong magic); is this the right port?";
}

int frame_decode(const uint8_t h[FRAME_HEADER], struct frame *out, const char **why)
{
    *why = frame_bad_start(h, FRAME_HEADER);
    if (*why)
        return -ERR_PROTOCOL;
    out->env_len = le_get32(h + 4);
    out->payload_len = le_get32(h + 8);
    out->crc = le_get32(h + 12);
    if (out->env_len > RPC_MAX_ENVELOPE) {
        *why = "envelope longer than the limit of 1 MiB";
        return -ERR_PROTOCOL;
    }
    if (out->payload_len > RPC_MAX_PAYLOAD) {
        *why = "payload longer than the limit";
        return -ERR_PROTOCOL;
    }
    return 0;
}

static uint32_t frame_crc(const uint8_t *h, const uint8_t *env, size_t env_len)
{
    return crc32c(crc32c(0, h, FRAME_HEADER - 4), env, env_len);
}

int frame_check(const uint8_t h[FRAME_HEADER], const uint8_t *env, size_t env_len)
{
    return le_get32(h + 12) == frame_crc(h, env, env_len) ? 0 : -ERR_PROTOCOL;
}

void frame_encode(uint8_t h[FRAME_HEADER], const uint8_t *env, uint32_t env_len,
                  uint32_t payload_len)
{
    memcpy(h, magic, sizeof(magic));
    le_put32(h + 4, env_len);
    le_put32(h + 8, payload_len);
    le_put32(h + 12, frame_crc(h, env, env_len));
}

/* ---- arena ---- */

#define ARENA_MIN 1024u
#define ARENA_BLOCK 65536u
#define ARENA_LIMIT (64u << 20)

struct block {
    struct block *next;
    max_align_t data[];
};

struct arena {
    struct block *extra; /* further blocks, newest first */
    char *at, *end;      /* free room in the newest block */
    size_t total;
    max_align_t first[];
};

static struct arena *arena_new(size_t hint)
{
    size_t room = hint < ARENA_MIN ? ARENA_MIN : hint > ARENA_BLOCK ? ARENA_BLOCK : hint;
    struct arena *a = malloc(sizeof(*a) + room);

    if (a) {
        a->extra = NULL;
        a->at = (char *)a->first;
        a->end = a->at + room;
        a->total = room;
    }
    return a;
}

static void *arena_alloc(void *data, size_t size)
{
    struct arena *a = data;
    const size_t align = _Alignof(max_align_t);

    if (size > ARENA_LIMIT)
        return NULL;
    size = (size + align - 1) & ~(align - 1);
    if (size > (size_t)(a->end - a->at)) {
        size_t room = size > ARENA_BLOCK ? size : ARENA_BLOCK;
        if (a->total + room > ARENA_LIMIT)
            return NULL;
        struct block *b = malloc(sizeof(*b) + room);
        if (!b)
            return NULL;
        b->next = a->extra;
        a->extra = b;
        a->at = (char *)b->data;
        a->end = a->at + room;
        a->total += room;
    }
    void *p = a->at;
    a->at += size;
    return p;
}

static void arena_forget(void *data, void *p)
{
    (void)data;
    (void)p; /* everything goes together */
}

static void arena_free(struct arena *a)
{
    while (a && a->extra) {
        struct block *b = a->extra;
        a->extra = b->next;
        free(b);
    }
    free(a);
}

/* ---- unknown fields ---- */

#define UNKNOWN_MAX 4096u

static bool has_junk(const ProtobufCMessage *m, size_t *bytes);

static bool field_has_junk(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *d,
                           size_t *bytes)
{
    const char *at = (const char *)m + d->offset,
               *quantifier = (const char *)m + d->quantifier_offset;

    if (d->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t n = *(const size_t *)(const void *)quantifier;
        ProtobufCMessage *const *list = *(ProtobufCMessage *const *const *)(const void *)at;
        for (size_t i = 0; i < n; i++)
            if (has_junk(list[i], bytes))
                return true;
        return false;
    }
    if ((d->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
        *(const uint32_t *)(const void *)quantifier != d->id)
        return false;
    const ProtobufCMessage *sub = *(const ProtobufCMessage *const *)(const void *)at;
    return sub && has_junk(sub, bytes);
}

/* Adds the bytes of m's unknown fields, and of those inside; true when they become too many. */
static bool has_junk(const ProtobufCMessage *m, size_t *bytes)
{
    for (unsigned i = 0; i < m->n_unknown_fields && *bytes <= UNKNOWN_MAX; i++)
        *bytes += 1 + m->unknown_fields[i].len;
    for (unsigned i = 0; i < m->descriptor->n_fields && *bytes <= UNKNOWN_MAX; i++)
        if (m->descriptor->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            field_has_junk(m, &m->descriptor->fields[i], bytes);
    return *bytes > UNKNOWN_MAX;
}

int message_unpack(struct message *m, const uint8_t *data, size_t len)
{
    m->env = NULL;
    m->arena = arena_new(len * 3 + 512);
    if (!m->arena)
        return -ERR_PROTOCOL;
    ProtobufCAllocator alloc = {arena_alloc, arena_forget, m->arena};
    m->env = replfs__envelope__unpack(&alloc, len, data);
    size_t junk = 0;
    if (!m->env || (len > UNKNOWN_MAX && has_junk(&m->env->base, &junk))) {
        message_free(m);
        return -ERR_PROTOCOL;
    }
    return 0;
}

size_t message_bytes(const struct message *m)
{
    return m->arena ? sizeof(*m->arena) + m->arena->total : 0;
}

void message_free(struct message *m)
{
    arena_free(m->arena);
    m->arena = NULL;
    m->env = NULL;
}
