/* Attributes and names as they are to be shown: metad's answers, the lease cache, and over both what this client
 * changed. Most of it is promised in client.h. No file's mu held, unless said otherwise. */
#ifndef REPLFS_FUSE_CLIENT_NAMES_ATTRS_H
#define REPLFS_FUSE_CLIENT_NAMES_ATTRS_H
#include "client/client.h"

/* A number for "now" in the lease cache: answers to requests from before count less. Takes its mutex only. */
uint64_t client_begin(struct client *c);
/* The names in directory dir are what an answer to a request of then (client_begin) said: a lease was kept
 * since, and we changed nothing ourselves. dirs.mu may be held. */
bool client_dir_same(struct client *c, uint64_t begun, uint64_t dir);
/* Attributes of a directory in an answer that did not wait for what was queued of it: asked for anew if need be. */
void attrs_dir_as_now(struct client *c, uint64_t begun, Replfs__Attr *a);
#endif
