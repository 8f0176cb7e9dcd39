/* See net_trace.h. */
#include "net_trace.h"

#include <stdio.h>

#include "base/error.h"
#include "fiber.h"

static void mutations(const Replfs__Envelope *env)
{
    const Replfs__MutateReq *q = env->mutate_req;
    for (size_t i = 0; i < q->n_ops; i++)
        fprintf(stderr, " %llu:op%d", (unsigned long long)q->ops[i]->seq,
                q->ops[i]->op ? (int)q->ops[i]->op->op_case : 0);
}

static void results(const Replfs__Envelope *env)
{
    const Replfs__MutateReply *r = env->mutate_reply;
    for (size_t i = 0; i < r->n_results; i++)
        fprintf(stderr, " %llu:code%u", (unsigned long long)r->results[i]->seq,
                r->results[i]->code);
}

void net_trace(const char *at, const char *dir, const char *peer, const Replfs__Envelope *env)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(
        &replfs__envelope__descriptor, (unsigned)env->body_case);
    fprintf(stderr, "%12.6f %-8s %s %-8s %s id %llx%s", (double)vt_now() / 1e9, at, dir, peer,
            f ? f->name : "nothing", (unsigned long long)env->id, env->is_reply ? " reply" : "");
    if (env->body_case == REPLFS__ENVELOPE__BODY_FAILURE)
        fprintf(stderr, " %s (%s)", err_str(-(int)env->failure->code), env->failure->detail);
    else if (env->body_case == REPLFS__ENVELOPE__BODY_MUTATE_REQ)
        mutations(env);
    else if (env->body_case == REPLFS__ENVELOPE__BODY_MUTATE_REPLY)
        results(env);
    else if (env->body_case == REPLFS__ENVELOPE__BODY_RECALL_REQ)
        fprintf(stderr, " ino %llx", (unsigned long long)env->recall_req->ino);
    fputc('\n', stderr);
}
