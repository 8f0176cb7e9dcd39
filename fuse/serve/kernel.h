/* What the kernel says to a file system and libfuse does not pass on. */
#ifndef REPLFS_FUSE_SERVE_KERNEL_H
#define REPLFS_FUSE_SERVE_KERNEL_H
#include <fuse_lowlevel.h>
#include <stdbool.h>

/* The name that op_create sees for a file without one (O_TMPFILE): no file can have it. */
#define KERNEL_TMPFILE_NAME "/"

/* Stands between libfuse and the kernel from now on. After fuse_session_mount, before the loop.
 * log: libfuse's from now on. 0 or -errno. */
int kernel_attach(struct fuse_session *se, fuse_log_func_t log);
/* From the operation init: asks for what kernel_attach could not see to. */
void kernel_want(struct fuse_conn_info *conn);
/* The next request, by a thread of the session: its length, or -errno. A cancellation point. */
ssize_t kernel_read(struct fuse_session *se, void *buf, size_t size);

/* Makes the kernel look up every name anew that it knows, without waiting for anything. Since FUSE
 * 7.44 (Linux 6.16). Any thread. */
#define KERNEL_MINOR_INC_EPOCH 44u
void kernel_forget_entries(struct fuse_session *se);

/* Of the request that this thread is serving: a write, truncation or truncating open by somebody
 * who must not keep setuid, setgid and file capabilities on the file. */
bool kernel_kill_suid(void);
/* Likewise: setting this access ACL clears setgid. */
bool kernel_kill_sgid(void);
/* This thread's request may take long; if its caller is killed or gone, the kernel has an answer. */
void kernel_lasting(void);
#endif
