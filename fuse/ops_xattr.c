/* Extended attributes, and through them POSIX ACLs: the kernel checks permissions and the form of
 * an ACL, metad keeps both and does what an ACL does to the mode.
 *
 * Programs and the kernel ask often: ls(1) for each file, the kernel for the ACL at each permission
 * check of somebody who does not own the inode. Nearly no inode has any attribute, and the inode's
 * own attributes, which are mostly at hand under a lease, say so (ATTR_XATTR): such a question does
 * not go to metad.
 *
 * An access ACL that says no more than the mode is a chmod. cp(1) sets one for each file it copies
 * with its mode, so it is done like one: under an exclusive lease before metad knows.
 *
 * trusted.* is shown to root alone. Get and set of it are the kernel's to refuse. */
#include "ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/posix_acl.h"
#include "fuse/serve/kernel.h"

#define LOG_MODULE "fuse"
#define CAPABILITY "security.capability"
#define ACL "system.posix_acl_"
#define ACL_ACCESS ACL "access"
#define TRUSTED "trusted."

static bool begins(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

static bool known_namespace(const char *name)
{
    return begins(name, "user.") || begins(name, "security.") || begins(name, TRUSTED) ||
           begins(name, ACL);
}

static bool has_none(fuse_req_t req, fuse_ino_t ino)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    return !client_getattr(ops_ctx(req)->client, ino, &a) &&
           !(a.flags & REPLFS__ATTR_FLAG__ATTR_XATTR);
}

/* What an operation on an attribute that is not there yields. */
static int no_such(const char *name)
{
    return known_namespace(name) ? -ENODATA : -EOPNOTSUPP;
}

/* As getxattr(2) and listxattr(2) want it: size 0 asks for the length. */
static void reply_value(fuse_req_t req, const uint8_t *value, size_t len, size_t size)
{
    if (!size)
        fuse_reply_xattr(req, len);
    else if (len > size)
        ops_reply(req, -ERANGE);
    else
        fuse_reply_buf(req, (const char *)value, len);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    Replfs__GetxattrReq ask = REPLFS__GETXATTR_REQ__INIT;
    RPC_ENVELOPE(q, GETXATTR_REQ, getxattr_req, &ask);
    struct rpc_result r;
    if (has_none(req, ino)) {
        ops_reply(req, no_such(name));
        return;
    }
    log_debug("inode %llu: metad is asked for %s", (unsigned long long)ino, name);
    ask.ino = ino;
    ask.name = ops_bytes(name, strlen(name));
    int rc = strcmp(name, CAPABILITY) ? 0 : client_flush_ino(ops_ctx(req)->client, ino);
    r = (struct rpc_result){0};
    if (!rc) /* buffered writes take capabilities away */
        rc = ops_ask(req, &q, REPLFS__ENVELOPE__BODY_GETXATTR_REPLY, &r);
    if (rc) {
        ops_reply(req, rc);
    } else {
        const ProtobufCBinaryData *v = &r.rep->getxattr_reply->value;
        reply_value(req, v->data, v->len, size);
    }
    rpc_result_free(&r);
}

/* Takes the names out that this caller may not see; returns the new length. */
static size_t filter(uint8_t *names, size_t len)
{
    size_t out = 0;
    for (size_t at = 0, n; at < len; at += n) {
        const uint8_t *end = memchr(names + at, 0, len - at);
        if (!end)
            break;
        n = (size_t)(end - (names + at)) + 1;
        if (begins((const char *)names + at, TRUSTED))
            continue;
        memmove(names + out, names + at, n);
        out += n;
    }
    return out;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    Replfs__ListxattrReq ask = REPLFS__LISTXATTR_REQ__INIT;
    RPC_ENVELOPE(q, LISTXATTR_REQ, listxattr_req, &ask);
    struct rpc_result r;
    if (has_none(req, ino)) {
        reply_value(req, NULL, 0, size);
        return;
    }
    ask.ino = ino;
    int rc = ops_ask(req, &q, REPLFS__ENVELOPE__BODY_LISTXATTR_REPLY, &r);
    if (rc) {
        ops_reply(req, rc);
    } else {
        ProtobufCBinaryData *v = &r.rep->listxattr_reply->names;
        if (fuse_req_ctx(req)->uid)
            v->len = filter(v->data, v->len);
        reply_value(req, v->data, v->len, size);
    }
    rpc_result_free(&r);
}

static void change(fuse_req_t req, Replfs__XattrOp *x)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_XATTR;
    op.xattr = x;
    /* What was written before must not take away capabilities given now. */
    int rc = client_flush_ino(ops_ctx(req)->client, x->ino);
    if (!rc)
        rc = client_mutate(ops_ctx(req)->client, &op, NULL, NULL);
    ops_reply(req, rc);
}

/* False: metad has to do it. An inode with attributes may have an ACL, which has to go. */
static bool set_as_mode(struct client *c, const Replfs__XattrOp *x)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    if (posix_acl_check(x->value.data, x->value.len) <= 0 || client_getattr(c, x->ino, &a))
        return false;
    uint16_t mode = a.mode & 07777;
    if (!posix_acl_to_mode(x->value.data, x->value.len, &mode))
        return false;
    s.ino = x->ino;
    s.valid = REPLFS__SETATTR_OP__VALID__MODE;
    s.mode = mode;
    return client_setattr_deferred(c, &s, &a);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags)
{
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;
    x.ino = ino;
    x.name = ops_bytes(name, strlen(name));
    x.value = ops_bytes(value, size);
    x.flags = (uint32_t)flags;
    x.kill_sgid = kernel_kill_sgid();
    if (!strcmp(name, ACL_ACCESS) && set_as_mode(ops_ctx(req)->client, &x))
        ops_reply(req, 0);
    else
        change(req, &x);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;
    x.ino = ino;
    x.name = ops_bytes(name, strlen(name));
    x.remove = true;
    if (has_none(req, ino)) /* cp(1) takes the default ACL from each directory that it copies to */
        ops_reply(req, begins(name, ACL) ? 0 : no_such(name));
    else
        change(req, &x);
}
