/* Settings of the cluster, as requests see them: what holds now, how they are changed (replfsctl config), and when a
 * lowered lease term is believed.
 *
 * A change goes through the log and holds from the moment it is applied; every part reads the value where it uses it.
 * Sessions go by the lease term that they were told. A longer one holds at once. A shorter one is told with each
 * keepalive, and until every session has said that it goes by it (KeepaliveReq.term_ms), and for the former term after
 * that, since what they were given before lasts so long, whoever waits for silent holders waits for the longest term
 * that was told (service_term). Clients that are too old to say it are waited for so until they are gone. When it is
 * over, that is logged, so that the next leader need not wait either.
 *
 * Upgrade: the feature level is raised to the newest that this metad and all others know (fsm_upgrade_to).
 *
 * Failure modes: refused with a text that names the setting and its range. Threads: rpc loops, the log thread for
 * completions, the sessions' thread for the tick. */
#include "service_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "config"

/* ---- what holds ---- */

unsigned service_setting(const struct service *s, enum setting_key k)
{
    return (unsigned)fsm_setting(s->cfg.fsm, k);
}

unsigned service_min_copies(const struct service *s)
{
    unsigned n = service_setting(s, SETTING_MIN_COPIES);

    return n ? n : 2;
}

unsigned service_term(const struct service *s)
{
    return (unsigned)fsm_term_longest(s->cfg.fsm);
}

/* ---- a lowered lease term ---- */

static void propose_heard(struct service *s, uint64_t position)
{
    Replfs__ConfigOp config = REPLFS__CONFIG_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;

    config.heard = position;
    op.op_case = REPLFS__META_OP__OP_CONFIG;
    op.config = &config;
    cmd.op = &op;
    log_info("every session goes by the lease term of %u ms now",
             service_setting(s, SETTING_LEASE_TERM));
    service_propose(s, &cmd, NULL, NULL, NULL);
}

void service_config_tick(struct service *s)
{
    unsigned term = service_setting(s, SETTING_LEASE_TERM), longest = service_term(s);
    int64_t now = clock_boot();

    if (longest <= term || atomic_load(&s->grace)) {
        s->heard_since = 0;
        return;
    }
    fsm_rdlock(s->cfg.fsm);
    uint64_t position = fsm_term_lowered(s->cfg.fsm);
    bool all = service_all_heard(s, term);
    fsm_unlock(s->cfg.fsm);
    if (!all)
        s->heard_since = 0;
    else if (s->heard_since == 0)
        s->heard_since = now;
    else if (now - s->heard_since > longest * NSEC_PER_MSEC) {
        s->heard_since = now; /* should the log not take it: once more, later */
        propose_heard(s, position);
    }
}

/* ---- requests ---- */

static void config_reply(struct service *s, struct rpc_req *req)
{
    Replfs__ConfigReply rep = REPLFS__CONFIG_REPLY__INIT;
    Replfs__SettingInfo info[SETTINGS_COUNT], *list[SETTINGS_COUNT];

    fsm_rdlock(s->cfg.fsm);
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++) {
        const struct setting_info *i = setting_info(k);
        Replfs__SettingInfo *o = list[k - 1] = &info[k - 1];
        replfs__setting_info__init(o);
        o->name = (char *)(uintptr_t)i->name;
        o->msec = i->type == SETTING_IS_MSEC;
        o->on_off = i->type == SETTING_IS_ON_OFF;
        o->value = fsm_setting(s->cfg.fsm, (enum setting_key)k);
        o->standard = i->standard;
        o->min = i->min;
        o->max = i->max;
        o->told = fsm_setting_told(s->cfg.fsm, (enum setting_key)k);
        o->help = (char *)(uintptr_t)i->help;
    }
    fsm_unlock(s->cfg.fsm);
    rep.settings = list;
    rep.n_settings = SETTINGS_COUNT;
    rep.level = fsm_feature_level(s->cfg.fsm);
    rep.newest = FSM_FEATURE_MAX;
    RPC_ENVELOPE(env, CONFIG_REPLY, config_reply, &rep);
    rpc_reply(req, &env, NULL);
}

struct changing { /* on its way through the log */
    struct service *s;
    struct rpc_req *req;
    unsigned level; /* an upgrade to this one, 0: settings */
    int code;
};

static void change_applied(void *arg, int code, const struct fsm_result *res)
{
    struct changing *c = arg;

    c->code = code ? code : -res->code;
    if (c->code == -EALREADY)
        c->code = 0;
}

