/* Messages to the control ioctl of a mount, which any local user may send: bytes as one struct ctl_msg, or
 * as a packed Envelope inside a well-formed one. Nothing is passed on that the list does not allow, and
 * no reply is longer than it says. The client below the server is a stub that answers at once. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "fuse/ctl_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct ctl_server *server;
static size_t detail_len;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init("fuzz_ioctl", LOG_LVL_ERROR, "/dev/null");
    server = ctl_server_new(NULL);
    return 0;
}

/* ---- the client ---- */

void client_stat(struct client *c, struct client_stat *out)
{
    (void)c;
    memset(out, 0, sizeof *out);
    out->connected = true;
}

int client_sync(struct client *c)
{
    (void)c;
    return 0;
}

int client_flush_ino(struct client *c, uint64_t ino)
{
    (void)c;
    return ino % 3 ? 0 : -ERR_TIMEOUT;
}

int client_mutate(struct client *c, Replfs__MetaOp *op, Replfs__Attr *attr, Replfs__Attr *parent)
{
    (void)c;
    (void)attr;
    (void)parent;
    assert(op->op_case == REPLFS__META_OP__OP_QUOTA || op->op_case == REPLFS__META_OP__OP_SET_GOAL);
    return 0;
}

int client_ask(struct client *c, Replfs__Envelope *req, struct rpc_result *res)
{
    (void)c;
    assert(ctl_server_allows(req) == 0);
    static Replfs__Envelope rep;
    static Replfs__Failure f;
    static char detail[1 << 16];
    memset(res, 0, sizeof *res); /* without priv: nothing to be freed */
    memset(detail, 'x', detail_len);
    detail[detail_len] = 0;
    replfs__envelope__init(&rep);
    replfs__failure__init(&f);
    f.detail = detail;
    rep.body_case = REPLFS__ENVELOPE__BODY_FAILURE;
    rep.failure = &f;
    res->rep = &rep;
    return 0;
}

/* ---- messages ---- */

static void send(unsigned cmd, const struct ctl_msg *in, struct ctl_msg *out)
{
    if (ctl_server_ioctl(server, cmd, 7, in->ino & 1 ? 0 : 1000, in, out))
        return;
    assert(out->len <= CTL_DATA_MAX && out->len <= (out->total ? out->total : out->len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned cmds[] = {CTL_CALL, CTL_FETCH, CTL_SYNC, 0};
    struct ctl_msg in = {0}, out = {0}, more;
    if (size < 4)
        return 0;
    detail_len = (size_t)data[1] * 256;
    memcpy(&in, data + 4, size - 4 < sizeof in ? size - 4 : sizeof in);
    send(cmds[data[0] % 4], &in, &out);
    memset(&in, 0, sizeof in);
    in.version = CTL_VERSION;
    in.ino = data[2];
    in.len = (uint32_t)(size - 4 < CTL_DATA_MAX ? size - 4 : CTL_DATA_MAX);
    memcpy(in.data, data + 4, in.len);
    memset(&out, 0, sizeof out);
    send(CTL_CALL, &in, &out);
    in.token = out.token;
    for (uint32_t at = out.len; out.token && at < out.total; at += more.len) {
        in.off = at;
        memset(&more, 0, sizeof more);
        send(CTL_FETCH, &in, &more);
        if (!more.len)
            break;
    }
    in.off = (uint64_t)data[3] << 56 | 1;
    send(CTL_FETCH, &in, &more);
    return 0;
}
