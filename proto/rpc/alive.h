/* Does the peer of a connection live? What is to be done is decided here, and done in conn.c. Pure, but for the caller's
 * struct; one thread. All times are clock_mono ns. */
#ifndef REPLFS_RPC_ALIVE_H
#define REPLFS_RPC_ALIVE_H
#include <stdbool.h>
#include <stdint.h>

struct alive {
    int64_t heard; /* when bytes came last: the caller's to set */
    /* while the peer is asked for a sign of life; private */
    int64_t since; /* 0: it is not */
    int64_t moved; /* it took some of what it has to read first */
    uint64_t put, ahead;
};
struct alive_now {
    int64_t now, due;     /* due: when the caller was to look */
    int64_t silent;       /* so long may the peer be silent; > 0 */
    uint64_t put, queued; /* bytes ever sent; those that the peer has not taken yet */
    bool waits;           /* something of ours is not answered */
    bool paused;          /* we do not read just now */
    bool readable;        /* there is something to read */
};
enum alive_todo {
    ALIVE_NOTHING, /* look at *next */
    ALIVE_REST,    /* nobody waits: no need to look until somebody does */
    ALIVE_ASK,     /* send a Ping, unless one is out; then alive_asked; look at *next */
    ALIVE_DEAD,
};
enum alive_todo alive_look(struct alive *a, const struct alive_now *n, int64_t *next);
/* A Ping is in what was sent: put and queued as after it. */
void alive_asked(struct alive *a, int64_t now, uint64_t put, uint64_t queued);
/* When to look, as somebody begins to wait. */
int64_t alive_first(int64_t now, int64_t silent);
#endif
