/* The table of requests (Envelope.body): one row for each, and what it says to those that need not know the
 * request itself: who serves and who may send it, whether it carries the sender's session, what it must not
 * overtake, whether it is served while metad waits for its former clients, whether replfsctl may ask it.
 *
 * metad takes from it who may ask what (service.c) and what has to wait after a start (service_grace.c); the client
 * takes from it which session goes out with it (session.c), what has to be sent first (behind_before_ask), what it
 * passes on for replfsctl (ctl_server.c). What is particular to one request stays in a switch over enum request
 * without a default, so that a new request does not compile until it is classified: first in the table (request_of),
 * then in each such switch.
 *
 * Nothing here has state, takes a lock, blocks or allocates: any thread. A request passed in is complete: what its
 * body_case names is there, which holds for all that was unpacked. */
#ifndef REPLFS_REQUEST_H
#define REPLFS_REQUEST_H
#include <stdbool.h>
#include <stdint.h>
#include "envelope.pb-c.h"

/* X(ID, member, server, senders, session, order, grace, ctl)
 *   ID, member  as protobuf-c names it: REPLFS__ENVELOPE__BODY_<ID>_REQ, env-><member>_req; <ID>_REPLY answers it
 *   server      METAD, CHUNKD or CLIENT
 *   senders     CLIENTS (replfsctl included), CHUNKDS, CLIENTS_CHUNKDS, CLIENTS_METAD, METAD, METAD_ADMIN, ANYBODY
 *   session     STAMPED: with the session as it is when it is sent, each time it is sent. OWN: its maker fills it in.
 *               NO: it has none
 *   order       of a client's request and what it has queued for metad: OVERTAKES;
 *               AFTER_NAMES(ino): after what names or makes that inode, since the client lays the rest over the
 *               answer; AFTER_CHANGES(ino): after all changes of it, its bytes included; AFTER_ALL
 *   grace       while metad waits for its former clients: WAITS, SERVED, WAITS_IF(condition). Whatever reads or changes
 *               what an exclusive lease may protect waits
 *   ctl         of replfsctl, through a mount: FORBIDDEN; ANYBODY may; ANYBODY_OF(ino): anybody of the inode that
 *               they could open, or root; ROOT
 * Expressions are of `env`, a const Replfs__Envelope *. */
