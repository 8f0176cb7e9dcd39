/* The metadata state machine: all of the namespace in memory, changed only by fsm_apply(), which is
 * pure and deterministic: same state and command, same result, on every metad and in every replay.
 * No clock, no randomness, no I/O inside; time and new ids come stamped in the command.
 *
 * Locking: the owner holds `lock` for writing around fsm_apply and soft changes, for reading around
 * everything else. Pointers into the state are valid only while it is held.
 * Memory goal: at most 200 bytes per small file, everything included (slabs, 32-bit handles).
 * Files: fsm.c (dispatch, lock), fsm_inode.c, fsm_dir.c, fsm_rename.c, fsm_chunk.c, fsm_share.c
 * (owners of chunks), fsm_goal.c, fsm_weigh.c (what a command would cost), fsm_clone.c,
 * fsm_compact.c, fsm_fallocate.c, fsm_quota.c, fsm_session.c (duplicate memory, members), fsm_past.c (incarnations),
 * fsm_xattr.c, fsm_cluster.c (metads, settings, feature level), fsm_save.c and fsm_load.c (checkpoint), fsm_slab.c and
 * fsm_table.c (memory, indexes). */
#ifndef REPLFS_METAD_FSM_FSM_H
#define REPLFS_METAD_FSM_FSM_H
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/extmap.h"
#include "base/lock.h"
#include "log.pb-c.h"

#define FSM_ROOT_INO 1ull
#define FSM_NAME_MAX 255
#define FSM_GOAL_MAX 8
#define FSM_CHUNK_MAX (64u << 20)
#define FSM_XATTR_SIZE_MAX (64u << 10) /* of all values of one inode */
#define FSM_XATTR_LIST_MAX (64u << 10) /* of all names of one inode, each with a NUL */
#define FSM_QUOTAS_MAX 4095u
#define FSM_INCARNATIONS_MAX 4096u /* starts of metad that are remembered */
#define FSM_FUTURES_MAX 64u
#define FSM_COMPACT_MAX 1024u      /* parts of one CompactOp */
#define FSM_IDS_BLOCK (1ull << 20) /* ids are reserved so many at a time */

struct fsm;
int fsm_new(struct fsm **out); /* empty: root directory only, mode 0755, goal 2 */
void fsm_free(struct fsm *f);
/* Take and give back the fsm's lock; where: of the caller, for base/lock.h. */
void fsm_rdlock_at(struct fsm *f, const char *where);
void fsm_wrlock_at(struct fsm *f, const char *where);
void fsm_unlock_at(struct fsm *f, const char *where);
#define fsm_rdlock(f) fsm_rdlock_at(f, LOCK_WHERE)
#define fsm_wrlock(f) fsm_wrlock_at(f, LOCK_WHERE)
#define fsm_unlock(f) fsm_unlock_at(f, LOCK_WHERE)

/* What a command did. events tells the leader's soft side what to follow up. */
struct fsm_result {
    int code;        /* 0 or a POSITIVE code as on the wire (errno or ERR_*) */
    uint64_t ino;    /* created / changed inode, 0 when none */
    uint64_t parent; /* directory changed, 0 when none */
    uint64_t value;  /* MutationResult.value */
    bool repeated;   /* answered from the duplicate memory, nothing was changed */
    /* Not NULL: this version must not go on, since others may do something else with the command: code is ERR_VERSION,
     * and this says why (a static string). Nothing was changed. */
    const char *stop;
};
/* Executes cmd at log position index (strictly increasing). Invalid commands yield a code, never an
 * assertion: an old log must replay on a newer program. Caller holds the write lock. */
void fsm_apply(struct fsm *f, uint64_t index, const Replfs__Command *cmd, struct fsm_result *res);
/* What commands left to be done later: in slices of about so many extents, write lock held. True:
 * there is more. Soft: another metad, or a replay, may do it at another time. */
bool fsm_work(struct fsm *f, uint32_t steps);
bool fsm_has_work(struct fsm *f); /* read lock */
/* Called from inside fsm_apply when a chunk lost its last reference (after it left the table, loc
 * list passed) or its goal changed, or got committed bytes; NULL by default. Not part of the
 * replicated state; used by the nodes module. */
