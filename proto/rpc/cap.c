/* Capabilities as bytes: {u64 key id, u32 rights, u32 expiry}, little-endian, then 16 bytes of
 * HMAC-SHA256(key, those 16 bytes + u64 chunk + u64 session + u64 writer). Chunk and session are not in
 * the capability: the request names them, and another chunk's request does not verify; the writer is
 * what the chunkd's own records say. Pure; any thread. */
#include "rpc/cap.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/byteorder.h"

#define SIGNED_LEN 16u
#define MAC_LEN 16u

static void sign(const struct cap_key *k, const uint8_t head[SIGNED_LEN], uint64_t chunk,
                 uint64_t session, uint64_t writer, uint8_t mac[MAC_LEN])
{
    uint8_t text[SIGNED_LEN + 24], full[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    memcpy(text, head, SIGNED_LEN);
    le_put64(text + SIGNED_LEN, chunk);
    le_put64(text + SIGNED_LEN + 8, session);
    le_put64(text + SIGNED_LEN + 16, writer);
    if (!HMAC(EVP_sha256(), k->key, CAP_KEY_LEN, text, sizeof(text), full, &len) || len < MAC_LEN)
        abort(); /* only without memory or SHA-256: nothing could be granted or checked */
    memcpy(mac, full, MAC_LEN);
}

void cap_make(const struct cap_key *k, uint64_t chunk, uint64_t session, uint64_t writer,
              uint32_t rights, uint32_t expiry_s, uint8_t out[CAP_LEN])
{
    le_put64(out, k->id);
    le_put32(out + 8, rights);
    le_put32(out + 12, expiry_s);
    sign(k, out, chunk, session, writer, out + SIGNED_LEN);
}

int cap_check(const struct cap_key *keys, size_t nkeys, const uint8_t *cap, size_t len,
              uint64_t chunk, uint64_t session, uint64_t writer, uint32_t rights, uint32_t now_s)
{
    uint8_t mac[MAC_LEN];
    const struct cap_key *k = NULL;

    if (len != CAP_LEN)
        return -ERR_CAP;
    for (size_t i = 0; i < nkeys && !k; i++) {
        if (keys[i].id == le_get64(cap))
            k = &keys[i];
    }
    if (!k)
        return -ERR_CAP;
    sign(k, cap, chunk, session, writer, mac);
    if (CRYPTO_memcmp(mac, cap + SIGNED_LEN, MAC_LEN) != 0)
        return -ERR_CAP;
    if ((le_get32(cap + 8) & rights) != rights)
        return -ERR_CAP;
    return le_get32(cap + 12) < now_s ? -ERR_CAP_EXPIRED : 0;
}
