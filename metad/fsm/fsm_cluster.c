/* The cluster's own part of the state: metads, settings, the key of capabilities, the feature level.
 *
 * Metads: a table of at most FSM_METADS_MAX. Ids only grow: metad_new is above all that were ever given, also when the
 * last one was removed since. Before anybody says something there is metad 1, of which nothing is known: the metad of
 * a cluster of one, and of every directory made before there was a table.
 *
 * Settings: what ConfigOp said; else what this process offers (its flags), else the table's default. The result is
 * kept in atomics, so that everybody reads it where it is used. A lease term that is lowered does not shorten what
 * sessions were told before: term_was keeps the longest such term until the leader says that all have heard
 * (ConfigOp.heard), and a new leader, who does not know what each session was told, waits that long.
 *
 * Feature level: an operation, or a field, that a version does not know must never be skipped by one metad and done
 * by another. So it is logged only when the level says that all metads know it, and one that meets such a thing
 * nevertheless must not go on (fsm_not_understood). Unknown fields count from level 1 on: before, leaders logged what
 * clients sent as it came.
 *
 * Failure modes: codes. Thread context: fsm lock; the atomics are read by anybody. */
#include "fsm_internal.h"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "unknown.h"

/* ---- metads ---- */

static uint32_t metad_pos(const struct fsm_cluster *c, uint32_t id)
{
    uint32_t k = 0;

    while (k < c->nmetads && c->metads[k].id < id)
        k++;
    return k;
}

static bool metad_is_at(const struct fsm_cluster *c, uint32_t k, uint32_t id)
{
    return k < c->nmetads && c->metads[k].id == id;
}

static void metad_put(struct fsm *f, uint32_t at, const struct fsm_metad *m)
{
    struct fsm_cluster *c = &f->cluster;

    memmove(&c->metads[at + 1], &c->metads[at], (c->nmetads - at) * sizeof(c->metads[0]));
    c->metads[at] =
        (struct fsm_metad){m->id, fsm_keep_string(f, m->addr), fsm_keep_string(f, m->name),
                           fsm_keep_string(f, m->host_id), 0};
    c->nmetads++;
    if (m->id >= c->metad_new)
        c->metad_new = m->id + 1;
}

static void metad_drop(struct fsm *f, uint32_t at)
{
    struct fsm_cluster *c = &f->cluster;
    const struct fsm_metad *m = &c->metads[at];

    fsm_drop_string(f, m->addr);
    fsm_drop_string(f, m->name);
    fsm_drop_string(f, m->host_id);
    c->nmetads--;
    memmove(&c->metads[at], &c->metads[at + 1], (c->nmetads - at) * sizeof(c->metads[0]));
}

static void change_string(struct fsm *f, const char **s, const char *to)
{
    if (!to[0])
        return;
    fsm_drop_string(f, *s);
    *s = fsm_keep_string(f, to);
}

/* Whatever was known of others, also that this one left: they are of a former life. */
static void metad_alone(struct fsm *f, uint32_t id)
{
    struct fsm_cluster *c = &f->cluster;
    const struct fsm_metad one = {id, "", "", "", 0};

    for (uint32_t k = c->nmetads; k > 0; k--)
        if (c->metads[k - 1].id != id)
            metad_drop(f, k - 1);
    if (c->nmetads == 0)
        metad_put(f, 0, &one);
}

int fsm_op_metad(struct fsm *f, const Replfs__MetadOp *op)
{
    struct fsm_cluster *c = &f->cluster;
    uint32_t at = metad_pos(c, op->id);
    bool there = metad_is_at(c, at, op->id);

    if (!op->id || op->id >= FSM_METAD_ID_MAX)
        return -EINVAL;
    if (op->alone) {
        metad_alone(f, op->id);
        return 0;
    }
    if (op->remove) {
        if (!there)
            return -ENOENT;
        if (c->nmetads == 1)
            return -EBUSY;
        metad_drop(f, at);
        return 0;
    }
    if (strlen(op->addr) > FSM_STRING_MAX || strlen(op->name) > FSM_STRING_MAX ||
        strlen(op->host_id) > FSM_STRING_MAX)
        return -ENAMETOOLONG;
    if (there && op->fresh)
        return -EEXIST;
    if (there) {
        struct fsm_metad *m = &c->metads[at];
        change_string(f, &m->addr, op->addr);
        change_string(f, &m->name, op->name);
        change_string(f, &m->host_id, op->host_id);
        return 0;
    }
    if (op->id < c->metad_new)
        return -EEXIST; /* it left: never again */
    if (c->nmetads == FSM_METADS_MAX)
        return -ENOSPC;
    struct fsm_metad m = {op->id, op->addr, op->name, op->host_id, 0};
    metad_put(f, at, &m);
    return 0;
}

