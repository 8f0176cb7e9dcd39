/* Which computer this is. Any thread. */
#ifndef REPLFS_BASE_MACHINE_H
#define REPLFS_BASE_MACHINE_H
#define MACHINE_ID_MAX 64

/* The id of this computer, from /etc/machine-id. 0; -ENODATA: the file is empty or says "uninitialized"; or
 * -errno. out is "" then. */
int machine_id(char out[static MACHINE_ID_MAX]);
int machine_id_from(const char *path, char out[static MACHINE_ID_MAX]); /* for tests */
/* Another one each time this computer starts; the same in its containers. 0 or -errno, out "". */
int machine_boot_id(char out[static MACHINE_ID_MAX]);
#endif
