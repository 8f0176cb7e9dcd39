/* Who a peer says it is: capabilities, and certificates' subjects. A capability is accepted only when it is
 * the one that was made; a subject gives a role only when its OU is that role's, whole. */
#include "proto/rpc/tls.c"

#include <assert.h>
#include <stdlib.h>

#include "base/byteorder.h"
#include "rpc/cap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_cap(const uint8_t *p, size_t len)
{
    static const struct cap_key keys[2] = {{.id = 5, .key = "a key of thirty-two bytes or so."},
                                           {.id = 0, .key = "another"}};
    uint8_t good[CAP_LEN], cap[CAP_LEN];
    assert(cap_check(keys, 2, p, len, 1, 2, 3, CAP_READ, 0) != 0 || len == CAP_LEN);
    if (len < 32)
        return;
    uint64_t chunk = le_get64(p), session = le_get64(p + 8), writer = le_get64(p + 16);
    uint32_t rights = le_get32(p + 24), expiry = le_get32(p + 28);
    cap_make(&keys[0], chunk, session, writer, rights, expiry, good);
    int rc = cap_check(keys, 2, good, CAP_LEN, chunk, session, writer, rights, 1000);
    assert(rc == (expiry < 1000 ? -ERR_CAP_EXPIRED : 0));
    memcpy(cap, good, sizeof cap);
    for (size_t i = 32; i < len; i++)
        cap[i % CAP_LEN] ^= p[i];
    if (memcmp(cap, good, sizeof cap) != 0)
        assert(cap_check(keys, 2, cap, CAP_LEN, chunk, session, writer, 0, 0) == -ERR_CAP);
    assert(cap_check(keys, 2, good, CAP_LEN, chunk + 1, session, writer, 0, 0) == -ERR_CAP);
    assert(cap_check(keys, 2, good, CAP_LEN, chunk, session ^ 1, writer, 0, 0) == -ERR_CAP);
    assert(cap_check(keys, 2, good, CAP_LEN, chunk, session, writer - 1, 0, 0) == -ERR_CAP);
}

static void try_subject(const uint8_t *p, size_t len)
{
    char name[128];
    X509 *cert = X509_new();
    X509_NAME *subject = X509_NAME_new();
    if (!cert || !subject)
        abort();
    /* whole: any DER; else a CN and an OU of any bytes */
    const uint8_t *at = p;
    X509_NAME *der = d2i_X509_NAME(NULL, &at, (long)len);
    if (der) {
        X509_set_subject_name(cert, der);
        cert_identity(cert, name, sizeof name);
        assert(memchr(name, 0, sizeof name));
        X509_NAME_free(der);
    }
    size_t cn = len ? p[0] % len : 0;
    int type = len > 1 && p[1] & 1 ? V_ASN1_UTF8STRING : V_ASN1_PRINTABLESTRING;
    if (len > 2 + cn) {
        X509_NAME_add_entry_by_NID(subject, NID_commonName, type, p + 2, (int)cn, -1, 0);
        const uint8_t *ou = p + 2 + cn;
        int n = (int)(len - 2 - cn);
        if (X509_NAME_add_entry_by_NID(subject, NID_organizationalUnitName, type, ou, n, -1, 0)) {
            X509_set_subject_name(cert, subject);
            enum rpc_role r = cert_identity(cert, name, sizeof name);
            assert(memchr(name, 0, sizeof name));
            char want[64];
            snprintf(want, sizeof want, "replfs-%s", role_name(r));
            assert(r == RPC_ROLE_NONE ||
                   ((size_t)n == strlen(want) && !memcmp(ou, want, (size_t)n)));
        }
    }
    X509_NAME_free(subject);
    X509_free(cert);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 4096)
        return 0;
    if (data[0] & 1)
        try_cap(data + 1, size - 1);
    else
        try_subject(data + 1, size - 1);
    return 0;
}
