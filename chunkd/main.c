/* replfs-chunkd: options, signals, and the daemon in between.
 *
 * Runs in the foreground. SIGTERM and SIGINT end it cleanly with status 0; a second one ends it at once.
 * SIGHUP reopens the log file and reads certificates again. Signals are blocked in all threads and taken
 * by the main thread, which does nothing else. A fatal finding of the heartbeat (another cluster's metad)
 * sends the process SIGTERM with the status set to 1. With --init it only makes directories new disks.
 * Exit codes: 0, 1 cannot start or go on (the last log line says why), 64 bad usage. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/config.h"
#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/daemon.h"
#include "chunkd.h"

#define LOG_MODULE "main"
#define PROGRAM "replfs-chunkd"
#define CONFIG_FILE "/etc/replfs/chunkd.conf"

static struct config_list data, meta;
static char *listen_addr, *advertise, *host_id, *host_name, *tls_cert, *tls_key, *tls_ca;
static char *reserve;
static char *log_level, *log_file, *log_debug_modules, *pid_file;
static uint64_t capacity, reserve_bytes, reserve_percent, segment_size, threads = 2, silence;
static bool rebuild_index, insecure, init;

static const struct config_opt options[] = {
    {"init", CONFIG_BOOL, &init, NULL,
     "make the given directories, empty or not there yet, new disks, and exit", 0, 0, true},
    {"data", CONFIG_LIST, &data, "DIR", "data directory; give it once for each disk", 0, 0, false},
    {"meta", CONFIG_LIST, &meta, "ADDR", "host:port of metad; several may be given", 0, 0, false},
    {"listen", CONFIG_STRING, &listen_addr, "ADDR",
     "address to serve (default :7100; without TLS "
     "and --insecure 127.0.0.1:7100)",
     0, 0, false},
    {"advertise", CONFIG_STRING, &advertise, "ADDR",
     "address that clients are given, if it is another one", 0, 0, false},
    {"host-id", CONFIG_STRING, &host_id, "ID", "which computer this is (default /etc/machine-id)",
     0, 0, false},
    {"host-name", CONFIG_STRING, &host_name, "NAME", "its name for people (default host name)", 0,
     0, false},
    {"capacity", CONFIG_SIZE, &capacity, "SIZE",
     "bytes to use in each data directory (default all)", 0, 0, false},
    {"reserve", CONFIG_STRING, &reserve, "SIZE|PERCENT%",
     "bytes, or part, of each disk's file system that is to stay free", 0, 0, false},
    {"segment-size", CONFIG_SIZE, &segment_size, "SIZE", "size of a segment log (default 256M)", 0,
     0, false},
    {"rebuild-index", CONFIG_BOOL, &rebuild_index, NULL,
     "make the index again from the segment logs", 0, 0, true},
    {"tls-cert", CONFIG_STRING, &tls_cert, "FILE", "our certificate, PEM", 0, 0, false},
    {"tls-key", CONFIG_STRING, &tls_key, "FILE", "its key, PEM", 0, 0, false},
    {"tls-ca", CONFIG_STRING, &tls_ca, "FILE", "the cluster's CA, PEM", 0, 0, false},
    {"insecure", CONFIG_BOOL, &insecure, NULL,
     "allow connections without TLS to and from other computers", 0, 0, false},
    {"threads", CONFIG_UINT, &threads, "N", "network threads (default 2)", 1, 256, false},
    {"silence", CONFIG_MSEC, &silence, "TIME",
     "a peer that owes an answer and shows no sign of life for so long is gone (default 2s)", 500,
     3600000, false},
    {"log-level", CONFIG_STRING, &log_level, "LEVEL", "error, warn, info (default) or debug", 0, 0,
     false},
    {"log-file", CONFIG_STRING, &log_file, "FILE", "log there instead of stderr", 0, 0, false},
    {"debug", CONFIG_STRING, &log_debug_modules, "MODULES", "debug lines of these modules, or all",
     0, 0, false},
    {"pid-file", CONFIG_STRING, &pid_file, "FILE", "write the process id there", 0, 0, false},
    {NULL, CONFIG_STRING, NULL, NULL, NULL, 0, 0, false},
};

static atomic_int exit_status;

static void on_fatal(void *arg, int code)
{
    (void)arg;
    (void)code;
    if (atomic_exchange(&exit_status, EXIT_FAILURE) == 0) /* once: a second signal kills */
        kill(getpid(), SIGTERM);
}

/* Without --host-id: the machine's own, which copies must not share. */
static int default_host_id(void)
{
    if (host_id)
        return 0;
    char line[MACHINE_ID_MAX];
    if (machine_id(line) != 0) {
        log_error(
            "/etc/machine-id is missing, empty or 'uninitialized', so copies could not be kept on "
            "distinct hosts: run systemd-machine-id-setup, or give --host-id");
        return -ENOENT;
    }
    host_id = strdup(line);
    return host_id ? 0 : -ENOMEM;
}

static int default_host_name(void)
{
    char name[256] = "";
    if (host_name)
        return 0;
    if (gethostname(name, sizeof(name) - 1) != 0)
        snprintf(name, sizeof(name), "unknown");
    host_name = strdup(name);
    return host_name ? 0 : -ENOMEM;
}

