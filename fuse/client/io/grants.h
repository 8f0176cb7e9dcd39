/* Chunks that metad granted and that may be written. grants.mu is taken inside a file's mu. */
#ifndef REPLFS_FUSE_CLIENT_IO_GRANTS_H
#define REPLFS_FUSE_CLIENT_IO_GRANTS_H
#include "client/file/cfile.h"

/* What happens to a file that waited for a chunk. The grants thread; f->mu held, which may be dropped meanwhile. */
struct grants_events {
    void (*again)(struct cfile *f);                              /* there are some */
    void (*refused)(struct cfile *f, int code, const char *why); /* there will be none */
};
/* Starts the grants thread; c->grants.events is set before. 0 or a code. */
int grants_start(struct client *c);
/* Ends it, and drops the pools. Accepts grants that never started. */
void grants_stop(struct client *c);
/* A chunk for f, or NULL: f is on the waiting list and will be told. f->mu held; does not wait. */
struct wchunk *grants_take(struct client *c, struct cfile *f, unsigned goal);
/* What a keepalive tells; no lock held. The oldest chunk held (or the next that will be), 0: none yet. */
uint64_t grants_oldest(struct client *c);
/* Everything held, rising; *newest: the newest grant there ever was. 0 and *newest 0: more than max. */
size_t grants_held(struct client *c, uint64_t *out, size_t max, uint64_t *newest);
/* Pooled ones go: the session is gone. No lock held. */
void grants_drop_all(struct client *c);
/* For messages: which chunkds were down at the last grant. A file's mu may be held. */
void grants_missing(struct client *c, char *out, size_t cap);
#endif
