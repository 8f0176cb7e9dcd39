/* A history: what clients of one small directory asked, when, and what they were told. Kept as text, one
 * operation a line, so that people can read, cut and edit it:
 *
 *     CLIENT INVOKED RETURNED OPERATION ARGUMENTS = RESULT
 *
 *     3 10523 11890 create a = ok 281474976710657
 *     3 11910 13200 write 281474976710657 17 = ok
 *     0 12011 12040 rename a b = ENOENT
 *     1 12500 - unlink c = ?
 *
 * Times are nanoseconds of one clock. "?" is an operation of which nobody knows whether it happened: it
 * failed in a way that leaves that open (EIO, ETIMEDOUT), or never returned; it may happen at any time
 * after it was asked for, or never. Lines that begin with # are comments. Files are known by their
 * inode numbers; "ok 0" of a create says that the number could not be asked for.
 *
 * Not thread-safe: a history has one owner. */
#ifndef LINEAR_HISTORY_H
#define LINEAR_HISTORY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define HISTORY_NAMES 3u    /* a, b and c */
#define HISTORY_OPS 4096u   /* at most */
#define HISTORY_CLIENTS 64u /* at most */
#define HISTORY_NEVER UINT64_MAX
#define HISTORY_TORN UINT32_MAX /* a content that nobody wrote: printed as "torn" */
#define HISTORY_SIZE 64u        /* bytes of a file that has a content; an empty one has none */

/* What the model has to know of each operation: its word, how many names it takes, whether it takes a
 * file, whether a content is part of the question, what comes with "ok", and whether it can change
 * anything (one that cannot and whose answer is unknown says nothing, and is left out). */
enum history_answer {
    ANSWER_NOTHING,
    ANSWER_INO,   /* which file that is */
    ANSWER_VALUE, /* its content: the number of the write, 0 when empty */
    ANSWER_ATTRS, /* its count of names and its size */
};
#define HISTORY_KINDS(X)                                                                           \
    /* open(O_CREAT | O_EXCL) */                                                                   \
    X(CREATE, "create", 1, false, false, ANSWER_INO, true)                                         \
    /* open(2), stat(2): which file has this name */                                               \
    X(OPEN, "open", 1, false, false, ANSWER_INO, false)                                            \
    X(STAT, "stat", 1, false, false, ANSWER_INO, false)                                            \
    X(UNLINK, "unlink", 1, false, false, ANSWER_NOTHING, true)                                     \
    /* rename(2); renameat2(2) with RENAME_NOREPLACE, RENAME_EXCHANGE */                           \
    X(RENAME, "rename", 2, false, false, ANSWER_NOTHING, true)                                     \
    X(MOVE, "move", 2, false, false, ANSWER_NOTHING, true)                                         \
    X(SWAP, "swap", 2, false, false, ANSWER_NOTHING, true)                                         \
    /* linkat(2) of an open file */                                                                \
    X(LINK, "link", 1, true, false, ANSWER_NOTHING, true)                                          \
    /* pwrite(2) of the whole content; followed by fsync(2); ftruncate(2) to nothing */            \
    X(WRITE, "write", 0, true, true, ANSWER_NOTHING, true)                                         \
    X(SYNCED, "synced", 0, true, true, ANSWER_NOTHING, true)                                       \
    X(EMPTY, "empty", 0, true, false, ANSWER_NOTHING, true)                                        \
    X(READ, "read", 0, true, false, ANSWER_VALUE, false)                                           \
    X(FSTAT, "fstat", 0, true, false, ANSWER_ATTRS, false)
enum history_kind {
#define X(id, word, names, file, value, answer, changes) OP_##id,
    HISTORY_KINDS(X)
#undef X
        OP_KINDS
};
struct history_shape {
    const char *word;
    uint8_t names;
    bool file, value, changes;
    enum history_answer answer;
};
extern const struct history_shape history_shapes[OP_KINDS];

struct op {
    enum history_kind kind;
    uint8_t client;
    uint8_t name[2]; /* 0.. */
    bool unknown;    /* whether it happened */
    int error;       /* that it failed with, 0: none */
    uint64_t ino;    /* asked for, or answered */
    uint32_t value;  /* likewise; HISTORY_TORN */
    uint32_t nlink, size;
    uint64_t invoked, returned; /* HISTORY_NEVER when unknown */
};
struct history {
    struct op *ops;
    size_t n, room;
};

/* Adds a copy of op. Memory is never short in here: the process ends then. */
void history_add(struct history *h, const struct op *op);
/* In the order in which they were asked for. */
void history_sort(struct history *h);
/* Reads all of in; false with a message in err, which names the line, when that is no history. */
bool history_read(struct history *h, FILE *in, char *err, size_t size);
void history_write(const struct history *h, FILE *out);
/* One line, without its end. */
void history_write_op(const struct op *op, FILE *out);
void history_copy(struct history *to, const struct history *from); /* to: empty */
void history_free(struct history *h);                              /* leaves an empty one */
#endif
