/* The visitors of REQUEST_TABLE (request.h): one switch for each column, made from the table.
 *
 * request_of is the only place that looks at protobuf-c's own enum. It lists the table's requests, their answers,
 * hello, failure and ping: a request of envelope.proto that the table lacks is an error of the compiler here.
 *
 * Failure modes: none. Thread context: any. */
#include "request.h"
#include "rpc/rpc.h"

/* clang-format off */
enum request request_of(const Replfs__Envelope *env)
{
    switch (env->body_case) {
    case REPLFS__ENVELOPE__BODY__NOT_SET:
    case REPLFS__ENVELOPE__BODY_HELLO:
    case REPLFS__ENVELOPE__BODY_FAILURE:
    case REPLFS__ENVELOPE__BODY_PING:
        break;
#define ROW(ID, ...)                                                                                                \
    case REPLFS__ENVELOPE__BODY_##ID##_REQ:                                                                         \
        return REQUEST_##ID;                                                                                        \
    case REPLFS__ENVELOPE__BODY_##ID##_REPLY:                                                                       \
        break;
    REQUEST_TABLE(ROW)
#undef ROW
    }
    return REQUEST_NONE;
}

const char *request_name(enum request r)
{
    switch (r) {
    case REQUEST_NONE:
        break;
#define ROW(ID, member, ...)                                                                                        \
    case REQUEST_##ID:                                                                                              \
        return #member;
    REQUEST_TABLE(ROW)
#undef ROW
    }
    return "none";
}

enum request_server request_server(enum request r)
{
    switch (r) {
    case REQUEST_NONE:
        break;
#define ROW(ID, member, SERVER, ...)                                                                                \
    case REQUEST_##ID:                                                                                              \
        return REQUEST_TO_##SERVER;
    REQUEST_TABLE(ROW)
#undef ROW
    }
    return REQUEST_TO_NOBODY;
}

#define CLIENTS (RPC_ROLE_CLIENT | RPC_ROLE_ADMIN)
#define CHUNKDS RPC_ROLE_CHUNKD
#define CLIENTS_CHUNKDS (RPC_ROLE_CLIENT | RPC_ROLE_CHUNKD)
#define METAD RPC_ROLE_METAD
#define METAD_ADMIN (RPC_ROLE_METAD | RPC_ROLE_ADMIN)
#define CLIENTS_METAD (CLIENTS | METAD)
#define ANYBODY RPC_ROLE_ANY
unsigned request_senders(enum request r)
{
    switch (r) {
    case REQUEST_NONE:
        break;
#define ROW(ID, member, SERVER, SENDERS, ...)                                                                       \
    case REQUEST_##ID:                                                                                              \
        return SENDERS;
    REQUEST_TABLE(ROW)
#undef ROW
    }
    return RPC_ROLE_NONE;
}
#undef METAD
#undef METAD_ADMIN
#undef CLIENTS_METAD
#undef ANYBODY

enum request_session request_session(enum request r)
{
    switch (r) {
    case REQUEST_NONE:
        break;
#define ROW(ID, member, SERVER, SENDERS, SESSION, ...)                                                              \
    case REQUEST_##ID:                                                                                              \
        return REQUEST_SESSION_##SESSION;
    REQUEST_TABLE(ROW)
#undef ROW
    }
    return REQUEST_SESSION_NO;
}

#define STAMP_NO(member) (void)0
#define STAMP_OWN(member) (void)0
#define STAMP_STAMPED(member) env->member##_req->session = session
void request_stamp(Replfs__Envelope *env, uint64_t session)
{
    switch (request_of(env)) {
    case REQUEST_NONE:
        break;
#define ROW(ID, member, SERVER, SENDERS, SESSION, ...)                                                              \
    case REQUEST_##ID:                                                                                              \
        STAMP_##SESSION(member);                                                                                    \
        break;
    REQUEST_TABLE(ROW)
#undef ROW
    }
}

#define OVERTAKES REQUEST_OVERTAKES
#define AFTER_NAMES(INO) (*ino = (INO), REQUEST_AFTER_NAMES)
#define AFTER_CHANGES(INO) (*ino = (INO), REQUEST_AFTER_CHANGES)
#define AFTER_ALL REQUEST_AFTER_ALL
enum request_order request_order(const Replfs__Envelope *env, uint64_t *ino)
{
    *ino = 0;
    switch (request_of(env)) {
    case REQUEST_NONE:
        break;
#define ROW(ID, member, SERVER, SENDERS, SESSION, ORDER, ...)                                                       \
    case REQUEST_##ID:                                                                                              \
        return ORDER;
    REQUEST_TABLE(ROW)
#undef ROW
    }
    return REQUEST_OVERTAKES;
}

bool request_is_goodbye(const Replfs__Envelope *env)
{
    const Replfs__MutateReq *r = env->mutate_req;
    return r->n_ops == 1 && r->ops[0]->op && r->ops[0]->op->op_case == REPLFS__META_OP__OP_SESSION_CLOSE;
}

#define WAITS true
#define SERVED false
#define WAITS_IF(CONDITION) (CONDITION)
bool request_waits_in_grace(const Replfs__Envelope *env)
{
    switch (request_of(env)) {
    case REQUEST_NONE:
        break;
#define ROW(ID, member, SERVER, SENDERS, SESSION, ORDER, GRACE, ...)                                                \
    case REQUEST_##ID:                                                                                              \
        return GRACE;
    REQUEST_TABLE(ROW)
#undef ROW
    }
    return false;
}

#define FORBIDDEN REQUEST_CTL_FORBIDDEN
#define ANYBODY REQUEST_CTL_ANYBODY
#define ANYBODY_OF(INO) (*ino = (INO), REQUEST_CTL_ANYBODY)
#define ROOT REQUEST_CTL_ROOT
enum request_ctl request_ctl(const Replfs__Envelope *env, uint64_t *ino)
{
    *ino = 0;
    switch (request_of(env)) {
    case REQUEST_NONE:
        break;
#define ROW(ID, member, SERVER, SENDERS, SESSION, ORDER, GRACE, CTL)                                                \
    case REQUEST_##ID:                                                                                              \
        return CTL;
    REQUEST_TABLE(ROW)
#undef ROW
    }
    return REQUEST_CTL_FORBIDDEN;
}
/* clang-format on */
