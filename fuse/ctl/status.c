/* replfsctl status: the cluster at a glance, from one StatusReply. */
#include <inttypes.h>
#include <stdio.h>

#include "ctl.h"
#include "output.h"

struct space {
    uint64_t capacity, used, avail, dead_bytes;
    unsigned up, suspect, dead, draining, unknown, failed_disks;
};

static struct space add_up(const Replfs__StatusReply *s)
{
    struct space sp = {0};
    for (size_t i = 0; i < s->n_chunkds; i++) {
        const Replfs__ChunkdStatus *c = s->chunkds[i];
        sp.up += c->state == REPLFS__NODE_STATE__NODE_UP;
        sp.suspect += c->state == REPLFS__NODE_STATE__NODE_SUSPECT;
        sp.dead += c->state == REPLFS__NODE_STATE__NODE_DEAD;
        sp.draining += c->state == REPLFS__NODE_STATE__NODE_DRAINING;
        sp.unknown += c->state == REPLFS__NODE_STATE__NODE_UNKNOWN;
        for (size_t d = 0; d < c->n_disks; d++) {
            sp.failed_disks += !!c->disks[d]->failed;
            if (c->state == REPLFS__NODE_STATE__NODE_DEAD || c->disks[d]->failed)
                continue;
            sp.used += c->disks[d]->used;
            sp.dead_bytes += c->disks[d]->dead;
        }
    }
    sp.capacity = s->capacity;
    sp.avail = s->avail;
    return sp;
}

static void text_metads(const Replfs__StatusReply *s)
{
    char a[32], b[16], c[16];
    struct table t;
    table_begin(&t, "metad|address|role|up|>memory|>log|>applied|>behind|>heard");
    for (size_t i = 0; i < s->n_metads; i++) {
        const Replfs__MetadStatus *m = s->metads[i];
        table_row(&t);
        table_cell(&t, 0, "%" PRIu64, m->id);
        table_cell(&t, 1, "%s", m->addr);
        table_cell(&t, 2, "%s", m->role);
        table_cell(&t, 6, "%" PRIu64, m->applied);
        if (m->memory) { /* that one answers */
            table_cell(&t, 3, "%s", output_age(m->uptime_s, a));
            table_cell(&t, 4, "%s", output_size(m->memory, b));
            table_cell(&t, 5, "%s", output_size(m->log_bytes, c));
            continue;
        }
        table_cell(&t, 3, "%s", m->up ? "yes" : "no");
        table_cell(&t, 7, "%" PRIu64, m->behind);
        if (m->up || m->silent_ms)
            table_cell(&t, 8, "%s ago", output_age(m->silent_ms / 1000, a));
    }
    table_print(&t, "  ", stdout);
    for (size_t i = 0; i < s->n_metads; i++) {
        const Replfs__MetadStatus *m = s->metads[i];
        if (m->gains > 0 && (m->gains > 1 || m->gap_ms >= 1000 || s->n_metads > 1))
            printf("  metad %" PRIu64 " has led for %s, since term %" PRIu64
                   "; before, nobody served for %" PRIu64 " ms\n",
                   m->id, output_age(m->leads_s, a), m->term, m->gap_ms);
    }
}

static void text_names(const Replfs__StatusReply *s)
{
    char a[32], b[16], c[16];
    struct table t;
    if (!s->n_names)
        return;
    printf("Copies of the names: %zu of %u%s\n", s->n_names, s->names_wanted,
           !s->names_sync      ? ""
           : s->names_unsynced ? ", and changes do not wait for them, since none takes any"
                               : "; changes are acknowledged when they have them");
    table_begin(&t, ">chunkd|host|>checkpoint|>reached|>behind|>size|");
    for (size_t i = 0; i < s->n_names; i++) {
        const Replfs__NamesCopy *k = s->names[i];
        table_row(&t);
        table_cell(&t, 0, "%u", k->chunkd);
        table_cell(&t, 1, "%s", k->host_name);
        table_cell(&t, 2, "%" PRIu64, k->generation);
        table_cell(&t, 3, "%" PRIu64, k->reached);
        table_cell(&t, 4, "%s", output_age(k->age_ms / 1000, a));
        table_cell(&t, 5, "%s", output_size(k->size, b));
        if (k->error[0])
            table_cell(&t, 6, "%s", k->error);
        else if (k->filling)
            table_cell(&t, 6, "a new one: %s", output_size(k->filled, c));
    }
    table_print(&t, "  ", stdout);
}

