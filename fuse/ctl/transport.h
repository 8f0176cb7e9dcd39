/* How replfsctl reaches metad: through the ioctl tunnel of a mount (ctl_ioctl.h), found from a path
 * on it, or directly (--meta ADDR) as role admin. Not thread-safe. */
#ifndef REPLFS_FUSE_CTL_TRANSPORT_H
#define REPLFS_FUSE_CTL_TRANSPORT_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "rpc/rpc.h"

struct transport;
struct transport_tls { /* of --meta */
    const char *cert, *key, *ca;
    bool insecure;
    unsigned timeout_ms;
};

/* What a path on a mount is. */
struct transport_target {
    uint64_t ino;
    mode_t mode;
    dev_t dev;
};

/* Each returns 0 or an exit code (enum ctl_exit) after a message to stderr. */
/* Through the mount that path lies on (symbolic links followed). target may be NULL. */
int transport_path(const char *path, struct transport **out, struct transport_target *target);
/* Through the only replfs mount of this machine, or the one that the current directory is on. */
int transport_default(struct transport **out);
int transport_meta(const char *addr, const struct transport_tls *tls, struct transport **out);
void transport_free(struct transport *t);
/* The mount point it goes through, "" with --meta. */
const char *transport_mount(const struct transport *t);

/* One request. 0 and *rep (free with replfs__envelope__free_unpacked) with a body of `want`, or a
 * negative code (base/error.h); then detail, a buffer of n bytes, says what is known for people. */
int transport_call(struct transport *t, const Replfs__Envelope *req,
                   Replfs__Envelope__BodyCase want, Replfs__Envelope **rep, char *detail, size_t n);
/* Prints "replfsctl: WHAT: reason" for a failed call and returns the exit code for it. */
int transport_failed(const struct transport *t, const char *what, int code, const char *detail);

/* ---- pure parts, for tests ---- */
/* A line of /proc/self/mountinfo that is a replfs mount: true, with device and mount point
 * (unescaped, in a buffer of n bytes) filled in. */
bool transport_parse_mount(const char *line, dev_t *dev, char *mountpoint, size_t n);
#endif
