/* Reaching metad.
 *
 * Through a mount: any file or directory of it accepts the ioctl, and the request names inodes
 * itself, so it is enough to open one that we may open: the directory, else the parent, else the
 * file, else the mount's root. Opening the file itself comes late since the user may have no right
 * to read it and since a FIFO would block.
 *
 * Directly: one RPC connection as role admin; a metad that does not lead names the leader, and we
 * follow, at most FOLLOW_MAX times. */
#include "transport.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../ctl_ioctl.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "ctl.h"

#define FOLLOW_MAX 5
#define REPLY_MAX (64u << 20)
#define PROBE_MS 10000

struct transport {
    int fd; /* of the mount, or -1 */
    struct rpc_loop *loop;
    struct rpc_conn *conn;
    unsigned timeout_ms;
    char where[PATH_MAX]; /* mount point or address, for messages */
};

/* ---- finding mounts ---- */

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(const char *s, size_t len, char *out, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < len && at + 1 < n; i++) {
        unsigned o;
        if (s[i] == '\\' && len - i >= 4 && sscanf(s + i + 1, "%3o", &o) == 1) {
            out[at++] = (char)o;
            i += 3;
        } else {
            out[at++] = s[i];
        }
    }
    out[at] = '\0';
}

bool transport_parse_mount(const char *line, dev_t *dev, char *mountpoint, size_t n)
{
    unsigned major, minor;
    int root_at = 0;
    const char *type = strstr(line, " - fuse.replfs ");
    if (!type || sscanf(line, "%*d %*d %u:%u %n", &major, &minor, &root_at) != 2 || !root_at)
        return false;
    const char *p = line + root_at;
    p += strcspn(p, " "); /* the root within the file system */
    if (*p != ' ')
        return false;
    p++;
    size_t len = strcspn(p, " ");
    if (p + len > type)
        return false;
    *dev = makedev(major, minor);
    unescape(p, len, mountpoint, n);
    return true;
}

struct found {
    size_t n;
    char first[PATH_MAX];
    char list[1024]; /* for the message when there are several */
};

/* Mounts of replfs on device dev, or all when dev is 0. Bind mounts of one count once. */
static int find_mounts(dev_t dev, struct found *f)
{
    FILE *in = fopen("/proc/self/mountinfo", "re");
    char *line = NULL, point[PATH_MAX];
    size_t cap = 0;
    dev_t d, last = 0;
    *f = (struct found){0};
    if (!in)
        return -errno;
    while (getline(&line, &cap, in) > 0) {
        if (!transport_parse_mount(line, &d, point, sizeof(point)) || (dev && d != dev) ||
            d == last)
            continue;
        last = d;
        if (!f->n++)
            snprintf(f->first, sizeof(f->first), "%s", point);
        size_t at = strlen(f->list);
        snprintf(f->list + at, sizeof(f->list) - at, " %s", point);
    }
    free(line);
    fclose(in);
    return 0;
}

/* ---- opening ---- */

static int open_any(const char *path, const struct stat *st, const char *root)
{
    int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    CLEANUP(free_ptr) char *real = realpath(path, NULL);
    if (!real)
        return -errno;
    int fd;
    if (S_ISDIR(st->st_mode)) {
        fd = open(real, flags | O_DIRECTORY);
    } else {
        CLEANUP(free_ptr) char *copy = strdup(real);
        fd = copy ? open(dirname(copy), flags | O_DIRECTORY) : -1;
        struct stat parent;
        if (fd >= 0 && (fstat(fd, &parent) || parent.st_dev != st->st_dev)) {
            close(fd); /* the file is itself a (bind) mount point */
            fd = -1;
        }
    }
    if (fd < 0 && S_ISREG(st->st_mode))
        fd = open(real, flags);
    if (fd < 0)
        fd = open(root, flags | O_DIRECTORY);
    return fd < 0 ? -errno : fd;
}

/* stat in a child, since a mount without its metad answers only after its own time-out, and a process
 * cannot give up meanwhile. 0, or the errno; ETIMEDOUT after PROBE_MS, the child is left to end by itself. */
static int transport_probe(const char *path)
{
    struct stat st;
    int fds[2], err = ETIMEDOUT;
    if (pipe2(fds, O_CLOEXEC))
        return errno;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        err = errno;
    } else if (!pid) {
        err = stat(path, &st) ? errno : 0;
        ssize_t n = write(fds[1], &err, sizeof(err));
        _exit(n != sizeof(err));
    } else {
        struct pollfd p = {.fd = fds[0], .events = POLLIN};
        if (poll(&p, 1, PROBE_MS) == 1 && read(fds[0], &err, sizeof(err)) == sizeof(err))
            waitpid(pid, NULL, 0);
        else
            err = ETIMEDOUT;
    }
    close(fds[0]);
    close(fds[1]);
    return err;
}

