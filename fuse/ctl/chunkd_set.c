/* replfsctl chunkd drain, undrain, capacity, pause, resume, and replfsctl reclaim: decisions about a chunkd.
 *
 * Each is one request (ChunkdSetReq), sent once: asked again, a reclaim would take more. With --wait a drain is watched
 * until the chunkd can be removed, and a reclaim until the space is back, or until what is left can only be waited for:
 * then it says what had to be kept and why, and ends with CTL_PROBLEM. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/error.h"
#include "ctl.h"
#include "output.h"

#define POLL_MS 500
#define SURE 6u /* looks in a row at which nothing is left */
#define SILENT_NS (60 * NSEC_PER_SEC)
#define STILL 20u /* looks in a row at which as much is left, before what waits counts as kept */
#define EACH_DISK UINT32_MAX

/* ---- what a chunkd's status says of it ---- */

char *ctl_leave_text(const Replfs__ChunkdStatus *k, char out[static 512])
{
    char a[16], b[16], c[32];
    size_t at = 0;
    out[0] = '\0';
    if (k->removable) {
        snprintf(out, 512, "drained: it can be removed (replfsctl chunkd remove %u)", k->chunkd);
        return out;
    }
    if (k->draining || k->leave_bytes)
        at += (size_t)snprintf(out, 512, "%s: ", k->draining ? "drains" : "gives space back");
    if (k->leave_chunks || k->leave_bytes)
        at += (size_t)snprintf(out + at, 512 - at, "%" PRIu64 " chunks, %s left", k->leave_chunks,
                               output_size(k->leave_bytes, a));
    else if (k->draining)
        at += (size_t)snprintf(out + at, 512 - at, "looking what is left");
    if (k->leave_rate && k->leave_bytes)
        at += (size_t)snprintf(out + at, 512 - at, " at %s/s, about %s",
                               output_size(k->leave_rate, b), output_age(k->leave_eta_s, c));
    if (*k->leave_waiting)
        at += (size_t)snprintf(out + at, 512 - at, "; waits: %.200s", k->leave_waiting);
    if (k->paused_s)
        at += (size_t)snprintf(out + at, 512 - at, "%spaused for %s", at ? "; " : "",
                               output_age(k->paused_s, c));
    if (k->stopped)
        snprintf(out + at, 512 - at, "%swas stopped", at ? "; " : "");
    return out;
}

void ctl_leave_json(struct json *j, const Replfs__ChunkdStatus *k)
{
    json_bool(j, "draining", k->draining);
    json_bool(j, "removable", k->removable);
    json_u64(j, "leave_chunks", k->leave_chunks);
    json_u64(j, "leave_bytes", k->leave_bytes);
    json_u64(j, "leave_bytes_per_s", k->leave_rate);
    json_u64(j, "leave_eta_s", k->leave_eta_s);
    json_str(j, "leave_waiting", k->leave_waiting);
    json_u64(j, "paused_s", k->paused_s);
    json_bool(j, "stopped", k->stopped);
}

const Replfs__DiskLimit *ctl_disk_limit(const Replfs__ChunkdStatus *k, uint32_t disk)
{
    for (size_t i = 0; i < k->n_limits; i++)
        if (k->limits[i]->disk == disk)
            return k->limits[i];
    return NULL;
}

/* ---- arguments ---- */

static int chunkd_number(const char *verb, const char *s, const char *end_at, uint32_t *out)
{
    char *end;
    unsigned long v = strtoul(s, &end, 10);
    if (s[0] < '0' || s[0] > '9' || end != end_at || v == 0 || v >= UINT32_MAX) {
        ctl_error("%s %s: give the number of a chunkd, as replfsctl chunkd list shows it", verb, s);
        return CTL_USAGE;
    }
    *out = (uint32_t)v;
    return 0;
}

static int whole_number(const char *verb, const char *s, uint32_t *out)
{
    return chunkd_number(verb, s, s + strlen(s), out);
}

/* ID or ID:DISK. */
static int chunkd_and_disk(const char *s, uint32_t *chunkd, uint32_t *disk)
{
    const char *colon = strchr(s, ':');
    char *end;
    *disk = EACH_DISK;
    if (!colon)
        return whole_number("chunkd capacity", s, chunkd);
    unsigned long v = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || v > 63) {
        ctl_error("chunkd capacity %s: give ID:DISK, both numbers, as replfsctl chunkd list --json "
                  "shows them",
                  s);
        return CTL_USAGE;
    }
    *disk = (uint32_t)v;
    return chunkd_number("chunkd capacity", s, colon, chunkd);
}

/* ---- --wait ---- */

struct watched {
    uint32_t chunkd;
    bool found, drain;
    Replfs__ChunkdStatus k; /* scalars */
    char text[512];
    unsigned sure, still;
    uint64_t last; /* bytes */
};

