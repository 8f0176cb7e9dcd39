/* replfs-metad --recover and --restore.
 *
 * Every chunkd named is asked what it has. All must belong to one cluster, and none may hear from a metad: then the
 * cluster lives, and a second metad of the same cluster would be the greater damage. Of the copies that hold a whole
 * checkpoint those of the newest life count (names_file.h), and of these the one whose entries reach furthest is fetched
 * and read in full; when it is damaged before its end, the next one is tried, as long as it may reach further than what
 * was found good. Copies of an earlier life are taken only when there is nothing else: however far they reach, what was
 * done since is not in them. What is fetched lies beside the directory, as DIR.recover, until it is done.
 *
 * What is made begins a new life, in a term above all that the chunkds have heard of.
 *
 * The metad that starts on the directory finds out from its chunkds what it lacks (nodes_past.c): it is behind, deletes
 * nothing, and waits for a person.
 *
 * One thread, before anything else runs. */
#include "recover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "metad/log/mlog_build.h"
#include "names_file.h"

#define LOG_MODULE "recover"
#define ASK_MS 60000u /* a chunkd reads its files in full when it is first asked */
#define PIECE_MS 30000u
#define CANDIDATES_MAX 256u

struct candidate {
    struct rpc_conn *conn; /* a reference */
    const char *from;
    uint32_t chunkd;
    uint64_t generation, size, reached, life;
    int64_t time_ns;
};
struct recovering {
    struct rpc_loop *loop;
    struct candidate v[CANDIDATES_MAX];
    size_t n;
    char cluster[40];
    const char *cluster_from;
    bool mixed, alive;
    size_t silent; /* chunkds that did not answer */
    uint64_t term; /* the highest that one has heard of */
};

/* ---- a file becomes a directory ---- */

struct building {
    struct mlog_build *b;
    const char *why;
};

static int build_record(void *arg, const struct names_record *r)
{
    struct building *g = arg;
    int rc = 0;

    switch (r->type) {
    case NAMES_PIECE:
        rc = mlog_build_state(g->b, r->payload, r->len);
        break;
    case NAMES_WHOLE:
        break;
    case NAMES_ENTRY:
        rc = mlog_build_entry(g->b, r->a, r->payload, r->len, &g->why);
        break;
    }
    return rc;
}

static void say_done(const char *dir, const struct names_header *h, const struct names_track *t)
{
    char text[NAMES_TIME_TEXT];

    printf("Cluster %s in %s: checkpoint %" PRIu64 " and %" PRIu64
           " later log entries, up to index "
           "%" PRIu64 ".\n"
           "The last change it has is of %s; changes after that are lost.\n"
           "Start it with:   replfs-metad --data %s\n"
           "Chunks that belong to lost changes are kept in quarantine: see replfs-admin(7).\n",
           h->cluster, dir, h->generation, t->entries, t->reached,
           names_time(t->time_ns / NSEC_PER_SEC, text), dir);
}

/* term: the highest that anybody is known to have heard of. */
static int build_from(int fd, const char *name, const char *dir, uint64_t term)
{
    struct building g = {0};
    struct names_header h;
    struct names_track t;
    uint64_t good;
    const char *why;

    int rc = names_file_read(fd, &h, &t, &good, &why, NULL, NULL);
    if (rc != 0) {
        log_error("%s: %s", name, why ? why : err_str(rc));
        return rc;
    }
    if (!t.whole) {
        log_error("%s: damaged or not complete (good up to byte %" PRIu64 "%s%s): it does not hold "
                  "a whole checkpoint",
                  name, good, why ? ": " : "", why ? why : "");
        return -ERR_CORRUPT;
    }
    if (why)
        log_warn("%s: good up to byte %" PRIu64 ": %s; what comes behind it is left out", name,
                 good, why);
    rc = mlog_build_begin(dir, h.generation, &g.b);
    if (rc == 0)
        rc = names_file_read(fd, &h, &t, &good, &why, build_record, &g);
    if (rc != 0 && g.b)
        log_error("%s: at byte %" PRIu64 ": %s", name, good, g.why ? g.why : err_str(rc));
    if (rc == 0)
        rc = mlog_build_finish(
            g.b, h.cluster,
            names_next_life(h.term > term ? h.term : term, clock_wall() / NSEC_PER_SEC));
    mlog_build_free(g.b);
    if (rc == 0)
        say_done(dir, &h, &t);
    return rc;
}

