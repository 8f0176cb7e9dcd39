/* replfsctl config: the settings that all metads agree on, shown or changed. replfsctl metad upgrade: operations of a
 * new version may be used. What the settings are, their ranges and what they are for is told by metad. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "ctl.h"
#include "output.h"

/* ---- values ---- */

/* As it can be given: "10s", "500ms", "72h", "3". */
static const char *config_value(const Replfs__SettingInfo *i, uint64_t v, char out[32])
{
    static const struct {
        uint64_t ms;
        const char *name;
    } units[] = {{3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    size_t k = 0;

    if (i->on_off) {
        snprintf(out, 32, "%s", v ? "on" : "off");
        return out;
    }
    if (!i->msec) {
        snprintf(out, 32, "%" PRIu64, v);
        return out;
    }
    while (k < 3 && (v == 0 || v % units[k].ms != 0))
        k++;
    snprintf(out, 32, "%" PRIu64 "%s", v / units[k].ms, units[k].name);
    return out;
}

static int config_parse_value(const Replfs__SettingInfo *i, const char *text, uint64_t *out)
{
    char *end;

    if (i->msec)
        return config_parse_msec(text, out);
    if (i->on_off && (!strcmp(text, "on") || !strcmp(text, "off"))) {
        *out = text[1] == 'n';
        return 0;
    }
    if (i->on_off)
        return -EINVAL;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno || end == text || *end || text[0] == '-' ? -EINVAL : 0;
}

static const Replfs__SettingInfo *config_find(const Replfs__ConfigReply *r, const char *name)
{
    for (size_t k = 0; k < r->n_settings; k++)
        if (!strcmp(r->settings[k]->name, name))
            return r->settings[k];
    ctl_error("there is no setting '%s': see replfsctl config list", name);
    return NULL;
}

/* ---- output ---- */

static void config_json(struct json *j, const char *key, const Replfs__SettingInfo *i)
{
    json_object(j, key);
    json_str(j, "name", i->name);
    json_str(j, "unit", i->msec ? "ms" : i->on_off ? "on/off" : "");
    json_u64(j, "value", i->value);
    json_u64(j, "default", i->standard);
    json_u64(j, "min", i->min);
    json_u64(j, "max", i->max);
    json_str(j, "from", i->told ? "cluster" : "metad");
    json_close(j);
}

static int show_one(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    const Replfs__SettingInfo *i = config_find(rep->config_reply, o->args[0]);
    struct json j;
    char v[32];

    if (!i)
        return CTL_USAGE;
    if (o->json) {
        json_begin(&j, stdout);
        config_json(&j, NULL, i);
    } else {
        puts(config_value(i, i->value, v));
    }
    return CTL_OK;
}

static int show_all(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    const Replfs__ConfigReply *r = rep->config_reply;
    struct table t;
    struct json j;
    char v[32];

    if (o->json) {
        json_begin(&j, stdout);
        json_object(&j, NULL);
        json_u64(&j, "feature_level", r->level);
        json_u64(&j, "feature_level_newest", r->newest);
        json_array(&j, "settings");
        for (size_t k = 0; k < r->n_settings; k++)
            config_json(&j, NULL, r->settings[k]);
        json_close(&j);
        json_close(&j);
        return CTL_OK;
    }
    table_begin(&t, "SETTING|>VALUE|>DEFAULT|WHAT");
    for (size_t k = 0; k < r->n_settings; k++) {
        const Replfs__SettingInfo *i = r->settings[k];
        table_row(&t);
        table_cell(&t, 0, "%s", i->name);
        table_cell(&t, 1, "%s%s", config_value(i, i->value, v), i->told ? "" : "*");
        table_cell(&t, 2, "%s", config_value(i, i->standard, v));
        table_cell(&t, 3, "%s", i->help);
    }
    table_print(&t, "", stdout);
    for (size_t k = 0; k < r->n_settings; k++)
        if (!r->settings[k]->told) {
            puts("* an option of the metad that leads, not of the cluster");
            break;
        }
    return CTL_OK;
}

/* ---- changing ---- */

/* What metad knows says how the value is read: asked first. */
static int change_one(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    const Replfs__SettingInfo *i = config_find(rep->config_reply, o->args[0]);
    Replfs__ConfigReq m = REPLFS__CONFIG_REQ__INIT;
    Replfs__SettingChange change = REPLFS__SETTING_CHANGE__INIT, *changes = &change;
    RPC_ENVELOPE(q, CONFIG_REQ, config_req, &m);
    struct ctl_opts rest = *o;
    char least[32], most[32];

    if (!i)
        return CTL_USAGE;
    if (!strcmp(o->args[1], "default")) {
        change.value = i->standard;
    } else if (config_parse_value(i, o->args[1], &change.value) != 0 || change.value < i->min ||
               change.value > i->max) {
        ctl_error("%s '%s': give %s from %s to %s", i->name, o->args[1],
                  i->msec     ? "a time such as 500ms, 10s, 2m or 1h,"
                  : i->on_off ? "a word"
                              : "a number",
                  config_value(i, i->min, least), config_value(i, i->max, most));
        return CTL_USAGE;
    }
    change.name = o->args[0];
    m.set = &changes;
    m.n_set = 1;
    rest.args += 2;
    rest.nargs -= 2;
    struct ctl_opts *named = &rest; /* show_one names the setting by its first argument */
    struct transport *t = NULL;
    Replfs__Envelope *answer = NULL;
    char detail[512];
    int rc = ctl_cluster(named, &t);
    if (rc)
        return rc;
    rc =
        transport_call(t, &q, REPLFS__ENVELOPE__BODY_CONFIG_REPLY, &answer, detail, sizeof(detail));
    rc = rc ? transport_failed(t, "config set", rc, detail) : show_one(o, answer);
    if (answer)
        replfs__envelope__free_unpacked(answer, NULL);
    transport_free(t);
    return rc;
}

/* ---- verbs ---- */

static struct config_call {
    int (*fn)(const struct ctl_opts *o, const Replfs__Envelope *rep);
    const struct ctl_opts *all; /* with KEY and VALUE */
} config_call;

static int config_answered(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    (void)o;
    return config_call.fn(config_call.all, rep);
}

/* The first `named` arguments are ours, what follows may be a path. */
static int config_ask(const struct ctl_opts *o, int named,
                      int (*fn)(const struct ctl_opts *o, const Replfs__Envelope *rep))
{
    Replfs__ConfigReq m = REPLFS__CONFIG_REQ__INIT;
    RPC_ENVELOPE(q, CONFIG_REQ, config_req, &m);
    struct ctl_opts rest = *o;

    rest.args += named;
    rest.nargs -= named;
    config_call = (struct config_call){fn, o};
    return ctl_ask(&rest, &q, REPLFS__ENVELOPE__BODY_CONFIG_REPLY, "config", config_answered);
}

int verb_config(const struct ctl_opts *o)
{
    struct ctl_opts rest = *o;
    const char *what = o->nargs ? o->args[0] : "list";
    bool get = !strcmp(what, "get"), set = !strcmp(what, "set");

    if (get || set || (o->nargs && !strcmp(what, "list"))) {
        rest.args++;
        rest.nargs--;
    }
    if ((get && rest.nargs < 1) || (set && rest.nargs < 2)) {
        ctl_error("usage: replfsctl config [list] [PATH] | get KEY [PATH] | set KEY VALUE [PATH]");
        return CTL_USAGE;
    }
    if (get)
        return config_ask(&rest, 1, show_one);
    return set ? config_ask(&rest, 2, change_one) : config_ask(&rest, 0, show_all);
}

static int upgraded(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    const Replfs__ConfigReply *r = rep->config_reply;
    struct json j;

    if (o->json) {
        json_begin(&j, stdout);
        json_object(&j, NULL);
        json_u64(&j, "feature_level", r->level);
        json_u64(&j, "feature_level_newest", r->newest);
        json_close(&j);
    } else {
        printf("The cluster is at feature level %u%s\n", r->level,
               r->level < r->newest ? "" : ", the newest that its metads know");
    }
    return CTL_OK;
}

int ctl_metad_upgrade(const struct ctl_opts *o)
{
    Replfs__ConfigReq m = REPLFS__CONFIG_REQ__INIT;
    RPC_ENVELOPE(q, CONFIG_REQ, config_req, &m);

    m.upgrade = true;
    return ctl_ask(o, &q, REPLFS__ENVELOPE__BODY_CONFIG_REPLY, "metad upgrade", upgraded);
}
