/* What the fsm_*.c files share; nobody else includes this. Everything here runs under the fsm lock.
 * Internal operations return 0 or a negative code; fsm_apply turns it into the positive one of the
 * result. */
#ifndef REPLFS_METAD_FSM_FSM_INTERNAL_H
#define REPLFS_METAD_FSM_FSM_INTERNAL_H
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/hash.h"
#include "base/lock.h"
#include "fsm.h"
#include "fsm_cluster.h"
#include "fsm_slab.h"
#include "fsm_table.h"

#define FSM_LINK_MAX 65000u
#define FSM_TARGET_MAX 4095u
#define FSM_COMMIT_MAX 4096u    /* extents in one command */
#define FSM_REMEMBER_MAX 16384u /* unacknowledged answers kept for one session */
#define FSM_LAPSED_MAX 256u /* sessions that may come back; the one that lapsed first is closed */
#define FSM_LAPSED_ANSWERS 4096u /* one with more of them is closed at once */
#define FSM_STEPS_MAX 65536u     /* extents that one command visits, where it need not do all */
#define FSM_STRING_MAX 255u      /* names of sessions and hosts; longer ones are cut */
#define FSM_DEFAULT_GOAL 2u
#define FSM_SIZE_MAX ((uint64_t)INT64_MAX)
#define FSM_XATTR_NAME_MAX 255u
#define FSM_CHANGE_BITS 46
#define FSM_METAD_ID_MAX (1u << 20)

enum fsm_inode_flag {
    FSM_INODE_XATTR = 1,   /* has entries in the table of extended attributes */
    FSM_INODE_TMPFILE = 2, /* never had a name: LinkOp may give it one */
};

/* 96 bytes. A directory's alloc field holds the next cookie, a device's its rdev. */
struct fsm_inode {
    uint64_t ino;  /* 0: free slot */
    uint32_t next; /* hash chain */
    uint32_t uid, gid;
    uint16_t mode;
    uint16_t nlink; /* names; of a directory 1 until it is removed */
    uint64_t change : 46, goal : 4;
    uint64_t flags : 2;  /* enum fsm_inode_flag */
    uint64_t realm : 12; /* the quota it is charged to, 0: none (fsm_quota.c) */
    int64_t mtime, ctime, atime;
    uint64_t size;
    union {
        uint64_t alloc;
        uint64_t next_cookie;
        uint64_t rdev;
    } x;
    union {
        struct extmap map; /* regular files */
        struct {
            struct fsm_oset entries; /* dentries by cookie */
            uint32_t parent;         /* inode handle, 0 when removed; the root's is the root */
            uint32_t subdirs;
        } dir;
        uint8_t *target; /* symbolic links: size bytes */
    } u;
};
_Static_assert(sizeof(struct fsm_inode) == 96, "counts in millions");
_Static_assert(sizeof(struct fsm_chunk) == 52, "counts in millions");

struct fsm_dentry {
    uint32_t next;   /* hash chain */
    uint32_t parent; /* inode handles */
    uint32_t child;
    uint32_t cookie_lo;
    uint16_t cookie_hi;
    uint8_t len;
    uint8_t name[];
};

/* One extended attribute: its name, then its value. */
struct fsm_xattr {
    uint32_t len; /* of the value */
    uint8_t name_len;
    uint8_t bytes[];
};
/* All attributes of one inode. */
struct fsm_xset {
    uint64_t ino;         /* 0: free slot */
    uint32_t next;        /* hash chain */
    uint32_t n;           /* never 0 */
    uint32_t names;       /* bytes of all names, each with a NUL */
    uint32_t values;      /* bytes of all values */
    struct fsm_xattr **v; /* n, ascending by name */
};

/* The owners of a chunk that more than one file references (fsm_share.c). */
struct fsm_sharer {
    uint32_t inode; /* handle */
    uint32_t refs;  /* its extents that name the chunk */
};
struct fsm_share {
    uint64_t id;     /* the chunk's */
    uint32_t n, cap; /* n: also the slab's link while free */
    uint64_t live;
    struct fsm_sharer *own; /* by inode */
};

