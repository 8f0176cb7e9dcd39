/* The mount's end of the ioctl tunnel (ctl_ioctl.h): runs a request of replfsctl on the mount's own
 * session with metad. Any thread. */
#ifndef REPLFS_FUSE_CTL_SERVER_H
#define REPLFS_FUSE_CTL_SERVER_H
#include <stdint.h>
#include <sys/types.h>

#include "client/client.h"
#include "ctl_ioctl.h"

struct ctl_server;
struct ctl_server *ctl_server_new(struct client *c);
void ctl_server_free(struct ctl_server *s);
/* One ioctl made on `ino` by `uid`. 0 with *out filled (out->code holds a refusal or metad's
 * error), or -errno for the ioctl itself: -ENOTTY for a command that is not ours, -EINVAL for a
 * malformed message. */
int ctl_server_ioctl(struct ctl_server *s, unsigned cmd, uint64_t ino, uid_t uid,
                     const struct ctl_msg *in, struct ctl_msg *out);
/* Whether a request may pass: 0, -EPERM (not on the list) or -EINVAL (too many items). Pure; for
 * tests. */
int ctl_server_allows(const Replfs__Envelope *req);
#endif
