/* What the files of rpc share. Nothing outside proto/rpc includes this.
 *
 * Locks, in the order of taking them:
 *   1. rpc_conn.mu   send queue, SSL object, state, calls of one connection
 *   2. worker.mu     timers, posted connections, connection list of one epoll thread
 *   3. rpc_loop.mu   listeners, resolver threads, the TLS context
 * admission.mu (who is connected) is not held together with others.
 * Neither is held while a callback runs. Fields marked [worker] belong to the connection's own
 * thread. */
#ifndef REPLFS_RPC_RPC_INTERNAL_H
#define REPLFS_RPC_RPC_INTERNAL_H
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash_table.h"
#include "base/lock.h"
#include "rpc/addr.h"
#include "rpc/alive.h"
#include "rpc/frame.h"
#include "rpc/rpc.h"
#include "rpc/timers.h"

#define RBUF_SIZE 65536u
#define RPC_BACKLOG 512
#define READY_MS 10000        /* connect + TLS + Hello must be done by then */
#define CONNECT_EACH_MS 1000  /* an address, while there are others */
#define LINGER_MS 1000        /* for the peer to read our refusal */
#define HELD_HIGH (64u << 20) /* bytes an accepted peer may make us hold before we stop reading */
#define HELD_LOW (32u << 20)
#define ERROR_TEXT 512

struct worker;

/* What epoll events point to. */
struct source {
    void (*event)(struct source *s, uint32_t events);
};

/* Who is connected, counted (admit.c). */
struct admit_peer;
struct admission {
    struct lock mu;
    unsigned max, max_per_addr, max_silent, max_silent_per_addr;
    struct hash_table peers; /* struct admit_peer by address; under lock, as all below */
    unsigned going;          /* told to go, not gone */
    unsigned conns, silent;
    struct rpc_conn *silent_head, **silent_tail; /* have not said Hello; the oldest first */
    uint64_t refused;
    int64_t warned;
};

struct rpc_loop {
    struct rpc_config cfg; /* strings are copies */
    bool use_tls;          /* else plaintext */
    SSL_CTX *tls;          /* under lock; NULL: plaintext */
    uint64_t instance;
    _Atomic int64_t cert_end; /* wall seconds; 0: no certificate */
    unsigned nworkers;
    struct worker *workers;
    atomic_uint next_worker;
    atomic_bool stopping;       /* dial no more */
    uid_t own_uid, account_uid; /* whom local peers may run as, besides root */
    struct admission admission;
    struct lock mu; /* the last one to be taken */
    struct cond resolved;
    unsigned resolving;         /* under lock: resolver threads alive */
    struct listener *listeners; /* under lock */
};

struct worker_timer {
    struct timer t;
    void (*fn)(void *arg);
    void *arg;
    bool heap_owned; /* freed after firing (rpc_loop_defer) */
};

struct worker {
    struct rpc_loop *loop;
    pthread_t thread;
    struct source wake_source;
    int epfd, wakefd;
    struct lock mu;
    struct timers timers;    /* under lock; of worker_timer.t */
    struct rpc_conn *posted; /* under lock; list by posted_next */
    struct rpc_conn *conns;  /* under lock; list by next */
    bool stop;               /* under lock */
    int64_t sleeps_until;    /* under lock; INT64_MIN: awake */
};

enum conn_state {
    CONN_RESOLVING,  /* dialled by name: a resolver thread runs */
    CONN_CONNECTING, /* connect(2) under way */
    CONN_TLS,        /* handshake */
    CONN_HELLO,      /* our Hello sent (dialled) or awaited (accepted) */
    CONN_READY,
    CONN_LINGER, /* refused the peer: flushing the reason, reading nothing more */
    CONN_DYING,  /* error set; teardown posted to the worker */
    CONN_DEAD,   /* fd closed, calls ended, worker's reference about to go */
};

/* A frame on its way out, or the rest of one. */
struct out {
    struct out *next;
    uint64_t call;       /* request id while it may still be dropped unsent; 0: reply, Hello */
    struct buf *payload; /* or NULL */
    size_t head_len, sent;
    uint8_t head[]; /* frame header and envelope */
};
struct out_queue {
    struct out *first, **last;
};

struct call {
    struct timer timer;
    uint64_t id;
    rpc_done *done;
    void *arg;
    struct waiter *waiter; /* of rpc_call_wait, instead of done */
    struct call *next;     /* in a list of calls being ended */
};
/* Calls under way: slot number in the low bits of the id, so that a reply finds its call at once.
 */
