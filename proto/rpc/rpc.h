/* Requests and replies between replfs processes: one connection carries requests in both
 * directions.
 *
 * A frame is a 16-byte header {magic, envelope length, payload length, CRC32C of header and
 * envelope}, the protobuf Envelope, then raw payload (see man/replfs-protocol.7). Lengths are
 * checked against caps before anything is allocated. The first frame each way is Hello.
 *
 * Threads: a loop owns epoll threads; every connection belongs to one of them. Handlers and completion
 * callbacks run on a loop thread and must not block; long work goes to a thread of its own and replies
 * from there. rpc_call, rpc_reply and rpc_conn_unref may be called from any thread. Sending tries the
 * socket at once from the calling thread; what does not fit is queued. A connection is TLS (1.3, mutual)
 * when the loop has TLS material, else plaintext, which is refused unless `insecure`; between programs of
 * one computer it is a UNIX socket whose other end must be a user we trust (local.c). */
#ifndef REPLFS_RPC_RPC_H
#define REPLFS_RPC_RPC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "envelope.pb-c.h"

#define RPC_PROTO_VERSION 2u
#define RPC_MAX_ENVELOPE (1u << 20) /* bytes */
#define RPC_MAX_PAYLOAD ((1u << 20) + 65536u)
#define RPC_MAX_INFLIGHT 4096 /* requests a peer may have open on one connection */

/* One bit each, so that a set of roles fits one word. */
enum rpc_role {
    RPC_ROLE_NONE = 0,
    RPC_ROLE_METAD = 1,
    RPC_ROLE_CHUNKD = 2,
    RPC_ROLE_CLIENT = 4,
    RPC_ROLE_ADMIN = 8,
    RPC_ROLE_ANY = 15,
};

struct rpc_config {
    enum rpc_role role;          /* ours, told in Hello */
    const char *name;            /* for peers' logs */
    unsigned threads;            /* epoll threads, >= 1 */
    bool insecure;               /* plaintext TCP: everybody is trusted */
    unsigned max_conns;          /* accepted ones; 0: 4096. The rest of the descriptors is ours */
    unsigned max_conns_per_addr; /* 0: 512; of them at most 64 that have not said Hello */
    const char *tls_cert, *tls_key, *tls_ca; /* PEM files; all or none */
    unsigned
        silent_ms; /* a peer that owes us an answer and gives no sign of life for so long is gone (alive.c);
                           0: RPC_SILENT_MS, UINT_MAX: never */
};
/* Under a sanitizer everything is slower, and tests run side by side. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RPC_SILENT_MS 10000u
#else
#define RPC_SILENT_MS 2000u
#endif
struct rpc_loop;
struct rpc_conn;

/* What Hello said (with TLS, role and name from the certificate: OU=replfs-ROLE, CN); valid once the connection is
 * ready. */
struct rpc_peer {
    enum rpc_role role;
    uint64_t features;
    uint64_t
        instance; /* of the program's run: the same behind another address is the same program; 0: not told */
    char name[128], cluster[40], software[64], addr[64];
};

struct rpc_req { /* a request received; lives until rpc_reply* consumes it */
    struct rpc_conn *conn;
    const Replfs__Envelope *env;
    struct buf *payload; /* or NULL; owned by the req, take a reference to keep it */
    int64_t deadline;    /* clock_mono ns */
    uint64_t trace;
    /* For whoever serves it to set; NULL: nobody is asked. Asked as the last thing before the answer `rep` goes out,
     * whichever thread sends it: false, and *instead (filled in, its texts constant) goes in its place. Must not block
     * nor take a lock: answers are sent with locks held. */
    bool (*may_answer)(const struct rpc_req *req, const Replfs__Envelope *rep,
                       Replfs__Failure *instead);
    void *may_arg; /* for it */
    uint64_t may_nr;
};

/* ---- loop ---- */
/* *out gets a running loop (threads started). 0, or a negative code after logging what is wrong
 * (unreadable certificate: file and OpenSSL's reason). Ignores SIGPIPE process-wide. */
int rpc_loop_new(const struct rpc_config *cfg, struct rpc_loop **out);
/* Reads the TLS files again: connections made from here on use them. 0 (also without TLS), or a negative
 * code after logging what is wrong: then the former ones stay. One thread at a time. */
int rpc_loop_reload_tls(struct rpc_loop *l);
#define RPC_CERT_WARN_S (30 * 86400ll) /* before its end a certificate is spoken of */
/* When our own certificate ends, in seconds of the calendar; 0 without TLS. It is logged daily when that is
 * soon. Any thread. */
int64_t rpc_cert_end(struct rpc_loop *l);
/* Closes all connections (their calls end with ERR_SHUTDOWN), joins the threads, frees. */
void rpc_loop_free(struct rpc_loop *l);
/* Runs fn(arg) on a loop thread after delay_ms (0: soon). Any thread. What is not due by
 * rpc_loop_free never runs. */
void rpc_loop_defer(struct rpc_loop *l, unsigned delay_ms, void (*fn)(void *arg), void *arg);

