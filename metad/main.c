/* replfs-metad: flags, start and stop. The parts, in the order they start: rpc loop, log
 * (state from checkpoint and log), ids, sessions, nodes, service, listener. They stop in an order that
 * leaves no thread with a part that is gone: what proposes (sessions), the log (completes and
 * answers what is under way), connections, then the rest. SIGTERM, SIGINT and SIGHUP (which reopens the
 * log file, and ends nothing) are blocked everywhere and waited for here. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/error.h"
#include "base/log.h"
#include "base/daemon.h"
#include "metad/log/incarnation.h"
#include "metad/service/service.h"

#define LOG_MODULE "metad"
#define PROGRAM "replfs-metad"
#define CONFIG_FILE "/etc/replfs/metad.conf"
#define EXIT_USAGE 64
#define OWN_FILES 160u /* descriptors kept for the log, checkpoints, dialled connections */
#define CONNS_MAX 8192u
#define OPEN_TIMEOUT_MS 600000u /* a long log behind an old checkpoint takes its time */

static struct {
    char *data, *listen, *config;
    bool init, insecure;
    uint64_t heartbeat_ms, suspect_ms, dead_ms, min_copies, lease_ms, keep_ms, term_ms,
        checkpoint_bytes, threads, max_memory;
    char *tls_cert, *tls_key, *tls_ca, *log_level, *log_file, *debug, *pid_file;
} flags = {.heartbeat_ms = 1000,
           .suspect_ms = 5000,
           .dead_ms = 60000,
           .lease_ms = 60000,
           .term_ms = 10000,
           .checkpoint_bytes = 64ull << 20,
           .threads = 2};

static const struct config_opt options[] = {
    {.name = "data",
     .type = CONFIG_STRING,
     .value = &flags.data,
     .arg = "DIR",
     .help = "data directory: log, checkpoints, identity"},
    {.name = "init",
     .type = CONFIG_BOOL,
     .value = &flags.init,
     .flag_only = true,
     .help = "make a new cluster in an empty directory and exit"},
    {.name = "listen",
     .type = CONFIG_STRING,
     .value = &flags.listen,
     .arg = "ADDR",
     .help = "address to serve, default :7000, or only this computer without TLS and --insecure"},
    {.name = "heartbeat",
     .type = CONFIG_MSEC,
     .value = &flags.heartbeat_ms,
     .arg = "TIME",
     .min = 10,
     .help = "how often chunkds report, default 1s"},
    {.name = "suspect",
     .type = CONFIG_MSEC,
     .value = &flags.suspect_ms,
     .arg = "TIME",
     .min = 20,
     .help = "a chunkd silent for so long gets no new chunks, default 5s"},
    {.name = "dead",
     .type = CONFIG_MSEC,
     .value = &flags.dead_ms,
     .arg = "TIME",
     .min = 50,
     .help = "a chunkd silent for so long has its chunks copied elsewhere, default 60s"},
    {.name = "min-copies",
     .type = CONFIG_UINT,
     .value = &flags.min_copies,
     .arg = "N",
     .max = FSM_GOAL_MAX,
     .help = "copies that fsync needs at least, default 0: the smaller of 2 and the goal"},
    {.name = "session-lease",
     .type = CONFIG_MSEC,
     .value = &flags.lease_ms,
     .arg = "TIME",
     .min = 500,
     .help = "a client silent for so long loses its session, default 60s"},
    {.name = "session-keep",
     .type = CONFIG_MSEC,
     .value = &flags.keep_ms,
     .arg = "TIME",
     .min = 1000,
     .help = "how long changes that such a client had answered are still accepted, default 72h"},
    {.name = "lease-term",
     .type = CONFIG_MSEC,
     .value = &flags.term_ms,
     .arg = "TIME",
     .min = 200,
     .help = "how long a client may use its caches without hearing from metad, default 10s"},
    {.name = "checkpoint-bytes",
     .type = CONFIG_SIZE,
     .value = &flags.checkpoint_bytes,
     .arg = "SIZE",
     .min = 65536,
     .help = "log written between checkpoints, default 64M"},
    {.name = "max-memory",
     .type = CONFIG_SIZE,
     .value = &flags.max_memory,
     .arg = "SIZE",
     .min = 64u << 20,
     .help = "above it changes that make the metadata grow fail (ENOSPC), default 9/10 of the "
             "computer's memory or the cgroup's"},
    {.name = "threads",
     .type = CONFIG_UINT,
     .value = &flags.threads,
     .arg = "N",
     .min = 1,
     .max = 64,
     .help = "threads that serve requests, default 2"},
    {.name = "tls-cert",
     .type = CONFIG_STRING,
     .value = &flags.tls_cert,
     .arg = "FILE",
     .help = "certificate (PEM) with role metad"},
    {.name = "tls-key",
     .type = CONFIG_STRING,
     .value = &flags.tls_key,
     .arg = "FILE",
     .help = "its key (PEM)"},
    {.name = "tls-ca",
     .type = CONFIG_STRING,
     .value = &flags.tls_ca,
     .arg = "FILE",
     .help = "certificate of the authority that signed all certificates (PEM)"},
    {.name = "insecure",
     .type = CONFIG_BOOL,
     .value = &flags.insecure,
     .help = "serve other computers without TLS: anyone who reaches the port can read and change "
             "everything"},
    {.name = "log-level",
     .type = CONFIG_STRING,
     .value = &flags.log_level,
     .arg = "LEVEL",
     .help = "error, warn, info (default) or debug"},
    {.name = "log-file",
     .type = CONFIG_STRING,
     .value = &flags.log_file,
     .arg = "FILE",
     .help = "log there instead of standard error"},
    {.name = "debug",
     .type = CONFIG_STRING,
     .value = &flags.debug,
     .arg = "MODULES",
     .help = "debug lines of these modules, or all"},
    {.name = "pid-file",
     .type = CONFIG_STRING,
     .value = &flags.pid_file,
     .arg = "FILE",
     .help = "write the process id there while serving"},
    {0},
};