/* An answer given to a session, kept until the session says that it has it. */
struct fsm_answer {
    uint64_t seq, ino, parent, value;
    uint32_t code;
};
struct fsm_session {
    uint64_t id;
    uint64_t acked;             /* answers up to here are forgotten */
    struct fsm_answer *answers; /* ascending seq; live ones are [first, end) */
    uint32_t first, end, cap;
    uint8_t holds; /* FSM_HOLDS_* */
    bool lapsed;
    uint32_t lapses; /* so often */
    int64_t lapsed_at;
    uint64_t away_from, away_to; /* changes numbered behind away_from and up to away_to were made by
                                  * others while it had lapsed; both 0: it never had */
    char *name, *host_id;
};

/* A quota: limits and use of the tree below one directory. */
struct fsm_realm {
    uint64_t ino;                   /* the tree's root; 0: the number is free */
    uint64_t max_bytes, max_inodes; /* 0: no limit */
    uint64_t bytes, inodes;         /* in use, with what is charged to realms inside */
    uint64_t attrs;                 /* bytes of extended attributes, likewise */
    uint16_t parent;                /* the realm around it, 0: none */
};

/* One start of metad (fsm_past.c). */
struct fsm_incarnation {
    uint64_t id, begin;  /* begin: position of its IncarnationOp */
    uint64_t chunk_from; /* chunk_upto by then: what it reserved itself is above */
};

/* Chunk ids that another future may have given. */
struct fsm_foreign {
    uint64_t from, to;
};
struct fsm_past {
    struct fsm_incarnation *v; /* ascending begin; the newest FSM_INCARNATIONS_MAX */
    uint32_t n, cap;
    struct fsm_future futures[FSM_FUTURES_MAX];
    uint32_t nfutures, nbehind; /* nbehind: of them not accepted */
    struct fsm_foreign foreign[FSM_FUTURES_MAX];
    uint32_t nforeign;
    uint64_t *doubt; /* ascending: sessions that other futures may have gone on with */
    uint32_t ndoubt, doubt_cap;
};

/* fsm_cluster.c */
struct fsm_cluster {
    struct fsm_metad metads[FSM_METADS_MAX]; /* ascending id */
    uint32_t nmetads, metad_new;             /* metad_new: above all ids ever given */
    uint32_t self;                           /* soft: the id of this one */
    atomic_uint level;
    uint64_t told[SETTINGS_COUNT + 1];         /* what the state says */
    bool is_told[SETTINGS_COUNT + 1];          /* that it says something */
    uint64_t offer[SETTINGS_COUNT + 1];        /* soft: of this process */
    _Atomic(uint64_t) now[SETTINGS_COUNT + 1]; /* what follows from these three */
    _Atomic(uint64_t) term_was; /* a longer lease term that was told before, 0: none */
    uint64_t term_lowered;      /* position of the last lowering since then */
    bool has_cap_key;
    uint64_t cap_key_id;
    uint8_t cap_key[FSM_CAP_KEY_LEN];
};

struct fsm {
    struct rwlock lock;
    uint64_t hash_key; /* of name hashes, per process: nothing replicated depends on it */
    struct fsm_slab inodes, chunks, shares, xsets;
    struct fsm_arena dentries;
    struct fsm_htab by_ino, by_name, by_chunk, by_xattr;
    struct fsm_oset orphans; /* inodes without a name, by ino */
    struct fsm_oset regoal;  /* soft: files whose chunks are still to follow their goal, by ino */
    uint64_t regoal_ino, regoal_off; /* where fsm_work is */
    bool regoal_again;               /* that one's goal has changed since it began */
    uint32_t steps;                  /* extents that the command being applied may still visit */
    struct fsm_session **sessions;
    uint32_t nsessions, sessions_cap, nlapsed;
    struct fsm_member *members;
    uint32_t nmembers, members_cap;
    _Atomic(uint64_t) decisions; /* soft: fsm_decisions() */
    struct fsm_realm *realms;    /* by number, the first is unused; fsm_quota.c */
    atomic_uint nrealms;         /* any: read without the lock, too */
    struct fsm_past past;
    struct fsm_cluster cluster;
    uint64_t applied, change, chunk_upto, ino_upto;
    struct fsm_counts n;
    struct fsm_hooks hooks;
    size_t heap; /* bytes beside slabs, tables and extent maps */
    int64_t now; /* time of the command being applied */
};

