/* A peer that stops without a word: it is noticed while a call waits for it, in time, over TCP as over a UNIX socket;
 * and one that is only slow, busy or full is not dropped. Peers that stop are processes of their own (SIGSTOP). */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "rpc/alive.h"
#include "rpc_rig.h"

#define SILENT_MS 1200u /* long enough for a slow machine */
#define NEVER_MS 60000u

struct other { /* a process that serves */
    pid_t pid;
    int end; /* closed: it ends */
    char addr[64];
};

static struct rpc_config config(enum rpc_role role, bool tcp, unsigned silent_ms)
{
    return (struct rpc_config){
        .role = role, .name = "one of us", .threads = 1, .insecure = tcp, .silent_ms = silent_ms};
}

static void serve(bool tcp, int port_to, int end)
{
    static struct rpc_rig_side s;
    struct rpc_config cfg = config(RPC_ROLE_METAD, tcp, SILENT_MS);
    char c;
    rpc_rig_side_start(&s, &cfg, true);
    if (write(port_to, &s.port, sizeof s.port) != sizeof s.port)
        _exit(1);
    (void)!read(end, &c, 1);
    _exit(0);
}

/* Forked before this process has threads. */
static void other_start(struct other *o, bool tcp)
{
    int port[2], end[2], n;
    assert_int_equal(pipe2(port, O_CLOEXEC), 0);
    assert_int_equal(pipe2(end, O_CLOEXEC), 0);
    o->pid = fork();
    assert_true(o->pid >= 0);
    if (o->pid == 0) {
        close(end[1]);
        serve(tcp, port[1], end[0]);
    }
    close(port[1]);
    close(end[0]);
    o->end = end[1];
    assert_int_equal(read(port[0], &n, sizeof n), sizeof n);
    close(port[0]);
    snprintf(o->addr, sizeof o->addr, "127.0.0.1:%d", n);
}

/* Returns when all its threads stand still. */
static void stop_other(const struct other *o)
{
    int status;
    assert_int_equal(kill(o->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(o->pid, &status, WUNTRACED), o->pid);
    assert_true(WIFSTOPPED(status));
}

static void other_end(struct other *o)
{
    kill(o->pid, SIGCONT);
    close(o->end);
    assert_int_equal(waitpid(o->pid, NULL, 0), o->pid);
}

static int64_t ms_since(int64_t t0)
{
    return (clock_mono() - t0) / NSEC_PER_MSEC;
}

static void notice(bool tcp)
{
    struct other o;
    struct rpc_rig_side cli;
    struct rpc_conn *c;
    other_start(&o, tcp);
    struct rpc_config cfg = config(RPC_ROLE_CLIENT, tcp, SILENT_MS);
    rpc_rig_side_start(&cli, &cfg, false);
    assert_int_equal(rpc_dial(cli.loop, o.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, NEVER_MS), 0);
    /* it lives, and is as slow as it likes */
    assert_int_equal(rpc_rig_ask_code(c, NEVER, 3 * SILENT_MS), -ERR_TIMEOUT);
    assert_true(rpc_conn_alive(c));
    /* nobody asks: nobody notices, nobody minds */
    stop_other(&o);
    assert_true(rpc_conn_alive(c));
    int64_t t0 = clock_mono();
    assert_int_equal(rpc_rig_ask_code(c, ECHO, NEVER_MS), -ERR_PEER_GONE);
    int64_t ms = ms_since(t0);
    assert_in_range(ms, SILENT_MS / 2, 10 * SILENT_MS);
    print_message("noticed after %d of %u ms\n", (int)ms, SILENT_MS);
    assert_non_null(strstr(rpc_conn_error(c), "no sign of life"));
    rpc_conn_unref(c);
    /* as the connection is being made */
    assert_int_equal(rpc_dial(cli.loop, o.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 300), -ERR_TIMEOUT);
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
    other_end(&o);
}

static void test_stopped_over_tcp(void **state)
{
    (void)state;
    notice(true);
}

static void test_stopped_over_unix(void **state)
{
    (void)state;
    notice(false);
}

/* Stopped, and going on in time: nothing is lost. */
static void test_short_stop(void **state)
{
    struct other o;
    struct rpc_rig_side cli;
    struct rpc_conn *c;
    (void)state;
    other_start(&o, true);
    struct rpc_config cfg = config(RPC_ROLE_CLIENT, true, 20000);
    rpc_rig_side_start(&cli, &cfg, false);
    struct rpc_rig_counter n = {.s = &cli};
    assert_int_equal(rpc_dial(cli.loop, o.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, NEVER_MS), 0);
    stop_other(&o);
    for (int i = 0; i < 100; i++)
        rpc_rig_call_ino(c, ECHO, NULL, NEVER_MS, rpc_rig_count_done, &n);
    assert_int_equal(rpc_rig_ask_code(c, NEVER, 6000), -ERR_TIMEOUT); /* a ping is under way now */
    assert_int_equal(kill(o.pid, SIGCONT), 0);
    rpc_rig_wait(&cli, &n.ok, 100);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, NEVER_MS), 0);
    assert_true(rpc_conn_alive(c));
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
    other_end(&o);
}

