/* The state machine's frame: making and freeing it, the lock, and fsm_apply, which takes a command
 * through session check, duplicate memory, the operation, and remembering the answer.
 *
 * Every operation validates completely before it changes anything, so a command either happens or
 * leaves no trace but its remembered code. Not remembered are answers that say "this command was
 * not looked at" (ERR_SESSION, ERR_BUSY): the sender may repeat it.
 *
 * Failure modes: a malformed command yields EINVAL. Thread context: apply under the write lock. */
#include "fsm_internal.h"
#include "metaop.h"
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/lock.h"

uint64_t fsm_hash_bytes(uint64_t key, const uint8_t *p, size_t len)
{
    uint64_t h = hash_u64(key ^ len), w;

    for (; len >= 8; p += 8, len -= 8) {
        memcpy(&w, p, 8);
        h = hash_u64(h ^ w) + key;
    }
    if (len) {
        w = 0;
        memcpy(&w, p, len);
        h = hash_u64(h ^ w) + key;
    }
    return hash_u64(h);
}

/* Root directory only. All is zero, but lock, key and cluster. */
static void fill_empty(struct fsm *f)
{
    fsm_slab_init(&f->inodes, sizeof(struct fsm_inode));
    fsm_slab_init(&f->chunks, sizeof(struct fsm_chunk));
    fsm_slab_init(&f->xsets, sizeof(struct fsm_xset));
    fsm_slab_init(&f->shares, sizeof(struct fsm_share));
    fsm_arena_init(&f->dentries);
    fsm_htab_init(&f->by_ino);
    fsm_htab_init(&f->by_name);
    fsm_htab_init(&f->by_chunk);
    fsm_htab_init(&f->by_xattr);
    f->chunk_upto = 1;
    f->ino_upto = FSM_ROOT_INO + 1;
    uint32_t h = fsm_inode_new(f, FSM_ROOT_INO, S_IFDIR | 0755);
    struct fsm_inode *root = fsm_inode_at(f, h);
    root->nlink = 1;
    root->goal = FSM_DEFAULT_GOAL;
    root->u.dir.parent = h;
}

int fsm_new(struct fsm **out)
{
    struct fsm *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    rwlock_init(&f->lock, LOCK_FSM, true); /* the log thread must not starve behind readers */
    if (getrandom(&f->hash_key, sizeof(f->hash_key), GRND_NONBLOCK) < 0)
        f->hash_key = (uint64_t)(uintptr_t)f;
    fsm_cluster_init(f);
    fill_empty(f);
    *out = f;
    return 0;
}

/* Frees all that hangs on it but the cluster's strings, without a word to anybody. */
static void drop_all(struct fsm *f)
{
    f->hooks = (struct fsm_hooks){0};
    for (uint32_t h = 1; h <= f->inodes.used; h++) {
        struct fsm_inode *i = fsm_inode_at(f, h);
        if (!i->ino)
            continue;
        if (S_ISREG(i->mode))
            extmap_free(&i->u.map);
        else if (S_ISLNK(i->mode))
            free(i->u.target);
        else if (S_ISDIR(i->mode))
            fsm_oset_fini(&i->u.dir.entries, &f->heap);
    }
    for (uint32_t h = 1; h <= f->chunks.used; h++) {
        fsm_share_drop(f, fsm_chunk_at(f, h));
        fsm_chunk_drop_locs(fsm_chunk_at(f, h));
    }
    fsm_oset_fini(&f->orphans, &f->heap);
    fsm_oset_fini(&f->regoal, &f->heap);
    fsm_sessions_free(f);
    fsm_xattr_fini(f);
    fsm_past_fini(f);
    free(f->realms);
    fsm_htab_fini(&f->by_ino);
    fsm_htab_fini(&f->by_name);
    fsm_htab_fini(&f->by_chunk);
    fsm_slab_fini(&f->inodes);
    fsm_slab_fini(&f->chunks);
    fsm_slab_fini(&f->shares);
    fsm_arena_fini(&f->dentries);
}

void fsm_free(struct fsm *f)
{
    if (!f)
        return;
    drop_all(f);
    fsm_cluster_fini(f);
    rwlock_destroy(&f->lock);
    free(f);
}