static const char usage[] =
    "usage: replfs-metad --init --data DIR\n"
    "       replfs-metad --data DIR [--listen ADDR] [OPTIONS]\n\n"
    "The replfs metadata daemon: stays in the foreground, stops on SIGTERM.\n";

struct metad {
    struct fsm *fsm;
    struct mlog *mlog;
    struct ids *ids;
    struct sessions *sessions;
    struct rpc_loop *loop;
    struct nodes *nodes;
    struct service *service;
    bool sessions_running;
    atomic_bool failed; /* the log gave up: end, to be started again */
};

/* ---- --init ---- */

static int make_cluster(void)
{
    char uuid[37];
    int rc = mlog_init_dir(flags.data, uuid);

    if (rc != 0)
        return rc;
    printf("New cluster %s in %s.\n"
           "Start it with:   replfs-metad --data %s\n"
           "Add chunkds:     replfs-chunkd --init --data DIR\n"
           "                 replfs-chunkd --data DIR --meta HOST:7000\n"
           "Then mount it:   mount.replfs HOST:7000 /mnt\n",
           uuid, flags.data, flags.data);
    return 0;
}

/* ---- starting ---- */

static bool has_tls(void)
{
    return flags.tls_cert || flags.tls_key || flags.tls_ca;
}

static const char *listen_addr(void)
{
    if (flags.listen)
        return flags.listen;
    if (has_tls() || flags.insecure)
        return ":7000";
    log_warn(
        "only programs on this computer can reach this metad (127.0.0.1:7000): for others give "
        "--tls-cert, --tls-key and --tls-ca (see replfs-mkpki), or --insecure on a network you "
        "trust");
    return "127.0.0.1:7000";
}

static void log_failed(void *arg)
{
    struct metad *d = arg;

    atomic_store(&d->failed, true);
    kill(getpid(), SIGTERM);
}

/* Strangers may have what the limit leaves: the log without descriptors would be the end. */
static unsigned conns_for_peers(void)
{
    unsigned files = daemon_raise_files();
    unsigned conns = files > 2 * OWN_FILES ? files - OWN_FILES : files / 2;

    return conns < CONNS_MAX ? conns : CONNS_MAX;
}

static int start_state(struct metad *d)
{
    struct mlog_config log_cfg = {.dir = flags.data,
                                  .checkpoint_bytes = flags.checkpoint_bytes,
                                  .failed = log_failed,
                                  .arg = d};
    struct sessions_config sessions_cfg = {.lease_ms = (unsigned)flags.lease_ms,
                                           .keep_ms = (int64_t)flags.keep_ms};

    int rc = fsm_new(&d->fsm);
    if (rc == 0) {
        log_cfg.fsm = d->fsm;
        rc = mlog_open(&log_cfg, OPEN_TIMEOUT_MS, &d->mlog);
    }
    if (rc == 0)
        rc = incarnation_begin(d->mlog);
    if (rc == 0)
        rc = ids_new(d->fsm, d->mlog, &d->ids);
    if (rc == 0) {
        sessions_cfg.fsm = d->fsm;
        sessions_cfg.mlog = d->mlog;
        rc = sessions_new(&sessions_cfg, &d->sessions);
    }
    return rc;
}

static void told_ids(void *arg, uint64_t chunk_upto, uint64_t ino_upto)
{
    ids_told(arg, chunk_upto, ino_upto);
}

static int start_nodes(struct metad *d, const char *addr)
{
    struct nodes_config cfg = {.fsm = d->fsm,
                               .mlog = d->mlog,
                               .loop = d->loop,
                               .heartbeat_ms = (unsigned)flags.heartbeat_ms,
                               .suspect_ms = (unsigned)flags.suspect_ms,
                               .dead_ms = (unsigned)flags.dead_ms,
                               .dir = flags.data,
                               .addr = addr,
                               .min_copies = (unsigned)flags.min_copies,
                               .orphaned = sessions_orphaned,
                               .adopted = sessions_adopted,
                               .session_closed = sessions_closed,
                               .hook_arg = d->sessions,
                               .ids_told = told_ids,
                               .ids_arg = d->ids};

    return nodes_new(&cfg, &d->nodes);
}

