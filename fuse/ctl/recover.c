/* replfsctl recover: this metad goes on although chunkds have seen a newer one. replfsctl quarantine:
 * copies of chunks that no file names and that may have been written under another metad (adopt.c: their bytes as
 * files). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl.h"
#include "output.h"

/* ---- recover ---- */

static void json_recover(const Replfs__RecoverReply *r)
{
    struct json j;
    json_begin(&j, stdout);
    json_object(&j, NULL);
    json_bool(&j, "behind", r->behind);
    json_u64(&j, "quarantine", r->quarantine);
    json_array(&j, "futures");
    for (size_t i = 0; i < r->n_futures; i++) {
        json_object(&j, NULL);
        json_id(&j, "incarnation", r->futures[i]->incarnation);
        json_u64(&j, "position", r->futures[i]->position);
        json_u64(&j, "time", (uint64_t)(r->futures[i]->time_ns / 1000000000));
        json_bool(&j, "accepted", r->futures[i]->accepted);
        json_close(&j);
    }
    json_close(&j);
    json_close(&j);
}

static int show_recover(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    const Replfs__RecoverReply *r = rep->recover_reply;
    if (o->json) {
        json_recover(r);
        return r->behind ? CTL_PROBLEM : CTL_OK;
    }
    for (size_t i = 0; i < r->n_futures; i++) {
        char when[64] = "";
        time_t at = (time_t)(r->futures[i]->time_ns / 1000000000);
        struct tm tm;
        if (localtime_r(&at, &tm))
            strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
        printf("incarnation %016" PRIx64 ", reported by chunkds %s: %s\n",
               r->futures[i]->incarnation, when,
               r->futures[i]->accepted ? "settled" : "newer than this metad");
    }
    if (r->behind)
        puts("This metad's data directory is older than what chunkds have seen. If the right one "
             "still\n"
             "exists, stop this metad, put that back and start it. If not: replfsctl recover "
             "--accept\n"
             "goes on without what was written since; chunks of it are kept in quarantine.");
    else
        puts("This metad has all that its chunkds have seen, or was told to go on without it.");
    printf("In quarantine: %" PRIu64 " copies of chunks\n", r->quarantine);
    return r->behind ? CTL_PROBLEM : CTL_OK;
}

int verb_recover(const struct ctl_opts *o)
{
    Replfs__RecoverReq ask_req = REPLFS__RECOVER_REQ__INIT;
    RPC_ENVELOPE(q, RECOVER_REQ, recover_req, &ask_req);
    ask_req.accept = o->accept;
    return ctl_ask(o, &q, REPLFS__ENVELOPE__BODY_RECOVER_REPLY, "recover", show_recover);
}

/* ---- quarantine ---- */

static struct {
    struct json j;
    uint32_t chunkd;
    uint64_t after, copies, bytes;
    bool more;
} list;

static int list_piece(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    const Replfs__QuarantineReply *r = rep->quarantine_reply;
    for (size_t i = 0; i < r->n_items; i++) {
        const Replfs__QuarantineItem *it = r->items[i];
        list.chunkd = it->chunkd;
        list.after = it->chunk;
        list.copies++;
        list.bytes += it->len;
        if (!o->json) {
            printf("%016" PRIx64 "  chunkd %u (", it->chunk, it->chunkd);
            output_name(it->host_name, stdout);
            printf(")  %u bytes  written by %016" PRIx64 "\n", it->len, it->session);
            continue;
        }
        json_object(&list.j, NULL);
        json_id(&list.j, "chunk", it->chunk);
        json_u64(&list.j, "chunkd", it->chunkd);
        json_str(&list.j, "host_name", it->host_name);
        json_u64(&list.j, "bytes", it->len);
        json_id(&list.j, "writer", it->session);
        json_close(&list.j);
    }
    list.more = r->more && r->n_items;
    return CTL_OK;
}

static int list_all(const struct ctl_opts *o)
{
    int rc = CTL_OK;
    json_begin(&list.j, stdout);
    if (o->json) {
        json_object(&list.j, NULL);
        json_array(&list.j, "copies");
    }
    do {
        Replfs__QuarantineReq m = REPLFS__QUARANTINE_REQ__INIT;
        RPC_ENVELOPE(q, QUARANTINE_REQ, quarantine_req, &m);
        m.chunkd = list.chunkd;
        m.after = list.after;
        rc = ctl_ask(o, &q, REPLFS__ENVELOPE__BODY_QUARANTINE_REPLY, "quarantine", list_piece);
    } while (!rc && list.more);
    if (o->json) {
        json_close(&list.j);
        json_close(&list.j);
    } else if (!rc) {
        printf("%" PRIu64 " copies of chunks are in quarantine, %" PRIu64 " bytes\n", list.copies,
               list.bytes);
    }
    return rc;
}

static int released(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    uint64_t n = rep->quarantine_reply->released;
    if (o->json)
        printf("{\"released\": %" PRIu64 "}\n", n);
    else
        printf("%" PRIu64 " copies of chunks are being deleted\n", n);
    return n ? CTL_OK : CTL_PROBLEM;
}

static int release(const struct ctl_opts *o)
{
    Replfs__QuarantineReq m = REPLFS__QUARANTINE_REQ__INIT;
    RPC_ENVELOPE(q, QUARANTINE_REQ, quarantine_req, &m);
    struct ctl_opts rest = *o;
    m.release_all = o->all;
    if (!o->all && o->nargs) {
        char *end;
        m.release = strtoull(o->args[0], &end, 16);
        rest.args++;
        rest.nargs--;
        if (*end || end == o->args[0])
            m.release = 0;
    }
    if (!o->all && !m.release) {
        ctl_error(
            "usage: replfsctl quarantine drop CHUNK|--all [PATH]: CHUNK as quarantine lists it");
        return CTL_USAGE;
    }
    return ctl_ask(&rest, &q, REPLFS__ENVELOPE__BODY_QUARANTINE_REPLY, "quarantine drop", released);
}

int verb_quarantine(const struct ctl_opts *o)
{
    struct ctl_opts rest = *o;
    bool is_release = o->nargs && (!strcmp(o->args[0], "drop") || !strcmp(o->args[0], "release"));
    bool is_adopt = o->nargs && !strcmp(o->args[0], "adopt");
    bool named = is_release || is_adopt || (o->nargs && !strcmp(o->args[0], "list"));
    if (named) {
        rest.args++;
        rest.nargs--;
    }
    if (is_release)
        return release(&rest);
    if (is_adopt)
        return ctl_quarantine_adopt(&rest);
    if (o->all) {
        ctl_error("--all belongs to quarantine adopt and drop");
        return CTL_USAGE;
    }
    return list_all(&rest);
}
