/* The replfs client as a library, without FUSE: a session with metad, files' layouts, chunk reads
 * and writes. All calls block the calling thread (never a loop thread) at most `timeout`; many
 * threads may call at once. 0 or a negative code (base/error.h). mount.replfs, replfsctl and load
 * generators build on it. */
#ifndef REPLFS_FUSE_CLIENT_CLIENT_H
#define REPLFS_FUSE_CLIENT_CLIENT_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include "base/buf.h"
#include "rpc/rpc.h"

struct client;
/* What the kernel caches under leases, and is told to forget. */
#define LEASE_CACHE_INVAL_ATTR 1u    /* attributes that the kernel has */
#define LEASE_CACHE_INVAL_PAGES 2u   /* its pages; may block behind a read of them */
#define LEASE_CACHE_INVAL_ENTRIES 4u /* names in directories, all of them */
/* Tells the kernel to forget; may be NULL. False: it does not know the inode. */
typedef bool lease_cache_inval(void *arg, uint64_t ino, unsigned what);
enum client_atime { CLIENT_ATIME_RELATIME, CLIENT_ATIME_ALWAYS, CLIENT_ATIME_NEVER };
struct client_config {
    lease_cache_inval *invalidate; /* what the kernel caches under leases; NULL: nothing */
    void *invalidate_arg;
    size_t cache_max; /* inodes whose attributes are cached, default 200000 */
    char **metads;    /* "host:port" each */
    size_t nmetads;
    const char *name;    /* shown in status: host:mountpoint */
    unsigned timeout_ms; /* default 60000 */
    int64_t connect_ms;  /* how long client_open waits for a metad; default: timeout_ms */
    uint64_t dirty_max;  /* bytes buffered for writing in all, default 128 MiB */
    unsigned
        flush_ms;     /* dirty data reaches the chunkds and metad within about this, default 1000 */
    bool sync_all;    /* -o sync: every write waits as fsync does */
    bool dirsync;     /* names are never kept back */
    bool async_close; /* flush does not wait for the copies while the file is ours alone */
    enum client_atime atime;
    bool nodiratime;
    struct rpc_config rpc; /* role, TLS, insecure, threads */
    const char *host_id;   /* told to metad; NULL: /etc/machine-id */
};
/* Connects and opens a session. On failure a log line names each address tried and its error. */
int client_open(const struct client_config *cfg, struct client **out);
/* Until every read and close asked for was answered: each has a deadline. None may be asked for meanwhile. */
void client_wait_answers(struct client *c);
void client_close(struct client *c); /* flushes everything, closes the session */
const char *client_cluster(struct client *c);
/* Reads the certificates again, as rpc_loop_reload_tls. */
int client_reload_tls(struct client *c);

/* One mutation, waiting for its commit; retried with the same seq over reconnects until the
 * time-out. attr and parent may be NULL, else are filled (scalars only). */
int client_mutate(struct client *c, Replfs__MetaOp *op, Replfs__Attr *attr, Replfs__Attr *parent);
/* Any read-only request to metad, retried likewise. out: free with rpc_result_free. */
int client_ask(struct client *c, Replfs__Envelope *req, struct rpc_result *out);
/* How long, in ns, the kernel may keep the attributes a that it is about to be given, or that name in dir
 * refers to ino (0: to nothing); 0: not. */
int64_t client_attr_ttl(struct client *c, const Replfs__Attr *a);
/* Likewise of attributes that answer a change of the inode, made or named in dir (else 0). */
int64_t client_changed_ttl(struct client *c, uint64_t dir, const Replfs__Attr *a);
int64_t client_entry_ttl(struct client *c, uint64_t dir, const char *name, uint64_t ino);
/* How long a listing of dir may be kept. */
int64_t client_list_ttl(struct client *c, uint64_t dir);
/* A listing of dir goes to the kernel, which learns names from it; end (begin false): it has them. */
void client_linking(struct client *c, uint64_t dir, bool begin);
/* A directory is opened and closed: while it is open, it is kept even when it is removed. */
void client_dir_opened(struct client *c, uint64_t ino);
void client_dir_closed(struct client *c, uint64_t ino);
int client_lookup(struct client *c, uint64_t parent, const char *name, Replfs__Attr *out);
int client_getattr(
    struct client *c, uint64_t ino,
    Replfs__Attr *out); /* of a file with unflushed writes: size and mtime include them */
/* The same where that needs no answer of metad; else false. */
bool client_attr_known(struct client *c, uint64_t ino, Replfs__Attr *out);
/* Like client_getattr, but from metad even under a lease: for what a lease does not cover, quota_left. */
int client_getattr_now(struct client *c, uint64_t ino, Replfs__Attr *out);

/* A page of a directory: entries as metad sent them, shared by all callers that list it. All of it but what the
 * attributes say, which client_merge_attr may bring up to date for the caller that got it first, stays as it is. */