bool fsm_metad_next(struct fsm *f, uint32_t after, struct fsm_metad *out)
{
    uint32_t at = after == UINT32_MAX ? f->cluster.nmetads : metad_pos(&f->cluster, after + 1);

    if (at == f->cluster.nmetads)
        return false;
    *out = f->cluster.metads[at];
    return true;
}

bool fsm_metad_find(struct fsm *f, uint32_t id, struct fsm_metad *out)
{
    uint32_t at = metad_pos(&f->cluster, id);

    if (!metad_is_at(&f->cluster, at, id))
        return false;
    *out = f->cluster.metads[at];
    return true;
}

uint32_t fsm_metads(struct fsm *f)
{
    return f->cluster.nmetads;
}

uint32_t fsm_metad_new(struct fsm *f)
{
    return f->cluster.metad_new;
}

void fsm_metad_addrs(struct fsm *f, struct fsm_addrs *out)
{
    struct fsm_metad m = {.id = 0};

    out->n = 0;
    fsm_rdlock(f);
    while (f->cluster.metad_new > 2 && fsm_metad_next(f, m.id, &m)) {
        if (!m.addr[0])
            continue;
        snprintf(out->text[out->n], sizeof(out->text[0]), "%s", m.addr);
        out->list[out->n] = out->text[out->n];
        out->n++;
    }
    fsm_unlock(f);
}

bool fsm_metads_load(struct fsm *f, uint32_t metad_new)
{
    while (f->cluster.nmetads > 0)
        metad_drop(f, f->cluster.nmetads - 1);
    f->cluster.metad_new = metad_new;
    return metad_new >= 2 && metad_new <= FSM_METAD_ID_MAX;
}

bool fsm_metad_load(struct fsm *f, const struct fsm_metad *m)
{
    struct fsm_cluster *c = &f->cluster;

    if (!m->id || m->id >= c->metad_new || c->nmetads == FSM_METADS_MAX ||
        metad_pos(c, m->id) != c->nmetads)
        return false;
    metad_put(f, c->nmetads, m);
    return true;
}

/* ---- settings ---- */

static void setting_settle(struct fsm_cluster *c, unsigned k)
{
    atomic_store(&c->now[k], c->is_told[k] ? c->told[k] : c->offer[k]);
}

uint64_t fsm_setting(const struct fsm *f, enum setting_key s)
{
    return atomic_load(&f->cluster.now[s]);
}

bool fsm_setting_told(struct fsm *f, enum setting_key s)
{
    return f->cluster.is_told[s];
}

void fsm_setting_offer(struct fsm *f, enum setting_key s, uint64_t value)
{
    if (value == 0 && s != SETTING_META_COPIES)
        return;
    fsm_wrlock(f);
    f->cluster.offer[s] = value;
    setting_settle(&f->cluster, s);
    fsm_unlock(f);
}

uint64_t fsm_term_longest(const struct fsm *f)
{
    uint64_t now = fsm_setting(f, SETTING_LEASE_TERM), was = atomic_load(&f->cluster.term_was);

    return now > was ? now : was;
}

uint64_t fsm_term_lowered(struct fsm *f)
{
    return f->cluster.term_lowered;
}

static const char *settings_with(const uint64_t *now, const uint32_t *key, const uint64_t *value,
                                 size_t n)
{
    uint64_t v[SETTINGS_COUNT + 1];

    memcpy(v, now, sizeof(v));
    for (size_t k = 0; k < n; k++) {
        if (!setting_info(key[k]))
            return "unknown setting";
        v[key[k]] = value[k];
    }
    return settings_wrong(v);
}

const char *fsm_settings_wrong(struct fsm *f, const uint32_t *key, const uint64_t *value, size_t n)
{
    uint64_t now[SETTINGS_COUNT + 1] = {0};

    for (unsigned k = 1; k <= SETTINGS_COUNT; k++)
        now[k] = fsm_setting(f, (enum setting_key)k);
    return settings_with(now, key, value, n);
}

