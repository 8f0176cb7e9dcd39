/* Access times. atime.mu is taken inside a file's mu, and queue.mu inside it. */
#ifndef REPLFS_FUSE_CLIENT_NAMES_ATIME_H
#define REPLFS_FUSE_CLIENT_NAMES_ATIME_H
#include "client/client.h"

#define ATIME_ENTRIES_MAX 4096u
void atime_init(struct client *c);
void atime_free(struct client *c);
/* Pure: would a read at `now` (wall ns) count? */
bool atime_counts(enum client_atime mode, bool dirs, const Replfs__Attr *a, int64_t now);
/* Lays over a what this client read. A file's mu may be held. */
void atime_overlay(struct client *c, Replfs__Attr *a);
/* a is being shown. No lock is taken. */
void atime_note(struct client *c, const Replfs__Attr *a);
/* Sends what is old enough; waits for metad, not for long. The flusher; no lock held. */
void atime_tick(struct client *c);
#endif
