/* Clones, fallocate, and holes as lseek(2) sees them. */
#include "internal.h"
#include <errno.h>

int cfile_clone(struct cfile *src, uint64_t src_off, struct cfile *dst, uint64_t dst_off,
                uint64_t len, uint64_t *done)
{
    (void)src, (void)src_off, (void)dst, (void)dst_off, (void)len;
    *done = 0;
    return -EOPNOTSUPP;
}

int cfile_fallocate(struct cfile *f, int mode, uint64_t off, uint64_t len, bool kill_suid)
{
    (void)f, (void)mode, (void)off, (void)len, (void)kill_suid;
    return -EOPNOTSUPP;
}

int cfile_seek(struct cfile *f, uint64_t off, bool hole, uint64_t *out)
{
    (void)f, (void)off, (void)hole, (void)out;
    return -EOPNOTSUPP;
}