static inline struct fsm_inode *fsm_inode_at(const struct fsm *f, uint32_t h)
{
    return fsm_slab_at(&f->inodes, h);
}
static inline struct fsm_dentry *fsm_dentry_at(const struct fsm *f, uint32_t d)
{
    return fsm_arena_at(&f->dentries, d);
}
static inline struct fsm_chunk *fsm_chunk_at(const struct fsm *f, uint32_t h)
{
    return fsm_slab_at(&f->chunks, h);
}
static inline struct fsm_xset *fsm_xset_at(const struct fsm *f, uint32_t h)
{
    return fsm_slab_at(&f->xsets, h);
}
static inline uint64_t fsm_dentry_cookie(const struct fsm_dentry *d)
{
    return (uint64_t)d->cookie_hi << 32 | d->cookie_lo;
}

/* ---- fsm.c ---- */
uint64_t fsm_hash_bytes(uint64_t key, const uint8_t *p, size_t len);

/* ---- fsm_inode.c ---- */
extern const struct fsm_htab_ops fsm_inode_htab_ops;
uint32_t fsm_inode_find(const struct fsm *f, uint64_t ino); /* handle or 0 */
/* New and counted, in the table; times, goal and change set, no name yet. */
uint32_t fsm_inode_new(struct fsm *f, uint64_t ino, uint16_t mode);
void fsm_inode_free(struct fsm *f, uint32_t h);
/* It has no name, or its last one is gone. opener: the session that has it open though, or 0. */
void fsm_inode_orphan(struct fsm *f, uint32_t h, uint64_t opener);
void fsm_inode_adopt(struct fsm *f, uint32_t h); /* a tmpfile gets its first name */
/* A time that a client with an exclusive lease has shown already and may give: its clock need not
 * agree with ours to the millisecond. */
bool fsm_time_ok(const struct fsm *f, int64_t ns);
void fsm_inode_touch(struct fsm *f, struct fsm_inode *i, bool modified); /* ctime, change; mtime */
/* Contents or owner change: file capabilities go, and with suid also setuid and setgid. */
void fsm_inode_strip(struct fsm *f, struct fsm_inode *i, bool suid);
struct fsm_oset_ops fsm_orphan_ops(struct fsm *f);
void fsm_inode_attr(struct fsm *f, const struct fsm_inode *i,
                    Replfs__Attr *out); /* of an __INIT'ed one */
int fsm_op_setattr(struct fsm *f, const Replfs__SetattrOp *op, struct fsm_result *res);
int fsm_op_reap(struct fsm *f, const Replfs__ReapOp *op, struct fsm_result *res);
int fsm_op_atime(struct fsm *f, const Replfs__AtimeOp *op);

/* ---- fsm_dir.c ---- */
extern const struct fsm_htab_ops fsm_dentry_htab_ops;
struct fsm_oset_ops fsm_dentry_ops(struct fsm *f);
int fsm_name_check(const uint8_t *name, size_t len);
/* A directory that may get entries: handle, or 0 with *code. */
uint32_t fsm_dir_find(const struct fsm *f, uint64_t ino, int *code);
uint32_t fsm_dentry_find(const struct fsm *f, uint32_t dir, const uint8_t *name, size_t len);
/* cookie 0 takes the directory's next. Returns the dentry, or 0 when the cookie is taken. */
uint32_t fsm_dentry_add(struct fsm *f, uint32_t dir, const uint8_t *name, size_t len,
                        uint32_t child, uint64_t cookie);
void fsm_dentry_drop(struct fsm *f, uint32_t d);  /* the entry only, no counts */
void fsm_inode_unname(struct fsm *f, uint32_t h); /* one name fewer; a directory is removed */
bool fsm_dir_is_within(const struct fsm *f, uint32_t dir, uint32_t ancestor); /* or the same */
int fsm_op_create(struct fsm *f, uint64_t session, const Replfs__CreateOp *op,
                  struct fsm_result *res);
int fsm_op_unlink(struct fsm *f, const Replfs__UnlinkOp *op, struct fsm_result *res);
int fsm_op_link(struct fsm *f, const Replfs__LinkOp *op, struct fsm_result *res);

/* ---- fsm_rename.c ---- */
int fsm_op_rename(struct fsm *f, const Replfs__RenameOp *op, struct fsm_result *res);

