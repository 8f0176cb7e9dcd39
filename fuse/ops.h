/* The low-level FUSE operations of a mount. Each runs on a session thread, asks the client library
 * (which blocks at most the mount's timeout), and answers its request exactly once. */
#ifndef REPLFS_FUSE_OPS_H
#define REPLFS_FUSE_OPS_H
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/statvfs.h>
#include "base/lock.h"

#include "client/client.h"
#include "ctl_server.h"
#include "inode.h"

/* An open file or directory: first member of its handle. The kernel tells of each one's end, but not
 * when the mount itself ends first. */
struct open_node {
    struct open_node *prev, *next;
    atomic_uint refs;                     /* the kernel's, and of calls that are being served */
    void (*release)(struct open_node *n); /* frees it */
};
struct mount_ctx {                /* the session's userdata */
    struct fuse_session *session; /* NULL until mounted */
    struct client *client;
    struct inode_table *inodes;
    struct ctl_server *ctl;
    bool readdirplus;
    bool can_forget_entries; /* so that names may be given lifetimes */
    struct lock root_lock;
    Replfs__Attr root; /* as last seen; under root_lock, as is: */
    struct statvfs space;
    struct lock opens_lock;
    struct open_node *opens;
};

#define OPS_IO_SIZE (1u << 20)                /* most bytes that one call reads or writes */
#define OPS_REQUEST_MAX (OPS_IO_SIZE + 4096u) /* with what comes before those of a write */
extern const struct fuse_lowlevel_ops ops_table;
void ops_release_all(struct mount_ctx *m); /* after the loop's end, before client_close */
bool ops_invalidate(void *mount_ctx, uint64_t ino, unsigned what); /* an lease_cache_inval */

/* ---- shared by the ops_*.c files ---- */
struct mount_ctx *ops_ctx(fuse_req_t req);
void ops_opened(struct mount_ctx *m, struct open_node *n);
void ops_closed(struct mount_ctx *m, struct open_node *n); /* releases it when nobody holds it */
/* Around a call, which the kernel may believe to be over before it is (interrupt.c), and release the file. */
struct open_node *ops_hold(const struct fuse_file_info *fi);
void ops_drop(struct open_node *n);
/* The same, by a thread that must not wait, as a release does for what was written: a thread of a connection,
 * whose next message may be the very answer. Before the call is answered, where that can be: the kernel has its
 * own hold until then. */
void ops_drop_elsewhere(struct open_node *n);
static inline void ops_dropped(struct open_node **n)
{
    if (*n)
        ops_drop(*n);
}
/* Until the end of the scope. */
#define OPS_HOLD(fi)                                                                               \
    __attribute__((cleanup(ops_dropped), unused)) struct open_node *held_node = ops_hold(fi)
/* No metad is connected. The root's attributes and the free space are then answered as last seen,
 * since umount(8) and replfsctl ask for them first and must work just then; all else waits for
 * metad. */
bool ops_cut_off(struct mount_ctx *m);
/* The one edge where replfs codes become errno; code 0 answers success. */
void ops_reply(fuse_req_t req, int code);
void ops_stat(const Replfs__Attr *a, struct stat *st);
/* What attributes are the answer to: the kernel trusts those of a change more (lease_cache_give.h). */
enum ops_answer { OPS_ASKED, OPS_CHANGED };
/* With the lifetimes that leases allow. */
void ops_entry(struct mount_ctx *m, enum ops_answer to, uint64_t parent, const char *name,
               const Replfs__Attr *a, struct fuse_entry_param *e);
/* Answers with an entry or an attribute when code is 0, else with the error. */
void ops_reply_entry(fuse_req_t req, enum ops_answer to, int code, uint64_t parent,
                     const char *name, const Replfs__Attr *a);
void ops_reply_attr(fuse_req_t req, enum ops_answer to, int code, const Replfs__Attr *a);
/* Setgid without group execution (once: mandatory locks) is taken only by those outside the file's
 * group; all of this is about callers without privilege. */
bool ops_loses_sgid(fuse_req_t req, const Replfs__Attr *a);
/* Setuid and setgid bits and capabilities of the file, if a says that it has any, go away. */
int ops_kill_suid(fuse_req_t req, Replfs__Attr *a);
/* One question to metad: 0 and *out with a reply whose body is `want`, or a negative code.
 * rpc_result_free out in both cases. */
int ops_ask(fuse_req_t req, Replfs__Envelope *q, Replfs__Envelope__BodyCase want,
            struct rpc_result *out);
static inline ProtobufCBinaryData ops_bytes(const char *s, size_t len)
{
    return (ProtobufCBinaryData){.len = len, .data = (uint8_t *)(uintptr_t)s};
}

/* ops_name.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
                struct fuse_file_info *fi);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
               const char *new_name, unsigned flags);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);
/* The mutation shared by mknod, mkdir, symlink and create. target may be NULL; the name
 * KERNEL_TMPFILE_NAME means a file without one. */
int ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev,
               const char *target, Replfs__Attr *out);

/* ops_file.c */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
              struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                  struct fuse_file_info *fi);
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
              unsigned flags, const void *in, size_t in_len, size_t out_len);
/* Truncates through the open file, or one opened for the purpose when fi is NULL. */
int ops_truncate(fuse_req_t req, fuse_ino_t ino, uint64_t size, struct fuse_file_info *fi,
                 Replfs__Attr *out);

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                        struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                        struct fuse_file_info *fi_out, size_t len, int flags);

/* ops_xattr.c */
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ops_lock.c */
void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
              int sleep);
void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);
/* A descriptor is being closed; whether its process has POSIX locks of the file, which go with it, in the
 * end. An open file ends: what was locked through it goes. */
bool ops_unlock_closing(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi);
void ops_unlock_flush(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi);
void ops_unlock_release(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi);

/* ops_dir.c */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
#endif