/* What was told, with the table's defaults where nothing was: what this process offers must not decide. */
static void told_now(const struct fsm_cluster *c, uint64_t v[SETTINGS_COUNT + 1])
{
    v[0] = 0;
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++)
        v[k] = c->is_told[k] ? c->told[k] : setting_info(k)->standard;
}

static void term_changes(struct fsm *f, uint64_t to)
{
    struct fsm_cluster *c = &f->cluster;
    uint64_t was = atomic_load(&c->term_was);

    if (c->is_told[SETTING_LEASE_TERM] && to < c->told[SETTING_LEASE_TERM]) {
        if (c->told[SETTING_LEASE_TERM] > was)
            atomic_store(&c->term_was, c->told[SETTING_LEASE_TERM]);
        c->term_lowered = f->applied;
    } else if (to >= was) {
        atomic_store(&c->term_was, 0);
        c->term_lowered = 0;
    }
}

int fsm_op_config(struct fsm *f, const Replfs__ConfigOp *op)
{
    struct fsm_cluster *c = &f->cluster;
    uint64_t v[SETTINGS_COUNT + 1];

    told_now(c, v);
    if (op->n_key != op->n_value || op->n_key > SETTINGS_COUNT ||
        settings_with(v, op->key, op->value, op->n_key))
        return -EINVAL;
    if (op->heard && op->heard == c->term_lowered) {
        atomic_store(&c->term_was, 0);
        c->term_lowered = 0;
    }
    for (size_t k = 0; k < op->n_key; k++) {
        uint32_t key = op->key[k];
        if (key == SETTING_LEASE_TERM)
            term_changes(f, op->value[k]);
        c->told[key] = op->value[k];
        c->is_told[key] = true;
        setting_settle(c, key);
    }
    return 0;
}

bool fsm_setting_load(struct fsm *f, unsigned number, uint64_t value)
{
    struct fsm_cluster *c = &f->cluster;
    const struct setting_info *i = setting_info(number);

    if (!i || c->is_told[number] || value < i->min || value > i->max)
        return false;
    c->told[number] = value;
    c->is_told[number] = true;
    setting_settle(c, number);
    return true;
}

bool fsm_term_load(struct fsm *f, uint64_t was, uint64_t lowered)
{
    const struct setting_info *i = setting_info(SETTING_LEASE_TERM);

    if ((was == 0) != (lowered == 0) || was > i->max || lowered > f->applied)
        return false;
    atomic_store(&f->cluster.term_was, was);
    f->cluster.term_lowered = lowered;
    return true;
}

/* ---- capabilities ---- */

bool fsm_cap_key(struct fsm *f, uint64_t *id, uint8_t key[FSM_CAP_KEY_LEN])
{
    if (!f->cluster.has_cap_key)
        return false;
    *id = f->cluster.cap_key_id;
    memcpy(key, f->cluster.cap_key, FSM_CAP_KEY_LEN);
    return true;
}

int fsm_op_cap_key(struct fsm *f, const Replfs__CapKeyOp *op)
{
    if (op->key.len != FSM_CAP_KEY_LEN)
        return -EINVAL;
    fsm_cap_key_load(f, op->id, op->key.data);
    return 0;
}

void fsm_cap_key_load(struct fsm *f, uint64_t id, const uint8_t *key)
{
    f->cluster.has_cap_key = true;
    f->cluster.cap_key_id = id;
    memcpy(f->cluster.cap_key, key, FSM_CAP_KEY_LEN);
}

/* ---- feature level ---- */

unsigned fsm_feature_level(const struct fsm *f)
{
    return atomic_load(&f->cluster.level);
}

const char *fsm_not_understood(const struct fsm *f, const Replfs__Command *cmd)
{
    unsigned level = fsm_feature_level(f);
    const Replfs__MetaOp *op = cmd->op;

    if (!op)
        return NULL;
    enum metaop m = metaop_of(op);
    if (m == METAOP_NONE && op->base.n_unknown_fields > 0)
        return "an operation that this version does not know";
    if (m == METAOP_FEATURE) {
        if (op->feature && op->feature->level > FSM_FEATURE_MAX)
            return "a feature level that this version does not know";
    } else if (m == METAOP_METAD && op->metad && op->metad->alone) {
        return NULL; /* no other metad is there that might not know it, and whoever made it could not know the level */
    } else if (metaop_level(m) > level ||
               (m == METAOP_CHUNKD_REMOVE && op->chunkd_remove && op->chunkd_remove->drained &&
                metaop_level(METAOP_CHUNKD_SET) > level)) {
        return "an operation above the feature level";
    }
    if (level >= 1 && unknown_fields(&cmd->base) > 0)
        return "an operation with something that this version does not know";
    return NULL;
}