/* ---- fsm_chunk.c ---- */
extern const struct fsm_htab_ops fsm_chunk_htab_ops;
uint32_t fsm_chunk_new(struct fsm *f, uint64_t id, uint64_t session);  /* no owner, no goal yet */
void fsm_chunk_changed(struct fsm *f, struct fsm_chunk *c, bool grew); /* tells the hook */
void fsm_chunk_drop_locs(struct fsm_chunk *c);
void fsm_file_cut(struct fsm *f, uint32_t h, uint64_t from); /* drops extents behind from */
void fsm_file_punch(struct fsm *f, uint32_t h, uint64_t off, uint64_t len);
/* Two steps of adding an extent, chunk 0 included: counted first, so that a chunk whose last extent
 * is replaced meanwhile does not go; then put into the map. */
void fsm_file_pin(struct fsm *f, uint32_t h, const struct ext *e);
void fsm_file_put(struct fsm *f, uint32_t h, const struct ext *e);
void fsm_file_count(struct fsm *f, uint32_t h, const struct ext *e); /* as pin, charging no quota */
/* The file is to go. True: its extents are few enough to go at once, and are counted; else some have
 * gone. */
bool fsm_file_cut_some(struct fsm *f, uint32_t h);
int fsm_op_commit(struct fsm *f, uint64_t session, const Replfs__CommitOp *op,
                  struct fsm_result *res);

/* ---- fsm_goal.c ---- */
void fsm_file_set_goal(struct fsm *f, uint32_t h, uint8_t goal);
void fsm_regoal_forget(struct fsm *f, uint32_t h); /* the inode goes */
int fsm_op_set_goal(struct fsm *f, const Replfs__SetGoalOp *op, struct fsm_result *res);

/* ---- fsm_share.c ---- */
bool fsm_share_has(const struct fsm *f, const struct fsm_chunk *c, uint32_t h); /* h owns c */
uint64_t fsm_share_live(const struct fsm *f, const struct fsm_chunk *c);
uint32_t fsm_share_files(const struct fsm *f, const struct fsm_chunk *c);
/* The extents of h that name c change by refs, the bytes that they name by bytes; h joins or leaves
 * the owners and the goal follows. The caller frees a chunk without references. */
void fsm_share_count(struct fsm *f, struct fsm_chunk *c, uint32_t h, int refs, int64_t bytes);
/* An owner of this goal joined, or has it now; 0: one left. */
void fsm_share_goal(struct fsm *f, struct fsm_chunk *c, unsigned now);
void fsm_share_drop(struct fsm *f, struct fsm_chunk *c); /* before c is freed */

/* ---- fsm_xattr.c ---- */
int fsm_op_xattr(struct fsm *f, const Replfs__XattrOp *op, struct fsm_result *res);
/* The mode's permission bits were changed: a stored access ACL follows. */
void fsm_xattr_chmod(struct fsm *f, struct fsm_inode *i);
/* A new inode i in dir: takes over its default ACL, or else loses the bits of umask. */
/* 0, or -ENOSPC: a directory in dir would get more than one inode may have. */
int fsm_xattr_inherit_check(struct fsm *f, const struct fsm_inode *dir, uint32_t type);
void fsm_xattr_inherit(struct fsm *f, const struct fsm_inode *dir, struct fsm_inode *i,
                       uint32_t umask);
void fsm_xattr_drop_caps(struct fsm *f, struct fsm_inode *i); /* file capabilities */
void fsm_xattr_drop_all(struct fsm *f, struct fsm_inode *i);
/* From a checkpoint. 0, -EEXIST, or -EINVAL for what could not have been set. */
int fsm_xattr_load(struct fsm *f, uint32_t h, const uint8_t *name, size_t name_len,
                   const uint8_t *value, size_t len);
/* Bytes that the operation would add to the inode *i, or to a new one in directory *i; 0: none, *i is
 * not set. */
uint64_t fsm_xattr_more(struct fsm *f, const Replfs__XattrOp *op, const struct fsm_inode **i);
uint64_t fsm_xattr_inherit_more(struct fsm *f, const Replfs__CreateOp *op,
                                const struct fsm_inode **i);
uint32_t fsm_xattr_bytes(const struct fsm *f, const struct fsm_inode *i); /* names and values */
void fsm_xattr_fini(struct fsm *f);

