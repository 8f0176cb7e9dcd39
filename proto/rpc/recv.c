/* Receiving, on the connection's worker. Bytes come into a 64 KiB buffer; a payload is received
 * straight into the buffer that its handler gets, so that only what arrived together with its
 * envelope is copied. One read gathers: first what the current payload (or large envelope) still
 * lacks, then whatever follows.
 *
 * Per frame: header (caps and magic checked) -> envelope (CRC checked, unpacked) -> payload ->
 * handled. Any violation ends the connection with a text that names the peer and the reason. */
#include "rpc/rpc_internal.h"
#include "base/clock.h"
#include "base/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define HELLO_MAX 4096 /* strangers may not make us hold more */
#define ROUNDS 32      /* reads before others on this worker get their turn */

static size_t buffered(const struct rpc_conn *c)
{
    return c->rend - c->rpos;
}

/* Envelopes up to here are decoded in rbuf; larger ones are gathered in memory of their own. */
static bool env_in_rbuf(const struct rpc_conn *c)
{
    return c->frame.env_len <= RBUF_SIZE;
}

static bool take_header(struct rpc_conn *c)
{
    const char *why = "";

    if (buffered(c) < FRAME_HEADER) {
        /* A wrong peer may never send a whole header. */
        if (buffered(c) >= 4 && (why = frame_bad_start(c->rbuf + c->rpos, buffered(c))))
            conn_die(c, -ERR_PROTOCOL, "%s: %s", c->target, why);
        return false;
    }
    memcpy(c->header, c->rbuf + c->rpos, FRAME_HEADER);
    if (frame_decode(c->header, &c->frame, &why) < 0) {
        conn_die(c, -ERR_PROTOCOL, "%s: %s", c->target, why);
        return false;
    }
    if (c->state == CONN_HELLO && (c->frame.env_len > HELLO_MAX || c->frame.payload_len > 0)) {
        conn_die(c, -ERR_PROTOCOL, "%s: the first message is too long for a Hello", c->target);
        return false;
    }
    c->rpos += FRAME_HEADER;
    c->have_frame = true;
    c->env_got = 0;
    if (!env_in_rbuf(c)) {
        c->env = malloc(c->frame.env_len);
        if (!c->env)
            abort();
    }
    return true;
}

static bool take_envelope(struct rpc_conn *c)
{
    size_t len = c->frame.env_len;
    const uint8_t *data;

    if (c->env) {
        size_t n = buffered(c) < len - c->env_got ? buffered(c) : len - c->env_got;
        memcpy(c->env + c->env_got, c->rbuf + c->rpos, n);
        c->env_got += n;
        c->rpos += n;
        if (c->env_got < len)
            return false;
        data = c->env;
    } else {
        if (buffered(c) < len)
            return false;
        data = c->rbuf + c->rpos;
        c->rpos += len;
    }
    int rc = frame_check(c->header, data, len);
    if (rc < 0)
        conn_die(c, rc, "%s: bad checksum of a frame", c->target);
    else if ((rc = message_unpack(&c->msg, data, len)) < 0)
        conn_die(c, rc, "%s: malformed message", c->target);
    free(c->env);
    c->env = NULL;
    if (rc < 0)
        return false;
    if (c->frame.payload_len)
        c->payload = buf_new(c->frame.payload_len);
    return true;
}

static bool take_payload(struct rpc_conn *c)
{
    if (!c->payload)
        return true;
    size_t lack = c->frame.payload_len - c->payload->len;
    size_t n = buffered(c) < lack ? buffered(c) : lack;
    memcpy(c->payload->data + c->payload->len, c->rbuf + c->rpos, n);
    c->payload->len += n;
    c->rpos += n;
    return n == lack;
}

static void handle(struct rpc_conn *c)
{
    struct message msg = c->msg;
    struct buf *payload = c->payload;

    c->msg.env = NULL;
    c->msg.arena = NULL;
    c->payload = NULL;
    c->have_frame = false;
    if (c->state == CONN_HELLO) {
        conn_hello_received(c, msg.env);
    } else if (c->state == CONN_READY && conn_ping_received(c, &msg)) {
        /* it was for the connection itself */
    } else if (c->state == CONN_READY && msg.env->is_reply) {
        call_reply(c, &msg, payload);
        return;
    } else if (c->state == CONN_READY) {
        server_request(c, &msg, payload);
        return;
    }
    message_free(&msg);
    buf_unref(payload);
}

