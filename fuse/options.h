/* The command line of mount.replfs: META[,META...] MNT [-o OPTIONS] [-f] [-d], also in the form in
 * which mount(8) calls its helpers (/sbin/mount.replfs SPEC DIR -o OPTIONS). Parsing only: nothing
 * is opened or contacted. Not thread-safe. */
#ifndef REPLFS_FUSE_OPTIONS_H
#define REPLFS_FUSE_OPTIONS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIONS_DEFAULT_PORT "7000"
#define OPTIONS_MAX_METADS 16
#define OPTIONS_NO_RETRY UINT64_MAX
#define OPTIONS_BG_RETRY 10000u /* minutes; as mount.nfs */

struct options {
    char *spec;                       /* as given; what mount(8) shows as source */
    char *metads[OPTIONS_MAX_METADS]; /* "host:port" each */
    size_t nmetads;
    char *mountpoint; /* as given; main makes it absolute */
    char *kernel;     /* comma list handed to libfuse: rw, ro, nosuid, ... ; never NULL */
    char *tls_cert, *tls_key, *tls_ca;
    char *log_file, *host_id;
    uint64_t timeout_ms, flush_ms, silence_ms;
    uint64_t dirty_max;
    uint64_t max_threads, rpc_threads;
    uint64_t readahead; /* bytes */
    uint64_t retry_min; /* minutes until a mount gives up; OPTIONS_NO_RETRY: not said */
    bool foreground, debug, help, version;
    bool sync, dirsync, async_close, insecure, allow_other, readdirplus;
    bool bg, remount;
    bool ro, noatime, nodiratime, strictatime;
    bool allow_other_set; /* said explicitly, one way or the other */
};

/* Fills *o from the command line. as_root: the default of a mount by root (allow_other). 0, or -EINVAL
 * after storing a message in err that names the bad option or argument and says what is allowed. Free with
 * options_free in both cases. */
int options_parse(struct options *o, int argc, char **argv, bool as_root, char *err,
                  size_t err_len);
void options_free(struct options *o);
/* "host", "host:port", "[v6]", "[v6]:port" or a bare v6 address to "host:port" with the default
 * port. NULL when it cannot be an address. The caller frees. */
char *options_addr(const char *s, size_t len);
/* The text of --help. */
const char *options_usage(void);
#endif
