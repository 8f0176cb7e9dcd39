/* What the files under test should contain.
 *
 * A model is plain memory of the greatest size. Invariant: every byte from size on is zero, so that
 * growing reveals zeros without further work.
 *
 * What is written is a pattern: the aligned 8-byte words of a file are an invertible function of
 * (number of the operation, position), so that report.c can say of wrong bytes who wrote them and
 * where they belong. */
#include <stdlib.h>
#include <string.h>

#include "exerciser.h"
#include "pattern.h"

void model_init(struct exerciser *x)
{
    for (unsigned i = 0; i < FILES; i++) {
        x->file[i].fd = x->file[i].append_fd = -1;
        x->file[i].model = calloc(1, x->o.size);
        if (!x->file[i].model)
            abort();
    }
    if (posix_memalign((void **)&x->buf, PAGE, x->o.size + PAGE))
        abort();
}

void pattern(uint8_t *out, uint64_t op, uint64_t off, uint64_t len)
{
    for (uint64_t end = off + len; off < end;) {
        uint64_t word = pattern_word(op, off / 8), skip = off % 8;
        uint64_t n = 8 - skip < end - off ? 8 - skip : end - off;
        memcpy(out, (const uint8_t *)&word + skip, n);
        out += n;
        off += n;
    }
}

void model_write(struct xfile *f, const uint8_t *data, uint64_t off, uint64_t len)
{
    memcpy(f->model + off, data, len);
    if (len && off + len > f->size)
        f->size = off + len;
}

void model_zero(struct xfile *f, uint64_t off, uint64_t len)
{
    uint64_t end = off + len < f->size ? off + len : f->size;
    if (off < end)
        memset(f->model + off, 0, end - off);
}

void model_resize(struct xfile *f, uint64_t size)
{
    if (size < f->size)
        memset(f->model + size, 0, f->size - size);
    f->size = size;
}

void model_copy(struct xfile *to, uint64_t to_off, const struct xfile *from, uint64_t off,
                uint64_t len)
{
    memmove(to->model + to_off, from->model + off, len);
    if (len && to_off + len > to->size)
        to->size = to_off + len;
}

void model_check(struct exerciser *x, struct xfile *f, const char *how, const uint8_t *got,
                 uint64_t off, uint64_t n)
{
    if (!n || !memcmp(got, f->model + off, n))
        return;
    show_difference(got, f->model + off, off, n);
    fail(x, "%s: %s of %llu bytes at %llu differs from what was written", f->name, how,
         (unsigned long long)n, (unsigned long long)off);
}
