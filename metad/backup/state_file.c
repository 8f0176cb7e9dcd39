/* A state file that is open stays readable when metad removes it from its directory. */
#include "state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "metad/log/mlog.h"

int state_file_open(const char *dir, uint64_t index, uint64_t size, uint32_t crc,
                    struct state_file **out)
{
    char path[MLOG_PATH_MAX];
    int rc = mlog_ckpt_path(path, sizeof(path), dir, index);

    *out = NULL;
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct state_file *f = malloc(sizeof(*f));
    if (!f)
        abort();
    *f = (struct state_file){.index = index, .size = size, .crc = crc, .fd = fd};
    atomic_init(&f->refs, 1);
    *out = f;
    return 0;
}

struct state_file *state_file_ref(struct state_file *f)
{
    if (f)
        atomic_fetch_add(&f->refs, 1);
    return f;
}

void state_file_unref(struct state_file *f)
{
    if (!f || atomic_fetch_sub(&f->refs, 1) != 1)
        return;
    close(f->fd);
    free(f);
}

int state_file_read(const struct state_file *f, uint64_t offset, void *out, size_t len)
{
    char *p = out;

    while (len > 0) {
        ssize_t n = pread(f->fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}
