/* Sending. A frame is tried on the socket at once, from whatever thread made it, when nothing is
 * queued before it; what the socket does not take is queued (the payload by reference) and the
 * worker goes on when the socket is writable. So in the common case a call costs one system call
 * and no thread switch.
 *
 * Two queues: `out` is in sending order. `backlog` holds requests that may not be sent yet, because
 * the peer is not READY or has as many requests of ours as it allows; a request whose call has
 * ended meanwhile is dropped from there unsent. Everything under c->lock. */
#include "rpc/rpc_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define STACK_FRAME 8192
#define IOV_MAX_USED 32

void out_init(struct out_queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

static void out_push(struct out_queue *q, struct out *o)
{
    o->next = NULL;
    *q->last = o;
    q->last = &o->next;
}

static struct out *out_pop(struct out_queue *q)
{
    struct out *o = q->first;

    if (o) {
        q->first = o->next;
        if (!q->first)
            q->last = &q->first;
    }
    return o;
}

static size_t payload_len(const struct buf *b)
{
    return b ? b->len : 0;
}

static void out_free(struct out *o)
{
    buf_unref(o->payload);
    free(o);
}

void out_clear(struct out_queue *q)
{
    struct out *o;

    while ((o = out_pop(q)))
        out_free(o);
}

static struct out *out_new(const uint8_t *head, size_t head_len, struct buf *payload, uint64_t call)
{
    struct out *o = malloc(sizeof(*o) + head_len);

    if (!o)
        abort();
    o->next = NULL;
    o->call = call;
    o->payload = payload;
    o->head_len = head_len;
    o->sent = 0;
    memcpy(o->head, head, head_len);
    return o;
}

/* Writes the pieces; returns the bytes taken (0: the socket is full), or negative after c died. */
static ssize_t write_pieces(struct rpc_conn *c, const struct iovec *iov, int n)
{
    char why[ERROR_TEXT] = "connection closed";
    ssize_t rc;

    if (c->ssl) {
        rc = tls_write(c, iov[0].iov_base, iov[0].iov_len, why, sizeof(why));
    } else {
        struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};
        do {
            rc = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        } while (rc < 0 && errno == EINTR);
        if (rc < 0)
            rc = -errno;
        if (rc < 0 && rc != -EAGAIN)
            snprintf(why, sizeof(why), "%s", strerror((int)-rc));
    }
    if (rc > 0)
        return rc;
    if (rc == -EAGAIN)
        return 0;
    conn_die_locked(c, -ERR_PEER_GONE, "%s: connection lost: %s", c->target, why);
    return -ERR_PEER_GONE;
}

/* The unsent rest of a frame as pieces. */
static int pieces(const uint8_t *head, size_t head_len, const struct buf *payload, size_t sent,
                  struct iovec iov[2])
{
    int n = 0;
    size_t plen = payload_len(payload);

    if (sent < head_len) {
        iov[n].iov_base = (void *)(uintptr_t)(head + sent);
        iov[n++].iov_len = head_len - sent;
    }
    size_t psent = sent > head_len ? sent - head_len : 0;
    if (psent < plen) {
        iov[n].iov_base = payload->data + psent;
        iov[n++].iov_len = plen - psent;
    }
    return n;
}

/* Takes `n` sent bytes off the queue. */
static void out_advance(struct rpc_conn *c, size_t n)
{
    c->out_bytes -= n;
    while (n > 0) {
        struct out *o = c->out.first;
        size_t left = o->head_len + payload_len(o->payload) - o->sent;
        if (n < left) {
            o->sent += n;
            return;
        }
        n -= left;
        out_free(out_pop(&c->out));
    }
}

void conn_flush_locked(struct rpc_conn *c)
{
    struct iovec iov[IOV_MAX_USED];

    lock_assert_held(&c->mu);
    while (c->out.first && c->state < CONN_DYING) {
        int n = 0;
        for (struct out *o = c->out.first; o && n + 2 <= IOV_MAX_USED; o = o->next)
            n += pieces(o->head, o->head_len, o->payload, o->sent, iov + n);
        ssize_t rc = write_pieces(c, iov, n);
        if (rc <= 0)
            break;
        out_advance(c, (size_t)rc);
    }
    if (!c->out.first && c->state == CONN_LINGER)
        shutdown(c->fd, SHUT_WR);
    if (c->state < CONN_DYING)
        conn_update_events_locked(c);
}

/* Sends what the socket takes now and queues the rest. */
static void send_now(struct rpc_conn *c, const uint8_t *head, size_t head_len, struct buf *payload)
{
    size_t total = head_len + payload_len(payload), sent = 0;
    struct iovec iov[2];

    c->put += total;
    while (!c->out.first && sent < total) {
        int n = pieces(head, head_len, payload, sent, iov);
        ssize_t rc = write_pieces(c, iov, n);
        if (rc < 0) {
            buf_unref(payload);
            return;
        }
        if (rc == 0)
            break;
        sent += (size_t)rc;
    }
    if (sent == total) {
        buf_unref(payload);
        return;
    }
    struct out *o;
    if (sent < head_len) {
        o = out_new(head + sent, head_len - sent, payload, 0);
    } else {
        o = out_new(head, 0, payload, 0);
        o->sent = sent - head_len;
    }
    c->out_bytes += total - sent;
    out_push(&c->out, o);
    conn_update_events_locked(c);
}

static bool may_send_request(const struct rpc_conn *c)
{
    return c->state == CONN_READY && conn_room_locked(c);
}

/* Sends, or keeps, a packed frame. */
static void route(struct rpc_conn *c, const uint8_t *head, size_t head_len, struct buf *payload,
                  uint64_t call)
{
    if (call && (c->backlog.first || !may_send_request(c))) {
        out_push(&c->backlog, out_new(head, head_len, payload, call));
        return;
    }
    if (call)
        c->outstanding++;
    send_now(c, head, head_len, payload);
}

int conn_send_locked(struct rpc_conn *c, const Replfs__Envelope *env, struct buf *payload,
                     uint64_t call)
{
    uint8_t stack[STACK_FRAME], *head = stack;
    size_t len = replfs__envelope__get_packed_size(env);

    lock_assert_held(&c->mu);
    if (c->state >= CONN_LINGER || len > RPC_MAX_ENVELOPE ||
        payload_len(payload) > RPC_MAX_PAYLOAD) {
        buf_unref(payload);
        return c->state >= CONN_LINGER ? -ERR_PEER_GONE : -ERR_PROTOCOL;
    }
    if (len + FRAME_HEADER > sizeof(stack)) {
        head = malloc(len + FRAME_HEADER);
        if (!head)
            abort();
    }
    replfs__envelope__pack(env, head + FRAME_HEADER);
    frame_encode(head, head + FRAME_HEADER, (uint32_t)len, (uint32_t)payload_len(payload));
    route(c, head, len + FRAME_HEADER, payload, call);
    if (head != stack)
        free(head);
    return 0;
}

void conn_release_backlog_locked(struct rpc_conn *c)
{
    lock_assert_held(&c->mu);
    while (c->backlog.first && may_send_request(c)) {
        struct out *o = out_pop(&c->backlog);
        if (!call_exists_locked(c, o->call)) {
            out_free(o);
            continue;
        }
        c->outstanding++;
        c->put += o->head_len + payload_len(o->payload);
        c->out_bytes += o->head_len + payload_len(o->payload);
        out_push(&c->out, o);
    }
    if (c->out.first)
        conn_flush_locked(c);
}
