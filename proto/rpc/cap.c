/* Capabilities as bytes: {u64 key id, u32 rights, u32 expiry}, little-endian, then 16 bytes of
 * HMAC-SHA256(key, those 16 bytes + u64 chunk + u64 session). Chunk and session are not in the capability:
 * the request names them, and another chunk's request does not verify. Pure; any thread. */
#include "rpc/cap.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define SIGNED_LEN 16u
#define MAC_LEN 16u

static void put(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void sign(const struct cap_key *k, const uint8_t head[SIGNED_LEN], uint64_t chunk,
                 uint64_t session, uint8_t mac[MAC_LEN])
{
    uint8_t text[SIGNED_LEN + 16], full[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    memcpy(text, head, SIGNED_LEN);
    put(text + SIGNED_LEN, chunk, 8);
    put(text + SIGNED_LEN + 8, session, 8);
    if (!HMAC(EVP_sha256(), k->key, CAP_KEY_LEN, text, sizeof text, full, &len) || len < MAC_LEN)
        abort(); /* only without memory or SHA-256: nothing could be granted or checked */
    memcpy(mac, full, MAC_LEN);
}

void cap_make(const struct cap_key *k, uint64_t chunk, uint64_t session, uint32_t rights,
              uint32_t expiry_s, uint8_t out[CAP_LEN])
{
    put(out, k->id, 8);
    put(out + 8, rights, 4);
    put(out + 12, expiry_s, 4);
    sign(k, out, chunk, session, out + SIGNED_LEN);
}

int cap_check(const struct cap_key *keys, size_t nkeys, const uint8_t *cap, size_t len,
              uint64_t chunk, uint64_t session, uint32_t rights, uint32_t now_s)
{
    uint8_t mac[MAC_LEN];
    const struct cap_key *k = NULL;

    if (len != CAP_LEN)
        return -ERR_CAP;
    for (size_t i = 0; i < nkeys && !k; i++) {
        if (keys[i].id == get(cap, 8))
            k = &keys[i];
    }
    if (!k)
        return -ERR_CAP;
    sign(k, cap, chunk, session, mac);
    if (CRYPTO_memcmp(mac, cap + SIGNED_LEN, MAC_LEN) != 0)
        return -ERR_CAP;
    if ((get(cap + 8, 4) & rights) != rights)
        return -ERR_CAP;
    return get(cap + 12, 4) < now_s ? -ERR_CAP_EXPIRED : 0;
}
