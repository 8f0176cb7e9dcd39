/* Local peers without TLS: who may talk to whom, seen by other users of the computer. The strangers are child
 * processes of another user, which takes root; without it those tests are skipped. */
#include "rpc_rig.h"

#include <sys/un.h>
#include <sys/wait.h>

#define STRANGER 65534

/* What a stranger does: words of the command line in, an exit code out. */
typedef int stranger_fn(char **words);

/* Runs this program anew as that user: a child of a program with threads must not do more than exec. */
static int as_user(uid_t uid, const char *what, const char *a, const char *b)
{
    int status;
    char user[16];

    snprintf(user, sizeof user, "%u", uid);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "stranger", user, what, a, b, (char *)NULL);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* 0: served; 1: refused with the reason. */
static int dial_and_ask(char **words)
{
    struct rpc_loop *loop;
    struct rpc_conn *c;

    if (rpc_loop_new(&rpc_rig_client_cfg, &loop) ||
        rpc_dial(loop, words[0], RPC_ROLE_ANY, NULL, &c))
        return 98;
    int code = rpc_rig_ask_code(c, ECHO, 5000);
    if (code == 0)
        return 0;
    bool told = strstr(rpc_conn_error(c), "without TLS only root") != NULL;
    if (!told)
        fprintf(stderr, "told: %s\n", rpc_conn_error(c));
    return code == -ERR_ROLE && told ? 1 : 97;
}

/* A user who is not us gets nothing, whatever role he claims. */
static void test_other_user_is_refused(void **state)
{
    struct rpc_rig_side srv;

    (void)state;
    if (geteuid())
        skip();
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
    assert_int_equal(as_user(STRANGER, "dial", srv.addr, NULL), 1);
    assert_int_equal(as_user(0, "dial", srv.addr, NULL), 0);
    rpc_rig_wait(&srv, &srv.requests, 1);
    rpc_rig_side_stop(&srv);
}

/* Behind the address is no port that everybody can connect to. */
static void test_no_port(void **state)
{
    struct rpc_rig_side srv;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    (void)state;
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
    sa.sin_port = htons((uint16_t)srv.port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
    rpc_rig_side_stop(&srv);
}

/* Takes the address of a daemon and counts the bytes that it is told: 0 is the right answer. ADDRESS READY-PIPE */
static int false_daemon(char **words)
{
    const char *port = strrchr(words[0], ':') + 1;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char buf[512];
    int n = snprintf(un.sun_path + 1, sizeof un.sun_path - 1, "replfs/%s", words[0]);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtol(port, NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    if (bind(fd, (struct sockaddr *)&un, len) || listen(fd, 1))
        return 96;
    setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(tcp, (struct sockaddr *)&in, sizeof in) || listen(tcp, 1))
        return 95;
    if (write((int)strtol(words[1], NULL, 10), "", 1) != 1)
        return 94;
    int c = accept(fd, NULL, NULL);
    return c < 0 ? 93 : recv(c, buf, sizeof buf, 0) > 0 ? 1 : 0;
}

struct false_daemon {
    const char *addr, *ready; /* a pipe's number */
};

static void *run_false_daemon(void *arg)
{
    const struct false_daemon *f = arg;
    return (void *)(intptr_t)as_user(STRANGER, "listen", f->addr, f->ready);
}

/* A user who listens at a daemon's address while that is down is told nothing and not believed. */
static void test_other_user_listens(void **state)
{
    struct rpc_rig_side srv, cli;
    char number[16];
    struct false_daemon f = {.addr = srv.addr, .ready = number};
    struct rpc_conn *c;
    pthread_t t;
    void *told;
    int ready[2];
    char byte;

    (void)state;
    if (geteuid())
        skip();
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
    rpc_rig_side_stop(&srv);
    assert_int_equal(pipe(ready), 0);
    snprintf(number, sizeof number, "%d", ready[1]);
    assert_int_equal(pthread_create(&t, NULL, run_false_daemon, &f), 0);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    rpc_rig_side_start(&cli, &rpc_rig_client_cfg, false);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 5000), -EPERM);
    assert_non_null(strstr(rpc_conn_error(c), "runs as user 65534"));
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
    assert_int_equal(pthread_join(t, &told), 0);
    assert_int_equal((intptr_t)told, 0);
    close(ready[0]);
    close(ready[1]);
}

/* Two daemons cannot have one address; it is free again when its daemon is gone. */
static void test_address_in_use(void **state)
{
    struct rpc_rig_side a, b;
    int port;

    (void)state;
    rpc_rig_side_start(&a, &rpc_rig_server_cfg, true);
    rpc_rig_side_start(&b, &rpc_rig_server_cfg, false);
    assert_int_equal(rpc_listen(b.loop, a.addr, &b.svc, &port), -EADDRINUSE);
    rpc_rig_side_stop(&a);
    assert_int_equal(rpc_listen(b.loop, a.addr, &b.svc, &port), 0);
    assert_int_equal(port, a.port);
    rpc_rig_side_stop(&b);
}

/* Without insecure a daemon that serves everybody is not taken for a local one, and the way out is named. */
static void test_insecure_daemon(void **state)
{
    struct rpc_config all = rpc_rig_server_cfg, cli_all = rpc_rig_client_cfg;
    struct rpc_rig_side srv, cli;
    struct rpc_conn *c;

    (void)state;
    all.insecure = cli_all.insecure = true;
    rpc_rig_side_start(&srv, &all, true);
    rpc_rig_side_start(&cli, &rpc_rig_client_cfg, false);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 5000), -ECONNREFUSED);
    assert_non_null(strstr(rpc_conn_error(c), "reached with insecure"));
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
    rpc_rig_side_start(&cli, &cli_all, false);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 5000), 0);
    rpc_conn_unref(c);
    rpc_rig_side_stop(&srv);
    /* and one that trusts everybody reaches a local one, too */
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 5000), 0);
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
    rpc_rig_side_stop(&srv);
}

static int stranger(char **argv)
{
    const struct {
        const char *what;
        stranger_fn *fn;
    } acts[] = {{"dial", dial_and_ask}, {"listen", false_daemon}};
    uid_t uid = (uid_t)strtol(argv[1], NULL, 10);

    if (setgid(uid) || setuid(uid))
        return 92;
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        if (strcmp(argv[2], acts[i].what) == 0)
            return acts[i].fn(argv + 3);
    return 91;
}

int main(int argc, char **argv)
{
    if (argc > 2)
        _exit(stranger(argv));

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_user_is_refused), cmocka_unit_test(test_no_port),
        cmocka_unit_test(test_other_user_listens),    cmocka_unit_test(test_address_in_use),
        cmocka_unit_test(test_insecure_daemon),
    };
    log_init("test_rpc_local", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