/* Handles every whole frame in the buffer. False: stop reading for now (paused or finished). */
static bool handle_buffered(struct rpc_conn *c)
{
    for (;;) {
        int state = c->state;
        if (state >= CONN_LINGER)
            return false;
        lock_acquire(&c->mu);
        bool paused = c->paused;
        lock_release(&c->mu);
        if (paused)
            return false;
        if (!c->have_frame && !take_header(c))
            break;
        if (!c->msg.env && !take_envelope(c))
            break;
        if (!take_payload(c))
            break;
        handle(c);
    }
    return c->state < CONN_LINGER;
}

/* Where the next bytes go. */
static int targets(struct rpc_conn *c, struct iovec iov[2])
{
    int n = 0;

    if (c->payload) {
        iov[n].iov_base = c->payload->data + c->payload->len;
        iov[n++].iov_len = c->frame.payload_len - c->payload->len;
    } else if (c->env) {
        iov[n].iov_base = c->env + c->env_got;
        iov[n++].iov_len = c->frame.env_len - c->env_got;
    }
    if (c->rpos > 0) {
        memmove(c->rbuf, c->rbuf + c->rpos, buffered(c));
        c->rend -= c->rpos;
        c->rpos = 0;
    }
    iov[n].iov_base = c->rbuf + c->rend;
    iov[n++].iov_len = RBUF_SIZE - c->rend;
    return n;
}

static void received(struct rpc_conn *c, size_t n)
{
    size_t direct = 0;

    if (c->payload) {
        size_t lack = c->frame.payload_len - c->payload->len;
        direct = n < lack ? n : lack;
        c->payload->len += direct;
    } else if (c->env) {
        size_t lack = c->frame.env_len - c->env_got;
        direct = n < lack ? n : lack;
        c->env_got += direct;
    }
    c->rend += n - direct;
}

/* The connection ended (rc 0) or broke. */
static void read_failed(struct rpc_conn *c, int rc, const char *why)
{
    if (rc == 0 && c->state == CONN_HELLO && !c->accepted)
        conn_die(c, -ERR_PEER_GONE, "%s: closed by the peer before its Hello%s", c->target,
                 c->ssl ? "" : " (does it expect TLS? then give us certificates)");
    else if (rc == 0)
        conn_die(c, -ERR_PEER_GONE, "%s: closed by the peer", c->target);
    else if (rc == -EACCES)
        conn_die(c, rc, "%s: %s", c->target, why);
    else
        conn_die(c, -ERR_PEER_GONE, "%s: connection lost: %s", c->target,
                 why[0] ? why : err_str(rc));
}

/* One read. > 0 bytes, -EAGAIN, or another negative after the connection died. */
static ssize_t read_some(struct rpc_conn *c, bool *drained)
{
    char why[ERROR_TEXT] = "";
    struct iovec iov[2];
    int n = targets(c, iov);
    ssize_t rc;

    *drained = false;
    if (c->ssl) {
        lock_acquire(&c->mu);
        rc = tls_read(c, iov[0].iov_base, iov[0].iov_len, why, sizeof(why));
        if (c->ssl_wants_write)
            conn_update_events_locked(c);
        lock_release(&c->mu);
    } else {
        size_t room = iov[0].iov_len + (n > 1 ? iov[1].iov_len : 0);
        rc = readv(c->fd, iov, n);
        if (rc < 0)
            rc = errno == EINTR ? -EAGAIN : -errno;
        *drained = rc > 0 && (size_t)rc < room;
    }
    if (rc == -EAGAIN)
        return rc;
    if (rc > 0) {
        c->alive.heard = clock_mono();
        received(c, (size_t)rc);
        return rc;
    }
    read_failed(c, (int)rc, why);
    return rc < 0 ? rc : -ERR_PEER_GONE;
}

static bool tls_has_more(struct rpc_conn *c)
{
    bool more = false;

    if (c->ssl) {
        lock_acquire(&c->mu);
        more = SSL_has_pending(c->ssl) != 0;
        lock_release(&c->mu);
    }
    return more;
}

/* LINGER: below TLS, which may have failed. */
static void drop_input(struct rpc_conn *c)
{
    for (int i = 0; i < ROUNDS; i++) {
        ssize_t rc = recv(c->fd, c->rbuf, RBUF_SIZE, MSG_DONTWAIT);
        if (rc < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (rc <= 0) {
            conn_die(c, -ERR_PEER_GONE, "%s: closed by the peer", c->target);
            return;
        }
    }
}

void conn_readable(struct rpc_conn *c)
{
    if (c->state == CONN_LINGER) {
        drop_input(c);
        return;
    }
    for (int i = 0;; i++) {
        bool drained;
        if (!handle_buffered(c))
            return;
        if (i >= ROUNDS && !tls_has_more(c))
            return; /* the rest still makes the socket readable */
        if (read_some(c, &drained) < 0)
            return;
        if (drained) {
            handle_buffered(c);
            return;
        }
    }
}
