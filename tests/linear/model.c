/* A state is an array of 16-bit numbers: for each name 1 + its file (0: nothing), then for each file its
 * inode and its content, both as the history's own small numbers (m->ino, m->value), then for each peek
 * 1 + the file that was seen, until its rename happened. All zero is the
 * empty directory; a file that was not made yet is zero, too. Two states are the same when their bytes
 * are. What the operations mean is told by the system calls that they stand for (history.h); where Linux
 * may answer one of two errors both are accepted. Pure: no clock, no chance, no threads. */
#include "model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- the state's parts ---- */

static uint16_t *ino_of(uint16_t *state, size_t file)
{
    return state + HISTORY_NAMES + 2 * file;
}
static uint16_t *value_of(uint16_t *state, size_t file)
{
    return state + HISTORY_NAMES + 2 * file + 1;
}
static unsigned links_of(const uint16_t *state, size_t file)
{
    unsigned n = 0;
    for (unsigned i = 0; i < HISTORY_NAMES; i++)
        n += state[i] == file + 1;
    return n;
}
/* The file with an inode; m->files: none has it yet. */
static size_t file_with(const struct model *m, uint16_t *state, uint16_t ino)
{
    if (ino && m->owner[ino])
        return *ino_of(state, m->owner[ino] - 1u) == ino ? m->owner[ino] - 1u : m->files;
    for (size_t f = 0; ino && f < m->files; f++)
        if (*ino_of(state, f) == ino)
            return f;
    return m->files;
}

/* ---- operations ---- */

static enum model_effect create(const struct model *m, size_t i, uint16_t *state)
{
    const struct op *op = &m->h->ops[i];
    uint16_t *name = &state[op->name[0]];
    if (op->error)
        return op->error == EEXIST && *name ? MODEL_NOTHING : MODEL_WRONG;
    if (*name)
        return MODEL_WRONG;
    if (m->ino[i] && file_with(m, state, m->ino[i]) != m->files)
        return MODEL_WRONG; /* two files of one number */
    *name = (uint16_t)(m->made[i] + 1);
    *ino_of(state, m->made[i]) = m->ino[i];
    return MODEL_CHANGED;
}

static enum model_effect look(const struct model *m, size_t i, uint16_t *state)
{
    const struct op *op = &m->h->ops[i];
    uint16_t file = state[op->name[0]];
    if (op->error)
        return op->error == ENOENT && !file ? MODEL_NOTHING : MODEL_WRONG;
    if (!file)
        return MODEL_WRONG;
    uint16_t *ino = ino_of(state, file - 1u);
    if (*ino == m->ino[i])
        return MODEL_NOTHING;
    if (*ino || m->owner[m->ino[i]] || file_with(m, state, m->ino[i]) != m->files)
        return MODEL_WRONG;
    *ino = m->ino[i]; /* so this is its number */
    return MODEL_CHANGED;
}

static enum model_effect unlink_name(const struct op *op, uint16_t *state)
{
    uint16_t *name = &state[op->name[0]];
    if (op->error)
        return op->error == ENOENT && !*name ? MODEL_NOTHING : MODEL_WRONG;
    if (!*name)
        return MODEL_WRONG;
    *name = 0;
    return MODEL_CHANGED;
}

static uint16_t *seen_by(const struct model *m, size_t i, uint16_t *state)
{
    return state + HISTORY_NAMES + 2 * m->files + (m->peek[i] - 1u);
}

enum model_effect model_peek(const struct model *m, size_t i, uint16_t *state)
{
    uint16_t file = state[m->h->ops[i].name[0]];
    if (!file)
        return MODEL_WRONG;
    *seen_by(m, i, state) = file;
    return MODEL_CHANGED;
}

