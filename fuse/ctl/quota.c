/* replfsctl quota: limits of all that is below a directory, and how much of them is used.
 *
 * `set` with one of the two limits leaves the other as it is: what is there is asked first. `get`
 * shows every quota that a path is charged to, innermost first, `list` all of them by path. metad
 * tells paths from the root of the file system; shown is where that is on this machine. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/config.h"
#include "base/error.h"
#include "ctl.h"
#include "output.h"

#define USAGE                                                                                      \
    "usage: replfsctl quota set DIR [--bytes SIZE] [--inodes N] | get PATH... | list [DIR] | "     \
    "remove DIR..."

struct entry {
    char *path;
    Replfs__QuotaInfo q; /* scalars only */
};
struct list {
    struct entry *v;
    size_t n;
};

static void list_free(struct list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].path);
    free(l->v);
}

static char *path_of(const char *mount, const Replfs__QuotaInfo *q)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        abort();
    fputs(strcmp(mount, "/") ? mount : "", f);
    for (size_t i = 0; i < q->n_path; i++)
        fprintf(f, "/%.*s", (int)q->path[i].len, (const char *)q->path[i].data);
    if (!q->n_path && !*mount)
        putc('/', f);
    if (fclose(f))
        abort();
    return text;
}

static void quota_add(struct list *l, const char *mount, const Replfs__QuotaInfo *q)
{
    l->v = realloc(l->v, (l->n + 1) * sizeof(*l->v));
    if (!l->v)
        abort();
    l->v[l->n++] = (struct entry){path_of(mount, q), *q};
}

/* Those of inode ino, or, with ino 0, all below `below` (0: all). 0 or a negative code. */
static int quota_ask(struct transport *t, uint64_t ino, uint64_t below, struct list *l,
                     char *detail, size_t n)
{
    Replfs__QuotaListReq m = REPLFS__QUOTA_LIST_REQ__INIT;
    RPC_ENVELOPE(q, QUOTA_LIST_REQ, quota_list_req, &m);
    bool more = true;
    int rc = 0;
    m.ino = ino;
    m.below = below;
    while (!rc && more) {
        Replfs__Envelope *rep;
        rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_QUOTA_LIST_REPLY, &rep, detail, n);
        if (rc)
            break;
        const Replfs__QuotaListReply *r = rep->quota_list_reply;
        for (size_t i = 0; i < r->n_quotas; i++)
            quota_add(l, transport_mount(t), r->quotas[i]);
        more = r->more && !ino;
        if (more && (!r->n_quotas || r->quotas[r->n_quotas - 1]->realm <= m.after))
            rc = -ERR_PROTOCOL; /* else we might ask for ever */
        if (r->n_quotas)
            m.after = r->quotas[r->n_quotas - 1]->realm;
        replfs__envelope__free_unpacked(rep, NULL);
    }
    return rc;
}

/* ---- output ---- */

static void limit_cell(struct table *t, size_t col, uint64_t max, bool size)
{
    char a[16];
    if (!max)
        table_cell(t, col, "-");
    else if (size)
        table_cell(t, col, "%s", output_size(max, a));
    else
        table_cell(t, col, "%llu", (unsigned long long)max);
}

static void quota_text(const struct list *l)
{
    struct table t;
    char a[16];
    table_begin(&t, ">used|>limit|>inodes|>limit|directory");
    for (size_t i = 0; i < l->n; i++) {
        const Replfs__QuotaInfo *q = &l->v[i].q;
        char *name = NULL;
        size_t len;
        FILE *f = open_memstream(&name, &len);
        if (!f)
            abort();
        output_name(l->v[i].path, f);
        if (fclose(f))
            abort();
        table_row(&t);
        table_cell(&t, 0, "%s", output_size(q->bytes, a));
        limit_cell(&t, 1, q->max_bytes, true);
        table_cell(&t, 2, "%llu", (unsigned long long)q->inodes);
        limit_cell(&t, 3, q->max_inodes, false);
        table_cell(&t, 4, "%s", name);
        free(name);
    }
    table_print(&t, "", stdout);
}

