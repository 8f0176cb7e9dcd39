/* What locks.c and locks_table.c share; nobody else includes this. */
#ifndef REPLFS_METAD_COHERENCE_LOCKS_INTERNAL_H
#define REPLFS_METAD_COHERENCE_LOCKS_INTERNAL_H
#include "base/hash_table.h"
#include "locks.h"

struct lock_file {
    uint64_t ino;
    bool flock;
    bool soft;     /* somebody in the queue is held back by fairness alone */
    uint64_t seen; /* of the last walk that came here */
    struct hash_link link;
    struct lock_holder *holders;
    struct lock_wait *first, **last; /* the queue */
    size_t nholders, nwaits;
};
struct lock_holder {
    struct lock_file *file;
    struct lock_session *session;
    uint64_t owner;
    uint32_t pid; /* who set a range last */
    struct lockset set;
    struct lock_holder *next;             /* of the file */
    struct lock_holder *s_next, **s_prev; /* of the session */
};
struct lock_wait {
    struct lock_req req;
    struct lock_file *file;
    struct lock_session *session;
    void *cookie;                       /* NULL: nobody to tell */
    int64_t since, deadline;            /* deadline; without cookie when it is forgotten */
    struct lock_holder *blocker;        /* who was found in the way; NULL: look */
    uint64_t mark;                      /* of the last search for a circle that came here */
    struct lock_wait *next;             /* of the file */
    struct lock_wait *s_next, **s_prev; /* of the session */
    struct lock_wait *todo;             /* of a search */
};
struct lock_session {
    uint64_t id;
    struct hash_link link;
    struct lock_holder *holders;
    struct lock_wait *waits;
    size_t nranges, nwaits;
};
struct locks {
    struct hash_table files;    /* struct lock_file by inode: one of flock(2), one of fcntl(2) */
    struct hash_table sessions; /* struct lock_session by id */
    size_t nwaits, nranges;
    uint64_t mark, seen;
    uint64_t steps; /* entries looked at, ever */
    size_t search;  /* entries that searches for circles may still look at in this call */
    bool held;
    struct locks_done *done;
    size_t ndone, done_at, done_cap;
};

struct lock_session *locks_session_find(const struct locks *t, uint64_t id); /* or NULL */
struct lock_session *locks_session(struct locks *t, uint64_t id); /* made when it is not there */
void locks_session_tidy(struct locks *t, struct lock_session *s);
struct lock_file *locks_file_find(const struct locks *t, uint64_t ino, bool flock); /* or NULL */
struct lock_file *locks_file(struct locks *t, uint64_t ino, bool flock);            /* likewise */
void locks_file_tidy(struct locks *t, struct lock_file *f);
struct lock_holder **locks_holder_slot(struct lock_file *f, uint64_t session, uint64_t owner);
/* Changes the owner's ranges, with the holder made or freed as needed. */
void locks_apply(struct locks *t, struct lock_file *f, struct lock_session *s,
                 const struct lock_req *r);
void locks_drop_holder(struct locks *t, struct lock_file *f, struct lock_session *s,
                       uint64_t owner);
struct lock_wait *locks_wait_find(struct lock_session *s, uint64_t id);
struct lock_wait *locks_wait_add(struct locks *t, struct lock_file *f, struct lock_session *s,
                                 const struct lock_req *r);
/* Takes w out of its lists and tells its cookie. File and session stay, perhaps empty. */
void locks_wait_end(struct locks *t, struct lock_wait *w, int code);
void locks_done_add(struct locks *t, void *cookie, int code); /* cookie NULL: nobody to tell */
#endif
