/* Which chunkds get copies of the names, and what: metad/backup/copies.c with real chunkds, and a stand-in for the log.
 * Whatever becomes of chunkds, of their disks, of metad's directory: there are copies again, also when nothing is changed
 * meanwhile; and answers that wait for copies (meta-copies-sync) wait no longer than they have to. */
#include <fcntl.h>
#include <signal.h>

#include "chunkd_rig.h"
#include "metad/backup/copies.h"
#include "metad/fsm/fsm_cluster.h"
#include "metad/log/entry.h"
#include "names_file.h"

/* ---- the log, and nodes ---- */

struct mlog {
    struct copies *copies;
    char dir[128];
    uint64_t index, term, checkpoint, leading;
    unsigned checkpoints;
};
static struct mlog mlog;
static struct fsm *fsm;
static bool hidden[CHUNKD_RIG_NODES + 1]; /* from metad; chunkd_rig.mu */

const char *mlog_uuid(struct mlog *m)
{
    (void)m;
    return CHUNKD_RIG_CLUSTER;
}

void mlog_status(struct mlog *m, struct mlog_status *out)
{
    *out = (struct mlog_status){.leader = true, .term = m->term, .applied = m->index};
}

uint64_t mlog_leading(struct mlog *m)
{
    return m->leading;
}

int mlog_ckpt_path(char *out, size_t size, const char *dir, uint64_t index)
{
    snprintf(out, size, "%s/checkpoint-%llu", dir, (unsigned long long)index);
    return 0;
}

/* As the real one: none when nothing has changed since the last. */
int mlog_checkpoint(struct mlog *m)
{
    char path[256];
    uint8_t state[5000];

    if (m->index <= m->checkpoint)
        return 0;
    m->checkpoint = m->index;
    m->checkpoints++;
    chunkd_rig_fill(state, sizeof(state), m->index);
    mlog_ckpt_path(path, sizeof(path), m->dir, m->index);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, state, sizeof(state)), sizeof(state));
    close(fd);
    const struct mlog_observer *o = copies_observer(m->copies);
    o->saved(o->arg, m->index, sizeof(state), crc32c(0, state, sizeof(state)));
    return 0;
}

size_t nodes_conns(struct nodes *n, struct nodes_conn *out, size_t max)
{
    size_t have = 0;

    (void)n, (void)max;
    pthread_mutex_lock(&chunkd_rig.mu);
    for (uint32_t i = 1; i <= CHUNKD_RIG_NODES; i++) {
        struct rpc_conn *c = chunkd_rig.node[i].conn;
        if (!c || hidden[i] || !rpc_conn_alive(c))
            continue;
        out[have] = (struct nodes_conn){.chunkd = i, .host = i, .conn = rpc_conn_ref(c)};
        snprintf(out[have++].host_name, sizeof(out[0].host_name), "host%u", i);
    }
    pthread_mutex_unlock(&chunkd_rig.mu);
    return have;
}

static void hide(unsigned chunkd, bool hide)
{
    pthread_mutex_lock(&chunkd_rig.mu);
    hidden[chunkd] = hide;
    pthread_mutex_unlock(&chunkd_rig.mu);
}

static void change(unsigned n)
{
    const struct mlog_observer *o = copies_observer(mlog.copies);
    uint8_t buf[128];

    for (unsigned i = 0; i < n; i++) {
        mlog.index += 1 + i % 2; /* not each index has an entry of ours */
        size_t pos = entry_put(buf, ENTRY_HEADER, &mlog.index, sizeof(mlog.index));
        size_t len = entry_finish(buf, pos, 1, mlog.index, ENTRY_VERSION);
        o->applied(o->arg, mlog.index, mlog.term, buf, len);
    }
}

/* Metad starts on a directory that ends at that index. */
static void metad_begins(uint64_t index, uint64_t term)
{
    mlog.copies = copies_new(mlog.dir, fsm);
    mlog.index = index;
    mlog.checkpoint = 0;
    mlog.term = term;
    const struct mlog_observer *o = copies_observer(mlog.copies);
    o->restored(o->arg, index);
    change(1); /* a metad that begins to lead says so */
    assert_int_equal(copies_start(mlog.copies, &mlog, NULL, mlog.leading + 2), -ERR_NOT_LEADER);
    mlog.leading++;
    assert_int_equal(copies_start(mlog.copies, &mlog, (struct nodes *)&mlog, mlog.leading), 0);
}

