/* The chunkds that can be sent something, for other parts of metad. Takes nodes.mu. */
#include <stdio.h>
#include <string.h>

#include "nodes_internal.h"

size_t nodes_conns(struct nodes *n, struct nodes_conn *out, size_t max)
{
    size_t have = 0;

    LOCK_SCOPE(&n->mu);
    for (uint32_t i = 1; i < n->nnodes && have < max; i++) {
        const struct node *d = n->node[i];
        if (!d || nodes_gone(d) || !d->conn || d->draining ||
            d->state != REPLFS__NODE_STATE__NODE_UP)
            continue;
        struct nodes_conn *c = &out[have++];
        *c = (struct nodes_conn){.chunkd = d->id, .host = d->host, .conn = rpc_conn_ref(d->conn)};
        memcpy(c->host_id, d->host_id, sizeof(c->host_id));
        memcpy(c->host_name, d->host_name, sizeof(c->host_name));
        for (unsigned k = 0; k < d->ndisks; k++)
            if (!d->disks[k].failed && d->disks[k].avail > c->avail)
                c->avail = d->disks[k].avail;
    }
    return have;
}