/* clang-format off */
#define REQUEST_TABLE(X)                                                                                            \
    X(MUTATE, mutate, METAD, CLIENTS, STAMPED, OVERTAKES, WAITS_IF(!request_is_goodbye(env)), ANYBODY)              \
    X(LOOKUP, lookup, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->lookup_req->parent), WAITS, FORBIDDEN)              \
    X(GETATTR, getattr, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->getattr_req->ino), WAITS,                         \
      ANYBODY_OF(env->getattr_req->ino))                                                                            \
    X(READDIR, readdir, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->readdir_req->ino), WAITS, FORBIDDEN)              \
    X(READLINK, readlink, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->readlink_req->ino), SERVED, FORBIDDEN)          \
    X(GETXATTR, getxattr, METAD, CLIENTS, STAMPED, AFTER_CHANGES(env->getxattr_req->ino), WAITS, FORBIDDEN)         \
    X(LISTXATTR, listxattr, METAD, CLIENTS, STAMPED, AFTER_CHANGES(env->listxattr_req->ino), WAITS, FORBIDDEN)      \
    X(LEASE, lease, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->lease_req->ino), WAITS, FORBIDDEN)                    \
    X(INOS, inos, METAD, CLIENTS, STAMPED, OVERTAKES, SERVED, FORBIDDEN)                                            \
    X(LAYOUT, layout, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->layout_req->ino), WAITS, FORBIDDEN)                 \
    X(LAYOUTS, layouts, METAD, CLIENTS, STAMPED, OVERTAKES, WAITS, FORBIDDEN)                                       \
    X(OPEN, open, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->open_req->ino), WAITS, FORBIDDEN)                       \
    X(CLOSE, close, METAD, CLIENTS, STAMPED, OVERTAKES, SERVED, FORBIDDEN)                                          \
    X(GRANT, grant, METAD, CLIENTS, STAMPED, OVERTAKES, SERVED, FORBIDDEN)                                          \
    X(STATFS, statfs, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->statfs_req->ino), SERVED, FORBIDDEN)                \
    X(SESSION, session, METAD, CLIENTS, OWN, OVERTAKES, SERVED, FORBIDDEN)                                          \
    X(KEEPALIVE, keepalive, METAD, CLIENTS, STAMPED, OVERTAKES, SERVED, FORBIDDEN)                                  \
    X(REPORT_BAD, report_bad, METAD, CLIENTS, STAMPED, OVERTAKES, SERVED, FORBIDDEN)                                \
    X(LOCK, lock, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->lock_req->lock->ino), SERVED, FORBIDDEN)                \
    X(LOCK_TEST, lock_test, METAD, CLIENTS, STAMPED, AFTER_NAMES(env->lock_test_req->lock->ino), SERVED, FORBIDDEN) \
    X(LOCK_CANCEL, lock_cancel, METAD, CLIENTS, OWN, OVERTAKES, SERVED, FORBIDDEN)                                  \
    X(UNLOCK_ALL, unlock_all, METAD, CLIENTS, STAMPED, OVERTAKES, SERVED, FORBIDDEN)                                \
    X(NODES, nodes, METAD, ANYBODY, STAMPED, OVERTAKES, SERVED, ANYBODY)                                            \
    X(REGISTER, register, METAD, CHUNKDS, NO, OVERTAKES, SERVED, FORBIDDEN)                                         \
    X(HEARTBEAT, heartbeat, METAD, CHUNKDS, NO, OVERTAKES, SERVED, FORBIDDEN)                                       \
    X(REPORT, report, METAD, CHUNKDS, NO, OVERTAKES, SERVED, FORBIDDEN)                                             \
    X(STATUS, status, METAD, CLIENTS, NO, AFTER_ALL, SERVED, ANYBODY)                                               \
    X(INFO, info, METAD, CLIENTS, NO, AFTER_ALL, SERVED, ANYBODY_OF(env->info_req->ino))                            \
    X(CONVERGE, converge, METAD, CLIENTS, NO, AFTER_ALL, SERVED, ANYBODY)                                           \
    X(QUOTA_LIST, quota_list, METAD, CLIENTS, NO, AFTER_ALL, SERVED, ANYBODY_OF(env->quota_list_req->ino))          \
    X(CHUNKD_REMOVE, chunkd_remove, METAD, CLIENTS, NO, OVERTAKES, SERVED, ROOT)                                    \
    X(CHUNKD_SET, chunkd_set, METAD, CLIENTS, NO, OVERTAKES, SERVED, ROOT)                                          \
    X(RECOVER, recover, METAD, CLIENTS, NO, OVERTAKES, SERVED, ROOT)                                                \
    X(QUARANTINE, quarantine, METAD, CLIENTS, NO, OVERTAKES, SERVED, ROOT)                                          \
    X(CONFIG, config, METAD, CLIENTS, NO, OVERTAKES, SERVED, ROOT)                                                  \
    X(SCRUB, scrub, METAD, CLIENTS, NO, OVERTAKES, SERVED, ROOT)                                                    \
    X(DAMAGED, damaged, METAD, CLIENTS, NO, AFTER_ALL, SERVED, ROOT)                                                \
    X(SNAPSHOT, snapshot, METAD, CLIENTS, NO, AFTER_ALL, SERVED, ROOT)                                              \
    X(RAFT, raft, METAD, METAD, NO, OVERTAKES, SERVED, FORBIDDEN)                                                   \
    X(CHECKPOINT, checkpoint, METAD, METAD, NO, OVERTAKES, SERVED, FORBIDDEN)                                       \
    X(METAD_LIST, metad_list, METAD, CLIENTS_METAD, NO, OVERTAKES, SERVED, ANYBODY)                                 \
    X(METAD_CHANGE, metad_change, METAD, CLIENTS_METAD, NO, OVERTAKES, SERVED, ROOT)                                \
    X(APPEND, append, CHUNKD, CLIENTS_CHUNKDS, OWN, OVERTAKES, SERVED, FORBIDDEN)                                   \
    X(READ, read, CHUNKD, CLIENTS_CHUNKDS, OWN, OVERTAKES, SERVED, FORBIDDEN)                                       \
    X(SYNC, sync, CHUNKD, CLIENTS_CHUNKDS, OWN, OVERTAKES, SERVED, FORBIDDEN)                                       \
    X(ORDER, order, CHUNKD, METAD, NO, OVERTAKES, SERVED, FORBIDDEN)                                                \
    X(NAMES_PUT, names_put, CHUNKD, METAD, NO, OVERTAKES, SERVED, FORBIDDEN)                                        \
    X(NAMES_GET, names_get, CHUNKD, METAD_ADMIN, NO, OVERTAKES, SERVED, FORBIDDEN)                                  \
    X(RECALL, recall, CLIENT, METAD, NO, OVERTAKES, SERVED, FORBIDDEN)