static int no_path(const char *path, int err)
{
    switch (err) {
    case ENOTCONN:
        ctl_error("%s: the mount's process is gone: umount -l it and mount again", path);
        return CTL_UNREACHABLE;
    case ETIMEDOUT:
    case EIO:
        ctl_error("%s: the mount does not answer: its metad cannot be reached. See which one with "
                  "'findmnt "
                  "-t fuse.replfs' and why in the mount's log; --meta ADDR asks a metad directly",
                  path);
        return CTL_UNREACHABLE;
    case EACCES:
        ctl_error("%s: %s", path, strerror(err));
        return CTL_DENIED;
    default:
        ctl_error("%s: %s", path, strerror(err));
        return CTL_NO_PATH;
    }
}

int transport_path(const char *path, struct transport **out, struct transport_target *target)
{
    struct stat st;
    struct found f;
    int err = transport_probe(path);
    if (!err && stat(path, &st))
        err = errno;
    if (err)
        return no_path(path, err);
    if (find_mounts(st.st_dev, &f) || !f.n) {
        ctl_error("%s: not on a replfs mount. Give a path below a mount point of type fuse.replfs "
                  "(see 'mount | grep replfs')",
                  path);
        return CTL_NOT_REPLFS;
    }
    int fd = open_any(path, &st, f.first);
    if (fd < 0) {
        ctl_error("%s: %s: neither it nor its directory nor the mount's root %s may be read by you",
                  path, strerror(-fd), f.first);
        return CTL_DENIED;
    }
    struct transport *t = ctl_alloc(sizeof(*t));
    t->fd = fd;
    snprintf(t->where, sizeof(t->where), "%s", f.first);
    if (target)
        *target = (struct transport_target){st.st_ino, st.st_mode, st.st_dev};
    *out = t;
    return 0;
}

int transport_default(struct transport **out)
{
    struct stat st;
    struct found f, here;
    if (find_mounts(0, &f)) {
        ctl_error("/proc/self/mountinfo: %s", strerror(errno));
        return CTL_UNREACHABLE;
    }
    if (f.n == 1)
        return transport_path(f.first, out, NULL);
    if (f.n && !stat(".", &st) && !find_mounts(st.st_dev, &here) && here.n)
        return transport_path(".", out, NULL);
    if (f.n)
        ctl_error("several replfs mounts here: name one of them:%s", f.list);
    else
        ctl_error(
            "no replfs mount on this machine: mount one (mount.replfs META DIR), or ask a metad "
            "directly with --meta HOST[:PORT]");
    return f.n ? CTL_USAGE : CTL_NOT_REPLFS;
}

static int dial(struct transport *t, const char *addr)
{
    snprintf(t->where, sizeof(t->where), "%s", addr);
    rpc_conn_unref(t->conn);
    t->conn = NULL;
    return rpc_dial(t->loop, addr, RPC_ROLE_METAD, NULL, &t->conn);
}