/* "10G" or "5%". */
static bool reserve_parse(void)
{
    char *end;
    if (!reserve)
        return true;
    unsigned long v = strtoul(reserve, &end, 10);
    if (reserve[0] >= '0' && reserve[0] <= '9' && !strcmp(end, "%") && v < 100) {
        reserve_percent = v;
        return true;
    }
    return config_parse_size(reserve, &reserve_bytes) == 0;
}

static int check_options(int nrest, char **rest)
{
    const char *wrong = NULL;
    if (nrest > 0)
        fprintf(stderr, "replfs-chunkd: unexpected argument '%s' (see --help)\n", rest[0]);
    else if (data.n == 0)
        wrong = "no data directory: give --data=DIR";
    else if (data.n > INVENTORY_DISKS)
        wrong = "too many data directories: give --data at most 64 times";
    else if (meta.n == 0 && !init)
        wrong = "no metad: give --meta=HOST:PORT";
    else if (!reserve_parse())
        wrong = "wrong reserve: give --reserve=10G or --reserve=5%";
    else if (!!tls_cert + !!tls_key + !!tls_ca != 0 && !(tls_cert && tls_key && tls_ca))
        wrong = "give all of --tls-cert, --tls-key and --tls-ca, or none";
    else
        return 0;
    if (wrong)
        fprintf(stderr, "replfs-chunkd: %s (on the command line or in the configuration file)\n",
                wrong);
    return -EINVAL;
}

static int init_disks(void)
{
    int status = EXIT_SUCCESS;
    for (size_t i = 0; i < data.n; i++) {
        int rc = store_id_init(data.items[i]);
        if (rc == 0) {
            printf("%s is a new disk for the chunkd that is started with --data=%s\n",
                   data.items[i], data.items[i]);
            continue;
        }
        if (rc != -EEXIST && rc != -ENOTEMPTY) /* these have said so */
            log_error("%s cannot be made a new disk: %s", data.items[i], err_str(rc));
        status = EXIT_FAILURE;
    }
    return status;
}

static void chunkd_reload(void *d)
{
    chunkd_reload_tls(d);
}

static int chunkd_run(int argc, char **argv, const sigset_t *signals)
{
    if (default_host_id() != 0 || default_host_name() != 0 || daemon_pid_file(pid_file) != 0)
        return EXIT_FAILURE;
    const char *where = listen_addr;
    if (!where)
        where = tls_cert || insecure ? ":7100" : "127.0.0.1:7100";
    struct chunkd_config cfg = {
        .disks = {.dirs = data.items,
                  .ndirs = data.n,
                  .capacity = capacity,
                  .reserve = reserve_bytes,
                  .reserve_percent = (unsigned)reserve_percent,
                  .segment_size = segment_size,
                  .rebuild_index = rebuild_index},
        .rpc = {.name = host_name,
                .threads = (unsigned)threads,
                .silent_ms = (unsigned)silence,
                .insecure = insecure,
                .tls_cert = tls_cert,
                .tls_key = tls_key,
                .tls_ca = tls_ca},
        .listen = where,
        .advertise = advertise,
        .metas = meta.items,
        .nmetas = meta.n,
        .host_id = host_id,
        .host_name = host_name,
        .fatal = on_fatal,
    };
    struct chunkd *d;
    int rc = chunkd_start(&cfg, &d);
    if (rc != 0) {
        log_error("cannot start: %s", err_str(rc));
        return EXIT_FAILURE;
    }
    log_info("listening on %s, version %s", chunkd_addr(d), REPLFS_VERSION);
    const struct daemon_reload r = {.opts = options,
                                    .program = PROGRAM,
                                    .default_file = CONFIG_FILE,
                                    .argc = argc,
                                    .argv = argv,
                                    .log_level = &log_level,
                                    .debug = &log_debug_modules,
                                    .log_file = log_file,
                                    .more = tls_cert ? chunkd_reload : NULL,
                                    .arg = d};
    log_info("stopping on %s", strsignal(daemon_wait(signals, &r)));
    daemon_unblock_signals(signals);
    chunkd_stop(d);
    if (pid_file)
        unlink(pid_file);
    log_info("stopped");
    return atomic_load(&exit_status);
}

int main(int argc, char **argv)
{
    char **rest;
    int nrest;
    bool exit_now = false;
    sigset_t signals;
    daemon_block_signals(&signals);
    if (config_parse(options, PROGRAM,
                     "Usage: replfs-chunkd --init --data DIR...\n"
                     "       replfs-chunkd --data DIR... --meta ADDR... [OPTIONS]\n"
                     "Stores chunks of a replfs cluster in the given directories.\n",
                     CONFIG_FILE, argc, argv, &rest, &nrest, &exit_now) != 0)
        return EX_USAGE;
    if (exit_now)
        return EXIT_SUCCESS;
    if (check_options(nrest, rest) != 0 ||
        daemon_log(PROGRAM, log_level, log_file, log_debug_modules) != 0)
        return EX_USAGE;
    if (init) {
        int status = init_disks();
        config_free(options);
        return status;
    }
    int status = chunkd_run(argc, argv, &signals);
    config_free(options);
    return status;
}
