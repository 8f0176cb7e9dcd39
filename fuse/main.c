/* mount.replfs: connect, mount, serve until unmounted.
 *
 * Order matters: options and mount point are checked first; then the fork, if any; then the session
 * with metad and the root's attributes, so that an unreachable cluster is an error message and exit
 * code 32, not a mount that hangs; then the mount itself. A helper thread stats the mounted root,
 * which is answered by our own operations: only then is the mount announced and the parent let go.
 *
 * SIGTERM, SIGINT and SIGHUP are blocked in every thread; the main one waits for them. SIGHUP reopens the
 * log file; the others end the loop. Then: unmount, flush what is buffered, close the session. Every call
 * of the client has a time-out, so this ends.
 *
 * A cluster that does not answer yet is waited for, as long as `retry` or else `timeout` say; with bg, the
 * caller is let go meanwhile.
 *
 * Under the name umount.fuse.replfs it is what umount(8) runs: umount.c; remount.c for mount -o remount.
 *
 * Exit codes as mount(8) wants them: 0 mounted (or, in the foreground, unmounted cleanly), 1 usage,
 * 32 mount failure. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/lock.h"
#include "background.h"
#include "fuse/serve/interrupt.h"
#include "fuse/serve/kernel.h"
#include "fuse/serve/loop.h"
#include "ops.h"
#include "options.h"
#include "remount.h"
#include "fuse/serve/leader_follower.h"
#include "umount.h"

#define LOG_MODULE "mount"
#define BG_FIRST_MS 3000
#define GRACE_MS 60000
enum { EXIT_USAGE = 1, EXIT_MOUNT = 32 };

struct mount {
    struct options o;
    char *mountpoint; /* absolute */
    char *log_path;   /* absolute, or NULL */
    int log_fd;
    struct mount_ctx ctx;
    struct fuse_session *se;
    _Atomic dev_t dev; /* once it answers */
    bool let_go;       /* the caller was */
};

/* 0 and m->mountpoint, or an exit code after saying why. */
static int check_mountpoint(struct mount *m)
{
    struct stat st;
    const char *dir = m->o.mountpoint;
    if (stat(dir, &st)) {
        if (errno == ENOTCONN)
            fprintf(
                stderr,
                "mount.replfs: %s is a dead mount (its process is gone): run 'umount -l %s' and "
                "mount again\n",
                dir, dir);
        else if (errno == ENOENT)
            fprintf(stderr,
                    "mount.replfs: mount point %s does not exist: create it with 'mkdir -p %s'\n",
                    dir, dir);
        else
            fprintf(stderr, "mount.replfs: mount point %s: %s\n", dir, strerror(errno));
        return EXIT_MOUNT;
    }
    if (!S_ISDIR(st.st_mode)) {
        fprintf(stderr, "mount.replfs: mount point %s is not a directory\n", dir);
        return EXIT_MOUNT;
    }
    m->mountpoint = realpath(dir, NULL);
    if (!m->mountpoint) {
        fprintf(stderr, "mount.replfs: mount point %s: %s\n", dir, strerror(errno));
        return EXIT_MOUNT;
    }
    if (access("/dev/fuse", F_OK)) {
        fprintf(stderr,
                "mount.replfs: no /dev/fuse: load the kernel's fuse module (modprobe fuse); in a "
                "container, pass the device in\n");
        return EXIT_MOUNT;
    }
    return 0;
}

