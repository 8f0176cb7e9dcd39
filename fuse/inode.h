/* What this mount remembers of inodes: the `change` each file had when it was last opened here,
 * which decides whether the kernel may keep its cached pages. Bounded; forgetting only costs speed.
 * Any thread. */
#ifndef REPLFS_FUSE_INODE_H
#define REPLFS_FUSE_INODE_H
#include <stdbool.h>
#include <stdint.h>

struct inode_table;
struct inode_table *inode_table_new(void);
void inode_table_free(struct inode_table *t);
/* Records that ino is being opened with `change`. True when that is what the table held already:
 * pages read since then are those of the same contents. */
bool inode_seen(struct inode_table *t, uint64_t ino, uint64_t change);
/* The same of a directory: what is listed now is good until `until`, unless it is what was listed
 * before and is good beyond `beyond` (true). Times as of one clock, ns. */
bool inode_listed(struct inode_table *t, uint64_t ino, uint64_t change, int64_t beyond,
                  int64_t until);
#endif
