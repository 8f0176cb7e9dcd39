/* Data directories that nobody but their owner can look into. */
#ifndef REPLFS_BASE_PRIVATE_H
#define REPLFS_BASE_PRIVATE_H
#include <stddef.h>
#include <stdio.h>

/* Makes dir 0700 and what is in it of these names (prefixes; a list that ends with NULL) 0600, directories
 * 0700, where they are wider; a warning says so. 0, or -errno: it cannot be done, and an error line has said
 * what to do when that is a matter of rights. Any thread. */
int private_dir(const char *dir, const char *const *names);

/* A new, empty file of mode 0600 to be written, in place of what had the name; NULL with errno. The caller
 * closes it. Any thread. */
FILE *private_create(const char *path);

/* Makes dir/name a file of mode 0600 with these bytes, on stable storage before it takes the place of what had the name:
 * after a power cut it has the former bytes or these. The bytes are first in dir/name.new. 0 or -errno. Any thread. */
int private_replace(const char *dir, const char *name, const void *bytes, size_t len);
#endif