/* 0, or a negative code with what is known of it in detail. */
static int watch_look(struct transport *t, struct watched *w, char detail[static 512])
{
    Replfs__StatusReq ask = REPLFS__STATUS_REQ__INIT;
    RPC_ENVELOPE(q, STATUS_REQ, status_req, &ask);
    Replfs__Envelope *rep = NULL;
    int rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_STATUS_REPLY, &rep, detail, 512);
    if (rc)
        return rc;
    w->found = false;
    for (size_t i = 0; i < rep->status_reply->n_chunkds; i++) {
        const Replfs__ChunkdStatus *k = rep->status_reply->chunkds[i];
        if (k->chunkd != w->chunkd)
            continue;
        w->found = true;
        w->k = *k;
        ctl_leave_text(k, w->text);
    }
    replfs__envelope__free_unpacked(rep, NULL);
    return 0;
}

/* Whether it is over: CTL_OK, or CTL_PROBLEM when the rest has to stay; negative: not yet. */
static int watch_judge(struct watched *w)
{
    bool over = w->drain ? w->k.removable : !w->k.leave_bytes && !w->k.leave_chunks;
    bool waits = strstr(w->text, "; waits: ") != NULL; /* not while a walk looks at all again */
    w->sure = !w->found || over ? w->sure + 1 : 0;
    w->still = w->k.leave_bytes == w->last ? w->still + 1 : 0;
    w->last = w->k.leave_bytes;
    if (w->sure >= (w->drain ? 1 : SURE))
        return CTL_OK;
    return !w->drain && waits && w->still >= STILL ? CTL_PROBLEM : -1;
}

/* An exit code, CTL_TIMEOUT as well. A metad that does not answer for a while is waited for. */
static int watch(const struct ctl_opts *o, struct transport *t, const char *what, struct watched *w)
{
    const struct timespec pause = {.tv_nsec = POLL_MS * NSEC_PER_MSEC};
    int64_t start = clock_mono(), heard = start;
    char detail[512] = "";
    for (;;) {
        nanosleep(&pause, NULL);
        int rc = watch_look(t, w, detail), end = rc ? -1 : watch_judge(w);
        int64_t now = clock_mono();
        heard = rc ? heard : now;
        if (end >= 0)
            return end;
        if (rc && now - heard > SILENT_NS)
            return transport_failed(t, what, rc, detail);
        if (o->timeout_ms && now - start > (int64_t)o->timeout_ms * NSEC_PER_MSEC) {
            ctl_error("%s: not done in time, and goes on in the background: chunkd %u %s", what,
                      w->chunkd, w->text);
            return CTL_TIMEOUT;
        }
    }
}

/* ---- verbs ---- */

static void set_json(const Replfs__ChunkdSetReq *r, const Replfs__ChunkdSetReply *rep,
                     const struct watched *w, bool waited)
{
    struct json j;
    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_u64(&j, "id", r->chunkd);
    json_array(&j, "limits");
    for (size_t i = 0; i < rep->n_limits; i++) {
        json_object(&j, NULL);
        json_u64(&j, "disk", rep->limits[i]->disk);
        json_u64(&j, "bytes", rep->limits[i]->bytes);
        json_bool(&j, "now", rep->limits[i]->now);
        json_close(&j);
    }
    json_close(&j);
    json_str(&j, "note", rep->note);
    if (waited) {
        json_bool(&j, "removable", w->found && w->k.removable);
        json_u64(&j, "kept_chunks", w->found ? w->k.leave_chunks : 0);
        json_u64(&j, "kept_bytes", w->found ? w->k.leave_bytes : 0);
        json_str(&j, "why", w->text);
    }
    json_close(&j);
}

static void set_text(const Replfs__ChunkdSetReq *r, const Replfs__ChunkdSetReply *rep,
                     const struct watched *w, int waited)
{
    char a[16];
    for (size_t i = 0; (r->what & REPLFS__CHUNKD_SET_OP__WHAT__LIMITS) && i < rep->n_limits; i++)
        printf("chunkd %u, disk %u: at most %s%s\n", r->chunkd, rep->limits[i]->disk,
               output_size(rep->limits[i]->bytes, a), rep->limits[i]->now ? ", at once" : "");
    if (*rep->note)
        printf("chunkd %u: %s\n", r->chunkd, rep->note);
    if (waited == CTL_OK && w->drain)
        printf("chunkd %u %s\n", r->chunkd, w->text);
    if (waited == CTL_PROBLEM)
        printf("chunkd %u keeps %s of %" PRIu64 " chunks for now: %s\n", r->chunkd,
               output_size(w->k.leave_bytes, a), w->k.leave_chunks, w->text);
}