/* ---- fsm_clone.c ---- */
int fsm_op_clone(struct fsm *f, const Replfs__CloneOp *op, struct fsm_result *res);

/* ---- fsm_compact.c ---- */
int fsm_op_compact(struct fsm *f, const Replfs__CompactOp *op, struct fsm_result *res);

/* ---- fsm_fallocate.c ---- */
int fsm_op_fallocate(struct fsm *f, const Replfs__FallocateOp *op, struct fsm_result *res);

/* ---- fsm_quota.c ---- */
#define FSM_REALM_MAX FSM_QUOTAS_MAX
void fsm_realm_charge(struct fsm *f, unsigned realm, int64_t bytes, int64_t inodes);
int fsm_realm_room(const struct fsm *f, unsigned realm, uint64_t bytes, uint64_t inodes);
/* What i gained or lost, charged to its realm and those around it: called wherever x.alloc of a
 * file changes and where an inode is made or freed. */
static inline void fsm_charge(struct fsm *f, const struct fsm_inode *i, int64_t bytes,
                              int64_t inodes)
{
    if (i->realm)
        fsm_realm_charge(f, i->realm, bytes, inodes);
}
void fsm_realm_charge_attrs(struct fsm *f, unsigned realm, int64_t bytes);
/* The same for its attributes' bytes. No command asks whether they fit: see fsm_quota.c. */
static inline void fsm_charge_attrs(struct fsm *f, const struct fsm_inode *i, int64_t bytes)
{
    if (i->realm)
        fsm_realm_charge_attrs(f, i->realm, bytes);
}
/* 0, or -EDQUOT when the realm of i (a file, or the directory that gets something new) has no room
 * for so much more. Asking for nothing is always granted. */
static inline int fsm_quota_room(const struct fsm *f, const struct fsm_inode *i, uint64_t bytes,
                                 uint64_t inodes)
{
    return i->realm ? fsm_realm_room(f, i->realm, bytes, inodes) : 0;
}
/* Bytes of [off, end) that no extent of the file covers: what writing there would add. */
uint64_t fsm_file_holes(const struct fsm_inode *i, uint64_t off, uint64_t end);
/* 0 or -EDQUOT for a commit of these extents, each `shift` bytes behind its file_off; sum: of their
 * lengths. */
int fsm_quota_commit(const struct fsm *f, const struct fsm_inode *i, const Replfs__CommitOp *op,
                     uint64_t shift, uint64_t sum);
void fsm_quota_join(struct fsm *f, uint32_t h, uint32_t dir); /* a new inode, made in dir */
/* Inode h is to go from one directory to another, `other` (0: none) the other way: 0, -EXDEV or
 * -EDQUOT. Then fsm_quota_move for each. */
int fsm_quota_move_check(const struct fsm *f, uint32_t h, uint32_t other, uint32_t from_dir,
                         uint32_t to_dir);
void fsm_quota_move(struct fsm *f, uint32_t h, uint32_t from_dir, uint32_t to_dir);
void fsm_quota_dir_gone(struct fsm *f, uint32_t h); /* a directory lost its name */
void fsm_quota_attr(const struct fsm *f, const struct fsm_inode *i, Replfs__Attr *out);
/* Loading: a realm as the checkpoint has it; false: number or root is impossible or there twice. */
bool fsm_quota_load(struct fsm *f, unsigned realm, const struct fsm_realm *r);
/* When all is loaded: nesting and use from the inodes. NULL, or what is wrong. */
const char *fsm_quota_finish(struct fsm *f);
int fsm_op_quota(struct fsm *f, const Replfs__QuotaOp *op, struct fsm_result *res);

/* ---- fsm_session.c ---- */
struct fsm_session *fsm_session_find(const struct fsm *f, uint64_t id);
/* NULL when the id is taken. */
struct fsm_session *fsm_session_add(struct fsm *f, uint64_t id, const char *name,
                                    const char *host_id);
/* True when seq was answered before (*res filled) or is refused; else it shall be executed and
 * remembered. */
bool fsm_session_recall(struct fsm *f, struct fsm_session *s, uint64_t seq, uint64_t acked,
                        struct fsm_result *res);
int fsm_session_remember(struct fsm *f, struct fsm_session *s,
                         const struct fsm_answer *a); /* -EEXIST */