/* The peer holds so much of ours that it does not read any more: it says that it lives. */
static void test_full_peer(void **state)
{
    struct rpc_rig_side srv, cli;
    struct rpc_conn *c;
    struct rpc_config sc = config(RPC_ROLE_METAD, true, SILENT_MS),
                      cc = config(RPC_ROLE_CLIENT, true, SILENT_MS);
    (void)state;
    rpc_rig_side_start(&srv, &sc, true);
    rpc_rig_side_start(&cli, &cc, false);
    struct rpc_rig_counter n = {.s = &cli};
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, NULL, &c), 0);
    for (int i = 0; i < 100; i++) { /* 100 MiB, of which it holds 64 */
        struct buf *b = buf_new(1u << 20);
        b->len = 1u << 20;
        memset(b->data, 7, b->len);
        rpc_rig_call_ino(c, NEVER, b, NEVER_MS, rpc_rig_count_done, &n);
    }
    rpc_rig_wait(&srv, &srv.nkept, 60);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 4 * SILENT_MS), -ERR_TIMEOUT);
    assert_true(rpc_conn_alive(c));
    assert_int_equal(n.bad, 0);
    for (int done = 0; done < 100;) {
        pthread_mutex_lock(&srv.lock);
        struct rpc_req *req = srv.nkept ? srv.kept[--srv.nkept] : NULL;
        pthread_mutex_unlock(&srv.lock);
        if (req) {
            rpc_rig_echo_reply(req);
            done++;
        } else {
            usleep(1000);
        }
    }
    rpc_rig_wait(&cli, &n.ok, 100);
    assert_int_equal(n.bad, 0);
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
    rpc_rig_side_stop(&srv);
}

static void count_ping(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct rpc_rig_counter *n = arg;
    rpc_rig_count_done(n, code == 0 || rep ? 0 : code, rep, payload);
}

/* rpc_ping, and the number that tells one program behind two addresses from two programs. */
static void test_who_is_there(void **state)
{
    struct rpc_rig_side a, b, cli;
    struct rpc_conn *c[3];
    struct rpc_config sc = config(RPC_ROLE_METAD, true, 0), cc = config(RPC_ROLE_CLIENT, true, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    char other[64], nobody[64];
    int port;
    (void)state;
    rpc_rig_side_start(&a, &sc, true);
    rpc_rig_side_start(&b, &sc, true);
    rpc_rig_side_start(&cli, &cc, false);
    struct rpc_rig_counter n = {.s = &cli};
    assert_int_equal(rpc_listen(a.loop, "127.0.0.1:0", &a.svc, &port), 0);
    snprintf(other, sizeof other, "127.0.0.1:%d", port);
    const char *addr[3] = {a.addr, other, b.addr};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rpc_dial(cli.loop, addr[i], RPC_ROLE_METAD, NULL, &c[i]), 0);
        rpc_ping(c[i], NEVER_MS, count_ping, &n);
    }
    rpc_rig_wait(&cli, &n.ok, 3);
    assert_true(rpc_conn_peer(c[0])->instance != 0);
    assert_true(rpc_conn_peer(c[0])->instance == rpc_conn_peer(c[1])->instance);
    assert_true(rpc_conn_peer(c[0])->instance != rpc_conn_peer(c[2])->instance);
    for (int i = 0; i < 3; i++)
        rpc_conn_unref(c[i]);
    /* nobody is there */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    snprintf(nobody, sizeof nobody, "127.0.0.1:%d", ntohs(sa.sin_port));
    assert_int_equal(rpc_dial(cli.loop, nobody, RPC_ROLE_METAD, NULL, &c[0]), 0);
    rpc_ping(c[0], NEVER_MS, count_ping, &n);
    rpc_rig_wait(&cli, &n.bad, 1);
    rpc_conn_unref(c[0]);
    close(fd);
    rpc_rig_side_stop(&cli);
    rpc_rig_side_stop(&b);
    rpc_rig_side_stop(&a);
}

