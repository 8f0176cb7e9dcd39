/* names_serve: what metad sends to be kept of its names (NamesPutReq), and giving it back (NamesGetReq).
 *
 * Put comes over our own connection to metad only, as orders do. Get is answered to metad and to administrators, by
 * the role in their certificate, and to nobody else: the files hold every name of the cluster. Both wait for the
 * disk, so they run on the pool of orders. As with orders, nothing is taken from a metad whose term is over (terms.h): it
 * might drop what its successor has just sent.
 *
 * A chunkd answers Get while no metad is there: that is what it is for. It also says from which metad it hears,
 * so that nobody takes a cluster that lives for one that is lost. */
#include "names_serve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "names.h"
#include "terms.h"

struct names_job {
    struct service *s;
    struct rpc_req *req;
};

static void state_fill(Replfs__NamesState *st, const struct names_copy *c)
{
    replfs__names_state__init(st);
    st->generation = c->generation;
    st->size = c->size;
    st->whole = c->track.whole;
    st->reached = c->track.reached;
    st->reached_crc = c->track.reached_crc;
    st->time_ns = c->track.time_ns;
    st->term = c->term;
    st->state_size = c->track.state_len;
    st->state_crc = c->track.state_crc;
}

/* ---- put ---- */

static int do_put(struct service *s, struct rpc_req *req, struct names_copy *c, const char **why)
{
    const Replfs__NamesPutReq *in = req->env->names_put_req;
    struct names *n = serve_names(s);
    struct names_put p = {.generation = in->generation,
                          .at = in->at,
                          .expect = in->expect,
                          .term = in->term,
                          .begin = in->begin,
                          .sync = in->sync,
                          .data = req->payload ? req->payload->data : NULL,
                          .len = req->payload ? req->payload->len : 0};
    struct names_copy all[NAMES_FILES_MAX];

    if (in->drop)
        return names_drop(n, in->term);
    if (in->generation)
        return names_put(n, &p, c, why);
    size_t have = names_list(n, all);
    size_t at = 0;
    while (at < have && !all[at].track.whole)
        at++;
    if (have > 0) /* the newest whole one, else the newest */
        *c = all[at < have ? at : 0];
    return 0;
}

static void put_run(void *arg)
{
    struct names_job job = *(struct names_job *)arg;
    Replfs__NamesPutReply rep = REPLFS__NAMES_PUT_REPLY__INIT;
    Replfs__NamesState st;
    struct names_copy c = {0};
    const char *why = NULL;

    free(arg);
    if (serve_stopping(job.s)) {
        serve_fail(job.s, job.req, -ERR_SHUTDOWN, 0, "the chunkd is stopping");
        return;
    }
    int rc = terms_order(serve_terms(job.s), job.req->env->names_put_req->term);
    if (rc == 0)
        rc = do_put(job.s, job.req, &c, &why);
    if (rc != 0) {
        serve_fail(job.s, job.req, rc, 0, "copy of the names: %s", why ? why : err_str(rc));
        return;
    }
    state_fill(&st, &c);
    rep.state = &st;
    RPC_ENVELOPE(env, NAMES_PUT_REPLY, names_put_reply, &rep);
    serve_reply(job.s, job.req, &env, NULL);
}

/* ---- get ---- */

static void reply_get(const struct names_job *job, Replfs__NamesGetReply *rep, struct buf *data)
{
    char cluster[40], metad[SERVE_METAD_MAX];

    rep->chunkd = disks_identity(serve_disks(job->s), cluster);
    rep->cluster = cluster;
    serve_metad_addr(job->s, metad);
    rep->metad = metad;
    rep->term = terms_highest(serve_terms(job->s));
    RPC_ENVELOPE(env, NAMES_GET_REPLY, names_get_reply, rep);
    serve_reply(job->s, job->req, &env, data);
}

static void get_run(void *arg)
{
    struct names_job job = *(struct names_job *)arg;
    const Replfs__NamesGetReq *in = job.req->env->names_get_req;
    Replfs__NamesGetReply rep = REPLFS__NAMES_GET_REPLY__INIT;
    struct names_copy all[NAMES_FILES_MAX];
    Replfs__NamesState st[NAMES_FILES_MAX], *list[NAMES_FILES_MAX];
    struct buf *data = NULL;

    free(arg);
    if (in->generation == 0) {
        rep.n_files = names_list(serve_names(job.s), all);
        for (size_t i = 0; i < rep.n_files; i++) {
            state_fill(&st[i], &all[i]);
            list[i] = &st[i];
        }
        rep.files = list;
    } else {
        int rc = names_get(serve_names(job.s), in->generation, in->offset, &data, &rep.size);
        if (rc != 0) {
            serve_fail(job.s, job.req, rc, 0, "copy %" PRIu64 " of the names: %s", in->generation,
                       err_str(rc));
            return;
        }
    }
    reply_get(&job, &rep, data);
}

/* ---- dispatch ---- */

static void names_run(struct service *s, struct rpc_req *req, void (*fn)(void *))
{
    struct names_job *job = malloc(sizeof(*job));

    if (!job)
        abort();
    *job = (struct names_job){s, req};
    if (serve_run_order(s, req, fn, job) != 0)
        free(job);
}

void names_serve_put(struct service *s, struct rpc_req *req)
{
    names_run(s, req, put_run);
}

void names_serve_get(struct service *s, struct rpc_req *req)
{
    names_run(s, req, get_run);
}