int recover_from_file(const char *path, const char *dir)
{
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        int rc = -errno;
        log_error("%s: cannot be opened: %s", path, err_str(rc));
        return rc;
    }
    return build_from(fd, path, dir, 0);
}

/* ---- what chunkds have ---- */

static void take_candidate(struct recovering *r, struct rpc_conn *conn, const char *from,
                           const Replfs__NamesGetReply *rep, const Replfs__NamesState *s)
{
    char text[NAMES_TIME_TEXT];

    printf("chunkd %u at %s: checkpoint %" PRIu64 ", %s, up to index %" PRIu64 " of %s, %" PRIu64
           " bytes\n",
           rep->chunkd, from, s->generation, s->whole ? "whole" : "not whole", s->reached,
           names_time(s->time_ns / NSEC_PER_SEC, text), s->size);
    if (!s->whole || r->n == CANDIDATES_MAX)
        return;
    r->v[r->n++] = (struct candidate){.conn = rpc_conn_ref(conn),
                                      .from = from,
                                      .chunkd = rep->chunkd,
                                      .generation = s->generation,
                                      .size = s->size,
                                      .reached = s->reached,
                                      .life = names_life(s->term),
                                      .time_ns = s->time_ns};
}

static void take_list(struct recovering *r, struct rpc_conn *conn, const char *from,
                      const Replfs__NamesGetReply *rep)
{
    if (rep->cluster[0] && !r->cluster[0]) {
        snprintf(r->cluster, sizeof(r->cluster), "%s", rep->cluster);
        r->cluster_from = from;
    } else if (rep->cluster[0] && strcmp(r->cluster, rep->cluster) != 0) {
        log_error("%s belongs to cluster %s, %s to cluster %s: name chunkds of one cluster only",
                  r->cluster_from, r->cluster, from, rep->cluster);
        r->mixed = true;
    }
    if (rep->metad[0]) {
        log_error("chunkd %u at %s hears from a metad at %s: this cluster is alive. Two metads "
                  "that know nothing of each other would destroy it: stop that one first",
                  rep->chunkd, from, rep->metad);
        r->alive = true;
    }
    if (rep->term > r->term)
        r->term = rep->term;
    if (rep->n_files == 0)
        printf("chunkd %u at %s: no copy of the names\n", rep->chunkd, from);
    for (size_t i = 0; i < rep->n_files; i++)
        take_candidate(r, conn, from, rep, rep->files[i]);
}

static int names_ask(struct rpc_conn *conn, uint64_t generation, uint64_t offset, unsigned ms,
                     struct rpc_result *res)
{
    Replfs__NamesGetReq req = REPLFS__NAMES_GET_REQ__INIT;

    req.generation = generation;
    req.offset = offset;
    RPC_ENVELOPE(env, NAMES_GET_REQ, names_get_req, &req);
    int rc = rpc_call_wait(conn, &env, NULL, ms, res);
    if (rc == 0 && res->rep->body_case != REPLFS__ENVELOPE__BODY_NAMES_GET_REPLY)
        rc = -ERR_PROTOCOL;
    return rc;
}

static void ask_chunkd(struct recovering *r, const char *from)
{
    struct rpc_conn *conn;
    struct rpc_result res = {0};
    int rc = rpc_dial(r->loop, from, RPC_ROLE_CHUNKD, NULL, &conn);

    if (rc != 0) {
        log_error("%s: %s", from, err_str(rc));
        r->silent++;
        return;
    }
    rc = names_ask(conn, 0, 0, ASK_MS, &res);
    if (rc == 0)
        take_list(r, conn, from, res.rep->names_get_reply);
    else if (++r->silent)
        log_warn("%s does not answer: %s %s", from, err_str(rc),
                 res.rep && res.rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE
                     ? res.rep->failure->detail
                     : rpc_conn_error(conn));
    rpc_result_free(&res);
    rpc_conn_unref(conn);
}

/* ---- fetching ---- */

static int fetch_to(const struct candidate *c, int fd)
{
    int rc = ftruncate(fd, 0) < 0 ? -errno : 0;

    for (uint64_t at = 0; rc == 0 && at < c->size;) {
        struct rpc_result res = {0};
        rc = names_ask(c->conn, c->generation, at, PIECE_MS, &res);
        if (rc == 0 && (!res.payload || res.payload->len == 0))
            rc = -ERR_SHORT;
        if (rc == 0 &&
            pwrite(fd, res.payload->data, res.payload->len, (off_t)at) != (ssize_t)res.payload->len)
            rc = errno != 0 ? -errno : -EIO;
        if (rc == 0)
            at += res.payload->len;
        rpc_result_free(&res);
    }
    return rc;
}