struct fsm_chunk;
struct fsm_hooks {
    /* A writer that is still alive may commit further bytes of a freed chunk (it then comes back as
     * new): order its deletion only once the session is closed or has declared the id retired
     * (KeepaliveReq.oldest_grant). */
    void (*chunk_freed)(void *arg, const struct fsm_chunk *c);
    void (*chunk_changed)(void *arg, struct fsm_chunk *c,
                          bool grew); /* new or longer; else another goal */
    /* Has no name (any more): reap when nobody has it open. opener: the session that made it with
     * O_TMPFILE and so has it open, else 0. */
    void (*orphaned)(void *arg, uint64_t ino, uint64_t opener);
    void (*adopted)(void *arg, uint64_t ino); /* an orphan got a name: do not reap */
    void (*session_closed)(void *arg, uint64_t session);
    void *arg;
    void (*session_lapsed)(void *arg, uint64_t session);
    void (*chunk_sparse)(
        void *arg, struct fsm_chunk *c); /* extents let go of bytes, and less than half is live */
};
void fsm_set_hooks(struct fsm *f, const struct fsm_hooks *h);

/* ---- reads (read lock held); 0 or -errno ---- */
/* Fills all scalar fields of an __INIT'ed Attr. */
int fsm_getattr(struct fsm *f, uint64_t ino, Replfs__Attr *out);
/* Also "." and "..". */
int fsm_lookup(struct fsm *f, uint64_t parent, const uint8_t *name, size_t len, uint64_t *ino);
int fsm_readlink(struct fsm *f, uint64_t ino, const uint8_t **target, size_t *len);
/* -ENODATA when there is none of that name; -EOPNOTSUPP, -ERANGE, -EINVAL for impossible names. */
int fsm_getxattr(struct fsm *f, uint64_t ino, const uint8_t *name, size_t len,
                 const uint8_t **value, size_t *value_len);
/* All names, each with its closing NUL: *len bytes, at most FSM_XATTR_LIST_MAX. out may be NULL. */
int fsm_listxattr(struct fsm *f, uint64_t ino, uint8_t *out, size_t *len);
struct fsm_dirent {
    const uint8_t *name; /* the fsm's, while the lock is held */
    size_t len;
    uint64_t ino, cookie;
    uint32_t mode;
    uint32_t inode; /* private */
};
#define FSM_DIRENTS_MAX 32u
/* Entries behind cookie in cookie order ("." and ".." not included), 1..FSM_DIRENTS_MAX at a time; fn returns false
 * to stop. Cookies grow with creation and never move, so entries added or removed meanwhile never skip or
 * repeat others. */
typedef bool fsm_dirents_fn(void *arg, const struct fsm_dirent *list, size_t n);
uint64_t fsm_dir_end(struct fsm *f, uint64_t ino); /* the next name's cookie; 0: no directory */
int fsm_readdir(struct fsm *f, uint64_t ino, uint64_t cookie, fsm_dirents_fn *fn, void *arg);
/* As fsm_getattr, of what an entry names. */
void fsm_dirent_attr(struct fsm *f, const struct fsm_dirent *e, Replfs__Attr *out);
int fsm_parent(struct fsm *f, uint64_t ino, uint64_t *parent); /* directories only */
/* A directory's own name and where it is. Looks through the parent's entries: for messages. */
int fsm_dir_name(struct fsm *f, uint64_t ino, uint64_t *parent, const uint8_t **name, size_t *len);
int fsm_extents(struct fsm *f, uint64_t ino, const struct extmap **out);
int fsm_goal(struct fsm *f, uint64_t ino); /* 1..8 or -ENOENT */
/* Bytes of [off, off + len) that are in no extent: what a reservation would add. */
int fsm_holes(struct fsm *f, uint64_t ino, uint64_t off, uint64_t len, uint64_t *out);
/* Where [off, end) has to be cut so that at most max extents are in the first part; end: it need not.
 * 0 when there is no such file. */
uint64_t fsm_slice_end(struct fsm *f, uint64_t ino, uint64_t off, uint64_t end, uint32_t max);
/* A commit of an `over` would look at more than max extents. */
bool fsm_over_is_long(struct fsm *f, const Replfs__CommitOp *op, uint32_t max);
/* A rename takes a tree of more than max inodes from one quota to another. */
bool fsm_move_is_long(struct fsm *f, const Replfs__RenameOp *op, uint32_t max);
bool fsm_session_alive(struct fsm *f, uint64_t session); /* open */
bool fsm_session_lapsed(struct fsm *f, uint64_t session);
uint32_t fsm_session_lapses(struct fsm *f, uint64_t session); /* how often it has */
bool fsm_session_kept(struct fsm *f, uint64_t session);       /* one of the two */
/* The inode of which the remembered answer to the session's command of this number tells. 0: it failed, tells of none, or is
 * not remembered. */
