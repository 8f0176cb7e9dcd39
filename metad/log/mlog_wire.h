/* libraft's messages between metads, as protobuf and bytes (proto/metad.proto). Pure; any thread.
 *
 * What comes in is checked completely: numbers that libraft would trip over are refused here, since a peer's
 * message is input. What depends on the receiver's own state is looked at in mlog_recv.c. */
#ifndef REPLFS_METAD_LOG_MLOG_WIRE_H
#define REPLFS_METAD_LOG_MLOG_WIRE_H
#include <raft.h>
#include <stddef.h>
#include <stdint.h>
#include "metad.pb-c.h"

#define MLOG_WIRE_ENTRIES 64u                 /* of one message; libraft sends at most 32 */
#define MLOG_WIRE_BYTES ((1u << 20) + 65536u) /* of entries in one message: what a frame holds */
#define MLOG_WIRE_CONF_BYTES 65536u           /* of an encoded list of members */
#define MLOG_WIRE_DESC_BYTES (1ull << 30)     /* of a snapshot's descriptor */
#define MLOG_WIRE_INDEX_MAX                                                                        \
    ((uint64_t)1 << 56) /* of indexes and terms: fsm positions are index << 8 */

/* What one RaftReq says: one message, or, of entries, several: libraft (0.22.1) takes a change of members for
 * committed only when it is the first entry of its message. */
struct mlog_msgs {
    struct raft_message *v;
    unsigned n;
};
/* 0 and messages whose entries, batches, configurations are libraft's to free (raft_free); or -ERR_PROTOCOL with
 * *why (static text). Messages have server_id set, server_address NULL. Of a snapshot `data` is empty: its
 * length is in data.len, data.base is NULL. */
int mlog_wire_decode(const Replfs__RaftReq *req, const uint8_t *payload, size_t len,
                     struct mlog_msgs *out, const char **why);
/* Frees messages [from, n) that libraft never got, and the array. */
void mlog_wire_free(struct mlog_msgs *msgs, unsigned from);

/* A RaftReq under construction; its parts point into each other. */
struct mlog_wire_out {
    Replfs__RaftReq req;
    union {
        Replfs__RaftVote vote;
        Replfs__RaftVoteResult vote_result;
        Replfs__RaftAppend append;
        Replfs__RaftAppendResult append_result;
        Replfs__RaftSnapshot snapshot;
        Replfs__RaftTimeoutNow timeout_now;
    };
    Replfs__RaftEntry entries[MLOG_WIRE_ENTRIES];
    Replfs__RaftEntry *entry_ptrs[MLOG_WIRE_ENTRIES];
    struct raft_buffer conf;
    size_t payload; /* bytes that mlog_wire_payload writes */
    unsigned first; /* entry of the message */
};
/* Fills in all but cluster, from and sent. Of entries, those from *next on that fit a frame; *next is moved behind
 * them. Returns 0; -E2BIG: the entry at *next is larger than a frame, -ENOMEM, -EINVAL: no message that we know. */
int mlog_wire_fill(struct mlog_wire_out *o, const struct raft_message *msg, unsigned *next);
/* Writes the bytes of the entries that mlog_wire_fill took. */
void mlog_wire_payload(const struct mlog_wire_out *o, const struct raft_message *msg, uint8_t *p);
void mlog_wire_done(struct mlog_wire_out *o); /* after use */
#endif