static int set_send(const struct ctl_opts *o, Replfs__ChunkdSetReq *r, const char *what)
{
    struct transport *t = NULL;
    Replfs__Envelope *rep = NULL;
    RPC_ENVELOPE(q, CHUNKD_SET_REQ, chunkd_set_req, r);
    struct watched w = {.chunkd = r->chunkd, .drain = r->draining};
    char detail[512];
    int rc = ctl_cluster(o, &t);
    if (rc)
        return rc;
    rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_CHUNKD_SET_REPLY, &rep, detail,
                        sizeof(detail));
    if (rc) {
        rc = transport_failed(t, what, rc, detail);
    } else {
        int waited = o->wait ? watch(o, t, what, &w) : -1;
        if (o->json)
            set_json(r, rep->chunkd_set_reply, &w, o->wait);
        else
            set_text(r, rep->chunkd_set_reply, &w, waited);
        rc = waited > 0 ? waited : CTL_OK;
    }
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    transport_free(t);
    return rc;
}

static int drain(const struct ctl_opts *o, const char *id, bool on)
{
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    const char *what = on ? "chunkd drain" : "chunkd undrain";
    r.what = REPLFS__CHUNKD_SET_OP__WHAT__DRAINING;
    r.draining = on;
    int rc = whole_number(what, id, &r.chunkd);
    return rc ? rc : set_send(o, &r, what);
}

static int capacity(const struct ctl_opts *o, const char *id, const char *size)
{
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    Replfs__DiskLimit l = REPLFS__DISK_LIMIT__INIT, *list[] = {&l};
    r.what = REPLFS__CHUNKD_SET_OP__WHAT__LIMITS;
    r.limits = list;
    r.n_limits = 1;
    l.none = !strcmp(size, "none");
    if (!l.none && config_parse_size(size, &l.bytes)) {
        ctl_error("chunkd capacity %s %s: give a size such as 500G, or none", id, size);
        return CTL_USAGE;
    }
    int rc = chunkd_and_disk(id, &r.chunkd, &l.disk);
    return rc ? rc : set_send(o, &r, "chunkd capacity");
}

static int pause_for(const struct ctl_opts *o, const char *id, bool on)
{
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    const char *what = on ? "chunkd pause" : "chunkd resume";
    r.what = REPLFS__CHUNKD_SET_OP__WHAT__PAUSE;
    r.pause_ms = on ? o->for_ms : 0;
    if (on && !o->for_ms) {
        ctl_error("chunkd pause %s: say for how long it may be away: --for 10h", id);
        return CTL_USAGE;
    }
    int rc = whole_number(what, id, &r.chunkd);
    return rc ? rc : set_send(o, &r, what);
}

/* "80%": true. */
static bool percent(const char *s, uint32_t *out)
{
    char *end;
    unsigned long v = strtoul(s, &end, 10);
    if (s[0] < '0' || s[0] > '9' || strcmp(end, "%") != 0 || v < 1 || v > 100)
        return false;
    *out = (uint32_t)v;
    return true;
}

int verb_reclaim(const struct ctl_opts *o)
{
    struct ctl_opts rest = *o;
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    if (o->nargs < 2) {
        ctl_error("usage: replfsctl reclaim ID SIZE|PERCENT%% [--now] [--wait [--timeout TIME]] "
                  "[PATH]");
        return CTL_USAGE;
    }
    r.what = REPLFS__CHUNKD_SET_OP__WHAT__LIMITS;
    r.now = o->now;
    if (!percent(o->args[1], &r.reclaim_percent) &&
        (config_parse_size(o->args[1], &r.reclaim) || !r.reclaim)) {
        ctl_error(
            "reclaim %s %s: give a size such as 100G, or a part of what it holds such as 80%%",
            o->args[0], o->args[1]);
        return CTL_USAGE;
    }
    rest.args += 2;
    rest.nargs -= 2;
    int rc = whole_number("reclaim", o->args[0], &r.chunkd);
    return rc ? rc : set_send(&rest, &r, "reclaim");
}

int ctl_chunkd_set(const struct ctl_opts *o)
{
    const char *verb = o->args[0];
    struct ctl_opts rest = *o;
    bool sizes = !strcmp(verb, "capacity");
    int words = sizes ? 3 : 2;
    if (o->nargs < words)
        return -1;
    rest.args += words;
    rest.nargs -= words;
    if (sizes)
        return capacity(&rest, o->args[1], o->args[2]);
    if (!strcmp(verb, "drain") || !strcmp(verb, "undrain"))
        return drain(&rest, o->args[1], verb[0] == 'd');
    if (!strcmp(verb, "pause") || !strcmp(verb, "resume"))
        return pause_for(&rest, o->args[1], verb[0] == 'p');
    return -1;
}