struct dir_page {
    atomic_uint refs;
    struct rpc_result res; /* rep: a ReaddirReply */
    uint64_t ino, begun;   /* whose, client_begin before it was asked for, */
    uint64_t seen;         /* and when it had come */
    /* private */
    TAILQ_ENTRY(dir_page) by_use;
    unsigned walk; /* that waits for it, 0: none */
};
/* The entries of ino behind cookie `after`, at most max (0: as many as fit), with attributes if plus. *again:
 * asked for earlier (it is whole then, with attributes as they were). 0 and a reference, or a code. */
int client_list(struct client *c, uint64_t ino, uint64_t after, bool plus, unsigned max,
                struct dir_page **out, bool *again);
/* The directory is leased since p came, so that of each entry is known whether it still is as p says. */
bool client_page_holds(struct client *c, const struct dir_page *p);
/* What the kernel may be given of entry e of p; false: its name only, since it may be another's by now, or
 * nothing is known about it any more. fresh: p was asked for by the caller that is answered now. */
bool client_entry_attr(struct client *c, const struct dir_page *p, bool fresh,
                       const Replfs__Dirent *e, Replfs__Attr *out);
const Replfs__ReaddirReply *dir_page_entries(const struct dir_page *p);
void dir_page_unref(struct dir_page *p); /* may be NULL */

/* Of attributes that another call to metad brought, before they are shown: what this client knows
 * better. */
void client_merge_attr(struct client *c, Replfs__Attr *a);

/* A change of owner, mode or times that this client may answer by itself: true, and *a is what to show;
 * metad hears of it soon. False: use client_mutate. */
bool client_setattr_deferred(struct client *c, const Replfs__SetattrOp *op, Replfs__Attr *a);
/* The same for a new file, directory, symbolic link or special file in a directory that is ours
 * alone; it counts as open until cfile_open_new or, without that, not at all. */
bool client_create_deferred(struct client *c, const Replfs__CreateOp *op, Replfs__Attr *a);
/* And for removing a name that exists; false when there may be none. */
bool client_remove_deferred(struct client *c, const Replfs__UnlinkOp *op);
/* A directory was listed from its start to its end by client_list, n entries; begun: of its first
 * page. */
void client_listed(struct client *c, uint64_t begun, uint64_t dir, size_t n);
/* Until metad's log has what was changed of ino: fsync of a directory. -ERR_TIMEOUT: metad is away. */
int client_settle(struct client *c, uint64_t ino);
/* So many changes were answered, and then lost with the session, or refused; the log names them. */
unsigned client_lost(struct client *c);

/* ---- open files: one cfile per inode however often it is opened; reference-counted ---- */
struct cfile;
int cfile_open(struct client *c, uint64_t ino, bool write, Replfs__Attr *attr, struct cfile **out);
/* A file this client just created: nothing to ask. */
int cfile_open_new(struct client *c, const Replfs__Attr *attr, struct cfile **out);
/* Drops one reference; the last tells metad. Errors not yet reported by flush or fsync are logged
 * with ino. */
void cfile_close(struct cfile *f);
enum cfile_write_flag {
    CFILE_APPEND = 1,
    CFILE_KILL_SUID = 2, /* the writer must lose the file's setuid and setgid bits */
};
/* Buffers and returns; waits when dirty_max is reached. Reports an earlier background error once.
 * APPEND: at the end of the file, wherever other clients have moved it; *off gets where. That waits
 * for the commit. Each MiB is one piece, between which others may append. */
int cfile_write(struct cfile *f, const void *data, size_t len, off_t *off, unsigned flags);
/* Bytes [off, off+len) of the file as this client sees it (own unflushed writes included; holes are
 * zeros), short at the end of the file. *out is one buffer. Checks every CRC; tries every copy;
 * -EIO when none is good. */
int cfile_read(struct cfile *f, off_t off, size_t len, struct buf **out);
/* The same, but returns as soon as they are asked for: done is called once, with b (NULL on errors) for as
 * long as it runs, by this thread before that or later by one that must not wait. */
struct buf;
typedef void cfile_read_fn(void *arg, int code, struct buf *b);
void cfile_read_async(struct cfile *f, off_t off, size_t len, cfile_read_fn *done, void *arg);
/* All bytes of a file that was just opened and is not open otherwise, when they are at hand: to be put
 * into the kernel's cache, where a recall of the lease finds them. True when give said so. */
typedef bool cfile_whole_fn(void *arg, uint64_t ino, const struct buf *b);
bool cfile_give_whole(struct cfile *f, cfile_whole_fn *give, void *arg);
/* flush (close): every copy has accepted; metad knows, or will before another client can look. fsync:
 * every copy synced, metad's log synced. */
int cfile_flush(struct cfile *f);
/* The same, but returns once all bytes are on their way, when that is all there is to wait for: done is
 * called once, by this thread before that or later by one that must not wait. */
typedef void cfile_flush_fn(void *arg, int code);
void cfile_flush_async(struct cfile *f, cfile_flush_fn *done, void *arg);
int cfile_fsync(struct cfile *f);
/* The last error of the background since *seen (0: since the file was first opened), once for each
 * holder of a `seen`; 0: none. */
