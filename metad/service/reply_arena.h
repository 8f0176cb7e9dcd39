/* Memory for building one reply: many small allocations, one release. Zeroed; aborts when memory is
 * exhausted (no caller can go on). Not thread-safe. */
#ifndef REPLFS_METAD_PILE_H
#define REPLFS_METAD_PILE_H
#include <stddef.h>

struct pile_block;
struct pile {
    struct pile_block *head;
};
/* All zero is an empty pile. */
void *pile_alloc(struct pile *p, size_t size);
void *pile_copy(struct pile *p, const void *data, size_t size);
char *pile_string(struct pile *p, const void *text, size_t len); /* with NUL behind */
void pile_free(struct pile *p);                                  /* for cleanup attribute, too */
#endif
