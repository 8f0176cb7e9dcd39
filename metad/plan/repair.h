/* What to do next for a chunk so that it gets exactly as many copies as its goal, on distinct
 * computers: a pure planner. State in, one decision out; the caller carries it out and asks again.
 * Any thread. */
#ifndef REPLFS_METAD_PLAN_REPAIR_H
#define REPLFS_METAD_PLAN_REPAIR_H
#include "placement.h"

#define REPAIR_COPIES_MAX 32 /* of one chunk looked at; more come into view as surplus goes */
#define REPAIR_SOURCES_MAX 4

/* The values of enum copy_state in nodes.h (asserted in nodes.c); the planner knows no other
 * header. */
enum repair_state {
    REPAIR_OK = 0,
    REPAIR_SHORT = 1,    /* reported with fewer bytes than committed: its length must be checked */
    REPAIR_BAD = 2,      /* known to be damaged or short */
    REPAIR_CHECKING = 3, /* a reader doubted it: every byte must be checked */
    REPAIR_DOOMED = 4,   /* a delete was sent, its outcome is not known */
};
struct repair_copy {
    uint32_t chunkd;
    uint8_t disk;
    uint8_t state; /* enum repair_state */
    bool precious; /* bad, but may have bytes that no other copy has: stays */
    /* in the chunk's present round of decisions: */
    bool verified;     /* its length was checked */
    bool proven;       /* every byte of it was read */
    uint32_t good_len; /* of a bad one: bytes known to be good at its beginning */
};
struct repair_chunk {
    uint32_t len;
    uint8_t goal;
    bool writing; /* its writer extended it moments ago */
    uint8_t n;
    struct repair_copy copy[REPAIR_COPIES_MAX];
};
struct repair_ctx {
    struct placement_table t;
    unsigned hosts_up; /* placement_hosts_up(), made once for many decisions */
    bool incomplete;   /* a member that is not dead has not told what it has */
    bool unreported;   /* some member, dead or not, has never told what it has */
    uint64_t seed;
};

enum repair_kind {
    REPAIR_KIND_REPAIR,
    REPAIR_KIND_MOVE,
    REPAIR_KIND_DROP,
    REPAIR_KIND_VERIFY,
    REPAIR_KINDS
};
extern const char *const repair_kind_name[REPAIR_KINDS];

/* Copies counted by what they are worth now. */
struct repair_tally {
    unsigned good;    /* ok on a chunkd that is up or suspect */
    unsigned good_up; /* of these on one that is up */
    unsigned hosts;   /* distinct computers among good */
    unsigned rescue;  /* ok on a disk that can only be read, of a chunkd that is up */
    unsigned unsure;  /* to be checked, on a chunkd that is up */
    unsigned waste;   /* bad or doomed, on a chunkd that is up */
    /* not bad, not to be rescued, on a chunkd that is dead, suspect with doubts, or a failed disk */
    unsigned away;
    unsigned forgettable; /* on a chunkd that is dead */
};
void repair_tally(const struct repair_ctx *x, const struct repair_chunk *c,
                  struct repair_tally *out);
/* Nothing to do, now or when more computers come: goal reached exactly, on distinct computers. */
bool repair_satisfied(const struct repair_ctx *x, const struct repair_chunk *c);
/* Queue class (0 most urgent .. REPAIR_PRIO_MAX - 1) and kind of work a chunk needs; false when
 * none, or none that could be done with the computers that are up. bytes: to be moved, for the
 * queue's statistics. */
#define REPAIR_PRIO_MAX 10
bool repair_classify(const struct repair_ctx *x, const struct repair_chunk *c, unsigned *prio,
                     enum repair_kind *kind, uint64_t *bytes);

enum repair_act {
    REPAIR_NONE,   /* satisfied */
    REPAIR_COPY,   /* copy to target from sources; replaces target's own copy when it has one */
    REPAIR_VERIFY, /* have target check its copy */
    REPAIR_DROP,   /* delete target's copy */
    /* strike target's copy from the list: its chunkd is dead and the goal is reached without it */
    REPAIR_FORGET,
    REPAIR_KEEP,  /* no whole copy: make do with the first keep_len bytes, then ask again */
    REPAIR_BUSY,  /* could go on but for the bound of running jobs */
    REPAIR_LATER, /* ask again in a few seconds */
    REPAIR_WAIT,  /* until a chunkd comes, goes, or gets room: why says what for */
    REPAIR_LOST,  /* no good copy anywhere */
};
struct repair_decision {
    enum repair_act act;
    enum repair_kind kind;
    uint32_t target;
    uint32_t keep_len;
    bool quick;    /* verify: length only */
    bool in_place; /* copy: over target's bad copy */
    unsigned nsrc;
    uint32_t src[REPAIR_SOURCES_MAX]; /* best first */
    const char *why;                  /* for people; never NULL */
};
void repair_decide(const struct repair_ctx *x, const struct repair_chunk *c,
                   struct repair_decision *out);
#endif
