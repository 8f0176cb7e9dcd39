/* Mount options: addresses, values, kernel flags, refusals by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fuse/options.h"

static char err[1536];

static int parse(struct options *o, bool root, const char *const *args)
{
    char *argv[32] = {"mount.replfs"};
    int argc = 1;
    for (; args[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)args[argc - 1];
    err[0] = '\0';
    return options_parse(o, argc, argv, root, err, sizeof err);
}
#define PARSE(o, root, ...) parse(o, root, (const char *const[]){__VA_ARGS__, NULL})
#define ARGV(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

/* Refused, with every one of the words in the message. */
static void refused(const char *const *args, const char *const *words)
{
    struct options o;
    assert_int_not_equal(parse(&o, true, args), 0);
    for (; *words; words++)
        if (!strstr(err, *words))
            fail_msg("'%s' not in: %s", *words, err);
    options_free(&o);
}

static void addresses(void **state)
{
    static const char *const cases[][2] = {
        {"meta", "meta:7000"},
        {"meta:71", "meta:71"},
        {"10.0.0.1", "10.0.0.1:7000"},
        {"[::1]", "[::1]:7000"},
        {"[fe80::1]:9", "[fe80::1]:9"},
        {"fe80::1", "[fe80::1]:7000"},
        {"", NULL},
        {":7000", NULL},
        {"meta:", NULL},
        {"meta:0", NULL},
        {"meta:65536", NULL},
        {"meta:7x", NULL},
        {"me ta", NULL},
        {"host:/export", NULL},
        {"[::1", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *a = options_addr(cases[i][0], strlen(cases[i][0]));
        if (cases[i][1])
            assert_string_equal(a, cases[i][1]);
        else
            assert_null(a);
        free(a);
    }
}

static void by_hand(void **state)
{
    struct options o;
    (void)state;
    assert_int_equal(PARSE(&o, true, "m1,m2:71", "/mnt/x", "-f"), 0);
    assert_int_equal(o.nmetads, 2);
    assert_string_equal(o.metads[0], "m1:7000");
    assert_string_equal(o.metads[1], "m2:71");
    assert_string_equal(o.spec, "m1,m2:71");
    assert_string_equal(o.mountpoint, "/mnt/x");
    assert_true(o.foreground);
    assert_true(o.allow_other);
    assert_false(o.sync);
    assert_int_equal(o.timeout_ms, 60000);
    assert_string_equal(o.kernel, "");
    options_free(&o);
}

/* As mount(8) calls a helper for an fstab line. */
static void by_mount(void **state)
{
    struct options o;
    (void)state;
    assert_int_equal(
        PARSE(&o, true, "meta", "/mnt", "-n", "-v", "-o",
              "ro,nosuid,_netdev,nofail,x-systemd.automount,noatime,relatime,comment=a b", "-t",
              "replfs"),
        0);
    assert_string_equal(o.kernel, "ro,nosuid,noatime");
    assert_false(o.foreground);
    assert_true(o.ro);
    assert_true(o.noatime);
    options_free(&o);
    assert_int_equal(PARSE(&o, true, "-orw,timeout=5s", "-osync", "meta", "/mnt"), 0);
    assert_int_equal(o.timeout_ms, 5000);
    assert_true(o.sync);
    options_free(&o);
}

static void values(void **state)
{
    struct options o;
    (void)state;
    assert_int_equal(
        PARSE(&o, true, "m", "/mnt", "-o",
              "dirty_max=64M,host_id=h1,tls_cert=/c,tls_key=/k,tls_ca=/a,insecure,"
              "log_file=/l,max_threads=7,no_allow_other,debug,nodev,dirty_max=32M,async"),
        0);
    assert_int_equal(o.dirty_max, 32u << 20);
    assert_string_equal(o.host_id, "h1");
    assert_string_equal(o.tls_cert, "/c");
    assert_string_equal(o.log_file, "/l");
    assert_int_equal(o.max_threads, 7);
    assert_false(o.allow_other);
    assert_true(o.insecure);
    assert_true(o.foreground); /* by debug */
    assert_string_equal(o.kernel, "nodev");
    options_free(&o);
}

static void not_root(void **state)
{
    struct options o;
    (void)state;
    assert_int_equal(PARSE(&o, false, "m", "/mnt"), 0);
    assert_false(o.allow_other);
    assert_string_equal(o.kernel, "");
    options_free(&o);
    assert_int_equal(PARSE(&o, false, "m", "/mnt", "-o", "allow_other"), 0);
    assert_true(o.allow_other);
    options_free(&o);
}

/* As mount(8) has them from the kernel's table. */
static void remount(void **state)
{
    struct options o;
    (void)state;
    char table[] = "ro,nodev,relatime,user_id=0,group_id=0,default_permissions,allow_other,max_"
                   "read=131072,remount";
    char *argv[] = {"mount.fuse.replfs", "m", "/mnt", "-o", table};
    assert_int_equal(options_parse(&o, 5, argv, true, err, sizeof err), 0);
    assert_true(o.remount);
    assert_string_equal(o.kernel, "ro,nodev");
    options_free(&o);
}

static void refusals(void **state)
{
    (void)state;
    refused(ARGV("m", "/mnt", "-o", "rw,tiemout=5"), ARGV("'tiemout'", "timeout=", "dirty_max="));
    refused(ARGV("m", "/mnt", "-o", "timeout=soon"), ARGV("'timeout'", "'soon'", "30s"));
    refused(ARGV("m", "/mnt", "-o", "timeout"), ARGV("timeout=TIME"));
    refused(ARGV("m", "/mnt", "-o", "dirty_max=1"), ARGV("dirty_max", "range"));
    refused(ARGV("m", "/mnt", "-o", "max_threads=-1"), ARGV("max_threads", "number"));
    refused(ARGV("m", "/mnt", "-o", "sync=yes"), ARGV("'sync'", "no value"));
    refused(ARGV("m", "/mnt", "-o", "ro=1"), ARGV("'ro'"));
    refused(ARGV("m", "/mnt", "-o", "tls_cert=/c"), ARGV("tls_key", "tls_ca"));
    refused(ARGV("m", "/mnt", "-o", "remount=1"), ARGV("'remount'"));
    refused(ARGV("m", "/mnt", "-o", "retry=soon"), ARGV("retry", "number"));
    refused(ARGV("m", "/mnt", "-o"), ARGV("-o"));
    refused(ARGV("m", "/mnt", "/more"), ARGV("/more"));
    refused(ARGV("m", "/mnt", "-x"), ARGV("-x"));
    refused(ARGV("m", "/mnt", "--bad"), ARGV("--bad"));
    refused(ARGV("m,", "/mnt"), ARGV("HOST:PORT"));
    refused(ARGV("host:/export", "/mnt"), ARGV("'host:/export'"));
    refused(ARGV("m"), ARGV("where", "usage"));
    refused(ARGV("a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "/mnt"), ARGV("more than 16"));
}

static void sloppy(void **state)
{
    struct options o;
    (void)state;
    assert_int_equal(PARSE(&o, true, "m", "/mnt", "-s", "-o", "strange,ro"), 0);
    assert_string_equal(o.kernel, "ro");
    options_free(&o);
}

static void help(void **state)
{
    struct options o;
    (void)state;
    assert_int_equal(PARSE(&o, true, "--help"), 0);
    assert_true(o.help);
    options_free(&o);
    assert_non_null(strstr(options_usage(), "no_allow_other"));
    assert_non_null(strstr(options_usage(), "See mount.replfs(8)"));
}

/* Ours, except that the table of mounts shows noatime. */
static void access_times(void **state)
{
    struct options o;
    (void)state;
    assert_int_equal(PARSE(&o, true, "m", "/mnt"), 0);
    assert_false(o.ro || o.noatime || o.strictatime || o.nodiratime);
    options_free(&o);
    assert_int_equal(PARSE(&o, true, "m", "/mnt", "-o", "nodiratime,ro,rw,noatime,atime,relatime"),
                     0);
    assert_true(o.nodiratime);
    assert_false(o.ro || o.noatime || o.strictatime);
    assert_string_equal(o.kernel, "ro,rw");
    options_free(&o);
    assert_int_equal(PARSE(&o, true, "m", "/mnt", "-o", "strictatime,noatime,diratime"), 0);
    assert_true(o.strictatime);
    assert_false(o.noatime || o.nodiratime);
    assert_string_equal(o.kernel, "");
    options_free(&o);
    assert_int_equal(PARSE(&o, true, "m", "/mnt", "-o", "dirsync,async_close"), 0);
    assert_true(o.dirsync && o.async_close && !o.sync);
    assert_string_equal(o.kernel, "dirsync");
    options_free(&o);
    assert_int_equal(PARSE(&o, true, "m", "/mnt", "-r", "-o", "strictatime,nostrictatime"), 0);
    assert_true(o.ro);
    assert_false(o.strictatime);
    options_free(&o);
    refused(ARGV("m", "/mnt", "-o", "noatime=1"), ARGV("noatime", "takes no value"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),    cmocka_unit_test(by_hand),  cmocka_unit_test(by_mount),
        cmocka_unit_test(values),       cmocka_unit_test(not_root), cmocka_unit_test(remount),
        cmocka_unit_test(refusals),     cmocka_unit_test(sloppy),   cmocka_unit_test(help),
        cmocka_unit_test(access_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
