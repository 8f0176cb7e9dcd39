/* Histories made up: of clients that use a directory which behaves, or which has one fault. */
#ifndef LINEAR_GEN_H
#define LINEAR_GEN_H
#include "history.h"

enum gen_fault {
    GEN_FINE,
    GEN_STALE,   /* one answer tells of a state from before its question */
    GEN_LOST,    /* one change is acknowledged and not made */
    GEN_DOUBLED, /* one change is made a second time, after it was answered */
    GEN_REORDERED, /* one change is made only after a later one, although it was answered before that */
    GEN_FAULTS
};
struct gen_options {
    uint64_t seed;
    unsigned clients; /* 1 to HISTORY_CLIENTS */
    unsigned ops;     /* before the last look that each client takes at everything */
    unsigned unknown; /* so many of 1000 operations get no answer */
    enum gen_fault fault;
    bool last_look;
};
/* Adds to the empty history h, sorted. False when the fault had no opportunity: then the history is fine.
 * Equal options make equal histories. */
bool gen_history(const struct gen_options *o, struct history *h);
#endif
