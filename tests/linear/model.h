/* The directory as it should behave: a pure step function over a state of a few numbers, so that states can
 * be compared byte by byte.
 *
 * Three names, each of which is a file or nothing; a file has one content (a number, 0: empty), an inode
 * number and as many links as names are it. Files without a name live on, since somebody may have them open.
 *
 * A create whose answer nobody saw makes a file whose inode number is not known. The first answer that
 * names a number which no other create gave says that it was this file's: from then on it is.
 *
 * rename(2) of one name of a file to another of the same file succeeds and does nothing. That is decided
 * by the kernel before it asks the file system, and it looks at one name after the other: the two may
 * have been one file's at different moments only. No file system of several computers can help that, so it
 * is no violation: for every rename and swap that succeeded there is a step of its own, model_peek, the
 * look at the first name, which may come before; then the second name must be the file seen. */
#ifndef LINEAR_MODEL_H
#define LINEAR_MODEL_H
#include "history.h"

struct model {
    const struct history *h;
    size_t files;    /* that the history may make: one a create */
    size_t peeks;    /* operations that can be peeked for */
    uint16_t *peek;  /* operation -> 1 + which of them; 0: none */
    uint16_t *made;  /* operation -> its file, of a create */
    uint16_t *ino;   /* operation -> number of its inode, from 1; 0: none */
    uint16_t *value; /* operation -> number of its content, from 1; 0: empty */
    uint16_t
        *owner;   /* number of an inode -> 1 + the file of the create that answered it; 0: none */
    size_t width; /* numbers in a state */
};

enum model_effect {
    MODEL_WRONG,   /* that cannot happen in this state */
    MODEL_NOTHING, /* it can, and leaves the state as it is */
    MODEL_CHANGED,
};

/* For the checked history, which stays as it is while the model lives. */
void model_open(struct model *m, const struct history *h);
void model_close(struct model *m);
/* The state before the first operation: an empty directory. state: m->width numbers. */
void model_start(const struct model *m, uint16_t *state);
/* Lets operation i happen with the answer that it got; one whose answer is unknown succeeds. What state
 * holds after MODEL_WRONG means nothing. */
enum model_effect model_step(const struct model *m, size_t i, uint16_t *state);
/* The first look of operation i, which has a peek, at a moment before it. */
enum model_effect model_peek(const struct model *m, size_t i, uint16_t *state);
/* One line for people: which file each name is, with its inode number and content. */
void model_print(const struct model *m, const uint16_t *state, FILE *out);
#endif
