/* Any bytes in the small files that daemons read when they start: replfs.id, replfs.seen, replfs.scrub, metad's high-water
 * mark, the configuration. The first byte chooses. They are refused with a code or give values that can be used,
 * and what is accepted can be written and read again. */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"
#include "base/log.h"
#include "chunkd/scrub_state.h"
#include "chunkd/seen.h"
#include "chunkd/store/store.h"
#include "metad/log/mlog_internal.h"
#include "tests/unit/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char dir[64];

static void clean_up(void)
{
    tree_remove(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init("fuzz_small_files", LOG_LVL_ERROR, "/dev/null");
    atexit(clean_up);
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO); /* what config_parse says of bad files; libFuzzer keeps its own */
    return !tree_make(dir, sizeof dir, "/dev/shm", "files");
}

static void put(const char *name, const void *p, size_t len)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert(fd >= 0 && write(fd, p, len) == (ssize_t)len);
    close(fd);
}

/* ---- replfs.id ---- */

static void read_id(const void *p, size_t len)
{
    struct store_id id, again;
    char path[96];
    put("replfs.id", p, len);
    int rc = store_id_read(dir, &id);
    assert(rc <= 0);
    snprintf(path, sizeof path, "%s/replfs.id", dir);
    unlink(path);
    if (rc)
        return;
    assert(memchr(id.cluster, 0, sizeof id.cluster));
    if (store_id_write(dir, &id))
        return; /* a cluster that is no UUID */
    assert(store_id_read(dir, &again) == 0 && again.chunkd == id.chunkd && again.disk == id.disk &&
           !strcmp(again.cluster, id.cluster));
    unlink(path);
}

static void try_id(const uint8_t *p, size_t len)
{
    char text[600];
    read_id(p, len);
    int n = snprintf(text, sizeof text, "%.*s", (int)(len < 500 ? len : 500), (const char *)p);
    if (n > 0 && text[n - 1] != '\n')
        text[n++] = '\n';
    n += snprintf(text + n, sizeof text - (size_t)n, "crc %08x\n", crc32c(0, text, (size_t)n));
    read_id(text, (size_t)n);
}

/* ---- replfs.seen ---- */

static void read_seen(const char *p, size_t len)
{
    struct seen s, again;
    char out[SEEN_TEXT_MAX];
    if (seen_parse(p, len, &s))
        return;
    assert(s.newest.nbefore <= SEEN_ANCESTORS && s.astray.nbefore <= SEEN_ANCESTORS);
    int n = seen_format(&s, out);
    assert(n > 0 && n < (int)sizeof out);
    assert(seen_parse(out, (size_t)n, &again) == 0);
    assert(!memcmp(&again.newest, &s.newest, sizeof s.newest) && again.seq == s.seq);
    assert(!memcmp(&again.astray, &s.astray, sizeof s.astray));
    assert(again.chunk_upto == s.chunk_upto && again.ino_upto == s.ino_upto &&
           again.chunkd_upto == s.chunkd_upto);
}

static void try_seen(const uint8_t *p, size_t len)
{
    char t[SEEN_TEXT_MAX];
    read_seen((const char *)p, len);
    int n = snprintf(t, 900, "%.*s", (int)(len < 800 ? len : 800), (const char *)p);
    if (n > 0 && t[n - 1] != '\n')
        t[n++] = '\n';
    n += snprintf(t + n, sizeof t - (size_t)n, "crc %08x\n", crc32c(0, t, (size_t)n));
    read_seen(t, (size_t)n);
}

/* ---- replfs.scrub ---- */

static void read_scrub(const uint8_t *p, size_t len)
{
    static struct scrub_state s, again;
    static uint8_t out[SCRUB_FILE_MAX];
    if (scrub_state_decode(&s, p, len))
        return;
    size_t n = scrub_state_encode(&s, out);
    assert(n == len && scrub_state_decode(&again, out, n) == 0 && !memcmp(&s, &again, sizeof s));
    if (s.pass == 0)
        return;
    scrub_state_clock(&s, INT64_MAX / 2); /* and it can be gone on with */
    assert(scrub_state_oldest(&s) <= INT64_MAX / 2);
    scrub_state_reached(&s, INT64_MAX / 2, s.chunk, s.off, 1000);
    scrub_state_begin(&s, INT64_MAX / 2, SCRUB_EVEN);
    assert(s.nprev <= SCRUB_MARKS_MAX && s.ncur == 1);
}