int cfile_error_since(struct cfile *f, unsigned *seen);
int cfile_truncate(struct cfile *f, uint64_t size, Replfs__Attr *attr);
/* Makes dst's [dst_off, dst_off+len) the same bytes as src's [src_off, src_off+len) without moving
 * any: what is unflushed in either is flushed, then metad shares the extents. Short at the end of
 * src: *done says how far it came, also after an error; dst grows as needed. src may be dst.
 * -EINVAL when the ranges of one file overlap, -EFBIG, -ENOSPC and so on as from metad. */
int cfile_clone(struct cfile *src, uint64_t src_off, struct cfile *dst, uint64_t dst_off,
                uint64_t len, uint64_t *done);
/* As fallocate(2); mode: its flags. kill_suid: the caller is not privileged. -EOPNOTSUPP for modes
 * that replfs has not. */
int cfile_fallocate(struct cfile *f, int mode, uint64_t off, uint64_t len, bool kill_suid);
/* The first offset from off on that has data (hole: that lies in a hole; the end of the file is
 * one), unflushed bytes included. -ENXIO: none, or off is not within the file. */
int cfile_seek(struct cfile *f, uint64_t off, bool hole, uint64_t *out);
/* Attributes as last known, without asking. */
void cfile_attr(struct cfile *f, Replfs__Attr *out);
/* Flushes the file if this client has it open and dirty (before getattr of others, setattr,
 * unlink...). */
int client_flush_ino(struct client *c, uint64_t ino);
/* fsync of everything dirty; -EIO also when bytes, or changes answered before, were lost meanwhile. Gives up
 * the rest when one file's time-out has passed, or one failed and metad is away. */
int client_sync(struct client *c);

/* ---- access times: which reads count is the mount's rule; metad learns it within about a second ----
 */
/* Somebody read this symbolic link, or listed this directory. */
void client_accessed(struct client *c, uint64_t ino, bool dir);
/* Somebody read the file. */
void cfile_accessed(struct cfile *f);
/* Would reading an inode with these attributes count? */
bool client_atime_counts(struct client *c, const Replfs__Attr *a);
/* Waits until metad has what was read of ino (0: of all), if it can be reached. */
void client_flush_atime(struct client *c, uint64_t ino);
/* The time is about to be set by hand: what was read before does not matter any more. */
void client_forget_atime(struct client *c, uint64_t ino);
/* ---- file locks among clients (fcntl, OFD and flock) ---- */
struct client_lock {
    uint64_t ino, owner;
    uint64_t start, end; /* bytes, end inclusive; a flock is 0 .. UINT64_MAX */
    uint32_t type;       /* enum lock_type of base/lockset.h */
    uint32_t pid;
    bool flock;      /* a kind of its own */
    uint64_t handle; /* names the open file through which it is set */
};
/* code: 0 granted, -EAGAIN, -EDEADLK, -ENOLCK, -EINTR (cancelled) or -EIO. Called once, on any
 * thread, perhaps within client_lock_start; must not block. */
typedef void client_lock_done(void *arg, int code);
/* Locking without a thread: prepare gives the request its id, so that it can be cancelled from
 * then on, start sends it. Waits for the lock as long as metad is there, or not at all. type is
 * never LOCKSET_NONE. */
uint64_t client_lock_prepare(struct client *c, const struct client_lock *l, bool wait,
                             client_lock_done *done, void *arg);
void client_lock_start(struct client *c, uint64_t id);
/* A descriptor of the open file `handle` was closed, perhaps the last. */
void client_locks_closing(struct client *c, uint64_t ino, uint64_t handle);
/* Before locking. The kernel names an open file by an address, which it uses again as soon as the
 * file is closed, perhaps before we have heard of that: locks of the former one would be taken for
 * the new one's, and go with them. Waits until such a close has come through; a short while, since
 * the closed descriptor may have been a copy. */
void client_lock_turn(struct client *c, const struct client_lock *l);
/* done follows soon, with -EINTR unless the lock was granted meanwhile. Unknown ids are fine. */
void client_lock_cancel(struct client *c, uint64_t id);
/* *out: the first lock in the way, or type LOCKSET_NONE. */
int client_lock_test(struct client *c, const struct client_lock *l, struct client_lock *out);
int client_unlock(struct client *c, const struct client_lock *l); /* type is not looked at */
/* Does the owner hold byte ranges of the inode? And all of them unlocked. */
bool client_locks_owner(struct client *c, uint64_t ino, uint64_t owner);
int client_unlock_owner(struct client *c, uint64_t ino, uint64_t owner);
/* The same for everything that was set through an open file, of both kinds. */
bool client_locks_handle(struct client *c, uint64_t ino, uint64_t handle);
void client_unlock_handle(struct client *c, uint64_t ino, uint64_t handle);

struct client_stat {
    uint64_t dirty_bytes, inflight_appends, sealed_early, read_retries, crc_errors;
    bool connected;
    char metad[64];
};
void client_stat(struct client *c, struct client_stat *out);
#endif
