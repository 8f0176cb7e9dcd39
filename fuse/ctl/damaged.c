/* replfsctl damaged: files with bytes that no copy in reach has.
 *
 * metad tells inodes and ranges; their names are looked for here, in the listings below the path given (the mount's root
 * without one), until each inode has one. So it takes a walk through names, but only when something is damaged; and
 * through a mount alone: with --meta inodes are shown by number. A file with several names is shown by the first one
 * found, one without any (still open) by its number. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/u64map.h"
#include "ctl.h"
#include "output.h"

#define DEPTH_MAX 512u

struct damaged_range {
    uint64_t ino, chunk, off, len;
    bool whole;
};
static struct {
    struct damaged_range *v;
    size_t n, cap;
    uint64_t cookie;
    bool more;
    struct u64map names; /* inode -> its path, strdup'ed; the empty string: none found */
    size_t missing;      /* inodes without a name so far */
} damaged;

/* ---- what metad tells ---- */

static int damaged_piece(const struct ctl_opts *o, const Replfs__Envelope *rep)
{
    const Replfs__DamagedReply *r = rep->damaged_reply;
    (void)o;
    for (size_t i = 0; i < r->n_ranges; i++) {
        const Replfs__DamagedRange *d = r->ranges[i];
        if (damaged.n == damaged.cap) {
            damaged.cap = damaged.cap ? damaged.cap * 2 : 64;
            damaged.v = realloc(damaged.v, damaged.cap * sizeof(*damaged.v));
            if (!damaged.v)
                abort();
        }
        damaged.v[damaged.n++] = (struct damaged_range){d->ino, d->chunk, d->off, d->len, d->whole};
    }
    damaged.cookie = r->cookie;
    damaged.more = r->more;
    return CTL_OK;
}

/* By inode and place; ranges that adjoin become one. */
static int by_place(const void *x, const void *y)
{
    const struct damaged_range *a = x, *b = y;
    if (a->ino != b->ino)
        return a->ino < b->ino ? -1 : 1;
    return (a->off > b->off) - (a->off < b->off);
}

static void damaged_sort(void)
{
    size_t k = 0;
    if (damaged.n)
        qsort(damaged.v, damaged.n, sizeof(*damaged.v), by_place);
    for (size_t i = 0; i < damaged.n; i++) {
        struct damaged_range *last = k ? &damaged.v[k - 1] : NULL, *d = &damaged.v[i];
        if (last && last->ino == d->ino && last->chunk == d->chunk &&
            last->off + last->len == d->off)
            last->len += d->len;
        else
            damaged.v[k++] = *d;
    }
    damaged.n = k;
}

/* ---- names ---- */

static void name_found(uint64_t ino, const char *path)
{
    if (!damaged.missing || !u64map_has(&damaged.names, ino) || u64map_get_ptr(&damaged.names, ino))
        return;
    char *copy = strdup(path);
    if (!copy)
        abort();
    u64map_put_ptr(&damaged.names, ino, copy);
    damaged.missing--;
}

/* path: a directory, in a buffer of PATH_MAX bytes. Directories of another file system are left out. */
static void names_below(char *path, dev_t dev, unsigned depth)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || st.st_dev != dev || depth == DEPTH_MAX) {
        if (fd < 0)
            ctl_error("%s: %s: what is below is not looked through", path, strerror(errno));
        else
            close(fd);
        return;
    }
    DIR *d = fdopendir(fd);
    size_t len = strlen(path);
    if (!d)
        abort();
    for (struct dirent *e; damaged.missing && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        int n = snprintf(path + len, PATH_MAX - len, "%s%s", path[len - 1] == '/' ? "" : "/",
                         e->d_name);
        if (n < 0 || (size_t)n >= PATH_MAX - len)
            continue; /* too long to be told */
        if (e->d_type == DT_DIR)
            names_below(path, dev, depth + 1);
        else
            name_found(e->d_ino, path);
    }
    path[len] = '\0';
    closedir(d);
}

