/* Peers given by name: each look-up may block for long, so only so many run at once in a loop. The
 * resolver here is a stand-in that hangs until it is let go. */
#include "rpc_rig.h"

#include <netdb.h>
#include <stdatomic.h>

#define DIALS 100u
#define AT_ONCE 32u

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static unsigned looking, most, ended;
static bool go;

/* Instead of libc's. Numbers are still numbers. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **res)
{
    (void)node;
    (void)service;
    (void)res;
    if (hints != NULL && (hints->ai_flags & AI_NUMERICHOST))
        return EAI_NONAME;
    pthread_mutex_lock(&mu);
    looking++;
    most = looking > most ? looking : most;
    pthread_cond_broadcast(&cond);
    while (!go)
        pthread_cond_wait(&cond, &mu);
    looking--;
    ended++;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&mu);
    return EAI_FAIL;
}

static void wait_looking(unsigned want)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&mu);
    int rc = 0;
    while (looking != want && rc == 0)
        rc = pthread_cond_timedwait(&cond, &mu, &until);
    assert_int_equal(looking, want);
    pthread_mutex_unlock(&mu);
}

static void let_go(bool on)
{
    pthread_mutex_lock(&mu);
    go = on;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&mu);
}

static void test_names_without_end(void **state)
{
    struct rpc_config cfg = {
        .role = RPC_ROLE_CLIENT, .name = "cli", .threads = 1, .insecure = true};
    struct rpc_loop *loop;
    struct rpc_conn *c[DIALS], *again;
    unsigned alive = 0;

    (void)state;
    assert_int_equal(rpc_loop_new(&cfg, &loop), 0);
    for (unsigned i = 0; i < DIALS; i++) {
        char name[32];
        snprintf(name, sizeof name, "host%u.example:7000", i);
        assert_int_equal(rpc_dial(loop, name, RPC_ROLE_METAD, NULL, &c[i]), 0);
        alive += rpc_conn_alive(c[i]);
    }
    assert_int_not_equal(rpc_rig_ask_code(c[DIALS - 1], ECHO, 5000), 0);
    assert_int_equal(alive, AT_ONCE); /* the others have failed already */
    wait_looking(AT_ONCE);
    print_message("%u names: %u looked up at once\n", DIALS, most);
    assert_int_equal(most, AT_ONCE);
    /* room again when they have ended */
    let_go(true);
    wait_looking(0);
    let_go(false);
    int64_t until = clock_mono() + 10 * NSEC_PER_SEC;
    do { /* a thread counts until it is gone */
        assert_int_equal(rpc_dial(loop, "again.example:7000", RPC_ROLE_METAD, NULL, &again), 0);
        if (rpc_conn_alive(again))
            break;
        rpc_conn_unref(again);
        again = NULL;
        usleep(1000);
    } while (clock_mono() < until);
    assert_non_null(again);
    wait_looking(1);
    let_go(true);
    rpc_conn_unref(again);
    for (unsigned i = 0; i < DIALS; i++)
        rpc_conn_unref(c[i]);
    rpc_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names_without_end)};

    log_init("test", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