void fsm_metad_newest(struct fsm *f, uint32_t id, unsigned newest)
{
    struct fsm_cluster *c = &f->cluster;

    fsm_wrlock(f);
    uint32_t at = metad_pos(c, id);
    if (metad_is_at(c, at, id))
        c->metads[at].newest = newest;
    fsm_unlock(f);
}

void fsm_metad_self(struct fsm *f, uint32_t self)
{
    fsm_wrlock(f);
    f->cluster.self = self;
    fsm_unlock(f);
}

unsigned fsm_upgrade_to(struct fsm *f, uint32_t *behind)
{
    unsigned level = FSM_FEATURE_MAX;

    *behind = 0;
    for (uint32_t k = 0; k < f->cluster.nmetads; k++) {
        const struct fsm_metad *m = &f->cluster.metads[k];
        if (m->id == f->cluster.self || m->newest >= FSM_FEATURE_MAX)
            continue;
        level = m->newest < level ? m->newest : level;
        *behind = *behind ? *behind : m->id;
    }
    return level;
}

int fsm_op_feature(struct fsm *f, const Replfs__FeatureOp *op)
{
    if (op->level <= fsm_feature_level(f))
        return -EALREADY;
    atomic_store(&f->cluster.level, op->level);
    return 0;
}

bool fsm_feature_load(struct fsm *f, uint32_t level)
{
    if (level == 0 || level > FSM_FEATURE_MAX || fsm_feature_level(f))
        return false;
    atomic_store(&f->cluster.level, level);
    return true;
}

/* ---- both ends ---- */

static const struct fsm_metad first_metad = {1, "", "", "",
                                             0}; /* of a cluster that was never told */

void fsm_cluster_init(struct fsm *f)
{
    metad_put(f, 0, &first_metad);
    f->cluster.self = 1;
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++) {
        f->cluster.offer[k] = setting_info(k)->standard;
        setting_settle(&f->cluster, k);
    }
}

void fsm_cluster_fini(struct fsm *f)
{
    while (f->cluster.nmetads > 0)
        metad_drop(f, f->cluster.nmetads - 1);
}

void fsm_cluster_reset(struct fsm *f)
{
    struct fsm_cluster *c = &f->cluster;

    c->metad_new = 0;
    atomic_store(&c->level, 0);
    atomic_store(&c->term_was, 0);
    c->term_lowered = 0;
    c->has_cap_key = false;
    c->cap_key_id = 0;
    memset(c->cap_key, 0, sizeof(c->cap_key));
    metad_put(f, 0, &first_metad);
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++) {
        c->is_told[k] = false;
        c->told[k] = 0;
        setting_settle(c, k);
    }
}

void fsm_cluster_exchange(struct fsm_cluster *a, struct fsm_cluster *b)
{
    struct fsm_cluster was = *a;

    memcpy(a->metads, b->metads, sizeof(a->metads));
    memcpy(b->metads, was.metads, sizeof(b->metads));
    a->nmetads = b->nmetads;
    b->nmetads = was.nmetads;
    a->metad_new = b->metad_new;
    b->metad_new = was.metad_new;
    a->term_lowered = b->term_lowered;
    b->term_lowered = was.term_lowered;
    a->has_cap_key = b->has_cap_key;
    b->has_cap_key = was.has_cap_key;
    a->cap_key_id = b->cap_key_id;
    b->cap_key_id = was.cap_key_id;
    memcpy(a->cap_key, b->cap_key, sizeof(a->cap_key));
    memcpy(b->cap_key, was.cap_key, sizeof(b->cap_key));
    atomic_store(&a->level, atomic_load(&b->level));
    atomic_store(&b->level, atomic_load(&was.level));
    atomic_store(&a->term_was, atomic_load(&b->term_was));
    atomic_store(&b->term_was, atomic_load(&was.term_was));
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++) {
        a->is_told[k] = b->is_told[k];
        b->is_told[k] = was.is_told[k];
        a->told[k] = b->told[k];
        b->told[k] = was.told[k];
        setting_settle(a, k);
        setting_settle(b, k);
    }
}