static void damaged_name(const char *from)
{
    char path[PATH_MAX];
    struct stat st;
    u64map_init(&damaged.names, U64MAP_U64);
    for (size_t i = 0; i < damaged.n; i++)
        damaged.missing += u64map_put(&damaged.names, damaged.v[i].ino, 0);
    if (!damaged.missing || !*from || !realpath(from, path) || lstat(path, &st))
        return;
    if (S_ISDIR(st.st_mode))
        names_below(path, st.st_dev, 0);
    else
        name_found(st.st_ino, path);
}

/* ---- output ---- */

static void damaged_json(struct json *j, const struct damaged_range *d, const char *path)
{
    json_object(j, NULL);
    json_str(j, "path", path);
    json_u64(j, "inode", d->ino);
    json_u64(j, "offset", d->off);
    json_u64(j, "bytes", d->len);
    json_id(j, "chunk", d->chunk);
    json_bool(j, "no_copy", d->whole);
    json_close(j);
}

static void damaged_line(const struct damaged_range *d, const char *path)
{
    if (path)
        output_name(path, stdout);
    else
        printf("inode %" PRIu64, d->ino);
    printf(": bytes %" PRIu64 " to %" PRIu64 " (chunk %016" PRIx64 ": %s)\n", d->off,
           d->off + d->len - 1, d->chunk,
           d->whole ? "no good copy is left" : "no copy in reach has them");
}

/* below: only files with a name, which was looked for below the path given. */
static int damaged_show(const struct ctl_opts *o, bool below)
{
    struct json j;
    size_t shown = 0;
    json_begin(&j, stdout);
    if (o->json) {
        json_object(&j, NULL);
        json_array(&j, "ranges");
    }
    for (size_t i = 0; i < damaged.n; i++) {
        const char *path = u64map_get_ptr(&damaged.names, damaged.v[i].ino);
        if (below && !path)
            continue;
        shown++;
        if (o->json)
            damaged_json(&j, &damaged.v[i], path);
        else
            damaged_line(&damaged.v[i], path);
    }
    if (o->json) {
        json_close(&j);
        json_close(&j);
    } else if (!shown) {
        puts("no file is known to have damaged bytes");
    }
    return shown ? CTL_PROBLEM : CTL_OK;
}

/* Where names are looked for: PATH, else the mount's root. */
static int damaged_from(const struct ctl_opts *o, char out[PATH_MAX], bool *below)
{
    struct transport *t = NULL;
    struct stat st, root;
    int rc = ctl_cluster(o, &t);
    if (rc)
        return rc;
    const char *mount = transport_mount(t);
    snprintf(out, PATH_MAX, "%s", o->nargs && *mount ? o->args[0] : mount);
    *below =
        o->nargs && *mount && !stat(mount, &root) && !stat(out, &st) && st.st_ino != root.st_ino;
    transport_free(t);
    return CTL_OK;
}

int verb_damaged(const struct ctl_opts *o)
{
    char from[PATH_MAX];
    bool below = false;
    int rc = damaged_from(o, from, &below);
    do {
        Replfs__DamagedReq m = REPLFS__DAMAGED_REQ__INIT;
        RPC_ENVELOPE(q, DAMAGED_REQ, damaged_req, &m);
        m.cookie = damaged.cookie;
        if (!rc)
            rc = ctl_ask(o, &q, REPLFS__ENVELOPE__BODY_DAMAGED_REPLY, "damaged", damaged_piece);
    } while (!rc && damaged.more);
    if (rc)
        return rc;
    damaged_sort();
    damaged_name(from);
    rc = damaged_show(o, below);
    for (size_t i = 0; i < damaged.n; i++)
        free(u64map_del_ptr(&damaged.names, damaged.v[i].ino));
    u64map_free(&damaged.names);
    free(damaged.v);
    return rc;
}
