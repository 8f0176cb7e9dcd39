/* Strangers who connect and say nothing, or hold connections: how many they may have, and that
 * others are served meanwhile. Addresses are those of 127/8. */
#define RPC_RIG_INSECURE true
#include "rpc_rig.h"

#include <arpa/inet.h>
#include <poll.h>

#define MANY 300

static int connect_from(int port, const char *source)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(inet_pton(AF_INET, source, &from.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static bool was_closed(int fd)
{
    char c;

    ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

/* Waits, at most 8 s, until at least `least` of them have been closed by the other side; shorter
 * than the time that each has for its Hello. */
static int closed_count(const int *fd, int n, int least)
{
    int64_t until = clock_mono() + 8 * NSEC_PER_SEC;
    int closed = 0;

    do {
        closed = 0;
        for (int i = 0; i < n; i++)
            closed += was_closed(fd[i]);
        if (closed < least)
            poll(NULL, 0, 20);
    } while (closed < least && clock_mono() < until);
    return closed;
}

static void close_all_of(const int *fd, int n)
{
    for (int i = 0; i < n; i++)
        close(fd[i]);
}

/* Of one address: most are refused, and who was connected before goes on; another address is
 * served. */
static void test_silent_of_one_address(void **state)
{
    struct rpc_rig p;
    int fd[MANY];

    (void)state;
    rpc_rig_start(&p);
    assert_int_equal(rpc_rig_ask_code(p.c, ECHO, 5000), 0);
    for (int i = 0; i < MANY; i++)
        fd[i] = connect_from(p.srv.port, "127.0.0.2");
    int closed = closed_count(fd, MANY, MANY - 64);
    print_message("%d silent connections of one address: %d are refused\n", MANY, closed);
    assert_int_equal(closed, MANY - 64);
    assert_int_equal(rpc_rig_ask_code(p.c, ECHO, 5000), 0);
    struct rpc_conn *c;
    assert_int_equal(rpc_dial(p.cli.loop, p.srv.addr, RPC_ROLE_METAD, &p.cli.svc, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 5000), 0);
    rpc_conn_unref(c);
    /* They are forgotten with their connections. */
    close_all_of(fd, MANY);
    p.srv.opened = 0;
    for (int i = 0; i < 64; i++)
        fd[i] = connect_from(p.srv.port, "127.0.0.2");
    assert_int_equal(rpc_rig_ask_code(p.c, ECHO, 5000), 0);
    close_all_of(fd, 64);
    rpc_rig_stop(&p);
}

/* Of many addresses: the oldest silent ones make room, for honest ones too. */
static void test_silent_of_many_addresses(void **state)
{
    struct rpc_config cfg = {
        .role = RPC_ROLE_METAD, .name = "srv", .threads = 2, .max_conns = 40, .insecure = true};
    struct rpc_rig_side srv, cli;
    struct rpc_conn *c[10];
    int fd[100];

    (void)state;
    rpc_rig_side_start(&srv, &cfg, true);
    rpc_rig_side_start(&cli, &rpc_rig_client_cfg, false);
    for (int i = 0; i < 100; i++) {
        char from[24];
        snprintf(from, sizeof from, "127.0.1.%u", 1 + (unsigned)i / 10);
        fd[i] = connect_from(srv.port, from);
    }
    assert_int_equal(closed_count(fd, 100, 80), 80);
    assert_false(was_closed(fd[99])); /* the newest stay */
    for (int i = 0; i < 10; i++) {
        assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, &cli.svc, &c[i]), 0);
        assert_int_equal(rpc_rig_ask_code(c[i], ECHO, 5000), 0);
    }
    for (int i = 0; i < 10; i++)
        assert_int_equal(rpc_rig_ask_code(c[i], ECHO, 5000), 0);
    for (int i = 0; i < 10; i++)
        rpc_conn_unref(c[i]);
    close_all_of(fd, 100);
    rpc_rig_side_stop(&cli);
    rpc_rig_side_stop(&srv);
}

/* Connections that did say Hello count too. */
static void test_too_many_of_one_address(void **state)
{
    struct rpc_config cfg = {.role = RPC_ROLE_METAD,
                             .name = "srv",
                             .threads = 2,
                             .max_conns_per_addr = 5,
                             .insecure = true};
    struct rpc_rig_side srv, cli;
    struct rpc_conn *c[6];

    (void)state;
    rpc_rig_side_start(&srv, &cfg, true);
    rpc_rig_side_start(&cli, &rpc_rig_client_cfg, false);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, &cli.svc, &c[i]), 0);
        int rc = rpc_rig_ask_code(c[i], ECHO, 5000);
        assert_int_equal(rc == 0, i < 5);
    }
    rpc_conn_unref(c[0]);
    rpc_rig_wait(&srv, &srv.closed, 1);
    rpc_conn_unref(c[5]);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, &cli.svc, &c[5]), 0);
    assert_int_equal(rpc_rig_ask_code(c[5], ECHO, 5000), 0);
    for (int i = 1; i < 6; i++)
        rpc_conn_unref(c[i]);
    rpc_rig_side_stop(&cli);
    rpc_rig_side_stop(&srv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silent_of_one_address),
        cmocka_unit_test(test_silent_of_many_addresses),
        cmocka_unit_test(test_too_many_of_one_address),
    };
    log_init("test_rpc_strangers", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
