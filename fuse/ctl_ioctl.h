/* How replfsctl talks to the cluster through a mount: an ioctl on any file or directory of it
 * carries one packed Envelope (a request of admin.proto or meta.proto that the mount allows) and
 * fetches the reply in pieces. No network access and no flags needed; the mount checks the caller's
 * uid (fuse_req_ctx).
 *
 *   CTL_CALL   in: struct ctl_msg {len, data = packed Envelope}; out: ino of the file, token and
 *              total length of the packed reply
 *   CTL_FETCH  in: token, offset; out: up to sizeof(data) bytes. The token is freed once the last
 *              byte was fetched, or after 60 s.
 *   CTL_SYNC   returns when what was written and changed through the mount is on stable storage, as
 *              after fsync of everything; out: code. For umount (umount.h). */
#ifndef REPLFS_FUSE_CTL_IOCTL_H
#define REPLFS_FUSE_CTL_IOCTL_H
#include <linux/ioctl.h>
#include <stdint.h>
#define CTL_DATA_MAX 12288u
#define CTL_VERSION 1u
struct ctl_msg {
    uint32_t version; /* CTL_VERSION */
    int32_t code;     /* out: 0 or a positive code (base/error.h) */
    uint64_t ino;     /* out: inode the ioctl was made on */
    uint64_t token;
    uint64_t off;
    uint32_t len;   /* bytes in data */
    uint32_t total; /* out: of the whole reply */
    uint8_t data[CTL_DATA_MAX];
};
#define CTL_CALL _IOWR('R', 1, struct ctl_msg)
#define CTL_FETCH _IOWR('R', 2, struct ctl_msg)
#define CTL_SYNC _IOWR('R', 3, struct ctl_msg)
#endif
