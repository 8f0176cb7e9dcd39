/* The lease cache and our own changes: what a change that metad answered leaves known, and directories that are
 * ours alone, which are changed here first. Thread-safe, the cache's own mutex; a file's mu may be held. */
#ifndef REPLFS_FUSE_CLIENT_CACHE_LEASE_CACHE_CHANGE_H
#define REPLFS_FUSE_CLIENT_CACHE_LEASE_CACHE_CHANGE_H
#include "client/cache/lease_cache.h"

bool lease_cache_hold(struct lease_cache *l, struct lease_request *h, uint64_t begun, uint64_t ino);
/* An answer to a request from then may be older than a recall or a change of ours. */
bool lease_cache_crossed(struct lease_cache *l, uint64_t begun, uint64_t ino);
/* All n entries of the directory were put, from answers to requests since begun. */
void lease_cache_listed(struct lease_cache *l, uint64_t begun, uint64_t dir, size_t n);
/* Around a change of ours on its way to metad, which lets others see it before its answer is here: what we know under a
 * shared lease of the inodes and directories that it touches counts for nothing meanwhile, and the kernel is told to ask.
 * begin may sleep as lease_cache_inval may; end comes after lease_cache_mutated. change: the caller's, all zero at
 * first. */
#define LEASE_CHANGE_MAX 8u
struct lease_change {
    uint64_t ino[LEASE_CHANGE_MAX]; /* more than these are not protected */
    unsigned n;
};
void lease_cache_change_begin(struct lease_cache *l, struct lease_change *change,
                              const Replfs__MetaOp *op);
void lease_cache_change_end(struct lease_cache *l, struct lease_change *change);
/* After a change of ours: res NULL when it is not known whether it happened. */
void lease_cache_mutated(struct lease_cache *l, uint64_t begun, const Replfs__MetaOp *op,
                         const Replfs__MutationResult *res);

/* ---- directories that are ours alone: changed here first ---- */

/* Others wanted the directory a few seconds ago: better share it. */
bool lease_cache_contested(struct lease_cache *l, uint64_t dir);
/* True: the directory is ours alone, *attr is how it is, and it has no such name; a recall of it
 * waits until lease_cache_unhold, before which nothing may wait. */
bool lease_cache_hold_new(struct lease_cache *l, struct lease_request *h, uint64_t dir,
                          const void *name, size_t len, Replfs__Attr *attr);
/* The same for a name that exists, to remove it. ino: what it names, with no other name, or an
 * empty directory. ASK: not, but it might be ours alone for the asking (lease_cache_alone), from cookie
 * on. */
enum lease_cache_hold { LEASE_CACHE_HOLD_NO, LEASE_CACHE_HOLD_YES, LEASE_CACHE_HOLD_ASK };
enum lease_cache_hold lease_cache_hold_old(struct lease_cache *l, struct lease_request *h,
                                           uint64_t dir, const void *name, size_t len, bool is_dir,
                                           Replfs__Attr *attr, uint64_t *ino, uint64_t *cookie);
/* The answer to a LeaseReq for a directory and what is in it. */
void lease_cache_alone(struct lease_cache *l, uint64_t begun, const Replfs__LeaseReply *r);
void lease_cache_unhold(struct lease_cache *l, struct lease_request *h);
/* The directory has the name now, for a. dir: how it is with it. */
void lease_cache_created(struct lease_cache *l, const ProtobufCBinaryData *name,
                         const Replfs__Attr *dir, const Replfs__Attr *a);
/* It has the name of ino no more. */
void lease_cache_removed(struct lease_cache *l, const ProtobufCBinaryData *name,
                         const Replfs__Attr *dir, uint64_t ino);
/* metad did one of these; r: its answer. */
void lease_cache_settled(struct lease_cache *l, const Replfs__MutationResult *r);
/* A directory as it is, where a is how metad last saw it; false: a stays. */
bool lease_cache_overlay(struct lease_cache *l, Replfs__Attr *a);
/* The attributes of all directories are asked for again. */
void lease_cache_doubt(struct lease_cache *l);
#endif