struct calls {
    struct call **slots;
    uint32_t *free_slots;
    uint32_t nslots, nfree;
    uint64_t seq;
    struct timers deadlines;
};

struct rpc_conn {
    struct source source;
    struct rpc_loop *loop;
    struct worker *worker;
    atomic_uint refs;  /* memory */
    atomic_uint users; /* holders outside rpc; the last one closes */
    bool accepted;     /* else dialled */
    bool has_svc;
    unsigned expect; /* roles the peer may have */
    struct rpc_service svc;
    char target[128]; /* peer address as text, for messages */
    struct rpc_peer peer;
    _Atomic(void *) data;

    struct lock mu;
    _Atomic int state; /* enum conn_state; written under lock */
    int fd;
    SSL *ssl;
    uint32_t events; /* registered with epoll */
    bool ssl_wants_write, paused, posted_read, opened;
    int code; /* why dead, negative */
    char error[ERROR_TEXT];
    int64_t ready_by;         /* end of patience before READY, and in LINGER */
    struct out_queue out;     /* being sent, in order */
    struct out_queue backlog; /* requests that wait for READY or for the peer's in-flight limit */
    size_t out_bytes;         /* in `out` */
    size_t in_bytes;          /* memory of requests not yet answered */
    unsigned inflight;        /* requests received and not yet answered */
    unsigned outstanding;     /* requests sent and not yet answered, timed out ones too */
    struct calls calls;
    struct worker_timer timer;
    int64_t timer_at;   /* INT64_MAX: not set */
    uint64_t put;       /* bytes of frames ever given to the socket or `out` */
    unsigned pings;     /* of ours, not answered */
    struct alive alive; /* [worker] */

    struct addr addrs[ADDR_MAX]; /* [worker] while connecting */
    int naddrs, iaddr;
    int64_t addr_by;  /* [worker] then the next one is tried */
    bool tried_local; /* [worker] the UNIX socket of addrs[iaddr] */
    struct addr to;   /* [worker] what we connect to */
    bool stranger;    /* accepted: a local user that is not trusted; set before others see c */
    uint8_t *rbuf;    /* [worker] bytes rpos..rend are unread */
    size_t rpos, rend;
    bool have_frame; /* [worker] frame is decoded, its envelope or payload still coming */
    uint8_t header[FRAME_HEADER];
    struct frame frame;
    uint8_t *env; /* [worker] envelope that did not fit rbuf */
    size_t env_got;
    struct message msg; /* [worker] decoded; waits for its payload */
    struct buf *payload;

    struct rpc_conn *next, **prev; /* in worker.conns, under worker.mu */
    struct rpc_conn *posted_next;  /* in worker.posted, under worker.mu */
    bool posted;

    struct admit_peer *admitted; /* under admission.mu, as the list; NULL: not counted */
    struct rpc_conn *silent_next, **silent_prev;
    bool told_to_go; /* under admission.mu */
};

/* A received request; struct rpc_req is its public part. */
struct request {
    struct rpc_req pub;
    struct message msg;
    uint64_t id;
    size_t bytes; /* counted in conn.in_bytes */
};

/* ---- loop.c ---- */
struct worker *loop_pick(struct rpc_loop *l);
bool worker_is_self(const struct worker *w);
bool worker_any_self(void); /* on some loop's thread */
void worker_timer_set(struct worker *w, struct worker_timer *t, int64_t when);
void worker_timer_clear(struct worker *w, struct worker_timer *t);
void worker_post(struct rpc_conn *c); /* c->worker will run conn_posted(c); not when DEAD */
int worker_watch(struct worker *w, int fd, uint32_t events, struct source *s);
void worker_unwatch(struct worker *w, int fd); /* before it is closed */

/* ---- local.c ---- */
void local_init(struct rpc_loop *l); /* whom to trust; before threads */
/* Whether the address stands for a UNIX socket; its address, of a loopback one. */
bool local_used(const struct rpc_loop *l, const struct addr *a);
void local_name(const struct addr *tcp, struct addr *out);
/* A listening socket for a loopback address (port 0: any), or -errno. */
int local_listen(const struct addr *tcp);
void local_sockopts(int fd);
/* Whether the user at the other end of a UNIX socket may be a peer; *who is filled in. */
bool local_trusted(const struct rpc_loop *l, int fd, struct ucred *who);

/* ---- tls.c ---- */
int tls_ctx_new(const struct rpc_config *cfg, SSL_CTX **out);
void tls_watch_end(struct rpc_loop *l); /* logs the end of our certificate when it is near, daily */
int tls_attach(struct rpc_conn *c);     /* makes c->ssl */
/* Under c->lock. > 0: bytes; 0: end of stream; -EAGAIN (c->ssl_wants_write tells which way);
 * other negative: broken, `why` filled in. */