static void json_quotas(struct json *j, const struct list *l)
{
    json_array(j, "quotas");
    for (size_t i = 0; i < l->n; i++) {
        const Replfs__QuotaInfo *q = &l->v[i].q;
        json_object(j, NULL);
        json_str(j, "directory", l->v[i].path);
        json_u64(j, "ino", q->ino);
        json_u64(j, "bytes", q->bytes);
        json_u64(j, "max_bytes", q->max_bytes);
        json_u64(j, "inodes", q->inodes);
        json_u64(j, "max_inodes", q->max_inodes);
        json_close(j);
    }
    json_close(j);
}

/* ---- get ---- */

static int get_one(const char *path, struct json *j)
{
    struct transport *t = NULL;
    struct transport_target at;
    struct list l = {0};
    char detail[512];
    int rc = transport_path(path, &t, &at);
    if (rc)
        return rc;
    rc = quota_ask(t, at.ino, 0, &l, detail, sizeof(detail));
    if (rc) {
        rc = transport_failed(t, path, rc, detail);
    } else if (j) {
        json_object(j, NULL);
        json_str(j, "path", path);
        json_quotas(j, &l);
        json_close(j);
    } else if (l.n) {
        quota_text(&l);
    } else {
        output_name(path, stdout);
        puts(": no quota");
    }
    list_free(&l);
    transport_free(t);
    return rc;
}

/* ---- list ---- */

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static int quota_show(const struct ctl_opts *o)
{
    struct transport *t = NULL;
    struct transport_target at = {0};
    struct list l = {0};
    struct json j;
    char detail[512];
    int rc = o->nargs == 1 && !o->meta ? transport_path(o->args[0], &t, &at) : ctl_cluster(o, &t);
    if (rc)
        return rc;
    rc = quota_ask(t, 0, at.ino, &l, detail, sizeof(detail));
    if (rc) {
        bool rights = rc == -EPERM || rc == -EACCES;
        rc = transport_failed(t, "quota list", rc,
                              rights ? "only root may list all quotas; quota get PATH shows those "
                                       "of a path"
                                     : detail);
    } else if (o->json) {
        json_begin(&j, stdout);
        json_object(&j, NULL);
        if (l.n)
            qsort(l.v, l.n, sizeof(*l.v), by_path);
        json_quotas(&j, &l);
        json_close(&j);
    } else if (l.n) {
        qsort(l.v, l.n, sizeof(*l.v), by_path);
        quota_text(&l);
    } else {
        puts("no quotas");
    }
    list_free(&l);
    transport_free(t);
    return rc;
}

/* ---- set, remove ---- */

/* 0, or an exit code after a message. */
static int change(struct transport *t, const char *path, uint64_t ino, uint64_t bytes,
                  uint64_t inodes)
{
    Replfs__QuotaOp qo = REPLFS__QUOTA_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    char detail[512];
    qo.ino = ino;
    qo.max_bytes = bytes;
    qo.max_inodes = inodes;
    op.op_case = REPLFS__META_OP__OP_QUOTA;
    op.quota = &qo;
    int rc = ctl_mutate(t, &op, detail, sizeof(detail));
    switch (-rc) {
    case 0:
        return CTL_OK;
    case ENODATA:
        ctl_error("%s: has no quota of its own (quota get shows those around it)", path);
        return CTL_PROBLEM;
    case ENOSPC:
        ctl_error("%s: there are as many quotas as there can be, 4095: remove one", path);
        return CTL_PROBLEM;
    case EPERM:
    case EACCES:
        return transport_failed(t, path, rc, "only root may set and remove quotas");
    default:
        return transport_failed(t, path, rc, detail);
    }
}

static int open_dir(const char *path, struct transport **t, struct transport_target *at)
{
    int rc = transport_path(path, t, at);
    if (rc || S_ISDIR(at->mode))
        return rc;
    ctl_error("%s: not a directory: a quota is for all that is below a directory", path);
    transport_free(*t);
    return CTL_USAGE;
}

static int remove_one(const char *path, struct json *j)
{
    struct transport *t = NULL;
    struct transport_target at;
    int rc = open_dir(path, &t, &at);
    if (rc)
        return rc;
    rc = change(t, path, at.ino, 0, 0);
    if (!rc && j) {
        json_object(j, NULL);
        json_str(j, "path", path);
        json_close(j);
    } else if (!rc) {
        output_name(path, stdout);
        puts(": quota removed");
    }
    transport_free(t);
    return rc;
}

