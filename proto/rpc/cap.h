/* Capabilities: the right of one session to read or append one chunk for a while, signed by metad
 * with a key that chunkds got when they registered. 32 bytes: {u64 key id, u32 rights, u32 expiry
 * (seconds of metad's time, which it tells chunkds; clients are told how long they last), 16 bytes of
 * HMAC-SHA256 over key id, rights, expiry, chunk, session, writer}. Any thread.
 *
 * writer is the session that the chunk was granted to. Nobody sends it: metad knows it, and a chunkd
 * has it in the chunk's records. So a number that was given twice, by two copies of a metad, opens
 * only the chunk that this metad means; and readers do not learn others' sessions. */
#ifndef REPLFS_RPC_CAP_H
#define REPLFS_RPC_CAP_H
#include <stddef.h>
#include <stdint.h>
#define CAP_LEN 32u
#define CAP_KEY_LEN 32u
#define CAP_LIFE_S 3600u /* of each that metad makes */
enum { CAP_READ = 1, CAP_APPEND = 2 };
struct cap_key {
    uint64_t id;
    uint8_t key[CAP_KEY_LEN];
};
void cap_make(const struct cap_key *k, uint64_t chunk, uint64_t session, uint64_t writer,
              uint32_t rights, uint32_t expiry_s, uint8_t out[CAP_LEN]);
/* 0, -ERR_CAP or -ERR_CAP_EXPIRED. keys: the current and former keys known. */
int cap_check(const struct cap_key *keys, size_t nkeys, const uint8_t *cap, size_t len,
              uint64_t chunk, uint64_t session, uint64_t writer, uint32_t rights, uint32_t now_s);
#endif