static void json_names(struct json *j, const Replfs__StatusReply *s)
{
    json_u64(j, "names_wanted", s->names_wanted);
    json_bool(j, "names_sync", s->names_sync);
    json_bool(j, "names_unsynced", s->names_unsynced);
    json_array(j, "names");
    for (size_t i = 0; i < s->n_names; i++) {
        const Replfs__NamesCopy *k = s->names[i];
        json_object(j, NULL);
        json_u64(j, "chunkd", k->chunkd);
        json_str(j, "host_name", k->host_name);
        json_u64(j, "checkpoint", k->generation);
        json_u64(j, "reached", k->reached);
        json_u64(j, "age_ms", k->age_ms);
        json_u64(j, "size", k->size);
        json_bool(j, "filling", k->filling);
        json_u64(j, "filled", k->filled);
        json_str(j, "error", k->error);
        json_close(j);
    }
    json_close(j);
}

static void text_goals(const Replfs__StatusReply *s)
{
    char a[16];
    struct table t;
    table_begin(&t, ">goal|>copies|>chunks|>size|");
    for (size_t i = 0; i < s->n_goals; i++) {
        const Replfs__GoalCount *g = s->goals[i];
        table_row(&t);
        table_cell(&t, 0, "%u", g->goal);
        table_cell(&t, 1, "%u", g->copies);
        table_cell(&t, 2, "%" PRIu64, g->chunks);
        table_cell(&t, 3, "%s", output_size(g->bytes, a));
        table_cell(&t, 4, "%s",
                   g->copies == g->goal  ? ""
                   : !g->copies          ? "no copy known"
                   : g->copies < g->goal ? "too few"
                                         : "surplus");
    }
    table_print(&t, "  ", stdout);
}

static void text_jobs(const Replfs__StatusReply *s)
{
    if (s->repair_held)
        printf("  repair waits for a person: see replfsctl health\n");
    for (size_t i = 0; i < s->n_jobs; i++) {
        const Replfs__JobStatus *j = s->jobs[i];
        char a[16], b[16], c[32];
        if (!j->queued && !j->running)
            continue;
        printf("  %s: %" PRIu64 " queued, %" PRIu64 " running", j->name, j->queued, j->running);
        if (j->bytes_left)
            printf(", %s left", output_size(j->bytes_left, a));
        if (j->bytes_per_s)
            printf(" at %s/s", output_size(j->bytes_per_s, b));
        if (j->eta_s)
            printf(", about %s", output_age(j->eta_s, c));
        if (*j->waiting)
            printf("; waits: %s", j->waiting);
        putchar('\n');
    }
}

static void text_leaving(const Replfs__StatusReply *s)
{
    char text[512];
    for (size_t i = 0; i < s->n_chunkds; i++)
        if (*ctl_leave_text(s->chunkds[i], text))
            printf("  chunkd %u (%s) %s\n", s->chunkds[i]->chunkd, s->chunkds[i]->host_name, text);
}

static void json_leaving(struct json *j, const Replfs__StatusReply *s)
{
    char text[512];
    json_array(j, "leaving");
    for (size_t i = 0; i < s->n_chunkds; i++) {
        if (!*ctl_leave_text(s->chunkds[i], text))
            continue;
        json_object(j, NULL);
        json_u64(j, "id", s->chunkds[i]->chunkd);
        ctl_leave_json(j, s->chunkds[i]);
        json_close(j);
    }
    json_close(j);
}

static void status_line(const Replfs__StatusReply *s)
{
    struct space sp = add_up(s);
    char a[16], b[16], c[16];
    printf("cluster %s%s\n", s->cluster,
           s->settling ? " (just started: reports still come in)" : "");
    text_metads(s);
    printf("chunkds: %zu, %u up", s->n_chunkds, sp.up);
    if (sp.suspect)
        printf(", %u suspect", sp.suspect);
    if (sp.dead)
        printf(", %u dead", sp.dead);
    if (sp.draining)
        printf(", %u draining", sp.draining);
    if (sp.unknown)
        printf(", %u not seen yet", sp.unknown);
    if (sp.failed_disks)
        printf(", %u failed disk%s", sp.failed_disks, sp.failed_disks == 1 ? "" : "s");
    putchar('\n');
    text_leaving(s);
    printf("space: %s free of %s (all copies together)\n", output_size(sp.avail, a),
           output_size(sp.capacity, b));
    printf("dead: %s of the %s used (all copies together), %s of chunks\n",
           output_size(sp.dead_bytes, a), output_size(sp.used, b), output_size(s->unreferenced, c));
    printf("files: %" PRIu64 " (%s), directories: %" PRIu64 ", symbolic links: %" PRIu64
           ", others: %" PRIu64 "\n",
           s->files, output_size(s->bytes, a), s->dirs, s->symlinks, s->others);
    if (s->orphans)
        printf("deleted but still open: %" PRIu64 "\n", s->orphans);
    printf("mounts: %" PRIu64, s->sessions);
    if (s->sessions_lapsed)
        printf(", and %" PRIu64 " silent ones that may come back", s->sessions_lapsed);
    putchar('\n');
    printf("chunks: %" PRIu64 "\n", s->chunks);
    if (s->n_goals)
        text_goals(s);
    if (s->misplaced || s->bad_copies || s->lost)
        printf("  with copies on one host: %" PRIu64 ", bad copies: %" PRIu64
               ", without any copy: %" PRIu64 "\n",
               s->misplaced, s->bad_copies, s->lost);
    if (s->quarantine)
        printf("in quarantine: %" PRIu64 " copies of chunks (see replfsctl quarantine)\n",
               s->quarantine);
    text_names(s);
    text_jobs(s);
    printf("problems: %zu%s\n", s->n_problems, s->n_problems ? " (see replfsctl health)" : "");
}

