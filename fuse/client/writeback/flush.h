/* flush and fsync of one file: cfile_flush, cfile_fsync and client_flush_ino of client.h, and what others need. No
 * lock held unless said otherwise; any thread but a loop thread. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_FLUSH_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_FLUSH_H
#include "client/file/cfile.h"

/* ACCEPTED: every copy has the bytes, and metad knows or will before anybody else can look. COMMIT:
 * metad knows. SYNC: all on stable storage. */
enum flush_how { FLUSH_ACCEPTED = 1, FLUSH_COMMIT, FLUSH_SYNC };
/* 0 or a code; report: also an error of the background, which counts as told then. */
int flush_file(struct cfile *f, enum flush_how how, bool report);
/* What was closed without waiting: with metad now. */
void flush_closed(struct client *c);
/* Of several files, the last of which ended with rc: is there anything in waiting for the next? */
bool flush_waits(struct client *c, int rc);
/* Nobody else can see the file: the bytes below target are committed by and by, without hurry. False: they are
 * not. f->mu held, perhaps dropped meanwhile; does not wait. */
bool flush_deferred(struct cfile *f, uint64_t target);
#endif
