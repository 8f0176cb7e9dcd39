/* replfs-metad: flags, start and stop. The parts, in the order they start: rpc loop, log (state from
 * checkpoint and log), nodes, leader (which makes and ends what a leadership needs), listener. They stop in
 * an order that leaves no thread with a part that is gone: the leadership, the log (completes and
 * answers what is under way), connections, then the rest. SIGTERM, SIGINT and SIGHUP (which reopens the
 * log file, and ends nothing) are blocked everywhere and waited for here. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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
#include "base/machine.h"
#include "metad/backup/copies.h"
#include "metad/backup/recover.h"
#include "metad/leader.h"
#include "metad/log/digests.h"
#include "metad/log/mlog_build.h"
#include "metad/service/join.h"
#include "metad/service/service_metad.h"

#define LOG_MODULE "metad"
#define PROGRAM "replfs-metad"
#define CONFIG_FILE "/etc/replfs/metad.conf"
#define EXIT_USAGE 64
#define EXIT_REMOVED 78 /* starting again is of no use (RestartPreventExitStatus) */
#define OWN_FILES 160u  /* descriptors kept for the log, checkpoints, dialled connections */
#define CONNS_MAX 8192u
#define OPEN_TIMEOUT_MS 600000u /* a long log behind an old checkpoint takes its time */

static struct {
    char *data, *listen, *config, *join, *advertise, *restore;
    struct config_list from;
    bool init, recover, new_life, insecure;
    uint64_t heartbeat_ms, suspect_ms, dead_ms, min_copies, lease_ms, keep_ms, term_ms,
        checkpoint_bytes, threads, max_memory, meta_copies;
    char *tls_cert, *tls_key, *tls_ca, *log_level, *log_file, *debug, *pid_file;
} flags = {.heartbeat_ms = 1000,
           .suspect_ms = 5000,
           .dead_ms = 60000,
           .lease_ms = 60000,
           .term_ms = 2500,
           .checkpoint_bytes = 64ull << 20,
           .threads = 2,
           .meta_copies = 3};

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
    {.name = "recover",
     .type = CONFIG_BOOL,
     .value = &flags.recover,
     .flag_only = true,
     .help = "make a lost data directory anew from what chunkds have of it, and exit"},
    {.name = "from",
     .type = CONFIG_LIST,
     .value = &flags.from,
     .arg = "ADDR",
     .help = "with --recover: a chunkd to ask, host:port; all that there are, separated by commas "
             "or given again"},
    {.name = "restore",
     .type = CONFIG_STRING,
     .value = &flags.restore,
     .arg = "FILE",
     .flag_only = true,
     .help = "make a data directory from a file of replfsctl backup-meta, and exit"},
    {.name = "new-life",
     .type = CONFIG_BOOL,
     .value = &flags.new_life,
     .flag_only = true,
     .help = "say that this data directory is the right one, although a copy of it has run since, "
             "and exit"},
    {.name = "join",
     .type = CONFIG_STRING,
     .value = &flags.join,
     .arg = "HOST:PORT",
     .help = "join the cluster of this metad, with an empty directory"},
    {.name = "advertise",
     .type = CONFIG_STRING,
     .value = &flags.advertise,
     .arg = "ADDR",
     .help = "where others reach this metad, default: as --listen says, or this computer's name"},
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
    {.name = "meta-copies",
     .type = CONFIG_UINT,
     .value = &flags.meta_copies,
     .arg = "N",
     .max = NODES_NAMES_MAX,
     .help = "chunkds, on distinct computers, that keep a copy of all names, default 3; 0: none"},
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
    "       replfs-metad --recover --from CHUNKD,... --data DIR\n"
    "       replfs-metad --restore FILE --data DIR\n"
    "       replfs-metad --new-life --data DIR\n"
    "       replfs-metad --join HOST:PORT --data DIR [--listen ADDR] [--advertise ADDR] [OPTIONS]\n"
    "       replfs-metad --data DIR [--listen ADDR] [OPTIONS]\n\n"
    "The replfs metadata daemon: stays in the foreground, stops on SIGTERM.\n";

/* Who this metad is, for the others. */
struct self {
    char addr[256], name[256], host_id[MACHINE_ID_MAX];
};
struct metad {
    struct fsm *fsm;
    struct self self;
    struct join *join;
    struct mlog *mlog;
    struct copies *copies;
    struct rpc_loop *loop;
    struct nodes *nodes;
    struct leader *leader;
    atomic_bool failed;  /* the log gave up: end, to be started again */
    atomic_bool removed; /* from the cluster, or another copy counts: end */
    int argc;
    char **argv;
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
           "Then mount it:   mount.replfs HOST:7000 /mnt\n"
           "More metads:     replfs-metad --join HOST:7000 --data DIR   (on other computers)\n",
           uuid, flags.data, flags.data);
    return 0;
}