static void metad_ends(void)
{
    copies_stop(mlog.copies);
    copies_free(mlog.copies);
    mlog.copies = NULL;
}

static void begin(unsigned chunkds)
{
    for (unsigned i = 1; i <= chunkds; i++)
        chunkd_rig_chunkd_start(i, 1);
    fsm_setting_offer(fsm, SETTING_META_COPIES, 3);
    snprintf(mlog.dir, sizeof(mlog.dir), "%s/metad", chunkd_rig.dir);
    assert_int_equal(mkdir(mlog.dir, 0700), 0);
    metad_begins(100, 1);
}

/* ---- what there is ---- */

static bool status_of(uint32_t chunkd, struct nodes_names *out)
{
    struct nodes_names v[NODES_NAMES_MAX];
    struct nodes_names_all all;
    size_t n = copies_status(mlog.copies, v, NODES_NAMES_MAX, &all);

    for (size_t i = 0; i < n; i++)
        if (v[i].chunkd == chunkd) {
            *out = v[i];
            return true;
        }
    return false;
}

static bool has_all(uint32_t chunkd)
{
    struct nodes_names s;

    return status_of(chunkd, &s) && s.generation != 0 && s.reached == mlog.index && !s.error[0];
}

/* Or nobody waits for it. */
static bool has_all_or_late(uint32_t chunkd)
{
    struct nodes_names s;

    return status_of(chunkd, &s) && (s.late || (s.generation != 0 && s.reached == mlog.index));
}

static bool complains(uint32_t chunkd)
{
    struct nodes_names s;

    return status_of(chunkd, &s) && s.generation == 0 && s.error[0];
}

static bool is_unsynced(void)
{
    struct nodes_names v[NODES_NAMES_MAX];
    struct nodes_names_all all;

    copies_status(mlog.copies, v, NODES_NAMES_MAX, &all);
    return all.unsynced;
}

static void names_dir(char *out, size_t size, unsigned i)
{
    snprintf(out, size, "%s/%u-0/names", chunkd_rig.dir, i);
}

/* ---- tests ---- */

static int setup(void **state)
{
    memset(&mlog, 0, sizeof(mlog));
    memset(hidden, 0, sizeof(hidden));
    return chunkd_rig_setup(state) == 0 ? fsm_new(&fsm) : -1;
}

static int teardown(void **state)
{
    if (mlog.copies)
        metad_ends();
    fsm_free(fsm);
    return chunkd_rig_teardown(state);
}

static void test_copies_follow(void **state)
{
    struct nodes_names s;

    (void)state;
    begin(4);
    WAIT_UNTIL(has_all(1) && has_all(2) && has_all(3));
    change(100);
    WAIT_UNTIL(has_all(1) && has_all(2) && has_all(3));
    assert_false(status_of(4, &s));
    fsm_setting_offer(fsm, SETTING_META_COPIES, 4); /* said while it runs: it holds at once */
    change(1);
    WAIT_UNTIL(has_all(4));
    fsm_setting_offer(fsm, SETTING_META_COPIES, 1);
    WAIT_UNTIL(has_all(1) && !status_of(2, &s) && !status_of(3, &s) && !status_of(4, &s));
}

/* A chunkd that starts again goes on where it was, also when its copy has no entry behind the checkpoint, and nothing is
 * changed meanwhile: no new checkpoint can be made then. */
static void test_start_again_in_quiet(void **state)
{
    (void)state;
    begin(1);
    WAIT_UNTIL(has_all(1));
    unsigned checkpoints = mlog.checkpoints;
    chunkd_rig_chunkd_stop(1);
    chunkd_rig_chunkd_start(1, 1);
    WAIT_UNTIL(has_all(1));
    change(10);
    WAIT_UNTIL(has_all(1));
    chunkd_rig_chunkd_stop(1);
    chunkd_rig_chunkd_start(1, 1);
    WAIT_UNTIL(has_all(1));
    assert_int_equal(mlog.checkpoints, checkpoints);
}

