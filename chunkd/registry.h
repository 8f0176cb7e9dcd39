/* Which chunkds there are and where, as metad says: the only addresses that appends are forwarded to.
 * Thread-safe. */
#ifndef REPLFS_CHUNKD_REGISTRY_H
#define REPLFS_CHUNKD_REGISTRY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/rpc.h"

#define REGISTRY_LATER 1
#define REGISTRY_ADDR 128u

struct registry;
/* Somebody who wants to know an address; the caller's, until done() was called. */
struct registry_wait {
    /* code as of registry_find, addr with 0. On the heartbeat's thread. */
    void (*done)(struct registry_wait *w, int code, const char *addr);
    const void *line; /* those of one line are served in their order */
    uint32_t chunkd;
    /* the registry's own */
    bool asks;
    uint64_t beat;
    struct registry_wait *next;
};

struct registry *registry_new(void);    /* aborts without memory */
void registry_free(struct registry *r); /* after registry_close; NULL is fine */
void registry_close(
    struct registry *r); /* requests that wait are told -ERR_SHUTDOWN, as are later ones */
/* The address of w->chunkd, to be used at once. told: what the sender of the bytes says; it is
 * believed only while no metad has told a registry. When the registry does not know the chunkd, or
 * at another address, metad is asked first. 0 with out filled; REGISTRY_LATER: w->done() comes;
 * -ERR_NOT_REGISTERED: metad does not know it; -ERR_BUSY: too many wait already; -ERR_SHUTDOWN. */
int registry_find(struct registry *r, struct registry_wait *w, const char *told,
                  char out[static REGISTRY_ADDR]);

/* ---- for the heartbeat: one thread ---- */

/* ask(arg) is called when metad is to be asked before the next heartbeat is due; NULL: nobody can
 * be asked. Any thread. */
void registry_on_ask(struct registry *r, void (*ask)(void *arg), void *arg);
uint64_t registry_version(struct registry *r); /* that we have; 0: none */
/* A request to metad begins; what it answers; or it failed, and metad is lost. Each begin is followed
 * by one of the others, from which requests that wait are served. */
void registry_begin(struct registry *r);
void registry_told(struct registry *r, uint64_t version, Replfs__ChunkdAddr *const *v, size_t n);
void registry_lost(struct registry *r);
#endif
