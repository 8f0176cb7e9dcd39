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
/* What is to become of a copy, by what was decided about its chunkd or disk. One that is to leave is a source until it
 * goes, and counts for no goal. */
enum repair_leave {
    REPAIR_STAYS = 0,
    REPAIR_DRAIN = 1, /* goes when the goal is reached without it */
    /* goes when the goal is reached without it, or, where no place is left for another, min_copies are */
    REPAIR_SHED = 2,
    REPAIR_AT_ONCE = 3, /* goes as soon as any other copy was read in full */
};
struct repair_copy {
    uint32_t chunkd;
    uint8_t disk;
    uint8_t state; /* enum repair_state */
    uint8_t leave; /* enum repair_leave */
    bool precious; /* bad, but may have bytes that no other copy has: stays */
    bool told;     /* its chunkd, dead as it may count, is reporting: not to be forgotten */
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
    unsigned hosts_up;   /* placement_hosts_up(), made once for many decisions */
    bool incomplete;     /* a member that is not dead has not told what it has */
    bool unreported;     /* some member, dead or not, has never told what it has */
    bool dozing;         /* a paused one that is away has not, which is not among the incomplete */
    unsigned min_copies; /* of a chunk, or its goal when that is less; 0: 1 */
    uint64_t seed;
};

enum repair_kind {
    REPAIR_KIND_REPAIR,
    REPAIR_KIND_MOVE,
    REPAIR_KIND_DROP,
    REPAIR_KIND_VERIFY,
    REPAIR_KIND_DRAIN, /* of copies that are to leave */
    REPAIR_KINDS
};
extern const char *const repair_kind_name[REPAIR_KINDS];
/* Why a copy that is to leave has to wait (repair_decision.why): fewer computers stay than the goal asks for. */
extern const char repair_why_hosts[];

/* Copies counted by what they are worth now. */
struct repair_tally {
    unsigned good;    /* ok on a chunkd that is up or suspect */
    unsigned good_up; /* of these on one that is up */
    unsigned hosts;   /* distinct computers among good */
    unsigned awake;   /* good, not on a paused chunkd */
    /* of the good ones those that are not to leave: */
    unsigned stay;
    unsigned stay_awake; /* of these not on a paused chunkd */
    unsigned stay_up;    /* of these on one that is up */
    unsigned
        stay_sure; /* up, or announced to come back: not on one that is suspect without a pause */
    unsigned stay_hosts; /* distinct computers among stay */
    unsigned leave;      /* good and to leave, on a chunkd that is up */
    unsigned rescue;     /* ok on a disk that can only be read, of a chunkd that is up */
    unsigned unsure;     /* to be checked, on a chunkd that is up */
    unsigned waste;      /* bad or doomed, on a chunkd that is up */
    /* not bad, not to be rescued, on a chunkd that is dead, suspect with doubts, or a failed disk */
    unsigned away;
    unsigned forgettable; /* on a chunkd that is dead and does not report */
};
void repair_tally(const struct repair_ctx *x, const struct repair_chunk *c,
                  struct repair_tally *out);
/* Nothing to do, now or when more computers come: goal reached exactly, on distinct computers; copies that are to leave
 * may be among them. */
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