/* "none" and 0: no limit. 0 or CTL_USAGE after a message. */
static int parse_limits(const struct ctl_opts *o, uint64_t *bytes, uint64_t *inodes)
{
    char *end;
    if (o->bytes && strcmp(o->bytes, "none") && config_parse_size(o->bytes, bytes)) {
        ctl_error("--bytes '%s': give a size such as 500M, 10G or 2T, or none", o->bytes);
        return CTL_USAGE;
    }
    if (!o->inodes || !strcmp(o->inodes, "none"))
        return 0;
    errno = 0;
    *inodes = strtoull(o->inodes, &end, 10);
    if (errno || *end || o->inodes[0] < '0' || o->inodes[0] > '9') {
        ctl_error("--inodes '%s': give a number, or none", o->inodes);
        return CTL_USAGE;
    }
    return 0;
}

/* What the directory's own quota is; nothing when it has none. */
static int own(struct transport *t, const char *path, uint64_t ino, struct list *l)
{
    char detail[512];
    int rc = quota_ask(t, ino, 0, l, detail, sizeof(detail));
    if (rc)
        return transport_failed(t, path, rc, detail);
    size_t keep = l->n && l->v[0].q.ino == ino; /* innermost first */
    while (l->n > keep)
        free(l->v[--l->n].path);
    return 0;
}

static int set_limits(struct transport *t, const char *path, uint64_t ino, const struct ctl_opts *o)
{
    struct list was = {0}, is = {0};
    uint64_t bytes = 0, inodes = 0;
    int rc = parse_limits(o, &bytes, &inodes);
    if (!rc)
        rc = own(t, path, ino, &was);
    if (!rc && was.n && !o->bytes)
        bytes = was.v[0].q.max_bytes;
    if (!rc && was.n && !o->inodes)
        inodes = was.v[0].q.max_inodes;
    if (!rc && !bytes && !inodes) {
        ctl_error("%s: neither bytes nor inodes would be limited: replfsctl quota remove DIR",
                  path);
        rc = CTL_USAGE;
    }
    if (!rc)
        rc = change(t, path, ino, bytes, inodes);
    if (!rc)
        rc = own(t, path, ino, &is);
    if (!rc && o->json) {
        struct json j;
        json_begin(&j, stdout);
        json_object(&j, NULL);
        json_quotas(&j, &is);
        json_close(&j);
    } else if (!rc && is.n) {
        const Replfs__QuotaInfo *q = &is.v[0].q;
        quota_text(&is);
        if ((q->max_bytes && q->bytes > q->max_bytes) ||
            (q->max_inodes && q->inodes > q->max_inodes))
            puts("More is in use than that: nothing can be added until enough is deleted.");
    }
    list_free(&was);
    list_free(&is);
    return rc;
}

static int quota_set(const struct ctl_opts *o)
{
    struct transport *t = NULL;
    struct transport_target at;
    if (o->nargs != 1 || o->meta || (!o->bytes && !o->inodes)) {
        ctl_error("usage: replfsctl quota set DIR [--bytes SIZE] [--inodes N], at least one of "
                  "the two");
        return CTL_USAGE;
    }
    int rc = open_dir(o->args[0], &t, &at);
    if (rc)
        return rc;
    rc = set_limits(t, o->args[0], at.ino, o);
    transport_free(t);
    return rc;
}

int verb_quota(const struct ctl_opts *o)
{
    struct ctl_opts rest = *o;
    const char *what = o->nargs ? o->args[0] : "";
    bool is_set = !strcmp(what, "set");
    if (!is_set && (o->bytes || o->inodes)) {
        ctl_error("--bytes and --inodes belong to quota set");
        return CTL_USAGE;
    }
    rest.args++;
    rest.nargs--;
    if (is_set)
        return quota_set(&rest);
    if (!strcmp(what, "get"))
        return ctl_each_path(&rest, "quota get PATH...", "paths", get_one);
    if (!strcmp(what, "list"))
        return quota_show(&rest);
    if (!strcmp(what, "remove"))
        return ctl_each_path(&rest, "quota remove DIR...", "removed", remove_one);
    ctl_error("%s", USAGE);
    return CTL_USAGE;
}
