/* replfsctl info: where a file's bytes are. metad sends extents page by page, each page with the
 * chunks its extents name; all pages are collected first, since a chunk may appear on several. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/error.h"
#include "ctl.h"
#include "output.h"

#define TEXT_EXTENTS 32u /* more are counted only; --json has all */
#define PAGES_MAX 100000u

struct pages {
    Replfs__Envelope **rep;
    size_t n;
    Replfs__ChunkInfo **chunks; /* each chunk once, by id; point into rep */
    size_t nchunks, nextents;
};

static void pages_free(struct pages *p)
{
    for (size_t i = 0; i < p->n; i++)
        replfs__envelope__free_unpacked(p->rep[i], NULL);
    free(p->rep);
    free(p->chunks);
}

static void *grown(void *p, size_t n, size_t size)
{
    p = realloc(p, (n + 1) * size);
    if (!p)
        abort();
    return p;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = (*(Replfs__ChunkInfo *const *)a)->chunk,
             y = (*(Replfs__ChunkInfo *const *)b)->chunk;
    return x < y ? -1 : x > y;
}

static void collect_chunks(struct pages *p)
{
    size_t all = 0, kept = 0;
    for (size_t i = 0; i < p->n; i++)
        all += p->rep[i]->info_reply->n_chunks;
    p->chunks = ctl_alloc((all + 1) * sizeof(*p->chunks));
    for (size_t i = 0; i < p->n; i++) {
        const Replfs__InfoReply *r = p->rep[i]->info_reply;
        p->nextents += r->n_extents;
        for (size_t c = 0; c < r->n_chunks; c++)
            p->chunks[p->nchunks++] = r->chunks[c];
    }
    qsort(p->chunks, p->nchunks, sizeof(*p->chunks), by_id);
    for (size_t i = 0; i < p->nchunks; i++)
        if (!kept || p->chunks[kept - 1]->chunk != p->chunks[i]->chunk)
            p->chunks[kept++] = p->chunks[i];
    p->nchunks = kept;
}

static int info_fetch(const char *path, struct pages *p)
{
    struct transport *t = NULL;
    struct transport_target at;
    Replfs__InfoReq ask = REPLFS__INFO_REQ__INIT;
    RPC_ENVELOPE(q, INFO_REQ, info_req, &ask);
    char detail[512];
    bool more = true;
    int rc = transport_path(path, &t, &at);
    if (rc)
        return rc;
    ask.ino = at.ino;
    while (!rc && more) {
        Replfs__Envelope *rep;
        rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_INFO_REPLY, &rep, detail, sizeof(detail));
        if (rc)
            break;
        p->rep = grown(p->rep, p->n, sizeof(*p->rep));
        p->rep[p->n++] = rep;
        more = rep->info_reply->more;
        if (!rep->info_reply->attr || p->n > PAGES_MAX ||
            (more && rep->info_reply->next_cookie <= ask.cookie))
            rc = -ERR_PROTOCOL; /* else we might ask for ever */
        ask.cookie = rep->info_reply->next_cookie;
    }
    if (rc)
        rc = transport_failed(t, path, rc, detail);
    else
        collect_chunks(p);
    transport_free(t);
    return rc;
}

/* ---- text ---- */

static void text_extents(const struct pages *p)
{
    size_t shown = 0;
    struct table t;
    if (!p->nextents)
        return;
    table_begin(&t, ">offset|>length|chunk|>at");
    for (size_t i = 0; i < p->n && shown < TEXT_EXTENTS; i++) {
        const Replfs__InfoReply *r = p->rep[i]->info_reply;
        for (size_t e = 0; e < r->n_extents && shown < TEXT_EXTENTS; e++, shown++) {
            table_row(&t);
            table_cell(&t, 0, "%" PRIu64, r->extents[e]->file_off);
            table_cell(&t, 1, "%u", r->extents[e]->len);
            if (!r->extents[e]->chunk) {
                table_cell(&t, 2, "reserved");
                table_cell(&t, 3, "%s", "");
                continue;
            }
            table_cell(&t, 2, "%" PRIx64, r->extents[e]->chunk);
            table_cell(&t, 3, "%u", r->extents[e]->chunk_off);
        }
    }
    table_print(&t, "    ", stdout);
    if (p->nextents > shown)
        printf("    and %zu more (--json shows all)\n", p->nextents - shown);
}