void fsm_reset(struct fsm *f)
{
    struct fsm_hooks hooks = f->hooks;

    drop_all(f);
    fsm_cluster_fini(f);
    f->heap = 0;
    fsm_cluster_reset(f);
    f->orphans = (struct fsm_oset){0};
    f->regoal = (struct fsm_oset){0};
    f->regoal_ino = f->regoal_off = 0;
    f->regoal_again = false;
    f->sessions = NULL;
    f->nsessions = f->sessions_cap = f->nlapsed = 0;
    f->members = NULL;
    f->nmembers = f->members_cap = 0;
    f->realms = NULL;
    atomic_store(&f->nrealms, 0);
    f->past = (struct fsm_past){0};
    f->applied = f->change = 0;
    f->n = (struct fsm_counts){0};
    f->now = 0;
    fill_empty(f);
    f->hooks = hooks;
}

#define EXCHANGE(field)                                                                            \
    do {                                                                                           \
        __typeof__(f->field) was_ = f->field;                                                      \
        f->field = from->field;                                                                    \
        from->field = was_;                                                                        \
    } while (0)

void fsm_exchange(struct fsm *f, struct fsm *from)
{
    EXCHANGE(hash_key);
    EXCHANGE(inodes);
    EXCHANGE(chunks);
    EXCHANGE(shares);
    EXCHANGE(xsets);
    EXCHANGE(dentries);
    EXCHANGE(by_ino);
    EXCHANGE(by_name);
    EXCHANGE(by_chunk);
    EXCHANGE(by_xattr);
    EXCHANGE(orphans);
    EXCHANGE(regoal);
    EXCHANGE(regoal_ino);
    EXCHANGE(regoal_off);
    EXCHANGE(regoal_again);
    EXCHANGE(steps);
    EXCHANGE(sessions);
    EXCHANGE(nsessions);
    EXCHANGE(sessions_cap);
    EXCHANGE(nlapsed);
    EXCHANGE(members);
    EXCHANGE(nmembers);
    EXCHANGE(members_cap);
    EXCHANGE(realms);
    EXCHANGE(past);
    EXCHANGE(applied);
    EXCHANGE(change);
    EXCHANGE(chunk_upto);
    EXCHANGE(ino_upto);
    EXCHANGE(n);
    EXCHANGE(heap);
    EXCHANGE(now);
    unsigned realms = atomic_load(&f->nrealms);
    atomic_store(&f->nrealms, atomic_load(&from->nrealms));
    atomic_store(&from->nrealms, realms);
    fsm_cluster_exchange(&f->cluster, &from->cluster);
}

void fsm_rdlock_at(struct fsm *f, const char *where)
{
    rwlock_read_at(&f->lock, where);
}

void fsm_wrlock_at(struct fsm *f, const char *where)
{
    rwlock_write_at(&f->lock, where);
}

void fsm_unlock_at(struct fsm *f, const char *where)
{
    rwlock_release_at(&f->lock, where);
}

void fsm_set_hooks(struct fsm *f, const struct fsm_hooks *h)
{
    f->hooks = h ? *h : (struct fsm_hooks){0};
}

static int fsm_run(struct fsm *f, const Replfs__Command *cmd, struct fsm_result *res)
{
    const Replfs__MetaOp *op = cmd->op;
    enum metaop m = metaop_of(op);

    if (cmd->session && metaop_sender(m) == METAOP_BY_LEADER)
        return -EPERM;
    switch (m) {
    case METAOP_CREATE:
        return fsm_op_create(f, cmd->session, op->create, res);
    case METAOP_UNLINK:
        return fsm_op_unlink(f, op->unlink, res);
    case METAOP_RENAME:
        return fsm_op_rename(f, op->rename, res);
    case METAOP_LINK:
        return fsm_op_link(f, op->link, res);
    case METAOP_SETATTR:
        return fsm_op_setattr(f, op->setattr, res);
    case METAOP_COMMIT:
        return fsm_op_commit(f, cmd->session, op->commit, res);
    case METAOP_SET_GOAL:
        return fsm_op_set_goal(f, op->set_goal, res);
    case METAOP_SESSION_OPEN:
        return fsm_op_session_open(f, op->session_open);
    case METAOP_SESSION_CLOSE:
        return fsm_op_session_close(f, op->session_close);
    case METAOP_REAP:
        return fsm_op_reap(f, op->reap, res);
    case METAOP_RESERVE:
        return fsm_op_reserve(f, op->reserve);
    case METAOP_CHUNKD_ADD:
        return fsm_op_chunkd_add(f, op->chunkd_add);
    case METAOP_CHUNKD_REMOVE:
        return fsm_op_chunkd_remove(f, op->chunkd_remove);
    case METAOP_ATIME:
        return fsm_op_atime(f, op->atime);
    case METAOP_XATTR:
        return fsm_op_xattr(f, op->xattr, res);
    case METAOP_CLONE:
        return fsm_op_clone(f, op->clone, res);
    case METAOP_FALLOCATE:
        return fsm_op_fallocate(f, op->fallocate, res);
    case METAOP_QUOTA:
        return fsm_op_quota(f, op->quota, res);
    case METAOP_INCARNATION:
        return fsm_op_incarnation(f, f->applied, op->incarnation);
    case METAOP_HOLDS:
        return fsm_op_holds(f, op->holds);
    case METAOP_FUTURE:
        return fsm_op_future(f, op->future);
    case METAOP_RECOVER:
        return fsm_op_recover(f);
    case METAOP_METAD:
        return fsm_op_metad(f, op->metad);
    case METAOP_CONFIG:
        return fsm_op_config(f, op->config);
    case METAOP_CAP_KEY:
        return fsm_op_cap_key(f, op->cap_key);
    case METAOP_REPLACED:
        return fsm_op_replaced(f, op->replaced);
    case METAOP_FEATURE:
        return fsm_op_feature(f, op->feature);
    case METAOP_CHUNKD_SET:
        return fsm_op_chunkd_set(f, op->chunkd_set);
    case METAOP_COMPACT:
        return fsm_op_compact(f, op->compact, res);
    case METAOP_CHECK:
        return 0; /* it is about the state, and nothing in it */
    case METAOP_NONE:
        break;
    }
    return -EINVAL;
}