/* ---- --recover ---- */

static int recover_cluster(void)
{
    struct rpc_config rpc = {.role = RPC_ROLE_METAD,
                             .name = "metad",
                             .threads = 1,
                             .insecure = flags.insecure,
                             .tls_cert = flags.tls_cert,
                             .tls_key = flags.tls_key,
                             .tls_ca = flags.tls_ca};
    struct rpc_loop *loop;

    if (flags.from.n == 0) {
        log_error("--recover needs chunkds to ask: --from HOST:7100,...");
        return -EINVAL;
    }
    int rc = rpc_loop_new(&rpc, &loop);
    if (rc != 0)
        return rc;
    rc = recover_from_chunkds(loop, &flags.from, flags.data);
    rpc_loop_free(loop);
    return rc;
}

/* ---- --new-life ---- */

static int begin_new_life(void)
{
    char uuid[37];
    uint64_t term;
    int rc = mlog_new_life(flags.data, uuid, &term);

    if (rc == 0)
        printf("From its next start on, chunkds obey the metad of %s (cluster %s, term %" PRIu64
               "), and no other copy of it.\n"
               "What was written with another copy stays on the chunkds, in quarantine: see "
               "replfsctl health, replfsctl quarantine.\n",
               flags.data, uuid, term);
    else
        log_error("%s: it stays as it is: %s", flags.data, err_str(rc));
    return rc;
}

static void obey_another(void *arg, const char *which)
{
    struct metad *d = arg;

    log_error(
        "most chunkds have obeyed %s. So %s is not what they know, and nothing is served from "
        "it. Is the other directory right? Then keep this one away from the cluster. Is this "
        "one right? Then stop the other metad for good, and here: replfs-metad --new-life "
        "--data %s; then start it again",
        which, flags.data, flags.data);
    atomic_store(&d->removed, true);
    kill(getpid(), SIGTERM);
}

/* ---- --join ---- */

/* Where others reach this metad: what was said, or where it listens, by name where that is everywhere. */
static void self_addr(struct self *self, const char *listen)
{
    const char *colon = strrchr(listen, ':');
    int host = colon ? (int)(colon - listen) : (int)strlen(listen);
    bool anywhere =
        host == 0 || strncmp(listen, "0.0.0.0:", 8) == 0 || strncmp(listen, "[::]:", 5) == 0;

    if (flags.advertise)
        snprintf(self->addr, sizeof(self->addr), "%s", flags.advertise);
    else if (anywhere)
        snprintf(self->addr, sizeof(self->addr), "%.200s%s", self->name, colon ? colon : "");
    else
        snprintf(self->addr, sizeof(self->addr), "%s", listen);
}

static void self_know(struct self *self)
{
    if (gethostname(self->name, sizeof(self->name)) < 0)
        snprintf(self->name, sizeof(self->name), "localhost");
    self->name[sizeof(self->name) - 1] = 0;
    (void)machine_id(self->host_id);
}

static struct join_who self_who(const struct self *self)
{
    return (struct join_who){.addr = self->addr, .name = self->name, .host_id = self->host_id};
}