/* One whose disk was lost gets what it had, though nothing was changed meanwhile. */
static void test_lost_disk_in_quiet(void **state)
{
    char names[160];

    (void)state;
    begin(1);
    WAIT_UNTIL(has_all(1));
    chunkd_rig_chunkd_stop(1);
    names_dir(names, sizeof(names), 1);
    tree_remove(names);
    chunkd_rig_chunkd_start(1, 1);
    WAIT_UNTIL(has_all(1) && access(names, F_OK) == 0);
}

/* A directory that was made of an older copy: its numbers are below those that chunkds have, and its entries are others,
 * but it is what counts from now on. */
static void test_older_directory(void **state)
{
    (void)state;
    begin(2);
    change(50);
    WAIT_UNTIL(has_all(1) && has_all(2));
    metad_ends();
    metad_begins(40, names_next_life(mlog.term, 1000));
    WAIT_UNTIL(has_all(1) && has_all(2));
    change(3);
    WAIT_UNTIL(has_all(1) && has_all(2));
}

/* The same numbers and the same entries, in another life: the copy of before stays as it is, and is not written on. */
static void test_other_life_begins_anew(void **state)
{
    struct nodes_names before, after;

    (void)state;
    begin(1);
    WAIT_UNTIL(has_all(1) && status_of(1, &before));
    metad_ends();
    metad_begins(100, names_next_life(mlog.term, 1000)); /* the entry is the same as before */
    mlog.checkpoint = 0;
    change(5);
    WAIT_UNTIL(has_all(1) && status_of(1, &after));
    assert_true(after.generation > before.generation);
}

/* One that takes nothing keeps its place, with the reason, while there is no other; then it is well again. */
static void test_failing_without_another(void **state)
{
    char names[160];

    (void)state;
    hide(1, true);
    begin(2);
    names_dir(names, sizeof(names), 1);
    close(open(names, O_WRONLY | O_CREAT, 0600)); /* where its folder should be */
    hide(1, false);
    int64_t until = clock_mono() + 8 * NSEC_PER_SEC; /* more than three tries take */
    WAIT_UNTIL(complains(1));
    WAIT_UNTIL(complains(1) && has_all(2) && clock_mono() > until);
    unlink(names);
    change(1);
    WAIT_UNTIL(has_all(1));
}

/* The highest term that the chunkd has heard of. */
static uint64_t term_of(unsigned chunkd)
{
    struct rpc_config rc = {.role = RPC_ROLE_ADMIN, .name = "test", .threads = 1};
    Replfs__NamesGetReq r = REPLFS__NAMES_GET_REQ__INIT;
    struct rpc_result res;
    struct rpc_loop *loop;
    struct rpc_conn *c;

    assert_int_equal(rpc_loop_new(&rc, &loop), 0);
    assert_int_equal(
        rpc_dial(loop, chunkd_addr(chunkd_rig.chunkd[chunkd]), RPC_ROLE_CHUNKD, NULL, &c), 0);
    RPC_ENVELOPE(env, NAMES_GET_REQ, names_get_req, &r);
    assert_int_equal(rpc_call_wait(c, &env, NULL, 10000, &res), 0);
    uint64_t term = res.rep->names_get_reply->term;
    rpc_result_free(&res);
    rpc_conn_unref(c);
    rpc_loop_free(loop);
    return term;
}

/* A metad that has heard of the next leader, and not yet ended its own leadership, sends nothing in that one's name. */
static void test_own_term(void **state)
{
    (void)state;
    begin(1);
    WAIT_UNTIL(has_all(1));
    assert_int_equal(term_of(1), 1);
    mlog.term = 2;
    change(5);
    WAIT_UNTIL(has_all(1));
    assert_int_equal(term_of(1), 1);
}

