/* Small files that are read before anybody asks for them: once the second file of a listed directory is opened,
 * those behind it are fetched, and what was fetched counts only while nobody changes the file. */
#include "client_rig_names.h"

enum { FILES = 10, BYTES = 3000 };

static uint8_t data[FILES][BYTES];
static uint64_t ino[FILES], dir;

/* FILES files that are committed and closed, and listed. */
static int files_setup(void **st)
{
    if (client_rig_leased_setup(st))
        return -1;
    dir = client_rig_mkdir("dir");
    for (unsigned i = 0; i < FILES; i++) {
        char name[8];
        off_t off = 0;
        struct cfile *f = NULL;
        snprintf(name, sizeof name, "f%u", i);
        Replfs__Attr a = client_rig_create(dir, name, S_IFREG | 0644);
        ino[i] = a.ino;
        memset(data[i], (int)i + 1, BYTES);
        assert_int_equal(cfile_open_new(client_rig.cl, &a, &f), 0);
        assert_int_equal(cfile_write(f, data[i], BYTES, &off, 0), 0);
        assert_int_equal(cfile_fsync(f), 0);
        cfile_close(f);
    }
    return 0;
}

static void list(void)
{
    struct dir_page *p = NULL;
    bool again;
    assert_int_equal(client_list(client_rig.cl, dir, 0, true, 0, &p, &again), 0);
    assert_int_equal(dir_page_entries(p)->n_entries, FILES);
    dir_page_unref(p);
}

static unsigned reads(void) /* client_rig.mu held */
{
    unsigned n = 0;
    for (unsigned i = 1; i <= CLIENT_RIG_NODES; i++)
        n += client_rig.node[i].reads;
    return n;
}

static struct cfile *open_file(unsigned i)
{
    struct cfile *f = NULL;
    assert_int_equal(cfile_open(client_rig.cl, ino[i], false, NULL, &f), 0);
    return f;
}

static void open_and_close(unsigned i)
{
    cfile_close(open_file(i));
}

/* As it is by now: of so many bytes. */
static void expect(unsigned i, size_t len)
{
    struct cfile *f = open_file(i);
    struct buf *b = NULL;
    assert_int_equal(cfile_read(f, 0, 2 * BYTES, &b), 0);
    assert_int_equal(b->len, len);
    assert_memory_equal(b->data, data[i], len);
    buf_unref(b);
    cfile_close(f);
}

static unsigned reads_now(void)
{
    client_rig_lock();
    unsigned n = reads();
    client_rig_unlock();
    return n;
}

static void fetch_ahead(void)
{
    list();
    open_and_close(0);
    open_and_close(1);
    client_rig_wait(reads() == FILES - 2); /* all behind the second */
}

static void test_read_without_asking(void **st)
{
    (void)st;
    fetch_ahead();
    assert_true(client_rig_get(asked[REPLFS__ENVELOPE__BODY_LAYOUTS_REQ]) > 0);
    for (unsigned i = 2; i < FILES; i++)
        expect(i, BYTES);
    assert_int_equal(reads_now(), FILES - 2);
}

/* Another makes it shorter, after it was fetched. */
static void test_changed_by_another(void **st)
{
    (void)st;
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    fetch_ahead();
    s.ino = ino[5];
    s.valid = REPLFS__SETATTR_OP__VALID__SIZE;
    s.size = 10;
    assert_int_equal(MUTATE(SETATTR, setattr, &s).code, 0);
    expect(5, 10);
    assert_int_equal(reads_now(), FILES - 1); /* asked for anew */
    expect(6, BYTES);
    assert_int_equal(reads_now(), FILES - 1);
}

/* One file of a list says nothing of the others; nor do files that were not listed. */
static void test_no_reason(void **st)
{
    (void)st;
    open_and_close(3);
    open_and_close(4);
    list();
    expect(0, BYTES);
    assert_int_equal(reads_now(), 1);
    assert_int_equal(client_rig_get(asked[REPLFS__ENVELOPE__BODY_LAYOUTS_REQ]), 0);
}

/* A chunkd has damaged bytes: what is read ahead went through the same checks as any read. */
static void test_damaged(void **st)
{
    (void)st;
    client_rig_set(corrupt_reads, 3);
    list();
    open_and_close(0);
    open_and_close(1);
    client_rig_wait(client_rig.bad_reports == 3);
    for (unsigned i = 2; i < FILES; i++)
        expect(i, BYTES);
}

#define T(f) cmocka_unit_test_setup_teardown(f, files_setup, client_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_read_without_asking), T(test_changed_by_another),
                                       T(test_no_reason), T(test_damaged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
