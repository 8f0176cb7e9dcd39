/* Files that are not open any more: metad is told in batches. The lists are under session.mu, which these take. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_CLOSES_H
#define REPLFS_FUSE_CLIENT_SESSION_CLOSES_H
#include <stdbool.h>
#include <stdint.h>

struct client;
#define CLOSE_BATCH 256 /* so many are not waited with */
/* ino is closed; does not wait, files.mu may be held. */
void closes_add(struct client *c, uint64_t ino);
/* A file is being opened: its pending close is dropped (true), or waited for when it is under way. No lock held. */
bool closes_take_back(struct client *c, uint64_t ino);
/* Tells metad of those that are listed; false: there were none. The session thread; no lock held. */
bool closes_send(struct client *c, int64_t deadline);
/* Waits until metad knows them all; gives up after a while. No lock held. */
void closes_flush(struct client *c);
#endif