/* rename, move and swap. */
static enum model_effect rename_name(const struct model *m, size_t i, uint16_t *state)
{
    const struct op *op = &m->h->ops[i];
    if (m->peek[i] && *seen_by(m, i, state)) {
        uint16_t seen = *seen_by(m, i, state);
        *seen_by(m, i, state) = 0;
        return seen == state[op->name[1]] ? MODEL_CHANGED : MODEL_WRONG;
    }
    uint16_t *from = &state[op->name[0]], *to = &state[op->name[1]], old = *from;
    if (op->error == EEXIST) /* whether the old name must be there, too, is the kernel's business */
        return op->kind == OP_MOVE && *to ? MODEL_NOTHING : MODEL_WRONG;
    if (op->error)
        return op->error == ENOENT && (!*from || (op->kind == OP_SWAP && !*to)) ? MODEL_NOTHING
                                                                                : MODEL_WRONG;
    if (!*from || (op->kind == OP_SWAP && !*to) || (op->kind == OP_MOVE && *to))
        return MODEL_WRONG;
    if (*from == *to)
        return MODEL_NOTHING;
    *from = op->kind == OP_SWAP ? *to : 0;
    *to = old;
    return MODEL_CHANGED;
}

static enum model_effect link_file(const struct model *m, size_t i, uint16_t *state)
{
    const struct op *op = &m->h->ops[i];
    uint16_t *name = &state[op->name[0]];
    size_t file = file_with(m, state, m->ino[i]);
    if (file == m->files)
        return MODEL_WRONG;
    bool alive = links_of(state, file) > 0;
    if (op->error == EEXIST)
        return *name ? MODEL_NOTHING : MODEL_WRONG;
    if (op->error)
        return (op->error == ENOENT || op->error == ESTALE) && !alive ? MODEL_NOTHING : MODEL_WRONG;
    if (*name || !alive)
        return MODEL_WRONG;
    *name = (uint16_t)(file + 1);
    return MODEL_CHANGED;
}

static enum model_effect write_file(const struct model *m, size_t i, uint16_t *state)
{
    size_t file = file_with(m, state, m->ino[i]);
    if (file == m->files || m->h->ops[i].error)
        return MODEL_WRONG;
    if (*value_of(state, file) == m->value[i])
        return MODEL_NOTHING;
    *value_of(state, file) = m->value[i];
    return MODEL_CHANGED;
}

static enum model_effect read_file(const struct model *m, size_t i, uint16_t *state)
{
    size_t file = file_with(m, state, m->ino[i]);
    if (file == m->files || m->h->ops[i].error || *value_of(state, file) != m->value[i])
        return MODEL_WRONG;
    return MODEL_NOTHING;
}

static enum model_effect stat_file(const struct model *m, size_t i, uint16_t *state)
{
    const struct op *op = &m->h->ops[i];
    size_t file = file_with(m, state, m->ino[i]);
    if (file == m->files)
        return MODEL_WRONG;
    unsigned links = links_of(state, file);
    if (op->error) /* a file that is gone and that nobody has open */
        return (op->error == ESTALE || op->error == ENOENT) && !links ? MODEL_NOTHING : MODEL_WRONG;
    uint32_t size = *value_of(state, file) ? HISTORY_SIZE : 0;
    return op->nlink == links && op->size == size ? MODEL_NOTHING : MODEL_WRONG;
}

enum model_effect model_step(const struct model *m, size_t i, uint16_t *state)
{
    const struct op *op = &m->h->ops[i];
    switch (op->kind) {
    case OP_CREATE:
        return create(m, i, state);
    case OP_OPEN:
    case OP_STAT:
        return look(m, i, state);
    case OP_UNLINK:
        return unlink_name(op, state);
    case OP_RENAME:
    case OP_MOVE:
    case OP_SWAP:
        return rename_name(m, i, state);
    case OP_LINK:
        return link_file(m, i, state);
    case OP_WRITE:
    case OP_SYNCED:
    case OP_EMPTY:
        return write_file(m, i, state);
    case OP_READ:
        return read_file(m, i, state);
    case OP_FSTAT:
        return stat_file(m, i, state);
    case OP_KINDS:
        break;
    }
    return MODEL_WRONG;
}

