/* Requests to a whole metad, over a real connection: a list of {role, length, packed Envelope}. Whatever a
 * client or a chunkd asks, metad answers or drops the connection, goes on serving, and its state loads
 * again from its own checkpoint at the end. Sessions are put in, since no fuzzer guesses one. */
#define LEASE_MS 60000u
#include <google/protobuf-c/protobuf-c.h>

#include "tests/unit/service_rig.h"

#include <assert.h>

#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct service_rig_peer client, chunkd;

static void clean_up(void)
{
    service_rig_hang_up(&client);
    service_rig_hang_up(&chunkd);
    stop_metad();
    tree_remove(md.dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char uuid[37];
    (void)argc;
    (void)argv;
    log_init("fuzz_service", LOG_LVL_ERROR, "/dev/null");
    if (!tree_make(md.dir, sizeof md.dir, "/dev/shm", "service") || mlog_init_dir(md.dir, uuid))
        return 1;
    start_metad();
    service_rig_dial(&client, RPC_ROLE_CLIENT);
    service_rig_dial(&chunkd, RPC_ROLE_CHUNKD);
    service_rig_open_session(&client, 0, NULL, 0);
    (void)service_rig_setup;
    (void)service_rig_teardown;
    atexit(clean_up);
    return 0;
}

/* Every field called session gets the client's, where it is odd. */
static void put_session(ProtobufCMessage *m)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        uint8_t *at = (uint8_t *)m + f->offset;
        bool wide = f->type == PROTOBUF_C_TYPE_UINT64 || f->type == PROTOBUF_C_TYPE_FIXED64;
        if (!strcmp(f->name, "session") && wide && f->label != PROTOBUF_C_LABEL_REPEATED &&
            *(uint64_t *)at & 1)
            *(uint64_t *)at = client.session;
    }
}

static void put_body_session(Replfs__Envelope *env)
{
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(env->base.descriptor, (unsigned)env->body_case);
    if (f && f->type == PROTOBUF_C_TYPE_MESSAGE && env->mutate_req)
        put_session((ProtobufCMessage *)env->mutate_req); /* a oneof: all bodies are here */
}

static void dial_again(struct service_rig_peer *p, enum rpc_role role)
{
    if (rpc_conn_alive(p->conn))
        return;
    service_rig_hang_up(p);
    service_rig_dial(p, role);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t at = 0; at + 3 <= size;) {
        struct service_rig_peer *p = data[at] & 1 ? &chunkd : &client;
        size_t len = (size_t)(data[at + 1] | data[at + 2] << 8);
        at += 3;
        if (len > size - at)
            len = size - at;
        Replfs__Envelope *env = replfs__envelope__unpack(NULL, len, data + at);
        at += len;
        if (!env || env->body_case == REPLFS__ENVELOPE__BODY__NOT_SET) {
            if (env)
                replfs__envelope__free_unpacked(env, NULL);
            continue;
        }
        struct rpc_result res;
        put_body_session(env);
        env->is_reply = false;
        (void)rpc_call_wait(p->conn, env, NULL, 100, &res);
        rpc_result_free(&res);
        replfs__envelope__free_unpacked(env, NULL);
        dial_again(&client, RPC_ROLE_CLIENT);
        dial_again(&chunkd, RPC_ROLE_CHUNKD);
    }
    return 0;
}
