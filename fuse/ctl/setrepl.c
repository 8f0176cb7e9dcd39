/* replfsctl setrepl: how many copies from now on.
 *
 * With -R the tree is walked without following symbolic links or leaving the mount. A directory's
 * goal is set, and committed, before its entries are read: files created meanwhile then inherit the
 * new goal, or are seen by the walk. Inodes go to metad in batches.
 *
 * --wait asks how far the inodes are until nothing is pending. It gives up after --timeout, or
 * without one when nothing has moved for STALL_MS, and says what metad waits for. */
#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "ctl.h"
#include "output.h"

#define BATCH 500u
#define POLL_MS 300
#define STALL_MS 300000
#define LINE_MS 5000 /* between progress lines when not on a terminal */

struct job {
    struct transport *t;
    const char *path;
    unsigned goal;
    uint64_t *inos; /* all so far; the last `unsent` are not with metad yet */
    size_t n, cap, unsent;
    uint64_t files, dirs, skipped;
};

static int send_batch(struct job *j)
{
    Replfs__SetGoalOp sg = REPLFS__SET_GOAL_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    char detail[512];
    if (!j->unsent)
        return 0;
    sg.n_ino = j->unsent;
    sg.ino = j->inos + (j->n - j->unsent);
    sg.goal = j->goal;
    op.op_case = REPLFS__META_OP__OP_SET_GOAL;
    op.set_goal = &sg;
    int rc = ctl_mutate(j->t, &op, detail, sizeof(detail));
    j->unsent = 0;
    return rc;
}

static int failed(struct job *j, int rc)
{
    bool rights = rc == -EPERM || rc == -EACCES;
    return transport_failed(j->t, j->path, rc,
                            rights ? "only root and the owner may change the goal; with -R, "
                                     "everything below must be yours"
                                   : "");
}

static int setrepl_add(struct job *j, uint64_t ino, bool dir)
{
    if (j->n == j->cap) {
        j->cap = j->cap ? 2 * j->cap : 1024;
        j->inos = realloc(j->inos, j->cap * sizeof(*j->inos));
        if (!j->inos)
            abort();
    }
    j->inos[j->n++] = ino;
    j->unsent++;
    if (dir)
        j->dirs++;
    else
        j->files++;
    return dir || j->unsent == BATCH ? send_batch(j) : 0;
}

/* 0, or an exit code after a message. */
static int walk(struct job *j)
{
    char *roots[2] = {(char *)(uintptr_t)j->path, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR | FTS_XDEV, NULL);
    int rc = 0;
    if (!fts) {
        ctl_error("%s: %s", j->path, strerror(errno));
        return CTL_NO_PATH;
    }
    for (FTSENT *e; !rc && (errno = 0, e = fts_read(fts));) {
        switch (e->fts_info) {
        case FTS_D:
            rc = setrepl_add(j, e->fts_statp->st_ino, true);
            break;
        case FTS_F:
            rc = setrepl_add(j, e->fts_statp->st_ino, false);
            break;
        case FTS_DNR:
        case FTS_ERR:
        case FTS_NS:
            if (e->fts_errno == ENOENT)
                break; /* deleted while we walked */
            ctl_error("%s: %s (skipped)", e->fts_path, strerror(e->fts_errno));
            j->skipped++;
            break;
        default:
            break; /* symbolic links, devices: no data */
        }
    }
    if (!rc)
        rc = send_batch(j);
    fts_close(fts);
    return rc ? failed(j, rc) : 0;
}

/* ---- --wait ---- */

struct progress {
    uint64_t chunks, pending, bytes;
    char waiting[256];
};

static int ask_progress(struct job *j, struct progress *p)
{
    *p = (struct progress){0};
    for (size_t at = 0; at < j->n; at += BATCH) {
        Replfs__ConvergeReq ask = REPLFS__CONVERGE_REQ__INIT;
        RPC_ENVELOPE(q, CONVERGE_REQ, converge_req, &ask);
        Replfs__Envelope *rep;
        char detail[512];
        ask.n_ino = j->n - at < BATCH ? j->n - at : BATCH;
        ask.ino = j->inos + at;
        int rc = transport_call(j->t, &q, REPLFS__ENVELOPE__BODY_CONVERGE_REPLY, &rep, detail,
                                sizeof(detail));
        if (rc)
            return transport_failed(j->t, j->path, rc, detail);
        const Replfs__ConvergeReply *r = rep->converge_reply;
        p->chunks += r->chunks;
        p->pending += r->pending;
        p->bytes += r->bytes_pending;
        if (*r->waiting)
            snprintf(p->waiting, sizeof(p->waiting), "%s", r->waiting);
        replfs__envelope__free_unpacked(rep, NULL);
    }
    return 0;
}

