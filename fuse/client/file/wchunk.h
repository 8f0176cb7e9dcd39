/* A chunk that a file writes to, or whose bytes are still to be synced.
 *
 * One that metad granted is on the client's list of held chunks, in order of id, from the grant to the last
 * reference: the keepalive tells metad of that list, so that no chunk in use is taken for garbage. */
#ifndef REPLFS_FUSE_CLIENT_FILE_WCHUNK_H
#define REPLFS_FUSE_CLIENT_FILE_WCHUNK_H
#include "client/file/chunk_loc.h"

struct client;
/* Fields: the owning file's mu; prev, next: grants.mu. */
struct wchunk {
    struct cloc loc;
    uint64_t session;
    unsigned goal;
    uint64_t epoch;         /* of the chunkds, when it was granted */
    int64_t expiry;         /* of the capability, clock_boot ns */
    unsigned refs;          /* file's current chunk, each append buffer, unsynced list */
    uint32_t len;           /* bytes given out to appends */
    uint32_t acked, synced; /* bytes that all copies have, have on stable storage */
    struct {                /* of each of loc.chunkds: what its last answer said */
        uint32_t end;
        uint64_t registration;
    } took[COPIES_MAX];
    uint32_t safe;     /* that one at least has there: write_order.c */
    int64_t few_since; /* its known copies are on too few hosts, 0: they are not */
    unsigned inflight; /* appends sent, not answered; of no interest once failed */
    bool direct;       /* they go to each copy at once, not along the chain (send.c) */
    bool failed;       /* no more appends */
    bool unsynced_listed;
    bool short_sync; /* the last sync reached too few copies */
    bool borrowed;   /* of the committed map: not a grant of ours, only to be synced */
    struct wchunk *next_unsynced;
    struct wchunk *prev, *next; /* held chunks, in order of id */
};
/* Puts a granted chunk on the list of those held. grants.mu held. */
void wchunk_hold(struct client *c, struct wchunk *wc);
/* Takes a chunk that no file has off the list and frees it. grants.mu held. */
void wchunk_drop(struct client *c, struct wchunk *wc);
/* One reference less; the last frees it. wc may be NULL. The owner file's mu held; takes grants.mu. */
void wchunk_unref(struct client *c, struct wchunk *wc);
#endif
