/* Leases that this client asks for. Recalls of the inode do not wait for the kernel's pages meanwhile, since a write
 * that waits for the lease may hold them. */
#include "client/names/lease.h"
#include "base/error.h"
#include "client/base/attr.h"
#include "client/cache/lease_cache.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/internal.h"

int lease_ask(struct cfile *f)
{
    struct client *c = f->c;
    Replfs__LeaseReq m = REPLFS__LEASE_REQ__INIT;
    RPC_ENVELOPE(env, LEASE_REQ, lease_req, &m);
    struct rpc_result res;
    struct lease_request asker;
    m.ino = f->ino;
    lease_cache_ask_begin(c->leases, &asker, f->ino);
    uint64_t begun = lease_cache_begin(c->leases);
    int rc = client_ask(c, &env, &res);
    lease_cache_ask_end(c->leases, &asker);
    if (!rc &&
        (res.rep->body_case != REPLFS__ENVELOPE__BODY_LEASE_REPLY || !res.rep->lease_reply->attr))
        rc = -ERR_PROTOCOL;
    if (!rc) {
        const Replfs__LeaseReply *r = res.rep->lease_reply;
        Replfs__Attr a = REPLFS__ATTR__INIT;
        attr_copy(&a, r->attr);
        client_merge_attr(c, &a); /* what others have written since we last looked */
        if (r->lease)
            lease_cache_put_attr(c->leases, begun, r->attr, r->lease);
    }
    rpc_result_free(&res);
    return rc;
}
