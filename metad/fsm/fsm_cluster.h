/* What the replicated state says of the cluster itself: its metads, the settings that all of them must agree on, the
 * key of capabilities, and the feature level. Changed by fsm_apply alone (MetadOp, ConfigOp, CapKeyOp, FeatureOp).
 *
 * Under the fsm lock unless said otherwise. */
#ifndef REPLFS_METAD_FSM_FSM_CLUSTER_H
#define REPLFS_METAD_FSM_FSM_CLUSTER_H
#include "fsm.h"
#include "metaop.h"
#include "settings.h"

/* ---- metads ---- */
#define FSM_METADS_MAX 16u
struct fsm_metad {
    uint32_t id;
    /* Each at most 255 bytes, "" when not known: a cluster that was never told begins as {1, "", "", ""}. They live
     * while the lock is held. */
    const char *addr, *name, *host_id;
    unsigned newest; /* soft: the feature level that its version knows, 0: not told */
};
/* The next one by id; after 0: the first. */
bool fsm_metad_next(struct fsm *f, uint32_t after, struct fsm_metad *out);
bool fsm_metad_find(struct fsm *f, uint32_t id, struct fsm_metad *out);
uint32_t fsm_metads(struct fsm *f); /* how many */
uint32_t fsm_metad_new(
    struct fsm *f); /* the id for a new one, for MetadOp: above all that were ever given */

/* Where all of them are, copied: for those who connect to them (SessionReply.metads and the like). None for a cluster
 * that never had a second one: whoever is told found it, and under an address that is sure to work. Takes the lock. */
struct fsm_addrs {
    char *list[FSM_METADS_MAX]; /* points into text */
    size_t n;
    char text[FSM_METADS_MAX][256];
};
void fsm_metad_addrs(struct fsm *f, struct fsm_addrs *out);

/* ---- settings ---- */
/* What holds now. Any thread, no lock: read it where it is used, it changes while metad runs. */
uint64_t fsm_setting(const struct fsm *f, enum setting_key s);
/* The state says it, as opposed to fsm_setting_offer or the table's default. */
bool fsm_setting_told(struct fsm *f, enum setting_key s);
/* What this process takes as long as the state does not say: of its flags. 0: nothing, but none
 * for meta-copies. No part
 * of the state. Takes the fsm lock. */
void fsm_setting_offer(struct fsm *f, enum setting_key s, uint64_t value);
/* The longest lease term that a session may still go by, which it was told before it was lowered: wait for this one
 * where leases of sessions that have not come back since are waited for. Any thread, no lock. */
uint64_t fsm_term_longest(const struct fsm *f);
/* Position of the last lowering that some session may not have heard of, for ConfigOp.heard; 0: none. */
uint64_t fsm_term_lowered(struct fsm *f);
/* What would be wrong with the settings if these n were changed (with what holds now for all others): NULL or a
 * static string. */
const char *fsm_settings_wrong(struct fsm *f, const uint32_t *key, const uint64_t *value, size_t n);

/* ---- capabilities ---- */
#define FSM_CAP_KEY_LEN 32u
/* False: there is none yet. */
bool fsm_cap_key(struct fsm *f, uint64_t *id, uint8_t key[FSM_CAP_KEY_LEN]);

/* ---- feature level ---- */
/* Operations up to this level may be logged (metaop.h). 0: as before there were levels. Any thread, no lock. */
unsigned fsm_feature_level(const struct fsm *f);
#define FSM_FEATURE_MAX METAOP_LEVEL_MAX /* of this version */
/* What a metad's own version knows, as it told us: soft, of this process, kept for members only. This one's own need
 * not be told. Takes the fsm lock. */
void fsm_metad_newest(struct fsm *f, uint32_t id, unsigned newest);
/* `self` is this metad's id (1 unless said). Takes the fsm lock. */
void fsm_metad_self(struct fsm *f, uint32_t self);
/* The newest level that every metad knows, no more than this version's. *behind: the first one that does not know
 * FSM_FEATURE_MAX or has not told, 0: none. */
unsigned fsm_upgrade_to(struct fsm *f, uint32_t *behind);
#endif
