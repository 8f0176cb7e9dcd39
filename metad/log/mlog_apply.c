/* From a committed entry to the state machine: decode, apply every command under the fsm's write
 * lock, let the proposers build their answers from the state, raise the high-water mark, then let
 * them send.
 *
 * Commands of one entry get increasing fsm positions: log index << 8 | place in the entry (an entry
 * holds at most 256). Commands are unpacked into an arena that is reset for each, since a metad
 * does this for every operation of every client. Log thread. */
#include "mlog_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "entry.h"

#define LOG_MODULE "mlog"
#define ARENA_BYTES (1u << 20)

/* ---- arena: what does not fit comes from the heap ----
 *
 * Without memory the process ends: were it told to protobuf-c, a command that all other metads
 * execute would look malformed here, and this one's state would be another from then on. */

static void *apply_take(size_t size)
{
    void *p = malloc(size);

    if (!p) {
        log_error("out of memory while applying the log");
        abort();
    }
    return p;
}

static void *arena_alloc(void *data, size_t size)
{
    struct mlog *m = data;
    size_t want = (size + 15u) & ~(size_t)15u;

    if (!m->arena)
        m->arena = apply_take(ARENA_BYTES);
    if (want > ARENA_BYTES - m->arena_pos)
        return apply_take(size);
    void *p = m->arena + m->arena_pos;
    m->arena_pos += want;
    return p;
}

static void arena_free(void *data, void *p)
{
    struct mlog *m = data;
    uint8_t *b = p;

    if (!m->arena || b < m->arena || b >= m->arena + ARENA_BYTES)
        free(p);
}

/* Not while leading, when that takes as long as a fork for a checkpoint may not either: the others would elect. */
static bool may_fork(const struct mlog *m)
{
    int64_t fork_ns = digests_fork_ns(m->digests);

    if (m->ckpt.fork_ns > fork_ns)
        fork_ns = m->ckpt.fork_ns;
    return !atomic_load(&m->leader) || mlog_alone(m) || fork_ns <= m->long_fork_ns;
}

static void apply_command(struct mlog *m, uint64_t pos, const uint8_t *p, size_t len,
                          struct fsm_result *res)
{
    ProtobufCAllocator alloc = {.alloc = arena_alloc, .free = arena_free, .allocator_data = m};

    memset(res, 0, sizeof(*res));
    m->arena_pos = 0;
    Replfs__Command *cmd = replfs__command__unpack(&alloc, len, p);
    if (!cmd) {
        res->code = ERR_PROTOCOL; /* the same on every metad: the bytes alone decide */
        return;
    }
    fsm_apply(m->fsm, pos, cmd, res);
    if (m->digests && res->code == 0 && metaop_of(cmd->op) == METAOP_CHECK &&
        digests_check(m->digests, pos, cmd->op->check, may_fork(m)) != 0) {
        res->code = ERR_CORRUPT;
        res->stop = "the proof that this metad differs";
    }
    replfs__command__free_unpacked(cmd, &alloc);
}

/* Another metad does something with the command that this one cannot do: were it passed over, the two would differ from
 * here on. */
static int apply_refuse(struct mlog *m, uint64_t index, const struct fsm_result *res)
{
    if (res->code != ERR_VERSION)
        return -res->code; /* digests.c has said it */
    log_error("log entry %" PRIu64
              " holds %s (feature level %u, this replfs-metad knows up to %u, version %s): it "
              "cannot go on. Start a replfs-metad of the version that wrote it, or a newer one, "
              "with this directory",
              index, res->stop, fsm_feature_level(m->fsm), FSM_FEATURE_MAX, REPLFS_VERSION);
    return -(int)res->code;
}

/* Cuts the list before `at`, NULL: behind its end; returns what follows. */
static struct mlog_proposal *props_split(struct mlog_proposal **list, struct mlog_proposal *at)
{
    while (*list != at)
        list = &(*list)->next;
    *list = NULL;
    return at;
}

int mlog_apply_entry(struct mlog *m, uint64_t index, const uint8_t *buf, size_t len,
                     struct mlog_proposal *props)
{
    struct entry e;
    const char *why;
    const uint8_t *cmd;
    size_t cmd_len;
    uint64_t pos = index << 8;

    int rc = entry_open(buf, len, &e, &why);
    if (rc == 0 && e.index != index) {
        why = "entry belongs to another place of the log";
        rc = -ERR_CORRUPT;
    }
    if (rc != 0) {
        log_error("log entry %" PRIu64 " cannot be applied: %s", index, why);
        mlog_fail_proposals(props, -EIO);
        return rc;
    }
    struct mlog_proposal *p = props, *rest = NULL;
    fsm_wrlock(m->fsm);
    while (entry_next(&e, &cmd, &cmd_len)) {
        struct fsm_result res;
        apply_command(m, pos++, cmd, cmd_len, &res);
        if (res.stop) {
            rc = apply_refuse(m, index, &res);
            rest = props_split(&props, p);
            break;
        }
        if (p) {
            if (p->fn)
                p->fn(p->arg, 0, &res);
            p = p->next;
        }
    }
    fsm_unlock(m->fsm);
    if (m->observer.applied)
        m->observer.applied(m->observer.arg, index, m->raft.current_term, buf, len);
    /* With others: what was stored here has raised it already (mlog_io.c), and an entry may count without that. */
    if (props && mlog_alone(m) && mlog_hwm_advance(&m->hwm, index, m->raft.current_term) != 0) {
        log_warn("%s/hwm cannot be written: damage to the log's end might go unnoticed", m->dir);
        atomic_store(&m->error, "the high-water mark cannot be written");
    }
    while (props) {
        struct mlog_proposal *next = props->next;
        if (props->after)
            props->after(props->arg);
        free(props);
        props = next;
    }
    mlog_fail_proposals(rest, -EIO);
    return rc;
}

void mlog_fail_proposals(struct mlog_proposal *p, int code)
{
    while (p) {
        struct mlog_proposal *next = p->next;
        if (p->fn)
            p->fn(p->arg, code, NULL);
        if (p->after)
            p->after(p->arg);
        free(p);
        p = next;
    }
}