ssize_t tls_read(struct rpc_conn *c, void *p, size_t n, char *why, size_t why_len);
ssize_t tls_write(struct rpc_conn *c, const void *p, size_t n, char *why, size_t why_len);
/* 0 done (peer.role and peer.name set from the certificate), -EAGAIN, or negative with `why`. */
int tls_handshake(struct rpc_conn *c, char *why, size_t why_len);

/* ---- conn.c ---- */
struct rpc_conn *conn_new(struct rpc_loop *l, const struct rpc_service *svc, bool accepted);
void conn_discard(struct rpc_conn *c); /* one that was made and never registered */
void conn_ref_internal(struct rpc_conn *c);
void conn_unref_internal(struct rpc_conn *c);
/* Lists c with its worker and takes the worker's reference. */
void conn_register(struct rpc_conn *c);
/* Gives c a connected (or connecting) socket in a state and watches it. 0 or -errno. */
int conn_adopt_fd(struct rpc_conn *c, int fd, enum conn_state state);
/* First cause wins. Any thread; the _locked one under c->lock. */
void conn_die(struct rpc_conn *c, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void conn_die_locked(struct rpc_conn *c, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void conn_watch_locked(struct rpc_conn *c); /* a call begins, or we stop reading: see alive.h */
/* A sign of life that was asked for, or came. [worker] True: msg was no more than that, and is the caller's. */
bool conn_ping_received(struct rpc_conn *c, const struct message *msg);
/* Room for one more request of ours, besides a Ping. */
bool conn_room_locked(const struct rpc_conn *c);
void conn_posted(struct rpc_conn *c); /* on the worker: teardown, or resumes reading */
void conn_teardown(struct rpc_conn *c);
void conn_arm_locked(struct rpc_conn *c, int64_t when); /* timer no later than when */
void conn_update_events_locked(struct rpc_conn *c);
void conn_hello_received(struct rpc_conn *c, const Replfs__Envelope *env); /* [worker] */
void conn_set_sockopts(int fd);

/* ---- client.c ---- */
void conn_connect_next(struct rpc_conn *c,
                       int err); /* [worker] err: why the former address failed, or 0 */

/* ---- recv.c ---- */
void conn_readable(struct rpc_conn *c); /* [worker] reads and handles frames until none is left */

/* ---- send.c ---- */
void out_init(struct out_queue *q);
void out_clear(struct out_queue *q);
/* Packs env and sends or queues it with payload (reference consumed). call: see struct out. held:
 * goes to the backlog. -ERR_PROTOCOL when the envelope is too large, -ERR_PEER_GONE when c is dead.
 * Under lock. */
int conn_send_locked(struct rpc_conn *c, const Replfs__Envelope *env, struct buf *payload,
                     uint64_t call);
void conn_flush_locked(struct rpc_conn *c);
void conn_release_backlog_locked(struct rpc_conn *c); /* as far as READY and the limit allow */

/* ---- call.c ---- */
void calls_free(struct calls *cs);
/* [worker] A reply came: ends its call, if that is still waiting. Takes msg and payload. */
void call_reply(struct rpc_conn *c, struct message *msg, struct buf *payload);
bool call_exists_locked(const struct rpc_conn *c, uint64_t id);
/* Removes calls due by now (INT64_MAX: all) into a list, for call_end_list without the lock. */
struct call *calls_take_due_locked(struct rpc_conn *c, int64_t now);
void call_end_list(struct call *list, int code);

/* ---- admit.c ---- */
void admission_init(struct admission *a, const struct rpc_config *cfg);
void admission_free(struct admission *a);
/* Counts c, which just came from this address on fd; false: it shall not be served. */
bool admit(struct admission *a, struct rpc_conn *c, const struct addr *from, int fd);
/* Many who were told to go have not gone yet: a peer that comes now would be refused in their stead. */
bool admit_crowded(struct admission *a);
void admit_ready(struct admission *a, struct rpc_conn *c); /* it said Hello */
void admit_gone(struct admission *a, struct rpc_conn *c);  /* once; not counted is fine */

/* ---- server.c ---- */
void server_request(struct rpc_conn *c, struct message *msg, struct buf *payload); /* [worker] */
void listeners_free(struct rpc_loop *l);
uint64_t trace_new(void);
const char *role_name(enum rpc_role r);
enum rpc_role role_parse(const char *s);
void role_set_format(unsigned set, char *out, size_t len); /* "metad or chunkd" */
#endif
