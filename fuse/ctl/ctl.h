/* What the verbs of replfsctl share: options, exit codes, messages. */
#ifndef REPLFS_FUSE_CTL_CTL_H
#define REPLFS_FUSE_CTL_CTL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport.h"

/* Exit codes, documented in man/replfsctl.1; numbers from 64 up as in <sysexits.h>. */
enum ctl_exit {
    CTL_OK = 0,
    CTL_PROBLEM = 1, /* health: warnings; others: something was found or left undone */
    CTL_ERROR = 2,   /* health: errors */
    CTL_USAGE = 64,
    CTL_NOT_REPLFS = 65,  /* the path is not on a replfs mount */
    CTL_NO_PATH = 66,     /* no such file or directory */
    CTL_UNREACHABLE = 69, /* the cluster does not answer */
    CTL_INTERNAL = 70,
    CTL_TIMEOUT = 75, /* --wait: not converged in time */
    CTL_DENIED = 77,
};

struct ctl_opts {
    bool json, recursive, wait;
    bool accept, all;           /* recover --accept, quarantine adopt, drop --all */
    bool fast;                  /* scrub start --fast */
    bool now;                   /* reclaim --now */
    uint64_t for_ms;            /* chunkd pause --for */
    uint64_t timeout_ms;        /* of --wait; 0: for ever */
    const char *meta;           /* --meta, or NULL */
    const char *bytes, *inodes; /* quota set: as given, or NULL */
    struct transport_tls tls;
    char **args; /* after the verb */
    int nargs;
};

void ctl_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *ctl_alloc(size_t n); /* zeroed; never NULL */

/* The transport for a verb about the cluster: --meta, the one path argument, or the default mount.
 */
int ctl_cluster(const struct ctl_opts *o, struct transport **out);
/* One question about the cluster, answered by fn(o, reply); want: the reply's case, what: for messages. fn's exit code, or
 * one after a message. */
int ctl_ask(const struct ctl_opts *o, const Replfs__Envelope *q, Replfs__Envelope__BodyCase want,
            const char *what, int (*fn)(const struct ctl_opts *o, const Replfs__Envelope *rep));
/* Gets the cluster's StatusReply and calls fn with it. fn's exit code, or one after a message. */
int ctl_with_status(const struct ctl_opts *o,
                    int (*fn)(const struct ctl_opts *o, const Replfs__StatusReply *s));
/* Calls fn for each path argument. With --json, objects that fn makes in *j go into one array; else
 * j is NULL. fn returns 0 or an exit code after a message: the last of these is returned. */
struct json;
int ctl_each_path(const struct ctl_opts *o, const char *usage, const char *array,
                  int (*fn)(const char *path, struct json *j));
/* One change through a mount. 0 or a negative code with what is known for people in detail. */
int ctl_mutate(struct transport *t, Replfs__MetaOp *op, char *detail, size_t n);
/* "up", "suspect", "dead", "draining", "unknown". */
const char *ctl_node_state(uint32_t state);
/* 1..8 as decimal digits only, else 0. */
unsigned ctl_parse_goal(const char *s);

/* ---- verbs: exit code ---- */
int verb_status(const struct ctl_opts *o);
int verb_health(const struct ctl_opts *o);
int verb_info(const struct ctl_opts *o);
int verb_getrepl(const struct ctl_opts *o);
int verb_setrepl(const struct ctl_opts *o);
int verb_chunkd(const struct ctl_opts *o);
/* Of verb_chunkd: those that decide something. An exit code, or -1: it is none of them, or something is missing. */
int ctl_chunkd_set(const struct ctl_opts *o);
int verb_reclaim(const struct ctl_opts *o);
/* What becomes of a chunkd: "drains: 3 chunks, 1.2 GiB left ...", "" when nothing was decided. out is returned. */
char *ctl_leave_text(const Replfs__ChunkdStatus *k, char out[static 512]);
void ctl_leave_json(struct json *j,
                    const Replfs__ChunkdStatus *k); /* likewise, members of an object */
/* The limit of a disk, or NULL. */
const Replfs__DiskLimit *ctl_disk_limit(const Replfs__ChunkdStatus *k, uint32_t disk);
int verb_metad(const struct ctl_opts *o);
int verb_quota(const struct ctl_opts *o);
int verb_config(const struct ctl_opts *o);
int ctl_metad_upgrade(const struct ctl_opts *o); /* of verb_metad; its own word is off already */
int verb_scrub(const struct ctl_opts *o);
int verb_jobs(const struct ctl_opts *o);
/* A member of an object: "jobs". */
void ctl_jobs_json(struct json *j, const Replfs__StatusReply *s);
int verb_repair(const struct ctl_opts *o);
int verb_damaged(const struct ctl_opts *o);
int verb_recover(const struct ctl_opts *o);
int verb_backup_meta(const struct ctl_opts *o);
int verb_quarantine(const struct ctl_opts *o);
int ctl_quarantine_adopt(
    const struct ctl_opts *o); /* of verb_quarantine; its own word is off already */
#endif
