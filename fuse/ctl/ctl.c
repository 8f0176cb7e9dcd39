/* Shared by the verbs: messages, finding the cluster, small conversions. */
#include "ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int ctl_status(struct transport *t, Replfs__Envelope **rep)
{
    Replfs__StatusReq ask = REPLFS__STATUS_REQ__INIT;
    RPC_ENVELOPE(q, STATUS_REQ, status_req, &ask);
    char detail[512];
    int rc = transport_call(t, &q, REPLFS__ENVELOPE__BODY_STATUS_REPLY, rep, detail, sizeof detail);
    return rc ? transport_failed(t, "status", rc, detail) : 0;
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