static void setrepl_show(const struct progress *p, bool tty)
{
    char a[16];
    fprintf(stderr, "%s%" PRIu64 " of %" PRIu64 " chunks to go, %s%s%s%s", tty ? "\r\033[K" : "",
            p->pending, p->chunks, output_size(p->bytes, a), *p->waiting ? "; waits: " : "",
            p->waiting, tty ? "" : "\n");
    fflush(stderr);
}

static int wait_converged(struct job *j, uint64_t timeout_ms, struct progress *p)
{
    const struct timespec pause = {.tv_nsec = POLL_MS * NSEC_PER_MSEC};
    bool tty = isatty(STDERR_FILENO), shown = false;
    int64_t start = clock_mono(), moved = start, line = start;
    uint64_t last_pending = UINT64_MAX, last_bytes = UINT64_MAX;
    for (;;) {
        int rc = ask_progress(j, p);
        int64_t now = clock_mono();
        if (rc || !p->pending) {
            if (shown && tty)
                fputs("\r\033[K", stderr);
            return rc;
        }
        if (p->pending != last_pending || p->bytes != last_bytes)
            moved = now;
        last_pending = p->pending;
        last_bytes = p->bytes;
        if (tty || now - line >= LINE_MS * NSEC_PER_MSEC) {
            setrepl_show(p, tty);
            shown = true;
            line = now;
        }
        bool late = timeout_ms ? now - start > (int64_t)timeout_ms * NSEC_PER_MSEC
                               : now - moved > STALL_MS * NSEC_PER_MSEC;
        if (late) {
            if (shown && tty)
                putc('\n', stderr);
            ctl_error("%s: after %" PRId64 " s %" PRIu64 " of %" PRIu64
                      " chunks still differ from the "
                      "goal; waiting for: %s. It goes on in the background; see replfsctl health",
                      j->path, (int64_t)((now - start) / NSEC_PER_SEC), p->pending, p->chunks,
                      *p->waiting ? p->waiting : "repair to get to them");
            return CTL_TIMEOUT;
        }
        nanosleep(&pause, NULL);
    }
}

/* ---- verb ---- */

static void report(const struct ctl_opts *o, const struct job *j, const struct progress *p,
                   bool dir, bool converged)
{
    if (o->json) {
        struct json out;
        json_begin(&out, stdout);
        json_object(&out, NULL);
        json_str(&out, "path", j->path);
        json_u64(&out, "goal", j->goal);
        json_u64(&out, "files", j->files);
        json_u64(&out, "dirs", j->dirs);
        json_u64(&out, "skipped", j->skipped);
        if (o->wait) {
            json_bool(&out, "converged", converged);
            json_u64(&out, "chunks", p->chunks);
            json_u64(&out, "pending", p->pending);
        }
        json_close(&out);
        return;
    }
    output_name(j->path, stdout);
    printf(": goal %u set on ", j->goal);
    if (o->recursive)
        printf("%" PRIu64 " file%s and %" PRIu64 " director%s", j->files, j->files == 1 ? "" : "s",
               j->dirs, j->dirs == 1 ? "y" : "ies");
    else
        printf("%s",
               dir ? "the directory, for new entries (-R: also for all below it)" : "the file");
    if (o->wait && converged)
        printf("; all %" PRIu64 " chunk%s have it", p->chunks, p->chunks == 1 ? "" : "s");
    putchar('\n');
}

static int check_args(const struct ctl_opts *o)
{
    if (o->nargs != 2 || o->meta) {
        ctl_error("usage: replfsctl setrepl PATH N [-R] [--wait [--timeout TIME]]");
        return CTL_USAGE;
    }
    if (ctl_parse_goal(o->args[1]))
        return 0;
    if (ctl_parse_goal(o->args[0]))
        ctl_error("the path comes first: replfsctl setrepl %s %s", o->args[1], o->args[0]);
    else
        ctl_error("'%s' is not a number of copies: give 1 to 8", o->args[1]);
    return CTL_USAGE;
}

int verb_setrepl(const struct ctl_opts *o)
{
    struct job j = {0};
    struct transport_target at;
    struct progress p = {0};
    int rc = check_args(o);
    if (rc)
        return rc;
    j.path = o->args[0];
    j.goal = ctl_parse_goal(o->args[1]);
    rc = transport_path(j.path, &j.t, &at);
    if (rc)
        return rc;
    if (o->recursive && S_ISDIR(at.mode)) {
        rc = walk(&j);
    } else {
        rc = setrepl_add(&j, at.ino, S_ISDIR(at.mode));
        if (!rc)
            rc = send_batch(&j);
        if (rc)
            rc = failed(&j, rc);
    }
    int waited = !rc && o->wait ? wait_converged(&j, o->timeout_ms, &p) : 0;
    if (!rc)
        report(o, &j, &p, S_ISDIR(at.mode), !waited);
    if (!rc)
        rc = waited ? waited : j.skipped ? CTL_PROBLEM : CTL_OK;
    free(j.inos);
    transport_free(j.t);
    return rc;
}
