/* Connections to a chunkd that say nothing: most of one address are refused, and clients are served. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "chunkd_rig.h"

#define MANY 200u
#define KEPT 64u

static int silent(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static unsigned closed(const int *fd)
{
    unsigned n = 0;
    char c;

    for (unsigned i = 0; i < MANY; i++) {
        ssize_t got = recv(fd[i], &c, 1, MSG_DONTWAIT);
        n += got == 0 || (got < 0 && errno != EAGAIN);
    }
    return n;
}

static void silent_connections_are_few(void **state)
{
    static const unsigned one[] = {1, 0};
    struct rpc_config cfg = {
        .role = RPC_ROLE_CLIENT, .name = "test", .threads = 1, .insecure = true};
    struct rpc_loop *loop;
    int fd[MANY];

    (void)state;
    chunkd_rig.insecure = true;
    chunkd_rig_chunkd_start(1, 1);
    assert_int_equal(rpc_loop_new(&cfg, &loop), 0);
    rpc_conn_unref(chunkd_rig.conn[1]);
    assert_int_equal(rpc_dial(loop, chunkd_addr(chunkd_rig.chunkd[1]), RPC_ROLE_CHUNKD, NULL,
                              &chunkd_rig.conn[1]),
                     0);
    struct chunkd_rig_append a = {.chunk = 10, .len = 5000, .seed = 1, .chain = one};
    assert_int_equal(chunkd_rig_append(&a).code, 0);
    const char *port = strrchr(chunkd_addr(chunkd_rig.chunkd[1]), ':') + 1;
    for (unsigned i = 0; i < MANY; i++)
        fd[i] = silent((uint16_t)strtoul(port, NULL, 10));
    int64_t until = clock_mono() + 8 * NSEC_PER_SEC; /* less than each has for its Hello */
    while (closed(fd) < MANY - KEPT && clock_mono() < until)
        poll(NULL, 0, 20);
    print_message("%u silent connections: %u are refused\n", MANY, closed(fd));
    assert_int_equal(closed(fd), MANY - KEPT);
    a.chunk = 11;
    assert_int_equal(chunkd_rig_append(&a).code, 0); /* who was here */
    for (unsigned i = 0; i < MANY; i++)
        close(fd[i]);
    /* and who comes when they are gone, from the same address */
    rpc_conn_unref(chunkd_rig.conn[1]);
    assert_int_equal(rpc_dial(loop, chunkd_addr(chunkd_rig.chunkd[1]), RPC_ROLE_CHUNKD, NULL,
                              &chunkd_rig.conn[1]),
                     0);
    a.chunk = 12;
    assert_int_equal(chunkd_rig_append(&a).code, 0);
    rpc_conn_unref(chunkd_rig.conn[1]);
    chunkd_rig.conn[1] = NULL;
    rpc_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(silent_connections_are_few, chunkd_rig_setup,
                                        chunkd_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
