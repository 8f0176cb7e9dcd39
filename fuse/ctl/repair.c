/* replfsctl jobs: every kind of background work, how far it is and why it waits. replfsctl repair resume: repair goes on
 * although much is dead, by what is dead now (setting dead-accepted). Both begin with metad's status. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "output.h"

/* ---- jobs ---- */

void ctl_jobs_json(struct json *j, const Replfs__StatusReply *s)
{
    json_array(j, "jobs");
    for (size_t i = 0; i < s->n_jobs; i++) {
        const Replfs__JobStatus *b = s->jobs[i];
        json_object(j, NULL);
        json_str(j, "name", b->name);
        json_u64(j, "queued", b->queued);
        json_u64(j, "running", b->running);
        json_u64(j, "done", b->done);
        json_u64(j, "failed", b->failed);
        json_u64(j, "bytes_left", b->bytes_left);
        json_u64(j, "bytes_per_s", b->bytes_per_s);
        json_u64(j, "eta_s", b->eta_s);
        json_str(j, "waiting", b->waiting);
        json_str(j, "last_error", b->last_error);
        json_close(j);
    }
    json_close(j);
}

static int jobs_json(const Replfs__StatusReply *s)
{
    struct json j;

    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_bool(&j, "repair_held", s->repair_held);
    ctl_jobs_json(&j, s);
    json_close(&j);
    return CTL_OK;
}

static int jobs_shown(const struct ctl_opts *o, const Replfs__StatusReply *s)
{
    struct table t;
    char a[16];

    if (o->json)
        return jobs_json(s);
    if (s->repair_held)
        puts("repair waits for a person: see replfsctl health");
    table_begin(
        &t, "job|>queued|>running|>done|>failed|>left|>a second|>time|waits for, or last error");
    for (size_t i = 0; i < s->n_jobs; i++) {
        const Replfs__JobStatus *b = s->jobs[i];
        char age[32];
        table_row(&t);
        table_cell(&t, 0, "%s", b->name);
        table_cell(&t, 1, "%" PRIu64, b->queued);
        table_cell(&t, 2, "%" PRIu64, b->running);
        table_cell(&t, 3, "%" PRIu64, b->done);
        table_cell(&t, 4, "%" PRIu64, b->failed);
        table_cell(&t, 5, "%s", b->bytes_left ? output_size(b->bytes_left, a) : "");
        table_cell(&t, 6, "%s", b->bytes_per_s ? output_size(b->bytes_per_s, a) : "");
        table_cell(&t, 7, "%s", b->eta_s ? output_age(b->eta_s, age) : "");
        table_cell(&t, 8, "%s", *b->waiting ? b->waiting : b->last_error);
    }
    table_print(&t, "", stdout);
    return CTL_OK;
}

int verb_jobs(const struct ctl_opts *o)
{
    return ctl_with_status(o, jobs_shown);
}

/* ---- repair resume ---- */

static uint64_t accepted;

static int resumed(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    struct json j;

    (void)rep;
    if (o->json) {
        json_begin(&j, stdout);
        json_object(&j, NULL);
        json_u64(&j, "dead_accepted", accepted);
        json_close(&j);
    } else {
        printf("repair goes on as long as no more than %" PRIu64 " chunkds are dead\n", accepted);
    }
    return CTL_OK;
}

static int resume(const struct ctl_opts *o, const Replfs__StatusReply *s)
{
    Replfs__ConfigReq m = REPLFS__CONFIG_REQ__INIT;
    Replfs__SettingChange change = REPLFS__SETTING_CHANGE__INIT, *changes = &change;
    RPC_ENVELOPE(q, CONFIG_REQ, config_req, &m);

    if (!s->repair_held) {
        ctl_error("repair resume: repair does not wait for a person");
        return CTL_PROBLEM;
    }
    accepted = s->down_chunkds;
    change.name = (char *)"dead-accepted";
    change.value = accepted;
    m.set = &changes;
    m.n_set = 1;
    return ctl_ask(o, &q, REPLFS__ENVELOPE__BODY_CONFIG_REPLY, "repair resume", resumed);
}

int verb_repair(const struct ctl_opts *o)
{
    struct ctl_opts rest = *o;

    if (o->nargs < 1 || strcmp(o->args[0], "resume")) {
        ctl_error("repair: give resume; how far repair is, says replfsctl jobs");
        return CTL_USAGE;
    }
    rest.args++;
    rest.nargs--;
    return ctl_with_status(&rest, resume);
}
