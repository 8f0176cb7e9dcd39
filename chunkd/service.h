/* The requests a chunkd answers: a table of {message, roles, handler} and what the handlers share.
 */
#ifndef REPLFS_CHUNKD_SERVICE_H
#define REPLFS_CHUNKD_SERVICE_H
#include <stdint.h>
#include "disks.h"
#include "peers.h"
#include "registry.h"
#include "rpc/rpc.h"
#include "terms.h"

struct service;
struct names;
struct scrub;
#define SERVE_METAD_MAX 128u
struct serve_config {
    struct rpc_loop *loop;
    struct disks *disks;
    struct peers *peers;
    struct registry *registry;
    struct terms *terms;
    struct scrub *scrub;
    unsigned read_threads; /* 0: max(2, cpus) */
    size_t ndisks;         /* sizes the pool of copy orders */
};
/* 0 or -errno. */
int serve_new(const struct serve_config *cfg, struct service **out);
/* New requests end with ERR_SHUTDOWN from now on; returns when all others are answered. Registry and
 * peers must have been closed, so that none waits for another chunkd. Not on a loop thread. */
void serve_stop(struct service *s);
void serve_free(struct service *s); /* after serve_stop and the loop's end; NULL is fine */
/* Consumes req: dispatches it. For rpc_service.request, arg is the service. Loop threads. */
void serve_request(void *arg, struct rpc_req *req);
/* The same for what comes on a connection that we dialled to metad: its orders. */
void serve_metad(struct service *s, struct rpc_req *req);

/* Who we are, once metad said so. Requests before end with ERR_NOT_REGISTERED. registration: what
 * metad called this one. */
void serve_identity(struct service *s, const char *cluster, uint32_t chunkd, uint64_t registration);
/* A key that verifies capabilities; a wrong length is ignored, former keys stay valid for a while.
 */
void serve_add_key(struct service *s, uint64_t id, const uint8_t *key, size_t len);
/* metad's time, by which capabilities end: our own clock may be hours away. 0: not told. */
void serve_metad_time(struct service *s, uint32_t now_s);
/* The metad that we are registered at now; NULL or "": none. */
void serve_set_metad(struct service *s, const char *addr);
struct serve_load {
    uint32_t inflight;                /* requests under way */
    uint64_t read_bytes, write_bytes; /* since start */
};
void serve_load(struct service *s, struct serve_load *out);

/* ---- for handlers (chain.c, orders.c, names_serve.c) ---- */
struct disks *serve_disks(struct service *s);
struct peers *serve_peers(struct service *s);
struct registry *serve_registry(struct service *s);
struct names *serve_names(struct service *s);
struct scrub *serve_scrub(struct service *s);
/* As serve_set_metad told. */
void serve_metad_addr(struct service *s, char out[SERVE_METAD_MAX]);
struct terms *serve_terms(struct service *s);
uint32_t serve_chunkd(struct service *s);
uint64_t serve_registration(struct service *s);
bool serve_stopping(struct service *s);
void serve_count(struct service *s, uint64_t read_bytes, uint64_t write_bytes);
/* writer: whose chunk it is, as our records say. 0, -ERR_NOT_REGISTERED, -ERR_CAP (also for another
 * writer's chunk of that number) or -ERR_CAP_EXPIRED. */
int serve_check_cap(struct service *s, const ProtobufCBinaryData *cap, uint64_t chunk,
                    uint64_t session, uint64_t writer, uint32_t rights);
/* Runs a blocking job; a full pool fails req with ERR_BUSY (and returns that). */
int serve_run_order(struct service *s, struct rpc_req *req, void (*fn)(void *), void *arg);
/* Ends a request: each handler calls exactly one of these once. code: negative; chunkd: who failed,
 * 0 is this one. */
void serve_reply(struct service *s, struct rpc_req *req, Replfs__Envelope *rep,
                 struct buf *payload);
void serve_fail(struct service *s, struct rpc_req *req, int code, uint32_t chunkd, const char *fmt,
                ...) __attribute__((format(printf, 5, 6)));
/* The same with ERR_CHAIN, when `chunkd` further down failed; cause: its code, negative. */
void serve_fail_chain(struct service *s, struct rpc_req *req, int cause, uint32_t chunkd,
                      char *detail);
/* Milliseconds until the request's deadline, less a margin so that our answer arrives in time. 0:
 * over. */
unsigned serve_time_left(const struct rpc_req *req);
#endif