/* NULL: there is none, or it was removed. */
struct fsm_member *fsm_member_find(const struct fsm *f, uint32_t chunkd);
int fsm_member_add(struct fsm *f, uint32_t chunkd, const char *host_id, const char *host_name);
int fsm_op_session_open(struct fsm *f, const Replfs__SessionOpenOp *op);
int fsm_op_holds(struct fsm *f, const Replfs__HoldsOp *op);
int fsm_op_session_close(struct fsm *f, const Replfs__SessionCloseOp *op);
/* Others changed what a kept command would change, while its session had lapsed. */
bool fsm_session_late(const struct fsm *f, const struct fsm_session *s, const Replfs__MetaOp *op);
int fsm_op_reserve(struct fsm *f, const Replfs__ReserveOp *op);
int fsm_op_chunkd_add(struct fsm *f, const Replfs__ChunkdAddOp *op);
int fsm_op_chunkd_remove(struct fsm *f, const Replfs__ChunkdRemoveOp *op);
int fsm_op_replaced(struct fsm *f, const Replfs__ReplacedOp *op);
char *fsm_keep_string(struct fsm *f, const char *s); /* a copy, cut to FSM_STRING_MAX, counted */
void fsm_drop_string(struct fsm *f, const char *s);
void fsm_sessions_free(struct fsm *f);

/* ---- fsm_chunkd.c ---- */
int fsm_op_chunkd_set(struct fsm *f, const Replfs__ChunkdSetOp *op);
void fsm_decided_drop(struct fsm *f, struct fsm_member *m); /* as if nothing had been decided */
/* From a checkpoint, which is right about a chunkd only once. False: it cannot be. d's limits are copied. */
bool fsm_decided_load(struct fsm *f, uint32_t chunkd, const struct fsm_decided *d);
bool fsm_decided_any(const struct fsm_decided *d);

/* ---- fsm_past.c ---- */
int fsm_op_incarnation(struct fsm *f, uint64_t position, const Replfs__IncarnationOp *op);
int fsm_op_future(struct fsm *f, const Replfs__FutureOp *op);
int fsm_op_recover(struct fsm *f);
/* Chunk ids below `to` that were never reserved here were given by another metad; perhaps also those
 * that this incarnation reserved before it knew. */
void fsm_past_gap(struct fsm *f, uint64_t to);
/* From a checkpoint: false when it is malformed, out of order or there twice. */
bool fsm_past_load(struct fsm *f, const struct fsm_incarnation *i);
bool fsm_future_load(struct fsm *f, const struct fsm_future *u);
bool fsm_foreign_load(struct fsm *f, uint64_t from, uint64_t to);
bool fsm_doubt_load(struct fsm *f, uint64_t session);
void fsm_past_fini(struct fsm *f);

/* ---- fsm_cluster.c ---- */
void fsm_cluster_init(struct fsm *f);
void fsm_cluster_fini(struct fsm *f);
void fsm_cluster_reset(struct fsm *f); /* after fini: as init, but offers stay */
/* All but what is of this process: its id, what it offers. */
void fsm_cluster_exchange(struct fsm_cluster *a, struct fsm_cluster *b);
/* NULL, or why this version must not apply the command: others would do something else. */
const char *fsm_not_understood(const struct fsm *f, const Replfs__Command *cmd);
int fsm_op_metad(struct fsm *f, const Replfs__MetadOp *op);
int fsm_op_config(struct fsm *f, const Replfs__ConfigOp *op);
int fsm_op_cap_key(struct fsm *f, const Replfs__CapKeyOp *op);
int fsm_op_feature(struct fsm *f, const Replfs__FeatureOp *op);
/* From a checkpoint: false when it is malformed or there twice. */
bool fsm_feature_load(struct fsm *f, uint32_t level);
bool fsm_metads_load(struct fsm *f, uint32_t metad_new); /* and forgets all that were there */
bool fsm_metad_load(struct fsm *f, const struct fsm_metad *m);
bool fsm_setting_load(struct fsm *f, unsigned number, uint64_t value);
bool fsm_term_load(struct fsm *f, uint64_t was, uint64_t lowered);
void fsm_cap_key_load(struct fsm *f, uint64_t id, const uint8_t *key);
#endif