/* ---- server ---- */
struct rpc_service {
    /* Every request that is not Hello. Must end in exactly one rpc_reply or rpc_fail for req, now
     * or later, from any thread. */
    void (*request)(void *arg, struct rpc_req *req);
    /* A peer is ready (Hello done) / gone. May be NULL. closed is the last callback for c; a
     * connection that never got ready has neither. */
    void (*opened)(void *arg, struct rpc_conn *c);
    void (*closed)(void *arg, struct rpc_conn *c);
    void *arg;
    const char *cluster; /* our cluster UUID for Hello, or NULL */
};
/* Listens on "host:port", "[v6]:port" or ":port". *port gets the bound port (for port 0). Refuses
 * non-loopback plaintext without insecure: -EPERM with a log line saying so and the two ways
 * out. */
int rpc_listen(struct rpc_loop *l, const char *addr, const struct rpc_service *svc, int *port);

/* Sends the reply and frees req. rep->id and is_reply are filled in; payload reference is consumed
 * (may be NULL). body of rep stays the caller's. */
void rpc_reply(struct rpc_req *req, Replfs__Envelope *rep, struct buf *payload);
/* Replies with a Failure; code positive or negative. */
void rpc_fail(struct rpc_req *req, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Same with the whole Failure given (chunkd, leader). */
void rpc_fail_with(struct rpc_req *req, const Replfs__Failure *f);

/* ---- client ---- */
/* Starts connecting (does not block); calls made before it is ready wait for it within their own
 * time-out. svc (may be NULL) handles requests that the peer sends us. expect: roles the peer may
 * have. The caller holds one reference. A failed or lost connection stays lost: rpc_conn_alive() is
 * false, every call ends with ERR_PEER_GONE (or the connect error, e.g. -ECONNREFUSED); dial again
 * for a new one. So does a peer that is silent for silent_ms while a call waits. 0; -EINVAL: not an address; -EPERM: plaintext beyond loopback; -ERR_SHUTDOWN: l is
 * being freed. Names are looked up in the background; connect, TLS and Hello together have 10 s, and an address
 * that is not the last one of its name 1 s to connect. */
int rpc_dial(struct rpc_loop *l, const char *addr, unsigned expect, const struct rpc_service *svc,
             struct rpc_conn **out);
struct rpc_conn *rpc_conn_ref(struct rpc_conn *c); /* NULL stays NULL */
void rpc_conn_unref(struct rpc_conn *c);           /* the last one closes; NULL is fine */
void rpc_conn_close(struct rpc_conn *c); /* now; outstanding calls end with ERR_PEER_GONE */
bool rpc_conn_alive(const struct rpc_conn *c);
const struct rpc_peer *rpc_conn_peer(const struct rpc_conn *c);
void rpc_conn_set_data(struct rpc_conn *c, void *data); /* one pointer for the service's use */
void *rpc_conn_data(const struct rpc_conn *c);
/* Why a dead connection died: text for people, "" when unknown. */
const char *rpc_conn_error(const struct rpc_conn *c);

/* code: 0 (rep set), or negative. A Failure from the peer arrives as its code with rep set to the
 * envelope holding it. rep and payload are valid during the callback; buf_ref payload to keep
 * it. */
typedef void rpc_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload);
/* Sends req (id, deadline filled in; trace kept or made when 0). payload's reference is consumed.
 * done is called exactly once, maybe before rpc_call returns when the connection is already
 * dead. */
void rpc_call(struct rpc_conn *c, Replfs__Envelope *req, struct buf *payload, unsigned timeout_ms,
              rpc_done *done, void *arg);

struct rpc_result {
    int code;
    Replfs__Envelope *rep; /* or NULL */
    struct buf *payload;
    void *priv;
};
/* The same, waiting; not on a loop thread. Returns out->code. Free out with rpc_result_free
 * always. */
int rpc_call_wait(struct rpc_conn *c, Replfs__Envelope *req, struct buf *payload,
                  unsigned timeout_ms, struct rpc_result *out);
void rpc_result_free(struct rpc_result *r);

/* ENVELOPE_INIT(x, APPEND_REQ, append_req) style helper: declares an envelope whose body is
 * &msg. */
#define RPC_ENVELOPE(var, CASE, field, msgptr)                                                     \
    Replfs__Envelope var = REPLFS__ENVELOPE__INIT;                                                 \
    var.body_case = REPLFS__ENVELOPE__BODY_##CASE;                                                 \
    var.field = (msgptr)

/* Asks for a sign of life: done hears as soon as the peer is ready and answers, whatever it answers (a peer that does
 * not know the question refuses it: code, and rep), or what is wrong with it, within timeout_ms. */
static inline void rpc_ping(struct rpc_conn *c, unsigned timeout_ms, rpc_done *done, void *arg)
{
    Replfs__Ping p = REPLFS__PING__INIT;
    RPC_ENVELOPE(env, PING, ping, &p);
    rpc_call(c, &env, NULL, timeout_ms, done, arg);
}
#endif