/* ---- small numbers ---- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* key[i] -> 1 + its place among the different ones; 0 stays 0. */
static void number_all(const uint64_t *key, uint16_t *out, size_t n)
{
    uint64_t *sorted = calloc(n + 1, sizeof *sorted);
    size_t distinct = 0;
    if (!sorted)
        abort();
    memcpy(sorted, key, n * sizeof *key);
    qsort(sorted, n, sizeof *sorted, by_number);
    for (size_t i = 0; i < n; i++)
        if (sorted[i] && (!distinct || sorted[i] != sorted[distinct - 1]))
            sorted[distinct++] = sorted[i];
    for (size_t i = 0; i < n; i++) {
        const uint64_t *p = bsearch(&key[i], sorted, distinct, sizeof *sorted, by_number);
        out[i] = key[i] && p ? (uint16_t)(p - sorted + 1) : 0;
    }
    free(sorted);
}

void model_open(struct model *m, const struct history *h)
{
    uint64_t *key = calloc(h->n + 1, sizeof *key);
    *m = (struct model){.h = h,
                        .made = calloc(h->n + 1, sizeof *m->made),
                        .ino = calloc(h->n + 1, sizeof *m->ino),
                        .peek = calloc(h->n + 1, sizeof *m->peek),
                        .value = calloc(h->n + 1, sizeof *m->value),
                        .owner = calloc(h->n + 2, sizeof *m->owner)};
    if (!key || !m->made || !m->peek || !m->ino || !m->value || !m->owner)
        abort();
    for (size_t i = 0; i < h->n; i++)
        key[i] = h->ops[i].ino;
    number_all(key, m->ino, h->n);
    for (size_t i = 0; i < h->n; i++)
        key[i] = h->ops[i].value;
    number_all(key, m->value, h->n);
    for (size_t i = 0; i < h->n; i++) {
        const struct op *op = &h->ops[i];
        if ((op->kind == OP_RENAME || op->kind == OP_SWAP) && !op->error && !op->unknown)
            m->peek[i] = (uint16_t)++m->peeks;
        if (op->kind != OP_CREATE || op->error)
            continue;
        m->made[i] = (uint16_t)m->files++;
        if (m->ino[i] && !op->unknown && !m->owner[m->ino[i]]) /* no number is given twice */
            m->owner[m->ino[i]] = (uint16_t)(m->made[i] + 1);
    }
    m->width = HISTORY_NAMES + 2 * m->files + m->peeks;
    free(key);
}

void model_close(struct model *m)
{
    free(m->made);
    free(m->ino);
    free(m->peek);
    free(m->value);
    free(m->owner);
    *m = (struct model){0};
}

void model_start(const struct model *m, uint16_t *state)
{
    memset(state, 0, m->width * sizeof *state);
}

/* ---- for people ---- */

static uint64_t ino_meant(const struct model *m, uint16_t number)
{
    for (size_t i = 0; i < m->h->n; i++)
        if (number && m->ino[i] == number)
            return m->h->ops[i].ino;
    return 0;
}
static uint32_t value_meant(const struct model *m, uint16_t number)
{
    for (size_t i = 0; i < m->h->n; i++)
        if (number && m->value[i] == number)
            return m->h->ops[i].value;
    return 0;
}

void model_print(const struct model *m, const uint16_t *state, FILE *out)
{
    for (unsigned i = 0; i < HISTORY_NAMES; i++) {
        const uint16_t *f = state + HISTORY_NAMES + 2 * (size_t)(state[i] - 1);
        if (state[i])
            fprintf(out, "%s%c: file %" PRIu64 " with content %" PRIu32, i ? ", " : "", 'a' + i,
                    ino_meant(m, f[0]), value_meant(m, f[1]));
        else
            fprintf(out, "%s%c: nothing", i ? ", " : "", 'a' + i);
    }
    fputc('\n', out);
}
