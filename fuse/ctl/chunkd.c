/* replfsctl chunkd: list, every chunk daemon with its disks and what was decided about it; remove, one that has left for
 * good. The others are in chunkd_set.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "output.h"

static bool shares_fs(const Replfs__ChunkdStatus *k, size_t d)
{
    for (size_t i = 0; i < k->n_disks; i++)
        if (i != d && k->disks[d]->fs && k->disks[i]->fs == k->disks[d]->fs)
            return true;
    return false;
}

/* What a disk's note is added to. */
static const char *note_begin(char text[static 512])
{
    size_t len = strlen(text);
    if (len && len < 500)
        memcpy(text + len, "; ", 3);
    return text;
}

static void chunkd_text(const Replfs__StatusReply *s)
{
    struct table t;
    char a[16], b[16], c[32], text[512];
    table_begin(&t, ">id|state|host|address|seen|disk|>used|>free|>chunks|note");
    for (size_t i = 0; i < s->n_chunkds; i++) {
        const Replfs__ChunkdStatus *k = s->chunkds[i];
        for (size_t d = 0; d < k->n_disks || !d; d++) {
            table_row(&t);
            if (!d) {
                table_cell(&t, 0, "%u", k->chunkd);
                table_cell(&t, 1, "%s", ctl_node_state(k->state));
                table_cell(&t, 2, "%s", *k->host_name ? k->host_name : k->host_id);
                table_cell(&t, 3, "%s", k->addr);
                table_cell(&t, 4, "%s", output_age(k->last_seen_ms / 1000, c));
                table_cell(&t, 9, "%s", ctl_leave_text(k, text));
            }
            if (d >= k->n_disks)
                break;
            const Replfs__DiskStat *disk = k->disks[d];
            table_cell(&t, 5, "%s", disk->path);
            table_cell(&t, 6, "%s", output_size(disk->used, a));
            table_cell(&t, 7, "%s", output_size(disk->avail, b));
            table_cell(&t, 8, "%" PRIu64, disk->chunks);
            const Replfs__DiskLimit *limit = ctl_disk_limit(k, disk->disk);
            if (disk->failed)
                table_cell(&t, 9, "%s: %s",
                           disk->missing    ? "MISSING"
                           : disk->readonly ? "READ-ONLY"
                                            : "FAILED",
                           disk->error);
            else if (shares_fs(k, d))
                table_cell(&t, 9, "%son one file system with another", d ? "" : note_begin(text));
            else if (limit)
                table_cell(&t, 9, "%sat most %s", d ? "" : note_begin(text),
                           output_size(limit->bytes, a));
        }
    }
    table_print(&t, "", stdout);
}

static void json_disk(struct json *j, const Replfs__ChunkdStatus *k, const Replfs__DiskStat *d)
{
    const Replfs__DiskLimit *limit = ctl_disk_limit(k, d->disk);
    json_object(j, NULL);
    json_u64(j, "disk", d->disk);
    json_str(j, "path", d->path);
    json_u64(j, "capacity", d->capacity);
    json_u64(j, "used", d->used);
    json_u64(j, "free", d->avail);
    json_u64(j, "chunks", d->chunks);
    json_u64(j, "dead", d->dead);
    json_u64(j, "file_system", d->fs);
    json_u64(j, "shortage", d->shortage);
    if (limit)
        json_u64(j, "limit", limit->bytes);
    json_bool(j, "failed", d->failed);
    json_bool(j, "missing", d->missing);
    json_bool(j, "readonly", d->readonly);
    json_str(j, "error", d->error);
    json_close(j);
}

static void print_json(const Replfs__StatusReply *s)
{
    struct json j;
    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_array(&j, "chunkds");
    for (size_t i = 0; i < s->n_chunkds; i++) {
        const Replfs__ChunkdStatus *k = s->chunkds[i];
        json_object(&j, NULL);
        json_u64(&j, "id", k->chunkd);
        json_str(&j, "state", ctl_node_state(k->state));
        json_str(&j, "addr", k->addr);
        json_str(&j, "host_id", k->host_id);
        json_str(&j, "host_name", k->host_name);
        json_u64(&j, "last_seen_ms", k->last_seen_ms);
        json_u64(&j, "chunks", k->chunks);
        json_u64(&j, "inflight", k->inflight);
        json_u64(&j, "read_bytes", k->read_bytes);
        json_u64(&j, "write_bytes", k->write_bytes);
        ctl_leave_json(&j, k);
        json_array(&j, "disks");
        for (size_t d = 0; d < k->n_disks; d++)
            json_disk(&j, k, k->disks[d]);
        json_close(&j);
        json_close(&j);
    }
    json_close(&j);
    json_close(&j);
}

static int chunkd_show(const struct ctl_opts *o, const Replfs__StatusReply *s)
{
    if (o->json)
        print_json(s);
    else
        chunkd_text(s);
    return CTL_OK;
}

static int remove_chunkd(const struct ctl_opts *o, const char *id)
{
    struct transport *t = NULL;
    Replfs__Envelope *rep = NULL;
    Replfs__ChunkdRemoveReq r = REPLFS__CHUNKD_REMOVE_REQ__INIT;
    RPC_ENVELOPE(q, CHUNKD_REMOVE_REQ, chunkd_remove_req, &r);
    char detail[512], *end, what[64];
    unsigned long v = strtoul(id, &end, 10);
    if (id[0] < '0' || id[0] > '9' || *end || v == 0 || v > UINT32_MAX) {
        ctl_error(
            "chunkd remove %s: give the number of a chunkd, as replfsctl chunkd list shows it", id);
        return CTL_USAGE;
    }
    r.chunkd = (uint32_t)v;
    int rc = ctl_cluster(o, &t);
    if (rc)
        return rc;
    snprintf(what, sizeof(what), "chunkd remove %lu", v);
    rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_CHUNKD_REMOVE_REPLY, &rep, detail,
                        sizeof(detail));
    if (rc)
        rc = transport_failed(t, what, rc, detail);
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    transport_free(t);
    return rc;
}

int verb_chunkd(const struct ctl_opts *o)
{
    struct ctl_opts rest = *o;
    const char *verb = o->nargs ? o->args[0] : "";
    bool list = !strcmp(verb, "list"), removal = !strcmp(verb, "remove") && o->nargs > 1;
    int rc = !list && !removal && o->nargs ? ctl_chunkd_set(o) : -1;
    if (rc >= 0)
        return rc;
    if (!list && !removal) {
        ctl_error("chunkd %s: usage: replfsctl chunkd list | drain ID | undrain ID | capacity "
                  "ID[:DISK] SIZE|none | pause ID --for TIME | resume ID | remove ID, each with "
                  "[PATH]",
                  verb);
        return CTL_USAGE;
    }
    rest.args += list ? 1 : 2;
    rest.nargs -= list ? 1 : 2;
    return list ? ctl_with_status(&rest, chunkd_show) : remove_chunkd(&rest, o->args[1]);
}