/* A checkpoint that was damaged on metad's disk since it was made is nobody's copy; the next one is. */
static void test_damaged_checkpoint(void **state)
{
    char path[256];
    struct nodes_names s;

    (void)state;
    begin(1);
    WAIT_UNTIL(has_all(1) && status_of(1, &s));
    mlog_ckpt_path(path, sizeof(path), mlog.dir, s.generation);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "damage", 6, 100), 6);
    close(fd);
    fsm_setting_offer(fsm, SETTING_META_COPIES, 2);
    chunkd_rig_chunkd_start(2, 1); /* gets it first */
    WAIT_UNTIL(complains(2));
    change(3);
    WAIT_UNTIL(has_all(2) && has_all(1));
}

/* ---- meta-copies-sync ---- */

struct waiting {
    struct copies_wait w;
    int code, calls;
    int64_t at;
};

static void done(struct copies_wait *w, int code)
{
    struct waiting *x = (struct waiting *)w;

    x->code = code;
    x->at = clock_mono();
    __atomic_add_fetch(&x->calls, 1, __ATOMIC_RELEASE);
}

static void wait_for_copies(struct waiting *x)
{
    *x = (struct waiting){.w = {.index = mlog.index, .done = done}};
    copies_wait(mlog.copies, &x->w);
}

#define IS_DONE(x) (__atomic_load_n(&(x)->calls, __ATOMIC_ACQUIRE) > 0)

static void test_sync_waits(void **state)
{
    struct waiting x[50];

    (void)state;
    fsm_setting_offer(fsm, SETTING_META_COPIES_SYNC, 1);
    begin(2);
    WAIT_UNTIL(has_all(1) && has_all(2));
    for (unsigned i = 0; i < 50; i++) {
        change(1);
        wait_for_copies(&x[i]);
    }
    for (unsigned i = 0; i < 50; i++) {
        WAIT_UNTIL(IS_DONE(&x[i]));
        assert_int_equal(x[i].code, 0);
        assert_int_equal(x[i].calls, 1);
    }
    assert_true(has_all_or_late(1) && has_all_or_late(2)); /* whoever was let go can look there */
}

/* Without any copy nobody is held for ever: it is said, and ends by itself. */
static void test_sync_without_copies(void **state)
{
    struct waiting x, y, z;

    (void)state;
    fsm_setting_offer(fsm, SETTING_META_COPIES_SYNC, 1);
    begin(1);
    WAIT_UNTIL(has_all(1));
    chunkd_rig_chunkd_stop(1);
    change(1);
    wait_for_copies(&x);
    WAIT_UNTIL(IS_DONE(&x));
    assert_int_equal(x.code, 0);
    WAIT_UNTIL(is_unsynced());
    int64_t now = clock_mono();
    change(1);
    wait_for_copies(&y); /* the next one does not wait as long again */
    WAIT_UNTIL(IS_DONE(&y));
    assert_true(y.at - now < 2 * NSEC_PER_SEC);
    chunkd_rig_chunkd_start(1, 1);
    WAIT_UNTIL(has_all(1) && !is_unsynced());
    change(1);
    wait_for_copies(&z);
    WAIT_UNTIL(IS_DONE(&z));
    assert_true(has_all(1));
}

/* Who waits when leadership ends is told so; who comes later, at once. */
static void test_sync_ends(void **state)
{
    struct waiting x, y;

    (void)state;
    fsm_setting_offer(fsm, SETTING_META_COPIES_SYNC, 1);
    begin(1);
    WAIT_UNTIL(has_all(1));
    chunkd_rig_chunkd_stop(1);
    change(1);
    wait_for_copies(&x);
    copies_stop(mlog.copies);
    assert_int_equal(x.calls, 1);
    assert_int_equal(x.code, -ERR_NOT_LEADER);
    wait_for_copies(&y);
    assert_int_equal(y.code, -ERR_NOT_LEADER);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_copies_follow),
        TEST(test_start_again_in_quiet),
        TEST(test_lost_disk_in_quiet),
        TEST(test_older_directory),
        TEST(test_other_life_begins_anew),
        TEST(test_failing_without_another),
        TEST(test_own_term),
        TEST(test_damaged_checkpoint),
        TEST(test_sync_waits),
        TEST(test_sync_without_copies),
        TEST(test_sync_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
