/* Shared by the verbs: messages, finding the cluster, small conversions. */
#include "ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "output.h"

void ctl_error(const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fputs("replfsctl: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    putc('\n', stderr);
}

void *ctl_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p)
        abort();
    return p;
}

int ctl_cluster(const struct ctl_opts *o, struct transport **out)
{
    if (o->nargs > 1) {
        ctl_error("one path at most, '%s' is one too many", o->args[1]);
        return CTL_USAGE;
    }
    if (o->meta && o->nargs) {
        ctl_error("give either --meta %s or the path %s, not both", o->meta, o->args[0]);
        return CTL_USAGE;
    }
    if (o->meta)
        return transport_meta(o->meta, &o->tls, out);
    return o->nargs ? transport_path(o->args[0], out, NULL) : transport_default(out);
}

int ctl_ask(const struct ctl_opts *o, const Replfs__Envelope *q, Replfs__Envelope__BodyCase want,
            const char *what, int (*fn)(const struct ctl_opts *o, const Replfs__Envelope *rep))
{
    struct transport *t = NULL;
    Replfs__Envelope *rep = NULL;
    char detail[512];
    int rc = ctl_cluster(o, &t);
    if (rc)
        return rc;
    rc = transport_call(t, q, want, &rep, detail, sizeof(detail));
    rc = rc ? transport_failed(t, what, rc, detail) : fn(o, rep);
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    transport_free(t);
    return rc;
}

int ctl_with_status(const struct ctl_opts *o,
                    int (*fn)(const struct ctl_opts *o, const Replfs__StatusReply *s))
{
    struct transport *t = NULL;
    Replfs__Envelope *rep = NULL;
    Replfs__StatusReq ask = REPLFS__STATUS_REQ__INIT;
    RPC_ENVELOPE(q, STATUS_REQ, status_req, &ask);
    char detail[512];
    int rc = ctl_cluster(o, &t);
    if (rc)
        return rc;
    rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_STATUS_REPLY, &rep, detail, sizeof(detail));
    if (rc)
        rc = transport_failed(t, "status", rc, detail);
    else
        rc = fn(o, rep->status_reply);
    if (rep)
        replfs__envelope__free_unpacked(rep, NULL);
    transport_free(t);
    return rc;
}

int ctl_each_path(const struct ctl_opts *o, const char *usage, const char *array,
                  int (*fn)(const char *path, struct json *j))
{
    struct json j;
    int worst = CTL_OK;
    if (!o->nargs || o->meta) {
        ctl_error("usage: replfsctl %s (paths on a mount)", usage);
        return CTL_USAGE;
    }
    json_begin(&j, stdout);
    if (o->json) {
        json_object(&j, NULL);
        json_array(&j, array);
    }
    for (int i = 0; i < o->nargs; i++) {
        int rc = fn(o->args[i], o->json ? &j : NULL);
        worst = rc ? rc : worst;
    }
    if (o->json) {
        json_close(&j);
        json_close(&j);
    }
    return worst;
}

int ctl_mutate(struct transport *t, Replfs__MetaOp *op, char *detail, size_t n)
{
    Replfs__Mutation m = REPLFS__MUTATION__INIT;
    Replfs__Mutation *list[1] = {&m};
    Replfs__MutateReq req = REPLFS__MUTATE_REQ__INIT;
    RPC_ENVELOPE(q, MUTATE_REQ, mutate_req, &req);
    Replfs__Envelope *rep;
    m.op = op;
    req.n_ops = 1;
    req.ops = list;
    int rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_MUTATE_REPLY, &rep, detail, n);
    if (rc)
        return rc;
    const Replfs__MutateReply *r = rep->mutate_reply;
    rc = r->n_results == 1 ? -(int)r->results[0]->code : -ERR_PROTOCOL;
    replfs__envelope__free_unpacked(rep, NULL);
    return rc;
}

const char *ctl_node_state(uint32_t state)
{
    switch (state) {
    case REPLFS__NODE_STATE__NODE_UP:
        return "up";
    case REPLFS__NODE_STATE__NODE_SUSPECT:
        return "suspect";
    case REPLFS__NODE_STATE__NODE_DEAD:
        return "dead";
    case REPLFS__NODE_STATE__NODE_DRAINING:
        return "draining";
    default:
        return "unknown";
    }
}

unsigned ctl_parse_goal(const char *s)
{
    return s[0] >= '1' && s[0] <= '8' && !s[1] ? (unsigned)(s[0] - '0') : 0;
}