static int start_service(struct metad *d)
{
    struct service_config cfg = {.fsm = d->fsm,
                                 .mlog = d->mlog,
                                 .nodes = d->nodes,
                                 .sessions = d->sessions,
                                 .ids = d->ids,
                                 .loop = d->loop,
                                 .min_copies = (unsigned)flags.min_copies,
                                 .lease_ms = (unsigned)flags.lease_ms,
                                 .term_ms = (unsigned)flags.term_ms,
                                 .max_memory = flags.max_memory};

    return service_new(&cfg, &d->service);
}

/* host part of addr with the port that was bound */
static void bound_addr(char *out, size_t size, const char *addr, int port)
{
    const char *colon = strrchr(addr, ':');
    int host = colon ? (int)(colon - addr) : (int)strlen(addr);

    snprintf(out, size, "%.*s:%d", host, addr, port);
}

static int metad_start(struct metad *d)
{
    const char *addr = listen_addr();
    char bound[256];
    int port = 0;
    struct rpc_config rpc = {.role = RPC_ROLE_METAD,
                             .name = "metad",
                             .threads = (unsigned)flags.threads,
                             .insecure = flags.insecure,
                             .max_conns = conns_for_peers(),
                             .tls_cert = flags.tls_cert,
                             .tls_key = flags.tls_key,
                             .tls_ca = flags.tls_ca};

    int rc = rpc_loop_new(&rpc, &d->loop);
    if (rc == 0)
        rc = start_state(d);
    if (rc == 0)
        rc = start_nodes(d, addr);
    if (rc == 0)
        rc = start_service(d);
    if (rc == 0)
        rc = sessions_start(d->sessions);
    d->sessions_running = rc == 0;
    if (rc == 0)
        rc = rpc_listen(d->loop, addr, service_rpc(d->service), &port);
    if (rc != 0)
        return rc;
    if (flags.insecure && !has_tls())
        log_warn("--insecure: anyone who reaches this port can read and change everything");
    bound_addr(bound, sizeof(bound), addr, port);
    log_info("ready on %s, cluster %s", bound, mlog_uuid(d->mlog));
    return 0;
}

static void stop(struct metad *d)
{
    if (d->sessions_running)
        sessions_stop(d->sessions);
    service_stop(d->service);
    if (d->mlog)
        mlog_stop(d->mlog);
    rpc_loop_free(d->loop);
    nodes_free(d->nodes);
    service_free(d->service);
    sessions_free(d->sessions);
    ids_free(d->ids);
    mlog_close(d->mlog);
    if (d->fsm)
        fsm_free(d->fsm);
}

/* ---- main ---- */

static void metad_reload(void *arg)
{
    struct metad *d = arg;

    rpc_loop_reload_tls(d->loop);
}

static int metad_run(int argc, char **argv, const sigset_t *signals)
{
    struct metad d = {0};
    const struct daemon_reload r = {.opts = options,
                                    .program = PROGRAM,
                                    .default_file = CONFIG_FILE,
                                    .argc = argc,
                                    .argv = argv,
                                    .log_level = &flags.log_level,
                                    .debug = &flags.debug,
                                    .log_file = flags.log_file,
                                    .more = has_tls() ? metad_reload : NULL,
                                    .arg = &d};

    signal(SIGPIPE, SIG_IGN);
    int rc = metad_start(&d);
    if (rc == 0)
        rc = daemon_pid_file(flags.pid_file);
    if (rc == 0) {
        int signal_nr = daemon_wait(signals, &r);
        if (atomic_load(&d.failed)) {
            log_error("stopping: the log cannot go on");
            rc = -EIO;
        } else {
            log_info("stopping on %s", strsignal(signal_nr));
        }
    } else {
        log_error("cannot start: %s", err_str(rc));
    }
    stop(&d);
    if (rc == 0) {
        if (flags.pid_file)
            unlink(flags.pid_file);
        log_info("stopped");
    }
    return rc;
}

int main(int argc, char **argv)
{
    char **rest;
    int nrest;
    bool exit_now = false;
    sigset_t signals;

    daemon_block_signals(&signals);
    int rc =
        config_parse(options, PROGRAM, usage, CONFIG_FILE, argc, argv, &rest, &nrest, &exit_now);
    if (rc != 0 || exit_now) {
        config_free(options);
        return rc != 0 ? EXIT_USAGE : 0;
    }
    if (nrest > 0) {
        fprintf(stderr, "replfs-metad: '%s' is not an option; see replfs-metad --help\n", rest[0]);
        rc = -EINVAL;
    } else if (!flags.data) {
        fprintf(stderr, "replfs-metad: --data DIR is needed: where the metadata is kept\n");
        rc = -EINVAL;
    } else {
        rc = daemon_log(PROGRAM, flags.log_level, flags.log_file, flags.debug);
    }
    if (rc != 0) {
        config_free(options);
        return EXIT_USAGE;
    }
    rc = flags.init ? make_cluster() : metad_run(argc, argv, &signals);
    config_free(options);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
