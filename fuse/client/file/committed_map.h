/* The committed extents of an open file and where their chunks are. All of these: f->mu held; nothing waits. */
#ifndef REPLFS_FUSE_CLIENT_FILE_COMMITTED_MAP_H
#define REPLFS_FUSE_CLIENT_FILE_COMMITTED_MAP_H
#include "client/file/cfile.h"

/* Forgets the map, and what was read ahead by it; where chunks being written are stays known. Raises map_gen. */
void map_drop(struct cfile *f);
/* Takes what a layout says; ignored unless gen is still f->map_gen. */
void map_take(struct cfile *f, const Replfs__LayoutReply *r, uint64_t gen);
/* Remembers where the copies of a chunk are, in place of what was known of it. */
void map_add_loc(struct cfile *f, const struct cloc *l);
#endif
