/* A state file (checkpoint) of metad that is read while newer ones are made: open, and counted. Any thread. */
#ifndef REPLFS_METAD_BACKUP_STATE_FILE_H
#define REPLFS_METAD_BACKUP_STATE_FILE_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct state_file {
    atomic_uint refs;
    uint64_t index, size;
    uint32_t crc; /* CRC32C of all of it */
    int fd;
};
/* The state file of that index in metad's data directory, with one reference. 0 or -errno. */
int state_file_open(const char *dir, uint64_t index, uint64_t size, uint32_t crc,
                    struct state_file **out);
struct state_file *state_file_ref(struct state_file *f); /* NULL stays NULL */
void state_file_unref(struct state_file *f);             /* NULL is fine */
/* len bytes at offset. 0; -EIO: it ends before; -errno. Blocks. */
int state_file_read(const struct state_file *f, uint64_t offset, void *out, size_t len);
#endif
