/* Which computer this is. Any thread. */
#ifndef REPLFS_BASE_MACHINE_H
#define REPLFS_BASE_MACHINE_H
#include <stdint.h>
#define MACHINE_ID_MAX 64

/* The id of this computer, from /etc/machine-id. 0; -ENODATA: the file is empty or says "uninitialized"; or
 * -errno. out is "" then. */
int machine_id(char out[static MACHINE_ID_MAX]);
int machine_id_from(const char *path, char out[static MACHINE_ID_MAX]); /* for tests */
/* Another one each time this computer starts; the same in its containers. 0 or -errno, out "". */
int machine_boot_id(char out[static MACHINE_ID_MAX]);
/* Bytes of memory this process may use: those of the computer, or less when its cgroup or one above that has a lower
 * memory.max (Linux Documentation/admin-guide/cgroup-v2.rst). */
uint64_t machine_memory(void);
/* The lowest memory.max for a process that stands in the file own (as /proc/self/cgroup), in the tree at root;
 * UINT64_MAX: none. For tests. */
uint64_t machine_memory_from(const char *own, const char *root);
#endif
