/* Frame headers and envelopes as bytes: pure functions, no I/O. Private to rpc (and its fuzzers).
 */
#ifndef REPLFS_RPC_FRAME_H
#define REPLFS_RPC_FRAME_H
#include "rpc/rpc.h"

#define FRAME_HEADER 16u /* "RPF1", envelope length, payload length, CRC32C; little-endian */

struct frame {
    uint32_t env_len, payload_len, crc;
};

/* Why n > 0 bytes cannot be the start of a frame, or NULL. */
const char *frame_bad_start(const uint8_t *p, size_t n);
/* 0, or -ERR_PROTOCOL with *why set: wrong magic or a length above its cap. */
int frame_decode(const uint8_t h[FRAME_HEADER], struct frame *out, const char **why);
/* 0, or -ERR_PROTOCOL when the CRC of header and envelope is wrong. */
int frame_check(const uint8_t h[FRAME_HEADER], const uint8_t *env, size_t env_len);
/* Writes the header for an envelope of env_len bytes at env. */
void frame_encode(uint8_t h[FRAME_HEADER], const uint8_t *env, uint32_t env_len,
                  uint32_t payload_len);

/* A decoded envelope; everything it points to lives in one arena. */
struct message {
    Replfs__Envelope *env;
    struct arena *arena;
};
/* 0; -ERR_PROTOCOL: malformed, or needs more memory than any honest envelope does. */
int message_unpack(struct message *m, const uint8_t *data, size_t len);
void message_free(struct message *m);          /* {0} is fine */
size_t message_bytes(const struct message *m); /* memory that it takes */
#endif