static void text_chunk(const Replfs__ChunkInfo *c, uint32_t file_goal)
{
    char a[16];
    struct table t;
    printf("  chunk %" PRIx64 ": %s, goal %u, copies %zu\n", c->chunk, output_size(c->len, a),
           c->goal, c->n_copies);
    if (c->goal > file_goal && !*c->note)
        printf(
            "    goal above the file's %u: shared with %u reference%s, one of which asks for %u\n",
            file_goal, c->refs, c->refs == 1 ? "" : "s", c->goal);
    if (*c->note)
        printf("    %s\n", c->note);
    if (!c->n_copies)
        return;
    table_begin(&t, "host|>chunkd|address|disk|state");
    for (size_t i = 0; i < c->n_copies; i++) {
        const Replfs__CopyInfo *k = c->copies[i];
        table_row(&t);
        table_cell(&t, 0, "%s", *k->host_name ? k->host_name : k->host_id);
        table_cell(&t, 1, "%u", k->chunkd);
        table_cell(&t, 2, "%s", k->addr);
        table_cell(&t, 3, "%s", k->disk);
        table_cell(&t, 4, "%s", k->state);
    }
    table_print(&t, "    ", stdout);
}

static void info_text(const char *path, const struct pages *p)
{
    const Replfs__Attr *a = p->rep[0]->info_reply->attr;
    char size[16];
    output_name(path, stdout);
    printf("\n  inode %" PRIu64 ", size %" PRIu64 " (%s), goal %u cop%s", a->ino, a->size,
           output_size(a->size, size), a->goal, a->goal == 1 ? "y" : "ies");
    puts(S_ISDIR(a->mode) ? " (for new entries)" : "");
    if (!S_ISREG(a->mode))
        return;
    printf("  extents %zu, chunks %zu\n", p->nextents, p->nchunks);
    text_extents(p);
    for (size_t i = 0; i < p->nchunks; i++)
        text_chunk(p->chunks[i], a->goal);
}

/* ---- JSON ---- */

static void json_chunk(struct json *j, const Replfs__ChunkInfo *c)
{
    json_object(j, NULL);
    json_id(j, "chunk", c->chunk);
    json_u64(j, "len", c->len);
    json_u64(j, "goal", c->goal);
    json_u64(j, "refs", c->refs);
    json_str(j, "note", c->note);
    json_array(j, "copies");
    for (size_t i = 0; i < c->n_copies; i++) {
        const Replfs__CopyInfo *k = c->copies[i];
        json_object(j, NULL);
        json_u64(j, "chunkd", k->chunkd);
        json_str(j, "addr", k->addr);
        json_str(j, "host_id", k->host_id);
        json_str(j, "host_name", k->host_name);
        json_str(j, "disk", k->disk);
        json_str(j, "state", k->state);
        json_close(j);
    }
    json_close(j);
    json_close(j);
}

static const char *type_name(uint32_t mode)
{
    return S_ISREG(mode)   ? "file"
           : S_ISDIR(mode) ? "directory"
           : S_ISLNK(mode) ? "symlink"
                           : "other";
}

static void print_json(struct json *j, const char *path, const struct pages *p)
{
    const Replfs__Attr *a = p->rep[0]->info_reply->attr;
    json_object(j, NULL);
    json_str(j, "path", path);
    json_u64(j, "ino", a->ino);
    json_str(j, "type", type_name(a->mode));
    json_u64(j, "size", a->size);
    json_u64(j, "allocated", a->allocated);
    json_u64(j, "goal", a->goal);
    json_array(j, "extents");
    for (size_t i = 0; i < p->n; i++) {
        const Replfs__InfoReply *r = p->rep[i]->info_reply;
        for (size_t e = 0; e < r->n_extents; e++) {
            json_object(j, NULL);
            json_u64(j, "off", r->extents[e]->file_off);
            json_u64(j, "len", r->extents[e]->len);
            json_id(j, "chunk", r->extents[e]->chunk);
            json_u64(j, "chunk_off", r->extents[e]->chunk_off);
            json_close(j);
        }
    }
    json_close(j);
    json_array(j, "chunks");
    for (size_t i = 0; i < p->nchunks; i++)
        json_chunk(j, p->chunks[i]);
    json_close(j);
    json_close(j);
}

static int info_of(const char *path, struct json *j)
{
    struct pages p = {0};
    int rc = info_fetch(path, &p);
    if (!rc && j)
        print_json(j, path, &p);
    else if (!rc)
        info_text(path, &p);
    pages_free(&p);
    return rc;
}

int verb_info(const struct ctl_opts *o)
{
    return ctl_each_path(o, "info FILE...", "files", info_of);
}
