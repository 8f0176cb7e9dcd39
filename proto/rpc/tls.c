/* TLS 1.3 with certificates on both sides, over the connection's non-blocking socket. The
 * certificate's subject says who the peer is: OU=replfs-metad, replfs-chunkd, replfs-client or
 * replfs-admin gives the role, CN the name. Any certificate of the configured CA is accepted; hosts
 * are not compared with names, since chunkds move between addresses: the role decides what a peer
 * may do.
 *
 * In TLS 1.3 a client finishes its handshake before the server has judged the client's certificate,
 * so a refusal reaches it as an alert on its first read. Messages cover that case too.
 *
 * SSL objects are not thread-safe: everything on c->ssl happens under c->lock. */
#include "rpc/rpc_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/lock.h"

#define LOG_MODULE "tls"
#define WATCH_MS (24 * 3600 * 1000u)
#define WAY_OUT                                                                                    \
    "; both sides need certificates of one CA (scripts/mkpki makes them), given as tls-cert, "     \
    "tls-key and tls-ca"

/* The first OpenSSL reason, which is the cause; forgets the rest. */
static const char *ssl_reason(void)
{
    unsigned long e = ERR_get_error();
    const char *s = e ? ERR_reason_error_string(e) : NULL;

    if (e && ERR_SYSTEM_ERROR(e))
        s = strerror(ERR_GET_REASON(e));
    ERR_clear_error();
    return s ? s : "unknown TLS error";
}

static int refuse_file(const char *what, const char *file)
{
    log_error("cannot use %s '%s': %s", what, file, ssl_reason());
    return -EINVAL;
}

static int load_files(SSL_CTX *ctx, const struct rpc_config *cfg)
{
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(ctx, cfg->tls_cert) != 1)
        return refuse_file("TLS certificate", cfg->tls_cert);
    if (SSL_CTX_use_PrivateKey_file(ctx, cfg->tls_key, SSL_FILETYPE_PEM) != 1)
        return refuse_file("TLS key", cfg->tls_key);
    if (SSL_CTX_check_private_key(ctx) != 1)
        return refuse_file("TLS key (it does not belong to the certificate)", cfg->tls_key);
    if (SSL_CTX_load_verify_locations(ctx, cfg->tls_ca, NULL) != 1)
        return refuse_file("TLS CA", cfg->tls_ca);
    return 0;
}

static enum rpc_role cert_identity(X509 *cert, char *name, size_t len)
{
    char ou[64] = "";
    X509_NAME *subject = X509_get_subject_name(cert);

    name[0] = '\0';
    X509_NAME_get_text_by_NID(subject, NID_commonName, name, (int)len);
    int n = X509_NAME_get_text_by_NID(subject, NID_organizationalUnitName, ou, sizeof(ou));
    /* all of it: what stands behind a zero byte, or did not fit, belongs to another name */
    if (n <= 0 || (size_t)n != strlen(ou) || strncmp(ou, "replfs-", 7) != 0)
        return RPC_ROLE_NONE;
    return role_parse(ou + 7);
}

/* A certificate that tells no role would be refused by every peer: say so at start. */
static int check_own_role(SSL_CTX *ctx, const struct rpc_config *cfg)
{
    char name[128];
    enum rpc_role r = cert_identity(SSL_CTX_get0_certificate(ctx), name, sizeof(name));

    if (r == cfg->role)
        return 0;
    log_error(
        "TLS certificate '%s' (CN=%s) is for role '%s', but this program is '%s'; make one with "
        "scripts/mkpki DIR %s NAME",
        cfg->tls_cert, name, role_name(r), role_name(cfg->role), role_name(cfg->role));
    return -EINVAL;
}

int tls_ctx_new(const struct rpc_config *cfg, SSL_CTX **out)
{
    if (!cfg->tls_cert || !cfg->tls_key || !cfg->tls_ca) {
        log_error("TLS needs all three of tls-cert, tls-key and tls-ca; %s is missing",
                  !cfg->tls_cert  ? "tls-cert"
                  : !cfg->tls_key ? "tls-key"
                                  : "tls-ca");
        return -EINVAL;
    }
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1) {
        log_error("cannot set up TLS 1.3: %s", ssl_reason());
        SSL_CTX_free(ctx);
        return -EINVAL;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    int rc = load_files(ctx, cfg);
    if (rc == 0)
        rc = check_own_role(ctx, cfg);
    if (rc < 0) {
        SSL_CTX_free(ctx);
        return rc;
    }
    *out = ctx;
    return 0;
}

/* ---- the end of our certificate ---- */

static int64_t end_of(SSL_CTX *ctx)
{
    struct tm tm;
    X509 *cert = SSL_CTX_get0_certificate(ctx);

    if (!cert || ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1) {
        ERR_clear_error();
        return 0;
    }
    return timegm(&tm);
}