static void change_after(void *arg)
{
    struct changing *c = arg;

    if (c->code == 0) {
        if (c->level)
            log_info("feature level %u: a replfs-metad of a version before it cannot go on with "
                     "this cluster any more",
                     c->level);
        config_reply(c->s, c->req);
    } else {
        rpc_fail(c->req, c->code, "the change did not get into the metadata log");
    }
    service_leave(c->s);
    free(c);
}

static void change_propose(struct service *s, struct rpc_req *req, Replfs__MetaOp *op,
                           unsigned level)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct changing *c = calloc(1, sizeof(*c));

    if (!c)
        abort();
    *c = (struct changing){.s = s, .req = req, .level = level};
    cmd.op = op;
    service_keep(s);
    service_propose(s, &cmd, change_applied, change_after, c);
}

/* The keys and values asked for; 0, or after rpc_fail a code. */
static int read_changes(struct rpc_req *req, uint32_t key[SETTINGS_COUNT],
                        uint64_t value[SETTINGS_COUNT])
{
    const Replfs__ConfigReq *r = req->env->config_req;

    if (r->n_set > SETTINGS_COUNT) {
        rpc_fail(req, EINVAL, "more changes than there are settings");
        return -EINVAL;
    }
    for (size_t k = 0; k < r->n_set; k++) {
        const struct setting_info *i = setting_info(key[k] = setting_find(r->set[k]->name));
        value[k] = r->set[k]->value;
        if (!i) {
            rpc_fail(req, EINVAL, "there is no setting '%.40s': see replfsctl config list",
                     r->set[k]->name);
            return -EINVAL;
        }
        if (value[k] < i->min || value[k] > i->max) {
            rpc_fail(req, EINVAL, "%s: from %" PRIu64 " to %" PRIu64 "%s", i->name, i->min, i->max,
                     i->type == SETTING_IS_MSEC ? " ms" : "");
            return -EINVAL;
        }
    }
    return 0;
}

static void change_settings(struct service *s, struct rpc_req *req)
{
    Replfs__ConfigOp config = REPLFS__CONFIG_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    uint32_t key[SETTINGS_COUNT];
    uint64_t value[SETTINGS_COUNT];
    size_t n = req->env->config_req->n_set;

    if (read_changes(req, key, value) != 0)
        return;
    fsm_rdlock(s->cfg.fsm);
    const char *wrong = fsm_settings_wrong(s->cfg.fsm, key, value, n);
    fsm_unlock(s->cfg.fsm);
    if (wrong) {
        rpc_fail(req, EINVAL, "%s", wrong);
        return;
    }
    unsigned level = metaop_level(METAOP_CONFIG);
    for (size_t k = 0; k < n; k++)
        level = setting_level(key[k]) > level ? setting_level(key[k]) : level;
    if (fsm_feature_level(s->cfg.fsm) < level) {
        rpc_fail(req, ERR_VERSION,
                 "the cluster's feature level is too low: when every metad runs this version, "
                 "raise it with 'replfsctl metad upgrade'");
        return;
    }
    for (size_t k = 0; k < n; k++)
        log_info("replfsctl config: %s becomes %" PRIu64 "%s", setting_info(key[k])->name, value[k],
                 setting_info(key[k])->type == SETTING_IS_MSEC ? " ms" : "");
    config.key = key;
    config.value = value;
    config.n_key = config.n_value = n;
    op.op_case = REPLFS__META_OP__OP_CONFIG;
    op.config = &config;
    change_propose(s, req, &op, 0);
}

static void raise_level(struct service *s, struct rpc_req *req)
{
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    uint32_t behind;

    fsm_rdlock(s->cfg.fsm);
    feature.level = fsm_upgrade_to(s->cfg.fsm, &behind);
    fsm_unlock(s->cfg.fsm);
    if (feature.level <= fsm_feature_level(s->cfg.fsm)) {
        if (feature.level < FSM_FEATURE_MAX)
            rpc_fail(req, EAGAIN,
                     "metad %u does not run this version yet, or has not been heard of: upgrade it "
                     "first, or remove it",
                     behind);
        else
            config_reply(s, req); /* nothing to raise */
        return;
    }
    op.op_case = REPLFS__META_OP__OP_FEATURE;
    op.feature = &feature;
    change_propose(s, req, &op, feature.level);
}

void service_config_req(struct service *s, struct rpc_req *req)
{
    const Replfs__ConfigReq *r = req->env->config_req;

    if (r->upgrade)
        raise_level(s, req);
    else if (r->n_set > 0)
        change_settings(s, req);
    else
        config_reply(s, req);
}