/* The bytes as they are; then with the frame set right: magic, version, length, checksum. */
static void try_scrub(const uint8_t *p, size_t len)
{
    static uint8_t file[SCRUB_FILE_MAX];
    read_scrub(p, len);
    if (len < 116)
        return;
    memcpy(file, p, len);
    memcpy(file, "RFSCRUB", 8);
    le_put32(file + 8, 1);
    le_put32(file + 12, (uint32_t)len);
    le_put32(file + len - 4, crc32c(0, file, len - 4));
    read_scrub(file, len);
}

/* ---- the high-water mark ---- */

static void try_hwm(const uint8_t *p, size_t len)
{
    uint8_t file[1024] = {0};
    for (int fixed = 0; fixed < 2; fixed++) {
        struct mlog_hwm h, again;
        memset(file, 0, sizeof file);
        memcpy(file, p, len < sizeof file ? len : sizeof file);
        for (size_t at = 0; fixed && at < sizeof file; at += 512) {
            le_put32(file + at, 0x4d485052u);
            le_put32(file + at + 36, crc32c(0, file + at, 36));
        }
        put("hwm", file, len < sizeof file && !fixed ? len : sizeof file);
        int rc = mlog_hwm_open(&h, dir, false);
        assert(rc <= 0);
        if (rc)
            continue;
        uint64_t next = h.index + 1;
        if (next && mlog_hwm_advance(&h, next, 1) == 0) {
            assert(mlog_hwm_open(&again, dir, false) == 0);
            assert(h.seq == 0 || again.index == next);
            mlog_hwm_close(&again);
        }
        mlog_hwm_close(&h);
    }
}

/* ---- configuration ---- */

static struct config_list list;
static char *text;
static bool flag;
static uint64_t number = 5, bytes, msec;

static const struct config_opt options[] = {
    {"data", CONFIG_LIST, &list, "DIR", "a list", 0, 0, false},
    {"listen", CONFIG_STRING, &text, "ADDR", "a string", 0, 0, false},
    {"insecure", CONFIG_BOOL, &flag, NULL, "a switch", 0, 0, false},
    {"threads", CONFIG_UINT, &number, "N", "a number", 1, 256, false},
    {"capacity", CONFIG_SIZE, &bytes, "SIZE", "a size", 0, 1ull << 50, false},
    {"dead", CONFIG_MSEC, &msec, "TIME", "a time", 10, 100000, false},
    {NULL, CONFIG_STRING, NULL, NULL, NULL, 0, 0, false},
};

static void try_config(const uint8_t *p, size_t len)
{
    char path[96], arg[2048] = "";
    char *argv[] = {"fuzz", path, arg, NULL}, **rest;
    int nrest;
    bool stop = false;
    put("conf", p, len);
    snprintf(path, sizeof path, "--config=%s/conf", dir);
    /* a line of it as an argument, too */
    snprintf(arg, sizeof arg, "--%.*s", (int)(len < 1000 ? len : 1000), (const char *)p);
    arg[strcspn(arg, "\n")] = '\0';
    bool safe = strncmp(arg, "--h", 3) && strncmp(arg, "--v", 3); /* --help and --version print */
    number = 5;
    bytes = msec = 0;
    flag = false;
    int rc =
        config_parse(options, "fuzz", "usage\n", NULL, safe ? 3 : 2, argv, &rest, &nrest, &stop);
    if (rc == 0) {
        assert(number >= 1 && number <= 256 && bytes <= 1ull << 50);
        assert(msec == 0 || (msec >= 10 && msec <= 100000));
        for (size_t i = 0; i < list.n; i++)
            assert(list.items[i]);
    }
    config_free(options);
    list = (struct config_list){0};
    text = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 4096)
        return 0;
    if (data[0] == 's') {
        try_scrub(data + 1, size - 1);
        return 0;
    }
    switch (data[0] % 4) {
    case 0:
        try_id(data + 1, size - 1);
        break;
    case 1:
        try_hwm(data + 1, size - 1);
        break;
    case 3:
        try_seen(data + 1, size - 1);
        break;
    default:
        try_config(data + 1, size - 1);
    }
    return 0;
}
