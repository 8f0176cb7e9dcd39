/* Opening and closing a client: client_open, client_close, client_wait_answers, client_reload_tls, client_cluster and
 * client_stat of client.h, and nothing else. */
#ifndef REPLFS_FUSE_CLIENT_LIFECYCLE_LIFECYCLE_H
#define REPLFS_FUSE_CLIENT_LIFECYCLE_LIFECYCLE_H
#include "client/client.h"
#endif
