/* The nodes rig's stand-in for the log: applies at once; while it is stalled, proposals wait. Part of nodes_rig.h, for its
 * eyes only. */
#ifndef REPLFS_TESTS_NODES_RIG_LOG_H
#define REPLFS_TESTS_NODES_RIG_LOG_H
/* While it is stalled, proposals wait. */
struct proposal {
    uint8_t cmd[256];
    size_t len;
    mlog_applied *fn;
    mlog_after *after;
    void *arg;
};
struct mlog {
    struct fsm *fsm;
    uint64_t index, leading;
    pthread_mutex_t lock;
    bool stalled;
    struct proposal waiting[8];
    unsigned nwaiting;
    struct mlog_member members[4];
    unsigned nmembers;
};

const char *mlog_uuid(struct mlog *m)
{
    (void)m;
    return NODES_RIG_UUID;
}

uint64_t mlog_id(struct mlog *m)
{
    (void)m;
    return 1;
}

unsigned mlog_members(struct mlog *m, struct mlog_member out[MLOG_MEMBERS_MAX])
{
    pthread_mutex_lock(&m->lock);
    unsigned n = m->nmembers;
    memcpy(out, m->members, n * sizeof(out[0]));
    pthread_mutex_unlock(&m->lock);
    return n;
}

bool mlog_is_leader(struct mlog *m)
{
    (void)m;
    return true;
}

void mlog_status(struct mlog *m, struct mlog_status *out)
{
    *out = (struct mlog_status){.leader = true, .applied = m->index, .last = m->index};
}

static inline bool put_off(struct mlog *m, const Replfs__Command *cmd, mlog_applied *fn,
                           mlog_after *after, void *arg)
{
    pthread_mutex_lock(&m->lock);
    bool stalled = m->stalled;
    if (stalled) {
        assert_true(m->nwaiting < 8);
        struct proposal *p = &m->waiting[m->nwaiting++];
        assert_true(replfs__command__get_packed_size(cmd) <= sizeof p->cmd);
        p->len = replfs__command__pack(cmd, p->cmd);
        p->fn = fn;
        p->after = after;
        p->arg = arg;
    }
    pthread_mutex_unlock(&m->lock);
    return stalled;
}

static inline void carry_out(struct mlog *m, const Replfs__Command *cmd, mlog_applied *fn,
                             mlog_after *after, void *arg)
{
    struct fsm_result res;
    fsm_wrlock(m->fsm);
    fsm_apply(m->fsm, ++m->index, cmd, &res);
    fn(arg, 0, &res);
    fsm_unlock(m->fsm);
    after(arg);
}

void mlog_propose_as(struct mlog *m, uint64_t leading, Replfs__Command *cmd, mlog_applied *fn,
                     mlog_after *after, void *arg)
{
    (void)leading;
    if (!cmd->time_ns)
        cmd->time_ns = clock_wall();
    if (!put_off(m, cmd, fn, after, arg))
        carry_out(m, cmd, fn, after, arg);
}

uint64_t mlog_leading(struct mlog *m)
{
    return __atomic_load_n(&m->leading, __ATOMIC_ACQUIRE);
}

static inline void stall(struct mlog *m)
{
    pthread_mutex_lock(&m->lock);
    m->stalled = true;
    pthread_mutex_unlock(&m->lock);
}

/* Carries out what waits; what comes now goes on waiting. */
static inline void let_through(struct mlog *m)
{
    pthread_mutex_lock(&m->lock);
    unsigned n = m->nwaiting;
    struct proposal *list = calloc(n + 1, sizeof *list);
    memcpy(list, m->waiting, n * sizeof *list);
    m->nwaiting = 0;
    pthread_mutex_unlock(&m->lock);
    for (unsigned i = 0; i < n; i++) {
        Replfs__Command *cmd = replfs__command__unpack(NULL, list[i].len, list[i].cmd);
        carry_out(m, cmd, list[i].fn, list[i].after, list[i].arg);
        replfs__command__free_unpacked(cmd, NULL);
    }
    free(list);
}

static inline void waited_applied(void *arg, int code, const struct fsm_result *res)
{
    *(struct fsm_result *)arg = *res;
    (void)code;
}

static inline void waited_after(void *arg)
{
    (void)arg;
}

int mlog_propose_wait(struct mlog *m, Replfs__Command *cmd, struct fsm_result *res)
{
    carry_out(m, cmd, waited_applied, waited_after, res);
    return 0;
}

static inline void go_on(struct mlog *m)
{
    pthread_mutex_lock(&m->lock);
    m->stalled = false;
    pthread_mutex_unlock(&m->lock);
    let_through(m);
}
#endif
