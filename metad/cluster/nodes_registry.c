/* What chunkds are told of each other: number and address of each that has registered since we lead. A
 * chunkd forwards appends to no other address, so each is told at its registration and with the next
 * heartbeat after a change. The version is one that no metad before us has told. Threads: any, lock
 * held. */
#include <stdio.h>
#include <stdlib.h>

#include "nodes_internal.h"

/* One malloc: pointers, messages, addresses. */
struct entry {
    Replfs__ChunkdAddr msg;
    char addr[sizeof((struct node *)0)->addr];
};

void nodes_registry_fill(struct nodes *n, uint64_t had, struct nodes_registry *out)
{
    lock_assert_held(&n->mu);
    *out = (struct nodes_registry){.version = n->registry_version};
    if (had == n->registry_version)
        return;
    out->list = malloc(n->nnodes * (sizeof(out->list[0]) + sizeof(struct entry)));
    if (!out->list)
        abort();
    struct entry *e = (struct entry *)(out->list + n->nnodes);
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || !d->addr[0] || nodes_gone(d))
            continue;
        replfs__chunkd_addr__init(&e->msg);
        snprintf(e->addr, sizeof(e->addr), "%s", d->addr);
        e->msg.chunkd = d->id;
        e->msg.addr = e->addr;
        out->list[out->n++] = &e++->msg;
    }
}
