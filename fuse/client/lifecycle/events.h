/* The one place that ties the floors together: what the session, the grants, the queue and the write path call
 * back. */
#ifndef REPLFS_FUSE_CLIENT_LIFECYCLE_EVENTS_H
#define REPLFS_FUSE_CLIENT_LIFECYCLE_EVENTS_H

struct client;
/* Before anything of c starts. */
void events_set(struct client *c);
#endif
