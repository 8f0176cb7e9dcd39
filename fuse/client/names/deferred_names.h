/* Names that are made and removed before metad knows: what client.h promises as client_create_deferred,
 * client_remove_deferred, client_settle and client_lost. */
#ifndef REPLFS_FUSE_CLIENT_NAMES_DEFERRED_NAMES_H
#define REPLFS_FUSE_CLIENT_NAMES_DEFERRED_NAMES_H

struct client;
/* The numbers given by metad for what is made here: one mutex and one condition. */
void deferred_names_init(struct client *c);
void deferred_names_free(struct client *c);
#endif
