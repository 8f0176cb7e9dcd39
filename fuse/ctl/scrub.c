/* replfsctl scrub: how far chunkds are with reading and checking all that they store; begin a pass now, pause, resume. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "output.h"

/* ---- status ---- */

static const char *scrub_state_text(const Replfs__ScrubStat *s)
{
    if (!s)
        return "unknown"; /* of a version before it, or not begun yet */
    switch (s->state) {
    case REPLFS__SCRUB_STATE__SCRUB_RUNNING:
        return "running";
    case REPLFS__SCRUB_STATE__SCRUB_PAUSED:
        return "paused";
    case REPLFS__SCRUB_STATE__SCRUB_STOPPED:
        return "stopped";
    case REPLFS__SCRUB_STATE__SCRUB_NONE:
        break;
    }
    return "unknown";
}

static void scrub_row(struct table *t, const Replfs__ChunkdStatus *k, const Replfs__DiskStat *d)
{
    const Replfs__ScrubStat *s = d->scrub;
    char a[32], b[32];
    table_row(t);
    table_cell(t, 0, "%u", k->chunkd);
    table_cell(t, 1, "%s", *k->host_name ? k->host_name : k->host_id);
    table_cell(t, 2, "%s", d->path);
    table_cell(t, 3, "%s%s", scrub_state_text(s), s && s->fast ? ", fast" : "");
    if (!s)
        return;
    uint64_t whole = s->done + s->left;
    table_cell(t, 4, "%s", output_size(s->done, a));
    table_cell(t, 5, "%s", output_size(whole, b));
    table_cell(t, 6, "%s", output_age(s->age_s, a));
    table_cell(t, 7, "%s/s", output_size(s->rate, b));
    if (s->state == REPLFS__SCRUB_STATE__SCRUB_RUNNING)
        table_cell(t, 8, "%s", output_age(s->eta_s, a));
    table_cell(t, 9, "%" PRIu64, s->found);
    table_cell(t, 10, "%" PRIu64, s->healed);
    table_cell(t, 11, "%" PRIu64, s->open);
}

static void scrub_text(const Replfs__StatusReply *r)
{
    struct table t;
    table_begin(&t, ">id|host|disk|state|>checked|>of|oldest|>rate|left|>found|>healed|>open");
    for (size_t i = 0; i < r->n_chunkds; i++)
        for (size_t d = 0; d < r->chunkds[i]->n_disks; d++)
            scrub_row(&t, r->chunkds[i], r->chunkds[i]->disks[d]);
    table_print(&t, "", stdout);
}

static void scrub_json(struct json *j, const Replfs__ChunkdStatus *k, const Replfs__DiskStat *d)
{
    static const Replfs__ScrubStat none = REPLFS__SCRUB_STAT__INIT;
    const Replfs__ScrubStat *s = d->scrub ? d->scrub : &none;
    json_object(j, NULL);
    json_u64(j, "chunkd", k->chunkd);
    json_str(j, "host_name", k->host_name);
    json_u64(j, "disk", d->disk);
    json_str(j, "path", d->path);
    json_str(j, "state", scrub_state_text(d->scrub));
    json_bool(j, "fast", s->fast);
    json_u64(j, "pass", s->pass);
    json_u64(j, "bytes_done", s->done);
    json_u64(j, "bytes_left", s->left);
    json_u64(j, "oldest_s", s->age_s);
    json_u64(j, "bytes_per_s", s->rate);
    json_u64(j, "eta_s", s->eta_s);
    json_u64(j, "found", s->found);
    json_u64(j, "healed", s->healed);
    json_u64(j, "open", s->open);
    json_u64(j, "paused_s", s->paused_s);
    json_close(j);
}

static int scrub_show(const struct ctl_opts *o, const Replfs__StatusReply *r)
{
    struct json j;
    if (!o->json) {
        scrub_text(r);
        return CTL_OK;
    }
    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_array(&j, "disks");
    for (size_t i = 0; i < r->n_chunkds; i++)
        for (size_t d = 0; d < r->chunkds[i]->n_disks; d++)
            scrub_json(&j, r->chunkds[i], r->chunkds[i]->disks[d]);
    json_close(&j);
    json_close(&j);
    return CTL_OK;
}