uint64_t fsm_session_answered(struct fsm *f, uint64_t session, uint64_t seq);
/* At most max of those that lapsed before ns; how many. */
size_t fsm_lapsed_before(struct fsm *f, int64_t ns, uint64_t *out, size_t max);
/* The next open one by id; after 0: the first. */
bool fsm_session_next(struct fsm *f, uint64_t after, uint64_t *session, const char **name);
/* What a session may hold: a new leader waits for those that may hold something. 0 when not open. */
enum { FSM_HOLDS_LEASES = 1, FSM_HOLDS_LOCKS = 2, FSM_HOLDS_ALL = 3 };
unsigned fsm_session_holds(struct fsm *f, uint64_t session);
bool fsm_orphan_next(struct fsm *f, uint64_t after, uint64_t *ino);
uint64_t fsm_applied(struct fsm *f); /* index of the last command */
void fsm_reserved(struct fsm *f, uint64_t *chunk_upto, uint64_t *ino_upto);
/* A place in the history of metadata: the start of metad that made it (IncarnationOp), and the
 * position of the newest command by then. Peers are told it, remember it, and tell it when they come
 * back: a metad that has not been there itself runs from an older copy of its directory. */
struct fsm_mark {
    uint64_t incarnation; /* 0: none, of a time before there were any */
    uint64_t position;
};
void fsm_mark(struct fsm *f, struct fsm_mark *out); /* of this state, now */
/* Whether m is in this state's own past. Of incarnations longer ago than FSM_INCARNATIONS_MAX starts
 * only the position is compared. */
bool fsm_mark_known(struct fsm *f, const struct fsm_mark *m);
/* The incarnations before the present one, newest first, at most max. Returns how many. */
size_t fsm_ancestors(struct fsm *f, uint64_t *out, size_t max);
/* What other copies of this metad's directory became, as far as chunkds told of it (FutureOp). */
struct fsm_future {
    uint64_t incarnation, position;
    int64_t time;  /* when it became known, ns */
    bool accepted; /* a person said so, or it was a mistake from the beginning */
};
/* The i-th one; false: there are no more. */
bool fsm_future_at(struct fsm *f, uint32_t i, struct fsm_future *out);
/* One that is not accepted: this state is older than what chunkds have seen. Nothing that it does
 * not know may be deleted. */
bool fsm_behind(struct fsm *f);
/* m is of a future that is known already: nothing to be logged about it. */
bool fsm_future_known(struct fsm *f, const struct fsm_mark *m);
/* A chunk that this state does not have may have been made in another future: its number or its
 * writer says so. */
bool fsm_chunk_foreign(struct fsm *f, uint64_t chunk, uint64_t session);
struct fsm_counts {
    uint64_t files, dirs, symlinks, others, chunks, bytes, orphans;
    uint64_t sessions, sessions_lapsed; /* those that lapsed are not in sessions */
    uint64_t reserved; /* by fallocate and not written yet, times the goal: not in bytes */
};
void fsm_counts(struct fsm *f, struct fsm_counts *out);
/* What administrators decided about a chunkd (fsm_chunkd.c). */
#define FSM_DISKS_MAX 64u
#define FSM_PAUSE_MAX_MS (366ull * 86400 * 1000)
struct fsm_limit { /* what a disk may hold */
    uint32_t disk;
    bool now; /* what is above it goes as soon as any other copy is known to be good */
    uint64_t bytes;
};
struct fsm_decided {
    bool draining;
    uint64_t pause_ms;        /* it is to be away for so long; 0: not */
    int64_t paused_at;        /* from then on, by the log's time */
    struct fsm_limit *limits; /* ascending by disk; while the lock is held */
    uint32_t nlimits;
};
/* Changes with any decision about any chunkd; no part of the state. Any thread, no lock. */
uint64_t fsm_decisions(const struct fsm *f);
struct fsm_member {
    uint32_t chunkd;
    const char *host_id; /* "": it was removed, its id stays taken */
    const char *host_name;
    uint32_t replaced_by; /* the chunkd that took its place, 0: none */
    struct fsm_decided decided;
};
bool fsm_member_next(struct fsm *f, uint32_t after, struct fsm_member *out);
/* Quotas by realm number (fsm_quota.c). */
struct fsm_quota {
    uint64_t ino;                   /* root of the tree */
    uint64_t max_bytes, max_inodes; /* 0: no limit */
    uint64_t bytes, inodes;         /* in use */
    uint64_t attrs;                 /* bytes of extended attributes; they count, with bytes */
    unsigned outer;                 /* realm of the tree around it, 0: none */
};
unsigned fsm_quota_realm(struct fsm *f, uint64_t ino);  /* what ino is charged to, 0: nothing */
unsigned fsm_quota_next(struct fsm *f, unsigned after); /* the next realm in use, 0: no more */
bool fsm_quota_get(struct fsm *f, unsigned realm, struct fsm_quota *out);
bool fsm_has_quotas(const struct fsm *f); /* or had some since the start; no lock needed */
/* Whether the attributes that the command adds (XattrOp, or a default ACL that CreateOp inherits) are
 * more than a quota has room for: 0 or -EDQUOT. For the leader, before the command is logged. */