static void tls_watch(void *arg)
{
    struct rpc_loop *l = arg;
    int64_t left = atomic_load(&l->cert_end) - clock_wall() / NSEC_PER_SEC;

    char when[64] = "has ended";
    if (left >= 0)
        snprintf(when, sizeof(when), "ends in %lld days", (long long)left / 86400);
    if (atomic_load(&l->cert_end) && left < RPC_CERT_WARN_S)
        log_warn("our certificate %s %s: make a new one (scripts/mkpki), put it in its place and "
                 "send SIGHUP; "
                 "without one nobody talks to us",
                 l->cfg.tls_cert, when);
    rpc_loop_defer(l, WATCH_MS, tls_watch, l);
}

void tls_watch_end(struct rpc_loop *l)
{
    if (!l->use_tls)
        return;
    atomic_store(&l->cert_end, end_of(l->tls));
    tls_watch(l);
}

int64_t rpc_cert_end(struct rpc_loop *l)
{
    return atomic_load(&l->cert_end);
}

int rpc_loop_reload_tls(struct rpc_loop *l)
{
    SSL_CTX *fresh;

    if (!l->use_tls)
        return 0;
    int rc = tls_ctx_new(&l->cfg, &fresh);
    if (rc < 0)
        return rc;
    lock_acquire(&l->mu);
    SSL_CTX *old = l->tls;
    l->tls = fresh;
    atomic_store(&l->cert_end, end_of(fresh));
    lock_release(&l->mu);
    SSL_CTX_free(old);
    return 0;
}

int tls_attach(struct rpc_conn *c)
{
    lock_acquire(&c->loop->mu);
    c->ssl = SSL_new(c->loop->tls); /* keeps its context when that is replaced */
    lock_release(&c->loop->mu);
    if (!c->ssl || SSL_set_fd(c->ssl, c->fd) != 1) {
        ERR_clear_error();
        return -ENOMEM;
    }
    if (c->accepted)
        SSL_set_accept_state(c->ssl);
    else
        SSL_set_connect_state(c->ssl);
    return 0;
}

/* The result of an SSL call that returned rc <= 0. */
static ssize_t ssl_failed(struct rpc_conn *c, int rc, char *why, size_t why_len)
{
    int sys = errno;

    switch (SSL_get_error(c->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        c->ssl_wants_write = true;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        if (ERR_peek_error() == 0) {
            snprintf(why, why_len, "%s", sys ? strerror(sys) : "connection closed");
            return sys ? -sys : 0;
        }
        break;
    default:
        break;
    }
    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        ERR_clear_error();
        return 0;
    }
    long verdict = SSL_get_verify_result(c->ssl);
    if (verdict != X509_V_OK) {
        snprintf(why, why_len, "we refuse the peer's certificate: %s" WAY_OUT,
                 X509_verify_cert_error_string(verdict));
        ERR_clear_error();
    } else {
        /* An alert's reason names what the peer disliked ("tlsv1 alert unknown ca"); "wrong version
         * number" is what plaintext looks like to TLS. */
        snprintf(why, why_len, "TLS: %s" WAY_OUT, ssl_reason());
    }
    return -EACCES;
}

ssize_t tls_read(struct rpc_conn *c, void *p, size_t n, char *why, size_t why_len)
{
    ERR_clear_error();
    errno = 0;
    c->ssl_wants_write = false;
    int rc = SSL_read(c->ssl, p, n > INT32_MAX ? INT32_MAX : (int)n);
    return rc > 0 ? rc : ssl_failed(c, rc, why, why_len);
}

ssize_t tls_write(struct rpc_conn *c, const void *p, size_t n, char *why, size_t why_len)
{
    bool read_waits = c->ssl_wants_write; /* a waiting write shows in the queue, not in this flag */

    ERR_clear_error();
    errno = 0;
    int rc = SSL_write(c->ssl, p, n > INT32_MAX ? INT32_MAX : (int)n);
    if (rc > 0)
        return rc;
    ssize_t e = ssl_failed(c, rc, why, why_len);
    c->ssl_wants_write = read_waits;
    return e;
}

int tls_handshake(struct rpc_conn *c, char *why, size_t why_len)
{
    ERR_clear_error();
    errno = 0;
    c->ssl_wants_write = false;
    int rc = SSL_do_handshake(c->ssl);
    if (rc != 1) {
        ssize_t e = ssl_failed(c, rc, why, why_len);
        if (e == 0) {
            snprintf(why, why_len,
                     "the peer closed the connection during the TLS handshake" WAY_OUT);
            e = -EACCES;
        }
        return (int)e;
    }
    X509 *cert = SSL_get0_peer_certificate(c->ssl);
    if (!cert) {
        snprintf(why, why_len, "the peer showed no certificate" WAY_OUT);
        return -EACCES;
    }
    c->peer.role = cert_identity(cert, c->peer.name, sizeof(c->peer.name));
    if (c->peer.role == RPC_ROLE_NONE) {
        snprintf(why, why_len,
                 "the certificate CN=%s names no replfs role in OU; make it with scripts/mkpki",
                 c->peer.name);
        return -ERR_ROLE;
    }
    return 0;
}