/* ---- commands ---- */

static int scrub_answers(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    const Replfs__ScrubReply *r = rep->scrub_reply;
    int rc = r->n_answers ? CTL_OK : CTL_PROBLEM;
    struct json j;
    json_begin(&j, stdout);
    if (o->json) {
        json_object(&j, NULL);
        json_array(&j, "chunkds");
    } else if (!r->n_answers) {
        ctl_error("scrub: there is no such chunkd");
    }
    for (size_t i = 0; i < r->n_answers; i++) {
        const Replfs__ScrubAnswer *a = r->answers[i];
        rc = a->code ? CTL_PROBLEM : rc;
        if (o->json) {
            json_object(&j, NULL);
            json_u64(&j, "chunkd", a->chunkd);
            json_str(&j, "host_name", a->host_name);
            json_bool(&j, "done", a->code == 0);
            json_str(&j, "error", a->detail);
            json_close(&j);
        } else if (a->code) {
            ctl_error("chunkd %u (%s): %s", a->chunkd, a->host_name, a->detail);
        }
    }
    if (o->json) {
        json_close(&j);
        json_close(&j);
    }
    return rc;
}

/* The leading arguments that are numbers are chunkds; what is behind them is a path. Returns how many. */
static size_t chunkds_given(const struct ctl_opts *o, uint32_t *out)
{
    size_t n = 0;
    for (; n < (size_t)o->nargs; n++) {
        char *end;
        unsigned long v = strtoul(o->args[n], &end, 10);
        if (o->args[n][0] < '0' || o->args[n][0] > '9' || *end || v == 0 || v > UINT32_MAX)
            break;
        out[n] = (uint32_t)v;
    }
    return n;
}

static int scrub_command(const struct ctl_opts *o, Replfs__ScrubWhat what)
{
    struct ctl_opts rest = *o;
    Replfs__ScrubReq m = REPLFS__SCRUB_REQ__INIT;
    RPC_ENVELOPE(q, SCRUB_REQ, scrub_req, &m);
    uint32_t *list = ctl_alloc(((size_t)o->nargs + 1) * sizeof(*list));
    m.what = what;
    m.chunkd = list;
    m.n_chunkd = chunkds_given(o, list);
    rest.args += m.n_chunkd;
    rest.nargs -= (int)m.n_chunkd;
    int rc = ctl_ask(&rest, &q, REPLFS__ENVELOPE__BODY_SCRUB_REPLY, "scrub", scrub_answers);
    free(list);
    return rc;
}

int verb_scrub(const struct ctl_opts *o)
{
    static const struct {
        const char *name;
        Replfs__ScrubWhat what;
    } commands[] = {{"start", REPLFS__SCRUB_WHAT__SCRUB_START},
                    {"pause", REPLFS__SCRUB_WHAT__SCRUB_PAUSE},
                    {"resume", REPLFS__SCRUB_WHAT__SCRUB_RESUME}};
    struct ctl_opts rest = *o;
    const char *verb = o->nargs ? o->args[0] : "";
    bool start = !strcmp(verb, "start");
    if (o->fast && !start) {
        ctl_error("--fast belongs to scrub start");
        return CTL_USAGE;
    }
    rest.args++;
    rest.nargs--;
    if (!strcmp(verb, "status"))
        return ctl_with_status(&rest, scrub_show);
    if (start && o->fast)
        return scrub_command(&rest, REPLFS__SCRUB_WHAT__SCRUB_START_FAST);
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        if (!strcmp(verb, commands[i].name))
            return scrub_command(&rest, commands[i].what);
    ctl_error("scrub %s: usage: replfsctl scrub status [PATH], or start [--fast], pause or resume "
              "with [ID...] [PATH]",
              verb);
    return CTL_USAGE;
}