/* protobuf-c leaves the union pointer NULL only in hand-made messages, but those are input too. */
static bool is_complete(const Replfs__Command *cmd)
{
    return cmd->op && cmd->op->op_case != REPLFS__META_OP__OP__NOT_SET && cmd->op->create;
}

static bool is_part(const Replfs__MetaOp *op)
{
    return op->op_case == REPLFS__META_OP__OP_FALLOCATE && op->fallocate->part;
}

void fsm_apply(struct fsm *f, uint64_t index, const Replfs__Command *cmd, struct fsm_result *res)
{
    struct fsm_session *s = NULL;

    *res = (struct fsm_result){0};
    if (index > f->applied)
        f->applied = index;
    f->now = cmd->time_ns;
    f->steps = FSM_STEPS_MAX;
    res->stop = fsm_not_understood(f, cmd);
    if (res->stop) {
        res->code = ERR_VERSION;
        return;
    }
    if (!is_complete(cmd)) {
        res->code = EINVAL;
        return;
    }
    if (cmd->session) {
        s = fsm_session_find(f, cmd->session);
        if (!s || s->lapsed) {
            res->code = ERR_SESSION;
            return;
        }
        if (cmd->seq && fsm_session_recall(f, s, cmd->seq, cmd->acked_seq, res))
            return;
    }
    int code = s && cmd->kept && fsm_session_late(f, s, cmd->op) ? -ESTALE : fsm_run(f, cmd, res);
    if (code)
        *res = (struct fsm_result){.code = -code};
    if (is_part(cmd->op))
        return; /* the number belongs to what follows */
    /* the command may have closed its own session */
    if (s && cmd->seq && (s = fsm_session_find(f, cmd->session))) {
        struct fsm_answer a = {cmd->seq, res->ino, res->parent, res->value, (uint32_t)res->code};
        code = fsm_session_remember(f, s, &a);
        assert(code == 0);
    }
}

uint64_t fsm_applied(struct fsm *f)
{
    return f->applied;
}

void fsm_reserved(struct fsm *f, uint64_t *chunk_upto, uint64_t *ino_upto)
{
    *chunk_upto = f->chunk_upto;
    *ino_upto = f->ino_upto;
}

void fsm_counts(struct fsm *f, struct fsm_counts *out)
{
    *out = f->n;
    out->chunks = f->chunks.count;
    out->sessions = f->nsessions - f->nlapsed;
    out->sessions_lapsed = f->nlapsed;
    out->orphans = f->orphans.count;
}

uint64_t fsm_memory(struct fsm *f)
{
    uint64_t sum = sizeof(*f) + f->heap + fsm_slab_memory(&f->inodes) +
                   fsm_slab_memory(&f->chunks) + fsm_arena_memory(&f->dentries) +
                   fsm_htab_memory(&f->by_ino) + fsm_htab_memory(&f->by_name) +
                   fsm_htab_memory(&f->by_chunk) + fsm_slab_memory(&f->xsets) +
                   fsm_slab_memory(&f->shares) + fsm_htab_memory(&f->by_xattr);

    for (uint32_t h = 1; h <= f->inodes.used; h++) {
        const struct fsm_inode *i = fsm_inode_at(f, h);
        if (i->ino && S_ISREG(i->mode))
            sum += extmap_memory(&i->u.map);
    }
    return sum;
}