static void json_metads(struct json *j, const Replfs__StatusReply *s)
{
    json_array(j, "metads");
    for (size_t i = 0; i < s->n_metads; i++) {
        const Replfs__MetadStatus *m = s->metads[i];
        json_object(j, NULL);
        json_u64(j, "id", m->id);
        json_str(j, "addr", m->addr);
        json_str(j, "role", m->role);
        json_u64(j, "applied", m->applied);
        json_u64(j, "term", m->term);
        json_u64(j, "uptime_s", m->uptime_s);
        json_u64(j, "memory", m->memory);
        json_u64(j, "log_bytes", m->log_bytes);
        json_u64(j, "checkpoint_index", m->checkpoint_index);
        json_u64(j, "leads_s", m->leads_s);
        json_u64(j, "gap_ms", m->gap_ms);
        json_u64(j, "gains", m->gains);
        json_str(j, "name", m->name);
        json_bool(j, "up", m->up);
        json_u64(j, "behind", m->behind);
        json_u64(j, "silent_ms", m->silent_ms);
        json_close(j);
    }
    json_close(j);
}

static void json_counts(struct json *j, const Replfs__StatusReply *s)
{
    struct space sp = add_up(s);
    json_object(j, "chunkds");
    json_u64(j, "total", s->n_chunkds);
    json_u64(j, "up", sp.up);
    json_u64(j, "suspect", sp.suspect);
    json_u64(j, "dead", sp.dead);
    json_u64(j, "draining", sp.draining);
    json_u64(j, "unknown", sp.unknown);
    json_u64(j, "failed_disks", sp.failed_disks);
    json_close(j);
    json_object(j, "space");
    json_u64(j, "capacity", sp.capacity);
    json_u64(j, "used", sp.used);
    json_u64(j, "free", sp.avail);
    json_u64(j, "dead", sp.dead_bytes);
    json_u64(j, "unreferenced", s->unreferenced);
    json_close(j);
    json_u64(j, "files", s->files);
    json_u64(j, "dirs", s->dirs);
    json_u64(j, "symlinks", s->symlinks);
    json_u64(j, "others", s->others);
    json_u64(j, "bytes", s->bytes);
    json_u64(j, "orphans", s->orphans);
    json_u64(j, "sessions", s->sessions);
    json_u64(j, "sessions_lapsed", s->sessions_lapsed);
    json_u64(j, "chunks", s->chunks);
    json_array(j, "copies");
    for (size_t i = 0; i < s->n_goals; i++) {
        json_object(j, NULL);
        json_u64(j, "goal", s->goals[i]->goal);
        json_u64(j, "copies", s->goals[i]->copies);
        json_u64(j, "chunks", s->goals[i]->chunks);
        json_u64(j, "bytes", s->goals[i]->bytes);
        json_close(j);
    }
    json_close(j);
    json_u64(j, "misplaced", s->misplaced);
    json_u64(j, "bad_copies", s->bad_copies);
    json_u64(j, "lost", s->lost);
    json_u64(j, "quarantine", s->quarantine);
}

static void print_json(const Replfs__StatusReply *s)
{
    struct json j;
    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_str(&j, "cluster", s->cluster);
    json_bool(&j, "settling", s->settling);
    json_metads(&j, s);
    json_counts(&j, s);
    json_names(&j, s);
    ctl_jobs_json(&j, s);
    json_bool(&j, "repair_held", s->repair_held);
    json_leaving(&j, s);
    json_u64(&j, "problems", s->n_problems);
    json_close(&j);
}

static int status_show(const struct ctl_opts *o, const Replfs__StatusReply *s)
{
    if (o->json)
        print_json(s);
    else
        status_line(s);
    return CTL_OK;
}

int verb_status(const struct ctl_opts *o)
{
    return ctl_with_status(o, status_show);
}