/* Makes the directory of a metad that joins, unless there is one: then it has joined already. */
static int join_cluster(struct metad *d, const char *addr)
{
    char uuid[37];
    uint64_t id;

    if (!flags.join || mlog_dir_made(flags.data))
        return 0;
    self_addr(&d->self, addr);
    struct join_who who = self_who(&d->self);
    int rc = join_ask(d->loop, flags.join, &who, &id, uuid);
    if (rc == 0)
        rc = mlog_join_dir(flags.data, uuid, id);
    if (rc == 0)
        log_info("this is metad %" PRIu64 " of cluster %s from now on", id, uuid);
    return rc;
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

static void role_changed(void *arg, bool leads)
{
    struct metad *d = arg;

    leader_role_changed(d->leader, leads);
}

static void state_replaced(void *arg)
{
    struct metad *d = arg;

    leader_restored(d->leader);
}

/* For those that this metad sends away. */
static void leader_addr(void *arg, char out[128])
{
    struct metad *d = arg;
    char addr[256];
    uint64_t id;

    if (mlog_leader(d->mlog, &id) && id != mlog_id(d->mlog) && metads_addr_of(d->fsm, id, addr))
        snprintf(out, 128, "%.127s", addr);
}

static void log_failed(void *arg)
{
    struct metad *d = arg;

    atomic_store(&d->failed, true);
    kill(getpid(), SIGTERM);
}

/* The command that makes a new metad of this one: its own, with --join. */
static void rejoin_command(const struct metad *d, const char *leader, char *out, size_t size)
{
    size_t at = (size_t)snprintf(out, size, "mv %s %s.removed && replfs-metad --join %s",
                                 flags.data, flags.data, flags.join ? flags.join : leader);

    for (int i = 1; i < d->argc && at < size; i++) {
        if (strcmp(d->argv[i], "--join") == 0)
            i++;
        else if (strncmp(d->argv[i], "--join=", 7) != 0)
            at += (size_t)snprintf(out + at, size - at, " %s", d->argv[i]);
    }
}

/* A directory that cannot be trusted is no loss where others have the same. */
static bool said_elsewhere(const struct metad *d)
{
    char command[1024], at[256];
    uint64_t id;

    if (!mlog_elsewhere(flags.data, &id, at))
        return false;
    rejoin_command(d, at, command, sizeof(command));
    log_error("this is metad %" PRIu64
              " of several, and the others have what it had. Do not restore a "
              "backup of it; let it join again as a new one: replfsctl metad remove %" PRIu64
              " --meta %s; then %s",
              id, id, at, command);
    return true;
}

static void was_removed(void *arg, const char *leader)
{
    struct metad *d = arg;
    char command[1024];

    rejoin_command(d, leader, command, sizeof(command));
    log_error("this metad (%" PRIu64 ") was removed from the cluster, and serves nothing any more. "
              "To let it join again, as a new one, empty its directory: %s",
              mlog_id(d->mlog), command);
    atomic_store(&d->removed, true);
    kill(getpid(), SIGTERM);
}

/* Strangers may have what the limit leaves: the log without descriptors would be the end. */
static unsigned conns_for_peers(void)
{
    unsigned files = daemon_raise_files();
    unsigned conns = files > 2 * OWN_FILES ? files - OWN_FILES : files / 2;

    return conns < CONNS_MAX ? conns : CONNS_MAX;
}

/* ---- options that are the cluster's: they count until it has said what shall hold (replfsctl config) ---- */

static const struct {
    enum setting_key setting;
    const uint64_t *flag;
} cluster_flags[] = {
    {SETTING_SESSION_LEASE, &flags.lease_ms}, {SETTING_SESSION_KEEP, &flags.keep_ms},
    {SETTING_LEASE_TERM, &flags.term_ms},     {SETTING_HEARTBEAT, &flags.heartbeat_ms},
    {SETTING_SUSPECT, &flags.suspect_ms},     {SETTING_DEAD, &flags.dead_ms},
    {SETTING_MIN_COPIES, &flags.min_copies},  {SETTING_META_COPIES, &flags.meta_copies}};
#define N_CLUSTER_FLAGS (sizeof(cluster_flags) / sizeof(cluster_flags[0]))

static void offer_settings(struct fsm *fsm)
{
    if (flags.term_ms > flags.lease_ms)
        flags.term_ms = flags.lease_ms; /* the session's end ends its leases */
    for (size_t k = 0; k < N_CLUSTER_FLAGS; k++)
        fsm_setting_offer(fsm, cluster_flags[k].setting, *cluster_flags[k].flag);
}

static void compare_settings(struct fsm *fsm)
{
    for (size_t k = 0; k < N_CLUSTER_FLAGS; k++) {
        const struct setting_info *i = setting_info(cluster_flags[k].setting);
        uint64_t mine = *cluster_flags[k].flag, holds = fsm_setting(fsm, cluster_flags[k].setting);
        const char *unit = i->type == SETTING_IS_MSEC ? " ms" : "";
        if ((mine || cluster_flags[k].setting == SETTING_META_COPIES) && mine != i->standard &&
            mine != holds)
            log_warn("--%s %llu%s does not count: in this cluster it is %llu%s; change it with "
                     "'replfsctl config set "
                     "%s ...', and take the option away",
                     i->name, (unsigned long long)mine, unit, (unsigned long long)holds, unit,
                     i->name);
    }
}

static int start_state(struct metad *d)
{
    struct mlog_config log_cfg = {.dir = flags.data,
                                  .checkpoint_bytes = flags.checkpoint_bytes,
                                  .role_changed = role_changed,
                                  .failed = log_failed,
                                  .restored = state_replaced,
                                  .arg = d,
                                  .loop = d->loop,
                                  .addr_of = metads_addr_of};

    int rc = fsm_new(&d->fsm);
    if (rc == 0) {
        d->copies = copies_new(flags.data, d->fsm);
        log_cfg.fsm = d->fsm;
        log_cfg.observer = copies_observer(d->copies);
        log_cfg.addr_arg = d->fsm;
        offer_settings(d->fsm);
        rc = mlog_open(&log_cfg, OPEN_TIMEOUT_MS, &d->mlog);
    }
    if (rc == -ERR_CORRUPT && said_elsewhere(d))
        rc = -ERR_NOT_REGISTERED; /* it is none of them any more */
    return rc;
}

static int start_nodes(struct metad *d, const char *addr)
{
    struct nodes_config cfg = {.fsm = d->fsm,
                               .mlog = d->mlog,
                               .loop = d->loop,
                               .dir = flags.data,
                               .addr = addr,
                               .names_copies = copies_status,
                               .names_arg = d->copies,
                               .leader_addr = leader_addr,
                               .leader_arg = d,
                               .obey_another = obey_another,
                               .obey_arg = d,
                               .gate = leader_gate(d->leader)};

    return nodes_new(&cfg, &d->nodes);
}

static int start_leader(struct metad *d)
{
    struct leader_config cfg = {.fsm = d->fsm,
                                .mlog = d->mlog,
                                .loop = d->loop,
                                .nodes = d->nodes,
                                .copies = d->copies,
                                .dir = flags.data,
                                .service = {.max_memory = flags.max_memory}};

    return leader_begin(d->leader, &cfg);
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

    d->leader = leader_new();
    int rc = rpc_loop_new(&rpc, &d->loop);
    self_know(&d->self);
    self_addr(&d->self, addr);
    if (rc == 0)
        rc = join_cluster(d, addr);
    if (rc == 0)
        rc = start_state(d);
    if (rc == 0)
        rc = start_nodes(d, addr);
    if (rc == 0)
        rc = start_leader(d);
    if (rc == 0)
        compare_settings(d->fsm);
    if (rc == 0)
        rc = rpc_listen(d->loop, addr, leader_rpc(d->leader), &port);
    if (rc != 0)
        return rc;
    if (flags.insecure && !has_tls())
        log_warn("--insecure: anyone who reaches this port can read and change everything");
    bound_addr(bound, sizeof(bound), addr, port);
    self_addr(&d->self, bound);
    mlog_serves_at(d->mlog, d->self.addr);
    struct join_who who = self_who(&d->self);
    rc = join_announce(d->loop, d->mlog, d->fsm, flags.join, &who, was_removed, d, &d->join);
    if (rc != 0)
        return rc;
    log_info("ready on %s, cluster %s", bound, mlog_uuid(d->mlog));
    return 0;
}

static void stop(struct metad *d)
{
    join_free(d->join);
    leader_end(d->leader);
    if (d->mlog)
        mlog_stop(d->mlog);
    rpc_loop_free(d->loop);
    nodes_free(d->nodes);
    mlog_close(d->mlog);
    copies_free(d->copies);
    if (d->fsm)
        fsm_free(d->fsm);
    leader_free(d->leader);
}

/* ---- main ---- */

static void metad_reload(void *arg)
{
    struct metad *d = arg;

    rpc_loop_reload_tls(d->loop);
}

static int metad_run(int argc, char **argv, const sigset_t *signals)
{
    struct metad d = {.argc = argc, .argv = argv};
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
            rc = digests_barred(flags.data) != 0 && said_elsewhere(&d) ? -ERR_NOT_REGISTERED : -EIO;
        } else if (atomic_load(&d.removed)) {
            rc = -ERR_NOT_REGISTERED;
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
    if (flags.init)
        rc = make_cluster();
    else if (flags.recover)
        rc = recover_cluster();
    else if (flags.restore)
        rc = recover_from_file(flags.restore, flags.data);
    else if (flags.new_life)
        rc = begin_new_life();
    else
        rc = metad_run(argc, argv, &signals);
    config_free(options);
    return rc == 0 ? EXIT_SUCCESS : rc == -ERR_NOT_REGISTERED ? EXIT_REMOVED : EXIT_FAILURE;
}
