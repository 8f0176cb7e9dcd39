/* Private to reading: one round of a read, cut into segments that are asked for at once. */
#ifndef REPLFS_FUSE_CLIENT_IO_READ_ROUND_H
#define REPLFS_FUSE_CLIENT_IO_READ_ROUND_H
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/io/async_reply.h"
#include "base/lock.h"

struct answer;
struct readseg {
    struct cloc loc;
    uint32_t off, len;
    size_t dest; /* in the output */
    uint32_t order[COPIES_MAX];
    uint32_t next; /* of order, to be asked */
    unsigned pending;
    bool done;
    int code;         /* of the last failure */
    bool unreachable; /* some copy did not answer */
    int64_t hedge_at;
};
struct read_round {
    struct client *c;
    uint64_t ino, session;
    struct lock mu; /* a leaf: refs, answers, handling */
    struct cond cv;
    unsigned refs;
    struct answer *answers; /* that came, not looked at */
    void (*answered)(
        struct read_round *op); /* on a loop thread, after each; NULL: somebody waits */

    /* of the thread that looks at the answers, one thread at a time */
    size_t nsegs, capsegs;
    struct readseg *segs;
    struct buf *out;
    size_t len;
    unsigned try_ms;
    bool stale;                              /* a chunk without location, */
    bool unsure;                             /* and not because no chunkd has it; */
    uint64_t lost_chunk, lost_off, lost_len; /* the last one, and bytes of the file */

    /* where nobody waits (read.c): */
    struct async_reply async;
    bool handling; /* some thread looks at the answers */
    cfile_read_fn *done;
    void *arg;
    struct cfile *f; /* referenced */
    uint64_t off, map_gen;
    int64_t deadline;
};

/* One reference; NULL: out of memory. */
struct read_round *read_round_new(struct cfile *f);
struct read_round *read_round_ref(struct read_round *op);
void read_round_unref(struct read_round *op);
/* Fills op for [off, off+len), shortened at the end of the file. f->mu held, dropped while metad is
 * asked, until the deadline. op->stale: a chunk has no location. 0 or a code. */
int read_round_plan(struct cfile *f, struct read_round *op, uint64_t off, size_t len,
                    int64_t deadline);
/* Asks for all segments. */
void read_round_start(struct read_round *op);
/* How many segments are not done; those that have waited long are asked of another copy, too. *wake
 * becomes when that will be due next, if that is sooner. */
size_t read_round_left(struct read_round *op, int64_t now, int64_t *wake);
/* Those that came since; they are then to be handled. */
struct answer *read_round_answers(struct read_round *op); /* mu held */
void read_round_handle(struct read_round *op, struct answer *list);
/* 0 or the worst code, of segments that are done. */
int read_round_code(const struct read_round *op);
/* Waits until each segment is done, well or not. 0 or the worst code. */
int read_round_wait(struct read_round *op);
#endif