static int furthest_first(const void *x, const void *y)
{
    const struct candidate *a = x, *b = y;

    if (a->life != b->life)
        return a->life > b->life ? -1 : 1;
    if (a->reached != b->reached)
        return a->reached > b->reached ? -1 : 1;
    return a->generation > b->generation ? -1 : a->generation < b->generation;
}

struct fetched {
    char path[2][PATH_MAX]; /* the best, and the one that comes in */
    int fd[2];
    uint64_t reached; /* of the best; 0: there is none */
};

/* Fetches one and keeps it when it reaches further than the best. */
static void try_candidate(struct fetched *f, const struct candidate *c)
{
    struct names_header h;
    struct names_track t;
    uint64_t good;
    const char *why;

    int rc = fetch_to(c, f->fd[1]);
    if (rc == 0)
        rc = names_file_read(f->fd[1], &h, &t, &good, &why, NULL, NULL);
    if (rc != 0) {
        log_warn("%s: checkpoint %" PRIu64 " cannot be had: %s", c->from, c->generation,
                 err_str(rc));
        return;
    }
    if (why || !t.whole)
        log_warn("%s: checkpoint %" PRIu64 " is good up to byte %" PRIu64 " of %" PRIu64 ": %s",
                 c->from, c->generation, good, c->size, why ? why : "not whole");
    if (!t.whole || t.reached <= f->reached)
        return;
    f->reached = t.reached;
    int fd = f->fd[0];
    f->fd[0] = f->fd[1];
    f->fd[1] = fd;
}

static int fetch_best(struct recovering *r, struct fetched *f)
{
    qsort(r->v, r->n, sizeof(r->v[0]), furthest_first);
    for (size_t i = 0; i < r->n; i++) {
        bool older = r->v[i].life != r->v[0].life;
        if (f->reached > 0 && (older || r->v[i].reached <= f->reached))
            break;
        if (older)
            log_warn("%s: checkpoint %" PRIu64 " is from before an earlier --recover or --restore: "
                     "nothing that was done since is in it",
                     r->v[i].from, r->v[i].generation);
        try_candidate(f, &r->v[i]);
    }
    if (f->reached > 0)
        return 0;
    log_error("no chunkd has a copy of the names that is whole%s",
              r->n == 0 ? "; name others with --from" : "");
    return -ENOENT;
}

static int open_fetched(struct fetched *f, const char *dir)
{
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(dir);
        while (len > 1 && dir[len - 1] == '/')
            len--;
        int n = snprintf(f->path[i], PATH_MAX, "%.*s.recover%d", (int)len, dir, i);
        if (n < 0 || n >= PATH_MAX)
            return -ENAMETOOLONG;
        f->fd[i] = open(f->path[i], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (f->fd[i] < 0) {
            int rc = -errno;
            log_error("%s: cannot be made: %s", f->path[i], err_str(rc));
            return rc;
        }
        unlink(f->path[i]); /* goes with us, however we end */
    }
    return 0;
}

int recover_from_chunkds(struct rpc_loop *loop, const struct config_list *from, const char *dir)
{
    CLEANUP(free_ptr) struct recovering *r = calloc(1, sizeof(*r));
    CLEANUP(free_ptr) struct fetched *f = calloc(1, sizeof(*f));
    int64_t began = clock_mono();

    if (!r || !f)
        abort();
    r->loop = loop;
    f->fd[0] = f->fd[1] = -1;
    for (size_t i = 0; i < from->n; i++)
        ask_chunkd(r, from->items[i]);
    int rc = r->mixed ? -ERR_WRONG_CLUSTER : r->alive ? -EBUSY : 0;
    if (rc == 0)
        rc = open_fetched(f, dir);
    if (rc == 0)
        rc = fetch_best(r, f);
    if (rc == 0)
        rc = build_from(f->fd[0], "the copy", dir, r->term);
    if (rc == 0 && r->silent > 0)
        printf("%zu of the chunkds named did not answer: should one of them have a newer copy, "
               "remove %s and recover once more before anything is changed.\n",
               r->silent, dir);
    if (rc == 0)
        log_info("recovered in %.1f s", (double)(clock_mono() - began) / NSEC_PER_SEC);
    for (int i = 0; i < 2; i++)
        if (f->fd[i] >= 0)
            close(f->fd[i]);
    for (size_t i = 0; i < r->n; i++)
        rpc_conn_unref(r->v[i].conn);
    return rc;
}