/* ---- the decision alone, under a made-up clock ---- */

#define MS NSEC_PER_MSEC
#define SILENT (2000 * MS)

struct line { /* a peer as seen from here */
    struct alive a;
    struct alive_now n;
    int64_t asked; /* when first, 0: not yet */
};

/* Looks as often as it is told to, until it gives up or `until` is over; the time when it gave up, or 0. */
static int64_t watch(struct line *l, int64_t until, void (*each)(struct line *l))
{
    l->n.silent = SILENT;
    l->n.waits = true;
    for (int64_t next = alive_first(l->n.now, SILENT); next <= until;) {
        l->n.now = next > l->n.now ? next : l->n.now;
        l->n.due = next;
        if (each)
            each(l);
        switch (alive_look(&l->a, &l->n, &next)) {
        case ALIVE_DEAD:
            return l->n.now;
        case ALIVE_ASK:
            l->asked = l->asked ? l->asked : l->n.now;
            l->n.put += 30;
            l->n.queued += 30;
            alive_asked(&l->a, l->n.now, l->n.put, l->n.queued);
            break;
        case ALIVE_NOTHING:
            break;
        case ALIVE_REST:
            return 0;
        }
    }
    return 0;
}

static void kernel_takes_all(struct line *l)
{
    l->n.queued = 0;
}

static void takes_a_little(struct line *l)
{
    if (l->n.queued > 100)
        l->n.queued -= 100;
    else
        l->a.heard = l->n.now; /* it has come to the Ping */
    l->n.put += 1000;          /* while more is sent */
    l->n.queued += 1000 - 900;
    l->n.put -= 900;
}

static void runs_late(struct line *l)
{
    l->n.now += 1500 * MS;
    l->a.heard = l->n.now - 1; /* what had come is read before the next look */
}

static void test_decision(void **state)
{
    struct line l = {.a = {.heard = 1000 * MS}, .n = {.now = 1000 * MS}};
    (void)state;
    /* dead, with and without a kernel that takes what is sent */
    int64_t dead = watch(&l, 60000 * MS, kernel_takes_all);
    assert_in_range((dead - 1000 * MS) / MS, 1250, 2000);
    l = (struct line){.a = {.heard = 1000 * MS}, .n = {.now = 1000 * MS, .queued = 5000}};
    dead = watch(&l, 60000 * MS, NULL);
    assert_in_range((dead - 1000 * MS) / MS, 1250, 2000);
    /* silent for long before somebody asked: no sooner */
    l = (struct line){.a = {.heard = 1}, .n = {.now = 90000 * MS}};
    dead = watch(&l, 200000 * MS, kernel_takes_all);
    assert_in_range((dead - 90000 * MS) / MS, 1250, 2000);
    /* a slow line */
    l = (struct line){.a = {.heard = 1000 * MS}, .n = {.now = 1000 * MS, .queued = 20000}};
    assert_int_equal(watch(&l, 60000 * MS, takes_a_little), 0);
    assert_int_not_equal(l.asked, 0);
    /* we are late ourselves */
    l = (struct line){.a = {.heard = 1000 * MS}, .n = {.now = 1000 * MS}};
    assert_int_equal(watch(&l, 60000 * MS, runs_late), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stopped_over_tcp), cmocka_unit_test(test_stopped_over_unix),
        cmocka_unit_test(test_short_stop),       cmocka_unit_test(test_full_peer),
        cmocka_unit_test(test_who_is_there),     cmocka_unit_test(test_decision),
    };
    signal(SIGPIPE, SIG_IGN);
    log_init("test", getenv("TEST_LOG") ? LOG_LVL_DEBUG : LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
