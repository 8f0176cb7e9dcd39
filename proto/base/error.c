/* Names and errno values of error codes: one table serves both functions, so that a code cannot
 * have a text without an errno. Pure; any thread (err_str falls back to a thread-local buffer). */
#include "error.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct err_entry {
    int code, eno;
    const char *text;
} table[] = {
    {ERR_NOT_LEADER, ETIMEDOUT, "ERR_NOT_LEADER: this metad does not lead"},
    {ERR_SESSION, EIO, "ERR_SESSION: session unknown or closed"},
    {ERR_CRC, EIO, "ERR_CRC: bad checksum"},
    {ERR_NO_CHUNK, EIO, "ERR_NO_CHUNK: the chunkd does not have this chunk"},
    {ERR_SHORT, EIO, "ERR_SHORT: the copy ends before the asked range"},
    {ERR_OFFSET, EIO, "ERR_OFFSET: append is not at the end of the chunk"},
    {ERR_CHAIN, EIO, "ERR_CHAIN: a later hop of the chain failed"},
    {ERR_FEW_COPIES, EIO, "ERR_FEW_COPIES: fewer than min_copies chunkds can take the bytes"},
    {ERR_VERSION, EPROTONOSUPPORT, "ERR_VERSION: format or protocol version not supported"},
    {ERR_WRONG_CLUSTER, EXDEV, "ERR_WRONG_CLUSTER: belongs to another cluster"},
    {ERR_ROLE, EACCES, "ERR_ROLE: the peer's role may not do this"},
    {ERR_CAP, EACCES, "ERR_CAP: capability missing, forged or for another chunk"},
    {ERR_CAP_EXPIRED, EACCES, "ERR_CAP_EXPIRED: capability expired"},
    {ERR_TIMEOUT, ETIMEDOUT, "ERR_TIMEOUT: deadline passed"},
    {ERR_PEER_GONE, EIO, "ERR_PEER_GONE: connection lost"},
    {ERR_PROTOCOL, EPROTO, "ERR_PROTOCOL: malformed or oversized message"},
    {ERR_CORRUPT, EIO, "ERR_CORRUPT: state on disk cannot be trusted"},
    {ERR_BUSY, ETIMEDOUT, "ERR_BUSY: try again shortly"},
    {ERR_NOT_REGISTERED, EIO, "ERR_NOT_REGISTERED: metad does not know this chunkd yet"},
    {ERR_SHUTDOWN, EIO, "ERR_SHUTDOWN: shutting down"},
    {ERR_LOCKED, EBUSY, "ERR_LOCKED: data directory in use by another process"},
    {ERR_OLD_TERM, ESTALE, "ERR_OLD_TERM: ordered by a metad that does not lead any more"},
};

static const struct err_entry *lookup(int code)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (table[i].code == code)
            return &table[i];
    }
    return NULL;
}

static int absolute(int code)
{
    return code == INT_MIN ? INT_MAX : code < 0 ? -code : code;
}

int err_to_errno(int code)
{
    code = absolute(code);
    if (code == 0)
        return 0;
    const struct err_entry *e = lookup(code);
    if (e)
        return e->eno;
    /* Numbers that are neither ours nor an errno can only come from a peer. */
    return code < 4096 ? code : EIO;
}

const char *err_str(int code)
{
    static _Thread_local char text[96];
    char tmp[64];

    code = absolute(code);
    if (code == 0)
        return "success";
    const struct err_entry *e = lookup(code);
    if (e)
        return e->text;
    if (code >= 4096) {
        snprintf(text, sizeof(text), "unknown error code %d", code);
        return text;
    }
    snprintf(text, sizeof(text), "%s", strerror_r(code, tmp, sizeof(tmp)));
    return text;
}
