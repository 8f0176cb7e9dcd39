/* Which of the serving threads reads the next request from the kernel. */
#ifndef REPLFS_FUSE_SERVE_LEADER_FOLLOWER_H
#define REPLFS_FUSE_SERVE_LEADER_FOLLOWER_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
struct iovec;

/* Starts what watches over the turns. 0 or -errno. */
int leader_follower_start(void);
void leader_follower_stop(void); /* once no thread takes turns any more */
/* read(2) of the device fd by a thread of the session, in its turn. A cancellation point. */
ssize_t leader_follower_read(int fd, void *buf, size_t size);
/* This thread's request will take long: another may read. */
void leader_follower_pass(void);
/* Likewise when there are more already; else thread tid, 0 if not known, is the only one to be served. */
void leader_follower_share(int fd, uint32_t tid);
/* This thread's request is answered by another, and who made it may go on meanwhile: it is better not in
 * the way, and not looked for either. */
void leader_follower_stream(void);
/* writev(2) of an answer. No lock may be held. */
ssize_t leader_follower_answer(int fd, const struct iovec *iov, int count);
#endif
