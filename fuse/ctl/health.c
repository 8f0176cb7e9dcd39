/* replfsctl health: what is wrong and what to do about it; the exit code says it too. */
#include <stdio.h>

#include "ctl.h"
#include "output.h"

static int worst(const Replfs__StatusReply *s)
{
    int rc = CTL_OK;
    for (size_t i = 0; i < s->n_problems; i++) {
        if (s->problems[i]->severity >= 2)
            return CTL_ERROR;
        rc = CTL_PROBLEM;
    }
    return rc;
}

static const char *const verdicts[] = {
    [CTL_OK] = "ok", [CTL_PROBLEM] = "warning", [CTL_ERROR] = "error"};

static void health_text(const Replfs__StatusReply *s, int verdict)
{
    if (verdict == CTL_OK)
        puts(s->settling ? "ok so far: metad has just started and still collects reports"
                         : "ok: every chunk has as many copies as asked for");
    for (size_t i = 0; i < s->n_problems; i++) {
        const Replfs__Problem *p = s->problems[i];
        printf("%s: %s\n", p->severity >= 2 ? "ERROR" : "warning", p->what);
        if (*p->way_out)
            printf("    what to do: %s\n", p->way_out);
    }
    for (size_t i = 0; i < s->n_chunkds; i++) {
        char text[512];
        if (*ctl_leave_text(s->chunkds[i], text))
            printf("chunkd %u (%s) %s\n", s->chunkds[i]->chunkd, s->chunkds[i]->host_name, text);
    }
    for (size_t i = 0; i < s->n_jobs; i++)
        if (*s->jobs[i]->waiting)
            printf("%s waits: %s\n", s->jobs[i]->name, s->jobs[i]->waiting);
}

static void print_json(const Replfs__StatusReply *s, int verdict)
{
    struct json j;
    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_str(&j, "health", verdicts[verdict]);
    json_bool(&j, "settling", s->settling);
    json_array(&j, "problems");
    for (size_t i = 0; i < s->n_problems; i++) {
        const Replfs__Problem *p = s->problems[i];
        json_object(&j, NULL);
        json_str(&j, "severity", p->severity >= 2 ? "error" : "warning");
        json_str(&j, "code", p->code);
        json_str(&j, "what", p->what);
        json_str(&j, "way_out", p->way_out);
        json_close(&j);
    }
    json_close(&j);
    json_array(&j, "leaving");
    for (size_t i = 0; i < s->n_chunkds; i++) {
        char text[512];
        if (!*ctl_leave_text(s->chunkds[i], text))
            continue;
        json_object(&j, NULL);
        json_u64(&j, "id", s->chunkds[i]->chunkd);
        ctl_leave_json(&j, s->chunkds[i]);
        json_close(&j);
    }
    json_close(&j);
    json_close(&j);
}

static int health_show(const struct ctl_opts *o, const Replfs__StatusReply *s)
{
    int verdict = worst(s);
    if (o->json)
        print_json(s, verdict);
    else
        health_text(s, verdict);
    return verdict;
}

int verb_health(const struct ctl_opts *o)
{
    return ctl_with_status(o, health_show);
}
