/* Memory for building one reply: many small allocations, one release. Zeroed; aborts when memory is
 * exhausted (no caller can go on). Not thread-safe. */
#ifndef REPLFS_METAD_SERVICE_REPLY_ARENA_H
#define REPLFS_METAD_SERVICE_REPLY_ARENA_H
#include <stddef.h>

struct reply_arena_block;
struct reply_arena {
    struct reply_arena_block *head;
};
/* All zero is an empty arena. */
void *reply_arena_alloc(struct reply_arena *p, size_t size);
void *reply_arena_copy(struct reply_arena *p, const void *data, size_t size);
char *reply_arena_string(struct reply_arena *p, const void *text, size_t len); /* with NUL behind */
void reply_arena_free(struct reply_arena *p); /* for cleanup attribute, too */
#endif
