/* How the lower files of the write path tell the upper ones that something may go on. Set before the client works
 * (lifecycle/events.c). */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_EVENTS_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_EVENTS_H
#include "client/file/cfile.h"

struct writeback_events {
    /* Bytes at the head of f were acknowledged, or are safe now: they may be committed. f->mu held, perhaps dropped
     * meanwhile; must not wait. */
    void (*may_commit)(struct cfile *f);
    /* A last answer came while closes wait for it. No lock held; must not wait. */
    void (*acknowledged)(struct cfile *f);
};
#endif