static int open_log(struct mount *m)
{
    m->log_fd = -1;
    if (!m->o.log_file)
        return 0;
    CLEANUP(free_ptr) char *cwd = m->o.log_file[0] == '/' ? NULL : getcwd(NULL, 0);
    if (asprintf(&m->log_path, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", m->o.log_file) < 0)
        abort();
    if (m->o.foreground)
        return 0;
    m->log_fd = open(m->o.log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (m->log_fd >= 0)
        return 0;
    fprintf(stderr, "mount.replfs: log_file %s: %s\n", m->o.log_file, strerror(errno));
    return EXIT_MOUNT;
}

__attribute__((format(printf, 2, 0))) static void fuse_says(enum fuse_log_level level,
                                                            const char *fmt, va_list ap)
{
    char line[512];
    vsnprintf(line, sizeof(line), fmt, ap);
    line[strcspn(line, "\n")] = '\0';
    log_line(level <= FUSE_LOG_ERR       ? LOG_LVL_ERROR
             : level == FUSE_LOG_WARNING ? LOG_LVL_WARN
             : level <= FUSE_LOG_INFO    ? LOG_LVL_INFO
                                         : LOG_LVL_DEBUG,
             "libfuse", "%s", line);
}

/* Our caller need not wait any longer. */
static void let_go(struct mount *m)
{
    if (m->o.foreground || m->let_go)
        return;
    m->let_go = true;
    background_ready(m->log_fd);
    log_set_level(LOG_LVL_INFO);
}

/* The client; it waits for metad. */
static int open_client(struct mount *m, struct client_config *cfg)
{
    const struct options *o = &m->o;
    uint64_t min = o->retry_min != OPTIONS_NO_RETRY ? o->retry_min : o->bg ? OPTIONS_BG_RETRY : 0;
    int rc;
    if (o->bg) {
        cfg->connect_ms = BG_FIRST_MS;
        rc = client_open(cfg, &m->ctx.client);
        if (!rc)
            return 0;
        log_warn("%s on %s: %s; trying on in the background", o->spec, m->mountpoint, err_str(rc));
        let_go(m);
    }
    cfg->connect_ms = (int64_t)(min ? min * 60000 : o->timeout_ms);
    return client_open(cfg, &m->ctx.client);
}

/* metad, if it was restarted, first lets those come back that held leases: longer perhaps than our
 * time-out. */
static int look_at_root(struct mount *m, Replfs__Attr *root)
{
    int64_t until = clock_mono() + GRACE_MS * NSEC_PER_MSEC;
    int rc;
    do
        rc = client_getattr(m->ctx.client, FUSE_ROOT_ID, root);
    while ((rc == -ERR_BUSY || rc == -ERR_TIMEOUT) && clock_mono() < until);
    return rc;
}

static int connect_cluster(struct mount *m)
{
    const struct options *o = &m->o;
    char host[128] = "localhost", name[512];
    Replfs__Attr root = REPLFS__ATTR__INIT;
    gethostname(host, sizeof(host) - 1);
    snprintf(name, sizeof(name), "%s:%s", host, m->mountpoint);
    struct client_config cfg = {.metads = m->o.metads,
                                .nmetads = o->nmetads,
                                .name = name,
                                .timeout_ms = (unsigned)o->timeout_ms,
                                .dirty_max = o->dirty_max,
                                .flush_ms = (unsigned)o->flush_ms,
                                .sync_all = o->sync,
                                .dirsync = o->dirsync,
                                .async_close = o->async_close,
                                .atime = o->ro || o->noatime ? CLIENT_ATIME_NEVER
                                         : o->strictatime    ? CLIENT_ATIME_ALWAYS
                                                             : CLIENT_ATIME_RELATIME,
                                .nodiratime = o->nodiratime,
                                .host_id = o->host_id,
                                .invalidate = ops_invalidate,
                                .invalidate_arg = &m->ctx,
                                .rpc = {.role = RPC_ROLE_CLIENT,
                                        .silent_ms = (unsigned)o->silence_ms,
                                        .name = name,
                                        .threads = (unsigned)o->rpc_threads,
                                        .insecure = o->insecure,
                                        .tls_cert = o->tls_cert,
                                        .tls_key = o->tls_key,
                                        .tls_ca = o->tls_ca}};
    int rc = open_client(m, &cfg);
    if (rc) {
        bool silent = rc == -ETIMEDOUT || rc == -ERR_TIMEOUT || rc == -ERR_PEER_GONE;
        log_error("cannot mount %s on %s: %s%s", o->spec, m->mountpoint, err_str(rc),
                  silent ? ". Is metad running there, and its port reachable from here?" : "");
        return EXIT_MOUNT;
    }
    rc = look_at_root(m, &root);
    if (rc || !S_ISDIR(root.mode)) {
        log_error("cannot mount %s on %s: metad answers, but not with a root directory: %s",
                  o->spec, m->mountpoint, rc ? err_str(rc) : "not a directory");
        return EXIT_MOUNT;
    }
    return 0;
}

/* The option string for libfuse, where a comma within a value needs a backslash. */
static char *session_options(const struct options *o)
{
    char *out = NULL, fsname[1024];
    size_t at = 0;
    for (const char *p = o->spec; *p && at + 3 < sizeof(fsname); p++) {
        if (*p == ',' || *p == '\\')
            fsname[at++] = '\\';
        fsname[at++] = *p;
    }
    fsname[at] = '\0';
    if (asprintf(&out, "fsname=%s,subtype=replfs,default_permissions%s%s%s%s", fsname,
                 o->allow_other ? ",allow_other" : "", o->debug ? ",debug" : "",
                 *o->kernel ? "," : "", o->kernel) < 0)
        abort();
    return out;
}

static int mount_session(struct mount *m)
{
    CLEANUP(free_ptr) char *opts = session_options(&m->o);
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    fuse_opt_add_arg(&args, "mount.replfs");
    fuse_opt_add_arg(&args, "-o");
    fuse_opt_add_arg(&args, opts);
    m->ctx.inodes = inode_table_new();
    m->ctx.ctl = ctl_server_new(m->ctx.client);
    m->ctx.readdirplus = m->o.readdirplus;
    m->se = fuse_session_new(&args, &ops_table, sizeof(ops_table), &m->ctx);
    fuse_opt_free_args(&args);
    if (!m->se) {
        log_error("libfuse refuses the mount options '%s'", opts);
        return EXIT_MOUNT;
    }
    if (fuse_set_signal_handlers(m->se) || fuse_session_mount(m->se, m->mountpoint)) {
        log_error("cannot mount on %s: see the message of libfuse above%s", m->mountpoint,
                  geteuid() ? "; without root, fusermount3 must be installed and allow_other "
                              "permitted in /etc/fuse.conf"
                            : "");
        return EXIT_MOUNT;
    }
    m->ctx.session = m->se;
    int rc = kernel_attach(m->se, fuse_says);
    if (rc) {
        log_error("cannot take over the connection to the kernel: %s", strerror(-rc));
        fuse_session_unmount(m->se);
        return EXIT_MOUNT;
    }
    return 0;
}

/* The kernel starts with 128 KiB of read-ahead, too little to keep several chunkds busy. */
static void set_readahead(dev_t dev, uint64_t bytes)
{
    char path[96];
    if (geteuid())
        return;
    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev), minor(dev));
    FILE *f = fopen(path, "we");
    if (!f || fprintf(f, "%llu\n", (unsigned long long)bytes >> 10) < 0 || fflush(f))
        log_debug("%s: %s", path, strerror(errno));
    if (f)
        fclose(f);
}

/* Those that libfuse cannot pass on, so that the table of mounts shows them; what they mean is our
 * business. */
static void show_flags(const struct mount *m)
{
    struct mount_attr a = {0};
    if (m->o.strictatime) {
        a.attr_clr |= MOUNT_ATTR__ATIME;
        a.attr_set |= MOUNT_ATTR_STRICTATIME;
    }
    if (m->o.nodiratime)
        a.attr_set |= MOUNT_ATTR_NODIRATIME;
    if (a.attr_set && mount_setattr(AT_FDCWD, m->mountpoint, 0, &a, sizeof(a)))
        log_debug("%s: mount flags: %s", m->mountpoint, strerror(errno));
}

static void *announce(void *arg)
{
    struct mount *m = arg;
    struct stat st;
    if (stat(m->mountpoint, &st)) {
        log_error("%s is mounted but does not answer: %s", m->mountpoint, strerror(errno));
        return NULL; /* ended meanwhile; main says the rest */
    }
    atomic_store(&m->dev, st.st_dev);
    set_readahead(st.st_dev, m->o.readahead);
    show_flags(m);
    if (!geteuid())
        umount_register(m->o.spec, m->mountpoint);
    let_go(m);
    log_info("ready: %s (cluster %s) on %s", m->o.spec, client_cluster(m->ctx.client),
             m->mountpoint);
    return NULL;
}

/* Whoever waits for us in the kernel is told that it is over. Root's mounts only; others' are let go with
 * the device. */
static void cut(void *arg)
{
    const struct mount *m = arg;
    struct statx x;
    dev_t dev = atomic_load(&m->dev); /* something else may be mounted there by now */
    if (!dev || statx(AT_FDCWD, m->mountpoint, AT_STATX_DONT_SYNC, 0, &x) ||
        makedev(x.stx_dev_major, x.stx_dev_minor) != dev)
        return;
    if (umount2(m->mountpoint, MNT_FORCE | MNT_DETACH))
        log_debug("%s: umount2: %s", m->mountpoint, strerror(errno));
}

/* SIGHUP: what logrotate(8) sends. Standard error is the log file by now; in the foreground log_init has it. */
static void mount_reload(void *arg)
{
    struct mount *m = arg;
    int rc = m->log_path ? log_reopen(m->log_path) : 0;
    if (rc)
        log_error("log_file %s cannot be opened again: %s; going on in the former file",
                  m->log_path, err_str(rc));
    client_reload_tls(m->ctx.client);
    log_info("SIGHUP: looked again at %s%s",
             m->log_path ? "the log file" : "nothing, there is no log file",
             m->o.tls_cert ? " and the certificates" : "");
}

static int mount_serve(struct mount *m, const sigset_t *stop)
{
    pthread_t t;
    if (thread_start(&t, "announce", announce, m)) {
        log_error("out of memory or threads");
        return EXIT_MOUNT;
    }
    const struct loop_config cfg = {.bufsize = OPS_REQUEST_MAX,
                                    .max_threads = m->o.max_threads < 2 ? 2 : m->o.max_threads,
                                    .patience_s = (unsigned)(m->o.timeout_ms / 1000) + 5,
                                    .signals = *stop,
                                    .cut = cut,
                                    .reload = mount_reload,
                                    .arg = m};
    int rc = leader_follower_start();
    if (!rc) {
        rc = loop_run(m->se, &cfg);
        leader_follower_stop();
        client_wait_answers(m->ctx.client); /* while there is somebody to answer, and handles */
        interrupt_stop();
        if (rc > 0)
            cut(m);
    }
    fuse_session_unmount(m->se);
    pthread_join(t, NULL);
    if (rc > 0 && !geteuid()) /* nobody called umount(8) */
        umount_register(NULL, m->mountpoint);
    log_info("unmounted %s%s", m->mountpoint, rc > 0 ? " (signal)" : "");
    return rc < 0 ? EXIT_MOUNT : 0;
}

/* Those that loop.c waits for. What our caller has ignored does not end us; SIGHUP never does. */
static void block_signals(sigset_t *stop)
{
    static const int all[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    struct sigaction was;
    sigemptyset(stop);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i] == SIGUSR1 || all[i] == SIGHUP ||
            (!sigaction(all[i], NULL, &was) && was.sa_handler != SIG_IGN))
            sigaddset(stop, all[i]);
    pthread_sigmask(SIG_BLOCK, stop, NULL);
}

