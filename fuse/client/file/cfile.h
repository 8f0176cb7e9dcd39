/* An open file: what is known of it, and the bytes of it that are on their way. */
#ifndef REPLFS_FUSE_CLIENT_FILE_CFILE_H
#define REPLFS_FUSE_CLIENT_FILE_CFILE_H
#include <stdatomic.h>
#include "base/extmap.h"
#include "base/u64map.h"
#include "client/file/abuf.h"
#include "client/file/wchunk.h"
#include "base/lock.h"

struct client;
/* Whether bytes are buffered. What holds in each, and which job may be under way, is listed in file_check.c. */
enum file_phase {
    FILE_CLEAN,  /* none: the file is not on the dirty list */
    FILE_DIRTY,  /* some */
    FILE_CLOSED, /* some, and a close left them behind: they are committed as soon as possible */
};
/* Background work on a file, at most one of each kind; bits of cfile.jobs. */
enum file_job {
    JOB_SEND = 1,   /* one thread sends appends (send.c) */
    JOB_GRANT = 2,  /* on the grants' waiting list (grants.c) */
    JOB_COMMIT = 4, /* a commit is with metad, or queued (commit.c) */
    JOB_FETCH = 8,  /* one thread asks for the committed map (layout.c) */
    JOB_SYNC = 16,  /* a background sync (sync.c) */
    JOB_ORDER = 32, /* a sync of all there is: commits may wait for it (write_order.c) */
};
struct cfile {
    struct client *c;
    uint64_t ino;
    atomic_uint refs; /* memory: opens, background work, completions */

    /* files.mu */
    unsigned opens;
    bool untold; /* metad does not know that it is open */
    int64_t opened_at;
    struct cfile *dirty_prev, *dirty_next;

    struct lock mu;        /* everything below */
    struct cond cv;        /* any change of state */
    enum file_phase phase; /* changed with files.mu held, too */
    unsigned jobs;         /* enum file_job: under way */
    Replfs__Attr attr;     /* as metad last said */
    uint64_t dirty_end;    /* end of the last byte not committed, 0: none */
    int64_t dirty_mtime;
    bool kill_suid; /* some of what is not committed clears setuid */
    /* committed map */
    struct extmap base;
    uint64_t base_to;   /* known up to here; UINT64_MAX: wholly */
    uint64_t map_gen;   /* changes with every commit or truncate: older layouts are refused */
    struct u64map locs; /* chunk -> struct cloc */
    struct buf *whole;  /* its bytes, read ahead; they count while map_gen is whole_gen and no bytes
                        * are uncommitted */
    uint64_t whole_gen, whole_begun;
    /* bytes not committed */
    struct extmap over;
    struct abuf *head, *tail;
    struct u64map abufs;
    uint64_t next_abuf;
    bool streaming; /* the last buffer was filled up: take a big one at once */
    struct wchunk *wcur, *unsynced;
    unsigned inflight;
    uint64_t uncommitted; /* acknowledged bytes */
    uint64_t growing;     /* sum of the buffers' grows */
    bool through;         /* others are at it: nothing is kept back */
    /* Writes that wait for their commit for that reason; all that is in the list is theirs. What others cannot see yet,
     * nobody sees here (cfile_shows). */
    unsigned hidden;
    unsigned linger;         /* closes that wait until nothing is left to commit */
    struct closing *closing; /* those that nobody waits for, in no order */
    int64_t order_at;        /* no sync for commits before, since the last one failed */
    uint64_t seam;           /* where bytes that are safe may end */
    uint64_t cut;            /* it had bytes up to here before it was cut or punched */
    int err;                 /* not reported yet */
    int last_err;            /* the last one */
    unsigned nerrs;          /* so many */
    bool base_synced; /* all of the committed map is on stable storage, or on the unsynced list */
    int last_fail;    /* why the last append failed */
    unsigned fails;   /* failures in a row */
    int64_t retry_at; /* not before */
    int64_t progress; /* last time something went forward */
};

/* One reference, not in the table, nothing known of it; NULL: memory is out. No lock. */
struct cfile *cfile_new(struct client *c, uint64_t ino);
/* The caller has a reference, or holds files.mu with f in the table. Any lock may be held. */
void cfile_ref(struct cfile *f);
/* The last one frees f: then the caller must not hold f->mu. Takes dirty.mu and grants.mu. */
void cfile_unref(struct cfile *f);

/* All below: f->mu held; nothing waits. */

/* The size with the bytes that are not committed. */
uint64_t cfile_size(const struct cfile *f);
/* Bytes that are not committed are shown to readers: not when writers still wait for just that since another client may
 * read, too, which would see the bytes of before later than somebody here those of after. Nor when the others are gone
 * meanwhile: they may come back first, and what was seen must stay. */
bool cfile_shows(const struct cfile *f);
/* What readers see, by that: the size, and in *over the bytes over the committed map (over may be NULL). */
uint64_t cfile_shown(const struct cfile *f, const struct extmap **over);
/* An answer of metad says a of f. Older than what is known: ignored. Another change than ours: the committed map
 * is forgotten. */
void cfile_set_attr(struct cfile *f, const Replfs__Attr *a);
/* After a change of ours: forgets the map unless nobody else can have changed the file since
 * lease_cache_begin gave `begun`. Takes the lease cache's mutex. */
void cfile_changed_since(struct cfile *f, uint64_t begun);
/* Bytes, or a change that was answered, were lost: told once through f->err, and counted for cfile_error_since. */
void cfile_fail(struct cfile *f, int code);
/* The error not reported yet, which counts as reported now; 0: none. */
int cfile_take_err(struct cfile *f);
#endif