int fsm_quota_attrs_fit(struct fsm *f, const Replfs__MetaOp *op);
/* Of the replicated state: equal states, equal digests. Walks everything; takes no lock and allocates nothing, also
 * for a forked child. */
uint64_t fsm_digest(struct fsm *f);
uint64_t fsm_memory(struct fsm *f); /* heap bytes, for status and the memory bench */

/* ---- chunks: the replicated part is fsm's; loc is soft, owned by the nodes module, never in the
 * log or checkpoint and never read by fsm_apply ---- */
typedef uint64_t fsm_u64_a4 __attribute__((aligned(4))); /* keeps struct fsm_chunk at 52 bytes */
/* state: enum copy_state of nodes.h; reported: the chunkd's own report named it (digests, nodes
 * module) */
struct fsm_loc {
    uint32_t chunkd : 20, disk : 6, state : 5, reported : 1;
};
struct fsm_chunk {
    fsm_u64_a4 id;
    fsm_u64_a4 session; /* writer */
    uint32_t next;      /* private: hash chain */
    uint32_t owner;     /* private: who references it; see fsm_share.c */
    uint32_t len;       /* committed bytes */
    uint32_t refs;      /* extents that name it */
    uint32_t live;      /* bytes that extents name, no more than fit; fsm_share.c knows all */
    uint8_t goal : 4;   /* highest among the files that reference it */
    uint8_t shared : 1; /* private to fsm_share.c */
    uint8_t nloc;
    uint8_t soft_flags; /* nodes module */
    uint8_t loc_heap;   /* private to fsm_chunk_set_locs */
    union {
        struct fsm_loc inl[3];
        struct fsm_loc *ptr;
    } __attribute__((packed, aligned(4))) u; /* functions below */
};
struct fsm_chunk *fsm_chunk_find(struct fsm *f, uint64_t id);       /* NULL when unknown */
unsigned fsm_chunk_files(struct fsm *f, const struct fsm_chunk *c); /* that reference it */
/* The first max of these files; how many there are in all. */
uint32_t fsm_chunk_owners(struct fsm *f, const struct fsm_chunk *c, uint64_t *ino, uint32_t max);
/* Less than half of the chunk's bytes are named by extents. */
static inline bool fsm_chunk_is_sparse(const struct fsm_chunk *c)
{
    return c->live < c->len / 2;
}
/* All extents that name the chunk, file by file, until fn returns false. Looks through all extents of
 * these files: for chunks in trouble. */
typedef bool fsm_extent_fn(void *arg, uint64_t ino, const struct ext *e);
void fsm_chunk_extents(struct fsm *f, const struct fsm_chunk *c, fsm_extent_fn *fn, void *arg);
struct fsm_loc *fsm_chunk_locs(struct fsm_chunk *c);          /* c->nloc entries */
int fsm_chunk_loc_add(struct fsm_chunk *c, struct fsm_loc l); /* write lock; replaces same chunkd */
void fsm_chunk_loc_del(struct fsm_chunk *c, uint32_t chunkd); /* write lock */
/* Iterates all chunks in slices without holding the lock between them: *pos 0 starts, false at the
 * end. A chunk that exists during the whole walk is seen at least once. */
bool fsm_chunk_walk(struct fsm *f, uint64_t *pos, size_t max,
                    void (*fn)(void *arg, struct fsm_chunk *c), void *arg);

/* ---- checkpoint (format: man/replfs-format.7) ---- */
/* Writes the whole state to fd with a CRC32C per section, no locks, no allocation that another
 * thread's lock could block: meant for a forked child (one save at a time in a process). 0 or
 * -errno. Does not fsync. */
int fsm_save(struct fsm *f, int fd);
/* Empty again, as from fsm_new; hooks and offered settings stay, and nobody is told. Under the write lock. */
void fsm_reset(struct fsm *f);
/* Makes the state of `from`, which nobody else uses, that of f, and the other way round; hooks, offered settings and the
 * own id stay where they are, and nobody is told. f's write lock is held; takes no time to speak of. */
void fsm_exchange(struct fsm *f, struct fsm *from);
/* Fills an empty fsm (from fsm_new, fsm_reset) with what fd holds from its position to its end. 0;
 * -ERR_CORRUPT, -ERR_VERSION or -errno of read with why naming section and offset: then only
 * fsm_free may follow. Calls no hooks: walk chunks, sessions and orphans afterwards. */
int fsm_load(struct fsm *f, int fd, char why[256]);
#endif