int transport_meta(const char *addr, const struct transport_tls *tls, struct transport **out)
{
    struct transport *t = ctl_alloc(sizeof(*t));
    struct rpc_config cfg = {.role = RPC_ROLE_ADMIN,
                             .name = "replfsctl",
                             .threads = 1,
                             .insecure = tls->insecure,
                             .tls_cert = tls->cert,
                             .tls_key = tls->key,
                             .tls_ca = tls->ca};
    char full[280];
    snprintf(full, sizeof(full), "%s%s", addr,
             strrchr(addr, ':') > strrchr(addr, ']') ? "" : ":7000");
    t->fd = -1;
    t->timeout_ms = tls->timeout_ms;
    snprintf(t->where, sizeof(t->where), "%s", full);
    int rc = rpc_loop_new(&cfg, &t->loop);
    if (!rc)
        rc = dial(t, full);
    if (rc) {
        rc = transport_failed(t, "connect", rc, "");
        transport_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void transport_free(struct transport *t)
{
    if (!t)
        return;
    if (t->fd >= 0)
        close(t->fd);
    rpc_conn_unref(t->conn);
    if (t->loop)
        rpc_loop_free(t->loop);
    free(t);
}

const char *transport_mount(const struct transport *t)
{
    return t->fd >= 0 ? t->where : "";
}

/* ---- calling ---- */

/* The reply in one piece of memory, data[*len]; 0, or the negative code with which the call ended
 * (data is then a packed Failure or NULL). */
static int tunnel(int fd, const Replfs__Envelope *req, uint8_t **data, uint32_t *len)
{
    struct ctl_msg *m = ctl_alloc(sizeof(*m));
    CLEANUP(free_ptr) void *guard = m;
    (void)guard;
    *data = NULL;
    *len = 0;
    m->version = CTL_VERSION;
    m->len = (uint32_t)replfs__envelope__get_packed_size(req);
    if (m->len > sizeof(m->data))
        return -E2BIG;
    replfs__envelope__pack(req, m->data);
    if (ioctl(fd, CTL_CALL, m))
        return -errno;
    int code = m->code;
    uint32_t total = m->total, got = 0;
    if (total > REPLY_MAX || m->len > sizeof(m->data) || m->len > total)
        return -ERR_PROTOCOL;
    *data = ctl_alloc(total + 1);
    *len = total;
    for (;;) {
        memcpy(*data + got, m->data, m->len);
        got += m->len;
        if (got == total)
            return -code;
        m->off = got;
        m->version = CTL_VERSION;
        m->len = 0;
        if (ioctl(fd, CTL_FETCH, m))
            return -errno;
        if (!m->len || m->len > sizeof(m->data) || m->len > total - got)
            return -ERR_PROTOCOL;
    }
}

static int direct(struct transport *t, const Replfs__Envelope *req, uint8_t **data, uint32_t *len,
                  char *why, size_t n)
{
    int rc = 0;
    *data = NULL;
    *len = 0;
    for (int i = 0; i < FOLLOW_MAX; i++) {
        struct rpc_result r = {0};
        Replfs__Envelope copy = *req;
        rc = rpc_call_wait(t->conn, &copy, NULL, t->timeout_ms, &r);
        const char *leader = "";
        if (r.rep && r.rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE)
            leader = r.rep->failure->leader;
        if (rc == -ERR_NOT_LEADER && *leader) {
            char addr[256];
            snprintf(addr, sizeof(addr), "%s", leader);
            rpc_result_free(&r);
            rc = dial(t, addr);
            if (rc)
                return rc;
            continue;
        }
        if (r.rep) {
            *len = (uint32_t)replfs__envelope__get_packed_size(r.rep);
            *data = ctl_alloc(*len + 1);
            replfs__envelope__pack(r.rep, *data);
        } else if (rc && !rpc_conn_alive(t->conn)) {
            snprintf(why, n, "%s", rpc_conn_error(t->conn));
        }
        rpc_result_free(&r);
        return rc;
    }
    return rc;
}

int transport_call(struct transport *t, const Replfs__Envelope *req,
                   Replfs__Envelope__BodyCase want, Replfs__Envelope **rep, char *detail, size_t n)
{
    uint8_t *data;
    uint32_t len;
    *rep = NULL;
    detail[0] = '\0';
    int rc = t->fd >= 0 ? tunnel(t->fd, req, &data, &len) : direct(t, req, &data, &len, detail, n);
    Replfs__Envelope *e = data && len ? replfs__envelope__unpack(NULL, len, data) : NULL;
    free(data);
    if (e && e->body_case == REPLFS__ENVELOPE__BODY_FAILURE) {
        snprintf(detail, n, "%s", e->failure->detail);
        if (!rc)
            rc = e->failure->code ? -(int)e->failure->code : -ERR_PROTOCOL;
    }
    if (!rc && e && e->body_case == want) {
        *rep = e;
        return 0;
    }
    if (e)
        replfs__envelope__free_unpacked(e, NULL);
    return rc ? rc : -ERR_PROTOCOL;
}

int transport_failed(const struct transport *t, const char *what, int code, const char *detail)
{
    char why[600]; /* the code's text, unless the detail says it already */
    bool said = *detail && strstr(detail, err_str(code));
    snprintf(why, sizeof(why), "%s%s%s", said ? "" : err_str(code), *detail && !said ? ": " : "",
             detail);
    switch (-code) {
    case ERR_PEER_GONE:
    case ERR_TIMEOUT:
    case ERR_NOT_LEADER:
    case ERR_SHUTDOWN:
    case ETIMEDOUT:
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENOTCONN:
    case ECONNABORTED:
        ctl_error("%s: the cluster of %s does not answer: %s. Is metad running and reachable from "
                  "this machine?",
                  what, t->where, why);
        return CTL_UNREACHABLE;
    case EPERM:
    case EACCES:
    case ERR_ROLE:
        ctl_error("%s: not permitted: %s", what, why);
        return CTL_DENIED;
    case ENOENT:
    case ESTALE:
        ctl_error("%s: gone meanwhile: %s", what, why);
        return CTL_NO_PATH;
    case ENOTTY:
    case EINVAL:
        if (t->fd >= 0)
            ctl_error(
                "%s: the mount on %s refused the request: %s. Its mount.replfs may be of another "
                "version: unmount it and mount it again",
                what, t->where, why);
        else
            ctl_error("%s: %s: %s", what, t->where, why);
        return CTL_INTERNAL;
    default:
        ctl_error("%s: %s", what, why);
        return CTL_INTERNAL;
    }
}