static int mount_run(struct mount *m)
{
    sigset_t stop;
    block_signals(&stop);
    /* On the way to the background only what is wrong concerns the caller's terminal. */
    log_init("mount.replfs",
             m->o.debug        ? LOG_LVL_DEBUG
             : m->o.foreground ? LOG_LVL_INFO
                               : LOG_LVL_WARN,
             m->o.foreground ? m->o.log_file : NULL);
    fuse_set_log_func(fuse_says);
    int rc = connect_cluster(m);
    if (!rc)
        rc = mount_session(m);
    if (!rc)
        rc = mount_serve(m, &stop);
    ops_release_all(&m->ctx);
    if (m->ctx.client)
        client_close(m->ctx.client);
    if (m->se) {
        fuse_remove_signal_handlers(m->se);
        fuse_session_destroy(m->se);
    }
    ctl_server_free(m->ctx.ctl);
    inode_table_free(m->ctx.inodes);
    return rc;
}

int main(int argc, char **argv)
{
    struct mount m = {.log_fd = -1,
                      .ctx.root_lock = LOCK_INITIALIZER(ROOT_NODE),
                      .ctx.opens_lock = LOCK_INITIALIZER(OPEN_FILES)};
    char err[1536];
    int rc = 0;
    if (umount_called(argv[0]))
        return umount_main(argc, argv);
    if (options_parse(&m.o, argc, argv, geteuid() == 0, err, sizeof(err))) {
        fprintf(stderr, "mount.replfs: %s\n", err);
        rc = EXIT_USAGE;
    } else if (m.o.help) {
        fputs(options_usage(), stdout);
    } else if (m.o.version) {
        printf("mount.replfs %s (libfuse %s)\n", REPLFS_VERSION, fuse_pkgversion());
    } else if (m.o.remount) {
        rc = remount_run(&m.o);
    } else {
        rc = check_mountpoint(&m);
        if (!rc)
            rc = open_log(&m);
        if (!rc && !m.o.foreground && background_start()) {
            fprintf(stderr, "mount.replfs: fork: %s\n", strerror(errno));
            rc = EXIT_MOUNT;
        }
        if (!rc)
            rc = mount_run(&m);
    }
    options_free(&m.o);
    free(m.mountpoint);
    free(m.log_path);
    return rc;
}
