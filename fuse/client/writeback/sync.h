/* Chunks to stable storage. f->mu held by all of these, dropped while waiting; any thread but a loop thread. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_SYNC_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_SYNC_H
#include "client/file/cfile.h"

struct syncop;
/* Asks every copy of the chunks with unsynced bytes to sync; sealed_only: those that get no more
 * appends. NULL when there is nothing to do. The last answer applies what was learnt to the
 * chunks. mu is dropped while asking. */
struct syncop *sync_begin(struct cfile *f, bool sealed_only);
/* 0, or -ERR_FEW_COPIES when some chunk got too few synced copies; missing (or NULL): chunkds that did not.
 * Consumes op (NULL: 0). */
#define SYNC_MISSING 256u
int sync_wait(struct cfile *f, struct syncop *op, char missing[SYNC_MISSING]);
void sync_forget(struct syncop *op); /* nobody waits: the answers do their work anyway */
/* Before a file's first fsync: what was committed earlier, through other opens or by others, is
 * synced as well. What cannot be stays on the unsynced list. 0 or a code. */
int sync_committed(struct cfile *f, int64_t deadline);
/* Forgets chunks that are wholly synced and not in use. Does not drop mu. */
void sync_drop_done(struct cfile *f);
#endif