#define REQUEST_ENUM_(ID, ...) REQUEST_##ID,
#define REQUEST_ONE_(...) + 1
enum request {
    REQUEST_NONE, /* an answer, hello, or nothing that this version knows */
    REQUEST_TABLE(REQUEST_ENUM_)
};
enum { REQUEST_COUNT = 1 REQUEST_TABLE(REQUEST_ONE_) }; /* of the values of enum request, which begin with 0 */
#undef REQUEST_ENUM_
#undef REQUEST_ONE_

/* REQUEST_CASES_CHUNKD, REQUEST_CASES_CLIENT: the labels of all requests that these serve, for metad's switches. */
#define REQUEST_CHUNKD_CASE_(ID, member, SERVER, ...) REQUEST_CHUNKD_CASE_##SERVER(ID)
#define REQUEST_CHUNKD_CASE_METAD(ID)
#define REQUEST_CHUNKD_CASE_CHUNKD(ID) case REQUEST_##ID:
#define REQUEST_CHUNKD_CASE_CLIENT(ID)
#define REQUEST_CASES_CHUNKD REQUEST_TABLE(REQUEST_CHUNKD_CASE_)
#define REQUEST_CLIENT_CASE_(ID, member, SERVER, ...) REQUEST_CLIENT_CASE_##SERVER(ID)
#define REQUEST_CLIENT_CASE_METAD(ID)
#define REQUEST_CLIENT_CASE_CHUNKD(ID)
#define REQUEST_CLIENT_CASE_CLIENT(ID) case REQUEST_##ID:
#define REQUEST_CASES_CLIENT REQUEST_TABLE(REQUEST_CLIENT_CASE_)
/* clang-format on */

/* body_case as an enum request; REQUEST_NONE: an answer, or a number that is none of the table. */
enum request request_of(const Replfs__Envelope *env);

/* For people: "lookup", "none". A static string. */
const char *request_name(enum request r);

enum request_server { REQUEST_TO_NOBODY, REQUEST_TO_METAD, REQUEST_TO_CHUNKD, REQUEST_TO_CLIENT };
/* REQUEST_NONE: REQUEST_TO_NOBODY. */
enum request_server request_server(enum request r);

/* RPC_ROLE_* bits (rpc/rpc.h) of those that may send it; RPC_ROLE_NONE for REQUEST_NONE. */
unsigned request_senders(enum request r);

enum request_session { REQUEST_SESSION_NO, REQUEST_SESSION_OWN, REQUEST_SESSION_STAMPED };
enum request_session request_session(enum request r);

/* Writes the session into a request that is STAMPED; leaves any other as it is. */
void request_stamp(Replfs__Envelope *env, uint64_t session);

enum request_order {
    REQUEST_OVERTAKES,
    REQUEST_AFTER_NAMES,
    REQUEST_AFTER_CHANGES,
    REQUEST_AFTER_ALL
};
/* What a client sends first. *ino, for AFTER_NAMES and AFTER_CHANGES: the inode, 0 as well for none; else 0. */
enum request_order request_order(const Replfs__Envelope *env, uint64_t *ino);

/* It waits until metad's former clients are back. */
bool request_waits_in_grace(const Replfs__Envelope *env);

/* A MutateReq that only ends its own session: one fewer to wait for. Other requests: not asked. */
bool request_is_goodbye(const Replfs__Envelope *env);

enum request_ctl { REQUEST_CTL_FORBIDDEN, REQUEST_CTL_ANYBODY, REQUEST_CTL_ROOT };
/* Who may ask it through a mount. *ino: the inode that it names by number, which anybody but root must be able to
 * open, 0: none. */
enum request_ctl request_ctl(const Replfs__Envelope *env, uint64_t *ino);
#endif
