/* replfsctl metad: list, every metad with its role; add, remove a member of the cluster; step-down, another one shall
 * lead. A metad that does not lead says who does: with --meta, changes go there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ctl.h"
#include "output.h"

static void metad_text(const Replfs__MetadListReply *r)
{
    struct table t;
    char age[32];

    table_begin(&t, ">id|role|host|address|seen|>behind|note");
    for (size_t i = 0; i < r->n_metads; i++) {
        const Replfs__MetadInfo *m = r->metads[i];
        table_row(&t);
        table_cell(&t, 0, "%" PRIu64, m->id);
        table_cell(&t, 1, "%s", m->leader ? "leader" : m->role);
        table_cell(&t, 2, "%s", *m->name ? m->name : m->host_id);
        table_cell(&t, 3, "%s", m->addr);
        if (r->leader == r->self && !m->leader) {
            table_cell(&t, 4, "%s", m->online ? "now" : output_age(m->contact_ms / 1000, age));
            if (m->match_index)
                table_cell(&t, 5, "%" PRIu64, r->last_index - m->match_index);
            if (!m->online)
                table_cell(&t, 6, "%s", !strcmp(m->role, "new") ? "has not joined" : "OFFLINE");
        }
    }
    table_print(&t, "", stdout);
    if (!r->leader)
        printf("No metad leads: fewer than half of the voters reach each other.\n");
}

static void metad_json(const Replfs__MetadListReply *r)
{
    struct json j;

    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_str(&j, "cluster", r->cluster);
    json_u64(&j, "term", r->term);
    json_u64(&j, "leader", r->leader);
    json_u64(&j, "self", r->self);
    json_u64(&j, "last_index", r->last_index);
    json_u64(&j, "commit_index", r->commit_index);
    json_array(&j, "metads");
    for (size_t i = 0; i < r->n_metads; i++) {
        const Replfs__MetadInfo *m = r->metads[i];
        json_object(&j, NULL);
        json_u64(&j, "id", m->id);
        json_str(&j, "role", m->role);
        json_bool(&j, "leader", m->leader);
        json_str(&j, "addr", m->addr);
        json_str(&j, "host_name", m->name);
        json_str(&j, "host_id", m->host_id);
        json_bool(&j, "online", m->online || m->leader);
        json_u64(&j, "match_index", m->match_index);
        json_u64(&j, "last_seen_ms", m->contact_ms);
        json_close(&j);
    }
    json_close(&j);
    json_close(&j);
}

/* Asks one metad. addr: "" for the one that o names. */
static int metad_ask(const struct ctl_opts *o, const char *addr, const Replfs__Envelope *q,
                     Replfs__Envelope__BodyCase want, const char *what, Replfs__Envelope **rep)
{
    struct transport *t = NULL;
    char detail[512] = "";
    int rc = addr[0] ? transport_meta(addr, &o->tls, &t) : ctl_cluster(o, &t);

    *rep = NULL;
    if (rc)
        return rc;
    rc = transport_call(t, q, want, rep, detail, sizeof(detail));
    if (rc)
        rc = transport_failed(t, what, rc, detail);
    transport_free(t);
    return rc;
}

static int metad_list(const struct ctl_opts *o, Replfs__Envelope **rep)
{
    Replfs__MetadListReq m = REPLFS__METAD_LIST_REQ__INIT;
    RPC_ENVELOPE(q, METAD_LIST_REQ, metad_list_req, &m);

    return metad_ask(o, "", &q, REPLFS__ENVELOPE__BODY_METAD_LIST_REPLY, "metad list", rep);
}

static int show_metads(const struct ctl_opts *o)
{
    Replfs__Envelope *rep = NULL;
    int rc = metad_list(o, &rep);

    if (!rc && o->json)
        metad_json(rep->metad_list_reply);
    else if (!rc)
        metad_text(rep->metad_list_reply);
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    return rc;
}

/* Which metad leads, and where it is when o names another one with --meta; "" else: a mount finds it. */
static int find_leader(const struct ctl_opts *o, char addr[256], uint64_t *id)
{
    Replfs__Envelope *rep = NULL;
    int rc = metad_list(o, &rep);

    addr[0] = 0;
    *id = rc ? 0 : rep->metad_list_reply->leader;
    for (size_t i = 0; !rc && o->meta && i < rep->metad_list_reply->n_metads; i++) {
        const Replfs__MetadInfo *m = rep->metad_list_reply->metads[i];
        if (m->leader && m->id != rep->metad_list_reply->self)
            snprintf(addr, 256, "%s", m->addr);
    }
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    return rc;
}

static int change_metads(const struct ctl_opts *o, Replfs__MetadChange change, uint64_t id)
{
    Replfs__MetadChangeReq m = REPLFS__METAD_CHANGE_REQ__INIT;
    RPC_ENVELOPE(q, METAD_CHANGE_REQ, metad_change_req, &m);
    Replfs__Envelope *rep = NULL;
    char addr[256];
    const char *what = change == REPLFS__METAD_CHANGE__METAD_REMOVE ? "metad remove"
                       : change == REPLFS__METAD_CHANGE__METAD_ADD  ? "metad add"
                                                                    : "metad step-down";
    uint64_t leader;
    int rc = find_leader(o, addr, &leader);

    if (rc)
        return rc;
    if (change == REPLFS__METAD_CHANGE__METAD_STEP_DOWN)
        m.from = leader; /* asked twice, the next one is to stay */
    m.change = change;
    m.id = id;
    rc = metad_ask(o, addr, &q, REPLFS__ENVELOPE__BODY_METAD_CHANGE_REPLY, what, &rep);
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    return rc;
}

static int metad_usage(const char *verb)
{
    ctl_error("metad %s: usage: replfsctl metad list [PATH], replfsctl metad add|remove ID [PATH], "
              "replfsctl metad step-down|upgrade [PATH]. A new metad joins by itself: replfs-metad "
              "--join "
              "HOST:PORT --data DIR",
              verb);
    return CTL_USAGE;
}

int verb_metad(const struct ctl_opts *o)
{
    struct ctl_opts rest = *o;
    const char *verb = o->nargs ? o->args[0] : "";
    bool add = !strcmp(verb, "add"), removal = !strcmp(verb, "remove");
    bool list = !strcmp(verb, "list"), down = !strcmp(verb, "step-down");
    bool upgrade = !strcmp(verb, "upgrade");
    unsigned long id = 0;
    char *end;

    if (!(add || removal || list || down || upgrade) || ((add || removal) && o->nargs < 2))
        return metad_usage(verb);
    if (add || removal) {
        id = strtoul(o->args[1], &end, 10);
        if (o->args[1][0] < '0' || o->args[1][0] > '9' || *end || id == 0 || id > UINT32_MAX)
            return metad_usage(verb);
    }
    rest.args += add || removal ? 2 : 1;
    rest.nargs -= add || removal ? 2 : 1;
    if (list)
        return show_metads(&rest);
    if (upgrade)
        return ctl_metad_upgrade(&rest);
    return change_metads(&rest,
                         add       ? REPLFS__METAD_CHANGE__METAD_ADD
                         : removal ? REPLFS__METAD_CHANGE__METAD_REMOVE
                                   : REPLFS__METAD_CHANGE__METAD_STEP_DOWN,
                         id);
}
